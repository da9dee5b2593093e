"""What all processes of one simulated host know of the card: jobs run, dead or alive, how hot.

Each fact is one file in the folder ``SimulateOptions.state``, changed by one system call, so that
threads and processes need no lock. Without a folder the facts are kept in this process.
"""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path
from typing import Optional, Set, Union

from .options import SimulateOptions, active_options

IDLE_CELSIUS = 33.0
"""Of a card that has run nothing."""

BUSY_CELSIUS = 64.0
"""Where a healthy card levels off under load; a hot one stays below the limits until its time."""

HOT_CELSIUS = 97.0
"""Over the limit: a warning is given from 88, the clock stops at 100 degrees."""

HOTTEST_CELSIUS = 105.0
"""Where a hot card ends; the card would shut itself down at 107."""

_JOBS, _DEAD, _CRASHED = "jobs", "dead", "crashed"


class _Memory:
    """The facts of a host that is one process."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.jobs = 0
        self.marks: Set[str] = set()


_memory = _Memory()


class CardState:
    """The simulated card as every process sees it.

    Args:
        folder: shared by the processes of one simulated host, made where it is missing; empty
            for the state of this process alone.
        options: of the card; ``None`` for those in force when a value is asked for.
    """

    def __init__(
        self, folder: Union[str, Path] = "", options: Optional[SimulateOptions] = None
    ) -> None:
        self._folder = Path(folder) if str(folder) else None
        self._options = options
        if self._folder is not None:
            self._folder.mkdir(parents=True, exist_ok=True)

    @property
    def jobs(self) -> int:
        """Jobs begun so far, by all processes."""
        if self._folder is None:
            return _memory.jobs
        try:
            return os.stat(str(self._folder / _JOBS)).st_size
        except FileNotFoundError:
            return 0

    def next_job(self) -> int:
        """Counts one job and returns its number, from 1; no number is given twice."""
        if self._folder is None:
            with _memory.lock:
                _memory.jobs += 1
                return _memory.jobs
        handle = os.open(str(self._folder / _JOBS), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            # Appending moves to the end and writes in one step; the position after it is ours.
            os.write(handle, b".")
            return os.lseek(handle, 0, os.SEEK_CUR)
        finally:
            os.close(handle)

    @property
    def dead(self) -> bool:
        """Whether the card has left the bus."""
        return self._is_marked(_DEAD)

    def mark_dead(self) -> None:
        """Takes the card off the bus, for every process."""
        self._mark(_DEAD)

    @property
    def crashed_once(self) -> bool:
        """Whether the one crash of ``crashes_after`` has happened."""
        return self._is_marked(_CRASHED)

    def claim_crash(self) -> bool:
        """True for the one caller, over all processes, that is to crash."""
        return self._mark(_CRASHED)

    def celsius(self) -> float:
        """Temperature of the chip: it climbs with every job.

        With ``hot_after`` it is over the limit once that many jobs were begun, never before.
        """
        options = self._options if self._options is not None else active_options()
        jobs = self.jobs
        if options.hot_after is None:
            return IDLE_CELSIUS + (BUSY_CELSIUS - IDLE_CELSIUS) * min(1.0, jobs / 64.0)
        if jobs >= options.hot_after:
            return min(HOTTEST_CELSIUS, HOT_CELSIUS + (jobs - options.hot_after))
        return IDLE_CELSIUS + (BUSY_CELSIUS - IDLE_CELSIUS) * jobs / options.hot_after

    def reset(self) -> None:
        """What ``xbutil reset`` does: the card is back and cool; a crash stays the only one."""
        if self._folder is None:
            with _memory.lock:
                _memory.jobs = 0
                _memory.marks.discard(_DEAD)
            return
        for name in (_JOBS, _DEAD):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(str(self._folder / name))

    def _is_marked(self, name: str) -> bool:
        if self._folder is None:
            return name in _memory.marks
        return (self._folder / name).exists()

    def _mark(self, name: str) -> bool:
        if self._folder is None:
            with _memory.lock:
                new = name not in _memory.marks
                _memory.marks.add(name)
            return new
        try:
            os.close(os.open(str(self._folder / name), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644))
        except FileExistsError:
            return False
        return True


def forget() -> None:
    """Begins anew the state of this process: a host on which nothing has run."""
    global _memory
    _memory = _Memory()
