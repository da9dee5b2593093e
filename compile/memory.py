"""Where every tensor of a DPU subgraph stands: register spaces, addresses, strides, parameters.

``REG_0`` holds the parameters, ``REG_1`` the workspace, ``REG_2`` the inputs, ``REG_3`` the
outputs. As in genuine models for this card the workspace is never reused: concatenation buffers
come first, then every tensor in file order. A concatenation is done by placement: its operands
are written straight into its buffer, with the buffer's strides.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Dict, List, Mapping, Sequence, Set, Tuple

import numpy as np

from .weights import pack_constant
from .xir.attributes import int32, int32s
from .xir.graph import Graph, Op

PARAMETERS, WORKSPACE, INPUTS, OUTPUTS = 0, 1, 2, 3
"""Register spaces."""


@dataclass
class MemoryPlan:
    """The result of ``plan_memory``.

    Attributes:
        sizes: bytes per register space that is used.
        parameters: the content of ``REG_0``.
        on_chip: operators whose result never leaves the chip, as the pooling after them takes it.
    """

    sizes: Dict[int, int] = field(default_factory=dict)
    parameters: bytes = b""
    on_chip: Set[str] = field(default_factory=set)


def plan_memory(
    graph: Graph, members: Sequence[str], constants: Mapping[str, np.ndarray]
) -> MemoryPlan:
    """Places every tensor of one DPU subgraph and packs its parameters.

    Args:
        graph: sets ``reg_id``, ``ddr_addr``, ``location`` and ``stride`` on its tensors.
        members: the subgraph's operators in file order, uploads and downloads included.
        constants: int8 values of the ``const-fix`` operators.
    """
    return _Planner(graph, members).run(constants)


def fused_pooling(graph: Graph, consumers: Mapping[str, List[Op]], op: Op) -> bool:
    """Whether the maximum pooling that alone reads convolution ``op`` runs in its layer."""
    readers = consumers[op.name]
    return (
        op.type == "conv2d-fix"
        and len(readers) == 1
        and readers[0].type == "pool-fix"
        and readers[0].get("type") == "MAX"
        and readers[0].get("device") == op.get("device")
    )


def is_placeable(operand: Op, concat: Op, readers: Sequence[Op]) -> bool:
    """Whether ``operand`` can be written straight into the buffer of ``concat``.

    It cannot if it comes from outside, stands in another buffer already, appears twice, or is
    needed in one piece.
    """
    if operand.type in ("upload", "reshape-fix"):
        return False
    if concat.inputs["input"].count(operand.name) > 1:
        return False
    others = [reader for reader in readers if reader.name != concat.name]
    return all(r.type not in ("concat-fix", "reshape-fix", "download") for r in others)


def contiguous(dims: Sequence[int]) -> Tuple[int, ...]:
    """Bytes from one element to the next along each axis of a dense int8 tensor."""
    strides = [1]
    for dim in reversed(dims[1:]):
        strides.insert(0, strides[0] * dim)
    return tuple(strides)


class _Planner:
    def __init__(self, graph: Graph, members: Sequence[str]) -> None:
        self.graph = graph
        self.ops = [graph.ops[name] for name in members]
        self.inside = set(members)
        self.consumers = graph.consumers()
        self.plan = MemoryPlan()
        self.placed: Set[str] = set()

    def run(self, constants: Mapping[str, np.ndarray]) -> MemoryPlan:
        parameters = bytearray()
        for op in self.ops:
            if op.type == "const-fix":
                self.mark(op, PARAMETERS, len(parameters))
                parameters += pack_constant(self.consumers[op.name][0], constants[op.name])
        self.plan.parameters = bytes(parameters)
        self.plan.sizes[PARAMETERS] = len(parameters)
        for op in self.ops:
            if op.type == "upload":
                self.place_new(op, INPUTS)
        for op in self.ops:
            if op.type == "concat-fix" and not self.is_operand(op):
                self.place_new(op, self.space(op))
        for op in self.ops:
            if op.name in self.placed or op.type in ("const-fix", "download"):
                continue
            if fused_pooling(self.graph, self.consumers, op):
                self.mark(op, WORKSPACE, 0, location=0)
                self.plan.on_chip.add(op.name)
            elif op.type == "reshape-fix":
                self.place_view(op)
            elif not any(r.type == "reshape-fix" for r in self.consumers[op.name]):
                self.place_new(op, self.space(op))
        self.plan.sizes = dict(sorted(self.plan.sizes.items()))
        return self.plan

    def is_operand(self, op: Op) -> bool:
        """Whether ``op`` is written into a concatenation's buffer."""
        return any(
            r.type == "concat-fix" and r.name in self.inside for r in self.consumers[op.name]
        )

    def space(self, op: Op) -> int:
        """``OUTPUTS`` if ``op`` or a view of it leaves the subgraph, ``WORKSPACE`` otherwise."""
        for reader in self.consumers[op.name]:
            if reader.type == "download":
                return OUTPUTS
            if reader.type == "reshape-fix" and self.space(reader) == OUTPUTS:
                return OUTPUTS
        return WORKSPACE

    def place_new(self, op: Op, space: int) -> None:
        """Gives ``op`` the next free bytes of ``space``."""
        address = self.plan.sizes.get(space, 0)
        self.plan.sizes[space] = address + op.tensor.elements
        self.place(op, space, address, contiguous(op.tensor.dims))

    def place_view(self, op: Op) -> None:
        """Gives a reshape the bytes of its input, which is placed here if it is not yet."""
        source = self.graph.input_ops(op)[0]
        if source.name not in self.placed:
            if source.type == "reshape-fix":
                self.place_view(source)
            else:
                self.place_new(source, self.space(source))
        tensor = source.tensor
        self.place(op, tensor.get("reg_id"), tensor.get("ddr_addr"), contiguous(op.tensor.dims))

    def place(self, op: Op, space: int, address: int, strides: Tuple[int, ...]) -> None:
        """Puts ``op`` at ``address``; operands of a concatenation go into its buffer with it."""
        self.mark(op, space, address)
        op.tensor.attrs["stride"] = int32s(strides)
        if op.type != "concat-fix":
            return
        axis = op.get("axis")
        for operand in self.graph.input_ops(op):
            self.place(operand, space, address, strides)
            address += operand.tensor.dims[axis] * strides[axis]

    def mark(self, op: Op, space: int, address: int, location: int = 1) -> None:
        op.tensor.attrs["reg_id"] = int32(space)
        op.tensor.attrs["ddr_addr"] = int32(address)
        op.tensor.attrs["location"] = int32(location)
        self.placed.add(op.name)
