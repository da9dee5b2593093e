"""Temperature scaling: how a track's score becomes a probability that means what it says.

``p = sigmoid(logit(score) / temperature)``. The temperature is fitted on clips whose truth is
known, by log-loss, and kept in ``verdict.json`` beside the compiled model, whose SHA-256 that file
names. Without it nothing is changed (temperature 1), and whoever shows the probability says that
it is not calibrated.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, Mapping, Optional

import numpy as np

from ...errors import FormatError
from ...files import sha256, write_json

FILE = "verdict.json"
SCHEMA = 1

SURE = 1e-4
"""Scores are kept this far from 0 and 1: no finite set of frames says more."""


@dataclass(frozen=True)
class Calibration:
    """How scores of one aggregation become probabilities.

    Attributes:
        temperature: above 1 makes answers less sure, below 1 surer.
        aggregation: the one it was fitted for; empty where nothing was fitted.
        band: answers nearer to the threshold than this are inconclusive; ``None`` for the default.
        reason: where it comes from, or why there is none, for people.
        fitted_on: what was written of the videos and the losses.
    """

    temperature: float = 1.0
    aggregation: str = ""
    band: Optional[float] = None
    reason: str = "not calibrated"
    fitted_on: Mapping[str, Any] = field(default_factory=dict)

    @property
    def fitted(self) -> bool:
        """Whether a probability may be read as one."""
        return bool(self.aggregation)

    def apply(self, score: float) -> float:
        """The probability for a score."""
        return _sigmoid(logit(score) / self.temperature)

    def apply_to(self, scores: np.ndarray) -> np.ndarray:
        """The probabilities for scores, float64 ``[n]``."""
        return np.array([self.apply(float(score)) for score in scores])

    def to_json(self) -> Dict[str, Any]:
        """A JSON object."""
        return {
            "calibrated": self.fitted,
            "temperature": self.temperature,
            "aggregation": self.aggregation or None,
            "reason": self.reason,
        }


def logit(score: float) -> float:
    """The log-odds of a score, which is kept ``SURE`` away from 0 and 1."""
    score = min(max(score, SURE), 1.0 - SURE)
    return math.log(score / (1.0 - score))


def read_calibration(model: Path) -> Calibration:
    """The calibration beside a compiled model.

    Args:
        model: the ``.xmodel``.

    Returns:
        That of ``verdict.json`` where it names this very model, else one that changes nothing;
        ``reason`` says which.

    Raises:
        FormatError: the file is there and cannot be understood.
    """
    path = model.with_name(FILE)
    if not path.is_file():
        return Calibration(
            reason=f"not calibrated: there is no {FILE} beside the model (eval --calibrate)"
        )
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if record["schema"] != SCHEMA:
            raise ValueError(f"schema {record['schema']}, this version reads {SCHEMA}")
        found = Calibration(
            temperature=float(record["temperature"]),
            aggregation=str(record["aggregation"]),
            band=float(record["band"]),
            reason=f"{path}: temperature {record['temperature']:g}, fitted on {record['clips']}",
            fitted_on=record.get("fitted_on", {}),
        )
        if not (found.temperature > 0 and math.isfinite(found.temperature)):
            raise ValueError("the temperature is not a positive number")
        wanted = str(record["xmodel_sha256"])
    except (ValueError, TypeError, KeyError) as error:
        raise FormatError(
            f"The calibration {path} cannot be read",
            f"{type(error).__name__}: {error}",
            "remove it, or make it again with deepfake-fpga eval --calibrate",
        ) from error
    if not model.is_file() or sha256(model) != wanted:
        return Calibration(reason=f"not calibrated: {path} is for another model")
    return found


def write_calibration(model: Path, calibration: Calibration, clips: str) -> Path:
    """Writes ``verdict.json`` beside a compiled model.

    Args:
        model: the ``.xmodel``.
        calibration: with a band; its reason is not kept.
        clips: what it was fitted on, in words.

    Returns:
        The file.
    """
    path = model.with_name(FILE)
    record = {
        "schema": SCHEMA,
        "tool": "deepfake-fpga",
        "xmodel_sha256": sha256(model),
        "aggregation": calibration.aggregation,
        "temperature": calibration.temperature,
        "band": calibration.band,
        "clips": clips,
        "fitted_on": dict(calibration.fitted_on),
    }
    write_json(path, record)
    return path


def fit_temperature(scores: np.ndarray, labels: np.ndarray) -> float:
    """The temperature with the least log-loss, authentic and manipulated clips weighing the same.

    Args:
        scores: ``[n]``, 0 to 1.
        labels: ``[n]``, true where manipulated; both kinds have to be there.

    Returns:
        A number from 0.01 to 100, to six digits.

    Raises:
        ValueError: there is only one kind.
    """
    logits = np.array([logit(float(score)) for score in scores])
    labels = np.asarray(labels, bool)
    if labels.all() or not labels.any():
        raise ValueError("both authentic and manipulated clips are needed")

    def loss(power: float) -> float:
        return log_loss(1.0 / (1.0 + np.exp(-logits / 10.0**power)), labels)

    # The loss has one minimum over 1 / temperature; golden sections close in on it.
    low, high, ratio = -2.0, 2.0, (math.sqrt(5.0) - 1.0) / 2.0
    while high - low > 1e-7:
        left, right = high - ratio * (high - low), low + ratio * (high - low)
        if loss(left) <= loss(right):
            high = right
        else:
            low = left
    return float(round(10.0 ** ((low + high) / 2.0), 6))


def log_loss(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Mean of ``-log`` of the probability given to the truth, both classes weighing the same."""
    p = np.clip(np.asarray(probabilities, np.float64), 1e-12, 1 - 1e-12)
    y = np.asarray(labels, bool)
    loss = np.where(y, -np.log(p), -np.log(1 - p))
    return float((loss[y].mean() + loss[~y].mean()) / 2)


def _sigmoid(x: float) -> float:
    if x >= 0:
        return 1.0 / (1.0 + math.exp(-x))
    grown = math.exp(x)
    return grown / (1.0 + grown)
