"""A model's own calibration from labelled videos: the temperature, and what it was worth.

Half of the groups of videos choose the temperature, the other half says what it does. Videos tied
together by a person or an original are one group: nobody stands on both sides.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Dict, List, Sequence

import numpy as np

from ...errors import DataError, UsageError
from ...inference.verdicts import Rules
from ...inference.verdicts.calibration import (
    FILE,
    Calibration,
    fit_temperature,
    log_loss,
    write_calibration,
)
from ..defaults import default_model
from .material import Clip
from .scoring import Row
from .table import Table, judge_of

LEAST = 10
"""Videos of each kind that each half needs. Of fewer, one odd video moves the temperature."""


@dataclass(frozen=True)
class Fit:
    """A temperature and what it does to videos that did not choose it.

    Attributes:
        rules: they were fitted for, with the temperature in their calibration.
        chosen_on: videos that chose.
        reported_on: videos that did not.
        raw: log-loss of those without a temperature.
        fitted: and with it, both kinds weighing the same.
        false_alarms: share of their authentic videos that are accused.
        missed: share of their manipulated videos that are not.
        unjudged: videos without a probability, which took no part.
    """

    rules: Rules
    chosen_on: int
    reported_on: int
    raw: float
    fitted: float
    false_alarms: float
    missed: float
    unjudged: int

    @property
    def temperature(self) -> float:
        """See ``Calibration``."""
        return self.rules.calibration.temperature

    def to_json(self) -> Dict[str, Any]:
        """A JSON object."""
        return {
            "aggregation": self.rules.aggregation,
            "temperature": self.temperature,
            "videos": self.chosen_on,
            "held_out": {
                "videos": self.reported_on,
                "log_loss_raw": round(self.raw, 4),
                "log_loss": round(self.fitted, 4),
                "false_alarms": round(self.false_alarms, 4),
                "missed": round(self.missed, 4),
            },
            "unjudged": self.unjudged,
        }

    @property
    def words(self) -> str:
        """The same for people."""
        return (
            f"temperature {self.temperature:g} for {self.rules.aggregation}, chosen on "
            f"{self.chosen_on} videos; on {self.reported_on} others the log-loss is "
            f"{self.fitted:.3f} (without it {self.raw:.3f}), {100 * self.false_alarms:.0f} % of "
            f"the authentic are accused, {100 * self.missed:.0f} % of the manipulated missed"
        )


def calibrate(table: Table, rules: Rules, clips: Sequence[Clip]) -> Fit:
    """Fits the temperature of a model to videos whose truth is known.

    Args:
        table: of the device whose scores count.
        rules: how frames become a verdict; their present calibration is not used.
        clips: the videos of the table; those of one ``group`` stay on one side.

    Raises:
        DataError: a half has fewer than ``LEAST`` videos of a kind.
    """
    plain = replace(rules, calibration=Calibration())
    scores = np.array(_scores(table, plain))
    known = ~np.isnan(scores)
    fake = np.array([video.fake for video in table.videos], bool)
    choosing = _choosing(clips)
    _check(fake, choosing, known)
    temperature = fit_temperature(scores[choosing & known], fake[choosing & known])
    calibration = Calibration(temperature, rules.aggregation, reason="fitted here")
    rest = ~choosing & known
    truth = fake[rest]
    p = calibration.apply_to(scores[rest])
    accused = p >= rules.threshold
    return Fit(
        replace(rules, calibration=calibration),
        int((choosing & known).sum()),
        int(rest.sum()),
        log_loss(scores[rest], truth),
        log_loss(p, truth),
        float(accused[~truth].mean()),
        float((~accused[truth]).mean()),
        int((~known).sum()),
    )


def check_enough(clips: Sequence[Clip]) -> None:
    """Whether these videos can be enough, if all of them are judged; to be asked before the work.

    Raises:
        DataError: a half has fewer than ``LEAST`` videos of a kind.
    """
    fake = np.array([clip.fake for clip in clips], bool)
    _check(fake, _choosing(clips), np.ones(len(clips), bool))


def keep(fit: Fit, model: Path, data: str) -> Path:
    """Writes ``verdict.json`` beside a compiled model, for ``run`` to use.

    Args:
        fit: what was found.
        model: the ``.xmodel``.
        data: what it was found on, in words.

    Returns:
        The file.

    Raises:
        UsageError: the model is the shipped one.
    """
    refuse_shipped(model)
    found = replace(fit.rules.calibration, band=fit.rules.band, fitted_on=fit.to_json())
    return write_calibration(model, found, f"{fit.chosen_on} videos of {data}")


def refuse_shipped(model: Path) -> None:
    """Keeps the calibration of the model that comes with the package.

    Raises:
        UsageError: ``model`` is that model.
    """
    if model.resolve() == default_model().resolve():
        raise UsageError(
            "The shipped model keeps the calibration it came with",
            f"{FILE} would be written into the installed package, {model.parent}",
            "copy the model and name the copy with --model",
        )


def _scores(table: Table, rules: Rules) -> List[float]:
    own: List[List[Row]] = [[] for _ in table.videos]
    for row, unit in zip(table.rows, table.unit):
        own[unit].append(row)
    judge = judge_of(rules, False)
    found = [judge(rows).probability for rows in own]
    return [np.nan if value is None else value for value in found]


def _choosing(clips: Sequence[Clip]) -> np.ndarray:
    """Which videos are in the half that chooses, bool ``[n]``; the same in every run."""
    groups = [(clip.group or clip.name).encode("utf-8", "surrogateescape") for clip in clips]
    return np.array([hashlib.sha256(group).digest()[0] % 2 == 0 for group in groups], bool)


def _check(fake: np.ndarray, choosing: np.ndarray, known: np.ndarray) -> None:
    for half, words in ((choosing, "choose"), (~choosing, "report")):
        for kind, label in ((fake, "manipulated"), (~fake, "authentic")):
            count = int((half & kind & known).sum())
            if count < LEAST:
                raise DataError(
                    "There are too few videos to calibrate on",
                    f"{count} {label} ones in the half that is to {words}, at least {LEAST} "
                    "are needed; videos of one original or person stay on one side",
                    "give more labelled videos with --data",
                )
