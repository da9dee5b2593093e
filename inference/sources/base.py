"""The one interface of every source: its frames in order, each as a small piece of work.

Reading is split in two. What must happen in order (opening files, running a video decoder) is
done by the iterator of ``reads``; what may happen on any thread (decoding an image file, turning
a decoded frame into RGB) is done by the calls it yields. A source knows nothing of networks,
batches or threads.
"""

from __future__ import annotations

import abc
from pathlib import Path
from typing import Callable, Iterable, Iterator, List, Optional

from ..records import Frame, Status

Read = Callable[[], Frame]
"""Finishes one frame; may be called on any thread. A frame that cannot be decoded is returned as
such, so anything this raises is a fault of the program."""

MOST_NOTES = 50
"""Notes a collection keeps; a million files may all have the same to say."""


class TimedRead:
    """A read whose frame's time is known before it is made, so that it can be left out unmade.

    Args:
        call: finishes the frame.
        time: seconds from the start of the video.
    """

    __slots__ = ("_call", "time")

    def __init__(self, call: Read, time: float) -> None:
        self._call = call
        self.time = time

    def __call__(self) -> Frame:
        """The frame."""
        return self._call()


class Source(abc.ABC):
    """Something that has frames.

    Attributes:
        name: what the user named, for the summary.
        kind: ``images``, ``video``, ``mixed`` (files of both kinds), ``stream`` or ``camera``.
        length: how many frames to expect; ``None`` where that is not known.
        notes: what was found wrong while reading; complete when ``reads`` has ended.
        reason: why the user's word was taken for this; empty where there was no choice.
        live: whether reading may wait for the outside world; read on a thread of its own.
        chained: whether frames may refer to earlier ones, so that of those that wait all are left
            out or none; ``forget`` is called then.
        left_out: frames that a selection by number or rate has dropped so far.
        realtime: whether it goes on while nobody reads: of frames that come faster than they are
            taken the oldest are left out, and counted in the notes.
    """

    name: str
    kind: str
    length: Optional[int]
    notes: List[str]
    reason: str = ""
    live: bool = False
    chained: bool = False
    realtime: bool = False
    left_out: int = 0

    @abc.abstractmethod
    def reads(self) -> Iterator[Read]:
        """The frames in order, each as a call that finishes it.

        The iterator holds what is open; closing it (or using it up) releases that.
        """

    def places(self) -> Iterable[Path]:
        """The files and folders it reads from, as far as they are known before reading."""
        return ()

    def stop(self) -> None:
        """Asks a source that waits for the outside world to end soon; from any thread."""
        return

    def forget(self) -> None:
        """Tells that frames have been left out, so that no later one refers to them."""
        return

    def __iter__(self) -> Iterator[Frame]:
        for read in self.reads():
            yield read()


class Collection(Source):
    """A source that opens other sources (videos among its files) while it is read.

    Attributes:
        each: called with every source it opens; what it returns is read instead.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.notes = []
        self.length = None
        self.each: Callable[[Source], Source] = _itself

    def read_part(self, part: Source) -> Iterator[Read]:
        """The reads of one source opened on the way; its notes become those of the whole."""
        part = self.each(part)
        try:
            yield from part.reads()
        finally:
            for note in part.notes:
                self.note(f"{part.name}: {note}")

    def note(self, text: str) -> None:
        """Keeps a note; after ``MOST_NOTES`` only how many more there were."""
        if len(self.notes) < MOST_NOTES:
            self.notes.append(text)
            return
        if len(self.notes) == MOST_NOTES:
            self.notes.append("")
            self._further = 0
        self._further += 1
        self.notes[MOST_NOTES] = f"{self._further} more notes like these"


def lost(source: str, reason: str) -> Read:
    """The read of a file that cannot even be opened."""
    frame = Frame(source, 0, None, None, Status.DECODE_ERROR, reason)
    return lambda: frame


def _itself(source: Source) -> Source:
    return source
