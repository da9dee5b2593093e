"""From frames to a verdict: the formulas by hand, the rules at their borders, the temperature."""

from __future__ import annotations

import importlib.util
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any, Iterable, List, Optional, Sequence

import numpy as np
import pytest

from deepfake_fpga.deploy.defaults import default_model
from deepfake_fpga.errors import FormatError
from deepfake_fpga.files import sha256
from deepfake_fpga.inference.verdicts.aggregation import AGGREGATIONS
from deepfake_fpga.inference.verdicts.calibration import (
    Calibration,
    fit_temperature,
    log_loss,
    logit,
    read_calibration,
)
from deepfake_fpga.inference.verdicts.judgement import (
    Rules,
    choose_rules,
    judge_pictures,
    judge_together,
    judge_video,
)
from deepfake_fpga.inference.verdicts.records import FrameScore, Reason, State, VideoVerdict
from deepfake_fpga.inference.verdicts.scores import Scores

from .conftest import DATA, ROOT

MEAN = Rules(aggregation="mean", band=0.1)


def scores_of(
    values: Iterable[Optional[float]], track: int = 0, rate: float = 10.0, status: str = "ok"
) -> List[FrameScore]:
    return [
        FrameScore(
            number / rate,
            number,
            track,
            value,
            None if value is None else value / 2,
            "ok" if value is not None else status,
            "" if value is not None else "for a test",
        )
        for number, value in enumerate(values)
    ]


def judge(values: Sequence[Optional[float]], rules: Rules = MEAN, **more: Any) -> VideoVerdict:
    return judge_video(Scores(scores_of(values, **more)), rules)


def aggregate(name: str, values: Sequence[float], rate: float = 10.0) -> float:
    p = np.array(values, np.float64)
    return AGGREGATIONS[name](p, np.arange(len(p)) / rate)


TENTHS = [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 1.0]


@pytest.mark.parametrize(
    ("name", "values", "wanted"),
    [
        ("mean", TENTHS, 0.46),
        # Without 0.0 and 1.0: 3.6 / 8.
        ("trimmed", TENTHS, 0.45),
        ("trimmed", [0.9, 0.1], 0.5),
        # Weights 1, 0.5, 0: (1 * 1 + 0.5 * 0.25 + 0) / 1.5.
        ("confident", [1.0, 0.25, 0.5], 0.75),
        ("confident", [0.5, 0.5], 0.5),
        # The highest three of ten: (0.7 + 0.8 + 1.0) / 3.
        ("top-k", TENTHS, 2.5 / 3),
        ("top-k", [0.3], 0.3),
        # Two seconds at 5 frames each, means 0.2 and 0.5: 1 - 0.8 * 0.5.
        ("noisy-or", [0.2] * 5 + [0.5] * 5, 0.6),
        # One witness a second, however many frames it has.
        ("noisy-or", [0.2] * 5, 0.2),
        # Five of ten at 5 frames a second; frames 3 to 7.
        ("strongest-window", [0.0] * 3 + [1.0] * 4 + [0.0] * 3, 0.8),
        ("strongest-window", [0.2, 0.4], 0.3),
        # The last window ends with the last frame.
        ("strongest-window", [0.0] * 5 + [1.0] * 5, 1.0),
    ],
)
def test_formulas(name: str, values: List[float], wanted: float) -> None:
    rate = 5.0 if name in ("noisy-or", "strongest-window") else 10.0
    assert aggregate(name, values, rate) == pytest.approx(wanted, abs=1e-12)


@pytest.mark.parametrize("name", sorted(AGGREGATIONS))
def test_every_way_stays_between_the_lowest_and_one(name: str) -> None:
    rng = np.random.RandomState(3)
    for count in (1, 2, 3, 10, 77, 400):
        values = list(rng.uniform(size=count))
        score = aggregate(name, values)
        assert min(values) - 1e-12 <= score <= 1.0
    assert aggregate(name, [0.0] * 30) == 0.0
    assert aggregate(name, [1.0] * 30) == 1.0


