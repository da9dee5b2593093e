"""The forms in which results can be had beside ``records.jsonl``, by the names a user types."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Any, Mapping, Tuple

from .arrays import MASKS, SCORES, ArraySink
from .base import Sink
from .database import DatabaseSink
from .run_lengths import RunLengthSink
from .table import TableSink


class Format(enum.Enum):
    """A form of the results."""

    CSV = "csv"
    SQLITE = "sqlite"
    NPY = "npy"
    RLE = "rle"
    RLE_LIST = "rle-list"

    @property
    def files(self) -> Tuple[str, ...]:
        """The names of its files in the output folder."""
        return _FILES[self]


_FILES = {
    Format.CSV: ("records.csv",),
    Format.SQLITE: ("records.sqlite",),
    Format.NPY: (MASKS, SCORES),
    Format.RLE: ("masks.rle.jsonl",),
    Format.RLE_LIST: ("masks.counts.jsonl",),
}


def sink_of(
    form: Format, output: Path, *, at_source: bool = True, about: Mapping[str, Any]
) -> Sink:
    """The sink that writes a form.

    Args:
        form: what is wanted.
        output: the folder.
        at_source: run lengths have the size of the pictures, else that of the network.
        about: what the database says of the run.
    """
    path = output / form.files[0]
    if form is Format.CSV:
        return TableSink(path)
    if form is Format.SQLITE:
        return DatabaseSink(path, about)
    if form is Format.NPY:
        return ArraySink(output)
    return RunLengthSink(path, at_source, strings=form is Format.RLE)
