"""One preprocessing: the same frame gives the same int8 input by every path, faces included."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, List

import cv2
import numpy as np
import pytest

from deepfake_fpga.errors import MismatchError
from deepfake_fpga.inference.artifact import Artifact, artifact_of
from deepfake_fpga.inference.devices.handmade import uynet
from deepfake_fpga.inference.devices.recording import Recording
from deepfake_fpga.inference.faces import FaceOptions, Kind
from deepfake_fpga.inference.run import RunOptions, run
from deepfake_fpga.inference.session import Session
from deepfake_fpga.inference.sides import CompiledSide
from deepfake_fpga.inference.sources import open_images
from deepfake_fpga.preprocessing import (
    USUAL_MARGIN,
    Preprocessing,
    Square,
    cut,
    framing,
    paste,
    quantization_table,
    square_about,
    to_codes,
)
from deepfake_fpga.quantize.dataset import read_dataset

from .scenes import Person, scene
from .standins import stand_in_file


@pytest.fixture(scope="module")
def graph() -> Any:
    return uynet(4, size=112)


@pytest.fixture
def artifact(graph: Any, tmp_path: Path) -> Artifact:
    path = stand_in_file(tmp_path)
    return artifact_of(graph, path)


def fix_point(artifact: Artifact) -> int:
    found = artifact.graph.op(artifact.input_op).tensor.fix_point
    assert found is not None
    return found


def write(path: Path, image: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image[..., ::-1])
    return path


def run_codes(artifact: Artifact, picture: Path, output: Path, faces: Any) -> np.ndarray:
    """What the device got: int8 ``[n, H, W, 3]``."""
    record = output / "run.rec"
    output.mkdir()
    with Session(artifact, "null", record=record) as session:
        options = RunOptions(pictures=False, faces=faces)
        summary = run([open_images(str(picture))], session, output, options)
    count = summary.meter.images
    with Recording(record) as recording:
        (codes,) = recording.read(0, 0, "in").values()
    return np.asarray(codes[:count])


def exact_codes(images: np.ndarray, fix: int) -> np.ndarray:
    """Half up and saturated, in whole numbers: floor(v * 2^fix / 255 + 1/2)."""
    codes = (2 * images.astype(np.int64) * 2**fix + 255) // 510
    return np.clip(codes, -128, 127).astype(np.int8)


def test_a_frame_has_the_same_codes_by_every_path(artifact: Artifact, tmp_path: Path) -> None:
    portrait = scene([Person(5, 10, 0, 260)], 280, 300)
    picture = write(tmp_path / "data" / "crops" / "v_0.png", portrait)
    (tmp_path / "data" / "metadata.json").write_text(json.dumps({"v.mp4": {"label": "REAL"}}))
    record, fix = artifact.preprocessing, fix_point(artifact)
    size = (record.width, record.height)
    fitted = cv2.resize(portrait, size, interpolation=cv2.INTER_LINEAR)[None]
    expected = exact_codes(fitted, fix)
    assert len(np.unique(expected)) > 20

    # Calibration and evaluation: the data set's batches, as floats on the quantizer's grid.
    (batch,) = read_dataset(tmp_path / "data").batches(4, record)
    values = batch.floats.transpose(0, 2, 3, 1).astype(np.float64) * 2**fix
    quantized = np.clip(np.floor(values + 0.5), -128, 127).astype(np.int8)
    assert np.array_equal(quantized, expected)
    assert np.array_equal(to_codes(batch.images, quantization_table(fix, record)), expected)

    # A run, whole and where auto sees that it is a crop already.
    for number, faces in enumerate((None, FaceOptions(), FaceOptions(Kind.WHOLE))):
        output = tmp_path / f"out{number}"
        assert np.array_equal(run_codes(artifact, picture, output, faces), expected)

    # A side of a comparison.
    side = CompiledSide("", artifact.path, artifact.graph, "null", 4, None)
    assert side.picture == record
    (value,) = side.feeds(batch.images).values()
    assert np.array_equal(value.array, expected)
    side.close()


def test_a_face_cut_by_the_run_is_the_crop_of_a_data_set(
    artifact: Artifact, tmp_path: Path
) -> None:
    people = [Person(5, 40, 60, 200), Person(3, 380, -30, 220)]  # the second reaches over the edge
    frame = scene(people, 360, 640)
    picture = write(tmp_path / "frames" / "frame.png", frame)
    boxes = tmp_path / "boxes.jsonl"
    boxes.write_text("".join(json.dumps({"frame": 0, "box": list(p.box)}) + "\n" for p in people))
    for n, person in enumerate(people):
        crop = cut(frame, square_about(person.box, USUAL_MARGIN))
        write(tmp_path / "data" / "crops" / f"v_{n}.png", crop)
    (batch,) = read_dataset(tmp_path / "data").batches(4, artifact.preprocessing)
    table = quantization_table(fix_point(artifact), artifact.preprocessing)
    options = FaceOptions(Kind.BOXES, boxes=boxes)
    found = run_codes(artifact, picture, tmp_path / "out", options)
    assert np.array_equal(found, to_codes(batch.images, table))


def test_the_margin_of_the_model_is_applied(artifact: Artifact, tmp_path: Path) -> None:
    person = Person(5, 200, 60, 200)
    frame = scene([person], 360, 640)
    picture = write(tmp_path / "frame.png", frame)
    boxes = tmp_path / "boxes.jsonl"
    boxes.write_text(json.dumps({"frame": 0, "box": list(person.box)}))
    trained = replace(artifact.preprocessing, face="cascade", margin=0.1)
    codes: List[np.ndarray] = []
    for number, record in enumerate((artifact.preprocessing, trained)):
        own = replace(artifact, preprocessing=record)
        options = FaceOptions(Kind.BOXES, boxes=boxes)
        codes.append(run_codes(own, picture, tmp_path / f"out{number}", options))
        margin = json.loads((tmp_path / f"out{number}" / "summary.json").read_text())["faces"]
        assert margin["margin"] == pytest.approx((USUAL_MARGIN, 0.1)[number], abs=1e-6)
    assert not np.array_equal(codes[0], codes[1])


def test_another_detector_than_the_models_is_refused(artifact: Artifact, tmp_path: Path) -> None:
    trained = replace(artifact.preprocessing, face="yunet", margin=0.2)
    picture = write(tmp_path / "frame.png", scene([]))
    own = replace(artifact, preprocessing=trained)
    with pytest.raises(MismatchError, match="framed by yunet"):
        run_codes(own, picture, tmp_path / "out", FaceOptions(Kind.CASCADE))


def test_the_record_travels_and_what_is_not_known_is_refused() -> None:
    record = Preprocessing(face="cascade", margin=0.25)
    assert Preprocessing.from_json(json.loads(json.dumps(record.to_json()))) == record
    assert framing(record, "cascade") == record
    assert framing(record, "boxes") == record
    assert framing(Preprocessing(margin=0.2), "yunet").margin == 0.2
    for wrong in ({"face": "cartoon"}, {"margin": -0.1}, {"margin": 3}, {"colour": "BGR"}):
        with pytest.raises(MismatchError):
            Preprocessing.from_json({**record.to_json(), **wrong})


def test_squares_are_whole_pixels_about_the_middle() -> None:
    assert square_about((10, 20, 50, 60), 0.0) == Square(10, 20, 40)
    assert square_about((10, 20, 50, 60), 0.5) == Square(-10, 0, 80)
    assert square_about((10, 20, 50, 40), 0.0) == Square(10, 10, 40)  # the longer side
    assert square_about((5, 5, 5.2, 5.2), 0.0).side == 2


def test_what_lies_beyond_the_edge_repeats_it() -> None:
    image = np.arange(5 * 4 * 3, dtype=np.uint8).reshape(5, 4, 3)
    padded = np.pad(image, ((2, 2), (2, 2), (0, 0)), mode="edge")
    assert np.array_equal(cut(image, Square(-2, -1, 6)), padded[1:7, 0:6])
    assert np.array_equal(cut(image, Square(1, 1, 3)), image[1:4, 1:4])
    assert np.array_equal(cut(image, Square(1, 1, 3), 2), image[1:4, 1:4][::-1, ::-1])


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
@pytest.mark.parametrize("square", [Square(20, 10, 40), Square(-10, 30, 40), Square(60, -20, 40)])
def test_a_mask_comes_back_to_its_place(square: Square, turns: int) -> None:
    image = np.zeros((64, 96, 3), np.uint8)
    rows, columns = slice(max(square.y, 0) + 2, max(square.y, 0) + 12), slice(70, 80)
    if square.x < 60:
        columns = slice(max(square.x, 0) + 4, max(square.x, 0) + 24)
    image[rows, columns] = 1
    mask = np.asarray(cut(image, square, turns)[..., 0])
    back = paste(mask, square, 64, 96, turns)
    assert np.array_equal(back, image[..., 0])
    larger = cv2.resize(mask, (160, 160), interpolation=cv2.INTER_NEAREST)
    again = paste(larger, square, 64, 96, turns)
    assert np.count_nonzero(again != image[..., 0]) <= 0.05 * image[..., 0].sum()
