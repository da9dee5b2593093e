"""Shape inference: what tensor an operator makes of the tensors it reads.

Feature maps are NHWC; kernels, strides and dilations go width first, pads left, right, top,
bottom. A one-dimensional window has the width only, a three-dimensional one goes on with the
depth, over NHWDC.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple

import numpy as np

from ....compile.xir.attributes import Attr, int32s
from ....compile.xir.graph import DataType, Graph, Op, Tensor
from ..abort import XirAbort, abort
from .datatype import checked_type

Dims = Tuple[int, ...]


@dataclass(frozen=True)
class Made:
    """The tensor an operator makes.

    Attributes:
        info: the values of a tensor that only says a shape, kept beside it as ``shape_info``.
    """

    dims: Dims
    dtype: DataType
    bits: int
    info: Optional[Dims] = None

    @property
    def attrs(self) -> Dict[str, Attr]:
        """Attributes of the tensor."""
        return {} if self.info is None else {"shape_info": int32s(self.info)}


@dataclass
class _Case:
    """One operator with the tensors it reads."""

    op: Op
    inputs: Mapping[str, List[Tensor]]
    producers: Mapping[str, List[Op]] = field(default_factory=dict)

    @property
    def first(self) -> Tensor:
        return self.inputs["input"][0]

    @property
    def dims(self) -> Dims:
        return self.first.dims

    def get(self, name: str, default: Any = None) -> Any:
        return self.op.get(name, default)

    def fail(self, text: str) -> XirAbort:
        return abort(
            "XIR_SHAPE_UNMATCH",
            "Shape is unmatched!",
            f"{self.op.name} ({self.op.type}): {text}",
        )

    def axis(self, value: int, rank: Optional[int] = None) -> int:
        rank = len(self.dims) if rank is None else rank
        if not -rank <= value < rank:
            raise self.fail(f"axis {value} of {rank}")
        return value % rank


def infer(graph: Graph, op: Op) -> Made:
    """The tensor that ``op`` makes; its inputs must be in ``graph``.

    Raises:
        XirAbort: its inputs or attributes do not go together.
    """
    producers = {arg: [graph.ops[name] for name in names] for arg, names in op.inputs.items()}
    tensors = {arg: [source.tensor for source in ops] for arg, ops in producers.items()}
    case = _Case(op, tensors, producers)
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


def _declared(case: _Case) -> Made:
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


def _same(case: _Case) -> Dims:
    return case.dims


def _fix2float(case: _Case) -> Made:
    return Made(case.dims, DataType.FLOAT, 32)


def _float2fix(case: _Case) -> Made:
    dtype = DataType.XINT if case.get("if_signed") else DataType.XUINT
    return Made(case.dims, dtype, int(case.get("bit_width")))


def _cast(case: _Case) -> Made:
    return Made(case.dims, *checked_type(case.get("data_type")))


def _broadcast(case: _Case) -> Dims:
    every = [tensor.dims for tensor in case.inputs["input"]]
    rank = max(len(dims) for dims in every)
    result: List[int] = []
    for column in zip(*((1,) * (rank - len(dims)) + dims for dims in every)):
        sizes = set(column) - {1}
        if len(sizes) > 1:
            raise case.fail(f"{[list(dims) for dims in every]} cannot be broadcast")
        result.append(sizes.pop() if sizes else 1)
    return tuple(result)


# ---------------------------------------------------------------- windows


def _windowed(length: int, kernel: int, stride: int, pads: int, mode: str) -> int:
    if mode == "SAME":
        return -(-length // stride)
    if mode == "VALID":
        return -(-(length - kernel + 1) // stride)
    room = length + pads - kernel
    return (-(-room // stride) if mode == "CEIL" else room // stride) + 1


def _transposed(length: int, kernel: int, stride: int, pads: int, mode: str) -> int:
    if mode == "SAME":
        return length * stride
    return (length - 1) * stride + kernel - (0 if mode == "VALID" else pads)


def _spatial(case: _Case, count: int, rule: Callable[[int, int, int, int, str], int]) -> List[int]:
    """Lengths of the ``count`` spatial axes, in the tensor's order."""
    if len(case.dims) != count + 2:
        raise case.fail(f"the input {list(case.dims)} has not {count + 2} axes")
    mode = case.get("pad_mode", "FLOOR")
    if mode not in ("FLOOR", "CEIL", "SAME", "VALID"):
        raise abort("XIR_UNEXPECTED_VALUE", "Unexpected value!", f"pad_mode {mode}")
    kernel, stride = case.get("kernel"), case.get("stride")
    dilation = case.get("dilation") or (1,) * count
    pad = case.get("pad") or (0,) * (2 * count)
    if not (len(kernel) == len(stride) == len(dilation) == count and len(pad) == 2 * count):
        raise case.fail(f"kernel {kernel}, stride {stride}, dilation {dilation}, pad {pad}")
    # Attributes begin with the width, tensors with the height.
    places = {1: (1,), 2: (2, 1), 3: (2, 1, 3)}[count]
    result = [0] * count
    for at, place in enumerate(places):
        reach = (kernel[at] - 1) * dilation[at] + 1
        pads = pad[2 * at] + pad[2 * at + 1]
        result[place - 1] = rule(case.dims[place], reach, stride[at], pads, mode)
    if min(result) < 1:
        raise case.fail(f"of {list(case.dims)} would become {result}")
    return result


