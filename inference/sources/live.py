"""What goes on without us: a stream or a camera that may be gone for a while and come back.

A connection that breaks is opened again, after waits that grow; numbers and times of frames go
on. After a silence that is too long the source ends with what it has.
"""

from __future__ import annotations

import abc
import contextlib
import functools
import threading
import time as clocks
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple

import numpy as np

from ..records import Frame, Status, VideoInfo
from .base import Read, Source, TimedRead
from .video import FALLBACK_RATE

TIME_BASE = Fraction(1, 90_000)

Picture = Tuple[Optional[float], Callable[[], np.ndarray]]
"""Seconds on the sender's clock (``None``: it has none), and a call that gives uint8 RGB."""


class LostError(Exception):
    """The connection is broken, or cannot be made; the text says how."""


@dataclass(frozen=True)
class LiveOptions:
    """How long to wait for what.

    Attributes:
        duration: seconds after the first frame at which to end; ``None`` for no end.
        silence: seconds without a frame after which the source is given up.
        timeout: seconds without data after which a connection counts as broken.
        first_wait: seconds before a connection is made again; doubled each time in vain.
        longest_wait: the most of these.
        clock: tells seconds.
    """

    duration: Optional[float] = None
    silence: float = 60.0
    timeout: float = 10.0
    first_wait: float = 0.5
    longest_wait: float = 10.0
    clock: Callable[[], float] = clocks.monotonic


class Connection(abc.ABC):
    """One open stream or camera.

    Attributes:
        rate: frames per second, if it says so.
        length: seconds in all; ``None`` where there is no end.
        damaged: how much of it could not be decoded so far.
    """

    rate: Optional[Fraction] = None
    length: Optional[float] = None
    damaged: int = 0

    @abc.abstractmethod
    def pictures(self) -> Iterator[Picture]:
        """The pictures as they come, up to the end.

        Raises:
            LostError: the connection broke.
        """

    @abc.abstractmethod
    def close(self) -> None:
        """Lets go of it."""


Connect = Callable[[], Connection]
"""Opens a connection; raises ``LostError``."""


class LiveSource(Source):
    """A stream or a camera.

    Args:
        name: what it is called in records and notes.
        kind: ``stream`` or ``camera``.
        connect: opens it, also again.
        options: how long to wait.

    Raises:
        LostError: it cannot be opened the first time.
    """

    live = True

    def __init__(self, name: str, kind: str, label: str, connect: Connect, options: LiveOptions):
        self.name, self.kind, self.notes, self.length = name, kind, [], None
        self._connect, self._options = connect, options
        self._stopped = threading.Event()
        self._first: Optional[Connection] = connect()
        rate = self._first.rate
        if rate is None:
            rate = FALLBACK_RATE
            self.notes.append(f"it states no frame rate; {rate} is assumed")
        self.realtime = self._first.length is None
        self.info = VideoInfo(Path(label), rate, TIME_BASE, Fraction(0), None, has_file=False)
        if self._first.length is not None:
            self.length = max(1, round(self._first.length * rate))

    def stop(self) -> None:
        """Ends the waiting."""
        self._stopped.set()

    def reads(self) -> Iterator[Read]:
        """The frames as they come; a connection that breaks is made again."""
        connection, self._first = self._first, None
        story = _Story(self._options)
        timeline = _Timeline(self)
        try:
            if connection is None:
                connection = self._again(story)
            while connection is not None:
                try:
                    for seconds, make in connection.pictures():
                        if self._stopped.is_set() or story.over():
                            return
                        read = timeline.place(seconds, make, connection, story.elapsed())
                        if read is None:
                            continue  # seen before the connection broke
                        if self._options.duration is not None and (
                            read.time >= self._options.duration
                        ):
                            return
                        story.came()
                        yield read
                        story.taken()
                    if timeline.complete(connection):
                        return
                    story.lost("the sender ended it")
                except LostError as error:
                    story.lost(str(error))
                finally:
                    story.damaged += connection.damaged
                    with contextlib.suppress(Exception):  # it is broken already
                        connection.close()
                timeline.reconnect()
                connection = self._again(story)
        finally:
            self.notes.extend(story.notes())

    def _again(self, story: _Story) -> Optional[Connection]:
        """A new connection; ``None`` when it is time to end."""
        wait = self._options.first_wait
        while True:
            left = story.patience()
            if left <= 0 or self._stopped.wait(min(wait, left)):
                return None
            wait = min(2 * wait, self._options.longest_wait)
            try:
                return self._connect()
            except LostError as error:
                story.reason = str(error)


