"""Watching the cards: read, show, write the textfile, wait, again."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Dict, Optional, Sequence, Tuple

from ..board.health import CardHealth
from ..errors import ToolkitError, UsageError
from .board_metrics import metrics_text, write_textfile
from .board_report import health_record, watch_line

_HEADINGS = ("card", "FPGA", "highest", "power", "highest", "state")


@dataclass(frozen=True)
class Reading:
    """One look at all cards.

    Attributes:
        number: of the look, from 1.
        moment: Unix time, seconds.
        healths: one per card; empty where they could not be read.
        error: why not.
    """

    number: int
    moment: float
    healths: Tuple[CardHealth, ...]
    error: Optional[ToolkitError] = None

    @property
    def well(self) -> bool:
        """Whether every card was read and is within all limits."""
        return self.error is None and not any(health.warnings for health in self.healths)


class Highs:
    """The highest temperature and power seen of each card."""

    def __init__(self) -> None:
        self._celsius: Dict[str, float] = {}
        self._watts: Dict[str, float] = {}

    def add(self, health: CardHealth) -> Tuple[Optional[float], Optional[float]]:
        """Takes one reading; returns the highest values so far."""
        for seen, value in ((self._celsius, health.celsius), (self._watts, health.power_watts)):
            if value is not None:
                seen[health.bdf] = max(seen.get(health.bdf, value), value)
        return self._celsius.get(health.bdf), self._watts.get(health.bdf)


def watch(
    read: Callable[[], Sequence[CardHealth]],
    show: Callable[[Reading], None],
    interval: float,
    count: Optional[int] = None,
    prometheus: Optional[Path] = None,
    sleep: Callable[[float], None] = time.sleep,
) -> bool:
    """Reads again and again; a failed reading is shown, and watching goes on.

    Args:
        read: gives the health of all cards, or raises.
        show: is given every reading.
        interval: seconds from one reading's begin to the next; a slow one is followed at once.
        count: readings to take; ``None`` for no end.
        prometheus: textfile written after each.
        sleep: waits.

    Returns:
        Whether all readings were good.

    Raises:
        UsageError: the first reading was refused as wrong use.
    """
    well = True
    number = 0
    while True:
        number += 1
        begin = time.monotonic()
        reading = _read(read, number)
        well = well and reading.well
        show(reading)
        if prometheus is not None:
            healths = None if reading.error is not None else reading.healths
            write_textfile(prometheus, metrics_text(healths, reading.moment))
        if number == count:
            return well
        sleep(max(0.0, interval - (time.monotonic() - begin)))


def reading_table(reading: Reading, highs: Highs) -> str:
    """One reading as the live table."""
    stamp = time.strftime("%H:%M:%S", time.localtime(reading.moment))
    lines = [f"{stamp}  reading {reading.number}"]
    if reading.error is not None:
        return "\n".join([*lines, f"not read: {reading.error}", ""])
    rows = [_HEADINGS]
    for health in reading.healths:
        bdf, celsius, watts, state = watch_line(health)
        hottest, strongest = highs.add(health)
        high = "-" if hottest is None else f"{hottest:.0f} °C"
        power = "-" if strongest is None else f"{strongest:.1f} W"
        rows.append((bdf, celsius, high, watts, power, state))
    widths = [max(len(row[i]) for row in rows) for i in range(len(_HEADINGS))]
    lines += ["  ".join(c.ljust(w) for c, w in zip(row, widths)).rstrip() for row in rows]
    return "\n".join([*lines, ""])


def reading_line(reading: Reading) -> str:
    """One reading as one line of text per card, for a log."""
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(reading.moment))
    if reading.error is not None:
        return f"{stamp} not read: {reading.error}"
    return "\n".join(f"{stamp} {'  '.join(watch_line(health))}" for health in reading.healths)


def reading_json(reading: Reading) -> str:
    """One reading as one line of JSON."""
    record = {
        "reading": reading.number,
        "time": reading.moment,
        "cards": [health_record(health) for health in reading.healths],
        "error": None if reading.error is None else str(reading.error),
    }
    return json.dumps(record, ensure_ascii=False)


def _read(read: Callable[[], Sequence[CardHealth]], number: int) -> Reading:
    try:
        return Reading(number, time.time(), tuple(read()))
    except ToolkitError as error:
        if number == 1 and isinstance(error, UsageError):
            raise  # waiting brings no xbutil, and no right address
        return Reading(number, time.time(), (), error)
