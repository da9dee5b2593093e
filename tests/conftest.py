"""Fixtures every test may use."""

from __future__ import annotations

import os
from pathlib import Path

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


@pytest.fixture(scope="session")
def data() -> Path:
    """The repository's own recordings and fixtures."""
    return DATA
