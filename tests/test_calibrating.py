"""A model's own temperature, fitted by ``eval`` to videos whose truth is known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Dict, List, Tuple

import numpy as np
import pytest

pytest.importorskip("cv2")

from deepfake_fpga.deploy.defaults import default_model
from deepfake_fpga.deploy.evaluating.calibrating import LEAST, calibrate
from deepfake_fpga.deploy.evaluating.material import Clip, read_material
from deepfake_fpga.deploy.evaluating.scoring import Row
from deepfake_fpga.deploy.evaluating.table import Table, judge_of, make_table
from deepfake_fpga.errors import DataError
from deepfake_fpga.files import sha256
from deepfake_fpga.inference import session
from deepfake_fpga.inference.devices.handmade import uynet
from deepfake_fpga.inference.verdicts import Rules, choose_rules
from deepfake_fpga.inference.verdicts.calibration import Calibration

from .calling import exit_code
from .clips import write_clip
from .evaluating import PaintedSession, write_crops
from .fakes import SIZE
from .needs import needs_av
from .standins import stand_in

TRUE_TEMPERATURE = 2.0


def seen(count: int, seed: int, together: int = 1) -> Tuple[Table, List[Clip]]:
    """Videos whose scores are twice as sure as they should be."""
    rng = np.random.RandomState(seed)
    clips: List[Clip] = []
    rows: Dict[str, List[Row]] = {}
    for number in range(count):
        logit = rng.normal(0, 1.5)
        fake = bool(rng.uniform() < 1 / (1 + np.exp(-logit)))
        score = float(1 / (1 + np.exp(-logit * TRUE_TEMPERATURE)))
        name = f"v{number}"
        clips.append(Clip(name, fake, (), video=True, group=f"g{number // together}"))
        rows[name] = [
            Row(f"{name}.mp4", n, n / 10, 0, "ok", "", score, None, 64, 64) for n in range(6)
        ]
    # What the rules were calibrated to before must not matter.
    rules = Rules(calibration=Calibration(7.0, "top-k"))
    return make_table(clips, rows, judge_of(rules, False)), clips


def test_a_planted_temperature_is_found() -> None:
    table, clips = seen(3000, 1)
    fit = calibrate(table, Rules(calibration=Calibration(7.0, "top-k")), clips)
    assert fit.temperature == pytest.approx(TRUE_TEMPERATURE, rel=0.1)
    assert fit.fitted < fit.raw
    assert fit.chosen_on + fit.reported_on == 3000
    assert abs(fit.chosen_on - 1500) < 150
    truth = np.array([clip.fake for clip in clips])
    assert 0 < fit.false_alarms < 0.5
    assert truth.mean() == pytest.approx(0.5, abs=0.05)
    assert f"temperature {fit.temperature:g} for top-k" in fit.words


def test_nobody_is_on_both_sides() -> None:
    # All of one group: whichever half it falls into, the other is empty.
    table, clips = seen(400, 2, together=400)
    with pytest.raises(DataError) as caught:
        calibrate(table, Rules(), clips)
    assert caught.value.evidence.startswith("0 ")
    # As many groups as videos are enough.
    table, clips = seen(400, 2)
    assert calibrate(table, Rules(), clips).chosen_on > LEAST


def test_a_group_is_a_person_or_an_original(tmp_path: Path) -> None:
    labels: Dict[str, Dict[str, Any]] = {
        "r1.mp4": {"label": "REAL", "identity": "anna"},
        "f1.mp4": {"label": "FAKE", "original": "r1.mp4"},
        "r2.mp4": {"label": "REAL"},
        "f2.mp4": {"label": "FAKE", "original": "r2.mp4"},
        "f3.mp4": {"label": "FAKE", "original": "gone.mp4"},
        "f4.mp4": {"label": "FAKE"},
    }
    for name in labels:
        (tmp_path / name).write_bytes(name.encode())
    (tmp_path / "metadata.json").write_text(json.dumps(labels))
    clips = read_material([tmp_path]).clips
    assert {clip.name: clip.group for clip in clips} == {
        "r1": "anna", "f1": "anna", "r2": "r2", "f2": "r2", "f3": "gone", "f4": "f4",
    }  # fmt: skip


def test_a_fake_of_two_people_ties_both_together_over_folders(tmp_path: Path) -> None:
    told: Dict[str, Dict[str, Dict[str, Any]]] = {
        "one": {"r1.mp4": {"label": "REAL", "identity": "anna"}, "r3.mp4": {"label": "REAL"}},
        "two": {
            "r2.mp4": {"label": "REAL", "identity": "ben"},
            "f1.mp4": {"label": "FAKE", "identity": ["anna", "ben"]},
        },
    }
    for folder, labels in told.items():
        (tmp_path / folder).mkdir()
        for name in labels:
            (tmp_path / folder / name).write_bytes(name.encode())
        (tmp_path / folder / "metadata.json").write_text(json.dumps(labels))
    clips = read_material([tmp_path / "one", tmp_path / "two"]).clips
    found = {clip.name: clip.group for clip in clips}
    assert found["one/r1"] == found["two/r2"] == found["two/f1"] != found["one/r3"]


def call(*words: Any) -> int:
    return exit_code("eval", *words)


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that loads as a model whose answers are painted into the pictures."""
    path = stand_in(tmp_path, uynet(4), monkeypatch)
    monkeypatch.setattr(session, "Session", lambda _, name, **__: PaintedSession(path, name))
    return path


