"""The card's temperature during a run: read every few seconds, and over its limit the run stops."""

from __future__ import annotations

import dataclasses
import threading
from typing import Callable, Set

from ...board.health import LIMITS, CardHealth, Limit, Limits, read_health
from ...errors import DeviceError, ToolkitError


class HeatWatch:
    """A thread that reads the card's sensors until it is stopped.

    Args:
        max_celsius: from here on ``on_stop`` is called, once, and the watch ends.
        warn_celsius: from here on ``on_note`` is told.
        seconds: from one reading to the next.
        on_stop: gets the error with the reading as evidence.
        on_note: gets a sentence; each kind of warning is told once.
        read: takes one reading with these limits.
    """

    def __init__(
        self,
        max_celsius: float,
        warn_celsius: float,
        seconds: float,
        on_stop: Callable[[ToolkitError], None],
        on_note: Callable[[str], None],
        read: Callable[[Limits], CardHealth] = lambda limits: read_health(limits=limits),
    ) -> None:
        self._limits = dataclasses.replace(
            LIMITS,
            stop_celsius=Limit(max_celsius, "the limit of this run"),
            warn_celsius=Limit(min(warn_celsius, max_celsius), LIMITS.warn_celsius.reason),
        )
        self._seconds = seconds
        self._on_stop, self._on_note, self._read = on_stop, on_note, read
        self._told: Set[str] = set()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="card-heat", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ends the watch; a reading under way is not waited for."""
        self._stopped.set()

    def _watch(self) -> None:
        while not self._stopped.is_set():
            try:
                health = self._read(self._limits)
            except ToolkitError as error:
                self._tell("unread", f"the card's temperature is not watched: {error.cause}")
            else:
                if health.stops and not self._stopped.is_set():
                    self._on_stop(_too_hot(health))
                    return
                if health.celsius is None:
                    self._tell("none", f"the card gives no temperature ({health.evidence})")
                for warning in health.warnings:
                    self._tell(warning.partition(" is at ")[0], warning)
            self._stopped.wait(self._seconds)

    def _tell(self, kind: str, words: str) -> None:
        if kind not in self._told and not self._stopped.is_set():
            self._told.add(kind)
            self._on_note(words)


def _too_hot(health: CardHealth) -> DeviceError:
    return DeviceError(
        "The card is over a limit and was stopped",
        f"{'; '.join(health.stops)} ({health.evidence})",
        "deepfake-fpga board health; the card is passive and wants the server's airflow",
    )
