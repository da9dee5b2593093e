"""The one interface of every sink: entered, given each result in order, left.

The work of a sink is split like that of a source: ``render`` draws and encodes on any thread,
``write`` puts the outcome in its place, in order and on one thread. Whoever enters a sink leaves
it; leaving with an error keeps what has been written and marks nothing as complete.
"""

from __future__ import annotations

import abc
from pathlib import Path
from types import TracebackType
from typing import Any, List, Optional, Sequence, Type

from ..records import FrameResult


class Sink(abc.ABC):
    """Something that keeps results.

    Attributes:
        needs_image: whether ``render`` or ``write`` look at ``result.frame.image``.
        needs_logits: whether they look at ``result.logits``.
        renders: whether ``render`` does anything.
        notes: what could not be kept as it should be; complete after ``close``.
    """

    needs_image = False
    needs_logits = False
    renders = False
    notes: Sequence[str] = ()

    def open(self) -> None:
        """Prepares for the first result."""
        return

    def render(self, result: FrameResult) -> Any:
        """Does what takes time and needs no order; may be called on several threads at once."""
        return None

    @abc.abstractmethod
    def write(self, result: FrameResult, rendered: Any) -> None:
        """Keeps one result; called in order. ``rendered`` is what ``render`` made of it."""

    def close(self, complete: bool) -> None:
        """Brings files to their end and to their names.

        Args:
            complete: whether all results have been written.
        """
        return

    def outputs(self) -> List[Path]:
        """The files and folders that are there after ``close``."""
        return []

    def __enter__(self) -> Sink:
        self.open()
        return self

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        self.close(complete=error is None)


class Keeper(Sink):
    """A sink that keeps something of each source for the end of the run.

    A run that may be interrupted stores it with the results of the source, and gives it back to
    the keeper of the run that comes to the end.

    Attributes:
        file: what the stored form is called.
    """

    file: str

    @abc.abstractmethod
    def save(self, source: str) -> Optional[bytes]:
        """What is kept of a source all of whose results have been written; ``None`` for nothing."""

    @abc.abstractmethod
    def load(self, source: str, data: bytes) -> None:
        """Takes back what ``save`` gave, unless there is something of the source already."""
