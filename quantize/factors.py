"""The constants the DPU puts in place of divisions and free slopes (rules 2.1 and 8.2)."""

from __future__ import annotations

import math
from typing import Tuple

from .releases import DEFAULT, PoolFactors, Release

LEAKY_SLOPE = 26 / 256
"""The DPU's only leaky slope, taken whatever the model says."""

HARD_SIXTH = 2731 / 16384
"""The DPU's 1/6 in hard sigmoid and hard swish."""

HARDSWISH_POSITION = 7
"""Fix position of hard swish's inner hard sigmoid."""

_POOL_FACTORS = {
    (3, 3): (7, 64),
    (5, 5): (10, 256),
    (6, 6): (7, 256),
    (3, 6): (14, 256),
    (7, 7): (21, 1024),
    (14, 14): (21, 4096),
}


def pool_factor(
    kernel: Tuple[int, int], release: Release = DEFAULT, several_pixels: bool = False
) -> float:
    """What an average over ``kernel`` (height, width) is multiplied by.

    The DPU divides by a multiplication and a shift. The common windows have fixed ones; for others
    it is the best ``f / 2**s`` for one over the window's size. The oldest release knew square
    windows of the table only, and left an adaptive pool of ``several_pixels`` alone.
    """
    area = kernel[0] * kernel[1]
    known = _POOL_FACTORS.get((min(kernel), max(kernel)))
    square = known is not None and kernel[0] == kernel[1] and not several_pixels
    if release.pool_factors is PoolFactors.SQUARE_TABLE and not square:
        return 1.0
    if known is not None:
        return area * known[0] / known[1]
    return division_factor(area)


def division_factor(area: int) -> float:
    """What a mean over ``area`` numbers is multiplied by: the best ``f / 2**s`` for one over it."""
    best, factor, shift = 1.0, 0, 0
    for s in range(math.ceil(math.log2(area * 128))):
        f = round(2**s / area)
        error = abs(f / 2**s - 1 / area)
        if error < best:
            best, factor, shift = error, f, s
    return float(area * factor / 2**shift)
