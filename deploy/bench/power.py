"""What the card draws while it is measured, where it tells."""

from __future__ import annotations

import threading
from typing import Callable, List, Optional

from ...board.health import CardHealth, read_health
from ...errors import ToolkitError

INTERVAL = 0.5
"""Seconds between two readings; the board's own average is slower."""


class PowerMeter:
    """Reads the board's power on a thread of its own, as a context.

    Args:
        read: one reading.
        interval: seconds between readings.

    Attributes:
        watts: of every reading.
        reason: why there are none.
    """

    def __init__(
        self, read: Callable[[], CardHealth] = read_health, interval: float = INTERVAL
    ) -> None:
        self.watts: List[float] = []
        self.reason = "the board does not tell its power"
        self._read, self._interval = read, interval
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._go_on, name="power", daemon=True)

    @property
    def mean(self) -> Optional[float]:
        """Watts; ``None`` without a reading."""
        return sum(self.watts) / len(self.watts) if self.watts else None

    def __enter__(self) -> PowerMeter:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._end.set()
        self._thread.join(self._interval + 1)

    def _go_on(self) -> None:
        while not self._end.is_set():
            try:
                watts = self._read().power_watts
            except ToolkitError as error:
                self.reason = str(error)
                return
            if watts is not None:
                self.watts.append(watts)
            self._end.wait(self._interval)
