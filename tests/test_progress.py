"""The progress bar: for terminals only, and visible in any terminal."""

from __future__ import annotations

import io
import sys

import pytest

from deepfake_fpga.deploy.progress import show_progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_sees_the_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal())
    done = show_progress("calibrate", 10)
    done(4)
    done(6)
    drawn = sys.stderr.getvalue()  # type: ignore[attr-defined]
    assert "calibrate: 100%" in drawn
    assert "10/10" in drawn
    assert drawn.endswith("\n")


def test_a_file_sees_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    show_progress("calibrate", 1)(1)
    assert sys.stderr.getvalue() == ""  # type: ignore[attr-defined]
