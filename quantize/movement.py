"""Calls that only move values: joining, cutting, padding, reordering.

Importing this module imports torch.
"""

from __future__ import annotations

from typing import Any, List, Sequence

from torch import Tensor, nn

from . import graph as g
from .calls import Builder, Call
from .graph import Node


def concat(call: Call) -> Node:
    """Tensors joined along an axis."""
    parts = call.arg(0, "tensors")
    if not isinstance(parts, (tuple, list)):
        raise call.unsupported("it joins something other than computed tensors")
    axis = call.arg(1, "dim", call.kwargs.get("axis", 0))
    nodes = [part if isinstance(part, Node) else call.constant(part) for part in parts]
    return call.add(g.CONCAT, nodes, {"axis": axis % len(call.shape)})


def flatten(call: Call) -> Node:
    """Neighbouring axes made one."""
    source = call.operand(0, "input")
    rank = len(source.shape)
    if call.module is not None:
        start, end = call.module.start_dim, call.module.end_dim
    else:
        start, end = call.arg(1, "start_dim", 0), call.arg(2, "end_dim", -1)
    return call.add(g.FLATTEN, [source], {"start": start % rank, "end": end % rank})


def reshape(call: Call) -> Node:
    """Another shape; nothing where it is the same."""
    source = call.operand(0, "input")
    if call.shape == source.shape:
        return source
    if call.shape[0] != source.shape[0]:
        raise call.unsupported(f"it changes the batch, {source.shape} to {call.shape}")
    return call.add(g.RESHAPE, [source], {"shape": tuple(call.shape[1:])})


_FRESH = frozenset({g.EXPAND, g.REPEAT})
"""Moving operators whose result may get a fix position of its own, so it must not be a view."""


def moved(op: str) -> Builder:
    """An operator that only moves values; it is run as the model has it."""

    def build(call: Call) -> Node:
        source, compute = call.operand(0, "input"), call.compute
        if compute is None:
            raise call.unsupported("it is not in its table of operators")
        run, args, kwargs = compute, tuple(call.args[1:]), dict(call.kwargs)

        def move(operands: Sequence[Tensor]) -> Tensor:
            moved: Tensor = run(operands[0], *args, **kwargs)
            return moved.clone() if op in _FRESH else moved

        return call.add(op, [source], {"call": move})

    return build


def permute(call: Call) -> Node:
    """Axes in another order."""
    source = call.operand(0, "input")
    given = call.arg(1, "dims")
    dims = given if isinstance(given, (tuple, list)) else call.args[1:]
    order = tuple(int(d) % len(source.shape) for d in dims)
    return call.add(g.PERMUTE, [source], {"order": order})


def transpose(call: Call) -> Node:
    """Two axes exchanged."""
    source = call.operand(0, "input")
    rank = len(source.shape)
    names = ("dim0", "dim1") if "dim0" in call.kwargs else ("axis0", "axis1")
    first, second = (int(call.arg(i + 1, names[i])) % rank for i in range(2))
    order = list(range(rank))
    order[first], order[second] = second, first
    return call.add(g.TRANSPOSE, [source], {"order": tuple(order)})


def pad(call: Call) -> Node:
    """Borders; recent torch traces them in a form without rules of its own."""
    m = call.module
    given = m.padding if m is not None else call.arg(1, "pad")
    mode = call.arg(2, "mode", "constant") if m is None else _PAD_MODES.get(type(m), "constant")
    value = getattr(m, "value", 0) if m is not None else call.arg(3, "value")
    source = call.operand(0, "input")
    padding = tuple(int(p) for p in ([given] * 4 if isinstance(given, int) else given))
    attrs = {"padding": padding, "mode": mode, "value": float(value or 0)}
    return call.add(g.PAD_ND if call.graph.release.recent_torch else g.PAD, [source], attrs)


_PAD_MODES = {nn.ReflectionPad2d: "reflect", nn.ReplicationPad2d: "replicate"}


def chunk(call: Call) -> Any:
    """A tensor cut into equal parts."""
    source = call.operand(0, "input")
    axis = int(call.arg(2, "dim", 0)) % len(source.shape)
    return _results(call, source, g.CHUNK, axis, [shape[axis] for shape in call.shapes])


def _results(call: Call, source: Node, op: str, axis: int, sizes: List[int]) -> Any:
    made: List[Node] = []
    start = 0
    for size, shape in zip(sizes, call.shapes):
        call.shape = shape
        node = call.add(op, [source], {"axis": axis, "start": start, "length": size})
        node.twin = made[0] if made else None
        made.append(node)
        start += size
    return tuple(made)


def item(call: Call) -> Node:
    """Indexing of a tensor by numbers, ranges and ``...``."""
    source, given = call.operand(0, "input"), call.args[1]
    keys = list(given) if isinstance(given, tuple) else [given]
    if not all(isinstance(k, (int, slice)) or k is Ellipsis for k in keys):
        return call.custom()
    if Ellipsis in keys:
        at = keys.index(Ellipsis)
        keys[at : at + 1] = [slice(None)] * (len(source.shape) - len(keys) + 1)
    ranges = []
    for key, size in zip(keys, source.shape):
        if not isinstance(key, slice):
            return call.custom()
        start, stop, step = key.indices(size)
        ranges.append((start, stop, step))
    while len(ranges) < len(source.shape):
        ranges.append((0, source.shape[len(ranges)], 1))
    if ranges[0] != (0, source.shape[0], 1):
        return call.custom()
    return call.add(g.STRIDED_SLICE, [source], {"ranges": tuple(ranges)})


def expand_as(call: Call) -> Node:
    """A tensor repeated to the shape of another."""
    nodes = [call.operand(0, "input"), call.operand(1, "other")]
    return call.add(g.EXPAND_AS, nodes)


def same(call: Call) -> Node:
    """A call that does nothing here."""
    return call.operand(0, "input")


def dropout(call: Call) -> Node:
    """Nothing, or a node where the release still has it."""
    source = call.operand(0, "input")
    kept = call.graph.release.dropout_in_chains
    return call.add(g.DROPOUT, [source], {}) if kept else source


def dropout_function(call: Call) -> Node:
    """``F.dropout``, which must be off."""
    if call.arg(2, "training", True):
        raise call.unsupported("dropout that stays on in evaluation")
    return dropout(call)
