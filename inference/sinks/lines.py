"""A text file that grows by one line per result and can be followed: what such sinks share."""

from __future__ import annotations

import abc
import os
import time
from pathlib import Path
from typing import IO, Any, List, Optional

from ..records import FrameResult
from .base import Sink

FLUSH_SECONDS = 1.0


class LineSink(Sink):
    """Writes a file of lines.

    While the run lasts the file has ``.part`` in its name and can be followed; at the end, also
    that of a run that failed, it gets its name with every line written by then.

    Args:
        path: the file.
    """

    header = ""
    """Stands before the first line."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.partial = path.with_name(f"{path.stem}.part{path.suffix}")
        self._file: Optional[IO[str]] = None
        self._flushed = 0.0
        self._named = False

    @abc.abstractmethod
    def line(self, result: FrameResult, rendered: Any) -> str:
        """The line of one result, with its end."""

    def open(self) -> None:
        """Makes the folder and starts the file."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # A file name that is no UTF-8 comes as lone surrogates; JSON has escapes for these.
        self._file = self.partial.open("w", encoding="utf-8", errors="backslashreplace", newline="")
        self._file.write(self.header)
        self._flushed = time.monotonic()

    def write(self, result: FrameResult, rendered: Any) -> None:
        """Appends one line."""
        assert self._file is not None
        self._file.write(self.line(result, rendered))
        now = time.monotonic()
        if now - self._flushed > FLUSH_SECONDS:
            self._file.flush()
            self._flushed = now

    def close(self, complete: bool) -> None:
        """Gives the file its name."""
        if self._file is not None:
            try:
                self._file.close()
            finally:
                self._file = None
                os.replace(str(self.partial), str(self.path))
                self._named = True

    def outputs(self) -> List[Path]:
        """The file."""
        return [self.path] if self._named else []
