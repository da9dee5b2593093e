"""The simulated card: a DPU subgraph loaded on it, its batches, and how the card misbehaves."""

from __future__ import annotations

import itertools
import random
import sys
import threading
import time
import weakref
from dataclasses import dataclass, replace
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

import numpy as np

from ...compile.targets import Target
from ...compile.xir.attributes import Attr, uint64
from ...compile.xir.graph import Graph, Op, Subgraph, Tensor
from ...inference.devices import open_device, sim_available
from ...inference.devices.base import Device, TensorInfo
from ...inference.devices.pace import PaceClock, batch_seconds
from .abort import abort
from .buffers import BoundBuffer, HostBuffer, bind
from .card_state import CardState
from .construction import Library, check_card, choose_library
from .cpu_device import CONSTANTS, CpuDevice
from .job_engine import JobEngine
from .options import SimulateOptions

FAILED_STATUS = -1
"""What ``wait`` returns for a job of ``fail_jobs``."""

_engine = JobEngine()
_clock = PaceClock()
_notes: List[str] = []
_orders = itertools.count()


@dataclass(frozen=True)
class RunnerTensor:
    """One tensor of a runner.

    Attributes:
        info: name, shape with the batch of the hardware, fix point.
        tensor: the one in the model that it stands for: type and width.
        attrs: of the runner's tensor.
    """

    info: TensorInfo
    tensor: Tensor
    attrs: Dict[str, Attr]


class LoadedRunner:
    """A subgraph ready to run.

    Args:
        graph: the compiled model.
        subgraph: a child of its root, on the card or on the CPU.
        mode: key of the subgraph's ``runner`` attribute.
        options: of the simulated host.

    Attributes:
        inputs: its tensors in the order in which it lists them.
        outputs: likewise.
        on_card: whether the card runs it, not the CPU.

    Raises:
        XirAbort, RuntimeError: see ``construction``.
        UnsupportedError: a genuine model whose weights cannot be read, or an operator without
            a rule.
    """

    def __init__(
        self, graph: Graph, subgraph: Subgraph, mode: str, options: SimulateOptions
    ) -> None:
        self._options = options
        self._state = CardState(options.state, options)
        self._period = 0.0
        self.on_card = choose_library(subgraph, mode) is Library.CARD
        target: Optional[Target] = None
        if self.on_card:
            target = check_card(subgraph, options, self._state)
            if options.pace == "vck5000":
                self._period = batch_seconds(graph, subgraph, target)
        self._loaded = _load(graph, subgraph, target, options)
        device = self._loaded.device
        order = random.Random(_order_seed(options)) if options.shuffle else None
        self.inputs = _tensors(graph, subgraph, _listed(device.inputs, options), True, order)
        self.outputs = _tensors(graph, subgraph, _listed(device.outputs, options), False, order)

    def execute(
        self, inputs: Sequence[HostBuffer], outputs: Sequence[HostBuffer], dynamic: bool = False
    ) -> Tuple[int, int]:
        """Starts one batch; the inputs have been copied when this returns.

        Args:
            inputs: one per tensor, in the order of ``inputs``.
            outputs: likewise; they are written before ``wait`` returns.
            dynamic: take the batch from the arrays' own shapes.

        Returns:
            The job's number and 0.

        Raises:
            XirAbort: buffers the runner cannot take, or the card went away.
        """
        strict = self._options.strict_buffers
        given = bind(inputs, [t.info for t in self.inputs], "input", dynamic, strict)
        taken = bind(outputs, [t.info for t in self.outputs], "output", dynamic, strict)
        batch = {one.info.name: one.read(self._options.rounding) for one in given}
        number = self._begin_job() if self.on_card else 0
        options = self._options
        if self.on_card and options.hangs_after is not None and number > options.hangs_after:
            return _engine.submit(None), 0
        due = _clock.reserve(self._period) if self._period else 0.0
        failing = self.on_card and number in options.fail_jobs
        ticket = None if failing else self._loaded.device.submit(batch)

        def finish() -> int:
            # By ``self`` the job keeps the device, also where its runner is gone before it is done.
            answer = None if ticket is None else self._loaded.device.wait(ticket)
            if due:
                _clock.wait_until(due)
            if options.delay > 0 and self.on_card:
                time.sleep(random.Random(f"{options.seed}:{number}").uniform(0, options.delay))
            if answer is None:
                return FAILED_STATUS
            _give(taken, answer)
            return 0

        return _engine.submit(finish), 0

    def _begin_job(self) -> int:
        """Counts a job and lets the card misbehave before it is run."""
        options, state = self._options, self._state
        if state.dead:
            raise abort("VART_DPU_TIMEOUT_ERROR", "DPU timeout", "the card is gone")
        number = state.next_job()
        if options.dies_after is not None and number > options.dies_after:
            state.mark_dead()
            raise abort("VART_DPU_TIMEOUT_ERROR", "DPU timeout", f"the card died at job {number}")
        over = options.crashes_after is not None and number > options.crashes_after
        if over and state.claim_crash():
            raise abort("VART_DPU_EXEC_ERROR", "DPU run fail", f"job {number} crashed")
        return number


