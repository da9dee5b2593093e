"""The command line called as a person would, in this process."""

from __future__ import annotations

from typing import Any

import pytest

from deepfake_fpga.deploy.cli import main


def exit_code(*words: Any) -> int:
    """Runs ``deepfake-fpga WORDS...`` and returns its exit status."""
    with pytest.raises(SystemExit) as stopped:
        main([str(word) for word in words])
    code = stopped.value.code
    assert isinstance(code, int)
    return code
