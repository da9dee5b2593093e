"""Who works on a journal: a process of this machine or of another, and whether it still lives."""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import time
from dataclasses import dataclass
from pathlib import Path

BEAT = 20.0
"""Seconds between two signs of life in the journal."""

LEASE = 6 * BEAT
"""Seconds without one after which a process that cannot be looked at (on another machine, in
another container) counts as gone."""

_NUMBERS = itertools.count(1)


@dataclass(frozen=True)
class Worker:
    """One process at work.

    Attributes:
        host: name of the machine, its start, the process namespace: where ``pid`` means something.
        pid: the process.
        started: when it began, in ticks since the start of the machine; tells a process from a
            later one that got the same number. Zero where the system does not say.
        number: tells several journals of one process apart.
    """

    host: str
    pid: int
    started: int
    number: int

    @property
    def key(self) -> str:
        """A name that no other worker has."""
        return f"{self.host}:{self.pid}:{self.started}:{self.number}"

    @property
    def tag(self) -> str:
        """A short name, fit for a file."""
        return f"{self.pid}-{self.started}-{self.number}"

    def lives(self, seen: float) -> bool:
        """Whether it is still there.

        Args:
            seen: when it last wrote into the journal, in seconds since 1970.
        """
        if self.host != _host():
            name, boot, _ = self.host.split("/")
            here, boot_here, _ = _host().split("/")
            restarted = name == here and boot != boot_here
            return not restarted and time.time() - seen < LEASE
        if self.started != start_of(self.pid):
            return False
        return self.started != 0 or exists(self.pid)


def this_worker() -> Worker:
    """The process that asks, as one more worker."""
    pid = os.getpid()
    return Worker(_host(), pid, start_of(pid), next(_NUMBERS))


def worker_of(key: str) -> Worker:
    """The worker with this ``key``."""
    host, pid, started, number = key.rsplit(":", 3)
    return Worker(host, int(pid), int(started), int(number))


def start_of(pid: int) -> int:
    """When a process began, in ticks since the start of the machine; 0 where there is none."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        # The name in parentheses may hold anything, also spaces and parentheses.
        words = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        return 0 if words[0] in "ZX" else int(words[19])
    return 0


def _host() -> str:
    boot = space = ""
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()[:8]
    with contextlib.suppress(OSError):
        space = os.readlink("/proc/self/ns/pid").strip("pid:[]")
    return "/".join([socket.gethostname(), boot, space])


def exists(pid: int) -> bool:
    """Whether this machine has a process of that number."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
