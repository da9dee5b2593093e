"""The records of a run as JSON Lines: one strict JSON object per frame, in order, as they come."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import IO, Any, Optional

from ..records import FrameResult
from .base import Sink

FLUSH_SECONDS = 1.0


class RecordSink(Sink):
    """Writes ``records.jsonl``.

    While the run lasts the file has ``.part`` in its name and can be followed; at the end, also
    that of a run that failed, it gets its name with every record written by then.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.partial = path.with_name(f"{path.stem}.part{path.suffix}")
        self._file: Optional[IO[str]] = None
        self._flushed = 0.0

    def open(self) -> None:
        """Makes the folder and starts the file."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self.partial.open("w", encoding="utf-8", newline="\n")
        self._flushed = time.monotonic()

    def write(self, result: FrameResult, rendered: Any) -> None:
        """Appends one line."""
        assert self._file is not None
        line = json.dumps(result.to_json(), ensure_ascii=False, allow_nan=False)
        self._file.write(line + "\n")
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