def wait_for(number: int) -> int:
    """Blocks until job ``number`` of any runner is done; its status, 0 where it is not known."""
    return _engine.wait(number)


class _Loaded:
    """A device shared by all runners of one subgraph: there is one card, loaded once."""

    def __init__(self, graph: Graph, device: Device) -> None:
        self.graph, self.device = graph, device
        weakref.finalize(self, device.close).atexit = False


_loaded: weakref.WeakValueDictionary[Tuple[int, str, int, str], _Loaded]
_loaded = weakref.WeakValueDictionary()
_loading = threading.Lock()


def _load(
    graph: Graph, subgraph: Subgraph, target: Optional[Target], options: SimulateOptions
) -> _Loaded:
    inputs = [op for op in graph.boundary(subgraph)[0] if op.type not in CONSTANTS]
    compiled = inputs[0].tensor.dims[0] if inputs and inputs[0].tensor.dims else 1
    batch = compiled * (target.engines if target is not None else 1)
    kind = "cpu" if target is None else _device_kind(options.device)
    if kind == "cpu" and subgraph.device == "DPU":
        kind = "reference"
    with _loading:
        key = (id(graph), subgraph.name, batch, kind)
        found = _loaded.get(key)
        if found is None:
            if kind == "cpu":
                device: Device = CpuDevice(graph, subgraph)
            else:
                device = open_device(kind, graph, subgraph, batch=batch)
            found = _loaded[key] = _Loaded(graph, device)
        return found


def _device_kind(wanted: str) -> str:
    if wanted != "auto":
        return wanted
    available, reason = sim_available()
    if available:
        return "sim"
    note = f"The simulated card computes by the slow reference: {reason}"
    if note not in _notes:
        _notes.append(note)
        print(note, file=sys.stderr)
    return "reference"


def _order_seed(options: SimulateOptions) -> Optional[str]:
    """Of the order of tensors: another one for each runner, in each process.

    A seed other than 0 makes a process repeat the orders of an earlier one.
    """
    if options.seed == 0:
        return None
    return f"{options.seed}:{next(_orders)}"


def _listed(infos: Sequence[TensorInfo], options: SimulateOptions) -> List[TensorInfo]:
    """Tensors in the order in which a runner of the release lists them.

    Release 3.5 sorts by name. Before, the order is that of pointers: any, and a program should go
    by names (``shuffle`` shows whether it does). Published ones go by position and take the mask
    before the classifier, so the largest tensor comes first here.
    """
    by_name = sorted(infos, key=lambda info: info.name)
    if options.release == "3.5":
        return by_name
    return sorted(by_name, key=lambda info: -int(np.prod(info.shape)))


def _tensors(
    graph: Graph,
    subgraph: Subgraph,
    infos: Sequence[TensorInfo],
    are_inputs: bool,
    order: Optional[random.Random],
) -> Tuple[RunnerTensor, ...]:
    """The runner's tensors: names from outside the subgraph, attributes from inside.

    Inside, an upload's tensor stands for an input and what a download reads for an output; they
    have the addresses.
    """
    inside = set(subgraph.all_ops())
    consumers = graph.consumers()
    tensors = []
    for info in infos:
        op = graph.producer(info.name)
        assert op is not None
        attrs = {**_device_op(graph, op, are_inputs, inside, consumers).tensor.attrs}
        attrs["__device_id__"] = uint64(0)
        tensors.append(RunnerTensor(info, replace(op.tensor, dims=info.shape), attrs))
    if order is not None:
        order.shuffle(tensors)
    return tuple(tensors)


def _device_op(
    graph: Graph,
    op: Op,
    is_input: bool,
    inside: Any,
    consumers: Mapping[str, List[Op]],
) -> Op:
    if is_input:
        uploads = [c for c in consumers[op.name] if c.name in inside and c.type == "upload"]
        return uploads[0] if uploads else op
    return graph.input_ops(op)[0] if op.type == "download" else op


def _give(taken: Sequence[BoundBuffer], answer: Mapping[str, np.ndarray]) -> None:
    for one in taken:
        one.write(answer[one.info.name])
