"""What every thread of a run did and when, as a file for chrome://tracing or ui.perfetto.dev.

Spans of one thread never overlap unless one lies within the other. Times are those of
``time.perf_counter``. The file is in the Trace Event Format: complete events for the stages,
asynchronous ones for batches under way, counters for the queues.
"""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, Tuple

from ..files import write_text

LIMIT = 1_000_000
"""Events kept at most: some 200 MB in memory. What comes later is counted and left out."""

_PROCESS = 1

_Event = Tuple[str, int, str, float, float, Dict[str, Any]]


class Trace:
    """Collects what happens; from any thread.

    Args:
        now: the clock, in seconds, that gives the beginning.
        limit: events kept at most.
    """

    def __init__(self, now: Callable[[], float] = time.perf_counter, limit: int = LIMIT) -> None:
        self._begun, self._limit = now(), limit
        self._events: List[_Event] = []
        self._left_out = 0
        self._lock = threading.Lock()
        self._numbers: Dict[int, int] = {}
        self._names: List[str] = []

    def span(self, name: str, start: float, end: float, **about: Any) -> None:
        """Notes that the calling thread did something from ``start`` to ``end``."""
        self._add("X", name, start, end - start, about)

    def under_way(self, name: str, number: int, start: float, end: float, **about: Any) -> None:
        """Notes something that goes on beside the threads, such as a batch on the device."""
        self._add("b", name, start, 0.0, {"id": number, **about})
        self._add("e", name, end, 0.0, {"id": number})

    def counter(self, name: str, **values: float) -> None:
        """Notes the present values of a group of counters."""
        self._add("C", name, time.perf_counter(), 0.0, values)

    def _add(self, kind: str, name: str, start: float, length: float, about: Any) -> None:
        ident = threading.get_ident()
        with self._lock:
            number = self._numbers.get(ident)
            if number is None or self._names[number] != threading.current_thread().name:
                # Identifiers of threads that have ended are given again.
                number = self._numbers[ident] = len(self._names)
                self._names.append(threading.current_thread().name)
            if len(self._events) >= self._limit:
                self._left_out += 1
                return
            self._events.append((kind, number, name, start, length, about))

    def to_json(self) -> Dict[str, Any]:
        """The content of the file; events in the order of their beginnings."""
        with self._lock:
            events, names, left_out = list(self._events), list(self._names), self._left_out
        written: List[Dict[str, Any]] = [_named("process_name", 0, "deepfake-fpga run")]
        written.extend(_named("thread_name", number, name) for number, name in enumerate(names))
        # A longer span that begins at the same time is the outer one.
        for kind, number, name, start, length, about in sorted(
            events, key=lambda event: (event[3], -event[4])
        ):
            event: Dict[str, Any] = {"name": name, "ph": kind, "pid": _PROCESS, "tid": number}
            event["ts"] = round(1e6 * (start - self._begun), 3)
            if kind == "X":
                event["dur"] = round(1e6 * length, 3)
            if kind in ("b", "e"):
                about = dict(about)
                event.update(id=about.pop("id"), cat="batch")
            event["args"] = about
            written.append(event)
        return {
            "traceEvents": written,
            "displayTimeUnit": "ms",
            "otherData": {"events_left_out": left_out},
        }

    def write(self, path: Path) -> None:
        """Writes the file, at once or not at all."""
        write_text(path, json.dumps(self.to_json(), separators=(",", ":"), allow_nan=False) + "\n")


def _named(what: str, number: int, name: str) -> Dict[str, Any]:
    return {"name": what, "ph": "M", "pid": _PROCESS, "tid": number, "args": {"name": name}}
