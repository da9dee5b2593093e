"""The card: DPU subgraphs of a compiled model run by the vendor's ``xir`` and ``vart``.

Before the first native call the host and the model are looked at (``preflight``); the calls are
made in a child process (``card_queue``), and while it works the card's temperature is watched.
"""

from __future__ import annotations

import contextlib
import tempfile
import threading
from pathlib import Path
from typing import Callable, Dict, List, Optional, Sequence

import numpy as np

from ...compile.xir.graph import Graph, Subgraph
from ...errors import DeviceError, UnsupportedError
from .base import Batch, Device
from .card_queue import Card, CardOptions, Job
from .heat import HeatWatch
from .preflight import check_host, check_model, refuse


def open_card(
    graph: Graph,
    subgraphs: Sequence[Subgraph],
    *,
    batch: int,
    model: Optional[Path] = None,
    options: Optional[CardOptions] = None,
    taps: Sequence[str] = (),
) -> List[Device]:
    """Opens all given DPU subgraphs of a model on the card, in one child process.

    Args:
        graph: the compiled model.
        subgraphs: its DPU subgraphs.
        batch: pictures per submission.
        model: its file; the graph is written to a temporary one where it is not given, and for
            the drop-in runtime where its constants were taken from another file.
        options: how the card is used.
        taps: must be empty; the card returns outputs only.

    Raises:
        UnsupportedError: taps were asked for.
        DeviceError: the host or the model cannot use a card, or the runtime refuses.
        MismatchError: the runtime's tensors are not the model's.
    """
    options = CardOptions() if options is None else options
    if taps:
        raise UnsupportedError(
            "The card returns the outputs of a subgraph, not the tensors inside",
            f"asked for: {', '.join(taps)}",
            "--device sim or --device reference",
        )
    environment = options.child_environment()
    checks, runtime = check_host(options.python, environment)
    if runtime.check.ok:
        name = model or Path(graph.name)
        checks += check_model(graph, name, runtime.drop_in, environment)
    refuse(checks)
    with contextlib.ExitStack() as stack:
        if model is None or (runtime.drop_in and _has_placed_constants(graph)):
            from ...compile.xir.xmodel import write_xmodel

            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="deepfake-fpga-"))
            model = Path(folder) / "model.xmodel"
            write_xmodel(graph, model)
        card = Card(model, graph, subgraphs, batch, runtime.python, options)
        # The file is needed again if the child has to be started again.
        files = stack.pop_all()
    watch = HeatWatch(
        options.max_celsius,
        options.warn_celsius,
        options.watch_seconds,
        card.stop,
        card.incidents.append,
    )
    open_parts = set(range(len(subgraphs)))

    def leave(part: int) -> None:
        open_parts.discard(part)
        if not open_parts:
            watch.stop()
            card.close()
            files.close()

    return [CardDevice(card, part, runtime.check.evidence, leave) for part in range(len(subgraphs))]


def _has_placed_constants(graph: Graph) -> bool:
    """Whether constants stand in the operators; a compiler leaves them in the subgraph's blob."""
    names = {name for part in graph.subgraphs("DPU") for name in part.all_ops()}
    return any(graph.op(n).type == "const-fix" and bool(graph.op(n).get("data")) for n in names)


class CardDevice(Device):
    """One DPU subgraph on the card.

    Args:
        card: the model on the card, shared by its subgraphs.
        part: number of the subgraph.
        runtime: which runtime it is, in words.
        leave: called with ``part`` when the device is closed.
    """

    name = "card"

    def __init__(self, card: Card, part: int, runtime: str, leave: Callable[[int], None]) -> None:
        self._card, self._part, self._leave = card, part, leave
        self.inputs, self.outputs = card.parts[part].inputs, card.parts[part].outputs
        self.notes = (runtime, *card.notes)
        self._lock = threading.Lock()
        self._tickets: Dict[int, List[Job]] = {}
        self._last = 0
        self._closed = False

    def submit(self, batch: Batch) -> int:
        """Queues one batch; the arrays must stay unchanged until ``wait`` returns."""
        self.check(batch)
        if self._closed:
            raise DeviceError("Device card is closed")
        jobs = self._card.submit(self._part, batch)
        with self._lock:
            self._last += 1
            self._tickets[self._last] = jobs
            return self._last

    def wait(self, ticket: int) -> Dict[str, np.ndarray]:
        """The answer of ``ticket``; an error within the time limit if the card gives none."""
        with self._lock:
            jobs = self._tickets.pop(ticket, None)
        if jobs is None:
            raise DeviceError(
                f"Device card has no batch under ticket {ticket}",
                "each ticket can be waited for once",
            )
        outputs = self._card.result(jobs)
        # The card is shared: its time and its incidents are told by one of its devices.
        self.seconds = self._card.seconds if self._part == 0 else 0.0
        return outputs

    def incidents(self) -> List[str]:
        """Jobs run again, children started again, temperatures near the limit."""
        return list(self._card.incidents) if self._part == 0 else []

    def close(self) -> None:
        """Releases the card with the last of its devices; never hangs."""
        if not self._closed:
            self._closed = True
            self._leave(self._part)
