"""A whole evaluation: devices over labelled data, as they are and perturbed, into one record."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple

import numpy as np

from ... import __version__
from ...errors import DataError
from ...files import sha256, write_json, write_text
from ...inference.faces import FaceOptions
from ...inference.session import Session, model_sha256
from ...inference.verdicts import Rules
from ...quantize.boundary import TOLERANCE
from ...quantize.metrics import BINS, reliability, roc
from ...quantize.resampling import CONFIDENCE
from .breakdown import Part, breakdown
from .comparison import FRAMES, RECORD, VIDEOS, Against, Flips, flips
from .material import Material
from .measures import Measures, Settings, difference, measure, names_of
from .perturbations import Perturbation
from .scoring import ScoreCache, cache_path, score
from .table import Judge, Table, frames_csv, make_table, videos_csv

SCHEMA = 1
CACHE = "scores"
CURVE_POINTS = 200
"""Points of a ROC curve that are kept."""


@dataclass(frozen=True)
class EvalOptions:
    """How an evaluation is done.

    Attributes:
        settings: how figures are taken.
        rules: how frames become a verdict on their video.
        judge: the same as a function.
        judged_by: the same in words.
        every: one frame of so many.
        by: more facts to break down by.
        changes: perturbations; empty for none.
        faces: how faces are found in videos; ``None`` to take every picture as a crop of a face.
        threads: workers that decode.
    """

    settings: Settings
    rules: Rules
    judge: Judge
    judged_by: str
    every: int = 1
    by: Tuple[str, ...] = ()
    changes: Tuple[Perturbation, ...] = ()
    faces: Optional[FaceOptions] = None
    threads: Optional[int] = None


@dataclass(eq=False)
class DeviceResult:
    """One device.

    Attributes:
        name: of the device.
        reason: why it was taken.
        table: its scores.
        measures: its figures.
        parts: the same by parts of the data.
        left_out: why there is no part by some fact.
        perturbed: figures by perturbation.
        notes: what was found wrong.
    """

    name: str
    reason: str
    table: Table
    measures: Measures
    parts: List[Part]
    left_out: Dict[str, str]
    perturbed: Dict[Perturbation, Measures] = field(default_factory=dict)
    notes: List[str] = field(default_factory=list)

    def to_json(self, threshold: float) -> Dict[str, Any]:
        """A JSON object."""
        return {
            "reason": self.reason,
            **self.measures.to_json(),
            "curves": _curves(self.table),
            "breakdown": [part.to_json() for part in self.parts],
            "no_breakdown": self.left_out,
            "robustness": [
                {
                    "perturbation": change.name,
                    "words": change.words,
                    **own.to_json(),
                    "change": {
                        level: {
                            name: difference(own, self.measures, level, name).to_json()
                            for at, name in names_of([own])
                            if at == level
                        }
                        for level in own.figures
                    },
                }
                for change, own in self.perturbed.items()
            ],
            "mistakes": _mistakes(self.table, threshold),
            "notes": self.notes,
        }


@dataclass(eq=False)
class Evaluation:
    """What was found.

    Attributes:
        material: the data.
        model: path of the compiled model.
        model_sha256: of its content.
        model_reason: why it was taken.
        options: how it was done.
        devices: in the order asked for.
        flips: the first device against each other one.
        against: the baseline, if there is one.
        baseline: its path.
        tolerance: what a figure may lose against it.
        calibration: what was fitted to the data, if that was asked for.
    """

    material: Material
    model: str
    model_sha256: str
    model_reason: str
    options: EvalOptions
    devices: List[DeviceResult]
    flips: List[Flips]
    against: List[Against] = field(default_factory=list)
    baseline: str = ""
    tolerance: float = 0.0
    calibration: Optional[Dict[str, Any]] = None

    @property
    def tables(self) -> Dict[str, Table]:
        """By device."""
        return {device.name: device.table for device in self.devices}

    @property
    def worse(self) -> bool:
        """Whether a figure lost more than it may against the baseline."""
        return any(change.worse for one in self.against for change in one.changes)

    def to_json(self) -> Dict[str, Any]:
        """The content of ``eval.json``, but for the files beside it."""
        settings = self.options.settings
        return {
            "schema": SCHEMA,
            "tool": "deepfake-fpga",
            "version": __version__,
            "data": {
                "name": self.material.name,
                "sha256": self.material.digest,
                "kind": "videos" if self.material.videos else "crops",
                "notes": list(self.material.notes),
            },
            "model": {
                "path": self.model,
                "sha256": self.model_sha256,
                "reason": self.model_reason,
            },
            "settings": {
                **vars(settings),
                "confidence": CONFIDENCE,
                "resampled": "videos, with replacement; percentile interval",
                "calibration_error": f"{BINS} intervals of equal width",
                "boundary_tolerance": f"{TOLERANCE:g} of the diagonal",
                "every": self.options.every,
                "faces": None if self.options.faces is None else self.options.faces.to_json(),
                "rules": self.options.rules.to_json(),
                "video_score": self.options.judged_by,
            },
            "devices": {device.name: device.to_json(settings.threshold) for device in self.devices},
            "flips": [one.to_json() for one in self.flips],
            "baseline": {
                "path": self.baseline,
                "tolerance": self.tolerance,
                "worse": self.worse,
                "devices": [one.to_json() for one in self.against],
            }
            if self.against
            else None,
            "calibration": self.calibration,
        }


Progress = Callable[[str, int, Optional[int]], None]
"""What is being done, frames done and frames expected."""


def evaluate(
    material: Material,
    devices: Sequence[str],
    open_session: Callable[[str], Session],
    options: EvalOptions,
    output: Path,
    *,
    model_reason: str = "",
    checkpoint: Optional[Path] = None,
    progress: Progress = lambda what, done, total: None,
) -> Evaluation:
    """Runs devices over the data and takes their figures.

    Args:
        material: the data.
        devices: names as ``--device`` takes them, each once.
        open_session: opens one; it is closed here.
        options: how.
        output: its folder ``scores`` keeps what is done; a later call goes on from there.
        model_reason: why this model, for the record.
        checkpoint: the float weights, on which the scores of ``float`` depend.
        progress: called now and then.

    Raises:
        DataError: a device could not judge one frame.
        ToolkitError: a device cannot be used.
    """
    results: List[DeviceResult] = []
    model = digest = ""
    for wanted in devices:
        with open_session(wanted) as session:
            name = session.device_name
            if any(result.name == name for result in results):
                continue  # auto may mean one that was named too
            model, digest = str(session.artifact.path), model_sha256(session.artifact)
            about = {"model": digest}
            if name == "float" and checkpoint is not None:
                about["checkpoint"] = sha256(checkpoint)
            tables: Dict[Optional[Perturbation], Table] = {}
            notes: List[str] = []
            for change in (None, *options.changes):
                tables[change], remarks = _scored(
                    material, session, change, options, output, about, progress
                )
                where = "" if change is None else f"{change.name}: "
                notes += [where + remark for remark in dict.fromkeys(remarks)]
            reason = session.reason
            notes += session.incidents()
        results.append(_result(name, reason, tables, options, notes))
    if not results:
        raise DataError("No device was named", "", "--devices sim")
    first = results[0]
    return Evaluation(
        material,
        model,
        digest,
        model_reason,
        options,
        results,
        [
            flips((first.name, other.name), first.table, other.table, options.settings.threshold)
            for other in results[1:]
        ],
    )


def write_evaluation(found: Evaluation, output: Path) -> Dict[str, Any]:
    """Writes ``eval.csv``, ``videos.csv`` and, last, ``eval.json``.

    Returns:
        The content of ``eval.json``.
    """
    files = {}
    for name, text in ((FRAMES, frames_csv(found.tables)), (VIDEOS, videos_csv(found.tables))):
        write_text(output / name, text)
        files[name] = sha256(output / name)
    record = {**found.to_json(), "files": files}
    write_json(output / RECORD, record)
    return record


def _scored(
    material: Material,
    session: Session,
    change: Optional[Perturbation],
    options: EvalOptions,
    output: Path,
    about: Mapping[str, str],
    progress: Progress,
) -> Tuple[Table, List[str]]:
    name = session.device_name
    key = {
        **about,
        "version": __version__,
        "data": material.digest,
        "device": name,
        "preprocessing": session.artifact.preprocessing.to_json(),
        "every": options.every,
        "faces": None if options.faces is None else options.faces.to_json(),
        "change": None if change is None else [change.name, options.settings.seed],
    }
    cache = ScoreCache(cache_path(output / CACHE, name, change, key), key)
    title = name if change is None else f"{name}, {change.name}"
    try:
        rows, notes = score(
            material,
            session,
            cache,
            every=options.every,
            change=change,
            seed=options.settings.seed,
            faces=options.faces,
            threads=options.threads,
            progress=lambda done, total: progress(title, done, total),
        )
    finally:
        cache.close()
    table = make_table(material.clips, rows, options.judge)
    if np.isnan(table.column("probability")).all():
        reasons = sorted({row.reason or row.status for row in table.rows})
        raise DataError(
            f"The device {name} could not judge one frame of {material.name}",
            "; ".join(reasons[:3]) or "there are no frames",
            "check the data with deepfake-fpga run",
        )
    return table, notes


def _result(
    name: str,
    reason: str,
    tables: Mapping[Optional[Perturbation], Table],
    options: EvalOptions,
    notes: List[str],
) -> DeviceResult:
    parts, left_out = breakdown(tables[None], options.settings, options.by)
    perturbed = {
        change: measure(table, options.settings)
        for change, table in tables.items()
        if change is not None
    }
    own = measure(tables[None], options.settings)
    return DeviceResult(name, reason, tables[None], own, parts, left_out, perturbed, notes)


def _curves(table: Table) -> Dict[str, Any]:
    """ROC and reliability of frames and videos."""
    frames = table.column("probability")
    videos = np.array([video.probability for video in table.videos], np.float64)
    labels = np.array([video.fake for video in table.videos], bool)
    curves: Dict[str, Any] = {}
    for level, p, fake in (("frame", frames, table.fake), ("video", videos, labels)):
        p, fake = p[~np.isnan(p)], fake[~np.isnan(p)]
        points = None
        if fake.any() and not fake.all():
            _, false, true = roc(p, fake)
            keep = np.unique(np.linspace(0, len(false) - 1, CURVE_POINTS).round().astype(int))
            points = [[round(float(x), 6), round(float(y), 6)] for x, y in zip(false, true)]
            points = [points[i] for i in keep]
        bins = [
            [count, _rounded(mean), _rounded(share)] for count, mean, share in reliability(p, fake)
        ]
        curves[level] = {"roc": points, "reliability": bins}
    return curves


def _mistakes(table: Table, threshold: float, most: int = 20) -> List[Dict[str, Any]]:
    """The videos that are most wrong, worst first."""
    wrong = [
        video
        for video in table.videos
        if not np.isnan(video.probability) and (video.probability >= threshold) != video.fake
    ]
    wrong.sort(key=lambda video: -abs(video.probability - threshold))
    return [
        {
            "video": video.name,
            "label": "FAKE" if video.fake else "REAL",
            "fake_probability": round(video.probability, 6),
            "verdict": video.state.value,
        }
        for video in wrong[:most]
    ]


def _rounded(value: float) -> Optional[float]:
    return None if np.isnan(value) else round(value, 6)
