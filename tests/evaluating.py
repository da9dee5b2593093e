"""Labelled crops whose answers are painted into them, and a session that reads them back."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Dict, List, Optional, Sequence

import cv2
import numpy as np

from deepfake_fpga.deploy.evaluating.material import Clip
from deepfake_fpga.deploy.evaluating.scoring import Row
from deepfake_fpga.deploy.evaluating.table import Table, judge_of, make_table
from deepfake_fpga.inference.session import Prediction
from deepfake_fpga.inference.verdicts import Rules

from .fakes import SIZE, FakeSession


class PaintedSession(FakeSession):
    """The red of the first pixel is the fake probability in 255ths, the blue is the mask.

    Args:
        model: a file that stands for the model.
        name: of the device.
        off: added to every probability.
        fail_after: batches after which the device fails.
    """

    def __init__(
        self, model: Path, name: str = "sim", off: float = 0.0, fail_after: Optional[int] = None
    ) -> None:
        super().__init__(batch=4)
        self.device_name = name
        self.artifact = SimpleNamespace(preprocessing=self.artifact.preprocessing, path=model)
        self.off, self.fail_after = off, fail_after
        self.judged = 0

    def __enter__(self) -> PaintedSession:
        return self

    def __exit__(self, *exc_info: object) -> None:
        return

    def result(self, ticket: int) -> Prediction:
        if self.fail_after is not None and len(self.sizes) > self.fail_after:
            raise OSError("planted")
        images = self.open.pop(ticket)
        self.judged += len(images)
        fake = np.clip(images[:, 0, 0, 0] / 255 + self.off, 0, 1)
        mask = (images[..., 2] > 127).astype(np.uint8)
        return Prediction(mask, (1 - fake).astype(np.float32), np.zeros(0, np.int8))


def paint(probability: float, mask: Optional[np.ndarray] = None) -> np.ndarray:
    """A crop that will be judged so, uint8 ``[SIZE, SIZE, 3]`` RGB."""
    image = np.full((SIZE, SIZE, 3), 90, np.uint8)
    image[..., 2] = 0 if mask is None else np.where(mask, 255, 0)
    image[0, 0, 0] = round(255 * probability)
    return image


def write_crops(
    folder: Path,
    videos: Dict[str, Sequence[float]],
    facts: Optional[Dict[str, Dict[str, Any]]] = None,
    masks: Optional[Dict[str, np.ndarray]] = None,
    said: Optional[Dict[str, np.ndarray]] = None,
) -> Path:
    """A data set of crops; videos whose name begins with ``f`` are FAKE.

    Args:
        folder: made.
        videos: probabilities of the crops by video.
        facts: more entries of ``metadata.json``.
        masks: true masks by video, bool ``[SIZE, SIZE]``.
        said: predicted ones.
    """
    (folder / "crops").mkdir(parents=True)
    (folder / "masks").mkdir()
    metadata = {}
    for name, probabilities in videos.items():
        metadata[f"{name}.mp4"] = {
            "label": "FAKE" if name.startswith("f") else "REAL", **(facts or {}).get(name, {}),
        }  # fmt: skip
        for n, probability in enumerate(probabilities):
            image = paint(probability, (said or {}).get(name))
            assert cv2.imwrite(str(folder / "crops" / f"{name}_{n}.png"), image[..., ::-1])
            if masks and name in masks:
                grey = np.where(masks[name], 255, 0).astype(np.uint8)
                assert cv2.imwrite(str(folder / "masks" / f"{name}_{n}.png"), grey)
    (folder / "metadata.json").write_text(json.dumps(metadata))
    return folder


def table_of(
    videos: Dict[str, Sequence[Optional[float]]],
    facts: Optional[Dict[str, Dict[str, str]]] = None,
    side: int = 64,
    sides: Optional[Dict[str, int]] = None,
) -> Table:
    """A table of crops with these probabilities; ``None`` for those not judged."""
    clips: List[Clip] = []
    rows: Dict[str, List[Row]] = {}
    for name, probabilities in videos.items():
        clips.append(Clip(name, name.startswith("f"), (), facts=(facts or {}).get(name, {})))
        own = (sides or {}).get(name, side)
        rows[name] = [
            Row(
                f"{name}_{n}.png", 0, None, 0, "ok" if p is not None else "decode_error", "", p,
                None, own, own,
            )
            for n, p in enumerate(probabilities)
        ]  # fmt: skip
    return make_table(clips, rows, judge_of(Rules(), True))
