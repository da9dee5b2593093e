"""Fixtures every test may use."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Iterator

import pytest

from deepfake_fpga.inference.devices import sim_available
from deepfake_fpga.inference.devices.sim import PACKAGES_MISSING

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / "tests" / "data"


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: Any) -> Iterator[None]:
    """A test that opened ``sim`` where its packages are missing is skipped, with that reason."""
    outcome = yield
    available, lacking = sim_available()
    # In a child process the error comes with the words of the parent around it.
    if not available and call.excinfo is not None and PACKAGES_MISSING in str(call.excinfo.value):
        report = outcome.get_result()
        path, line, _ = item.location
        report.outcome = "skipped"
        report.longrepr = (path, line, f"Skipped: {lacking}")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of recordings and vendor files beside the checkout; skips where it is absent."""
    folder = Path(os.environ.get("DEEPFAKE_FPGA_SHARED", str(ROOT.parent / "shared")))
    if not (folder / "golden").is_dir():
        pytest.skip(f"no recordings at {folder} (set DEEPFAKE_FPGA_SHARED)")
    return folder


@pytest.fixture(scope="session", autouse=True)
def engine_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Keeps engines of the tests out of the user's cache, in this process and its children."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DEEPFAKE_FPGA_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Torch on one thread, as the recordings were made, and quicker for what is small."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def data() -> Path:
    """The repository's own recordings and fixtures."""
    return DATA
