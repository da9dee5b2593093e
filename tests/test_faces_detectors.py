"""What finds faces: where drawn people are, on whatever side the picture stands."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, List

import numpy as np
import pytest

from deepfake_fpga.errors import FormatError, MissingError, UnsupportedError, UsageError
from deepfake_fpga.inference.faces import (
    Box,
    BoxesDetector,
    CascadeDetector,
    Detection,
    Detector,
    FaceOptions,
    Kind,
    YuNetDetector,
)
from deepfake_fpga.inference.faces.base import distinct
from deepfake_fpga.inference.faces.options import crop_by_face, crop_by_size, open_detector
from deepfake_fpga.inference.records import Frame

from .scenes import Person, crowd, ground, scene


@pytest.fixture(scope="module")
def cascade() -> CascadeDetector:
    return CascadeDetector()


def sure(detector: Detector, image: np.ndarray) -> List[Detection]:
    """What is believed of a single picture."""
    return [one for one in detector.detect(image) if one.score >= detector.sure]


def best(found: List[Detection], box: Box) -> float:
    return max((one.box.overlap(box) for one in found), default=0.0)


def test_overlap_and_share_within_are_areas() -> None:
    box = Box(0, 0, 10, 10)
    assert box.overlap(Box(5, 0, 15, 10)) == pytest.approx(50 / 150)
    assert box.overlap(Box(10, 0, 20, 10)) == 0
    assert Box(-5, -5, 5, 5).within(100, 100) == pytest.approx(0.25)
    assert Box(200, 0, 210, 10).within(100, 100) == 0


def test_the_cascade_finds_drawn_faces_where_they_are(cascade: CascadeDetector) -> None:
    overlaps, more = [], 0
    for seed in range(24):
        side = 130 + 7 * seed
        person = Person(seed, (37 * seed) % (640 - side), (11 * seed) % (360 - side), side)
        found = sure(cascade, scene([person], room=seed))
        overlaps.append(best(found, person.box))
        more += sum(one.box.overlap(person.box) < 0.4 for one in found)
    hits = [overlap for overlap in overlaps if overlap > 0.5]
    assert len(hits) >= 0.8 * len(overlaps)
    assert np.median(hits) > 0.8
    assert more <= 1


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_a_picture_on_its_head_is_searched_too(cascade: CascadeDetector, turns: int) -> None:
    person = Person(5, 200, 50, 220)
    upright = scene([person])
    turned = np.ascontiguousarray(np.rot90(upright, -turns))
    found = sure(cascade, turned)
    assert [one.turns for one in found] == [turns]
    box = found[0].box
    x, y = (int(value) for value in box.middle)
    # Painting the middle of the box and turning the picture back must hit the face.
    turned[y, x] = (1, 2, 3)
    rows, columns = np.nonzero((np.rot90(turned, turns) == (1, 2, 3)).all(axis=2))
    assert person.box.x0 < columns[0] < person.box.x1
    assert person.box.y0 < rows[0] < person.box.y1


def test_twenty_faces_and_an_empty_room(cascade: CascadeDetector) -> None:
    people, height, width = crowd(20)
    found = sure(cascade, scene(people, height, width))
    assert sum(best(found, person.box) > 0.5 for person in people) >= 17
    assert len(found) <= 21
    assert sure(cascade, ground(2, 360, 640)) == []


def test_faces_from_the_side_are_marked(cascade: CascadeDetector) -> None:
    found = sure(cascade, scene([Person(5, 200, 50, 220, yaw=0.9)]))
    assert [one.profile for one in found] == [True]
    assert not any(one.profile for one in sure(cascade, scene([Person(5, 200, 50, 220)])))


def test_a_tiny_picture_is_no_failure(cascade: CascadeDetector) -> None:
    for shape in ((1, 1, 3), (5, 400, 3), (30, 10, 3)):
        assert cascade.detect(np.zeros(shape, np.uint8)) == []


def test_an_opencv_without_cascades_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    import cv2

    monkeypatch.setattr(cv2, "data", SimpleNamespace(haarcascades="/nowhere/"))
    with pytest.raises(UnsupportedError, match="carries no face cascade"):
        CascadeDetector()


def test_of_overlapping_boxes_the_surest_stays() -> None:
    sure, weak = Detection(Box(0, 0, 100, 100), 0.9), Detection(Box(10, 0, 110, 100), 0.5)
    inside, other = Detection(Box(40, 40, 70, 70), 0.8), Detection(Box(200, 0, 300, 100), 0.3)
    around = Detection(Box(-90, -90, 190, 190), 0.7)
    assert distinct([weak, other, inside, around, sure]) == [sure, other]


class FakeYuNet:
    """OpenCV's class with one face at a known place, of the size that was set."""

    def __init__(self) -> None:
        self.size = (0, 0)

    def setInputSize(self, size: Any) -> None:  # noqa: N802
        self.size = size

    def detect(self, picture: np.ndarray) -> Any:
        assert picture.shape[1::-1] == self.size
        assert picture[0, 0].tolist() == [3, 2, 1]  # BGR
        row = [100, 50, 60, 80, 115, 80, 145, 80, 130, 100, 118, 115, 142, 115, 0.93]
        return 1, np.array([row], np.float32)


