"""The figures of one table: of frames, of videos and of masks, each with its confidence.

A figure that the data do not define is ``None`` with the reason, never a number that looks like
chance. Whole videos are resampled, and the same seed draws the same videos for every device and
every perturbation, so that differences are paired.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Dict, List, Optional, Sequence, Tuple

import numpy as np

from ...inference.verdicts import State
from ...quantize.metrics import BINS, SURE
from ...quantize.resampling import (
    CONFIDENCE,
    RANKED,
    Ranking,
    Resampling,
    by_unit,
    calibration_error,
    interval,
    ratio,
)
from .table import Table

TWO_KINDS = RANKED
"""Figures that need manipulated and authentic videos."""

LOWER_IS_BETTER = ("eer", "log_loss", "calibration_error")
LEVELS = ("frame", "video", "mask")
NO_DIRECTION = ("threshold", "decided")
"""Neither more nor less of these is better."""

FEW = 20
"""Videos below which an interval is only a rough guide."""


@dataclass(frozen=True)
class Settings:
    """How figures are taken.

    Attributes:
        threshold: probability from which a frame or a video counts as FAKE.
        false_alarms: share of authentic ones that a chosen threshold may let through.
        resamples: of the bootstrap.
        seed: of the bootstrap.
    """

    threshold: float = 0.5
    false_alarms: float = 0.01
    resamples: int = 1000
    seed: int = 0


@dataclass(frozen=True)
class Figure:
    """A number and how far chance may move it.

    Attributes:
        value: ``None`` where it is not defined.
        low: of the interval that holds ``CONFIDENCE`` of the resamples; ``None`` where there is no
            such.
        high: likewise.
        reason: why something is ``None``.
        thin: whether there are too few videos for any interval, of a difference too.
    """

    value: Optional[float]
    low: Optional[float] = None
    high: Optional[float] = None
    reason: str = ""
    thin: bool = False

    def to_json(self) -> Dict[str, Any]:
        """A JSON object, rounded to six digits."""
        record: Dict[str, Any] = {
            name: None if value is None else round(value, 6)
            for name, value in (("value", self.value), ("low", self.low), ("high", self.high))
        }
        return {**record, "reason": self.reason} if self.reason else record


@dataclass(frozen=True)
class Alarms:
    """What a threshold chosen for few false alarms really lets through.

    Attributes:
        wrong: authentic ones at or over it.
        authentic: authentic ones.
        low: exact binomial interval of the share (Clopper and Pearson); only for videos, since
            frames are no independent witnesses.
        high: likewise.
    """

    wrong: int
    authentic: int
    low: Optional[float] = None
    high: Optional[float] = None

    def to_json(self) -> Dict[str, Any]:
        """A JSON object."""
        return {
            "wrong": self.wrong,
            "authentic": self.authentic,
            "low": None if self.low is None else round(self.low, 6),
            "high": None if self.high is None else round(self.high, 6),
        }


@dataclass(frozen=True, eq=False)
class Measures:
    """All figures of one table.

    Attributes:
        figures: by level (``frame``, ``video``, ``mask``) and name.
        samples: what every resample gave, float64 ``[resamples]``, by the same names.
        alarms: by level, at the threshold chosen for few false alarms.
        counts: what there is: videos, frames, those judged and those with a mask, by label.
        confusion: videos by truth (``FAKE``, ``REAL``) and state.
        frame_confusion: frames by truth and by ``FAKE``, ``REAL`` and ``not_judged``.
    """

    figures: Dict[str, Dict[str, Figure]]
    samples: Dict[str, Dict[str, np.ndarray]] = field(repr=False)
    alarms: Dict[str, Alarms]
    counts: Dict[str, int]
    confusion: Dict[str, Dict[str, int]]
    frame_confusion: Dict[str, Dict[str, int]]

    def to_json(self) -> Dict[str, Any]:
        """A JSON object."""
        return {
            "counts": self.counts,
            **{
                level: {name: figure.to_json() for name, figure in own.items()}
                for level, own in self.figures.items()
            },
            "alarms_at_threshold": {level: own.to_json() for level, own in self.alarms.items()},
            "confusion": self.confusion,
            "frame_confusion": self.frame_confusion,
        }


def measure(table: Table, settings: Settings) -> Measures:
    """All figures of a table."""
    measures = Measures({}, {}, {}, _counts(table), _confusion(table), {})
    probability, fake = table.column("probability"), table.fake
    judged = ~np.isnan(probability)
    said = probability >= settings.threshold
    for name, own in (("FAKE", fake), ("REAL", ~fake)):
        measures.frame_confusion[name] = {
            "FAKE": int((own & judged & said).sum()),
            "REAL": int((own & judged & ~said).sum()),
            "not_judged": int((own & ~judged).sum()),
        }
    _Level(measures, "frame", "frame", table, settings).scores(
        probability[judged], fake[judged], table.unit[judged]
    )
    videos = np.array([video.probability for video in table.videos], np.float64)
    truth = np.array([video.fake for video in table.videos], bool)
    known = ~np.isnan(videos)
    level = _Level(measures, "video", "video", table, settings)
    level.scores(videos[known], truth[known], np.flatnonzero(known))
    level.decisions(truth)
    _Level(measures, "mask", "frame", table, settings).masks()
    return measures


def difference(ours: Measures, theirs: Measures, level: str, name: str) -> Figure:
    """Ours minus theirs, paired: both are of the same videos in the same order."""
    first, second = ours.figures[level][name], theirs.figures[level][name]
    if first.value is None or second.value is None:
        return Figure(None, reason=first.reason or second.reason)
    both = ours.samples[level][name] - theirs.samples[level][name]
    change = first.value - second.value
    if first.thin or second.thin:
        return Figure(change, reason=first.reason or second.reason, thin=True)
    return _with_interval(change, both)


def binomial_interval(
    wrong: int, total: int, confidence: float = CONFIDENCE
) -> Tuple[float, float]:
    """The interval of Clopper and Pearson for a share of independent cases.

    Args:
        wrong: how many of them.
        total: of how many, at least 1.
        confidence: that the true share is inside.
    """
    tail = (1.0 - confidence) / 2

    def at_most(share: float, count: int) -> float:
        """Probability of ``count`` or fewer."""
        if share <= 0 or share >= 1:
            return float(share <= 0 or count >= total)
        terms = (
            math.lgamma(total + 1) - math.lgamma(k + 1) - math.lgamma(total - k + 1)
            + k * math.log(share) + (total - k) * math.log1p(-share)
            for k in range(count + 1)
        )  # fmt: skip
        return min(1.0, sum(map(math.exp, terms)))

    def where(count: int, level: float) -> float:
        low, high = 0.0, 1.0
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if at_most(middle, count) > level else (low, middle)
        return (low + high) / 2

    lower = 0.0 if wrong == 0 else where(wrong - 1, 1 - tail)
    return lower, 1.0 if wrong == total else where(wrong, tail)


class _Level:
    """Figures of one level of a table, put into its ``Measures``."""

    def __init__(
        self, measures: Measures, level: str, thing: str, table: Table, settings: Settings
    ) -> None:
        self._figures = measures.figures.setdefault(level, {})
        self._samples = measures.samples.setdefault(level, {})
        self._alarms = measures.alarms
        self._level, self._thing, self._table, self._settings = level, thing, table, settings
        self._units = len(table.videos)
        self._draw = Resampling(self._units, settings.resamples, settings.seed)

    def scores(self, probability: np.ndarray, fake: np.ndarray, unit: np.ndarray) -> None:
        """Figures of judged probabilities."""
        n, ones = self._units, np.ones(len(unit))
        videos = len(np.unique(unit))
        none = "" if len(unit) else f"no {self._thing} was judged"
        alone = "" if videos > 1 else "one video only: resampling videos says nothing"
        total = by_unit(ones, unit, n)
        right = (probability >= self._settings.threshold) == fake
        self._one("accuracy", ratio(by_unit(right, unit, n), total), none, alone)
        kinds, thin = self._kinds(fake, unit)
        ranking = Ranking(probability, fake, unit)
        values, samples = self._draw.apply(
            ranking.statistic(self._settings.false_alarms), len(ranking)
        )
        for place, name in enumerate(RANKED):
            reason = none or kinds
            if name == "threshold" and not reason and np.isnan(values[place]):
                reason = (
                    f"the highest scores are of authentic {self._thing}s: every threshold lets "
                    f"more than {self._settings.false_alarms:g} of them through"
                )
            self._put(name, values[place], samples[:, place], reason, alone or thin)
        threshold = self._figures["threshold"].value
        if threshold is not None:
            self._count_alarms(threshold, probability[~fake])
        sure = np.clip(probability, SURE, 1 - SURE)
        loss = -np.log(np.where(fake, sure, 1 - sure))
        self._one("log_loss", ratio(by_unit(loss, unit, n), total), none, alone)
        error = calibration_error(probability, fake, unit, n, BINS)
        self._one("calibration_error", error, none, alone)

    def decisions(self, fake: np.ndarray) -> None:
        """Figures of the three-state verdicts of videos."""
        states = [video.state for video in self._table.videos]
        decided = np.array([state is not State.INCONCLUSIVE for state in states], bool)
        right = np.array([state is State.MANIPULATED for state in states], bool) == fake
        alone = "" if self._units > 1 else "one video only: resampling videos says nothing"
        everything = np.ones(self._units)
        self._one("decided", ratio(decided.astype(float), everything), "", alone)
        self._one(
            "accuracy_decided",
            ratio((right & decided).astype(float), decided.astype(float)),
            "" if decided.any() else "every verdict is inconclusive",
            alone,
        )

    def masks(self) -> None:
        """Figures of the masks of judged frames whose truth is known."""
        table, n = self._table, self._units
        counts = {name: table.column(name) for name in ("tp", "fp", "fn")}
        known = ~np.isnan(counts["tp"])
        unit = table.unit[known]
        tp, fp, fn = (by_unit(counts[name][known], unit, n) for name in ("tp", "fp", "fn"))
        videos = len(np.unique(unit))
        none = "" if known.any() else "no frame has a known mask"
        if not none and not float((tp + fp + fn).sum()):
            none = "no pixel is manipulated, in truth or by prediction"
        alone = "" if videos > 1 else "one video only: resampling videos says nothing"
        self._one("dice", ratio(2 * tp, 2 * tp + fp + fn), none, alone)
        self._one("iou", ratio(tp, tp + fp + fn), none, alone)
        marked = known & table.fake & (counts["tp"] + counts["fn"] > 0)
        own = table.unit[marked]
        each = counts["tp"] / np.maximum(counts["tp"] + counts["fp"] + counts["fn"], 1)
        none = "" if marked.any() else "no manipulated frame has a known mask"
        alone = "" if len(np.unique(own)) > 1 else "one manipulated video only"
        total = by_unit(np.ones(len(own)), own, n)
        self._one("iou_per_frame", ratio(by_unit(each[marked], own, n), total), none, alone)
        boundary = table.column("boundary")[marked]
        self._one("boundary_f", ratio(by_unit(boundary, own, n), total), none, alone)

    def _kinds(self, fake: np.ndarray, unit: np.ndarray) -> Tuple[str, str]:
        """Why figures that need both kinds are not defined, or have no interval."""
        manipulated, authentic = len(np.unique(unit[fake])), len(np.unique(unit[~fake]))
        if not manipulated or not authentic:
            kind = "authentic" if not manipulated else "manipulated"
            return f"all judged {self._thing}s are {kind}", ""
        if manipulated < 2 or authentic < 2:
            kind = "manipulated" if manipulated < 2 else "authentic"
            return "", f"one {kind} video only: resampling videos says nothing"
        return "", ""

    def _count_alarms(self, threshold: float, authentic: np.ndarray) -> None:
        wrong, total = int((authentic >= threshold).sum()), len(authentic)
        low = high = None
        if self._level == "video":
            low, high = binomial_interval(wrong, total)
        self._alarms[self._level] = Alarms(wrong, total, low, high)

    def _one(self, name: str, statistic: Any, none: str, thin: str) -> None:
        values, samples = self._draw.apply(statistic)
        self._put(name, values[0], samples[:, 0], none, thin)

    def _put(self, name: str, value: float, samples: np.ndarray, none: str, thin: str) -> None:
        self._samples[name] = samples
        if none or np.isnan(value):
            self._figures[name] = Figure(None, reason=none or "not defined")
        elif thin:
            self._figures[name] = Figure(float(value), reason=f"no interval: {thin}", thin=True)
        else:
            figure = _with_interval(float(value), samples)
            if figure.low is not None and figure.low == figure.high:
                # Twenty videos without a mistake do not prove that there are none.
                figure = Figure(float(value), reason=_CONSTANT.format(self._units))
            self._figures[name] = figure


_CONSTANT = "no interval: every resample of the {} videos gives the same, too few to tell chance"


def _with_interval(value: float, samples: np.ndarray) -> Figure:
    low, high = interval(samples)
    if np.isnan(low):
        reason = "no interval: most resamples of so few videos leave it undefined"
        return Figure(value, reason=reason if len(samples) else "no interval was asked for")
    return Figure(value, low, high)


def _counts(table: Table) -> Dict[str, int]:
    judged = ~np.isnan(table.column("probability"))
    return {
        "videos": len(table.videos),
        "videos_fake": sum(video.fake for video in table.videos),
        "videos_judged": sum(not math.isnan(video.probability) for video in table.videos),
        "frames": len(table.rows),
        "frames_fake": int(table.fake.sum()),
        "frames_judged": int(judged.sum()),
        "frames_with_mask": int((~np.isnan(table.column("tp"))).sum()),
    }


def _confusion(table: Table) -> Dict[str, Dict[str, int]]:
    return {
        label: {
            state.value: sum(
                video.state is state for video in table.videos if video.fake == (label == "FAKE")
            )
            for state in State
        }
        for label in ("FAKE", "REAL")
    }


def names_of(measures: Sequence[Measures]) -> List[Tuple[str, str]]:
    """Level and name of every figure, in the order of the first."""
    return [(level, name) for level, own in measures[0].figures.items() for name in own]