def test_the_same_frames_twice_as_dense_say_the_same() -> None:
    # Correlated frames are no more evidence; a plain noisy-or over frames would say more.
    values = [0.1, 0.3, 0.2, 0.6, 0.2, 0.0, 0.7, 0.3, 0.1, 0.4, 0.2, 0.9] * 5
    dense = [v for v in values for _ in range(25)]
    for name in AGGREGATIONS:
        assert aggregate(name, dense, 25.0) == pytest.approx(aggregate(name, values, 1.0))


@pytest.mark.parametrize(
    ("values", "state", "reason"),
    [
        ([0.9] * 10, State.MANIPULATED, None),
        ([0.1] * 10, State.AUTHENTIC, None),
        ([0.61] * 10, State.MANIPULATED, None),
        ([0.59] * 10, State.INCONCLUSIVE, Reason.NEAR_THRESHOLD),
        ([0.41] * 10, State.INCONCLUSIVE, Reason.NEAR_THRESHOLD),
        ([0.39] * 10, State.AUTHENTIC, None),
        ([0.9] * 4, State.INCONCLUSIVE, Reason.TOO_FEW_FRAMES),
        ([0.9] * 5, State.MANIPULATED, None),
        # What was seen was seen; authentic speaks of the whole.
        ([0.9] * 5 + [None] * 95, State.MANIPULATED, None),
        ([0.1] * 49 + [None] * 51, State.INCONCLUSIVE, Reason.LOW_COVERAGE),
        ([0.1] * 50 + [None] * 50, State.AUTHENTIC, None),
        ([], State.INCONCLUSIVE, Reason.NO_FRAMES),
    ],
)
def test_rules(values: List[Optional[float]], state: State, reason: Optional[Reason]) -> None:
    verdict = judge(values)
    assert (verdict.state, verdict.reason) == (state, reason)
    assert (verdict.probability is None) == (not values)


@pytest.mark.parametrize("status", ["decode_error", "no_face", "too_small", "no_result"])
def test_nothing_judged_has_the_cause_and_no_probability(status: str) -> None:
    verdict = judge([None] * 20, status=status)
    assert verdict.state is State.INCONCLUSIVE
    assert verdict.reason is Reason(status)
    assert verdict.probability is None
    assert verdict.coverage == 0
    record = verdict.to_json()
    assert record["fake_probability"] is record["tracks"][0]["fake_probability"] is None
    assert record["tracks"][0]["mask_fraction"] is None
    assert "20 of 20 frames not judged" in record["explanation"]
    json.dumps(record, allow_nan=False)


def test_coverage_counts_frames_not_faces() -> None:
    both = scores_of([0.1] * 10, track=1) + scores_of([0.2] * 5 + [None] * 5, track=2)
    verdict = judge_video(Scores(both), MEAN)
    assert (verdict.frames, verdict.judged, verdict.coverage) == (10, 10, 1.0)
    assert [track.coverage for track in verdict.tracks] == [1.0, 0.5]
    assert [track.mask_fraction for track in verdict.tracks] == pytest.approx([0.05, 0.1])
    assert (verdict.tracks[0].begin, verdict.tracks[0].end) == (0.0, 0.9)


def test_one_manipulated_face_among_others_is_enough() -> None:
    faces = scores_of([0.05] * 40, track=1) + scores_of([0.95] * 10, track=2)
    verdict = judge_video(Scores(faces), MEAN)
    assert verdict.state is State.MANIPULATED
    assert verdict.probability == pytest.approx(0.95)
    assert [t.state for t in verdict.tracks] == [State.AUTHENTIC, State.MANIPULATED]
    assert "manipulated: face 2" in verdict.words


def test_a_brief_suspicious_face_among_many_is_a_conflict() -> None:
    faces = [s for track in range(1, 20) for s in scores_of([0.05] * 40, track=track)]
    faces += scores_of([0.95] * 6, track=20)
    verdict = judge_video(Scores(faces), MEAN)
    assert verdict.state is State.INCONCLUSIVE
    assert verdict.reason is Reason.CONFLICTING_TRACKS


def test_a_small_track_that_is_undecided_changes_nothing() -> None:
    faces = scores_of([0.05] * 100, track=1) + scores_of([0.5] * 24, track=2)
    assert judge_video(Scores(faces), MEAN).state is State.AUTHENTIC


