"""Evaluation: hand-computed figures, planted flips, resumed runs, parts, baselines, the page."""

from __future__ import annotations

import html.parser
import json
import math
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple, cast

import cv2
import numpy as np
import pytest

from deepfake_fpga.deploy.evaluating.breakdown import FACE_SIZE, breakdown
from deepfake_fpga.deploy.evaluating.comparison import against, flips, read_baseline
from deepfake_fpga.deploy.evaluating.evaluation import (
    EvalOptions,
    Evaluation,
    evaluate,
    write_evaluation,
)
from deepfake_fpga.deploy.evaluating.material import Material, read_material
from deepfake_fpga.deploy.evaluating.measures import (
    Settings,
    binomial_interval,
    difference,
    measure,
)
from deepfake_fpga.deploy.evaluating.page import write_eval_page
from deepfake_fpga.deploy.evaluating.perturbations import (
    CHANGES,
    FOR_CROPS,
    FOR_VIDEOS,
    Perturbation,
    parse_perturbation,
    perturbations,
    reencoded,
)
from deepfake_fpga.deploy.evaluating.table import (
    Table,
    frames_csv,
    in_common,
    judge_of,
    read_tables,
    videos_csv,
)
from deepfake_fpga.deploy.evaluating.words import terminal_text
from deepfake_fpga.errors import DataError, FormatError, MismatchError, MissingError, UsageError
from deepfake_fpga.inference.faces import FaceOptions
from deepfake_fpga.inference.faces.options import Kind
from deepfake_fpga.inference.records import Frame, Status
from deepfake_fpga.inference.session import Session
from deepfake_fpga.inference.verdicts import Rules, State

from .clips import level, write_clip
from .evaluating import PaintedSession, paint, table_of, write_crops
from .fakes import SIZE
from .needs import needs_av

QUICK = Settings(resamples=200)


def block(y: int, x: int, side: int = 8) -> np.ndarray:
    mask = np.zeros((SIZE, SIZE), bool)
    mask[y : y + side, x : x + side] = True
    return mask


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "YNET.xmodel"
    path.write_bytes(b"stands for the model")
    return path


def options(**changed: Any) -> EvalOptions:
    rules = Rules()
    base = EvalOptions(QUICK, rules, judge_of(rules, True), "the mean of its crops", threads=1)
    return replace(base, **changed)


def run(
    material: Material, output: Path, sessions: Dict[str, PaintedSession], **changed: Any
) -> Evaluation:
    return evaluate(
        material,
        list(sessions),
        lambda name: cast(Session, sessions[name]),
        options(**changed),
        output,
    )


# --- figures -------------------------------------------------------------------------------------


def test_figures_computed_by_hand() -> None:
    table = table_of({"fa": [0.9, 0.6], "fb": [0.4], "ra": [0.2, 0.5], "rb": [0.1], "rc": [None]})
    found = measure(table, QUICK)
    value = {name: figure.value for name, figure in found.figures["frame"].items()}
    # Over 0.5: 0.9 and 0.6 rightly, 0.5 wrongly; 0.4 is missed. 4 of 6 are right.
    assert value["accuracy"] == pytest.approx(4 / 6)
    # 3 x 3 pairs; only 0.4 against 0.5 is the wrong way round.
    assert value["auc"] == pytest.approx(8 / 9)
    assert value["log_loss"] == pytest.approx(
        -np.log([0.9, 0.6, 0.4, 0.8, 0.5, 0.9]).mean(), abs=1e-9
    )
    # Every frame is alone in its interval: the mean distance from the truth.
    assert value["calibration_error"] == pytest.approx(
        (0.1 + 0.4 + 0.6 + 0.2 + 0.5 + 0.1) / 6, abs=1e-9
    )
    assert found.frame_confusion == {
        "FAKE": {"FAKE": 2, "REAL": 1, "not_judged": 0},
        "REAL": {"FAKE": 1, "REAL": 2, "not_judged": 1},
    }
    # Videos by their means 0.75, 0.4, 0.35, 0.1: within 0.1 of one half nothing is decided.
    video = {name: figure.value for name, figure in found.figures["video"].items()}
    assert video["accuracy"] == pytest.approx(3 / 4)
    assert video["auc"] == 1.0
    assert found.confusion["FAKE"] == {"manipulated": 1, "authentic": 1, "inconclusive": 0}
    assert found.confusion["REAL"] == {"manipulated": 0, "authentic": 2, "inconclusive": 1}
    assert video["decided"] == pytest.approx(4 / 5)
    assert video["accuracy_decided"] == pytest.approx(3 / 4)
    assert found.counts["videos_judged"] == 4
    assert found.counts["frames_judged"] == 6


