"""Calls that work element by element, and the mean and softmax over axes.

Importing this module imports torch.
"""

from __future__ import annotations

from . import graph as g
from .calls import Builder, Call, Parameter
from .factors import LEAKY_SLOPE, division_factor
from .graph import Node


def unary(op: str) -> Builder:
    """An operator of one operand and no attributes."""
    return lambda call: call.add(op, [call.operand(0, "input")])


def binary(op: str) -> Builder:
    """An operator of two operands, one of which may be a number or a parameter."""

    def build(call: Call) -> Node:
        first, second = call.arg(0, "input"), call.arg(1, "other")
        alpha = call.kwargs.get("alpha", 1)
        if call.kwargs.get("rounding_mode") is not None or not call.is_float:
            return call.custom()
        kind = op
        if isinstance(first, (int, float)):
            if op == g.DIV:
                raise call.unsupported("a number is divided by a tensor")
            kind, first, second = (g.RSUB if op == g.SUB else op), second, first
        nodes = [v if isinstance(v, Node) else call.constant(v) for v in (first, second)]
        return call.add(kind, nodes, {} if alpha == 1 else {"alpha": float(alpha)})

    return build


def larger_or_smaller(op: str) -> Builder:
    """Element by element only; over a dimension it is another operator."""

    def build(call: Call) -> Node:
        if len(call.args) == 2 and all(isinstance(a, Node) for a in call.args):
            return call.add(op, list(call.args))
        return call.custom()

    return build


def mean(call: Call) -> Node:
    """The mean over axes; recent torch traces it in a form the vendor leaves in float."""
    dims, keep = call.arg(1, "dim"), bool(call.arg(2, "keepdim", False))
    if call.graph.release.recent_torch or dims is None:
        node = call.custom()
        call.graph.notes.append(
            "A mean over all pixels stays on the DPU as nn.AdaptiveAvgPool2d(1)"
        )
        return node
    source = call.operand(0, "input")
    rank = len(source.shape)
    axes = sorted(d % rank for d in (dims if isinstance(dims, (tuple, list)) else [dims]))
    count = 1
    for axis in axes:
        count *= source.shape[axis]
    attrs = {"axes": tuple(axes), "keep": keep, "factor": division_factor(count)}
    return call.add(g.MEAN, [source], attrs)


def hardtanh(call: Call) -> Node:
    """Clamping; from 0 to 6 it is a ReLU6."""
    if call.module is not None:
        low, high = call.module.min_val, call.module.max_val
    else:
        low, high = call.arg(1, "min_val", -1.0), call.arg(2, "max_val", 1.0)
    source = call.operand(0, "input")
    if (low, high) == (0, 6):
        return call.add(g.RELU6, [source])
    return call.add(g.HARDTANH, [source], {"low": float(low), "high": float(high)})


def prelu(call: Call) -> Node:
    """A leaky ReLU with learnt slopes."""
    weight = call.own("weight") if call.module is not None else call.arg(1, "weight")
    if not isinstance(weight, Parameter):
        raise call.unsupported("its slopes are computed, not parameters of the model")
    return call.add(g.PRELU, [call.operand(0, "input")], {}, {"weight": weight})


def gelu(call: Call) -> Node:
    """The Gaussian gate, exact or approximate."""
    if call.module is not None:
        how = getattr(call.module, "approximate", "none")
    else:
        how = call.arg(1, "approximate", "none")
    return call.add(g.GELU, [call.operand(0, "input")], {"approximate": how})


def matmul(call: Call) -> Node:
    """A product of two computed tensors."""
    return call.add(g.MATMUL, [call.tensor(0, "input"), call.tensor(1, "other")])


def leaky_relu(call: Call) -> Node:
    """A leaky ReLU, whose slope the DPU chooses."""
    slope = call.module.negative_slope if call.module else call.arg(1, "negative_slope", 0.01)
    if slope != LEAKY_SLOPE:
        call.graph.notes.append(
            f"{call.what}: the DPU's leaky slope {LEAKY_SLOPE} takes the place of {slope}"
        )
    return call.add(g.LEAKY_RELU, [call.operand(0, "input")])


def softmax(call: Call) -> Node:
    """A softmax over one axis."""
    axis = call.module.dim if call.module is not None else call.arg(1, "dim")
    if axis is None:
        raise call.unsupported("it names no dimension")
    return call.add(g.SOFTMAX, [call.operand(0, "input")], {"axis": axis % len(call.shape)})
