"""How a picture becomes the network's input: the one implementation every stage shares.

Calibration, evaluation and inference call these functions with the same ``Preprocessing`` record,
which travels in the manifests beside the checkpoint, the quantized and the compiled model, so the
same frame gives the same int8 input by every path.

Pictures are uint8 HWC in RGB order everywhere in the toolkit; a source that decodes BGR converts
at its own border. OpenCV is imported where it is used.
"""

from __future__ import annotations

import functools
import math
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Dict, Mapping, NamedTuple, Optional, Sequence

import numpy as np

from .errors import MismatchError

Image = np.ndarray
"""uint8 ``[H, W, 3]``, RGB."""

WHOLE_FRAME = "whole-frame"
DETECTORS = ("cascade", "yunet", "boxes")
"""Who may have framed the faces of the pictures a model was trained on."""

USUAL_MARGIN = 1 / 3
"""Taken for a model trained on crops of which nobody recorded the margin. In the crops of the
shipped checkpoint's training the cascade's box takes up 0.60 of the side (median): 1 + 2/3 boxes
make a side."""


@dataclass(frozen=True)
class Preprocessing:
    """What is done to a picture before the network sees it, and what its outputs mean.

    Attributes:
        face: how the face is cut out: by the boxes of one of ``DETECTORS``; ``whole-frame`` means
            that the pictures were crops already.
        margin: share of the face box added on each side; 0 with ``whole-frame`` where nobody
            knows how the crops were made.
        height: pixels.
        width: pixels.
        interpolation: ``bilinear`` is the only one defined (OpenCV ``INTER_LINEAR``).
        colour: channel order of the network's input.
        scale_divisor: each uint8 value is divided by this, in float32.
        classifier_one: the label that classifier output 1 stands for.
        mask_one: what mask class 1 stands for.
    """

    face: str = "whole-frame"
    margin: float = 0.0
    height: int = 224
    width: int = 224
    interpolation: str = "bilinear"
    colour: str = "RGB"
    scale_divisor: float = 255.0
    classifier_one: str = "REAL"
    mask_one: str = "manipulated"

    def to_json(self) -> Dict[str, Any]:
        """A JSON object with every field."""
        return asdict(self)

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Preprocessing:
        """Reads what ``to_json`` wrote.

        Raises:
            MismatchError: a field is unknown or a value is one this version does not implement.
        """
        known = {f.name for f in fields(cls)}
        unknown = sorted(set(record) - known)
        if unknown:
            raise MismatchError(
                "The model's preprocessing record has fields this version does not know",
                ", ".join(unknown),
                "use the version of deepfake-fpga that wrote the model",
            )
        result = cls(**record)
        if result.face not in (WHOLE_FRAME, *DETECTORS):
            raise MismatchError(
                f"The model wants face = {result.face!r}",
                f"this version implements {', '.join((WHOLE_FRAME, *DETECTORS))}",
                "use the version of deepfake-fpga that wrote the model",
            )
        if not 0 <= result.margin <= 2:
            raise MismatchError(
                f"The model wants margin = {result.margin!r}",
                "it is the share of the face's box added on each side, 0 to 2",
                "check the manifest beside the model",
            )
        ours = cls()
        for name in ("interpolation", "colour", "classifier_one", "mask_one"):
            if getattr(result, name) != getattr(ours, name):
                raise MismatchError(
                    f"The model wants {name} = {getattr(result, name)!r}",
                    f"this version implements {getattr(ours, name)!r}",
                    "use the version of deepfake-fpga that wrote the model",
                )
        return result


def fit(image: Image, preprocessing: Preprocessing) -> Image:
    """Resizes a picture to the network's input size.

    Args:
        image: uint8 ``[H, W, 3]``, RGB.
        preprocessing: the model's record.

    Returns:
        uint8 ``[height, width, 3]``, RGB, contiguous.
    """
    size = (preprocessing.width, preprocessing.height)
    if image.shape[1::-1] == size:
        return np.ascontiguousarray(image)
    import cv2

    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_LINEAR), np.uint8)


class Square(NamedTuple):
    """What is cut out of a picture: whole pixels; it may reach over the picture's edges."""

    x: int
    y: int
    side: int


def square_about(box: Sequence[float], margin: float) -> Square:
    """The square that is cut out for a face.

    Args:
        box: x0, y0, x1, y1 in pixels.
        margin: share of the longer side added on each side.
    """
    x0, y0, x1, y1 = box
    side = max(2, math.floor(max(x1 - x0, y1 - y0) * (1 + 2 * margin) + 0.5))
    x, y = (x0 + x1 - side) / 2, (y0 + y1 - side) / 2
    return Square(math.floor(x + 0.5), math.floor(y + 0.5), side)