def _convolution(
    count: int, depthwise: bool = False, transposed: bool = False
) -> Callable[[_Case], Dims]:
    def rule(case: _Case) -> Dims:
        sides = _spatial(case, count, _transposed if transposed else _windowed)
        weights = case.inputs["weights"][0].dims
        if len(weights) != count + 2:
            raise case.fail(f"weights {list(weights)}")
        kernel = tuple(case.get("kernel"))
        expected = kernel[1::-1] + kernel[2:]
        if weights[1:-1] != expected:
            raise case.fail(f"kernel {list(kernel)} with weights {list(weights)}")
        group = 1 if depthwise else int(case.get("group", 1))
        if case.dims[-1] != weights[-1] * group:
            raise case.fail(f"{case.dims[-1]} channels with weights {list(weights)}")
        channels = weights[0] * weights[-1] if depthwise else weights[0]
        return (case.dims[0], *sides, channels)

    return rule


def _pool(count: int) -> Callable[[_Case], Dims]:
    def rule(case: _Case) -> Dims:
        everything = case.get("global", False)
        sides = [1] * count if everything else _spatial(case, count, _windowed)
        return (case.dims[0], *sides, case.dims[-1])

    return rule


# ---------------------------------------------------------------- layout


def _concat(case: _Case) -> Dims:
    every = [tensor.dims for tensor in case.inputs["input"]]
    axis = case.axis(case.get("axis"))
    rests = {dims[:axis] + dims[axis + 1 :] for dims in every}
    if len(rests) != 1 or len({len(dims) for dims in every}) != 1:
        raise case.fail(f"{[list(dims) for dims in every]} cannot be joined at {axis}")
    return (*case.dims[:axis], sum(dims[axis] for dims in every), *case.dims[axis + 1 :])


def _stack(case: _Case) -> Made:
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


def _reshape(case: _Case) -> Dims:
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


def _flatten(case: _Case) -> Dims:
    start, end = case.axis(case.get("start_axis")), case.axis(case.get("end_axis"))
    if start > end:
        raise case.fail(f"axes {start} to {end}")
    return (
        *case.dims[:start],
        int(np.prod(case.dims[start : end + 1])),
        *case.dims[end + 1 :],
    )


def _squeeze(case: _Case) -> Dims:
    axes = {case.axis(a) for a in case.get("axis") or ()}
    axes = axes or {i for i, d in enumerate(case.dims) if d == 1}
    if any(case.dims[a] != 1 for a in axes):
        raise case.fail(f"axes {sorted(axes)} of {list(case.dims)} are not all 1 long")
    return tuple(d for i, d in enumerate(case.dims) if i not in axes)


