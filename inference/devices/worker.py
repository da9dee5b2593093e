"""A device that computes on this machine: one worker thread, tickets, failures kept for ``wait``.

``sim``, ``reference``, ``null`` and ``float`` differ only in ``compute``. One thread keeps the
order of submission and lets the caller prepare the next batch while this one is computed.
"""

from __future__ import annotations

import abc
import queue
import threading
import time
from concurrent.futures import Future
from typing import Dict, Optional, Tuple

import numpy as np

from ...errors import DeviceError, ToolkitError
from .base import Batch, Busy, Device

Outputs = Dict[str, np.ndarray]
_Job = Optional[Tuple["Future[Outputs]", Dict[str, np.ndarray]]]

CLOSE_SECONDS = 0.3
"""How long ``close`` waits for the batch in progress; a stop must not take as long as a batch."""


class WorkerDevice(Device):
    """A device whose work is a Python function on arrays.

    Attributes:
        seconds: time spent computing so far.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self._jobs: queue.Queue[_Job] = queue.Queue()
        self._thread: Optional[threading.Thread] = None
        self._lock = threading.Lock()
        self._running: Dict[int, Future[Outputs]] = {}
        self._next_ticket = 1
        self._closed = False
        self._busy: Optional[Busy] = None

    def observe(self, busy: Busy) -> None:
        """See ``Device.observe``."""
        self._busy = busy

    @abc.abstractmethod
    def compute(self, batch: Batch) -> Outputs:
        """Runs one complete batch and returns every output and tap by tensor name."""

    def submit(self, batch: Batch) -> int:
        """Queues one batch; the arrays must stay unchanged until ``wait`` returns."""
        self.check(batch)
        with self._lock:
            if self._closed:
                raise DeviceError(f"Device {self.name} is closed")
            if self._thread is None:
                # A daemon: a batch that takes seconds must not keep a stopped program alive.
                self._thread = threading.Thread(
                    target=self._work, name=f"device-{self.name}", daemon=True
                )
                self._thread.start()
            ticket = self._next_ticket
            self._next_ticket += 1
            future: Future[Outputs] = Future()
            self._running[ticket] = future
            self._jobs.put((future, dict(batch)))
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
        """Drops the queued batches and ends the thread, after the batch in progress at the latest.

        Waits for that batch only ``CLOSE_SECONDS``.
        """
        with self._lock:
            self._closed = True
            thread, self._thread = self._thread, None
            for future in self._running.values():
                future.cancel()
            self._running.clear()
        if thread is not None:
            self._jobs.put(None)
            thread.join(CLOSE_SECONDS)

    def _work(self) -> None:
        while True:
            job = self._jobs.get()
            if job is None:
                return
            future, batch = job
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(self._timed(batch))
            except BaseException as error:
                future.set_exception(error)

    def _timed(self, batch: Dict[str, np.ndarray]) -> Outputs:
        start = time.perf_counter()
        outputs = self.compute(batch)
        end = time.perf_counter()
        self.seconds += end - start
        if self._busy is not None:
            self._busy(start, end)
        return outputs
