"""Several sources as one flow: files one after the other, live sources beside them.

Each live source is read on a thread of its own, so that one that is silent holds up no other.
The order within a source is kept; between sources whatever is there first comes first.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from typing import Deque, Dict, Generator, Iterable, List, Optional, Sequence, Tuple

from .base import Read, Source

IDLE = 0.2
"""Seconds without a frame after which ``None`` tells that nothing comes for now."""

AHEAD = 16
"""Frames of a live source that wait to be taken."""

Item = Tuple[int, Read]


def together(sources: Iterable[Source]) -> Generator[Optional[Item], None, None]:
    """The reads of all sources, each with the position of its source.

    Between the frames of live sources ``None`` comes now and then, when nothing else does, so
    that whoever reads can look around. Closing the iterator ends everything. Sources that are no
    sequence are taken one by one as they are wanted; none of them may be live.

    Raises:
        Exception: what a source raised, after the frames that came before.
    """
    if not isinstance(sources, Sequence):
        yield from _in_turn(enumerate(sources))
        return
    files = [pair for pair in enumerate(sources) if not pair[1].live]
    live = [pair for pair in enumerate(sources) if pair[1].live]
    if not live:
        yield from _in_turn(files)
        return
    with contextlib.closing(_in_turn(files)) as rest, contextlib.closing(_Lanes(live)) as lanes:
        more = True
        while True:
            item = lanes.take(0 if more else IDLE)
            if item is not None:
                yield item
            if more:
                following = next(rest, None)
                more = following is not None
                if following is not None:
                    yield following
            elif item is None:
                if lanes.ended:
                    return
                yield None


def _in_turn(sources: Iterable[Tuple[int, Source]]) -> Generator[Item, None, None]:
    for origin, source in sources:
        with contextlib.closing(_generator(source)) as reads:
            for read in reads:
                yield origin, read


def _generator(source: Source) -> Generator[Read, None, None]:
    """The source's reads as something that can be closed, whatever kind of iterator it is."""
    yield from source.reads()


class _Lanes:
    """A thread and a short queue for each live source."""

    def __init__(self, sources: Sequence[Tuple[int, Source]]) -> None:
        self._sources = dict(sources)
        self._queues: Dict[int, Deque[Read]] = {origin: deque() for origin in self._sources}
        self._dropped = dict.fromkeys(self._sources, 0)
        self._running = set(self._sources)
        self._errors: Dict[int, BaseException] = {}
        self._changed = threading.Condition()
        self._stopped = False
        self._turn: List[int] = list(self._sources)
        self._threads = [
            threading.Thread(target=self._pump, args=pair, name=f"live-{pair[0]}", daemon=True)
            for pair in sources
        ]
        for thread in self._threads:
            thread.start()

    @property
    def ended(self) -> bool:
        """Whether every source has ended and everything has been taken."""
        with self._changed:
            return not self._running and not any(self._queues.values()) and not self._errors

    def take(self, wait: float) -> Optional[Item]:
        """The next frame of whichever source has one, in turn; ``None`` after ``wait`` seconds."""
        limit = time.monotonic() + wait
        with self._changed:
            while True:
                for origin in self._turn:
                    queue = self._queues[origin]
                    if queue:
                        self._turn.remove(origin)
                        self._turn.append(origin)
                        self._changed.notify_all()
                        return origin, queue.popleft()
                    if origin in self._errors:
                        raise self._errors.pop(origin)
                left = limit - time.monotonic()
                if left <= 0 or not self._running:
                    return None
                self._changed.wait(left)

    def close(self) -> None:
        """Ends all threads; one that sits in a call that cannot be interrupted is left behind."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        for source in self._sources.values():
            source.stop()
        limit = time.monotonic() + IDLE
        for thread in self._threads:
            thread.join(max(0.0, limit - time.monotonic()))

    def _pump(self, origin: int, source: Source) -> None:
        error: Optional[BaseException] = None
        try:
            with contextlib.closing(_generator(source)) as reads:
                for read in reads:
                    if not self._put(origin, source, read):
                        break
        except BaseException as problem:  # raised again where the frames are taken
            error = problem
        with self._changed:
            if self._dropped[origin]:
                source.notes.append(
                    f"{self._dropped[origin]} frames came faster than they could be judged and "
                    "were left out"
                )
            if error is not None and not self._stopped:
                self._errors[origin] = error
            self._running.discard(origin)
            self._changed.notify_all()

    def _put(self, origin: int, source: Source, read: Read) -> bool:
        queue = self._queues[origin]
        with self._changed:
            if source.realtime and len(queue) >= AHEAD:
                if source.chained:
                    self._dropped[origin] += len(queue) + 1
                    queue.clear()
                    source.forget()
                    return not self._stopped
                queue.popleft()
                self._dropped[origin] += 1
            while len(queue) >= AHEAD and not self._stopped:
                self._changed.wait()
            queue.append(read)
            self._changed.notify_all()
            return not self._stopped
