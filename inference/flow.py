"""How the threads of a pipeline hand over work, and how all of them come to an end.

Stages are numbered in the order of the flow. Every wait looks now and then whether its stage
should still wait, so none lasts for ever; what the stages do is not known here.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from typing import Any, Callable, Generic, Iterator, Optional, TypeVar

T = TypeVar("T")

POLL = 0.05
"""Seconds after which a waiting stage looks whether it should still wait."""


class StoppedError(Exception):
    """The stage has nothing more to do."""


class Flow:
    """What failed first, and who may still work."""

    def __init__(self, grace: float) -> None:
        self.error: Optional[BaseException] = None
        self._grace = grace
        self._lock = threading.Lock()
        self._failed = 0
        self._deadline = 0.0

    def fail(self, stage: int, error: BaseException) -> None:
        """Ends ``stage`` and all before it; the first error is the one reported."""
        with self._lock:
            # The error comes last: whoever sees it, without the lock, sees the rest as well.
            self._failed = max(self._failed, stage)
            if self.error is None:
                self._deadline = time.monotonic() + self._grace
                self.error = error

    def left(self) -> float:
        """Seconds until even the last stage has to end."""
        return max(0.0, self._deadline - time.monotonic())

    def expired(self, more: float) -> bool:
        """Whether something failed and ``more`` seconds have passed since the grace."""
        return self.error is not None and time.monotonic() > self._deadline + more

    def check(self, stage: int) -> None:
        """Returns while ``stage`` should go on.

        Raises:
            StoppedError: it should not.
        """
        if self.error is not None and (stage <= self._failed or not self.left()):
            raise StoppedError


class Job(Generic[T]):
    """A call that some worker makes and one stage waits for."""

    __slots__ = ("_call", "_done", "_error", "_value")

    def __init__(self, call: Callable[[], T]) -> None:
        self._call = call
        self._done = threading.Lock()
        self._done.acquire()
        self._error: Optional[BaseException] = None
        self._value: Any = None

    def run(self) -> None:
        """Makes the call, on whatever thread this is."""
        try:
            self._value = self._call()
        except BaseException as error:  # raised again where the job is waited for
            self._error = error
        finally:
            self._done.release()

    def wait(self, flow: Flow, stage: int) -> None:
        """Blocks until the call is made, as long as ``stage`` should go on."""
        while not self._done.acquire(timeout=POLL):
            flow.check(stage)

    def value(self) -> T:
        """What the call returned; raises what it raised."""
        if self._error is not None:
            raise self._error
        value: T = self._value
        return value


class Channel(Generic[T]):
    """A bounded queue into one stage, with an end, that nobody waits on for ever."""

    _END = object()

    def __init__(self, capacity: int, flow: Flow, reader: int) -> None:
        self._queue: queue.Queue[Any] = queue.Queue(max(1, capacity))
        self._flow = flow
        self._reader = reader
        self._left = False

    def put(self, item: Any, stage: int) -> None:
        """Waits for room as long as ``stage`` should go on."""
        while True:
            self._flow.check(stage)
            if self._left:
                raise StoppedError
            try:
                self._queue.put(item, timeout=POLL)
                return
            except queue.Full:
                continue

    def __len__(self) -> int:
        """About how many items wait."""
        return self._queue.qsize()

    def leave(self) -> None:
        """Tells the writer that nobody reads any more."""
        self._left = True

    def end(self) -> None:
        """Tells the reader that nothing follows, if there still is one."""
        with contextlib.suppress(StoppedError):
            self.put(self._END, self._reader)

    def drain(self) -> Iterator[T]:
        """The items up to the end."""
        while True:
            self._flow.check(self._reader)
            try:
                item = self._queue.get(timeout=POLL)
            except queue.Empty:
                continue
            if item is self._END:
                return
            yield item
