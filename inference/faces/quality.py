"""Which faces are kept out of the judgement, and why: what the network cannot see it may not judge.

Every limit has its reason beside it; a face that is kept out is recorded with the reason.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional, Tuple

import numpy as np

from ...preprocessing import Square, cut
from ..records import Status
from .base import Box, Detection

SHARPNESS_SIDE = 96
"""Pixels of a face's side at which its sharpness is measured: about what the network has of it."""


SOFTENING = 0.8
"""Pixels, before sharpness is measured."""


@dataclass(frozen=True)
class Limits:
    """From where on a face is judged.

    Attributes:
        smallest: pixels of the box's side. A face of 48 pixels is enlarged three times for the
            network's input of 224, and what a forger leaves is gone with the fine detail.
        least_sharpness: see ``sharpness``. Drawn faces have 0.013 to 0.14 as they are, those of a
            real compressed clip 0.014 and more; blurred by a twentieth of the face none has more
            than 0.0042.
        inside: least share of the box within the picture; more than a seventh cut off takes chin,
            ear or forehead away, at whose edge a swapped face shows.
        aside: how far the nose may lie from the middle between the eyes, in distances of the eyes;
            from about 0.35 on the far half of the face is hidden.
    """

    smallest: float = 48.0
    least_sharpness: float = 0.005
    inside: float = 0.86
    aside: float = 0.35


def assess(
    image: np.ndarray, box: Box, limits: Limits, seen: Optional[Detection] = None
) -> Optional[Tuple[Status, str]]:
    """Why a face is kept out, and the same in words; ``None`` where it is judged.

    Args:
        image: uint8 ``[H, W, 3]``, RGB.
        box: of the face.
        limits: from where on it is judged.
        seen: what the detector knows of it besides, if it was looked for in this picture.
    """
    height, width = image.shape[:2]
    if box.side < limits.smallest:
        return (
            Status.TOO_SMALL,
            f"the face is {box.side:.0f} pixels wide, {limits.smallest:.0f} are needed",
        )
    share = box.within(height, width)
    if share < limits.inside:
        return Status.CUT, f"{100 * (1 - share):.0f} % of the face lies outside the picture"
    if seen is not None and seen.profile:
        return Status.PROFILE, "the face is seen from the side"
    if seen is not None and seen.landmarks is not None:
        aside = nose_offset(seen)
        if aside > limits.aside:
            return (
                Status.PROFILE,
                f"the nose lies {aside:.2f} eye distances beside the middle, the face is turned",
            )
    sharp = sharpness(image, box)
    if sharp < limits.least_sharpness:
        return (
            Status.BLURRED,
            f"sharpness {sharp:.4f}, {limits.least_sharpness} is needed",
        )
    return None


def sharpness(image: np.ndarray, box: Box) -> float:
    """Fine detail of a face: variance of its Laplacian over the variance of its brightness.

    It does not change with contrast, and little with the size of the face.
    """
    import cv2

    middle = box.middle
    side = max(4, int(box.side))
    square = Square(int(middle[0] - side / 2), int(middle[1] - side / 2), side)
    grey = cv2.cvtColor(cut(image, square), cv2.COLOR_RGB2GRAY)
    if side != SHARPNESS_SIDE:
        smaller = side > SHARPNESS_SIDE
        grey = cv2.resize(
            grey,
            (SHARPNESS_SIDE, SHARPNESS_SIDE),
            interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR,
        )
    values = grey.astype(np.float32)
    # Softened, or the rounding to whole levels would count as detail of a blurred face; with a
    # floor, or a plain wall would be noise upon nothing, and sharp.
    detail = cv2.Laplacian(cv2.GaussianBlur(values, (0, 0), SOFTENING), cv2.CV_32F)
    return float(detail.var() / (values.var() + 25.0))


def nose_offset(seen: Detection) -> float:
    """How far the nose lies from the middle between the eyes, in distances of the eyes."""
    assert seen.landmarks is not None
    right, left, nose = (np.asarray(point, np.float64) for point in seen.landmarks[:3])
    along = left - right
    distance = float(np.hypot(*along))
    if distance < 1e-6:
        return float("inf")
    return abs(float(np.dot(nose - (left + right) / 2, along))) / distance**2
