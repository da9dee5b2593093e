"""Whether operators can mean anything: attributes, fix points and shapes that a file may get wrong.

A damaged or mistaken file can be read and looked at; it is refused here before something is
computed from it or allocated for it.
"""

from __future__ import annotations

from typing import Any, Iterable, List, Optional, Tuple

from ...errors import FormatError
from .graph import Graph, Op

MOST_ELEMENTS = 2**28
"""Of one tensor; the largest of any known model has 77 million."""

FIX_POINTS = (-31, 31)
"""Positions the DPU's shifters could reach; the quantizer gives -4 to 12."""

_MOST_SIDE = 2**14
_WINDOWED = ("conv2d", "depthwise-conv2d", "transposed-conv2d", "transposed-depthwise-conv2d")
_POOLS = ("pool-fix", "maxpool2d", "avgpool2d")
_SAME = (
    "fix", "upload", "download", "identity", "float2fix", "fix2float", "relu", "relu6",
    "leaky-relu", "sigmoid", "tanh", "softmax", "hard-sigmoid", "hard-sigmoid-fix",
)  # fmt: skip
_READING = (
    "eltwise", "add", "sub", "mul", "depthwise", "reshape", "transpose", "flatten", "squeeze",
    "matmul", "pad", "upsample", "downsample", "resize", "reorg", "concat",
)  # fmt: skip
_MORE_ACCUMULATOR = 24
_MORE_BIAS = 40


def refuse_unsound(graph: Graph, ops: Iterable[Op]) -> None:
    """Refuses operators that nothing can compute.

    Args:
        graph: the model.
        ops: those about to be computed.

    Raises:
        FormatError: naming the operator, its tensor and what is wrong with it.
    """
    for op in ops:
        for tensor in (op.tensor, *(graph.ops[name].tensor for name in op.input_names)):
            wrong = _tensor_fault(tensor.dims, tensor.fix_point)
            if wrong is not None:
                raise _refused(op, f"tensor {tensor.name!r} {wrong}")
        fault = _fault(graph, op)
        if fault is not None:
            raise _refused(op, fault)


def _refused(op: Op, fault: str) -> FormatError:
    return FormatError(
        f"Operator {op.name!r} (tensor {op.tensor.name!r}) is impossible",
        f"{op.type}: {fault}",
        "the file is damaged or was changed: deepfake-fpga quant --mode test and compile again",
    )


def _tensor_fault(dims: Tuple[int, ...], fix_point: Any) -> Optional[str]:
    if any(dim < 1 for dim in dims):
        return f"has the shape {list(dims)}"
    count = 1
    for dim in dims:
        count *= dim
    if count > MOST_ELEMENTS:
        return f"of shape {list(dims)} has {count} elements, at most {MOST_ELEMENTS} are believed"
    return None if fix_point is None else _position_fault(fix_point)


def _position_fault(value: Any) -> Optional[str]:
    low, high = FIX_POINTS
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        return f"has the fix point {value!r}, possible are {low} to {high}"
    return None


def _fault(graph: Graph, op: Op) -> Optional[str]:
    if op.type in ("fix", "float2fix", "fix2float"):
        fault = _position_fault(op.get("fix_point"))
        if fault is not None:
            return fault
        if op.get("bit_width", 8) != 8:
            return f"has {op.get('bit_width')!r} bits, only 8 are known"
    kind = op.type[: -len("-fix")] if op.type.endswith("-fix") else op.type
    if kind in _WINDOWED:
        return _window_fault(op) or _arguments(graph, op) or _convolution_fault(graph, op, kind)
    sources = graph.input_ops(op)
    if op.type in _POOLS:
        if len(sources) != 1:
            return f"reads {len(sources)} tensors"
        if op.get("global", False):
            return None
        return _window_fault(op) or _pool_fault(op, sources[0])
    if op.type in _SAME and len(sources) != 1:
        return f"reads {len(sources)} tensors"
    if op.type in _SAME and sources[0].tensor.dims != op.tensor.dims:
        return f"makes {list(op.tensor.dims)} of {list(sources[0].tensor.dims)}"
    if kind == "concat" and sources:
        return _concat_fault(op, sources)
    if kind in _READING and not sources:
        return "reads nothing"
    return None


def _window_fault(op: Op) -> Optional[str]:
    for key in ("kernel", "stride", "dilation"):
        value = op.get(key)
        if value is None and key == "dilation":
            continue
        if not _integers(value, 2) or not all(1 <= v <= _MOST_SIDE for v in value):
            return f"{key} {value!r}"
    pad = op.get("pad")
    if pad and (not _integers(pad, 4) or not all(0 <= v <= _MOST_SIDE for v in pad)):
        return f"pad {pad!r}"
    return None


