"""A text file that grows by one line per result and can be followed: what such sinks share."""

from __future__ import annotations

import abc
import os
import time
from io import FileIO
from pathlib import Path
from typing import Any, List, Optional

from ..records import FrameResult
from .base import Sink

FLUSH_SECONDS = 1.0
FLUSH_BYTES = 1 << 16


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
        self._file: Optional[FileIO] = None
        self._waiting: List[bytes] = []
        self._bytes = 0
        self._flushed = 0.0
        self._named = False

    @abc.abstractmethod
    def line(self, result: FrameResult, rendered: Any) -> str:
        """The line of one result, with its end."""

    def open(self) -> None:
        """Makes the folder and starts the file."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = FileIO(str(self.partial), "w")
        self._flushed = time.monotonic()
        self._add(self.header)

    def write(self, result: FrameResult, rendered: Any) -> None:
        """Appends one line."""
        self._add(self.line(result, rendered))
        if self._bytes > FLUSH_BYTES or time.monotonic() - self._flushed > FLUSH_SECONDS:
            self._flush()

    def close(self, complete: bool) -> None:
        """Gives the file its name."""
        if self._file is not None:
            try:
                self._flush()
            finally:
                self._file.close()
                self._file = None
                os.replace(str(self.partial), str(self.path))
                self._named = True

    def outputs(self) -> List[Path]:
        """The file."""
        return [self.path] if self._named else []

    def _add(self, text: str) -> None:
        # A file name that is no UTF-8 comes as lone surrogates; JSON has escapes for these.
        data = text.encode("utf-8", "backslashreplace")
        self._waiting.append(data)
        self._bytes += len(data)

    def _flush(self) -> None:
        """Writes the lines that wait, whole ones only: also where the disk is full."""
        assert self._file is not None
        start, data, done = self._file.tell(), memoryview(b"".join(self._waiting)), 0
        try:
            while done < len(data):
                done += self._file.write(data[done:])
        except OSError:
            whole = 0
            while self._waiting and whole + len(self._waiting[0]) <= done:
                whole += len(self._waiting.pop(0))
            self._bytes -= whole
            self._file.truncate(start + whole)
            self._file.seek(start + whole)
            raise
        self._waiting, self._bytes = [], 0
        self._flushed = time.monotonic()