def test_a_large_track_that_is_undecided_leaves_it_open() -> None:
    faces = scores_of([0.05] * 100, track=1) + scores_of([0.5] * 25, track=2)
    verdict = judge_video(Scores(faces), MEAN)
    assert (verdict.state, verdict.reason) == (State.INCONCLUSIVE, Reason.NEAR_THRESHOLD)


def test_several_videos_together() -> None:
    good, bad, none = judge([0.1] * 9), judge([0.9] * 9), judge([None] * 9, status="no_face")
    assert judge_together([("a", good), ("b", good)]).state is State.AUTHENTIC
    assert judge_together([("a", good), ("b", bad), ("c", none)]).state is State.MANIPULATED
    mixed = judge_together([("a", good), ("c", none)])
    assert (mixed.state, mixed.reason) == (State.INCONCLUSIVE, Reason.NO_FACE)
    assert judge_together([("c", none), ("d", none)]).probability is None
    assert judge_together([("a", good)]) is good


def test_pictures_are_averaged_and_one_is_enough() -> None:
    one = judge_pictures(1, 1, 0.9, {}, MEAN)
    assert (one.state, one.probability) == (State.MANIPULATED, 0.9)
    assert judge_pictures(4, 4, 2.0, {}, MEAN).reason is Reason.NEAR_THRESHOLD
    lost = judge_pictures(3, 0, 0.0, {"decode_error: broken": 2, "no_result: nan": 1}, MEAN)
    assert (lost.reason, lost.probability) == (Reason.DECODE_ERROR, None)
    assert judge_pictures(0, 0, 0.0, {}, MEAN).reason is Reason.NO_FRAMES


def test_scores_come_back_as_they_went_in() -> None:
    given = scores_of([0.25, None, 1.0], status="no_face")
    given.append(FrameScore(None, 7, 3, 0.5, None))
    scores = Scores(given)
    assert list(scores) == given
    assert scores.tracks == [0, 3]
    assert scores.failures() == {("no_face", "for a test"): 1}


def test_temperature_is_that_of_the_least_log_loss() -> None:
    # Answers twice as sure as they should be: their log-odds are twice the true ones.
    rng = np.random.RandomState(5)
    true = rng.normal(size=4000) * 1.5
    labels = rng.uniform(size=4000) < 1 / (1 + np.exp(-true))
    scores = 1 / (1 + np.exp(-2 * true))
    temperature = fit_temperature(scores, labels)
    assert temperature == pytest.approx(2.0, abs=0.15)

    def loss(t: float) -> float:
        calibration = Calibration(t, "mean")
        return log_loss(np.array([calibration.apply(s) for s in scores]), labels)

    assert loss(temperature) <= min(loss(temperature * 1.01), loss(temperature / 1.01))
    assert loss(temperature) < loss(1.0)
    with pytest.raises(ValueError, match="both"):
        fit_temperature(scores, np.ones(4000, bool))


def test_temperature_keeps_order_and_one_half() -> None:
    warm, cold = Calibration(2.0, "mean"), Calibration(0.5, "mean")
    assert warm.apply(0.5) == cold.apply(0.5) == 0.5
    # logit(0.8) = ln 4; half of it is ln 2, twice is ln 16.
    assert warm.apply(0.8) == pytest.approx(2 / 3)
    assert cold.apply(0.8) == pytest.approx(16 / 17)
    assert 0.0 < warm.apply(0.0) < warm.apply(1.0) < 1.0
    assert logit(0.75) == pytest.approx(math.log(3))


def test_log_loss_weighs_both_kinds_the_same() -> None:
    p, labels = np.array([0.5, 0.5, 0.5, 0.9]), np.array([True, True, True, False])
    wanted = (math.log(2) + -math.log(0.1)) / 2
    assert log_loss(p, labels) == pytest.approx(wanted)