def test_yunet_answers_in_pixels_of_the_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import cv2

    model = tmp_path / "yunet.onnx"
    model.write_bytes(b"\x08\x06\x12" * 50)
    fake = FakeYuNet()
    monkeypatch.setattr(
        cv2, "FaceDetectorYN", SimpleNamespace(create=lambda *_: fake), raising=False
    )
    image = np.empty((720, 1280, 3), np.uint8)
    image[:] = (1, 2, 3)
    (found,) = YuNetDetector(model).detect(image)
    assert fake.size == (640, 360)
    assert found.box.width == pytest.approx(120)
    assert found.box.middle == pytest.approx((260, 188))
    assert found.score == pytest.approx(0.93)
    assert found.landmarks is not None
    assert found.landmarks[2] == pytest.approx((260, 200))


def test_a_yunet_that_is_not_there_or_no_model(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="no face model"):
        YuNetDetector(tmp_path / "none.onnx")
    page = tmp_path / "page.onnx"
    page.write_bytes(b"<!DOCTYPE html><html>" * 20)
    with pytest.raises(FormatError):
        YuNetDetector(page)
    wrong = tmp_path / "wrong.onnx"
    wrong.write_bytes(b"certainly no network " * 20)
    with pytest.raises(FormatError):
        YuNetDetector(wrong)


@pytest.mark.parametrize("form", ["jsonl", "csv"])
def test_boxes_come_from_a_file(tmp_path: Path, form: str) -> None:
    path = tmp_path / f"boxes.{form}"
    rows = [(0, 1, 2, 31, 32, "anna"), (0, 50, 2, 80, 32, "bo"), (2, 3, 4, 33, 34, "anna")]
    if form == "csv":
        lines = ["frame,x0,y0,x1,y1,id"] + [",".join(map(str, row)) for row in rows]
    else:
        lines = [json.dumps({"frame": r[0], "box": r[1:5], "id": r[5]}) for r in rows]
    path.write_text("\n".join(lines) + "\n")
    boxes, image = BoxesDetector(path), np.zeros((9, 9, 3), np.uint8)
    assert not boxes.tracks
    assert boxes.names == ["anna", "bo"]
    found = [boxes.detect(image, Frame("clip.mp4", n, None, image)) for n in range(3)]
    assert [[one.identity for one in frame] for frame in found] == [[1, 2], [], [1]]
    assert found[2][0].box == Box(3, 4, 33, 34)


def test_boxes_may_be_of_several_files(tmp_path: Path) -> None:
    path = tmp_path / "boxes.jsonl"
    path.write_text('{"frame": 0, "box": [0, 0, 9, 9], "source": "b.png"}\n')
    image = np.zeros((9, 9, 3), np.uint8)
    boxes = BoxesDetector(path)
    assert boxes.tracks
    assert boxes.detect(image, Frame("folder/a.png", 0, None, image)) == []
    assert len(boxes.detect(image, Frame("folder/b.png", 0, None, image))) == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"frame": 0}\n', "Line 1"),
        ('{"frame": 0, "box": [9, 0, 1, 5]}\n', "empty"),
        ('{"frame": 0, "box": [0, 0, NaN, 5]}\n', "empty"),
        ('{"frame": 0, "box": \n', "cannot be read"),
        ("frame,x0,y0,x1,y1\n0,1,2,x,4\n", "Line 2"),
        ("frame,x0,y0,x1,y1\n0,1,2\n", "too few columns"),
        ("frame,left\n0,1\n", "Line 2"),
        (
            '{"frame": 0, "box": [0, 0, 1, 5], "id": 1}\n{"frame": 1, "box": [0, 0, 1, 5]}\n',
            "have an id",
        ),
    ],
)
def test_boxes_that_cannot_be_understood_are_refused(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "boxes.txt"
    path.write_text(text)
    with pytest.raises(FormatError, match=words):
        BoxesDetector(path)


def test_options_that_contradict_themselves_are_refused(tmp_path: Path) -> None:
    model, boxes = tmp_path / "m.onnx", tmp_path / "b.jsonl"
    for options in (
        FaceOptions(Kind.YUNET),
        FaceOptions(Kind.BOXES),
        FaceOptions(Kind.CASCADE, model=model),
        FaceOptions(Kind.WHOLE, boxes=boxes),
        FaceOptions(Kind.AUTO, model=model, boxes=boxes),
    ):
        with pytest.raises(UsageError):
            options.check()


def test_auto_takes_the_file_that_is_given(tmp_path: Path) -> None:
    path = tmp_path / "b.jsonl"
    path.write_text('{"frame": 0, "box": [0, 0, 9, 9]}\n')
    detector, reason = open_detector(FaceOptions(boxes=path))
    assert isinstance(detector, BoxesDetector)
    assert "--face-boxes" in reason
    detector, reason = open_detector(FaceOptions())
    assert isinstance(detector, CascadeDetector)
    assert open_detector(FaceOptions(Kind.WHOLE))[0] is None


def test_what_counts_as_a_crop() -> None:
    assert crop_by_size(256, 256)
    assert crop_by_size(320, 256)
    assert crop_by_size(64, 48)
    assert not crop_by_size(240, 320)
    assert not crop_by_size(320, 180)
    assert not crop_by_size(360, 360)
    large = np.zeros((512, 512, 3), np.uint8)
    face = Detection(Box(120, 130, 400, 410), 1.0)
    assert crop_by_face(large, [face])
    assert not crop_by_face(large, [face, Detection(Box(0, 0, 90, 90), 1.0)])
    assert not crop_by_face(large, [Detection(Box(200, 200, 300, 300), 1.0)])
    assert not crop_by_face(np.zeros((512, 900, 3), np.uint8), [face])
    assert not crop_by_face(large, [])
