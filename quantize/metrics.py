"""How good masks and verdicts are: Dice, IoU, accuracy and the area under the ROC curve.

Numpy only, so that the float model, the quantized model and a card are measured by the same code.
Counts are added up over pictures before a ratio is taken (a picture without any manipulated
pixel has no Dice of its own).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict, List

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


@dataclass(frozen=True)
class Scores:
    """Results of a model on labelled pictures.

    Attributes:
        images: how many pictures.
        auc: of ``fake_probability`` against the label.
        accuracy: of the verdict at a fake probability of one half.
        dice: of the mask, all pixels of all pictures together.
        iou: of the mask, likewise.
        fake_iou: mean over the manipulated pictures of each one's IoU.
    """

    images: int
    auc: float
    accuracy: float
    dice: float
    iou: float
    fake_iou: float

    def to_json(self) -> Dict[str, Any]:
        """A JSON object, rounded to six digits; what is not defined becomes null."""
        record: Dict[str, Any] = {"images": self.images}
        for name in ("auc", "accuracy", "dice", "iou", "fake_iou"):
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
            accuracy=accuracy(fake > 0.5, truth),
            dice=self._pixels.dice,
            iou=self._pixels.iou,
            fake_iou=float(np.mean(self._ious)) if self._ious else float("nan"),
        )


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else 1.0