@needs_av
def test_run_uses_what_eval_has_fitted(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    videos = tmp_path / "videos"
    videos.mkdir()
    rng = np.random.RandomState(3)
    labels = {}
    for number in range(60):
        fake = number % 2 == 1
        # Right on the whole, but hardly sure: it may say so more plainly.
        level = 0.5 + (0.1 if fake else -0.1) + rng.uniform(-0.15, 0.15)
        picture = np.full((SIZE, SIZE, 3), round(255 * level), np.uint8)
        write_clip(videos / f"v{number}.mp4", 6, height=SIZE, width=SIZE, pictures=[picture] * 6)
        labels[f"v{number}.mp4"] = {"label": "FAKE" if fake else "REAL"}
    (videos / "metadata.json").write_text(json.dumps(labels))
    words = ["--data", videos, "-o", tmp_path / "out", "--model", model, "--devices", "sim"]
    assert not choose_rules(model).calibration.fitted
    assert call(*words, "--faces", "whole", "--bootstrap", 0, "--calibrate") == 0
    out, err = capsys.readouterr()
    assert "Calibration: temperature 0." in err
    assert str(model.with_name("verdict.json")) in out
    record = json.loads((tmp_path / "out" / "eval.json").read_text())["calibration"]
    rules = choose_rules(model)
    assert rules.calibration.fitted
    assert rules.calibration.temperature == record["temperature"] < 0.7
    assert record["held_out"]["log_loss"] < record["held_out"]["log_loss_raw"]
    kept = json.loads(model.with_name("verdict.json").read_text())
    assert kept["xmodel_sha256"] == sha256(model)
    # Too few are refused before the work; where too few can be judged, the figures are kept.
    few = ["--data", videos, "-o", tmp_path / "few", "--model", model, "--devices", "sim"]
    assert call(*few, "--faces", "whole", "--subset", 20, "--calibrate") == 1
    assert "too few videos" in capsys.readouterr().err
    assert not (tmp_path / "few").exists()
    for number in range(0, 60, 2):
        (videos / f"v{number}.mp4").write_bytes(b"spoilt")
    assert call(*few, "--faces", "whole", "--bootstrap", 0, "--calibrate") == 1
    assert "too few videos" in capsys.readouterr().err
    assert (tmp_path / "few" / "eval.json").is_file()
    assert json.loads(model.with_name("verdict.json").read_text()) == kept


def test_what_cannot_be_calibrated_is_refused_before_the_work(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    crops = write_crops(tmp_path / "faces", {"r1": [0.1], "f1": [0.9]})
    videos = tmp_path / "videos"
    videos.mkdir()
    (videos / "a.mp4").write_bytes(b"not looked into")
    (videos / "metadata.json").write_text('{"a.mp4": {"label": "FAKE"}}')
    for data, more, said in (
        (crops, ["--model", model, "--devices", "sim"], "which nothing calibrates"),
        (videos, ["--model", model, "--devices", "float"], "what float says"),
        (videos, ["--model", default_model(), "--devices", "sim"], "installed package"),
    ):
        assert call("--data", data, "-o", tmp_path / "out", "--calibrate", *more) == 2
        assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
