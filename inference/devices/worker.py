"""A device that computes on this machine: one worker thread, tickets, failures kept for ``wait``.

``sim``, ``reference``, ``null`` and ``float`` differ only in ``compute``. One thread keeps the
order of submission and lets the caller prepare the next batch while this one is computed.
"""

from __future__ import annotations

import abc
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Dict, Optional

import numpy as np

from ...errors import DeviceError, ToolkitError
from .base import Batch, Device

Outputs = Dict[str, np.ndarray]


class WorkerDevice(Device):
    """A device whose work is a Python function on arrays.

    Attributes:
        seconds: time spent computing so far.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self._pool: Optional[ThreadPoolExecutor] = None
        self._lock = threading.Lock()
        self._running: Dict[int, Future[Outputs]] = {}
        self._next_ticket = 1
        self._closed = False

    @abc.abstractmethod
    def compute(self, batch: Batch) -> Outputs:
        """Runs one complete batch and returns every output and tap by tensor name."""

    def submit(self, batch: Batch) -> int:
        """Queues one batch; the arrays must stay unchanged until ``wait`` returns."""
        self.check(batch)
        with self._lock:
            if self._closed:
                raise DeviceError(f"Device {self.name} is closed")
            if self._pool is None:
                self._pool = ThreadPoolExecutor(1, thread_name_prefix=f"device-{self.name}")
            ticket = self._next_ticket
            self._next_ticket += 1
            self._running[ticket] = self._pool.submit(self._timed, dict(batch))
        return ticket

    def wait(self, ticket: int) -> Outputs:
        """Outputs of ``ticket``; raises what its computation raised."""
        with self._lock:
            future = self._running.pop(ticket, None)
        if future is None:
            raise DeviceError(
                f"Device {self.name} has no batch under ticket {ticket}",
                "each ticket can be waited for once",
            )
        try:
            return future.result()
        except ToolkitError:
            raise
        except Exception as error:
            raise DeviceError(
                f"Device {self.name} failed on a batch", f"{type(error).__name__}: {error}"
            ) from error

    def close(self) -> None:
        """Lets the batch in progress finish, drops the queued ones, ends the thread."""
        with self._lock:
            self._closed = True
            pool, self._pool = self._pool, None
            for future in self._running.values():
                future.cancel()
            self._running.clear()
        if pool is not None:
            pool.shutdown(wait=True)

    def _timed(self, batch: Dict[str, np.ndarray]) -> Outputs:
        start = time.perf_counter()
        outputs = self.compute(batch)
        self.seconds += time.perf_counter() - start
        return outputs