def test_what_is_not_defined_is_null_with_the_reason() -> None:
    found = measure(table_of({"fa": [0.9], "fb": [0.4]}), QUICK)
    for level_name in ("frame", "video"):
        for name in ("auc", "eer", "average_precision", "threshold", "detection"):
            figure = found.figures[level_name][name]
            assert figure.value is None
            assert figure.reason == f"all judged {level_name}s are manipulated"
            assert figure.to_json() == {
                "value": None, "low": None, "high": None, "reason": figure.reason,
            }  # fmt: skip
    assert found.figures["mask"]["dice"].reason == "no frame has a known mask"
    unjudged = measure(table_of({"fa": [None], "ra": [None]}), QUICK)
    assert unjudged.figures["frame"]["accuracy"].reason == "no frame was judged"
    assert unjudged.figures["video"]["auc"].value is None
    loud = measure(table_of({"fa": [0.5], "ra": [0.9], "rb": [0.8], "fb": [0.4]}), QUICK)
    assert "every threshold lets more than 0.01" in loud.figures["frame"]["threshold"].reason


def test_two_videos_of_many_frames_are_two_witnesses() -> None:
    # A thousand frames look like much; by frames the interval would be +-0.03 wide.
    many = measure(table_of({"fa": [0.9] * 500, "rb": [0.8] * 500}), QUICK)
    right = many.figures["frame"]["accuracy"]
    assert (right.value, right.low, right.high) == (0.5, 0.0, 1.0)
    # One video of each kind: every defined draw is the same, which is no confidence at all.
    assert many.figures["frame"]["auc"].value == 1.0
    assert many.figures["frame"]["auc"].low is None
    assert "resampling videos says nothing" in many.figures["frame"]["auc"].reason
    alone = measure(table_of({"fa": [0.9, 0.2]}), QUICK).figures["frame"]["accuracy"]
    assert alone.value == 0.5
    assert alone.low is None


def test_no_mistake_at_all_is_no_certainty() -> None:
    found = measure(table_of({"fa": [0.9], "fb": [0.8], "ra": [0.1], "rb": [0.2]}), QUICK)
    for name in ("accuracy", "auc", "eer"):
        figure = found.figures["video"][name]
        assert figure.value == (0.0 if name == "eer" else 1.0)
        assert figure.low is None
        assert "every resample of the 4 videos gives the same" in figure.reason


def test_paired_difference_is_surer_than_both() -> None:
    rng = np.random.RandomState(4)
    videos = {f"{'fr'[i % 2]}{i}": list(rng.uniform(0.2, 0.8, 5)) for i in range(40)}
    lower = {name: [p - 0.05 for p in own] for name, own in videos.items()}
    ours, theirs = measure(table_of(lower), QUICK), measure(table_of(videos), QUICK)
    same = difference(theirs, theirs, "frame", "auc")
    assert (same.value, same.low, same.high) == (0.0, 0.0, 0.0)
    loss = difference(ours, theirs, "frame", "log_loss")
    wide = theirs.figures["frame"]["log_loss"]
    assert loss.value == pytest.approx(
        cast(float, ours.figures["frame"]["log_loss"].value) - cast(float, wide.value)
    )
    assert cast(float, loss.low) < cast(float, loss.value) < cast(float, loss.high)
    assert cast(float, loss.high) - cast(float, loss.low) < cast(float, wide.high) - cast(
        float, wide.low
    )


def test_exact_binomial_interval() -> None:
    # Of none among n the upper end solves (1 - p)^n = 0.025; 5 of 10 is in any table.
    assert binomial_interval(0, 64) == pytest.approx((0.0, 1 - 0.025 ** (1 / 64)), abs=1e-9)
    assert binomial_interval(64, 64) == pytest.approx((0.025 ** (1 / 64), 1.0), abs=1e-9)
    assert binomial_interval(5, 10) == pytest.approx((0.18709, 0.81291), abs=1e-5)
    assert binomial_interval(1, 10) == pytest.approx((0.00253, 0.44502), abs=1e-5)


def test_a_loss_against_a_perfect_one_has_an_interval() -> None:
    videos = {f"{'fr'[i % 2]}{i}": [0.9 if i % 2 == 0 else 0.1] for i in range(20)}
    perfect = measure(table_of(videos), QUICK)
    wrong = measure(table_of({**videos, "f0": [0.2], "f2": [0.3], "r1": [0.8]}), QUICK)
    assert perfect.figures["frame"]["accuracy"].low is None
    loss = difference(wrong, perfect, "frame", "accuracy")
    assert loss.value == pytest.approx(-0.15)
    assert -0.4 < cast(float, loss.low) < -0.15 < cast(float, loss.high) <= 0
    alone = measure(table_of({"fa": [0.9], "ra": [0.1]}), QUICK)
    assert difference(alone, alone, "frame", "auc").low is None


