"""Power-of-two fixed point: rounding to codes, and the search for the best fix position.

A fix position ``fp`` is the number of fraction bits: value = code * 2**-fp with 8-bit codes
-128..127 (rules 3.1 and 3.2 of the vendor's quantizer). Multiplying by a power of two is exact, so
all errors can be measured in units of the last place.

Importing this module imports torch.
"""

from __future__ import annotations

import enum
import math
from collections import Counter
from typing import Optional, Sequence, Tuple

import torch
from torch import Tensor

from .releases import DEFAULT, Release
from .sequential import added

BITS = 8
LOWEST, HIGHEST = -(2 ** (BITS - 1)), 2 ** (BITS - 1) - 1
CANDIDATES = 5
"""Fix positions tried by the error search, from the one that just covers the range upward."""

PART = 1 << 14
"""Elements treated at a time: few enough that repeated passes stay in the processor's cache and
that torch does not split the work, so that sums do not depend on the number of threads."""

_ROUNDER = 1.5 * 2.0**23
"""Adding it to a float32 below 2**22 pushes the fraction out."""


class Rounding(enum.Enum):
    """What happens to a value halfway between two codes."""

    HALF_UP = 2
    """Toward plus infinity: activations and network inputs, as the DPU rounds."""
    HALF_AWAY = 3
    """Away from zero: weights and biases."""


def limits(bits: int) -> Tuple[int, int]:
    """The least and greatest code of ``bits`` bits."""
    return -(2 ** (bits - 1)), 2 ** (bits - 1) - 1


def codes(x: Tensor, position: int, rounding: Rounding, bits: int = BITS) -> Tensor:
    """The codes of ``x``: float32 whole numbers in -128..127, rounded exactly for every float32."""
    scaled = x * (2.0**position)
    return _round(scaled.clamp_(*limits(bits)), rounding)


def quantize(x: Tensor, position: int, rounding: Rounding, bits: int = BITS) -> Tensor:
    """``x`` moved to the grid of ``position``, saturating; float32 of the same shape."""
    return codes(x, position, rounding, bits).mul_(2.0**-position)


def quantize_(x: Tensor, position: int, rounding: Rounding, bits: int = BITS) -> Tensor:
    """Same in the storage of ``x``, part by part."""
    if not x.is_contiguous():
        return x.copy_(quantize(x, position, rounding, bits))
    for part in torch.split(x.view(-1), PART):
        part.copy_(quantize(part, position, rounding, bits))
    return x


def _round(x: Tensor, rounding: Rounding) -> Tensor:
    # The nearest whole number, ties to even, is what two float32 additions leave (values are
    # below 2**22); then ties are put right. floor(x + 0.5) would not do: that sum rounds up for
    # the float just below one half.
    nearest = (x + _ROUNDER).sub_(_ROUNDER)
    remainder = x - nearest
    if rounding is Rounding.HALF_UP:
        return nearest.add_(remainder >= 0.5)
    return torch.where(remainder.abs_() == 0.5, x + 0.5 * torch.sign(x), nearest)


def search(
    x: Tensor,
    cap: int = 12,
    by_range: bool = False,
    release: Release = DEFAULT,
    bits: int = BITS,
) -> Optional[int]:
    """The fix position for the values of ``x``.

    The position ``k0`` is the finest that covers the range: ``floor(log2(1 / step))`` with
    ``step = max(min / -128.5, max / 127.5)`` in float32. Of ``k0 .. k0 + 4`` the one with the
    smallest sum of squared errors wins, the first among equals; finer ones trade clipped extremes
    for a smaller step.

    Args:
        x: float32, any shape.
        cap: highest position allowed.
        by_range: take ``k0`` itself, as for network inputs.
        release: those before 3.0 add the errors one after the other in float32, a sum that stalls
            where there are very many; the oldest have another position for a tensor of zeros.
        bits: of a code; the formulas above are those for 8.

    Returns:
        The position, which may be negative; ``None`` when ``x`` has no finite range.
    """
    low, high = (float(v) for v in torch.aminmax(x)) if x.numel() else (0.0, 0.0)
    return search_within(x, low, high, cap, by_range, release, bits)


def search_within(
    x: Tensor,
    low: float,
    high: float,
    cap: int = 12,
    by_range: bool = False,
    release: Release = DEFAULT,
    bits: int = BITS,
) -> Optional[int]:
    """``search`` where the least and greatest value of ``x`` are known already."""
    first = covering_position(low, high, release, bits)
    if first is None or by_range or first >= cap:
        return None if first is None else min(cap, first)
    best, least = first, math.inf
    for position in range(first, first + CANDIDATES):
        error = _error(x.reshape(-1), position, least, release.sequential_sums, bits)
        if error < least:
            best, least = position, error
    return min(cap, best)


def _error(x: Tensor, position: int, bound: float, sequential: bool, bits: int) -> float:
    """The sum of squared errors at ``position``.

    A sum of squares only grows, so it is given up once it is over ``bound``: most candidates clip
    so much that little of the tensor has to be read.
    """
    total, unit = 0.0, 4.0**-position
    lowest, highest = limits(bits)
    scaled, code = torch.empty(2, min(PART, x.numel()))
    for part in torch.split(x, PART):
        size = part.numel()
        torch.mul(part, 2.0**position, out=scaled[:size])
        # Which way ties go does not change the error, so the cheapest rounding serves.
        torch.clamp(scaled[:size], lowest, highest, out=code[:size])
        difference = code[:size].add_(_ROUNDER).sub_(_ROUNDER).sub_(scaled[:size])
        squares = difference.mul_(difference)
        if sequential:
            total = added(total, squares.mul_(unit).numpy())
        else:
            total += float(squares.sum()) * unit
        if total > bound:
            break
    return total


def covering_position(
    low: float, high: float, release: Release = DEFAULT, bits: int = BITS
) -> Optional[int]:
    """The finest position at which ``low .. high`` loses at most half a code to saturation.

    ``None`` for a range that is not finite or too small to invert.
    """
    span = torch.tensor([low, high], dtype=torch.float32)
    lowest, highest = limits(bits)
    step = torch.max(span / torch.tensor([lowest - 0.5, highest + 0.5]))
    if not math.isfinite(low) or not math.isfinite(high):
        return None
    if float(step) <= 0:
        return release.empty_position
    position = torch.floor(torch.log2(1 / step))
    return int(position) if bool(torch.isfinite(position)) else None


def saturated(x: Tensor, position: int, low: float, high: float, bits: int = BITS) -> int:
    """How many values of ``x`` round to a code outside -128..127 at ``position``.

    ``low`` and ``high`` are the least and greatest value of ``x``; they usually settle it.
    """
    scale, (lowest, highest) = 2.0**position, limits(bits)
    floor, ceiling = (lowest - 0.5) / scale, (highest + 0.5) / scale
    below = int(torch.count_nonzero(x < floor)) if low < floor else 0
    above = int(torch.count_nonzero(x >= ceiling)) if high >= ceiling else 0
    return below + above


def most_frequent(history: Sequence[int]) -> int:
    """The position found most often, the smallest among equals."""
    counts = Counter(history)
    return min(counts, key=lambda position: (-counts[position], position))


def aminmax(x: Tensor) -> Tuple[float, float]:
    """Least and greatest value of ``x``."""
    least, greatest = torch.aminmax(x)
    return float(least), float(greatest)
