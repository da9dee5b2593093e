"""How far chance alone may move a figure: percentile bootstrap over videos, not over frames.

Frames of one video are no independent witnesses, so whole videos are drawn, with replacement, as
many as there are; every frame counts as often as its video was drawn. A statistic takes the
drawn counts, float64 ``[resamples, videos]``, and returns one value per resample, so a thousand
resamples are a few matrix operations. NaN stands for what is not defined.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, Iterator, Tuple

import numpy as np

Statistic = Callable[[np.ndarray], np.ndarray]
"""float64 ``[b, videos]`` counts to float64 ``[b]`` or ``[b, k]``."""

CONFIDENCE = 0.95
_CELLS = 2_000_000
"""Numbers held at a time."""


@dataclass(frozen=True)
class Resampling:
    """Draws of ``units`` videos; the same seed gives the same draws, so differences are paired.

    Attributes:
        units: how many videos there are.
        resamples: how often as many are drawn.
        seed: of the draws.
    """

    units: int
    resamples: int = 1000
    seed: int = 0

    def draws(self, width: int = 0) -> Iterator[np.ndarray]:
        """Counts of each video, float64 ``[b, units]``, in blocks that make up ``resamples``.

        Args:
            width: numbers that a statistic holds per resample, where these are more than ``units``.
        """
        if not self.units:
            return
        rng = np.random.RandomState(self.seed & 0xFFFFFFFF)
        block = max(1, _CELLS // max(self.units, width))
        for first in range(0, self.resamples, block):
            rows = min(block, self.resamples - first)
            # Row by row, so that the draws do not depend on the size of the blocks.
            picks = rng.randint(self.units, size=(rows, self.units))
            flat = picks + self.units * np.arange(rows)[:, None]
            counts = np.bincount(flat.reshape(-1), minlength=rows * self.units)
            yield counts.reshape(rows, self.units).astype(np.float64)

    def apply(self, statistic: Statistic, width: int = 0) -> Tuple[np.ndarray, np.ndarray]:
        """A statistic of all videos as they are, and of every resample.

        Returns:
            ``([k], [resamples, k])``, float64; ``k`` is 1 for a statistic that gives ``[b]``.
        """
        whole = _columns(statistic(np.ones((1, self.units))))
        blocks = [_columns(statistic(counts)) for counts in self.draws(width)]
        return whole[0], np.concatenate(blocks) if blocks else np.empty((0, whole.shape[1]))


def interval(samples: np.ndarray, confidence: float = CONFIDENCE) -> Tuple[float, float]:
    """The percentile interval of the defined ones among ``samples``.

    Args:
        samples: float64 ``[resamples]``.
        confidence: share of them inside.

    Returns:
        ``(low, high)``; NaN where fewer than half are defined.
    """
    known = samples[np.isfinite(samples)]
    if not len(known) or 2 * len(known) < len(samples):
        return float("nan"), float("nan")
    tail = 50.0 * (1.0 - confidence)
    low, high = np.percentile(known, [tail, 100.0 - tail])
    return float(low), float(high)


def by_unit(values: np.ndarray, unit: np.ndarray, units: int) -> np.ndarray:
    """Sums of ``values`` ``[n]`` over the frames of each video, float64 ``[units]``."""
    return np.bincount(unit, weights=np.asarray(values, np.float64), minlength=units)


def ratio(numerator: np.ndarray, denominator: np.ndarray) -> Statistic:
    """A mean or a share: drawn sums of one thing over drawn sums of another.

    Args:
        numerator: float64 ``[units]``.
        denominator: float64 ``[units]``.
    """

    def statistic(counts: np.ndarray) -> np.ndarray:
        return quotient(counts @ numerator, counts @ denominator)

    return statistic


def calibration_error(
    probability: np.ndarray, positive: np.ndarray, unit: np.ndarray, units: int, bins: int
) -> Statistic:
    """The expected calibration error over ``bins`` equal intervals, as ``metrics.ece``.

    Args:
        probability: float64 ``[n]``, 0 to 1.
        positive: bool ``[n]``.
        unit: int ``[n]``, the video of each.
        units: how many videos there are.
        bins: intervals.
    """
    place = np.minimum((probability * bins).astype(int), bins - 1)
    gap = np.zeros((units, bins))
    np.add.at(gap, (unit, place), probability - positive)
    total = by_unit(np.ones(len(unit)), unit, units)

    def statistic(counts: np.ndarray) -> np.ndarray:
        return quotient(np.abs(counts @ gap).sum(axis=1), counts @ total)

    return statistic


RANKED = ("auc", "eer", "average_precision", "threshold", "detection")
"""What ``Ranking.statistic`` gives, in this order."""


class Ranking:
    """Scores in falling order, from which everything that a threshold decides is counted.

    Args:
        scores: float64 ``[n]``, higher means more likely positive, no NaN.
        positive: bool ``[n]``.
        unit: int ``[n]``, the video of each.
    """

    def __init__(self, scores: np.ndarray, positive: np.ndarray, unit: np.ndarray) -> None:
        order = np.argsort(-scores, kind="stable")
        ranked = scores[order]
        self._positive = np.asarray(positive, bool)[order].astype(np.float64)
        self._unit = np.asarray(unit)[order]
        new = np.append(True, ranked[1:] != ranked[:-1]) if len(ranked) else np.empty(0, bool)
        self._starts = np.flatnonzero(new)
        distinct = ranked[self._starts]
        lower = np.append(distinct[1:], 0.0)
        # Between a score and the next lower one every threshold decides alike: midway.
        self._between = np.append(np.nan, (distinct + lower) / 2)

    def __len__(self) -> int:
        return len(self._unit)

    def passed(self, counts: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
        """Negatives and positives at or over each distinct score, from the highest down.

        Args:
            counts: float64 ``[b, videos]``.

        Returns:
            Two float64 ``[b, T + 1]``; the first column is 0.
        """
        weights = counts[:, self._unit]
        hits = np.add.reduceat(weights * self._positive, self._starts, axis=1)
        all_of = np.add.reduceat(weights, self._starts, axis=1)
        zero = np.zeros((len(counts), 1))
        true = np.concatenate([zero, np.cumsum(hits, axis=1)], axis=1)
        both = np.concatenate([zero, np.cumsum(all_of, axis=1)], axis=1)
        return both - true, true

    def statistic(self, false_alarms: float) -> Statistic:
        """All of ``RANKED``.

        ``auc`` counts ties half; ``eer`` takes the ROC curve as straight between two thresholds;
        ``average_precision`` sums precision over the steps of recall; ``threshold`` is the lowest
        one that lets no larger share of the negatives through than ``false_alarms`` (NaN where
        even the highest score would), and ``detection`` the share of positives it finds.
        """

        def statistic(counts: np.ndarray) -> np.ndarray:
            result = np.full((len(counts), len(RANKED)), np.nan)
            if not len(self):
                return result
            alarms, hits = self.passed(counts)
            some = (alarms[:, -1] > 0) & (hits[:, -1] > 0)
            alarms, hits = alarms[some], hits[some]
            if not len(alarms):
                return result
            negatives, positives = alarms[:, -1:], hits[:, -1:]
            steps, found = np.diff(alarms, axis=1), np.diff(hits, axis=1)
            under = (steps * (hits[:, :-1] + found / 2)).sum(axis=1)
            precision = quotient(hits[:, 1:], hits[:, 1:] + alarms[:, 1:], 0.0)
            false, true = alarms / negatives, hits / positives
            # The slack is for shares such as 3 / 300 beside 0.01.
            last = (false <= false_alarms + 1e-12).sum(axis=1) - 1
            rows = np.arange(len(last))
            result[some] = np.stack(
                [
                    under / (negatives * positives)[:, 0],
                    _equal_error(false, true),
                    (found * precision).sum(axis=1) / positives[:, 0],
                    self._between[last],
                    true[rows, last],
                ],
                axis=1,
            )
            return result

        return statistic


def quotient(part: np.ndarray, whole: np.ndarray, otherwise: float = float("nan")) -> np.ndarray:
    """``part / whole``, ``otherwise`` where ``whole`` is 0."""
    result = np.full(np.shape(whole), otherwise, np.float64)
    return np.asarray(np.divide(part, whole, out=result, where=np.asarray(whole) != 0))


def _equal_error(false: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Where as many negatives pass as positives are missed, ``[b]``."""
    gap = false - (1.0 - true)
    after = np.argmax(gap >= 0, axis=1)  # at 1 or later: the first gap is -1
    rows = np.arange(len(gap))
    low, high = gap[rows, after - 1], gap[rows, after]
    part = low / (low - high)
    before = false[rows, after - 1]
    return np.asarray(before + part * (false[rows, after] - before))


def _columns(values: np.ndarray) -> np.ndarray:
    return values[:, None] if values.ndim == 1 else values