@pytest.mark.parametrize("threshold", [0.02, 0.1, 0.5, 0.9, 0.98])
def test_every_threshold_leaves_room_for_both_answers(threshold: float) -> None:
    rules = Rules(aggregation="mean", threshold=threshold, band=0.2)
    states = [judge([p] * 9, rules).state for p in np.linspace(0, 1, 401)]
    assert states[0] is State.AUTHENTIC
    assert states[-1] is State.MANIPULATED
    # In this order, each once, and undecided at the threshold itself.
    kinds = [s for n, s in enumerate(states) if not n or s is not states[n - 1]]
    assert kinds == [State.AUTHENTIC, State.INCONCLUSIVE, State.MANIPULATED]
    assert judge([threshold] * 9, rules).reason is Reason.NEAR_THRESHOLD


def write_calibration(folder: Path, **change: Any) -> Path:
    model = folder / "M.xmodel"
    model.write_bytes(b"model")
    record = {
        "schema": 1, "xmodel_sha256": sha256(model), "aggregation": "top-k", "temperature": 0.5,
        "band": 0.15, "clips": "ten clips",
    }  # fmt: skip
    record.update(change)
    (folder / "verdict.json").write_text(json.dumps(record))
    return model


def test_a_calibration_is_for_its_model_and_its_aggregation(tmp_path: Path) -> None:
    model = write_calibration(tmp_path)
    rules = choose_rules(model)
    assert (rules.aggregation, rules.band) == ("top-k", 0.15)
    verdict = judge([0.8] * 10, rules)
    assert verdict.probability == pytest.approx(16 / 17, abs=1e-6)
    assert verdict.tracks[0].score == pytest.approx(0.8)
    other = choose_rules(model, aggregation="mean")
    assert not other.calibration.fitted
    assert "for top-k, not mean" in other.calibration.reason
    assert judge([0.8] * 10, other).probability == pytest.approx(0.8)
    model.write_bytes(b"another model")
    found = read_calibration(model)
    assert not found.fitted
    assert found.temperature == 1.0
    assert "another model" in found.reason
    (tmp_path / "verdict.json").unlink()
    assert "there is no verdict.json" in read_calibration(model).reason


@pytest.mark.parametrize(
    "change", [{"temperature": 0}, {"temperature": "warm"}, {"schema": 2}, {"band": None}]
)
def test_a_calibration_that_cannot_be_is_refused(change: Any, tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="calibration"):
        read_calibration(write_calibration(tmp_path, **change))


def test_the_threshold_moves_the_band(tmp_path: Path) -> None:
    rules = replace(MEAN, threshold=0.8)
    assert judge([0.75] * 9, rules).reason is Reason.NEAR_THRESHOLD
    assert judge([0.65] * 9, rules).state is State.AUTHENTIC
    assert judge([0.95] * 9, rules).state is State.MANIPULATED


def study() -> Any:
    path = ROOT / "scripts" / "choose_aggregation.py"
    spec = importlib.util.spec_from_file_location("choose_aggregation", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    clips = [json.loads(line) for line in (DATA / "aggregation.jsonl").read_text().splitlines()]
    return module, module.measure(clips)


def test_the_default_is_the_one_that_was_measured_best() -> None:
    module, found = study()
    assert found["aggregation"] == Rules().aggregation
    shipped = read_calibration(default_model())
    # After another model was put there: choose_aggregation.py --scores NEW --clips 360 --write
    assert shipped.fitted, shipped.reason
    assert shipped.fitted_on["scores_sha256"] == sha256(DATA / "aggregation.jsonl")
    assert shipped.aggregation == found["aggregation"]
    assert shipped.temperature == pytest.approx(found["temperature"], abs=1e-4)
    assert shipped.band == found["band"]
    # The page of documentation has the tables as the script prints them.
    page = (ROOT / "docs" / "verdicts.md").read_text(encoding="utf-8")
    for line in module.tables(found).splitlines():
        assert line in page
    chosen = found["ways"][found["aggregation"]]
    assert chosen["reported"]["mean_log_loss"] < chosen["reported"]["mean_log_loss_raw"]
    assert chosen["choosing"]["most_false_alarms"] <= module.MOST_ALARMS
    assert found["ways"]["strongest-window"]["choosing"]["most_false_alarms"] > module.MOST_ALARMS
