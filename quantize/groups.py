"""Which tensors get a fix position, and in which order they stand in the calibration result.

Operators that only pass values on form a group with the operator before them; the group's last
suitable tensor carries the fix position. These are rules 3.3 to 3.6 of the vendor's quantizer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict, FrozenSet, List, Tuple

from . import graph as g
from .graph import Node, QuantizerGraph
from .releases import Release, Unfilled

QUANTIZABLE = g.WEIGHTED | {
    g.INPUT,
    g.BATCH_NORM,
    g.ADD,
    g.SUB,
    g.MUL,
    g.CONCAT,
    g.MAXPOOL,
    g.AVGPOOL,
    g.ADAPTIVE_AVGPOOL,
    g.RESIZE,
    g.HARDSIGMOID,
    g.HARDSWISH,
    g.RSUB,
    g.DIV,
    g.MAX,
    g.MIN,
    g.MATMUL,
    g.MEAN,
    g.PAD,
    g.PRELU,
    g.GELU,
    g.MISH,
}
"""Operators whose result must lie on a grid in every release; sigmoid and tanh stay float."""

_UNFILLED: Dict[Unfilled, FrozenSet[str]] = {
    Unfilled.NONE: frozenset(),
    Unfilled.GATES: frozenset({g.SIGMOID, g.TANH}),
    Unfilled.SOFTMAX: frozenset({g.SOFTMAX}),
}

_FOLLOWERS = frozenset(
    {
        g.RELU,
        g.RELU6,
        g.HARDTANH,
        g.LEAKY_RELU,
        g.FLATTEN,
        g.SQUEEZE,
        g.UNSQUEEZE,
        g.PIXEL_SHUFFLE,
        g.STRIDED_SLICE,
        g.TRANSPOSE,
        g.PERMUTE,
        g.CONTIGUOUS,
        g.CHUNK,
        g.EXPAND,
        g.REPEAT,
        g.DROPOUT,
    }
)
"""Operators that join the group of their producer if they are its only reader."""

_UNFIXED = frozenset(
    {
        g.CHUNK,
        g.STRIDED_SLICE,
        g.PERMUTE,
        g.FLATTEN,
        g.RESHAPE,
        g.PIXEL_SHUFFLE,
        g.CONTIGUOUS,
        g.SQUEEZE,
        g.UNSQUEEZE,
    }
)
"""Operators that move data only; their tensor has the fix position of the one before."""


@dataclass(frozen=True)
class Entries:
    """The tensors of a calibration result, in the order of the vendor's file.

    Attributes:
        params: parameter keys.
        outputs: nodes whose tensor is quantized where it is made.
        carriers: for every node the one that carries the fix position of its result.
        unfilled: those of ``outputs`` that are listed only and stay float.
    """

    params: Tuple[str, ...]
    outputs: Tuple[Node, ...]
    carriers: Dict[Node, Node]
    unfilled: FrozenSet[Node] = frozenset()

    @property
    def filled(self) -> Tuple[Node, ...]:
        """The nodes whose tensor is quantized, in the order of the file."""
        return tuple(node for node in self.outputs if node not in self.unfilled)


def quantizable_operators(release: Release) -> FrozenSet[str]:
    """The operators whose result gets an entry in ``release``."""
    found = QUANTIZABLE | _UNFILLED[release.unfilled]
    return found | {g.SOFTMAX} if release.softmax_fixed else found


def entries(graph: QuantizerGraph) -> Entries:
    """What is to be calibrated in the folded, numbered ``graph``."""
    carriers = _carriers(graph)
    params: Dict[str, None] = {}
    outputs: Dict[Node, None] = {}
    consumers = graph.consumers()
    listed = quantizable_operators(graph.release)
    quantizable = [node for node in graph.nodes if node.op in listed]
    for node in quantizable:
        for key in node.params.values():
            params[key] = None
        if node.op == g.INPUT and [c.custom for c in consumers[node]] == [True]:
            continue
        outputs[carriers[node]] = None
    # Whatever else feeds a quantizable operator: a sigmoid before a product, a ReLU after a
    # convolution with two readers. The operands of a concat are quantized as part of its result.
    for node in quantizable:
        if node.op not in (g.INPUT, g.CONCAT):
            for source in node.inputs:
                if carriers[source].is_float:
                    outputs[carriers[source]] = None
    never = _UNFILLED[graph.release.unfilled]
    unfilled = frozenset(n for n in outputs if n.op in never or n.attrs.get("uneven"))
    return Entries(tuple(params), tuple(outputs), carriers, unfilled)


def _groups(graph: QuantizerGraph) -> Dict[Node, List[Node]]:
    """Every node to its group, in execution order."""
    uses = graph.uses()
    group: Dict[Node, List[Node]] = {}
    for node in graph.nodes:
        if _follows(node, uses):
            group[node] = group[node.inputs[0]]
            group[node].append(node)
        else:
            group[node] = [node]
    return group


def _follows(node: Node, uses: Dict[Node, int]) -> bool:
    if not node.inputs:
        return False
    source = node.inputs[0]
    if node.op == g.RESHAPE:
        return source.op != g.SHAPE
    alone = len(node.inputs) == 1 and uses[source] <= 1
    return node.op in _FOLLOWERS and alone and not source.custom


def _carriers(graph: QuantizerGraph) -> Dict[Node, Node]:
    group, consumers, uses = _groups(graph), graph.consumers(), graph.uses()

    def carrier(node: Node) -> Node:
        members = group[node]
        last = members[-1]
        if uses[last] == 1 and consumers[last] and consumers[last][0].op == g.CONCAT:
            return consumers[last][0]
        position = len(members) - 1
        while members[position].op in _UNFIXED and position > 0:
            position -= 1
        found = members[position]
        while found.op in _UNFIXED and found.inputs:
            found = found.inputs[0]
        return found

    return {node: carrier(node) for node in graph.nodes}
