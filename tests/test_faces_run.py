"""Faces through a whole run: order, packing, records, masks in their place, collections."""

from __future__ import annotations

import csv
import json
import random
import sqlite3
import threading
import time
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Tuple

import cv2
import numpy as np
import pytest

from deepfake_fpga.inference.artifact import artifact_of
from deepfake_fpga.inference.collection import run_collection
from deepfake_fpga.inference.collection_inputs import inputs_of
from deepfake_fpga.inference.devices.handmade import uynet
from deepfake_fpga.inference.faces import (
    Box,
    Detection,
    Detector,
    FaceFinder,
    FaceOptions,
    Kind,
    Limits,
    finder,
)
from deepfake_fpga.inference.overlay import draw
from deepfake_fpga.inference.pipeline import Meter, run_pipeline
from deepfake_fpga.inference.records import Frame, FrameResult, Status, VideoInfo
from deepfake_fpga.inference.run import RunOptions, run
from deepfake_fpga.inference.session import Prediction, Session
from deepfake_fpga.inference.sinks import Format
from deepfake_fpga.inference.sources import open_images
from deepfake_fpga.preprocessing import Preprocessing

from .calling import exit_code
from .fakes import FakeSession, ListSink, PaintedSource
from .scenes import Person, scene
from .standins import stand_in_file

SIDE = 40
"""Pixels of a painted face."""

VIDEO = VideoInfo(Path("clip"), Fraction(25), Fraction(1, 25), Fraction(0), None)