def _transpose(case: _Case) -> Dims:
    order = case.get("order")
    if sorted(order) != list(range(len(case.dims))):
        raise case.fail(f"order {list(order)} of {list(case.dims)}")
    return tuple(case.dims[i] for i in order)


def _strided_slice(case: _Case) -> Dims:
    parts = (case.get("begin"), case.get("end"), case.get("strides"))
    if any(len(part) != len(case.dims) for part in parts):
        raise case.fail(f"begin {parts[0]}, end {parts[1]}, strides {parts[2]}")
    dims = tuple(
        len(range(d)[begin:end:stride]) for d, begin, end, stride in zip(case.dims, *parts)
    )
    if 0 in dims:
        raise case.fail(f"nothing of {list(case.dims)} is left")
    return dims


def _pad(case: _Case) -> Dims:
    paddings = case.get("paddings")
    if len(paddings) != 2 * len(case.dims):
        raise case.fail(f"paddings {list(paddings)} of {list(case.dims)}")
    return tuple(d + paddings[2 * i] + paddings[2 * i + 1] for i, d in enumerate(case.dims))


def _resize(case: _Case) -> Dims:
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


def _blocks(scale: int, to_depth: bool) -> Callable[[_Case], Dims]:
    def rule(case: _Case) -> Dims:
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


def _reorg(case: _Case) -> Dims:
    return _blocks(case.get("scale"), not case.get("reverse"))(case)


def _pixel_shuffle(case: _Case) -> Dims:
    up = case.get("upscale") if "upscale" in case.op.attrs else not case.get("reverse")
    return _blocks(case.get("scale"), not up)(case)


def _tile(case: _Case) -> Dims:
    return _blocks(case.get("stride"), not case.get("reverse"))(case)


# ---------------------------------------------------------------- sums


def _reduction(case: _Case) -> Dims:
    axes = {case.axis(a) for a in case.get("axis")}
    if case.get("keep_dims"):
        return tuple(1 if i in axes else d for i, d in enumerate(case.dims))
    return tuple(d for i, d in enumerate(case.dims) if i not in axes)


def _argmax(case: _Case) -> Made:
    axis = case.axis(case.get("axis"))
    dims = case.dims[:axis] + case.dims[axis + 1 :]
    return Made(dims, DataType.INT, 32)


def _matmul(case: _Case) -> Dims:
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


def _inner_product(case: _Case) -> Dims:
    axis = case.axis(case.get("axis"))
    weights = case.inputs["weights"][0]
    if int(np.prod(case.dims[axis:])) * weights.dims[0] != weights.elements:
        raise case.fail(f"{list(case.dims)} with weights {list(weights.dims)}")
    return (*case.dims[:axis], weights.dims[0])


def _shape(case: _Case) -> Made:
    return Made((len(case.dims),), DataType.INT, 32, case.dims)


_RULES: Dict[str, Callable[[_Case], Any]] = {
    "fix": _same,
    "float2fix": _float2fix,
    "fix2float": _fix2float,
    "cast": _cast,
    "conv1d": _convolution(1),
    "conv2d": _convolution(2),
    "conv3d": _convolution(3),
    "depthwise-conv2d": _convolution(2, depthwise=True),
    "depthwise-conv3d": _convolution(3, depthwise=True),
    "transposed-conv2d": _convolution(2, transposed=True),
    "transposed-conv3d": _convolution(3, transposed=True),
    "transposed-depthwise-conv2d": _convolution(2, depthwise=True, transposed=True),
    "transposed-depthwise-conv3d": _convolution(3, depthwise=True, transposed=True),
    "maxpool1d": _pool(1),
    "maxpool2d": _pool(2),
    "avgpool2d": _pool(2),
    "pool": _pool(2),
    "concat": _concat,
    "stack": _stack,
    "reshape": _reshape,
    "flatten": _flatten,
    "squeeze": _squeeze,
    "transpose": _transpose,
    "strided_slice": _strided_slice,
    "pad": _pad,
    "resize": _resize,
    "upsample": _resize,
    "downsample": _resize,
    "reorg": _reorg,
    "pixel-shuffle": _pixel_shuffle,
    "tile": _tile,
    "gstiling": _tile,
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