def cut(image: Image, square: Square, turns: int = 0) -> Image:
    """Cuts a face out; what lies beyond the edges repeats the pixels there.

    Args:
        image: uint8 ``[H, W, 3]``.
        square: where, at least partly inside.
        turns: quarter turns anticlockwise that put the face upright.

    Returns:
        uint8 ``[side, side, 3]``, contiguous.
    """
    height, width = image.shape[:2]
    rows, columns = (
        np.clip(np.arange(start, start + square.side), 0, most - 1)
        for start, most in ((square.y, height), (square.x, width))
    )
    inside = image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    if inside.shape[:2] != (square.side, square.side):
        inside = inside[rows - rows[0]][:, columns - columns[0]]
    return np.ascontiguousarray(np.rot90(inside, turns))


def paste(mask: np.ndarray, square: Square, height: int, width: int, turns: int = 0) -> np.ndarray:
    """A mask of what ``cut`` gave, back in the picture's place.

    Args:
        mask: uint8 ``[h, w]``, 0 or 1, of any size.
        square: as given to ``cut``.
        height: of the picture.
        width: of the picture.
        turns: as given to ``cut``.

    Returns:
        uint8 ``[height, width]``, 0 or 1, with a smooth border.
    """
    import cv2

    whole = np.zeros((height, width), np.uint8)
    x0, y0 = max(square.x, 0), max(square.y, 0)
    x1, y1 = min(square.x + square.side, width), min(square.y + square.side, height)
    if x0 < x1 and y0 < y1:
        soft = np.ascontiguousarray(np.rot90(mask * np.uint8(255), -turns))
        size = (square.side, square.side)
        soft = cv2.resize(soft, size, interpolation=cv2.INTER_LINEAR)
        part = soft[y0 - square.y : y1 - square.y, x0 - square.x : x1 - square.x]
        whole[y0:y1, x0:x1] = part > 127
    return whole


def framing(preprocessing: Preprocessing, detector: str) -> Preprocessing:
    """How a model's faces are cut out of pictures where ``detector`` finds them.

    Args:
        preprocessing: the model's record.
        detector: one of ``DETECTORS``; boxes from a file are taken to be the model's kind.

    Returns:
        The record with the margin to use.

    Raises:
        MismatchError: the model was trained on faces framed by another detector.
    """
    if preprocessing.face == WHOLE_FRAME:
        margin = preprocessing.margin or USUAL_MARGIN
        return replace(preprocessing, face=detector, margin=margin)
    if detector not in (preprocessing.face, "boxes") and preprocessing.face != "boxes":
        raise MismatchError(
            f"The model was trained on faces framed by {preprocessing.face}",
            f"--faces is {detector}, whose boxes are of another size",
            f"use --faces {preprocessing.face}, or whole for pictures that are crops already",
        )
    return preprocessing


def to_float(images: np.ndarray, preprocessing: Preprocessing) -> np.ndarray:
    """Scales fitted pictures to the float network's input.

    Args:
        images: uint8 ``[N, H, W, 3]``.
        preprocessing: the model's record.

    Returns:
        float32 ``[N, 3, H, W]``, ``float32(value) / float32(divisor)``.
    """
    scaled = images.astype(np.float32) / np.float32(preprocessing.scale_divisor)
    return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2))


def quantization_table(fix_point: int, preprocessing: Preprocessing) -> np.ndarray:
    """The int8 code of every uint8 value at an input's fix point.

    Rounds half up and saturates, on the float32 value the quantizer saw, so white is 127 (not
    -128) where ``fix_point`` is 7.

    Returns:
        int8 ``[256]``.
    """
    values = np.arange(256, dtype=np.float32) / np.float32(preprocessing.scale_divisor)
    codes = np.floor((values * np.float32(2.0**fix_point)).astype(np.float64) + 0.5)
    table: np.ndarray = np.clip(codes, -128, 127).astype(np.int8)
    return table


def to_codes(images: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Quantizes fitted pictures by table.

    Args:
        images: uint8 ``[N, H, W, 3]``.
        table: int8 ``[256]`` from ``quantization_table``.

    Returns:
        int8 ``[N, H, W, 3]``.
    """
    import cv2

    if images.size == 0:
        return np.empty(images.shape, np.int8)
    flat = np.ascontiguousarray(images).reshape(1, -1)
    factor = _factor(table.tobytes())
    if factor is not None:
        return cv2.convertScaleAbs(flat, alpha=factor).view(np.int8).reshape(images.shape)
    return np.asarray(cv2.LUT(flat, table), np.int8).reshape(images.shape)


@functools.lru_cache(maxsize=32)
def _factor(table: bytes) -> Optional[float]:
    """What a pixel is multiplied by, and rounded, to be its code, if that is the table everywhere.

    A multiplication goes through whole registers, a table does not. All 256 values are tried, in
    registers and in the rest behind the last full one.
    """
    import cv2

    pixels = np.tile(np.arange(256, dtype=np.uint8), 9)[:-3].reshape(1, -1)
    codes = np.tile(np.frombuffer(table, np.int8), 9)[:-3].reshape(1, -1)
    for fix_point in range(8):
        factor = 2.0**fix_point / 255
        if np.array_equal(cv2.convertScaleAbs(pixels, alpha=factor).view(np.int8), codes):
            return factor
    return None
