"""How well the outline of a mask is met: the boundary F of video object segmentation.

Precision is the share of the predicted outline that lies near the true one, recall the share of
the true outline that lies near the predicted one; F is their harmonic mean. Near means within
``tolerance`` pixels, 0.8 % of the diagonal as in the DAVIS benchmark (Perazzi et al., "A benchmark
dataset and evaluation methodology for video object segmentation", CVPR 2016): 3 pixels of a mask
of 224x224. OpenCV is imported where it is used.
"""

from __future__ import annotations

import math

import numpy as np

TOLERANCE = 0.008
"""Share of the diagonal."""


def tolerance_of(height: int, width: int) -> int:
    """The tolerance for masks of a size, in whole pixels, rounded up."""
    return math.ceil(TOLERANCE * math.hypot(height, width))


def outline(mask: np.ndarray) -> np.ndarray:
    """The pixels of a mask with a neighbour (above, below, left, right) that is not in it.

    Args:
        mask: ``[H, W]``, anything but 0 is in it; beyond the edges is as at the edge.

    Returns:
        bool ``[H, W]``.
    """
    inside = np.asarray(mask) != 0
    wide = np.pad(inside, 1, mode="edge")
    deep = wide[:-2, 1:-1] & wide[2:, 1:-1] & wide[1:-1, :-2] & wide[1:-1, 2:]
    return np.asarray(inside & ~deep)


def boundary_f(predicted: np.ndarray, truth: np.ndarray, tolerance: int) -> float:
    """F of two outlines, 0 to 1.

    Args:
        predicted: ``[H, W]``, anything but 0 is manipulated.
        truth: of the same shape.
        tolerance: pixels, measured from centre to centre.

    Returns:
        1 where neither mask has an outline, 0 where only one has.

    Raises:
        ValueError: the shapes differ.
    """
    if np.shape(predicted) != np.shape(truth):
        raise ValueError(f"shapes differ: {np.shape(predicted)} and {np.shape(truth)}")
    ours, theirs = outline(predicted), outline(truth)
    if not ours.any() or not theirs.any():
        return float(ours.any() == theirs.any())
    precision = float(_near(theirs, tolerance)[ours].mean())
    recall = float(_near(ours, tolerance)[theirs].mean())
    both = precision + recall
    return 2 * precision * recall / both if both else 0.0


def _near(line: np.ndarray, tolerance: int) -> np.ndarray:
    import cv2

    span = np.arange(-tolerance, tolerance + 1)
    disc = (span[:, None] ** 2 + span**2 <= tolerance**2).astype(np.uint8)
    near: np.ndarray = cv2.dilate(line.astype(np.uint8), disc) != 0
    return near
