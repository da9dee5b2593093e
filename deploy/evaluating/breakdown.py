"""The same figures for parts of the data: by source, compression level, face size.

An authentic video of which nothing is told (FaceForensics++ names a method only for fakes) counts
in every part, so that AUC has something to compare with.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict, List, Optional, Sequence, Tuple

import numpy as np

from .measures import Measures, Settings, measure
from .table import Table

USUAL = ("source", "method", "compression", "crf", "quality", "bits_per_pixel")
"""Facts by which data are split where they are told; ``--by`` names more."""

FACE_SIZE = "face size"
MOST_GROUPS = 12
"""Numbers with more distinct values than ``FEW_VALUES`` are cut into thirds; of words with more
than this there is no table."""
FEW_VALUES = 4


@dataclass(frozen=True, eq=False)
class Part:
    """One part of the data.

    Attributes:
        key: by what the data were split.
        group: the value, or the range of values.
        measures: of this part.
    """

    key: str
    group: str
    measures: Measures

    def to_json(self) -> Dict[str, Any]:
        """A JSON object."""
        return {"by": self.key, "group": self.group, **self.measures.to_json()}


def breakdown(
    table: Table, settings: Settings, by: Sequence[str] = ()
) -> Tuple[List[Part], Dict[str, str]]:
    """Figures by every fact that is told.

    Args:
        table: of one device.
        settings: how figures are taken.
        by: more facts of ``metadata.json``.

    Returns:
        The parts, and by fact why there is no table of it.
    """
    parts: List[Part] = []
    left_out: Dict[str, str] = {}
    for key in dict.fromkeys([*USUAL, *by]):
        values = [video.facts.get(key) for video in table.videos]
        if all(value is None for value in values):
            if key in by:
                left_out[key] = "metadata.json does not tell it of any video"
            continue
        groups, why = _grouped(values)
        if why:
            left_out[key] = why
        shared = np.array([v is None and not c.fake for v, c in zip(values, table.videos)])
        for name, keep in groups:
            parts.append(Part(key, name, measure(table.of_videos(keep | shared), settings)))
    sides = np.minimum(table.column("height"), table.column("width"))
    known = [None if side <= 0 or np.isnan(side) else f"{side:.0f}" for side in sides]
    groups, why = _grouped(known, " px")
    if why:
        left_out[FACE_SIZE] = why
    for name, keep in groups:
        parts.append(Part(FACE_SIZE, name, measure(table.of_rows(keep), settings)))
    return parts, left_out


def _grouped(
    values: Sequence[Optional[str]], unit: str = ""
) -> Tuple[List[Tuple[str, np.ndarray]], str]:
    """``(name, which)`` of every group, or none and the reason."""
    known = sorted({value for value in values if value is not None})
    if len(known) < 2:
        return [], f"it is {known[0]}{unit} everywhere" if known else "it is not known"
    numbers = _numbers(values)
    if numbers is not None:
        if len(known) > FEW_VALUES:
            return _thirds(numbers, unit), ""
        known.sort(key=float)
    elif len(known) > MOST_GROUPS:
        return [], f"it has {len(known)} values"
    return [(name + unit, np.array([v == name for v in values])) for name in known], ""


def _numbers(values: Sequence[Optional[str]]) -> Optional[np.ndarray]:
    """The values as float64, NaN where not known; ``None`` where one is no number."""
    try:
        numbers = np.array([np.nan if v is None else float(v) for v in values], np.float64)
    except ValueError:
        return None
    return numbers if not np.isinf(numbers).any() else None


def _thirds(numbers: np.ndarray, unit: str) -> List[Tuple[str, np.ndarray]]:
    known = numbers[~np.isnan(numbers)]
    low, high = np.percentile(known, [100 / 3, 200 / 3])
    groups = (
        (f"up to {low:.4g}{unit}", numbers <= low),
        (f"{low:.4g} to {high:.4g}{unit}", (numbers > low) & (numbers <= high)),
        (f"over {high:.4g}{unit}", numbers > high),
    )
    return [(name, keep) for name, keep in groups if keep.any()]
