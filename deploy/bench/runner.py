"""One device that is measured: what a single measurement of it is."""

from __future__ import annotations

import contextlib
import math
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Dict, List, Sequence, Tuple

import numpy as np

from ...inference.run import RunOptions, run
from ...inference.session import Prediction, Session
from ...inference.sources import Source
from .agreement import joined
from .contenders import Contender
from .machine import cores
from .material import Head
from .power import PowerMeter
from .rounds import Clock

Sources = Callable[[], Sequence[Source]]
"""Opens the frames that are measured with; called for every pass through the pipeline."""


@dataclass(frozen=True)
class Settings:
    """How much is measured.

    Attributes:
        rounds: of everything; medians are of these.
        threads: of one computation and of the pipeline.
        in_flight: batches given to a device before the first answer is waited for.
        seconds: that one measurement of one device should take.
        frames: through the pipeline, at most.
        sample: pictures for the reference device in each measurement.
        batches: of the sweep.
        thread_counts: of the sweep.
        threshold: fake probability from which a verdict is FAKE.
        memory: whether loading and memory are measured, in processes of their own.
    """

    rounds: int = 5
    threads: int = field(default_factory=cores)
    in_flight: int = 3
    seconds: float = 0.5
    frames: int = 256
    sample: int = 1
    batches: Tuple[int, ...] = ()
    thread_counts: Tuple[int, ...] = ()
    threshold: float = 0.5
    memory: bool = True

    def to_json(self) -> Dict[str, Any]:
        """A JSON object."""
        return {
            "rounds": self.rounds,
            "threads": self.threads,
            "in_flight": self.in_flight,
            "seconds": self.seconds,
            "frames": self.frames,
            "reference_sample": self.sample,
            "batch_sweep": list(self.batches),
            "thread_sweep": list(self.thread_counts),
        }


class Runner:
    """One contender, opened, with what it is measured on.

    Attributes:
        answer: to the frames of the first batches, for the comparison.
        latencies: seconds of single batches.
        rates: images/s, one value per round: ``images``, ``device``, ``end``.
        joules: per image, one value per round in which the board told its power.
        notes: what has to be known beside the figures.
    """

    def __init__(
        self,
        contender: Contender,
        session: Session,
        pictures: np.ndarray,
        sources: Sources,
        settings: Settings,
        clock: Clock,
    ) -> None:
        self.contender, self.session = contender, session
        self.settings, self._clock, self._sources = settings, clock, sources
        batch = session.batch
        parts = [pictures[at : at + batch] for at in range(0, len(pictures), batch)]
        self._batches = [part for part in parts if len(part) == batch] or [pictures[:batch]]
        self.answer: Prediction
        self.latencies: List[float] = []
        self.rates: Dict[str, List[float]] = {"images": [], "device": [], "end": []}
        self.joules: List[float] = []
        self.notes: List[str] = []
        self._count, self._frames = 1, 1

    @property
    def key(self) -> str:
        """Of the contender."""
        return self.contender.key

    def warm_up(self) -> None:
        """Answers the frames for the comparison, and finds how much fits one measurement."""
        slow = self.contender.name == "reference"
        self.session.run(self._batches[0])
        start = self._clock()
        parts = [
            self.session.run(batch) for batch in (self._batches[:1] if slow else self._batches)
        ]
        seconds = max((self._clock() - start) / len(parts), 1e-6)
        self.answer = joined(parts)
        fewest, most = (1, 10) if slow else (3, 200)
        self._count = min(max(fewest, math.ceil(self.settings.seconds / seconds)), most)
        longest = math.ceil(4 * self.settings.seconds / seconds) * self.session.batch
        self._frames = min(self.settings.frames, max(self.session.batch, longest))

    def one_by_one(self) -> None:
        """Some batches, nothing else under way."""
        busy, images = self.session.timings.device, 0
        for number in range(self._count):
            batch = self._batches[number % len(self._batches)]
            start = self._clock()
            self.session.run(batch)
            self.latencies.append(self._clock() - start)
            images += len(batch)
        spent = self.session.timings.device - busy
        if spent > 0:
            self.rates["device"].append(images / spent)

    def in_flight(self) -> None:
        """The same batches with several under way."""
        images = 0
        open_tickets: List[int] = []
        with self._power() as power:
            start = self._clock()
            for number in range(self._count):
                batch = self._batches[number % len(self._batches)]
                if len(open_tickets) >= max(1, self.settings.in_flight):
                    self.session.result(open_tickets.pop(0))
                open_tickets.append(self.session.submit(batch))
                images += len(batch)
            for ticket in open_tickets:
                self.session.result(ticket)
            seconds = max(self._clock() - start, 1e-9)
        self.rates["images"].append(images / seconds)
        if power is not None and power.mean is not None:
            self.joules.append(power.mean * seconds / images)
        elif power is not None and power.reason not in self.notes:
            self.notes.append(power.reason)

    def end_to_end(self) -> None:
        """From the files to the records, through every stage."""
        left, parts = self._frames, []
        for source in self._sources():
            parts.append(Head(source, left))
            left -= min(left, source.length or left)
            if not left:
                break
        with tempfile.TemporaryDirectory(prefix="deepfake-fpga-bench-") as folder:
            options = RunOptions(
                threads=self.settings.threads,
                in_flight=self.settings.in_flight,
                threshold=self.settings.threshold,
                pictures=False,
            )
            start = self._clock()
            summary = run(parts, self.session, Path(folder), options)
            seconds = max(self._clock() - start, 1e-9)
        self.rates["end"].append(summary.meter.done / seconds)

    def _power(self) -> Any:
        return PowerMeter() if self.contender.name == "card" else contextlib.nullcontext()