# --- scoring -------------------------------------------------------------------------------------


def test_scores_and_masks_come_back_as_planted(tmp_path: Path, model: Path) -> None:
    data = write_crops(
        tmp_path / "faces",
        {"fa": [0.8, 0.6], "rb": [0.2]},
        masks={"fa": block(8, 8)},
        said={"fa": block(8, 12), "rb": block(0, 1, 2)},
    )
    found = run(read_material([data]), tmp_path / "out", {"sim": PaintedSession(model)})
    table = found.tables["sim"]
    assert table.column("probability") == pytest.approx([0.8, 0.6, 0.2], abs=1e-6)
    # Blocks of 8x8, half over each other; an authentic crop without a mask has none.
    assert [row[10:14] for row in table.rows] == [(32, 32, 32, 928)] * 2 + [(0, 4, 0, 1020)]
    assert {(row.height, row.width) for row in table.rows} == {(SIZE, SIZE)}
    masks = found.devices[0].measures.figures["mask"]
    assert masks["dice"].value == pytest.approx(2 * 64 / (2 * 64 + 64 + 4 + 64))
    assert masks["iou"].value == pytest.approx(64 / (64 + 64 + 4 + 64))
    assert masks["iou_per_frame"].value == pytest.approx(1 / 3)
    assert table.rows[2].boundary is None
    assert 0 < cast(float, masks["boundary_f"].value) < 1


def test_masks_that_do_not_fit_are_told(tmp_path: Path, model: Path) -> None:
    data = write_crops(tmp_path / "faces", {"fa": [0.8], "fb": [0.9]}, masks={"fa": block(0, 0)})
    assert cv2.imwrite(str(data / "masks" / "fa_0.png"), np.zeros((9, 9), np.uint8))
    (data / "masks" / "fb_0.gif").write_bytes(b"GIF89a no picture")
    found = run(read_material([data]), tmp_path / "out", {"sim": PaintedSession(model)})
    assert found.devices[0].measures.counts["frames_with_mask"] == 0
    notes = found.devices[0].notes
    assert any("is 9x9, its crop 32x32" in note for note in notes)
    assert any("cannot be" in note and "fb_0.gif" in note for note in notes)
    again = PaintedSession(model)
    assert run(read_material([data]), tmp_path / "out", {"sim": again}).devices[0].notes == notes
    assert again.judged == 0
    assert "its crop 32x32" in terminal_text(write_evaluation(found, tmp_path / "out"), [])


def test_an_interrupted_run_goes_on(tmp_path: Path, model: Path) -> None:
    data = write_crops(tmp_path / "faces", {f"{'fr'[i % 2]}{i}": [i / 20] * 3 for i in range(12)})
    material = read_material([data])
    broken = PaintedSession(model, fail_after=5)
    with pytest.raises(OSError, match="planted"):
        run(material, tmp_path / "out", {"sim": broken})
    kept = next((tmp_path / "out" / "scores").iterdir())
    done = len(kept.read_text().splitlines()) - 1
    assert done >= 3
    # A line that was cut off in the middle is not believed.
    kept.write_bytes(kept.read_bytes()[:-10])
    again = PaintedSession(model)
    found = run(material, tmp_path / "out", {"sim": again})
    assert again.judged == 36 - 3 * (done - 1)
    assert len(found.tables["sim"].rows) == 36
    fresh = run(material, tmp_path / "fresh", {"sim": PaintedSession(model)})
    assert found.tables["sim"].rows == fresh.tables["sim"].rows
    third = PaintedSession(model)
    run(material, tmp_path / "out", {"sim": third})
    assert third.judged == 0


def test_scores_of_other_data_or_another_model_are_not_taken(tmp_path: Path, model: Path) -> None:
    data = write_crops(tmp_path / "faces", {"fa": [0.8], "rb": [0.2]})
    first = read_material([data])
    run(first, tmp_path / "out", {"sim": PaintedSession(model)})
    image = paint(0.4)
    assert cv2.imwrite(str(data / "crops" / "fa_0.png"), image[..., ::-1])
    second = read_material([data])
    assert second.digest != first.digest
    session = PaintedSession(model)
    found = run(second, tmp_path / "out", {"sim": session})
    assert session.judged == 2
    assert found.tables["sim"].rows[0].probability == pytest.approx(0.4, abs=1e-6)
    model.write_bytes(b"another")
    session = PaintedSession(model)
    run(second, tmp_path / "out", {"sim": session})
    assert session.judged == 2


