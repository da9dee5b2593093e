"""How good masks and verdicts are: Dice, IoU, accuracy, AUC, EER, log-loss, calibration error.

Numpy only, so that the float model, the quantized model and a card are measured by the same code.
Counts are added up over pictures before a ratio is taken (a picture without any manipulated
pixel has no Dice of its own).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict, List, Tuple

import numpy as np


@dataclass(frozen=True)
class Counts:
    """Agreement of yes-or-no predictions with the truth; instances add up with ``+``.

    Attributes:
        tp: predicted and true.
        fp: predicted, not true.
        fn: true, not predicted.
        tn: neither.
    """

    tp: int = 0
    fp: int = 0
    fn: int = 0
    tn: int = 0

    @classmethod
    def of(cls, predicted: np.ndarray, truth: np.ndarray) -> Counts:
        """Counts over two arrays of one shape; anything but 0 is yes.

        Raises:
            ValueError: the shapes differ.
        """
        ours, theirs = np.asarray(predicted) != 0, np.asarray(truth) != 0
        if ours.shape != theirs.shape:
            raise ValueError(f"shapes differ: {ours.shape} and {theirs.shape}")
        both, either = int((ours & theirs).sum()), int((ours | theirs).sum())
        predicted_yes, true_yes = int(ours.sum()), int(theirs.sum())
        return cls(both, predicted_yes - both, true_yes - both, ours.size - either)

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            self.tp + other.tp, self.fp + other.fp, self.fn + other.fn, self.tn + other.tn
        )

    @property
    def dice(self) -> float:
        """``2 tp / (2 tp + fp + fn)``; 1 where nothing is predicted and nothing is true."""
        return _ratio(2 * self.tp, 2 * self.tp + self.fp + self.fn)

    @property
    def iou(self) -> float:
        """``tp / (tp + fp + fn)``; 1 where nothing is predicted and nothing is true."""
        return _ratio(self.tp, self.tp + self.fp + self.fn)

    @property
    def accuracy(self) -> float:
        """Share of right answers; NaN without any."""
        total = self.tp + self.fp + self.fn + self.tn
        return (self.tp + self.tn) / total if total else float("nan")


def dice(predicted: np.ndarray, truth: np.ndarray) -> float:
    """Dice coefficient of two masks of one shape (see ``Counts.dice``)."""
    return Counts.of(predicted, truth).dice


def iou(predicted: np.ndarray, truth: np.ndarray) -> float:
    """Intersection over union of two masks of one shape (see ``Counts.iou``)."""
    return Counts.of(predicted, truth).iou


def accuracy(predicted: np.ndarray, truth: np.ndarray) -> float:
    """Share of equal yes-or-no answers; NaN for empty arrays."""
    return Counts.of(predicted, truth).accuracy


def auc(scores: np.ndarray, positive: np.ndarray) -> float:
    """Area under the ROC curve: how often a positive scores above a negative, ties count half.

    Args:
        scores: ``[N]``, higher means more likely positive.
        positive: ``[N]``, anything but 0 is positive.

    Returns:
        0..1; NaN where there are no positives or no negatives, or a score is NaN.

    Raises:
        ValueError: the shapes differ or are not ``[N]``.
    """
    values, yes = np.asarray(scores, np.float64), np.asarray(positive) != 0
    if values.ndim != 1 or values.shape != yes.shape:
        raise ValueError(f"shapes differ or are not [N]: {values.shape} and {yes.shape}")
    n_yes, n_no = int(yes.sum()), int((~yes).sum())
    if not n_yes or not n_no or bool(np.isnan(values).any()):
        return float("nan")
    # Mann-Whitney: the rank sum of the positives, equal scores sharing their mean rank.
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(count)
    ranks = (last - (count - 1) / 2.0)[place.reshape(-1)]
    return float((ranks[yes].sum() - n_yes * (n_yes + 1) / 2.0) / (n_yes * n_no))


def roc(scores: np.ndarray, positive: np.ndarray) -> Tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The ROC curve: what each threshold, from the highest score downward, lets through.

    Args:
        scores: ``[N]``, higher means more likely positive.
        positive: ``[N]``, anything but 0 is positive.

    Returns:
        ``(thresholds, false, true)``, float64 ``[T + 1]`` for ``T`` distinct scores. A score from
        ``thresholds[i]`` on is taken for positive; ``false`` and ``true`` are the shares of the
        negatives and of the positives that are. The first threshold is infinite.
    """
    values, yes = np.asarray(scores, np.float64), np.asarray(positive) != 0
    distinct, place = np.unique(-values, return_inverse=True)
    place = place.reshape(-1)
    hits = np.bincount(place[yes], minlength=len(distinct))
    alarms = np.bincount(place[~yes], minlength=len(distinct))
    false = np.append(0, np.cumsum(alarms)) / max(int((~yes).sum()), 1)
    true = np.append(0, np.cumsum(hits)) / max(int(yes.sum()), 1)
    return np.append(np.inf, -distinct), false, true