class Painted(PaintedSource):
    """Frame ``n`` has ``counts[n]`` faces; face ``k`` has the number ``100 n + k`` painted in."""

    kind = "video"

    def __init__(self, counts: List[int], broken: Any = (), same: Optional[Dict[int, int]] = None):
        super().__init__(len(counts), broken=broken)
        self.counts, self.same = counts, same or {}

    def frame(self, number: int) -> Frame:
        self.reading(number)
        if number in self.broken:
            return Frame("clip", number, None, None, Status.DECODE_ERROR, "painted over", VIDEO)
        image = np.zeros((SIDE, SIDE * max(1, max(self.counts)), 3), np.uint8)
        for face in range(self.counts[number]):
            value = 100 * number + face
            image[:, SIDE * face : SIDE * (face + 1)] = (value // 256, value % 256, 7)
        same = self.same.get(number)
        return Frame("clip", number, number / 25, image, video=VIDEO, same_as=same)


class Squares(Detector):
    """Knows where ``Painted`` puts its faces, and who they are."""

    name = "boxes"
    every_frame = True
    tracks = False

    def __init__(self, source: Painted) -> None:
        self.source = source
        self.pause = lambda: None
        self.threads: set[int] = set()

    def detect(self, image: np.ndarray, frame: Optional[Frame] = None) -> List[Detection]:
        assert frame is not None
        self.threads.add(threading.get_ident())
        self.pause()
        return [
            Detection(Box(SIDE * k, 0, SIDE * (k + 1), SIDE), 1.0, identity=k + 1)
            for k in range(self.source.counts[frame.index])
        ]


def finding(
    detector: Detector, monkeypatch: pytest.MonkeyPatch, smallest: float = 1.0
) -> FaceFinder:
    monkeypatch.setattr(finder, "open_detector", lambda options: (detector, "for a test"))
    limits = Limits(smallest=smallest, least_sharpness=0.0)
    options = FaceOptions(Kind.CASCADE, limits=limits)
    # A margin of nothing, so that a face's pixels are those of its box.
    return FaceFinder(options, Preprocessing(face="boxes", height=32, width=32))


def go(
    source: Painted,
    monkeypatch: pytest.MonkeyPatch,
    detector: Optional[Squares] = None,
    session: Optional[FakeSession] = None,
    sink: Optional[ListSink] = None,
    **options: Any,
) -> Tuple[ListSink, FakeSession, Meter]:
    session, sink = session or FakeSession(), sink or ListSink()
    own = finding(detector or Squares(source), monkeypatch)
    meter = run_pipeline([source], session.as_session(), [sink], faces=own, **options)
    return sink, session, meter


def numbers(result: FrameResult) -> List[Tuple[int, float]]:
    return [
        (part.face.track, round((part.real or 0.0) * 65536)) for part in result.faces if part.face
    ]


@pytest.mark.parametrize("threads", [1, 4])
def test_every_face_gets_its_own_answer_in_order(
    threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(threads)
    counts = [chance.choice([0, 1, 1, 2, 3, 19]) for _ in range(90)]
    source = Painted(counts, broken={0, 11, 12, 89})
    detector = Squares(source)
    detector.pause = lambda: time.sleep(chance.random() * 0.002)
    sink, session, meter = go(source, monkeypatch, detector, threads=threads)
    assert [result.frame.index for result in sink.results] == list(range(90))
    judged = 0
    for result in sink.results:
        number = result.frame.index
        if number in source.broken:
            assert result.status is Status.DECODE_ERROR
            assert result.parts == (result,)
            continue
        judged += counts[number]
        assert numbers(result) == [(k + 1, 100 * number + k) for k in range(counts[number])]
        if not counts[number]:
            assert result.status is Status.NO_FACE
            assert result.to_json()["fake_probability"] is None
        else:  # the most suspicious face speaks for the frame
            assert result.fake_probability == result.faces[0].fake_probability
    # Packed across frames: only the last batch may be short, though frames lie in two of them.
    assert all(size == 8 for size in session.sizes[:-1])
    assert sum(session.sizes) == meter.images == judged
    assert meter.done == 90
    if threads == 4:
        assert len(detector.threads) > 1


def test_a_frame_with_more_faces_than_slots(monkeypatch: pytest.MonkeyPatch) -> None:
    sink, session, _ = go(Painted([3, 30, 2]), monkeypatch)
    assert session.sizes == [8, 8, 8, 8, 3]
    assert [len(result.faces) for result in sink.results] == [3, 30, 2]
    assert numbers(sink.results[1]) == [(k + 1, 100 + k) for k in range(30)]


def test_no_face_at_all_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    sink, session, meter = go(Painted([0] * 200), monkeypatch)
    assert session.sizes == []
    assert meter.fill is None
    assert {result.status for result in sink.results} == {Status.NO_FACE}
    assert len(sink.results) == 200


def test_faces_kept_out_take_no_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    source, sink, session = Painted([2, 1]), ListSink(), FakeSession()
    own = finding(Squares(source), monkeypatch, smallest=41)
    run_pipeline([source], session.as_session(), [sink], faces=own)
    assert session.sizes == []
    statuses = [[part.status for part in result.parts] for result in sink.results]
    assert statuses == [[Status.TOO_SMALL] * 2, [Status.TOO_SMALL]]
    record = sink.results[0].parts[1].to_json()
    assert (record["status"], record["track"]) == ("too_small", 2)
    assert record["box"] == [40.0, 0.0, 80.0, 40.0]
    assert record["fake_probability"] is None
    assert "41 are needed" in record["reason"]
    assert sink.results[0].status is Status.TOO_SMALL


def test_unchanged_frames_inherit_their_faces(monkeypatch: pytest.MonkeyPatch) -> None:
    source = Painted([2, 2, 0, 0, 1], same={1: 0, 3: 2})
    sink, session, _ = go(source, monkeypatch)
    assert sum(session.sizes) == 3
    found = [numbers(result) for result in sink.results]
    assert found == [[(1, 0), (2, 1)], [(1, 0), (2, 1)], [], [], [(1, 400)]]
    inherited = [part.to_json()["inherited_from"] for part in sink.results[1].parts]
    assert inherited == [0, 0]
    assert [part.frame.index for part in sink.results[1].parts] == [1, 1]
    assert sink.results[3].status is Status.NO_FACE


def test_a_slow_sink_holds_the_reader_back(monkeypatch: pytest.MonkeyPatch) -> None:
    source, sink = Painted([2] * 300), ListSink()
    read: List[int] = []
    ahead: List[int] = []
    source.before = read.append
    sink.on_write = lambda result: (time.sleep(0.002), ahead.append(len(read)))[0]  # type: ignore[func-returns-value]
    go(source, monkeypatch, sink=sink, threads=2)
    assert max(seen - number for number, seen in enumerate(ahead)) < 150


def test_the_masks_of_all_faces_stand_in_the_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    class Looking(ListSink):
        needs_image = True

    class Upper(FakeSession):
        """Marks the upper half of the second face of a frame."""

        def result(self, ticket: int) -> Prediction:
            found = super().result(ticket)
            mask = np.zeros_like(found.mask)
            mask[1::2, :16] = 1
            return replace(found, mask=mask)

    sink, _, _ = go(Painted([2, 2]), monkeypatch, session=Upper(size=32), sink=Looking())
    second = sink.results[1]
    assert second.mask is not None
    expected = np.zeros((SIDE, 2 * SIDE), np.uint8)
    expected[: SIDE // 2, SIDE:] = 1
    assert np.array_equal(second.mask, expected)
    assert second.mask_fraction == 0.25  # of the frame
    assert [part.mask_fraction for part in second.faces] == [0.0, 0.5]  # of the crop
    drawn = draw(second)
    assert drawn.shape == (SIDE, 2 * SIDE, 3)
    small = draw(second, np.zeros((SIDE // 2, SIDE, 3), np.uint8))
    assert small.shape == (SIDE // 2, SIDE, 3)


# --- whole runs, with files


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    path = stand_in_file(tmp_path)
    with Session(artifact_of(uynet(4, size=112), path), "sim", threads=1) as opened:
        yield opened


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two people, nobody, a crop."""
    found = tmp_path / "pictures"
    found.mkdir()
    people = [Person(5, 20, 60, 200), Person(3, 380, 70, 220)]
    pictures = {
        "a_two": scene(people),
        "b_none": scene([]),
        "c_crop": scene([Person(5, 0, 0, 256)], 256, 256),
    }
    for name, picture in pictures.items():
        assert cv2.imwrite(str(found / f"{name}.png"), picture[..., ::-1])
    (found / "d_bad.png").write_text("no picture")
    return found


def records(output: Path) -> List[Dict[str, Any]]:
    lines = (output / "records.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def test_images_give_a_record_for_each_face(session: Session, folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    formats = tuple(Format(name) for name in ("csv", "sqlite", "npy", "rle"))
    options = RunOptions(threads=2, faces=FaceOptions(), formats=formats)
    summary = run([open_images(str(folder))], session, output, options)
    found = records(output)
    short = [(Path(r["source"]).stem, r["track"], r["status"]) for r in found]
    assert short == [
        ("a_two", 1, "ok"),
        ("a_two", 2, "ok"),
        ("b_none", None, "no_face"),
        ("c_crop", None, "ok"),
        ("d_bad", None, "decode_error"),
    ]
    left, right = (Box(*record["box"]) for record in found[:2])
    assert left.overlap(Person(5, 20, 60, 200).box) > 0.6
    assert right.overlap(Person(3, 380, 70, 220).box) > 0.6
    assert summary.meter.images == 3
    assert summary.statuses == {"ok": 2, "decode_error": 1, "no_result": 0, "no_face": 1}
    written = json.loads((output / "summary.json").read_text())["faces"]
    assert {c["method"]: c["files"] for c in written["choices"]} == {"cascade": 2, "whole": 1}
    assert any("margin" in note for note in summary.notes)

    # The other forms have a row for each record.
    with (output / "records.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["track"] for row in rows] == ["1", "2", "", "", ""]
    base = sqlite3.connect(str(output / "records.sqlite"))
    stored = base.execute("SELECT track, box FROM frames ORDER BY number").fetchall()
    base.close()
    assert [row[0] for row in stored] == [1, 2, None, None, None]
    assert json.loads(stored[0][1]) == found[0]["box"]
    scores = np.load(output / "classification_output_array.npy")
    assert np.isnan(scores[:, 0]).tolist() == [False, False, True, False, True]
    lines = [json.loads(line) for line in (output / "masks.rle.jsonl").read_text().splitlines()]
    assert [line.get("track") for line in lines] == [1, 2, None, None, None]
    assert lines[0]["size"] == lines[1]["size"] == [360, 640]

    # Masks stand where the faces are.
    mask = cv2.imread(str(output / "masks" / "a_two.png"), cv2.IMREAD_GRAYSCALE)
    assert mask.shape == (360, 640)
    for line in lines[:2]:
        x, y, width, height = line["bbox"]
        assert line["area"] == 0 or mask[y : y + height, x : x + width].any()
    assert (output / "overlays" / "b_none.png").is_file()


def test_a_collection_comes_to_the_same(session: Session, folder: Path, tmp_path: Path) -> None:
    options = RunOptions(threads=2, faces=FaceOptions(), pictures=False)
    alone = run([open_images(str(folder))], session, tmp_path / "alone", options)
    inputs, reason = inputs_of([open_images(str(folder))], options)
    assert not reason
    whole = run_collection(inputs, session, tmp_path / "all", options)
    assert records(tmp_path / "all") == records(tmp_path / "alone")
    assert whole.statuses == alone.statuses
    assert whole.verdict.to_json() == alone.verdict.to_json()
    (first,), (second,) = alone.sources, whole.sources
    assert (first.frames, first.judged, first.fake) == (second.frames, second.judged, second.fake)
    assert first.total == pytest.approx(second.total)


def test_whole_frames_are_as_before(session: Session, folder: Path, tmp_path: Path) -> None:
    for name, faces in (("none", None), ("whole", FaceOptions(Kind.WHOLE))):
        options = RunOptions(threads=2, faces=faces, pictures=False)
        run([open_images(str(folder))], session, tmp_path / name, options)
    assert records(tmp_path / "none") == records(tmp_path / "whole")
    assert all(record["track"] is None for record in records(tmp_path / "whole"))


def test_limits_may_be_changed(session: Session, folder: Path, tmp_path: Path) -> None:
    options = RunOptions(faces=FaceOptions(Kind.CASCADE, smallest=200.0), pictures=False)
    run([open_images(str(folder))], session, tmp_path / "out", replace(options, threads=1))
    assert {r["status"] for r in records(tmp_path / "out")} <= {
        "no_face",
        "too_small",
        "decode_error",
    }


# --- the command


def call(*words: Any) -> int:
    return exit_code("run", "--device", "null", *words)


def test_the_command_takes_boxes(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    boxes = tmp_path / "boxes.csv"
    boxes.write_text("frame,x0,y0,x1,y1,source\n0,40,80,180,220,a_two.png\n")
    output = tmp_path / "out"
    words = ["--images", folder / "a_two.png", "-o", output, "--face-boxes", boxes]
    assert call(*words, "--no-overlay") == 0
    (record,) = records(output)
    assert (record["track"], record["box"]) == (1, [40.0, 80.0, 180.0, 220.0])
    faces = json.loads((output / "summary.json").read_text())["faces"]
    assert faces["detector"] == "boxes"
    assert faces["choices"][0]["method"] == "boxes"
    # The shipped model says how its faces were cut out: nothing to remark.
    assert faces["margin"] == pytest.approx(1 / 3, abs=1e-5)
    assert "margin" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--faces", "boxes"), "add --face-boxes"),
        (("--faces", "yunet"), "add --face-model"),
        (("--faces", "cascade", "--face-boxes", "b.csv"), "is for --faces boxes"),
        (("--face-boxes", "nowhere.csv"), "There is no file of boxes"),
        (("--face-model", "nowhere.onnx"), "There is no face model"),
        (("--min-face", "5"), "min-face"),
        (("--detect-every", "0"), "detect-every"),
    ],
)
def test_wrong_use_is_refused(
    words: Tuple[str, ...],
    message: str,
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert call("--images", folder, "-o", tmp_path / "out", *words) == 2
    assert message in capsys.readouterr().err


def test_a_picture_without_a_face_is_no_guess(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("--images", folder / "b_none.png", "-o", tmp_path / "out", "--no-overlay") == 1
    assert "no face was found" in capsys.readouterr().err
    (record,) = records(tmp_path / "out")
    assert (record["status"], record["fake_probability"]) == ("no_face", None)
    whole = ["--images", folder / "b_none.png", "-o", tmp_path / "whole", "--faces", "whole"]
    assert call(*whole, "--no-overlay") == 0
