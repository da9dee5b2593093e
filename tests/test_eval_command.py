"""The command ``eval``: what it takes, prints, writes and returns."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from deepfake_fpga.compile.xir.graph import Graph
from deepfake_fpga.deploy.commands import eval as eval_command
from deepfake_fpga.inference import session
from deepfake_fpga.inference.devices.handmade import uynet
from deepfake_fpga.inference.verdicts.aggregation import AGGREGATIONS

from .calling import exit_code
from .evaluating import PaintedSession, write_crops
from .needs import needs_sim
from .standins import stand_in


@pytest.fixture(scope="module")
def graph() -> Graph:
    return uynet(4)


@pytest.fixture
def model(tmp_path: Path, graph: Graph, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that loads as a small compiled U-YNet."""
    return stand_in(tmp_path, graph, monkeypatch)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_crops(
        tmp_path / "faces", {f"{'rf'[i % 2]}{i}": [0.05 * i, 0.06 * i] for i in range(12)}
    )


@pytest.fixture
def painted(model: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Devices whose answers are painted into the crops; ``reference`` is a worse one."""
    off = {"sim": 0.0, "reference": -0.2}
    monkeypatch.setattr(
        session, "Session", lambda _, name, **__: PaintedSession(model, name, off[name])
    )
    return model


def call(*words: Any) -> int:
    return exit_code("eval", *words)


def test_the_names_of_aggregations_are_the_real_ones() -> None:
    assert set(eval_command.AGGREGATIONS) == set(AGGREGATIONS)


@needs_sim
def test_a_real_model_on_two_devices(
    data: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    words = ["--data", data, "-o", output, "--model", model, "--devices", "null,sim", "-t", 1]
    assert call(*words, "--bootstrap", 50) == 0
    out, err = capsys.readouterr()
    record = json.loads((output / "eval.json").read_text())
    null = record["devices"]["null"]
    # Zero codes: the sigmoid of 0 is one half for all, and half of all pairs of equals are won.
    assert null["frame"]["auc"]["value"] == 0.5
    assert null["frame"]["accuracy"]["value"] == 0.5
    assert "Device: sim" in err
    assert "24 frames, 24 judged, 12 with a known mask" in out
    assert (output / "eval.html").is_file()
    assert len((output / "eval.csv").read_text().splitlines()) == 1 + 2 * 24
    assert len((output / "videos.csv").read_text().splitlines()) == 1 + 2 * 12


def test_options_reach_the_figures(
    data: Path, painted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--data", data, "-o", tmp_path / "out", "--model", painted, "--devices", "sim"]
    more = ["--far", 0.2, "--threshold", 0.3, "--bootstrap", 20, "--seed", 4, "--subset", 8]
    assert call(*words, *more, "--aggregation", "top-k", "--by", "mood", "--json") == 0
    record = json.loads(capsys.readouterr().out)
    settings = record["settings"]
    assert settings["false_alarms"] == 0.2
    assert settings["threshold"] == 0.3
    assert (settings["resamples"], settings["seed"]) == (20, 4)
    assert settings["rules"]["aggregation"] == "top-k"
    assert settings["video_score"] == "top-k over its crops"
    device = record["devices"]["sim"]
    assert device["counts"]["videos"] == 8
    assert device["no_breakdown"]["mood"].startswith("metadata.json does not tell")
    assert record["baseline"] is None


def test_robustness_by_name(
    data: Path, painted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--data", data, "-o", tmp_path / "out", "--model", painted, "--devices", "sim"]
    assert call(*words, "--bootstrap", 0, "--perturbations", "jpeg-50,noise-5") == 0
    out = capsys.readouterr().out
    assert "sim, the same perturbed:" in out
    assert [line.split()[0] for line in out.splitlines() if line.startswith(("jpeg", "noise"))] == [
        "jpeg-50",
        "noise-5",
    ]
    assert call(*words, "--perturbations", "swirl-1") == 2


def test_worse_than_the_baseline_is_exit_1(
    data: Path, painted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = ["--data", data, "--model", painted, "--bootstrap", 50]
    assert call(*base, "-o", tmp_path / "old", "--devices", "sim") == 0
    old = tmp_path / "old" / "eval.json"
    assert call(*base, "-o", tmp_path / "same", "--devices", "sim", "--baseline", old) == 0
    capsys.readouterr()
    words = [*base, "-o", tmp_path / "new", "--devices", "reference", "--baseline", old]
    assert call(*words) == 1
    out, err = capsys.readouterr()
    assert "WORSE" in out
    assert "Error: frame accuracy of reference is worse than the baseline" in err
    assert json.loads((tmp_path / "new" / "eval.json").read_text())["baseline"]["worse"] is True


def test_wrong_use(
    data: Path, painted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = ["--data", data, "-o", tmp_path / "out", "--model", painted]
    assert call(*base, "--devices", "tpu") == 2
    assert "known are auto, card" in capsys.readouterr().err
    assert call(*base, "--devices", "replay") == 2
    assert call(*base, "--devices", "sim", "--checkpoint", data / "x.pth") == 2
    assert "--checkpoint is for the float device" in capsys.readouterr().err
    assert call(*base, "--faces", "cascade") == 2
    assert "crops of faces already" in capsys.readouterr().err
    assert call("--data", tmp_path / "nowhere", "-o", tmp_path / "out") == 2
    assert call(*base, "--baseline", tmp_path / "none.json") == 2
    assert not (tmp_path / "out").exists()