def test_a_device_that_judges_nothing_is_an_error(tmp_path: Path, model: Path) -> None:
    data = write_crops(tmp_path / "faces", {"fa": [0.8], "rb": [0.2]})
    (data / "crops" / "fa_0.png").write_bytes(b"\x89PNG no picture")
    (data / "crops" / "rb_0.png").write_bytes(b"\x89PNG no picture")
    with pytest.raises(DataError, match="could not judge one frame"):
        run(read_material([data]), tmp_path / "out", {"sim": PaintedSession(model)})


@needs_av
def test_videos_as_dfdc_has_them(tmp_path: Path, model: Path) -> None:
    for part in ("part_0", "part_1"):
        (tmp_path / part).mkdir()
        write_clip(tmp_path / part / "a.mp4", 12, height=SIZE, width=SIZE)
        labels = {"a.mp4": {"label": "FAKE" if part[-1] == "1" else "REAL", "original": "b.mp4"}}
        labels["gone.mp4"] = {"label": "FAKE"}
        (tmp_path / part / "metadata.json").write_text(json.dumps(labels))
    material = read_material([tmp_path])
    assert [(clip.name, clip.fake, clip.facts["source"]) for clip in material.clips] == [
        ("part_0/a", False, "part_0"),
        ("part_1/a", True, "part_1"),
    ]
    assert material.notes == ("2 videos of metadata.json are not there",)
    assert all(float(clip.facts["bits_per_pixel"]) > 0 for clip in material.clips)
    rules = Rules(min_frames=1)
    found = run(
        material,
        tmp_path / "out",
        {"sim": PaintedSession(model)},
        every=5,
        judge=judge_of(rules, False),
        rules=rules,
    )
    table = found.tables["sim"]
    assert [(row.frame, row.time) for row in table.rows] == [(0, 0.0), (5, 0.25), (10, 0.5)] * 2
    near = [level(row.frame) / 255 for row in table.rows]
    assert table.column("probability") == pytest.approx(near, abs=0.02)
    assert {video.name: video.frames for video in table.videos} == {"part_0/a": 3, "part_1/a": 3}


@needs_av
def test_faces_of_a_video_are_rows_of_their_own(tmp_path: Path, model: Path) -> None:
    rng = np.random.RandomState(3)
    still = rng.randint(0, 255, (200, 320, 3)).astype(np.uint8)
    write_clip(tmp_path / "f.mp4", 6, height=200, width=320, pictures=[still] * 6)
    (tmp_path / "metadata.json").write_text('{"f.mp4": {"label": "FAKE"}}')
    boxes = {"ann": [20, 40, 100, 120], "bob": [180, 60, 270, 150]}
    lines = [
        json.dumps({"frame": n, "box": box, "id": name})
        for n in range(6)
        for name, box in boxes.items()
        if not (n == 4 and name == "bob")
    ]
    (tmp_path / "boxes.jsonl").write_text("\n".join(lines))
    faces = FaceOptions(Kind.BOXES, boxes=tmp_path / "boxes.jsonl")
    rules = Rules(min_frames=1)
    material = read_material([tmp_path])
    for name, changes in (("as-is", ()), ("h264", (Perturbation("h264", 30),))):
        found = run(
            material,
            tmp_path / name,
            {"sim": PaintedSession(model)},
            faces=faces,
            judge=judge_of(rules, False),
            rules=rules,
            changes=changes,
        )
        rows = found.tables["sim"].rows
        tracks = [(n, t) for n in range(6) for t in (1, 2) if (n, t) != (4, 2)]
        assert [(row.frame, row.track) for row in rows] == tracks
        assert {row.track: row.height for row in rows} == {1: 80, 2: 90}
        assert found.tables["sim"].videos[0].frames == 6
        assert found.tables["sim"].videos[0].judged == 6


def test_data_that_cannot_be_used_say_why(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="does not exist"):
        read_material([tmp_path / "nowhere"])
    (tmp_path / "plain").mkdir()
    with pytest.raises(MissingError, match="has no labels"):
        read_material([tmp_path / "plain"])
    (tmp_path / "plain" / "metadata.json").write_text("{")
    with pytest.raises(FormatError, match="cannot be read"):
        read_material([tmp_path / "plain"])
    (tmp_path / "plain" / "metadata.json").write_text('{"a.mp4": {"label": "MAYBE"}}')
    with pytest.raises(DataError, match="No labelled video"):
        read_material([tmp_path / "plain"])
    crops = write_crops(tmp_path / "faces", {"fa": [0.8]})
    (crops / "metadata.json").unlink()
    with pytest.raises(MissingError, match="has no labels"):
        read_material([crops])


def test_a_subset_is_balanced_and_repeatable(tmp_path: Path) -> None:
    data = write_crops(
        tmp_path / "faces", {**{f"f{i}": [0.5] for i in range(9)}, "r1": [0.5], "r2": [0.5]}
    )
    chosen = read_material([data], 4, seed=3).clips
    assert sum(clip.fake for clip in chosen) == 2
    assert [clip.name for clip in read_material([data], 4, seed=3).clips] == [
        clip.name for clip in chosen
    ]
    assert len(read_material([data], 10).clips) == 10


