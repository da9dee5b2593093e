"""How fast a VCK5000 takes batches: one formula, fitted to published frame rates, and its clock.

    seconds per batch = engines * max(workload_on_arch / rate(variant), 1 / 4941.7)

``workload_on_arch`` is what one picture costs on the engine's arrays, as the compiler writes it
(``compile/workload.py``). The rate of the 8PE build is the one at which U-YNet of width 64
(95.96 G operations on the arrays) makes its published 316.8 frames/s. The other builds have no
figure for U-YNet; they stand to 8PE as for the vendor's own U-Net (chaos-CT, 512x512, release 2.5:
247.9 frames/s on 8PE, 201.5 on 6PE with DWC, 185.1 on 6PE with MISC, 128.6 on 4PE). 4941.7 frames/s
is the highest rate published for this card (ResNet-50, release 2.0): a tiny model gets no more.

All of these are end to end, with a host beside the card. ResNet-50 (10.76 G on the arrays by the
same count, 4544 frames/s in release 2.5) implies 49e12 operations per second on 8PE where U-YNet's
own figure implies 30.4e12, so with a better host U-YNet may run up to 1.6 times faster than this
says. Nothing here was measured by us on a card.
"""

from __future__ import annotations

import threading
import time
from typing import Callable, Dict

from ...compile.targets import Target
from ...compile.workload import workload
from ...compile.xir.graph import Graph, Subgraph

UYNET_FRAMES = 316.8
"""Frames/s of U-YNet at width 64, 224x224, on eight engines."""

UYNET_ON_ARCH = 95_959_336_960
"""Its operations on the arrays, per picture."""

FASTEST_FRAMES = 4941.7
"""The highest frame rate published for the card."""

_CHAOS_FRAMES = {
    "8pe": 247.9,
    "8pe_normal": 247.9,
    "6pe_dwc": 201.5,
    "6pe_misc": 185.1,
    "4pe_miscdwc": 128.6,
}

RATES: Dict[str, float] = {
    variant: UYNET_FRAMES * UYNET_ON_ARCH * frames / _CHAOS_FRAMES["8pe_normal"]
    for variant, frames in _CHAOS_FRAMES.items()
}
"""Variant to operations on the arrays per second, all engines together."""


def on_arch(graph: Graph, subgraph: Subgraph) -> int:
    """Operations on the arrays for one picture: the compiler's number, else counted anew."""
    written = subgraph.get("workload_on_arch")
    if written:
        return int(written)
    counted = (workload(graph, graph.op(name)) for name in subgraph.all_ops())
    return sum(numbers[1] for numbers in counted if numbers is not None)


def ceiling(graph: Graph, subgraph: Subgraph, target: Target) -> float:
    """Frames/s that the card reaches at most with this subgraph and every batch full."""
    operations = on_arch(graph, subgraph)
    if operations == 0:
        return FASTEST_FRAMES
    return min(RATES[target.variant] / operations, FASTEST_FRAMES)


def batch_seconds(graph: Graph, subgraph: Subgraph, target: Target) -> float:
    """Seconds from one batch to the next; a short batch costs as much as a full one."""
    return target.engines / ceiling(graph, subgraph, target)


class PaceClock:
    """The card as a queue: batches are served one after another, each for its own time.

    However many threads ask, together they get no more than the card gives; and as long as they
    ask early enough they get no less, because a sleep that took too long is not added up.

    Args:
        now: the clock, in seconds.
        sleep: takes seconds.
    """

    def __init__(
        self,
        now: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._now, self._sleep = now, sleep
        self._free = 0.0
        self._lock = threading.Lock()

    def reserve(self, seconds: float) -> float:
        """Queues one batch that takes ``seconds``; returns the time at which it is done."""
        with self._lock:
            self._free = max(self._now(), self._free) + seconds
            return self._free

    def wait_until(self, done: float) -> None:
        """Blocks until the time that ``reserve`` gave."""
        left = done - self._now()
        while left > 0:
            self._sleep(left)
            left = done - self._now()
