"""Shapes that operators make which move values without computing with them."""

from __future__ import annotations

from typing import Any, Callable, Optional

import numpy as np

from ....compile.xir.graph import DataType, Op
from .shape_case import Case, Dims, Made


def concat(case: Case) -> Dims:
    """Tensors one after the other along an axis."""
    every = [tensor.dims for tensor in case.inputs["input"]]
    axis = case.axis(case.get("axis"))
    rests = {dims[:axis] + dims[axis + 1 :] for dims in every}
    if len(rests) != 1 or len({len(dims) for dims in every}) != 1:
        raise case.fail(f"{[list(dims) for dims in every]} cannot be joined at {axis}")
    return (*case.dims[:axis], sum(dims[axis] for dims in every), *case.dims[axis + 1 :])


def stack(case: Case) -> Made:
    """Tensors along a new axis; of known numbers, those are kept as ``shape_info``."""
    every = [tensor.dims for tensor in case.inputs["input"]]
    if len(set(every)) != 1:
        raise case.fail(f"{[list(dims) for dims in every]} cannot be stacked")
    axis = case.axis(case.get("axis"), len(case.dims) + 1)
    dims = (*case.dims[:axis], len(every), *case.dims[axis:])
    values = [_shape_values(op) for op in case.producers["input"]]
    info: Optional[Dims] = None
    if all(value is not None and len(value) == 1 for value in values):
        info = tuple(v for value in values if value is not None for v in value)
    return Made(dims, case.first.dtype, case.first.bits, info)


def _shape_values(op: Op) -> Optional[Dims]:
    """The numbers that ``op`` makes if they are known before anything runs."""
    if "shape_info" in op.tensor.attrs:
        return tuple(op.tensor.get("shape_info"))
    names = {
        (DataType.FLOAT, 32): "<f4",
        (DataType.FLOAT, 64): "<f8",
        (DataType.INT, 32): "<i4",
        (DataType.INT, 64): "<i8",
    }
    name = names.get((op.tensor.dtype, op.tensor.bits))
    data = op.get("data", b"")
    if op.type != "const" or name is None or not data or len(op.tensor.dims) > 1:
        return None
    return tuple(int(v) for v in np.frombuffer(data, name))


def reshape(case: Case) -> Dims:
    """``shape``: 0 copies a dimension, -1 is what is left; a tensor may say it instead."""
    wanted: Any = case.get("shape")
    if case.producers.get("shape"):
        wanted = _shape_values(case.producers["shape"][0])
        if wanted is None:
            raise case.fail("the shape it reads is not known")
    if any(d < -1 for d in wanted) or sum(d == -1 for d in wanted) > 1:
        raise case.fail(f"shape {list(wanted)}")
    dims = [case.dims[i] if d == 0 else d for i, d in enumerate(wanted)]
    count = case.first.elements
    if -1 in dims:
        rest = int(np.prod([d for d in dims if d != -1]))
        dims[dims.index(-1)] = count // rest
    if int(np.prod(dims)) != count:
        raise case.fail(f"{list(case.dims)} cannot become {list(wanted)}")
    return tuple(dims)


def flatten(case: Case) -> Dims:
    """Axes from ``start_axis`` to ``end_axis`` made one."""
    start, end = case.axis(case.get("start_axis")), case.axis(case.get("end_axis"))
    if start > end:
        raise case.fail(f"axes {start} to {end}")
    return (
        *case.dims[:start],
        int(np.prod(case.dims[start : end + 1])),
        *case.dims[end + 1 :],
    )


def squeeze(case: Case) -> Dims:
    """Without the axes named, or without all that are 1 long."""
    axes = {case.axis(a) for a in case.get("axis") or ()}
    axes = axes or {i for i, d in enumerate(case.dims) if d == 1}
    if any(case.dims[a] != 1 for a in axes):
        raise case.fail(f"axes {sorted(axes)} of {list(case.dims)} are not all 1 long")
    return tuple(d for i, d in enumerate(case.dims) if i not in axes)


def transpose(case: Case) -> Dims:
    """Axes in another order."""
    order = case.get("order")
    if sorted(order) != list(range(len(case.dims))):
        raise case.fail(f"order {list(order)} of {list(case.dims)}")
    return tuple(case.dims[i] for i in order)


def strided_slice(case: Case) -> Dims:
    """From ``begin`` to ``end`` in steps, axis by axis as in Python."""
    parts = (case.get("begin"), case.get("end"), case.get("strides"))
    if any(len(part) != len(case.dims) for part in parts):
        raise case.fail(f"begin {parts[0]}, end {parts[1]}, strides {parts[2]}")
    dims = tuple(
        len(range(d)[begin:end:stride]) for d, begin, end, stride in zip(case.dims, *parts)
    )
    if 0 in dims:
        raise case.fail(f"nothing of {list(case.dims)} is left")
    return dims


def pad(case: Case) -> Dims:
    """With ``paddings`` before and after, axis by axis."""
    paddings = case.get("paddings")
    if len(paddings) != 2 * len(case.dims):
        raise case.fail(f"paddings {list(paddings)} of {list(case.dims)}")
    return tuple(d + paddings[2 * i] + paddings[2 * i + 1] for i, d in enumerate(case.dims))


def resize(case: Case) -> Dims:
    """Times ``scale``, width first, or to the numbers of the input ``size``."""
    sides = case.dims[1:-1]
    if case.producers.get("size"):
        size = _shape_values(case.producers["size"][0])
        if size is None or len(size) != len(sides):
            raise case.fail("the size it reads is not known")
        return (case.dims[0], *size, case.dims[-1])
    scale = case.get("scale")
    if len(scale) != len(sides):
        raise case.fail(f"scale {list(scale)} of {list(case.dims)}")
    # Width first, as kernels are.
    factors = (scale[1], scale[0], *scale[2:])
    if case.op.type == "downsample-fix":
        factors = tuple(1 / f for f in factors)
    return (
        case.dims[0],
        *(int(np.floor(d * f + 1e-6)) for d, f in zip(sides, factors)),
        case.dims[-1],
    )


def _blocks(scale: int, to_depth: bool) -> Callable[[Case], Dims]:
    def rule(case: Case) -> Dims:
        n, h, w, c = case.dims
        square = scale * scale
        if to_depth:
            if h % scale or w % scale:
                raise case.fail(f"{list(case.dims)} is no multiple of {scale}")
            return n, h // scale, w // scale, c * square
        if c % square:
            raise case.fail(f"{c} channels are no multiple of {square}")
        return n, h * scale, w * scale, c // square

    return rule


def reorg(case: Case) -> Dims:
    """Blocks to channels, or back with ``reverse``."""
    return _blocks(case.get("scale"), not case.get("reverse"))(case)


def pixel_shuffle(case: Case) -> Dims:
    """Channels to blocks, or back."""
    up = case.get("upscale") if "upscale" in case.op.attrs else not case.get("reverse")
    return _blocks(case.get("scale"), not up)(case)


def tile(case: Case) -> Dims:
    """Blocks to channels, or back with ``reverse``."""
    return _blocks(case.get("stride"), not case.get("reverse"))(case)
