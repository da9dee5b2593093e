"""The progress bar: for terminals only, and visible in a terminal that does not know its size."""

from __future__ import annotations

import io
import os
import subprocess
import sys

import pytest

from deepfake_fpga.deploy.progress import progress_bar, show_progress

pty = pytest.importorskip("pty")


def on_a_terminal(code: str) -> str:
    """What ``code`` writes to standard error where that is a terminal of no known size."""
    ours, theirs = pty.openpty()  # a new pseudo-terminal has 0 rows and 0 columns
    try:
        subprocess.run([sys.executable, "-c", code], stderr=theirs, check=True)
        return os.read(ours, 10000).decode("utf-8")
    finally:
        os.close(ours)
        os.close(theirs)


COUNTED = """
from deepfake_fpga.deploy.progress import show_progress
done = show_progress('calibrate', 10)
done(4)
done(6)
"""

LATE_TOTAL = """
from deepfake_fpga.deploy.progress import progress_bar
with progress_bar('run', 'frame') as show:
    for done in range(0, 301, 5):
        show(done, None if done < 60 else 300)
"""

WITHOUT_TQDM = "import sys; sys.modules['tqdm'] = None\n"


def test_a_terminal_without_a_size_sees_the_count() -> None:
    pytest.importorskip("tqdm")
    drawn = on_a_terminal(COUNTED)
    assert "calibrate: 100%" in drawn
    assert "10/10" in drawn
    assert "300/300" in on_a_terminal(LATE_TOTAL)


def test_without_tqdm_there_are_a_few_lines() -> None:
    lines = on_a_terminal(WITHOUT_TQDM + COUNTED).splitlines()
    assert lines == ["calibrate: 4 of 10 images, 0 s left", "calibrate: 10 of 10 images, 0 s left"]
    lines = on_a_terminal(WITHOUT_TQDM + LATE_TOTAL).splitlines()
    assert lines[0] == "run: 5 frames in 0 s"
    assert lines[-1] == "run: 300 of 300 frames, 0 s left"
    assert len(lines) < 18


def test_a_file_sees_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    show_progress("calibrate", 1)(1)
    assert sys.stderr.getvalue() == ""  # type: ignore[attr-defined]
    with progress_bar("run") as show:
        show(1, 2)
    assert sys.stderr.getvalue() == ""  # type: ignore[attr-defined]
