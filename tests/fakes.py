"""Stand-ins for tests: sources, sessions and sinks whose answers are known.

A frame's number is painted into its picture, and the session reads it back, so a result that
belongs to another frame is noticed.
"""

from __future__ import annotations

import functools
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Callable, Dict, Iterator, List, Optional, cast

import numpy as np

from deepfake_fpga.inference.records import Frame, FrameResult, Status
from deepfake_fpga.inference.session import Prediction, Session, Timings
from deepfake_fpga.inference.sinks import Sink
from deepfake_fpga.inference.sources import Source
from deepfake_fpga.preprocessing import Preprocessing

SIZE = 32


class PaintedSource(Source):
    """Frames ``first`` to ``first + count - 1``; those in ``broken`` cannot be decoded."""

    kind = "images"

    def __init__(self, count: int, first: int = 0, broken: Any = (), name: str = "painted") -> None:
        self.name, self.length, self.notes = name, count, []
        self.first, self.broken = first, set(broken)
        self.before: Callable[[int], None] = lambda number: None
        self.reading: Callable[[int], None] = lambda number: None
        self.closed = False

    def reads(self) -> Iterator[Any]:
        try:
            for number in range(self.first, self.first + cast(int, self.length)):
                self.before(number)
                yield functools.partial(self.frame, number)
        finally:
            self.closed = True

    def frame(self, number: int) -> Frame:
        self.reading(number)
        if number in self.broken:
            return Frame(self.name, number, None, None, Status.DECODE_ERROR, "painted over")
        image = np.zeros((SIZE, SIZE, 3), np.uint8)
        image[0, 0] = (number // 256 % 256, number % 256, 7)
        return Frame(self.name, number, number / 10, image)


class FakeSession:
    """Answers frame ``n`` with ``real = n / 65536`` and a mask of ``n % 50`` pixels."""

    def __init__(self, batch: int = 8, size: int = SIZE) -> None:
        self.batch, self.device_name, self.reason = batch, "fake", "for a test"
        self.artifact = SimpleNamespace(
            preprocessing=Preprocessing(height=size, width=size), path=Path("fake.xmodel")
        )
        self.timings = Timings()
        self.sizes: List[int] = []
        self.open: Dict[int, np.ndarray] = {}
        self.most_open = 0
        self.on_submit: Callable[[int], None] = lambda ticket: None
        self.on_result: Callable[[int], None] = lambda ticket: None
        self.reals: Optional[Callable[[np.ndarray], np.ndarray]] = None

    def submit(self, images: np.ndarray) -> int:
        ticket = len(self.sizes)
        self.on_submit(ticket)
        assert 1 <= len(images) <= self.batch
        self.sizes.append(len(images))
        self.open[ticket] = images
        self.most_open = max(self.most_open, len(self.open))
        return ticket

    def result(self, ticket: int) -> Prediction:
        self.on_result(ticket)
        images = self.open.pop(ticket)
        numbers = images[:, 0, 0, 0].astype(int) * 256 + images[:, 0, 0, 1]
        mask = np.zeros(images.shape[:3], np.uint8)
        for slot, number in enumerate(numbers):
            mask[slot].reshape(-1)[: number % 50] = 1
        real = (numbers / 65536).astype(np.float32)
        if self.reals is not None:
            real = self.reals(images)
        return Prediction(mask, real, np.zeros(0, np.int8))

    def incidents(self) -> List[str]:
        return []

    def as_session(self) -> Session:
        return cast(Session, self)


class ListSink(Sink):
    """Keeps results in a list."""

    renders = True
    needs_image = False

    def __init__(self) -> None:
        self.results: List[FrameResult] = []
        self.rendered: List[Any] = []
        self.threads: set[int] = set()
        self.on_open: Callable[[], None] = lambda: None
        self.on_render: Callable[[FrameResult], None] = lambda result: None
        self.on_write: Callable[[FrameResult], None] = lambda result: None
        self.on_close: Callable[[], None] = lambda: None
        self.closed: Optional[bool] = None

    def open(self) -> None:
        self.on_open()

    def render(self, result: FrameResult) -> Any:
        self.threads.add(threading.get_ident())
        self.on_render(result)
        return result.frame.index

    def write(self, result: FrameResult, rendered: Any) -> None:
        self.on_write(result)
        self.results.append(result)
        self.rendered.append(rendered)

    def close(self, complete: bool) -> None:
        self.closed = complete
        self.on_close()
