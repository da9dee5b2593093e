"""What a run comes to: counts, a verdict per source, speed by stage, accuracy against labels."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Dict, List, Optional, Sequence, Tuple

import numpy as np

from .labels import Accuracy
from .pipeline import STAGES, Meter
from .records import FrameResult, Status, Verdict
from .selection import Selection
from .sinks.base import Sink
from .sources.base import Source
from .verdicts import Rules, Scores, VideoVerdict, judge_pictures, judge_together, judge_video
from .verdicts.records import scores_of


@dataclass
class SourceSummary:
    """What is said of one source.

    Attributes:
        name: as the user named it.
        kind: ``images`` or ``video``.
        frames: frames seen.
        judged: frames with a verdict.
        fake: those whose verdict is FAKE.
        inherited: those judged that took the result of an earlier frame that looks the same.
        left_out: frames that the selection dropped by number or by rate.
        total: sum of their fake probabilities.
        reasons: why the others have none, with counts.
        clips: the frame scores of each video, by its name.
    """

    name: str
    kind: str
    frames: int = 0
    judged: int = 0
    fake: int = 0
    inherited: int = 0
    left_out: int = 0
    total: float = 0.0
    reasons: Dict[str, int] = field(default_factory=dict)
    clips: Dict[str, Scores] = field(default_factory=dict)

    def add(self, result: FrameResult) -> None:
        """Counts one frame."""
        self.frames += 1
        probability = result.fake_probability
        if probability is None:
            reason = f"{result.status.value}: {result.reason}"
            self.reasons[reason] = self.reasons.get(reason, 0) + 1
        else:
            self.judged += 1
            self.fake += result.verdict is Verdict.FAKE
            self.inherited += result.frame.same_as is not None
            self.total += probability
        # A file that cannot even be opened has no video; where only videos were named it is one.
        if result.frame.video is not None or self.kind == "video":
            scores = self.clips.setdefault(result.frame.source, Scores())
            for score in scores_of(result):
                scores.add(score)

    def parts(self, rules: Rules) -> List[Tuple[str, VideoVerdict]]:
        """Name and verdict of every video, and of the pictures (all else) taken together."""
        found = [(name, judge_video(scores, rules)) for name, scores in self.clips.items()]
        frames = self.frames - sum(verdict.frames for _, verdict in found)
        if frames > 0 or not found:
            probabilities = [scores.probabilities for scores in self.clips.values()]
            judged = self.judged - sum(verdict.judged for _, verdict in found)
            total = self.total - sum(float(np.nansum(p)) for p in probabilities)
            pictures = judge_pictures(frames, judged, total, self.reasons, rules)
            found.append((self.name, pictures))
        return found

    def verdict(self, rules: Rules) -> VideoVerdict:
        """That of the video, or of all there is taken together."""
        return judge_together(self.parts(rules))

    def to_json(self, rules: Rules) -> Dict[str, Any]:
        """A JSON object."""
        parts = self.parts(rules)
        mean = round(self.total / self.judged, 7) if self.judged else None
        record = {
            "source": self.name,
            "kind": self.kind,
            "frames": self.frames,
            "judged": self.judged,
            "fake_frames": self.fake,
            "inherited_frames": self.inherited,
            "left_out": self.left_out,
            "mean_fake_probability": mean,
            **judge_together(parts).to_json(),
        }
        if len(parts) > 1:
            record["parts"] = [{"source": name, **part.to_json()} for name, part in parts]
        return record


class Tally(Sink):
    """Counts results as they are written.

    Args:
        sources: those of the run.
        accuracy: compares verdicts with labels, if there are any.
    """

    def __init__(self, sources: Sequence[Source], accuracy: Optional[Accuracy] = None) -> None:
        always = (Status.OK, Status.DECODE_ERROR, Status.NO_RESULT)
        self.statuses = dict.fromkeys((status.value for status in always), 0)
        self.sources = [SourceSummary(source.name, source.kind) for source in sources]
        self.accuracy = accuracy
        self.devices: Dict[str, int] = {}

    def write(self, result: FrameResult, rendered: Any) -> None:
        """Counts one result."""
        status = result.status.value
        self.statuses[status] = self.statuses.get(status, 0) + 1
        self.sources[result.origin].add(result)
        if result.real is not None and result.frame.same_as is None:
            self.devices[result.device] = self.devices.get(result.device, 0) + 1
        if self.accuracy is not None:
            self.accuracy.add(result)


@dataclass(frozen=True)
class Summary:
    """The outcome of a run.

    Attributes:
        complete: whether every frame of every source was written.
        error: what ended it early; empty if nothing did.
        model: the compiled model.
        model_reason: why that one.
        device: the device taken.
        device_reason: why.
        devices: frames answered by each device; several where another one had to go on.
        batch: slots of one batch.
        threads: workers.
        rules: how frames became verdicts; their threshold is that of the frames, too.
        seconds: wall clock.
        meter: busy seconds per stage and batch slots.
        statuses: frames by status.
        sources: one entry per source.
        accuracy: against labels, if there were any.
        notes: what was found wrong on the way.
        outputs: paths written.
        selection: which frames were judged; ``None`` for all.
        faces: how faces were found, and why so; ``None`` where no faces were looked for.
        overlays: the overlay video of each video, by the name in the records.
        journal: the state of the journal of a collection.
    """

    complete: bool
    error: str
    model: str
    model_reason: str
    device: str
    device_reason: str
    devices: Dict[str, int]
    batch: int
    threads: int
    rules: Rules
    seconds: float
    meter: Meter
    statuses: Dict[str, int]
    sources: List[SourceSummary]
    accuracy: Optional[Accuracy]
    notes: List[str]
    outputs: List[str]
    overlays: Dict[str, str] = field(default_factory=dict)
    selection: Optional[Selection] = None
    faces: Optional[Dict[str, Any]] = None
    journal: Optional[Dict[str, Any]] = None

    @property
    def threshold(self) -> float:
        """The fake probability from which a frame's verdict is FAKE."""
        return self.rules.threshold

    @property
    def verdict(self) -> VideoVerdict:
        """All sources taken together: manipulated where any is, authentic where all are."""
        return judge_together([(s.name, s.verdict(self.rules)) for s in self.sources])

    @property
    def overall(self) -> SourceSummary:
        """The counts of all sources taken together."""
        whole = SourceSummary("all sources", "")
        for source in self.sources:
            whole.frames += source.frames
            whole.judged += source.judged
            whole.fake += source.fake
            whole.inherited += source.inherited
            whole.left_out += source.left_out
            whole.total += source.total
            for reason, count in source.reasons.items():
                whole.reasons[reason] = whole.reasons.get(reason, 0) + count
        return whole

    @property
    def frames_per_second(self) -> float:
        """Frames written per second of wall clock."""
        return self.meter.done / self.seconds if self.seconds else 0.0

    def to_json(self) -> Dict[str, Any]:
        """The content of ``summary.json``; strict JSON."""
        whole = self.overall
        record: Dict[str, Any] = {
            "complete": self.complete,
            "error": self.error or None,
            **self.verdict.to_json(),
            "threshold": self.threshold,
            "rules": self.rules.to_json(),
            "frames": {"total": whole.frames, **self.statuses},
            "verdicts": {
                Verdict.FAKE.value: whole.fake,
                Verdict.REAL.value: whole.judged - whole.fake,
                "not_judged": whole.frames - whole.judged,
            },
            "sources": [source.to_json(self.rules) for source in self.sources],
            "accuracy": None if self.accuracy is None else self.accuracy.to_json(),
            "selection": None
            if self.selection is None
            else {
                **self.selection.to_json(),
                "left_out": whole.left_out,
                "inherited": whole.inherited,
            },
            "faces": self.faces,
            "model": self.model,
            "model_reason": self.model_reason,
            "device": self.device,
            "device_reason": self.device_reason,
            "frames_by_device": self.devices,
            "threads": self.threads,
            "batch": {
                "size": self.batch,
                "submitted": self.meter.batches,
                "fill": None if self.meter.fill is None else round(self.meter.fill, 6),
            },
            "seconds": {
                "total": round(self.seconds, 6),
                **{stage: round(self.meter.seconds[stage], 6) for stage in STAGES},
            },
            "frames_per_second": {
                "total": round(self.frames_per_second, 3),
                **{stage: self._rate(stage) for stage in STAGES},
            },
            "notes": self.notes,
            "outputs": self.outputs,
        }
        if self.journal is not None:
            record["journal"] = self.journal
        return record

    def _rate(self, stage: str) -> Optional[float]:
        seconds = self.meter.seconds[stage]
        return round(self.meter.done / seconds, 3) if seconds else None
