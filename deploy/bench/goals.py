"""The project's goals for speed and memory, each measured and held against its limit."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Dict, List, Optional, Sequence, Tuple

from .machine import Machine
from .rounds import UNSTEADY, Series
from .table import columns


@dataclass(frozen=True)
class Goal:
    """One figure that is aimed at.

    Attributes:
        key: for files.
        text: what is measured.
        limit: the value to reach.
        unit: of the value; ``x`` for a ratio.
        least: whether the value has to be at least the limit, else at most.
    """

    key: str
    text: str
    limit: float
    unit: str
    least: bool = True

    @property
    def wanted(self) -> str:
        """The limit in words."""
        return f"{'≥' if self.least else '≤'} {self.limit:g} {self.unit}"

    def reached_by(self, value: float) -> bool:
        """Whether a value will do."""
        return value >= self.limit if self.least else value <= self.limit


GOALS: Tuple[Goal, ...] = (
    Goal("sim-over-float", "sim against float32 PyTorch, batch 8", 4.0, "x"),
    Goal("sim-over-plain", "sim against the same graph without exactness", 0.95, "x"),
    Goal("sim-over-quantized", "sim against the quantized model in test mode", 9.0, "x"),
    Goal("batch-1", "an image of batch 1 against one of batch 8, time", 1.15, "x", least=False),
    Goal("load-cold", "xmodel to engine, translated anew", 1.5, "s", least=False),
    Goal("load-cached", "xmodel to engine, from the cache", 1.5, "s", least=False),
    Goal("memory", "peak memory at batch 8 against the float model", 1.5, "x", least=False),
    Goal("reference", "reference device, one 224x224 image, width 8", 5.0, "s", least=False),
    Goal("images", "null: 256x256 PNG crops to masks and records", 1200.0, "images/s"),
    Goal("video-720p", "null: 1280x720 video against decoding alone", 0.7, "x"),
    Goal("video-256", "null: 256x256 video against decoding alone", 0.7, "x"),
    Goal("overlay-720p", "null: 1280x720 overlay video against plain transcoding", 0.7, "x"),
    Goal("overlay-256", "null: 256x256 overlay video against plain transcoding", 0.7, "x"),
    Goal("paced-4", "null at the card's pace, 4 threads, of its ceiling", 0.97, "x"),
    Goal("paced-8", "null at the card's pace, 8 threads, of its ceiling", 0.97, "x"),
    Goal("flat-memory", "peak memory, 6000 frames against 300", 1.1, "x", least=False),
)
"""In the order of the table."""


@dataclass(frozen=True)
class Measured:
    """What was found for one goal.

    Attributes:
        key: of the goal.
        value: ``None`` where it could not be measured.
        spread: of the rounds.
        detail: the figures behind it, or why there is none.
    """

    key: str
    value: Optional[float]
    spread: float = 0.0
    detail: str = ""

    @classmethod
    def of(cls, key: str, series: Series, detail: str = "") -> Measured:
        """From rounds."""
        return cls(key, series.median, series.spread, detail)


@dataclass
class GoalReport:
    """All goals.

    Attributes:
        machine: the kind of machine.
        quick: whether less was measured than the goals ask for.
        settings: how it was measured.
        measured: by key.
        notes: what has to be known beside the figures.
    """

    machine: Machine
    quick: bool
    settings: Dict[str, Any]
    measured: Dict[str, Measured]
    notes: List[str] = field(default_factory=list)

    def rows(self, goals: Sequence[Goal] = GOALS) -> List[Tuple[Goal, Measured, Optional[bool]]]:
        """Every goal with what was found and whether it is reached; ``None``: not measured."""
        found = []
        for goal in goals:
            one = self.measured.get(goal.key, Measured(goal.key, None, detail="not measured"))
            reached = None if one.value is None else goal.reached_by(one.value)
            found.append((goal, one, reached))
        return found

    @property
    def missed(self) -> List[Goal]:
        """Goals that were measured and not reached."""
        return [goal for goal, _, reached in self.rows() if reached is False]

    def to_json(self) -> Dict[str, Any]:
        """A JSON object."""
        return {
            "schema": 1,
            "kind": "deepfake-fpga bench --goals",
            "machine": self.machine.to_json(),
            "quick": self.quick,
            "settings": self.settings,
            "goals": [
                {
                    "key": goal.key,
                    "text": goal.text,
                    "limit": goal.limit,
                    "at_least": goal.least,
                    "unit": goal.unit,
                    "measured": None if one.value is None else round(one.value, 4),
                    "spread": round(one.spread, 4),
                    "reached": reached,
                    "detail": one.detail,
                }
                for goal, one, reached in self.rows()
            ],
            "notes": self.notes,
        }


def goals_text(report: GoalReport) -> str:
    """The table for a terminal."""
    rows: List[Tuple[str, ...]] = [("goal", "wanted", "measured", "reached")]
    for goal, one, reached in report.rows():
        value = "-" if one.value is None else f"{_short(one.value)} {goal.unit}"
        if one.spread:
            value += f" ±{50 * one.spread:.0f}%"
        words = {None: "not measured", True: "yes", False: "NO"}[reached]
        rows.append((goal.text, goal.wanted, value, words))
    lines = [
        f"machine: {report.machine.processor}, {report.machine.cores} cores, "
        f"{report.machine.instructions or 'no instructions for 8-bit sums known'}",
        "",
        *columns(rows),
        "",
    ]
    if report.quick:
        lines.append("quick: smaller models and fewer frames than the goals are for")
    lines += [f"{one.key}: {one.detail}" for _, one, _ in report.rows() if one.detail]
    unsteady = [one.key for _, one, _ in report.rows() if one.spread > UNSTEADY]
    if unsteady:
        lines.append(
            f"note: the middle half of the rounds lies apart by more than 10 %: "
            f"{', '.join(unsteady)}"
        )
    lines += [f"note: {note}" for note in report.notes]
    return "\n".join(lines)


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