# --- perturbations -------------------------------------------------------------------------------


def textured(seed: int = 0, height: int = 48, width: int = 64) -> np.ndarray:
    rng = np.random.RandomState(seed)
    small = rng.randint(40, 200, (6, 8, 3)).astype(np.uint8)
    return np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)


def through(change: Perturbation, images: List[np.ndarray], seed: int = 0) -> List[np.ndarray]:
    reads = [lambda i=i: Frame("x", i, None, images[i]) for i in range(len(images))]
    frames = [read() for read in change.applied(reads, seed, "clip")]
    assert [frame.index for frame in frames] == list(range(len(images)))
    return [cast(np.ndarray, frame.image) for frame in frames]


@pytest.mark.parametrize("name", FOR_CROPS)
def test_every_perturbation_changes_pictures_and_repeats_itself(name: str) -> None:
    change = parse_perturbation(name)
    assert change.name == name
    assert re.search(r"\d", change.words)
    images = [textured(1, 192, 256)] * 2
    first, again = through(change, images), through(change, images)
    for a, b in zip(first, again):
        assert a.dtype == np.uint8
        assert np.array_equal(a, b)
        shrunk = {"resize-50": (96, 128), "resize-25": (48, 64)}
        assert a.shape[:2] == shrunk.get(name, (192, 256))
        assert a.shape != images[0].shape or not np.array_equal(a, images[0])
    if change.kind == "noise":
        assert not np.array_equal(first[0], first[1])
        assert not np.array_equal(first[0], through(change, images, seed=1)[0])


def test_strength_is_what_it_says() -> None:
    flat = np.full((64, 64, 3), 100, np.uint8)
    grain = through(Perturbation("noise", 10), [flat])[0].astype(float)
    assert grain.std() == pytest.approx(10, rel=0.05)
    assert grain.mean() == pytest.approx(100, abs=0.5)
    assert (through(Perturbation("brightness", 140), [flat])[0] == 140).all()
    assert (through(Perturbation("brightness", 300), [flat])[0] == 255).all()
    bright = through(Perturbation("gamma", 60), [flat])[0]
    assert (bright == math.floor(255 * (100 / 255) ** 0.6 + 0.5)).all()
    errors = [
        np.abs(through(Perturbation("jpeg", q), [textured()])[0].astype(int) - textured()).mean()
        for q in (90, 30)
    ]
    assert errors[0] < errors[1]


@needs_av
def test_h264_keeps_order_sizes_and_places() -> None:
    sizes = [(48, 64)] * 4 + [(33, 47)] * 3
    images: List[Optional[np.ndarray]] = [
        np.full((*size, 3), level(n), np.uint8) for n, size in enumerate(sizes)
    ]
    images[0] = images[2] = images[6] = None

    def read(n: int) -> Frame:
        image = images[n]
        if image is None:
            return Frame("x", n, None, None, Status.DECODE_ERROR, "planted")
        return Frame("x", n, None, image)

    frames = [one() for one in reencoded([lambda n=n: read(n) for n in range(7)], 28)]
    assert [frame.index for frame in frames] == list(range(7))
    for n, frame in enumerate(frames):
        original = images[n]
        if original is None:
            assert frame.image is None
            assert frame.reason == "planted"
            continue
        assert frame.image is not None
        assert frame.image.shape == original.shape
        assert frame.image.mean() == pytest.approx(level(n), abs=6)
    clip = [np.roll(textured(2), n, axis=1) for n in range(6)]
    soft, hard = (through(Perturbation("h264", crf), clip) for crf in (23, 40))
    off = [
        np.mean([np.abs(a.astype(int) - b).mean() for a, b in zip(some, clip)])
        for some in (soft, hard)
    ]
    assert 0 < off[0] < off[1]
    assert all(np.array_equal(a, b) for a, b in zip(hard, through(Perturbation("h264", 40), clip)))


def test_names_of_perturbations() -> None:
    assert [p.name for p in perturbations((), True)] == list(FOR_VIDEOS)
    assert {p.kind for p in perturbations((), False)} == set(CHANGES)
    for name in ("swirl-3", "jpeg", "jpeg-0", "jpeg-101", "blur--1", "h264-52", "jpeg-x"):
        with pytest.raises(UsageError, match="no perturbation"):
            parse_perturbation(name)