def eer(scores: np.ndarray, positive: np.ndarray) -> float:
    """Equal error rate: where as large a share of negatives passes as of positives is missed.

    Between two thresholds the ROC curve is taken as straight.

    Returns:
        0..1, 0 is perfect and 0.5 is chance; NaN as for ``auc``.

    Raises:
        ValueError: as for ``auc``.
    """
    if np.isnan(auc(scores, positive)):
        return float("nan")
    _, false, true = roc(scores, positive)
    gap = false - (1.0 - true)  # from -1 up to 1
    after = int(np.argmax(gap >= 0))
    if gap[after] == 0:
        return float(false[after])
    part = gap[after - 1] / (gap[after - 1] - gap[after])
    return float(false[after - 1] + part * (false[after] - false[after - 1]))


SURE = 1e-6
"""Log-loss counts no probability as nearer to 0 or 1 than this: one wrong certainty would make it
infinite."""


def log_loss(probability: np.ndarray, positive: np.ndarray) -> float:
    """Mean of ``-ln`` of the probability given to what was true; 0 is perfect, ``ln 2`` is "half".

    Args:
        probability: ``[N]``, of being positive.
        positive: ``[N]``, anything but 0 is positive.

    Returns:
        NaN for empty arrays.
    """
    p = np.clip(np.asarray(probability, np.float64), SURE, 1 - SURE)
    yes = np.asarray(positive) != 0
    return float(-np.log(np.where(yes, p, 1 - p)).mean()) if p.size else float("nan")


BINS = 10


def reliability(
    probability: np.ndarray, positive: np.ndarray, bins: int = BINS
) -> List[Tuple[int, float, float]]:
    """Probabilities beside what came true, in ``bins`` equal intervals of 0..1.

    Returns:
        Per interval ``(count, mean probability, share of positives)``; the last includes 1. The
        two means are NaN where nothing lies in it.
    """
    p = np.asarray(probability, np.float64)
    yes = np.asarray(positive) != 0
    bin_of = np.minimum((p * bins).astype(int), bins - 1)
    table = []
    for index in range(bins):
        inside = bin_of == index
        count = int(inside.sum())
        nan = float("nan")
        table.append(
            (count, float(p[inside].mean()), float(yes[inside].mean())) if count else (0, nan, nan)
        )
    return table


def ece(probability: np.ndarray, positive: np.ndarray, bins: int = BINS) -> float:
    """Expected calibration error: by how much probabilities miss what comes true, 0 is perfect.

    The mean over the intervals of ``reliability``, by their counts, of the distance between mean
    probability and share of positives.

    Returns:
        NaN for empty arrays.
    """
    table = reliability(probability, positive, bins)
    total = sum(count for count, _, _ in table)
    missed = sum(count * abs(mean - share) for count, mean, share in table if count)
    return missed / total if total else float("nan")