class _Timeline:
    """Gives frames numbers and times that go on across connections."""

    def __init__(self, source: LiveSource) -> None:
        self._source = source
        self._index = 0
        self._last = -1
        self._first: Optional[float] = None  # seconds at the start of this connection
        self._offset = 0.0
        self._seen: Optional[float] = None

    def reconnect(self) -> None:
        """Begins anew with the sender's clock."""
        self._first = None

    def place(
        self, seconds: Optional[float], make: Callable[[], np.ndarray], by: Connection, now: float
    ) -> Optional[TimedRead]:
        """The read of the next frame; ``None`` for one of a file that was there before."""
        if by.length is not None and seconds is not None:
            # What has a length begins again from its start: go on behind what was seen.
            if self._seen is not None and seconds <= self._seen:
                return None
            self._seen = seconds
            if self._first is None and not self._index:
                self._offset = -seconds
            self._first = 0.0
        elif self._first is None:
            self._first = 0.0 if seconds is None else seconds
            self._offset = now - self._first
        at = now if seconds is None else seconds + self._offset
        pts = max(round(at / float(TIME_BASE)), self._last + 1)
        self._last = pts
        time = round(float(pts * TIME_BASE), 6)
        place = {
            "source": self._source.name,
            "index": self._index,
            "time": time,
            "video": self._source.info,
            "pts": pts,
        }
        self._index += 1
        return TimedRead(functools.partial(_frame, make, place), time)

    def complete(self, connection: Connection) -> bool:
        """Whether a connection that ended has given all there is."""
        if connection.length is None:
            return False
        spare = max(0.1, 2.5 / float(self._source.info.rate))
        return self._last * float(TIME_BASE) >= connection.length - spare


class _Story:
    """When frames came, and how often and how long none did."""

    def __init__(self, options: LiveOptions) -> None:
        self._options = options
        self._begin: Optional[float] = None
        self._latest = options.clock()
        self._gaps: List[float] = []
        self._gone = False
        self._ended = False
        self.reason = ""
        self.damaged = 0

    def elapsed(self) -> float:
        """Seconds since the first frame."""
        now = self._options.clock()
        self._begin = now if self._begin is None else self._begin
        return now - self._begin

    def over(self) -> bool:
        """Whether the time asked for has passed."""
        if self._begin is None or self._options.duration is None:
            return False
        return self.elapsed() >= self._options.duration

    def came(self) -> None:
        """Notes that a frame has come."""
        now = self._options.clock()
        if self._gone:
            self._gaps.append(now - self._latest)
            self._gone = False
        self._latest = now

    def taken(self) -> None:
        """Notes that it has been taken, however long that took: not the sender's silence."""
        self._latest = self._options.clock()

    def lost(self, reason: str) -> None:
        """Notes that the connection broke."""
        self._gone, self.reason = True, reason

    def patience(self) -> float:
        """Seconds that are left to wait for a frame."""
        now = self._options.clock()
        left = self._options.silence - (now - self._latest)
        if left <= 0:
            self._ended = True
        if self._begin is not None and self._options.duration is not None:
            left = min(left, self._options.duration - (now - self._begin))
        return left

    def notes(self) -> List[str]:
        """What there is to say at the end."""
        notes = []
        if self._gaps:
            times = "once" if len(self._gaps) == 1 else f"{len(self._gaps)} times"
            notes.append(
                f"it was gone {times}, {sum(self._gaps):.1f} s in all, "
                f"{max(self._gaps):.1f} s at the longest"
            )
        if self._ended:
            notes.append(
                f"given up after {self._options.silence:g} s without a frame: {self.reason}"
            )
        if self.damaged:
            notes.append(f"{self.damaged} packets could not be decoded")
        return notes


def _frame(make: Callable[[], np.ndarray], place: Dict[str, Any]) -> Frame:
    try:
        image = make()
    except (ValueError, MemoryError) as error:
        return Frame(image=None, status=Status.DECODE_ERROR, reason=str(error), **place)
    return Frame(image=image, **place)