def _integers(value: Any, count: int) -> bool:
    return (
        isinstance(value, (tuple, list))
        and len(value) == count
        and all(isinstance(v, int) and not isinstance(v, bool) for v in value)
    )


def _arguments(graph: Graph, op: Op) -> Optional[str]:
    for name, most in (("input", 1), ("weights", 1), ("bias", 1)):
        count = len(op.inputs.get(name, ()))
        if count > most or (count == 0 and name != "bias"):
            return f"has {count} tensors as {name!r}"
    ranks = [len(graph.input_ops(op, name)[0].tensor.dims) for name in ("input", "weights")]
    if ranks != [4, 4] or len(op.tensor.dims) != 4:
        return f"input and weights have the ranks {ranks}"
    return None


def _convolution_fault(graph: Graph, op: Op, kind: str) -> Optional[str]:
    source = graph.input_ops(op)[0].tensor.dims
    weights = graph.input_ops(op, "weights")[0].tensor.dims
    width, height = op.get("kernel")
    if weights[1:3] != (height, width):
        return f"kernel {op.get('kernel')!r} with weights {list(weights)}"
    depthwise = "depthwise" in kind
    groups = 1 if depthwise else int(op.get("group", 1) or 1)
    if groups < 1 or source[3] != weights[3] * groups or weights[0] % groups:
        return f"weights {list(weights)} on {source[3]} channels in {groups} groups"
    outputs = weights[0] * weights[3] if depthwise else weights[0]
    biases = graph.input_ops(op, "bias")
    if biases and biases[0].tensor.elements not in (outputs, weights[3] if depthwise else outputs):
        return f"{biases[0].tensor.elements} biases for {outputs} channels"
    sides = [_convolved(op, kind, source[axis + 1], axis) for axis in (0, 1)]
    expected = (*sides, outputs)
    if op.tensor.dims[1:] != expected:
        return f"makes {list(op.tensor.dims[1:])} where its attributes give {list(expected)}"
    return _shift_fault(graph, op)


def _shift_fault(graph: Graph, op: Op) -> Optional[str]:
    """Fix points whose sums could leave 64 bits."""
    points = [
        found[0].tensor.fix_point if found else 0
        for found in (graph.input_ops(op, name) for name in ("input", "weights", "bias"))
    ]
    if any(point is None for point in points):
        return None
    fi, fw, fb = (int(point or 0) for point in points)
    fraction = max(fi + fw, 0, fb)
    if fraction - fi - fw > _MORE_ACCUMULATOR or fraction - fb > _MORE_BIAS:
        return f"fix points {fi} of the input, {fw} of the weights and {fb} of the bias"
    return None


def _geometry(op: Op, axis: int) -> Tuple[int, int, int, int]:
    """Kernel, stride, dilation and both pads together, of height (0) or width (1)."""
    pick = 1 - axis
    left, right, top, bottom = op.get("pad") or (0, 0, 0, 0)
    pads = top + bottom if axis == 0 else left + right
    dilation = op.get("dilation") or (1, 1)
    return op.get("kernel")[pick], op.get("stride")[pick], dilation[pick], pads


def _convolved(op: Op, kind: str, length: int, axis: int) -> int:
    kernel, stride, dilation, pads = _geometry(op, axis)
    reach = (kernel - 1) * dilation
    if kind.startswith("transposed"):
        return int((length - 1) * stride + reach + 1 - pads)
    return int((length + pads - reach - 1) // stride + 1)


def _pool_fault(op: Op, source: Op) -> Optional[str]:
    dims, given = op.tensor.dims, source.tensor.dims
    if len(dims) != 4 or len(given) != 4 or dims[3] != given[3]:
        return f"makes {list(dims)} of {list(given)}"
    for axis in (0, 1):
        kernel, stride, _, pads = _geometry(op, axis)
        room = given[axis + 1] + pads - kernel
        # Rounded down or up; a window that begins beyond the input is in neither.
        if not room // stride + 1 <= dims[axis + 1] <= -(-max(room, 0) // stride) + 1:
            return f"makes {list(dims)} of {list(given)} with kernel {op.get('kernel')!r}"
    return None


def _concat_fault(op: Op, sources: List[Op]) -> Optional[str]:
    axis, rank = op.get("axis"), len(op.tensor.dims)
    if not isinstance(axis, int) or not -rank <= axis < rank:
        return f"axis {axis!r} of {rank}"
    parts = [source.tensor.dims for source in sources]
    if any(len(part) != rank for part in parts):
        return f"joins {[list(part) for part in parts]}"
    axis %= rank
    total = sum(part[axis] for part in parts)
    for at in range(rank):
        if (
            any(part[at] != op.tensor.dims[at] for part in parts)
            if at != axis
            else (total != op.tensor.dims[axis])
        ):
            return f"makes {list(op.tensor.dims)} of {[list(part) for part in parts]}"
    return None
