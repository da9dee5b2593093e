"""Whether two pictures of a video are of one scene: by where which brightness and colours are."""

from __future__ import annotations

import numpy as np

LEVELS = 8
CELLS = 3
SAMPLES = 96
"""Pixels of the longer side that are looked at, every so many-th one."""

CHANGED = 0.22
"""From this distance on the scene has changed. Between frames of somebody talking it is at most
0.08, between drawn scenes of other people in other rooms 0.39 and more. A slow fade stays below
and ends nothing."""


def spread(image: np.ndarray) -> np.ndarray:
    """How often each level of each colour occurs in each cell of a picture.

    Args:
        image: uint8 ``[H, W, 3]``.

    Returns:
        float32 ``[CELLS * CELLS * 3, LEVELS]``, each row with sum 1, or 0 where the cell is empty.
    """
    step = max(1, max(image.shape[:2]) // SAMPLES)
    few = image[step // 2 :: step, step // 2 :: step] // (256 // LEVELS)
    counts = [
        np.bincount(cell[..., colour].reshape(-1), minlength=LEVELS) / max(1, cell[..., 0].size)
        for row in np.array_split(few, CELLS, 0)
        for cell in np.array_split(row, CELLS, 1)
        for colour in range(3)
    ]
    return np.asarray(np.stack(counts), np.float32)


def distance(one: np.ndarray, other: np.ndarray) -> float:
    """How different two spreads are: 0 alike, 1 nothing in common."""
    return float(np.abs(one - other).sum(1).mean() / 2)
