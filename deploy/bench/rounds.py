"""Measuring several things in turn, so that a disturbance meets all of them, and what it gives."""

from __future__ import annotations

import functools
import statistics
import time
from dataclasses import dataclass
from typing import Any, Callable, Dict, List, Mapping, Sequence, Tuple

UNSTEADY = 0.10
"""Spread from which a figure is not to be trusted."""

Clock = Callable[[], float]

Step = Callable[[str], None]
"""Told what is measured next."""


@dataclass(frozen=True)
class Series:
    """One quantity, measured several times.

    Attributes:
        values: in the order they were measured.
        busy: the same by processor time over all threads of this process, which other work on the
            machine disturbs least; empty where it was not taken.
    """

    values: Tuple[float, ...]
    busy: Tuple[float, ...] = ()

    @property
    def median(self) -> float:
        """The middle one."""
        return statistics.median(self.values)

    @property
    def busy_median(self) -> float:
        """The middle one by processor time; 0 where that was not taken."""
        return statistics.median(self.busy) if self.busy else 0.0

    @property
    def spread(self) -> float:
        """How far apart the middle half of the values lies, relative to the median."""
        if len(self.values) < 2 or not self.median:
            return 0.0
        return (percentile(self.values, 75) - percentile(self.values, 25)) / abs(self.median)

    def to_json(self, digits: int = 6) -> Dict[str, Any]:
        """Median, spread and every value."""
        return {
            "median": round(self.median, digits),
            "spread": round(self.spread, 4),
            "values": [round(value, digits) for value in self.values],
        }


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which ``share`` percent of the values lie, between neighbours linearly."""
    ordered = sorted(values)
    place = (len(ordered) - 1) * share / 100
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def in_turn(
    works: Mapping[str, Callable[[], Any]],
    rounds: int,
    clock: Clock = time.perf_counter,
    busy_clock: Clock = time.process_time,
) -> Dict[str, Series]:
    """Runs every work once per round; returns the seconds of each, by both clocks.

    Args:
        works: what is measured, by name. Nothing is warmed up here.
        rounds: how often.
        clock: seconds.
        busy_clock: seconds of processor time.
    """
    seconds: Dict[str, List[float]] = {name: [] for name in works}
    busy: Dict[str, List[float]] = {name: [] for name in works}
    names = list(works)
    for number in range(rounds):
        # Every other round goes backwards, so that nobody always follows the same neighbour.
        for name in names if number % 2 == 0 else reversed(names):
            start, busy_start = clock(), busy_clock()
            works[name]()
            seconds[name].append(clock() - start)
            busy[name].append(busy_clock() - busy_start)
    return {name: Series(tuple(seconds[name]), tuple(busy[name])) for name in works}


def ratio(of: Series, to: Series) -> Series:
    """``of`` divided by ``to``, round by round: what both met cancels out."""
    return Series(
        tuple(a / b for a, b in zip(of.values, to.values)),
        tuple(a / b for a, b in zip(of.busy, to.busy) if b),
    )


def told(works: Mapping[str, Callable[[], Any]], step: Step) -> Dict[str, Callable[[], Any]]:
    """The works, each of which first says its name."""

    def tell(name: str, work: Callable[[], Any]) -> Any:
        step(name)
        return work()

    return {name: functools.partial(tell, name, work) for name, work in works.items()}
