"""A float32 sum as a plain loop makes it, term after term, computed in blocks.

The vendor's releases before 3.0 search fix positions with such a loop. Its rounding must be
followed, since in large tensors the sum outgrows its terms; following it term by term in Python's
libraries costs more than the whole calibration.
"""

from __future__ import annotations

import numpy as np

_FEW_TERMS = 512
_LARGEST = 2.0**24
"""A float32 of one binade counts units of its last place from 2**23 up to here."""

_LEAST_TOTAL = 1e-20
"""Below this the unit of the last place cannot be inverted in float32 safely."""


def added(start: float, terms: np.ndarray) -> float:
    """``start`` and then every term added, each sum rounded to float32.

    While the sum stays between two powers of two, its unit is fixed: adding a term adds the term
    rounded to whole units, whatever was added before. Only a term halfway between two counts asks
    whether the sum so far is odd, and leaves an even one behind it.

    Args:
        start: a float32 value, not negative.
        terms: float32 ``[n]``, finite and not negative.
    """
    if terms.size < _FEW_TERMS or start < _LEAST_TOTAL:
        return _one_by_one(start, terms)
    unit = float(np.spacing(np.float32(start)))
    count = start / unit
    scaled = terms * np.float32(1 / unit)
    whole = np.rint(scaled)
    halves = np.flatnonzero(np.abs(scaled - whole) == 0.5)
    if halves.size > terms.size // 16:
        return _one_by_one(start, terms)
    # Sums of whole numbers are exact in float32 up to 2**24; beyond, the binade is left anyway.
    if not halves.size:
        steps = float(whole.sum())
    else:
        below = np.floor(scaled[halves])
        whole[halves] = 0
        between = np.add.reduceat(whole, np.concatenate([[0], halves]))
        before = between[:-1].astype(np.float64)
        before[0] += count
        steps = float(between.sum() + below.sum() + ((before + below) % 2).sum())
    if count + steps >= _LARGEST:
        return _one_by_one(start, terms)
    return (count + steps) * unit


def _one_by_one(start: float, terms: np.ndarray) -> float:
    joined = np.concatenate([np.array([start], np.float32), terms])
    return float(np.add.accumulate(joined)[-1])