def test_robustness_measures_the_same_videos_again(tmp_path: Path, model: Path) -> None:
    data = write_crops(tmp_path / "faces", {f"{'fr'[i % 2]}{i}": [i / 40] for i in range(6)})
    material = read_material([data])
    change = Perturbation("brightness", 200)
    found = run(material, tmp_path / "out", {"sim": PaintedSession(model)}, changes=(change,))
    as_is = found.tables["sim"].column("probability")
    record = found.to_json()["devices"]["sim"]
    brighter = measure_of(found, change)
    assert brighter == pytest.approx(np.minimum(1, 2 * as_is).mean(), abs=0.02)
    assert [one["perturbation"] for one in record["robustness"]] == ["brightness-200"]
    told = record["robustness"][0]["change"]["frame"]["accuracy"]["value"]
    now = record["robustness"][0]["frame"]["accuracy"]["value"]
    assert told == pytest.approx(now - record["frame"]["accuracy"]["value"], abs=2e-6)
    assert len(list((tmp_path / "out" / "scores").iterdir())) == 2


def measure_of(found: Evaluation, change: Perturbation) -> float:
    """Mean probability under a perturbation, from the file of its scores."""
    scores = Path(found.model).parent / "out" / "scores"
    path = next(scores.glob(f"sim-{change.name}-*.jsonl"))
    lines = [json.loads(line) for line in path.read_text().splitlines()[1:]]
    return float(np.mean([row[6] for line in lines for row in line["rows"]]))


# --- side by side --------------------------------------------------------------------------------


def test_planted_flips_are_found() -> None:
    ours = table_of({"fa": [0.9, 0.52], "fb": [0.7], "ra": [0.2, None], "rb": [0.3]})
    theirs = table_of({"fa": [0.9, 0.48], "fb": [0.3], "ra": [0.2, 0.9], "rb": [0.31]})
    found = flips(("float", "sim"), ours, theirs, 0.5)
    assert [flip.name for flip in found.frames] == ["fa_1.png", "fb_0.png", "ra_1.png"]
    assert found.frames[0].to_json() == {
        "name": "fa_1.png",
        "label": "FAKE",
        "first": {"fake_probability": 0.52, "verdict": "FAKE"},
        "second": {"fake_probability": 0.48, "verdict": "REAL"},
    }
    assert found.frames[2].first == (None, "not judged")
    assert [(flip.name, flip.first[1], flip.second[1]) for flip in found.videos] == [
        ("fb", "manipulated", "authentic"),
        ("ra", "authentic", "inconclusive"),
    ]
    assert found.compared == 6
    assert found.largest_change == pytest.approx(0.4)
    assert flips(("a", "b"), ours, ours, 0.5).frames == ()


def test_devices_side_by_side(tmp_path: Path, model: Path) -> None:
    data = write_crops(tmp_path / "faces", {"fa": [0.9], "fb": [0.55], "ra": [0.1], "rb": [0.3]})
    sessions = {
        "float": PaintedSession(model, "float"),
        "auto": PaintedSession(model, "sim", off=-0.1),
        "sim": PaintedSession(model, "sim", off=-0.1),
    }
    found = run(read_material([data]), tmp_path / "out", sessions)
    assert [device.name for device in found.devices] == ["float", "sim"]
    assert sessions["sim"].judged == 0  # auto was the same device
    assert [flip.name for flip in found.flips[0].frames] == ["fb_0.png"]
    text = terminal_text({**write_evaluation(found, tmp_path / "out")}, ["eval.json"])
    assert "1 of 4 frame verdicts flip" in text
    assert "fb_0.png (FAKE): float FAKE 0.549, sim REAL 0.449" in text


def test_parts_of_the_data() -> None:
    facts = {
        "fa": {"method": "swap", "compression": "c23"},
        "fb": {"method": "swap", "compression": "c40"},
        "fc": {"method": "edit", "compression": "c23"},
        "ra": {"compression": "c23"},
        "rb": {"compression": "c40"},
    }
    table = table_of(
        {"fa": [0.9], "fb": [0.8], "fc": [0.2], "ra": [0.3], "rb": [0.4]},
        facts,
        sides={"fa": 40, "fb": 40, "fc": 80, "ra": 80, "rb": 40},
    )
    parts, left_out = breakdown(table, QUICK, ["mood"])
    by = {(part.key, part.group): part.measures for part in parts}
    # The authentic ones have no method: they count against each.
    assert by["method", "swap"].counts["videos"] == 4
    assert by["method", "swap"].figures["video"]["auc"].value == 1.0
    assert by["method", "edit"].figures["video"]["auc"].value == 0.0
    assert by["compression", "c40"].counts["videos"] == 2
    assert by[FACE_SIZE, "40 px"].counts == {**by[FACE_SIZE, "40 px"].counts, "frames": 3}
    assert left_out == {"mood": "metadata.json does not tell it of any video"}
    same, why = breakdown(table_of({"fa": [0.9], "ra": [0.1]}), QUICK)
    assert same == []
    assert why == {FACE_SIZE: "it is 64 px everywhere"}


