"""Boxes from a file, for who has a detector of their own: JSON Lines or CSV.

A line of JSON Lines is ``{"frame": 12, "box": [x0, y0, x1, y1], "id": "anna"}``; a CSV has the
columns ``frame,x0,y0,x1,y1`` and, if wanted, ``id``. Both may have ``source``, the file's name, for
runs over several; pixels are those of the frame, whose numbers count from 0.
"""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Tuple

import numpy as np

from ...errors import FormatError, MissingError
from ..records import Frame
from .base import Box, Detection, Detector

Key = Tuple[str, int]


class BoxesDetector(Detector):
    """Answers from a file; what is not in it is not there.

    Identities are those of the file, numbered from 1 in the order in which they come; boxes
    without any are followed like those of other detectors.

    Args:
        path: the file.

    Raises:
        MissingError: it is not there.
        FormatError: a line cannot be understood.
    """

    name = "boxes"
    every_frame = True

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise MissingError(f"There is no file of boxes {path}", "", "check --face-boxes")
        self._found: Dict[Key, List[Detection]] = {}
        self.names: List[str] = []
        """The identities; the first has number 1."""
        try:
            lines = list(_lines(self.path))
        except (OSError, ValueError, csv.Error) as error:
            raise FormatError(f"The boxes in {path} cannot be read", str(error)) from error
        named = 0
        for number, line in lines:
            try:
                key, one = self._entry(line)
            except (KeyError, TypeError, ValueError) as error:
                raise FormatError(
                    f"Line {number} of {path} is no box",
                    f"{type(error).__name__}: {error}",
                    'write {"frame": 0, "box": [x0, y0, x1, y1]} on each line, or a CSV with the '
                    "columns frame,x0,y0,x1,y1",
                ) from error
            named += one.identity is not None
            self._found.setdefault(key, []).append(one)
        if named not in (0, len(lines)):
            raise FormatError(
                f"Some boxes in {path} have an id and some have none",
                f"{named} of {len(lines)}",
                "give all of them one, or none",
            )
        self.tracks = not named

    def detect(self, image: np.ndarray, frame: Optional[Frame] = None) -> List[Detection]:
        """The boxes of a frame, in the order of the file."""
        if frame is None:
            raise ValueError("boxes from a file are those of a frame")
        for name in (frame.source, Path(frame.source).name, ""):
            found = self._found.get((name, frame.index))
            if found is not None:
                return list(found)
        return []

    def _entry(self, line: Dict[str, Any]) -> Tuple[Key, Detection]:
        box = Box(*(float(value) for value in line["box"]))
        if not all(map(math.isfinite, box)) or box.width <= 0 or box.height <= 0:
            raise ValueError(f"the box {list(box)} is empty")
        identity = line.get("id")
        number = None
        if identity not in (None, ""):
            if str(identity) not in self.names:
                self.names.append(str(identity))
            number = self.names.index(str(identity)) + 1
        key = (str(line.get("source") or ""), int(line["frame"]))
        return key, Detection(box, 1.0, identity=number)


def _lines(path: Path) -> Iterator[Tuple[int, Dict[str, Any]]]:
    """The lines with their numbers, whichever of the two forms it is."""
    with path.open(encoding="utf-8", newline="") as file:
        text = file.read()
    if text.lstrip()[:1] in ("{", ""):
        for number, line in enumerate(text.splitlines(), 1):
            if line.strip():
                yield number, json.loads(line)
        return
    for number, row in enumerate(csv.DictReader(text.splitlines()), 2):
        if None in row.values() or None in row:
            raise ValueError(f"line {number} has too many or too few columns")
        yield number, {**row, "box": [row.get(name) for name in ("x0", "y0", "x1", "y1")]}
