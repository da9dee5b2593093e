"""Which feature maps of a network stand channels last in the exported model (rule 9.2, step 5).

The DPU's operators take NHWC. That order spreads from them through everything that keeps the rank,
upward and downward; where the rank or the order of the axes changes by the model's own will, the
model's order begins again and a transposition stands between.
"""

from __future__ import annotations

from typing import Set

from . import graph as g
from .graph import Node, QuantizerGraph

SINK = (0, 3, 1, 2)
"""The order of axes that takes NHWC to NCHW."""

SWIM = (0, 2, 3, 1)
"""The order of axes that takes NCHW to NHWC."""

_MAPS = g.CONVOLUTIONS | {
    g.INPUT,
    g.BATCH_NORM,
    g.MAXPOOL,
    g.AVGPOOL,
    g.ADAPTIVE_AVGPOOL,
    g.RESIZE,
    g.PIXEL_SHUFFLE,
    g.PRELU,
}
"""Operators on feature maps: NHWC whatever stands around them."""

_KEEPING = frozenset(
    {
        g.RELU,
        g.RELU6,
        g.LEAKY_RELU,
        g.HARDTANH,
        g.SIGMOID,
        g.TANH,
        g.HARDSIGMOID,
        g.HARDSWISH,
        g.SOFTMAX,
        g.GELU,
        g.MISH,
        g.EXP,
        g.ADD,
        g.SUB,
        g.RSUB,
        g.MUL,
        g.DIV,
        g.MAX,
        g.MIN,
        g.CONCAT,
        g.PAD,
        g.PAD_ND,
        g.STRIDED_SLICE,
        g.CONTIGUOUS,
        g.DROPOUT,
        g.EXPAND_AS,
        g.MEAN,
    }
)
"""Operators that take either order, and give the one they take."""


def channels_last(graph: QuantizerGraph) -> Set[Node]:
    """The nodes of rank 4 whose result is NHWC."""
    consumers = graph.consumers()
    found: Set[Node] = set()

    def spreads(node: Node) -> bool:
        return node.op in _KEEPING and len(node.shape) == 4

    changed = True
    while changed:
        before = len(found)
        for node in graph.nodes:
            if len(node.shape) == 4 and (
                node.op in _MAPS
                or (spreads(node) and any(source in found for source in node.inputs))
            ):
                found.add(node)
        for node in reversed(graph.nodes):
            # Upward only as far as the order is free; a map of one pixel has either order.
            free = node.op == g.CONST or spreads(node) or node.shape[2:] == (1, 1)
            wanted = any(takes_maps(c) and c in found for c in consumers[node])
            if len(node.shape) == 4 and free and wanted:
                found.add(node)
        changed = len(found) != before
    return found


def takes_maps(node: Node) -> bool:
    """Whether the operator takes the order of axes that its result has."""
    return node.op in _MAPS or node.op in _KEEPING