def test_many_numbers_are_cut_into_thirds() -> None:
    videos = {f"{'fr'[i % 2]}{i:02d}": [0.5 + 0.1 * (i % 2)] for i in range(12)}
    facts = {name: {"crf": str(20 + i)} for i, name in enumerate(videos)}
    sides = {name: 100 + i for i, name in enumerate(videos)}
    parts, _ = breakdown(table_of(videos, facts, sides=sides), QUICK)
    counts = [part.measures.counts["videos"] for part in parts if part.key == "crf"]
    assert counts == [4, 4, 4]
    assert [part.group for part in parts if part.key == FACE_SIZE] == [
        "up to 103.7 px", "103.7 to 107.3 px", "over 107.3 px",
    ]  # fmt: skip


# --- files and baseline --------------------------------------------------------------------------


def same_tables(ours: Table, theirs: Table) -> bool:
    return (
        ours.rows == theirs.rows
        and repr(ours.videos) == repr(theirs.videos)
        and bool(np.array_equal(ours.unit, theirs.unit))
    )


def test_tables_survive_their_files(tmp_path: Path) -> None:
    table = table_of({"fa": [0.9, None], "r,b": [1 / 3]}, {"fa": {"crf": "23"}})
    rows = (table.rows[0]._replace(tp=3, fp=0, fn=2, tn=9, boundary=0.25, reason='a "b", c'),)
    table = replace(table, rows=rows + table.rows[1:])
    (tmp_path / "eval.csv").write_text(frames_csv({"sim": table, "float": table}))
    (tmp_path / "videos.csv").write_text(videos_csv({"sim": table, "float": table}))
    again = read_tables(tmp_path / "eval.csv", tmp_path / "videos.csv")
    assert list(again) == ["sim", "float"]
    assert same_tables(again["sim"], table)


def test_only_what_both_have_is_compared() -> None:
    ours = table_of({"fa": [0.9, 0.8], "ra": [0.1], "fx": [0.5]})
    theirs = table_of({"ra": [0.2], "fa": [0.7], "ry": [0.5]})
    first, second = in_common(ours, theirs)
    assert [video.name for video in first.videos] == ["fa", "ra"]
    assert [row.source for row in first.rows] == [row.source for row in second.rows]
    assert first.column("probability").tolist() == [0.9, 0.1]
    assert second.column("probability").tolist() == [0.7, 0.2]


@pytest.fixture
def earlier(tmp_path: Path, model: Path) -> Tuple[Path, Material]:
    rng = np.random.RandomState(0)
    data = write_crops(
        tmp_path / "faces",
        {f"{'rf'[i % 2]}{i}": list(rng.uniform(0.1, 0.6, 2) + 0.3 * (i % 2)) for i in range(24)},
    )
    material = read_material([data])
    write_evaluation(
        run(material, tmp_path / "old", {"sim": PaintedSession(model)}), tmp_path / "old"
    )
    return tmp_path / "old" / "eval.json", material


def test_the_same_again_is_no_worse(
    tmp_path: Path, model: Path, earlier: Tuple[Path, Material]
) -> None:
    path, material = earlier
    found = run(material, tmp_path / "new", {"sim": PaintedSession(model)})
    found.against = against(read_baseline(path), found.tables, material.digest, QUICK, 0.0)
    assert not found.worse
    assert found.against[0].same_data
    for change in found.against[0].changes:
        assert change.change.value in (0.0, None)
        assert not change.beyond_chance


def test_a_worse_one_is_told(tmp_path: Path, model: Path, earlier: Tuple[Path, Material]) -> None:
    path, material = earlier
    weak = PaintedSession(model, off=-0.3)
    found = run(material, tmp_path / "new", {"sim": weak})
    found.against = against(read_baseline(path), found.tables, material.digest, QUICK, 0.01)
    assert found.worse
    changes = {(change.level, change.name): change for change in found.against[0].changes}
    accuracy = changes["frame", "accuracy"]
    assert accuracy.worse
    assert accuracy.beyond_chance
    before, now = accuracy.before.value, accuracy.now.value
    assert accuracy.change.value == pytest.approx(cast(float, now) - cast(float, before))
    # Nothing but the cut at 0 changes the order, and a threshold has no better or worse.
    assert not changes["frame", "threshold"].worse
    generous = against(read_baseline(path), found.tables, material.digest, QUICK, 1.0)
    losses = {c.name for c in generous[0].changes if c.worse}
    assert losses <= {"log_loss"}


