"""The progress bar: for terminals only, and visible in a terminal that does not know its size."""

from __future__ import annotations

import io
import os
import subprocess
import sys

import pytest

from deepfake_fpga.deploy.progress import show_progress

pty = pytest.importorskip("pty")


def test_a_terminal_without_a_size_sees_the_count() -> None:
    code = (
        "from deepfake_fpga.deploy.progress import show_progress\n"
        "done = show_progress('calibrate', 10)\n"
        "done(4)\n"
        "done(6)\n"
    )
    ours, theirs = pty.openpty()  # a new pseudo-terminal has 0 rows and 0 columns
    try:
        subprocess.run([sys.executable, "-c", code], stderr=theirs, check=True)
        drawn = os.read(ours, 10000).decode("utf-8")
    finally:
        os.close(ours)
        os.close(theirs)
    assert "calibrate: 100%" in drawn
    assert "10/10" in drawn


def test_a_file_sees_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    show_progress("calibrate", 1)(1)
    assert sys.stderr.getvalue() == ""  # type: ignore[attr-defined]
