"""How the frames' fake probabilities become one score of a track: several ways, by name.

Each takes ``p``, the fake probabilities of the judged frames, and ``t``, their times in seconds,
both float64 ``[n]`` with ``n`` at least 1 and in order, and returns a number from 0 to 1.
``scripts/choose_aggregation.py`` measures them; ``docs/verdicts.md`` has the table that the
default was chosen by.
"""

from __future__ import annotations

from typing import Callable, Dict

import numpy as np

Aggregation = Callable[[np.ndarray, np.ndarray], float]

WINDOW = 1.0
"""Seconds taken together: neighbouring frames nearly repeat each other, so they are one witness."""

TOP_SHARE = 0.25
"""Share of the frames that ``top_k`` looks at."""


def mean(p: np.ndarray, t: np.ndarray) -> float:
    """The mean: ``sum(p) / n``."""
    return float(p.mean())


def trimmed(p: np.ndarray, t: np.ndarray) -> float:
    """The mean without both tenths: ``mean(sorted(p)[k : n - k])``, ``k = n // 10``."""
    k = len(p) // 10
    return float(np.sort(p)[k : len(p) - k].mean())


def confident(p: np.ndarray, t: np.ndarray) -> float:
    """The mean weighted by how sure each frame is: ``sum(w p) / sum(w)``, ``w = |2 p - 1|``.

    Frames that say nothing (all at one half) give one half.
    """
    weights = np.abs(2.0 * p - 1.0)
    total = float(weights.sum())
    return float((weights * p).sum() / total) if total > 0 else 0.5


def top_k(p: np.ndarray, t: np.ndarray) -> float:
    """The mean of the highest quarter: ``mean(sorted(p)[n - k :])``, ``k = ceil(n / 4)``."""
    k = int(np.ceil(TOP_SHARE * len(p)))
    return float(np.sort(p)[len(p) - k :].mean())


def noisy_or(p: np.ndarray, t: np.ndarray) -> float:
    """The probability that any second is manipulated: ``1 - prod(1 - q)`` over windows.

    ``q`` is the mean of ``p`` over each window of ``WINDOW`` seconds, one after the other: frames
    within a second are no independent witnesses, so they speak once. It grows with the length.
    """
    q = [float(p[a:b].mean()) for a, b in _windows(t)]
    return float(1.0 - np.prod(1.0 - np.array(q)))


def strongest_window(p: np.ndarray, t: np.ndarray) -> float:
    """The highest mean of any second: ``max over i of mean(p[j] : t[i] <= t[j] < t[i] + WINDOW)``.

    Windows that reach beyond the end are left out; what is shorter than one is one window.
    """
    ends = np.searchsorted(t, t + WINDOW - 1e-9, side="left")
    sums = np.concatenate([[0.0], np.cumsum(p)])
    step = float(np.median(np.diff(t))) if len(t) > 1 else 0.0
    full = t + WINDOW <= t[-1] + step + 1e-6
    full[0] = True
    means = (sums[ends] - sums[:-1]) / (ends - np.arange(len(p)))
    return float(means[full].max())


def _windows(t: np.ndarray) -> np.ndarray:
    """int64 ``[windows, 2]``: first frame and the one after the last of each window."""
    number = np.floor((t - t[0]) / WINDOW + 1e-9)
    starts = np.concatenate([[0], np.nonzero(np.diff(number))[0] + 1])
    ends = np.concatenate([starts[1:], [len(t)]])
    return np.stack([starts, ends], axis=1).astype(np.int64)


AGGREGATIONS: Dict[str, Aggregation] = {
    "mean": mean,
    "trimmed": trimmed,
    "confident": confident,
    "top-k": top_k,
    "noisy-or": noisy_or,
    "strongest-window": strongest_window,
}
"""By the name that options and files use."""
