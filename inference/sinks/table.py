"""The records of a run as CSV (RFC 4180): a header, then one row per frame or face, in order."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any, List

from ..records import FIELDS, FrameResult
from .lines import LineSink


class TableSink(LineSink):
    """Writes ``records.csv``: the fields of the records, empty where a record has ``null``.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.header = row(list(FIELDS))

    def line(self, result: FrameResult, rendered: Any) -> str:
        """A row for each part."""
        records = [part.to_json() for part in result.parts]
        return "".join(row([record[field] for field in FIELDS]) for record in records)


def row(values: List[Any]) -> str:
    """A row with its end; numbers read back as the same floats, true and false as in JSON."""
    buffer = io.StringIO()
    words = [str(value).lower() if isinstance(value, bool) else value for value in values]
    csv.writer(buffer, lineterminator="\r\n").writerow(words)
    return buffer.getvalue()
