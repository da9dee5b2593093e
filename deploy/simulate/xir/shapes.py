"""Shape inference: what tensor an operator makes of the tensors it reads."""

from __future__ import annotations

from typing import Any, Callable, Dict, List, Sequence

import numpy as np

from ....compile.xir.graph import DataType, Graph, Op
from ..abort import abort
from . import shape_layout as layout
from .datatype import checked_type
from .shape_case import Case, Dims, Made
from .shape_windows import convolution, pool


def infer(graph: Graph, op: Op) -> Made:
    """The tensor that ``op`` makes; its inputs must be in ``graph``.

    Raises:
        XirAbort: its inputs or attributes do not go together.
    """
    producers = {arg: [graph.ops[name] for name in names] for arg, names in op.inputs.items()}
    tensors = {arg: [source.tensor for source in ops] for arg, ops in producers.items()}
    case = Case(op, tensors, producers)
    kind = op.type[: -len("-fix")] if op.type.endswith("-fix") else op.type
    rule = _RULES.get(kind)
    if rule is None or not tensors.get("input"):
        return _declared(case)
    try:
        made = rule(case)
    except (TypeError, IndexError, ValueError, ZeroDivisionError, KeyError) as error:
        raise case.fail(f"attributes and inputs do not go together ({error})") from error
    if isinstance(made, Made):
        return made
    return Made(tuple(int(d) for d in made), case.first.dtype, case.first.bits)


def _declared(case: Case) -> Made:
    """Of an operator that says itself what it makes."""
    shape, name = case.get("shape"), case.get("data_type")
    if shape is None or name is None:
        raise abort(
            "XIR_OP_DEF_SHAPE_HINT_MISSING",
            "Missing attributes about shape and data type!",
            f"{case.op.name} ({case.op.type}) needs the attributes shape and data_type",
        )
    dtype, bits = checked_type(name)
    return Made(tuple(shape), dtype, bits)


def _same(case: Case) -> Dims:
    return case.dims


def _fix2float(case: Case) -> Made:
    return Made(case.dims, DataType.FLOAT, 32)


def _float2fix(case: Case) -> Made:
    dtype = DataType.XINT if case.get("if_signed") else DataType.XUINT
    return Made(case.dims, dtype, int(case.get("bit_width")))


def _cast(case: Case) -> Made:
    return Made(case.dims, *checked_type(case.get("data_type")))


def _broadcast(case: Case) -> Dims:
    every = [tensor.dims for tensor in case.inputs["input"]]
    rank = max(len(dims) for dims in every)
    result: List[int] = []
    for column in zip(*((1,) * (rank - len(dims)) + dims for dims in every)):
        sizes = set(column) - {1}
        if len(sizes) > 1:
            raise case.fail(f"{[list(dims) for dims in every]} cannot be broadcast")
        result.append(sizes.pop() if sizes else 1)
    return tuple(result)


def _reduction(case: Case) -> Dims:
    axes = {case.axis(a) for a in case.get("axis")}
    if case.get("keep_dims"):
        return tuple(1 if i in axes else d for i, d in enumerate(case.dims))
    return tuple(d for i, d in enumerate(case.dims) if i not in axes)


def _argmax(case: Case) -> Made:
    axis = case.axis(case.get("axis"))
    dims = case.dims[:axis] + case.dims[axis + 1 :]
    return Made(dims, DataType.INT, 32)


def _matmul(case: Case) -> Dims:
    if len(case.inputs["input"]) != 2:
        raise case.fail(f"{len(case.inputs['input'])} inputs where two are multiplied")
    a, b = (tensor.dims for tensor in case.inputs["input"])
    if min(len(a), len(b)) < 2:
        raise case.fail(f"{list(a)} by {list(b)}")
    left = (a[-1], a[-2]) if case.get("transpose_a") else (a[-2], a[-1])
    right = (b[-1], b[-2]) if case.get("transpose_b") else (b[-2], b[-1])
    if left[1] != right[0]:
        raise case.fail(f"{list(a)} by {list(b)}")
    rank = max(len(a), len(b)) - 2
    batch: List[int] = []
    for one, other in zip(_filled(a[:-2], rank), _filled(b[:-2], rank)):
        if one != other and 1 not in (one, other):
            raise case.fail(f"{list(a)} by {list(b)}")
        batch.append(max(one, other))
    return (*batch, left[0], right[1])


def _filled(dims: Sequence[int], rank: int) -> Dims:
    return (1,) * (rank - len(dims)) + tuple(dims)


def _inner_product(case: Case) -> Dims:
    axis = case.axis(case.get("axis"))
    weights = case.inputs["weights"][0]
    if int(np.prod(case.dims[axis:])) * weights.dims[0] != weights.elements:
        raise case.fail(f"{list(case.dims)} with weights {list(weights.dims)}")
    return (*case.dims[:axis], weights.dims[0])


def _shape(case: Case) -> Made:
    return Made((len(case.dims),), DataType.INT, 32, case.dims)


_RULES: Dict[str, Callable[[Case], Any]] = {
    "fix": _same,
    "float2fix": _float2fix,
    "fix2float": _fix2float,
    "cast": _cast,
    "conv1d": convolution(1),
    "conv2d": convolution(2),
    "conv3d": convolution(3),
    "depthwise-conv2d": convolution(2, depthwise=True),
    "depthwise-conv3d": convolution(3, depthwise=True),
    "transposed-conv2d": convolution(2, transposed=True),
    "transposed-conv3d": convolution(3, transposed=True),
    "transposed-depthwise-conv2d": convolution(2, depthwise=True, transposed=True),
    "transposed-depthwise-conv3d": convolution(3, depthwise=True, transposed=True),
    "maxpool1d": pool(1),
    "maxpool2d": pool(2),
    "avgpool2d": pool(2),
    "pool": pool(2),
    "concat": layout.concat,
    "stack": layout.stack,
    "reshape": layout.reshape,
    "flatten": layout.flatten,
    "squeeze": layout.squeeze,
    "transpose": layout.transpose,
    "strided_slice": layout.strided_slice,
    "pad": layout.pad,
    "resize": layout.resize,
    "upsample": layout.resize,
    "downsample": layout.resize,
    "reorg": layout.reorg,
    "pixel-shuffle": layout.pixel_shuffle,
    "tile": layout.tile,
    "gstiling": layout.tile,
    "argmax": _argmax,
    "matmul": _matmul,
    "inner-product": _inner_product,
    "shape": _shape,
}
for _type in ("add", "sub", "mul", "div", "max", "min", "eltwise", "depthwise"):
    _RULES[_type] = _broadcast
for _type in ("max", "mean", "product", "sum"):
    _RULES[f"reduction_{_type}"] = _reduction
_UNCHANGED = """
upload download identity placeholder threshold scale batchnorm groupnorm instancenorm l2_normalize
neg exp relu relu6 prelu leaky-relu elu celu selu gelu mish swish tanh sigmoid softmax hard-sigmoid
hard-softmax hard-swish hard-tanh
"""
for _type in _UNCHANGED.split():
    _RULES[_type] = _same