def test_a_baseline_that_cannot_be_used(
    tmp_path: Path, model: Path, earlier: Tuple[Path, Material]
) -> None:
    path, material = earlier
    with pytest.raises(MissingError, match="does not exist"):
        read_baseline(tmp_path / "none.json")
    (tmp_path / "other.json").write_text("[]")
    with pytest.raises(FormatError, match=r"is no eval\.json"):
        read_baseline(tmp_path / "other.json")
    found = run(material, tmp_path / "new", {"sim": PaintedSession(model)})
    others = {"a": found.tables["sim"], "b": found.tables["sim"]}
    with pytest.raises(MismatchError, match="of other devices"):
        against(read_baseline(path), others, material.digest, QUICK, 0.01)
    foreign = {"sim": table_of({"fz": [0.4]})}
    with pytest.raises(MismatchError, match="of other data"):
        against(read_baseline(path), foreign, "", QUICK, 0.01)
    text = path.with_name("eval.csv").read_text()
    path.with_name("eval.csv").write_text(text.replace("0.", "0.1", 1))
    with pytest.raises(FormatError, match="not of the same run"):
        read_baseline(path)
    path.with_name("eval.csv").unlink()
    with pytest.raises(MissingError, match=r"There is no .*eval\.csv"):
        read_baseline(path)


# --- the page ------------------------------------------------------------------------------------


class Reader(html.parser.HTMLParser):
    """Every element that is opened is closed in order; remembers text and what is fetched."""

    VOID = ("meta", "img", "br")

    def __init__(self) -> None:
        super().__init__()
        self.open: List[str] = []
        self.words: List[str] = []
        self.fetched: List[str] = []
        self.headings: List[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.fetched += [value for name, value in attrs if name in ("src", "href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)
        if self.open and self.open[-1] == "h2":
            self.headings.append(data)


def test_the_page_is_whole_and_says_it_in_words(
    tmp_path: Path, model: Path, earlier: Tuple[Path, Material]
) -> None:
    path, material = earlier
    found = run(
        material,
        tmp_path / "new",
        {"float": PaintedSession(model, "float"), "sim": PaintedSession(model, off=-0.2)},
        changes=(Perturbation("blur", 2),),
    )
    found.against = against(read_baseline(path), found.tables, material.digest, QUICK, 0.01)
    record = write_evaluation(found, tmp_path / "new")
    assert json.loads((tmp_path / "new" / "eval.json").read_text()) == record
    write_eval_page(tmp_path / "new" / "eval.html", record)
    text = (tmp_path / "new" / "eval.html").read_text()
    reader = Reader()
    reader.feed(text)
    assert reader.open == []
    assert reader.fetched == []
    assert "<script" not in text
    said = " ".join(reader.words)
    right = record["devices"]["float"]["video"]["accuracy_decided"]
    states = [video.state for video in found.tables["float"].videos]
    undecided = sum(state is State.INCONCLUSIVE for state in states)
    assert f"Where the detector decides, {100 * right['value']:.1f} % of its answers" in said
    assert f"it leaves {undecided} of 24 videos undecided" in said
    assert "12 manipulated and 12 authentic videos" in said
    for heading in ("Strict or mild (ROC)", "Can the probability be believed (reliability)",
                    "Right and wrong (confusion)", "Robustness (sim)", "Where the devices differ",
                    "Against the baseline", "What the figures mean"):  # fmt: skip
        assert heading in reader.headings
    drawings = re.findall(r"<svg.*?</svg>", text, re.S)
    assert len(drawings) >= 9
    for drawing in drawings:
        ElementTree.fromstring(drawing)
    # What was counted is what is drawn.
    confusion = record["devices"]["float"]["confusion"]
    cells = [str(n) for row in confusion.values() for n in row.values()]
    shown = [node.text for node in ElementTree.fromstring(drawings[0]).iter() if node.text]
    assert [word for word in shown if word.isdigit()] == cells


def test_the_page_of_one_kind_only(tmp_path: Path, model: Path) -> None:
    data = write_crops(tmp_path / "faces", {"fa": [0.9], "fb": [0.3]})
    found = run(read_material([data]), tmp_path / "out", {"sim": PaintedSession(model)})
    record = write_evaluation(found, tmp_path / "out")
    write_eval_page(tmp_path / "out" / "eval.html", record)
    text = (tmp_path / "out" / "eval.html").read_text()
    assert "all judged videos are manipulated" in text
    # Two videos: next to nothing is known.
    assert "50.0 % of its answers are right (for other such videos 0.0 to 100.0 %)" in text
    assert "These are only 2 videos: all intervals are a rough guide." in text
    assert record["devices"]["sim"]["video"]["auc"]["value"] is None
    assert record["devices"]["sim"]["curves"]["video"]["roc"] is None
    assert "all judged frames are manipulated" in terminal_text(record, [])
