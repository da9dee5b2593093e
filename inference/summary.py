"""What a run comes to: counts, a verdict per source, speed by stage, accuracy against labels."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Dict, List, Optional, Sequence

from .labels import Accuracy
from .pipeline import STAGES, Meter
from .records import FrameResult, Status, Verdict, judge
from .sinks.base import Sink
from .sources.base import Source


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
        total: sum of their fake probabilities.
        reasons: why the others have none, with counts.
    """

    name: str
    kind: str
    frames: int = 0
    judged: int = 0
    fake: int = 0
    inherited: int = 0
    total: float = 0.0
    reasons: Dict[str, int] = field(default_factory=dict)

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

    @property
    def fake_probability(self) -> Optional[float]:
        """Mean over the judged frames; ``None`` without any."""
        return round(self.total / self.judged, 7) if self.judged else None

    def verdict(self, threshold: float) -> Verdict:
        """That of the mean; inconclusive where nothing could be judged."""
        return judge(self.fake_probability, threshold) or Verdict.INCONCLUSIVE

    @property
    def reason(self) -> str:
        """What the verdict rests on, or why there is none."""
        if self.judged == self.frames and self.frames:
            return f"mean of {self.judged} frames"
        if not self.frames:
            return "no frame was read"
        worst = max(self.reasons, key=lambda reason: self.reasons[reason])
        missing = f"{self.frames - self.judged} of {self.frames} frames not judged ({worst})"
        return f"mean of {self.judged} frames; {missing}" if self.judged else missing

    def to_json(self, threshold: float) -> Dict[str, Any]:
        """A JSON object."""
        return {
            "source": self.name,
            "kind": self.kind,
            "frames": self.frames,
            "judged": self.judged,
            "fake_frames": self.fake,
            "inherited_frames": self.inherited,
            "fake_probability": self.fake_probability,
            "verdict": self.verdict(threshold).value,
            "reason": self.reason,
        }


class Tally(Sink):
    """Counts results as they are written.

    Args:
        sources: those of the run.
        accuracy: compares verdicts with labels, if there are any.
    """

    def __init__(self, sources: Sequence[Source], accuracy: Optional[Accuracy] = None) -> None:
        self.statuses = dict.fromkeys((status.value for status in Status), 0)
        self.sources = [SourceSummary(source.name, source.kind) for source in sources]
        self.accuracy = accuracy
        self.devices: Dict[str, int] = {}

    def write(self, result: FrameResult, rendered: Any) -> None:
        """Counts one result."""
        self.statuses[result.status.value] += 1
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
        threshold: fake probability from which a verdict is FAKE.
        seconds: wall clock.
        meter: busy seconds per stage and batch slots.
        statuses: frames by status.
        sources: one entry per source.
        accuracy: against labels, if there were any.
        notes: what was found wrong on the way.
        outputs: paths written.
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
    threshold: float
    seconds: float
    meter: Meter
    statuses: Dict[str, int]
    sources: List[SourceSummary]
    accuracy: Optional[Accuracy]
    notes: List[str]
    outputs: List[str]

    @property
    def overall(self) -> SourceSummary:
        """All sources taken together."""
        whole = SourceSummary("all sources", "")
        for source in self.sources:
            whole.frames += source.frames
            whole.judged += source.judged
            whole.fake += source.fake
            whole.inherited += source.inherited
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
            "verdict": whole.verdict(self.threshold).value,
            "fake_probability": whole.fake_probability,
            "reason": whole.reason,
            "threshold": self.threshold,
            "frames": {"total": whole.frames, **self.statuses},
            "verdicts": {
                Verdict.FAKE.value: whole.fake,
                Verdict.REAL.value: whole.judged - whole.fake,
                "not_judged": whole.frames - whole.judged,
            },
            "sources": [source.to_json(self.threshold) for source in self.sources],
            "accuracy": None if self.accuracy is None else self.accuracy.to_json(),
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
        return record

    def _rate(self, stage: str) -> Optional[float]:
        seconds = self.meter.seconds[stage]
        return round(self.meter.done / seconds, 3) if seconds else None
