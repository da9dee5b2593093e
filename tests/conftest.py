"""Fixtures every test may use."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Iterator

import pytest

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / "tests" / "data"


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


@pytest.fixture(scope="session")
def data() -> Path:
    """The repository's own recordings and fixtures."""
    return DATA
