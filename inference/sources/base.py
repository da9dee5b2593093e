"""The one interface of every source: its frames in order, each as a small piece of work.

Reading is split in two. What must happen in order (opening files, running a video decoder) is
done by the iterator of ``reads``; what may happen on any thread (decoding an image file, turning
a decoded frame into RGB) is done by the calls it yields. A source knows nothing of networks,
batches or threads.
"""

from __future__ import annotations

import abc
from typing import Callable, Iterator, List, Optional

from ..records import Frame

Read = Callable[[], Frame]
"""Finishes one frame; may be called on any thread. A frame that cannot be decoded is returned as
such, so anything this raises is a fault of the program."""


class Source(abc.ABC):
    """Something that has frames.

    Attributes:
        name: what the user named, for the summary.
        kind: ``images`` or ``video``.
        length: how many frames to expect; ``None`` where that is not known.
        notes: what was found wrong while reading; complete when ``reads`` has ended.
    """

    name: str
    kind: str
    length: Optional[int]
    notes: List[str]

    @abc.abstractmethod
    def reads(self) -> Iterator[Read]:
        """The frames in order, each as a call that finishes it.

        The iterator holds what is open; closing it (or using it up) releases that.
        """

    def __iter__(self) -> Iterator[Frame]:
        for read in self.reads():
            yield read()
