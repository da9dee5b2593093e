"""The device that costs nothing: zeros of the right shape, to measure everything around it."""

from __future__ import annotations

import threading
from typing import Dict, Optional, Sequence, Set

import numpy as np

from ...compile.xir.graph import Graph, Subgraph
from ...errors import DeviceError
from .base import Batch, Device
from .boundary import boundary_tensors


class NullDevice(Device):
    """Answers every batch at once with zeros; the arrays are shared, so they are read-only."""

    name = "null"

    def __init__(
        self, graph: Graph, subgraph: Subgraph, batch: int, taps: Sequence[str] = ()
    ) -> None:
        self.inputs, self.outputs = boundary_tensors(graph, subgraph, batch, taps)
        self._zeros = {info.name: np.zeros(info.shape, info.dtype) for info in self.outputs}
        for array in self._zeros.values():
            array.setflags(write=False)
        self._lock = threading.Lock()
        self._open: Set[int] = set()
        self._last = 0
        self._closed = False

    def submit(self, batch: Batch) -> int:
        """Checks the batch and hands out a ticket."""
        self.check(batch)
        with self._lock:
            if self._closed:
                raise DeviceError("Device null is closed")
            self._last += 1
            self._open.add(self._last)
            return self._last

    def wait(self, ticket: int) -> Dict[str, np.ndarray]:
        """Zeros."""
        with self._lock:
            if ticket not in self._open:
                raise DeviceError(
                    f"Device null has no batch under ticket {ticket}",
                    "each ticket can be waited for once",
                )
            self._open.remove(ticket)
        return dict(self._zeros)

    def close(self) -> None:
        """Drops open tickets."""
        with self._lock:
            self._closed = True
            self._open.clear()


def create(
    graph: Graph,
    subgraph: Subgraph,
    *,
    batch: int,
    threads: Optional[int] = None,
    taps: Sequence[str] = (),
) -> Device:
    """Opens the device; ``threads`` has no meaning here."""
    return NullDevice(graph, subgraph, batch, taps)
