"""``scripts/evaluate_photographs.py``: what it cuts out, and that it says why it skips."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

pytest.importorskip("cv2")

from deepfake_fpga.inference.session import Prediction
from deepfake_fpga.preprocessing import Preprocessing
from deepfake_fpga.quantize.synthetic import make_take

SCRIPT = Path(__file__).resolve().parents[1] / "scripts" / "evaluate_photographs.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("evaluate_photographs", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_without_the_packages_it_skips_with_the_reason(tmp_path: Path):
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--packages", str(tmp_path)], capture_output=True, text=True
    )
    assert done.returncode == 0
    assert "pip install scikit-image" in done.stderr
    assert "pip install matplotlib" in done.stderr
    assert "skipped: there is no photograph" in done.stderr
    assert done.stdout == ""


def test_a_photograph_without_a_face_is_left_out(script: ModuleType, tmp_path: Path):
    import cv2

    target = tmp_path / "skimage" / "data" / "astronaut.png"
    target.parent.mkdir(parents=True)
    cv2.imwrite(str(target), np.full((300, 300, 3), 90, np.uint8))
    faces, missing = script.find_faces(tmp_path)
    assert faces == []
    assert missing["astronaut"] == "the cascade finds no face in it"
    assert "matplotlib" in missing["grace_hopper"]


def test_every_authentic_crop_has_its_manipulated_twin(script: ModuleType):
    picture = make_take("test", 0, 1, 1, fake=False, size=400).pictures[0]
    face = script.Face("drawn", picture, 200.0, 200.0, 200.0)
    pictures, masks, fake = script.make_crops(face, seed=1)
    assert len(pictures) == len(masks) == len(fake) == 2 * 2 * 3 * 4
    assert fake == [False, True] * 24
    for place in range(0, len(fake), 2):
        authentic, manipulated = pictures[place], pictures[place + 1]
        assert authentic.shape == manipulated.shape == (224, 224, 3)
        assert not masks[place].any()
        assert masks[place + 1].any()
        assert not np.array_equal(authentic, manipulated)
        rows, columns = np.nonzero(masks[place + 1])
        assert 40 < rows.mean() < 190
        assert 40 < columns.mean() < 184
    again, _, _ = script.make_crops(face, seed=1)
    assert all(np.array_equal(one, other) for one, other in zip(pictures, again))


def test_crops_stay_inside_the_photograph(script: ModuleType):
    picture = np.random.RandomState(0).randint(0, 256, (120, 150, 3)).astype(np.uint8)
    corner = script.Face("corner", picture, 20.0, 15.0, 60.0)
    for margin in script.MARGINS:
        for shift in script.SHIFTS:
            crop, region = script._cut(corner, margin, shift)
            assert crop.shape[0] == crop.shape[1] == int(min(120, 60 * (1 + 2 * margin)))
            assert 0 < region.x < 0.7
            assert 0 < region.y < 0.7


class Painted:
    """A session whose answer is the first pixel: red the fake probability, blue the whole mask."""

    batch = 3

    def submit(self, images: np.ndarray) -> np.ndarray:
        return images

    def result(self, images: np.ndarray) -> Prediction:
        mask = np.broadcast_to(images[:, :1, :1, 2] > 127, images.shape[:3])
        real = 1 - images[:, 0, 0, 0] / 255
        return Prediction(mask.astype(np.uint8), real.astype(np.float32), np.zeros(0, np.int8))


def test_a_compiled_model_is_scored_like_a_float_one(script: ModuleType):
    pytest.importorskip("torch")
    from deepfake_fpga.quantize.samples import Samples

    images = np.zeros((8, 4, 4, 3), np.uint8)
    images[:, 0, 0, 0] = [10, 20, 200, 40, 220, 230, 30, 240]  # one authentic is accused
    images[4:, :, :, 2] = 255
    masks = np.zeros((8, 4, 4), np.uint8)
    masks[4:] = 1
    real = np.array([1, 1, 1, 1, 0, 0, 0, 0], np.float32)
    samples = Samples(images, masks, real, Preprocessing(height=4, width=4))
    session = Painted()
    found = script.measured({"all": samples}, lambda given: script.score_compiled(session, given))
    # Of 16 pairs the manipulated picture with 30 loses two, to 40 and to 200.
    assert found["all"]["auc"] == pytest.approx(14 / 16)
    assert found["all"]["accuracy"] == pytest.approx(6 / 8)
    assert found["all"]["false_alarms"] == pytest.approx(1 / 4)
    assert found["all"]["iou"] == 1.0
