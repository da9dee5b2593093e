"""The command ``demo`` where it cannot run; that it runs is what ``scripts/demo`` shows."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from deepfake_fpga.deploy.cli import main


def test_a_missing_package_is_named_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(SystemExit) as stopped:
        main(["demo", "-o", str(tmp_path / "demo")])
    assert stopped.value.code == 1
    said = capsys.readouterr().err
    assert "av not installed" in said
    assert "pip install" in said
    assert not (tmp_path / "demo").exists()
