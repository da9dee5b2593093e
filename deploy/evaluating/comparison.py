"""Two tables of the same data side by side: whose verdicts flip, and what has become worse."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

import numpy as np

from ...errors import FormatError, MismatchError, MissingError
from ...files import sha256
from .measures import (
    LOWER_IS_BETTER,
    NO_DIRECTION,
    Figure,
    Measures,
    Settings,
    difference,
    measure,
    names_of,
)
from .table import Table, in_common, read_tables

RECORD, FRAMES, VIDEOS = "eval.json", "eval.csv", "videos.csv"


@dataclass(frozen=True)
class Flip:
    """A frame or a video of which two devices say different things.

    Attributes:
        name: of the video, and of the frame where it is one.
        label: ``FAKE`` or ``REAL``.
        first: what the first device gives: probability and verdict.
        second: likewise.
    """

    name: str
    label: str
    first: Tuple[Optional[float], str]
    second: Tuple[Optional[float], str]

    def to_json(self) -> Dict[str, Any]:
        """A JSON object."""
        return {
            "name": self.name,
            "label": self.label,
            "first": {"fake_probability": self.first[0], "verdict": self.first[1]},
            "second": {"fake_probability": self.second[0], "verdict": self.second[1]},
        }


@dataclass(frozen=True)
class Flips:
    """Verdicts of two devices on the same frames and videos.

    Attributes:
        first: name of a device.
        second: name of the other.
        frames: those that differ at the threshold.
        videos: those whose three-state verdict differs.
        compared: frames that both have.
        mean_change: mean absolute difference of the frames' probabilities.
        largest_change: the largest.
    """

    first: str
    second: str
    frames: Tuple[Flip, ...]
    videos: Tuple[Flip, ...]
    compared: int
    mean_change: Optional[float]
    largest_change: Optional[float]

    def to_json(self) -> Dict[str, Any]:
        """A JSON object."""
        return {
            "first": self.first,
            "second": self.second,
            "compared": self.compared,
            "mean_change": self.mean_change,
            "largest_change": self.largest_change,
            "frames": [flip.to_json() for flip in self.frames],
            "videos": [flip.to_json() for flip in self.videos],
        }


def flips(names: Tuple[str, str], ours: Table, theirs: Table, threshold: float) -> Flips:
    """Where two devices differ.

    Args:
        names: of the two devices.
        ours: of the first.
        theirs: of the second.
        threshold: probability from which a frame is FAKE.
    """
    first, second = in_common(ours, theirs)
    frames = []
    for a, b, unit in zip(first.rows, second.rows, first.unit):
        said = _said(a.probability, threshold), _said(b.probability, threshold)
        if said[0] != said[1]:
            video = first.videos[unit]
            name = a.source if a.time is None else f"{video.name}, frame {a.frame}"
            name += f", face {a.track}" if a.track else ""
            both = (a.probability, said[0]), (b.probability, said[1])
            frames.append(Flip(name, "FAKE" if video.fake else "REAL", *both))
    videos = [
        Flip(
            a.name,
            "FAKE" if a.fake else "REAL",
            (None if np.isnan(a.probability) else a.probability, a.state.value),
            (None if np.isnan(b.probability) else b.probability, b.state.value),
        )
        for a, b in zip(first.videos, second.videos)
        if a.state is not b.state
    ]
    change = np.abs(first.column("probability") - second.column("probability"))
    change = change[~np.isnan(change)]
    return Flips(
        names[0],
        names[1],
        tuple(frames),
        tuple(videos),
        len(first.rows),
        round(float(change.mean()), 6) if len(change) else None,
        round(float(change.max()), 6) if len(change) else None,
    )


@dataclass(frozen=True)
class Change:
    """One figure against the baseline.

    Attributes:
        level: ``frame``, ``video`` or ``mask``.
        name: of the figure.
        now: its value.
        before: the baseline's, on the same videos.
        change: now minus before, with the interval of the paired bootstrap.
        worse: whether it is worse by more than the tolerance.
        beyond_chance: whether the interval leaves zero out.
    """

    level: str
    name: str
    now: Figure
    before: Figure
    change: Figure
    worse: bool
    beyond_chance: bool

    def to_json(self) -> Dict[str, Any]:
        """A JSON object."""
        return {
            "level": self.level,
            "name": self.name,
            "now": self.now.to_json(),
            "before": self.before.to_json(),
            "change": self.change.to_json(),
            "worse": self.worse,
            "beyond_chance": self.beyond_chance,
        }


@dataclass(frozen=True)
class Against:
    """One device against the baseline.

    Attributes:
        device: its name now.
        baseline: the name of the baseline's device.
        videos: that both have.
        same_data: whether the data are the same to the last byte.
        changes: figure by figure.
    """

    device: str
    baseline: str
    videos: int
    same_data: bool
    changes: Tuple[Change, ...]

    def to_json(self) -> Dict[str, Any]:
        """A JSON object."""
        return {**vars(self), "changes": [change.to_json() for change in self.changes]}


@dataclass(frozen=True)
class Baseline:
    """An earlier evaluation.

    Attributes:
        path: its ``eval.json``.
        digest: of its data.
        tables: by device.
    """

    path: Path
    digest: str
    tables: Mapping[str, Table]


def read_baseline(path: Path) -> Baseline:
    """An ``eval.json`` with the two CSV files beside it.

    Raises:
        MissingError: one of them is not there.
        FormatError: one of them is something else, or belongs to another run.
    """
    if not path.is_file():
        raise MissingError(f"The baseline {path} does not exist", "", "check --baseline")
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        digest, files = str(record["data"]["sha256"]), dict(record["files"])
        recorded = {name: str(files[name]) for name in (FRAMES, VIDEOS)}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FormatError(
            f"The baseline {path} is no eval.json",
            f"{type(error).__name__}: {error}",
            "name the eval.json of an earlier deepfake-fpga eval",
        ) from error
    tables = read_tables(path.with_name(FRAMES), path.with_name(VIDEOS))
    for name, wanted in recorded.items():
        if sha256(path.with_name(name)) != wanted:
            raise FormatError(
                f"{path.with_name(name)} is not of the same run as {path.name}",
                "its SHA-256 is another one",
                "keep the files of one run together",
            )
    return Baseline(path, digest, tables)


def against(
    baseline: Baseline,
    tables: Mapping[str, Table],
    digest: str,
    settings: Settings,
    tolerance: float,
) -> List[Against]:
    """Every device against the same one of the baseline, on the videos that both have.

    Where each side has one device they are compared whatever they are called.

    Args:
        baseline: the earlier evaluation.
        tables: by device.
        digest: of the data.
        settings: how figures are taken, for both.
        tolerance: by how much a figure may be worse.

    Raises:
        MismatchError: nothing can be compared.
    """
    pairs = [(name, name) for name in tables if name in baseline.tables]
    if len(tables) == 1 and len(baseline.tables) == 1:
        pairs = [(next(iter(tables)), next(iter(baseline.tables)))]
    if not pairs:
        raise MismatchError(
            f"The baseline {baseline.path} is of other devices",
            f"it has {', '.join(baseline.tables)}, this run {', '.join(tables)}",
            "measure the same devices: --devices",
        )
    found = []
    for name, other in pairs:
        ours, theirs = in_common(tables[name], baseline.tables[other])
        if not ours.rows:
            raise MismatchError(
                f"The baseline {baseline.path} is of other data",
                "no frame with the same video, label and number is in both",
                "measure the same data",
            )
        now, before = measure(ours, settings), measure(theirs, settings)
        found.append(
            Against(
                name,
                other,
                len(ours.videos),
                digest == baseline.digest,
                tuple(_changes(now, before, tolerance)),
            )
        )
    return found


def _changes(now: Measures, before: Measures, tolerance: float) -> Sequence[Change]:
    changes = []
    for level, name in names_of([now]):
        ours, theirs = now.figures[level][name], before.figures[level][name]
        change = difference(now, before, level, name)
        worse = False
        if name not in NO_DIRECTION:
            if change.value is not None:
                loss = change.value if name in LOWER_IS_BETTER else -change.value
                worse = loss > tolerance + 1e-12
            else:  # a figure that can no longer be told is no better
                worse = theirs.value is not None and ours.value is None
        away = change.low is not None and change.high is not None
        away = away and bool((change.low or 0) > 0 or (change.high or 0) < 0)
        changes.append(Change(level, name, ours, theirs, change, worse, away))
    return changes


def _said(probability: Optional[float], threshold: float) -> str:
    if probability is None:
        return "not judged"
    return "FAKE" if probability >= threshold else "REAL"
