"""The masks of a run as run lengths: a line of JSON per frame, a few hundred bytes a mask."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Dict

import numpy as np

from ..faces.results import mask_in_frame
from ..overlay import full_mask
from ..records import FrameResult
from ..run_lengths import area, bounding_box, compressed, run_lengths
from .lines import LineSink


class RunLengthSink(LineSink):
    """Writes ``masks.rle.jsonl``, whose lines follow those of ``records.jsonl``.

    A line has ``source`` and ``frame`` of its record (``track``, where it is of a face), and
    ``size`` (height, width) and ``counts`` as pycocotools takes them, ``area`` in pixels and
    ``bbox`` (x, y, width, height); the last four are ``null`` where it was not judged.

    Args:
        path: the file.
        at_source: the masks have the size of their pictures, else that of the network.
        strings: ``counts`` are the compressed form, else lists of numbers.
    """

    renders = True

    def __init__(self, path: Path, at_source: bool = True, strings: bool = True) -> None:
        super().__init__(path)
        self.needs_image = self.at_source = at_source
        self.strings = strings

    def render(self, result: FrameResult) -> str:
        """The line of each part."""
        return "".join(map(self._line, result.parts))

    def _line(self, result: FrameResult) -> str:
        record: Dict[str, Any] = {"source": result.frame.source, "frame": result.frame.index}
        if result.face is not None:
            record["track"] = result.face.track
        mask = result.mask if result.judged else None
        if result.face is not None and self.at_source:
            mask = mask_in_frame(result)
        elif mask is not None and self.at_source:
            image = result.frame.image
            mask = None if image is None else full_mask(mask, *image.shape[:2])
        if mask is None:
            record.update(size=None, counts=None, area=None, bbox=None)
        else:
            record.update(_described(mask, self.strings))
        return json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n"

    def line(self, result: FrameResult, rendered: Any) -> str:
        """What was rendered."""
        return str(rendered)


def _described(mask: np.ndarray, strings: bool) -> Dict[str, Any]:
    counts = run_lengths(mask)
    return {
        "size": list(mask.shape),
        "counts": compressed(counts) if strings else counts.tolist(),
        "area": area(counts),
        "bbox": bounding_box(counts, mask.shape[0]),
    }
