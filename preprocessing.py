"""How a picture becomes the network's input: the one implementation every stage shares.

Calibration, evaluation and inference call these functions with the same ``Preprocessing`` record,
which travels in the manifests beside the checkpoint, the quantized and the compiled model, so the
same frame gives the same int8 input by every path.

Pictures are uint8 HWC in RGB order everywhere in the toolkit; a source that decodes BGR converts
at its own border. OpenCV is imported where it is used.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any, Dict, Mapping

import numpy as np

from .errors import MismatchError

Image = np.ndarray
"""uint8 ``[H, W, 3]``, RGB."""


@dataclass(frozen=True)
class Preprocessing:
    """What is done to a picture before the network sees it, and what its outputs mean.

    Attributes:
        face: how the face is cut out; ``whole-frame`` means the picture is the crop already.
        margin: share of the face box added on each side (0 for ``whole-frame``).
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
        ours = cls()
        for name in ("face", "interpolation", "colour", "classifier_one", "mask_one"):
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
    return np.asarray(cv2.LUT(flat, table), np.int8).reshape(images.shape)
