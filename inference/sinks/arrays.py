"""What the network gave, as the two NumPy files that the DeepYNet scripts write and read.

The file grows row by row: its header has room for the final length and is brought up to date now
and then, so that memory stays flat and a file cut short can still be loaded.
"""

from __future__ import annotations

import contextlib
import os
import time
from io import FileIO
from pathlib import Path
from typing import Any, List, Optional, Tuple

import numpy as np

from ..records import FrameResult
from .base import Sink
from .lines import FLUSH_SECONDS

MASKS = "segmentation_output_array.npy"
SCORES = "classification_output_array.npy"

_HEADER = 128
"""Bytes of a header, a multiple of 64; enough for five dimensions of any length."""


class ArraySink(Sink):
    """Writes the logits of every frame as ``[n, H, W, classes]`` and ``[n, 1]``, float64.

    Row ``i`` belongs to record ``i``; it is NaN where the frame was not judged. The sigmoid of
    the second array is the probability of REAL.

    Args:
        folder: where the files go.
    """

    needs_logits = True
    renders = True

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.notes: List[str] = []
        self._early = 0
        self._masks: Optional[GrowingArray] = None
        self._scores: Optional[GrowingArray] = None

    def render(self, result: FrameResult) -> List[Optional[np.ndarray]]:
        """The mask logits of each part, float64 ``[H, W, classes]``; ``None`` where none are."""
        return [_values(part) for part in result.parts]

    def write(self, result: FrameResult, rendered: Any) -> None:
        """Appends a row for each part; the first that was judged tells the shapes."""
        for part, values in zip(result.parts, rendered):
            self._write(part, values)

    def _write(self, result: FrameResult, rendered: Optional[np.ndarray]) -> None:
        if rendered is not None and self._masks is None:
            self._masks = GrowingArray(self.folder / MASKS, rendered.shape)
            self._scores = GrowingArray(self.folder / SCORES, (1,))
            for _ in range(self._early):
                self._append(None, None)
        if self._masks is None:
            self._early += 1
        else:
            self._append(rendered, None if result.logits is None else result.logits.classifier)

    def _append(self, masks: Optional[np.ndarray], score: Optional[float]) -> None:
        assert self._masks is not None
        assert self._scores is not None
        if masks is None or score is None:
            masks, score = np.full(self._masks.shape, np.nan), np.nan
        self._masks.append(masks)
        self._scores.append(np.array([score]))

    def close(self, complete: bool) -> None:
        """Gives the files their names."""
        arrays = [array for array in (self._masks, self._scores) if array is not None]
        rows = min((array.rows for array in arrays), default=0)
        if not arrays:
            self.notes.append(f"{MASKS} and {SCORES} are not written: nothing was judged")
        with contextlib.ExitStack() as closing:  # each is closed, whatever becomes of the other
            for array in reversed(arrays):
                closing.callback(array.close, rows)

    def outputs(self) -> List[Path]:
        """The two files."""
        return [array.path for array in (self._masks, self._scores) if array and array.named]


def _values(result: FrameResult) -> Optional[np.ndarray]:
    logits = result.logits
    if logits is None or not result.judged:
        return None
    values = np.multiply(logits.mask, logits.scale, dtype=np.float64, order="C")
    return np.asarray(values)


class GrowingArray:
    """A ``.npy`` file of float64 rows; it has a temporary name until it is closed.

    Args:
        path: the file.
        shape: of one row.

    Attributes:
        rows: how many there are so far, whole ones.
        named: whether it has its name.
    """

    def __init__(self, path: Path, shape: Tuple[int, ...]) -> None:
        self.path, self.shape = path, shape
        self.rows = 0
        self.named = False
        self.partial = path.with_name(f"{path.stem}.part{path.suffix}")
        path.parent.mkdir(parents=True, exist_ok=True)
        self._updated = time.monotonic()
        # Without a buffer nothing is left in one that a full disk would refuse again at the end.
        self._file: FileIO = FileIO(str(self.partial), "w")
        self._write(header((0, *shape)))

    def append(self, row: np.ndarray) -> None:
        """Adds a row, float64 of ``shape``."""
        self._write(np.ascontiguousarray(row, "<f8").tobytes())
        self.rows += 1
        if time.monotonic() - self._updated > FLUSH_SECONDS:
            self._count()

    def close(self, rows: int) -> None:
        """Ends the file after its first ``rows`` rows and gives it its name."""
        try:
            self.rows = min(self.rows, rows)
            self._file.truncate(_HEADER + 8 * self.rows * int(np.prod(self.shape)))
            self._count()
        finally:
            self._file.close()
            os.replace(str(self.partial), str(self.path))
            self.named = True

    def _count(self) -> None:
        """Brings the header to the rows that are there, so that the file can be loaded."""
        self._file.seek(0)
        self._write(header((self.rows, *self.shape)))
        self._file.seek(0, os.SEEK_END)
        self._updated = time.monotonic()

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[self._file.write(view) :]


def header(shape: Tuple[int, ...]) -> bytes:
    """The 128 bytes before the data of a ``.npy`` file of float64, format version 1.0."""
    text = repr({"descr": "<f8", "fortran_order": False, "shape": shape})
    start = b"\x93NUMPY\x01\x00" + (_HEADER - 10).to_bytes(2, "little")
    return start + text.encode("ascii").ljust(_HEADER - 11) + b"\n"