def fitted_threshold(scores: np.ndarray, positive: np.ndarray) -> Tuple[float, float]:
    """The threshold that serves a set of scores best.

    Best is the largest balanced accuracy, the mean of the share of positives at or over the
    threshold and of negatives below it (Youden's criterion): it does not depend on how many of
    each there are. One half is kept where nothing is better; otherwise it is midway between two
    neighbouring scores, and the one nearest to one half among equals.

    Args:
        scores: ``[N]``, in 0..1.
        positive: ``[N]``, anything but 0 is positive.

    Returns:
        ``(threshold, balanced accuracy)``; NaN as for ``auc``.

    Raises:
        ValueError: as for ``auc``.
    """
    if np.isnan(auc(scores, positive)):
        return float("nan"), float("nan")
    thresholds, false, true = roc(scores, positive)
    balanced = (true + 1.0 - false) / 2
    best = float(balanced.max())
    kept = balanced_accuracy(scores, positive, 0.5)
    if kept >= best - _SAME:
        return 0.5, kept
    # Taking from thresholds[i] on is the same as from anything over the next lower score on.
    lower = np.append(thresholds[1:], 0.0)
    between = np.where(np.isinf(thresholds), 1.0, thresholds) / 2 + lower / 2
    equals = between[balanced >= best - _SAME]
    return float(equals[np.argmin(np.abs(equals - 0.5))]), best


_SAME = 1e-12
"""Shares that differ by less are equal but for their rounding."""


def balanced_accuracy(scores: np.ndarray, positive: np.ndarray, threshold: float) -> float:
    """Mean of the shares of positives from ``threshold`` on and negatives below; NaN as ``auc``."""
    found, yes = np.asarray(scores) >= threshold, np.asarray(positive) != 0
    if not yes.any() or yes.all():
        return float("nan")
    return float((found[yes].mean() + (~found[~yes]).mean()) / 2)


@dataclass(frozen=True)
class Scores:
    """Results of a model on labelled pictures.

    Attributes:
        images: how many pictures.
        auc: of ``fake_probability`` against the label.
        accuracy: of the verdict, FAKE from a fake probability of one half on.
        dice: of the mask, all pixels of all pictures together.
        iou: of the mask, likewise.
        fake_iou: mean over the manipulated pictures of each one's IoU.
        eer: equal error rate of ``fake_probability``.
        log_loss: of ``fake_probability``.
        ece: expected calibration error of ``fake_probability``, ten intervals.
    """

    images: int
    auc: float
    accuracy: float
    dice: float
    iou: float
    fake_iou: float
    eer: float = float("nan")
    log_loss: float = float("nan")
    ece: float = float("nan")

    def to_json(self) -> Dict[str, Any]:
        """A JSON object, rounded to six digits; what is not defined becomes null."""
        record: Dict[str, Any] = {"images": self.images}
        for name in ("auc", "accuracy", "dice", "iou", "fake_iou", "eer", "log_loss", "ece"):
            value = getattr(self, name)
            record[name] = None if np.isnan(value) else round(value, 6)
        return record


class Tally:
    """Collects predictions batch by batch and gives their ``Scores``."""

    def __init__(self) -> None:
        self._pixels = Counts()
        self._ious: List[float] = []
        self._fake: List[np.ndarray] = []
        self._truth: List[np.ndarray] = []

    def add(
        self, fake_probability: np.ndarray, fake: np.ndarray, mask: np.ndarray, truth: np.ndarray
    ) -> None:
        """Adds a batch.

        Args:
            fake_probability: float ``[N]``, 1 minus the network's output.
            fake: ``[N]``, not 0 where the picture is manipulated.
            mask: ``[N, H, W]``, not 0 where predicted manipulated.
            truth: ``[N, H, W]``, not 0 where manipulated.
        """
        self._fake.append(np.asarray(fake_probability, np.float64).reshape(-1))
        self._truth.append(np.asarray(fake).reshape(-1) != 0)
        self._pixels = self._pixels + Counts.of(mask, truth)
        for i in np.flatnonzero(self._truth[-1]):
            self._ious.append(iou(mask[i], truth[i]))

    def scores(self) -> Scores:
        """The results so far."""
        fake = np.concatenate(self._fake) if self._fake else np.empty(0)
        truth = np.concatenate(self._truth) if self._truth else np.empty(0, bool)
        return Scores(
            images=len(fake),
            auc=auc(fake, truth),
            accuracy=accuracy(fake >= 0.5, truth),
            dice=self._pixels.dice,
            iou=self._pixels.iou,
            fake_iou=float(np.mean(self._ious)) if self._ious else float("nan"),
            eer=eer(fake, truth),
            log_loss=log_loss(fake, truth),
            ece=ece(fake, truth),
        )


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else 1.0
