"""One fixed-point operator of a compiled graph on arrays: attributes read, integer rule applied.

The bridge between the graph (names, ``{width, height}`` attribute order, fix points of tensors)
and ``integer_rules`` (arrays only).
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Callable, Dict, Iterator, List, Mapping, Optional, Tuple

import numpy as np

from ...compile.xir.graph import Graph, Op
from ...errors import UnsupportedError
from . import integer_rules as rules
from .integer_rules import Pads, Pair

Values = Mapping[str, np.ndarray]
"""Operator name to its tensor."""

CONVOLUTIONS = (
    "conv2d-fix",
    "depthwise-conv2d-fix",
    "transposed-conv2d-fix",
    "transposed-depthwise-conv2d-fix",
)

_ATTRIBUTE_ERRORS = (
    ArithmeticError,
    AttributeError,
    IndexError,
    KeyError,
    MemoryError,
    TypeError,
    ValueError,
)

COPIES = ("upload", "download", "identity")


@dataclass(frozen=True)
class Window:
    """Kernel geometry of a convolution or pool, height before width."""

    kernel: Pair
    stride: Pair
    dilation: Pair
    pads: Pads


def window(op: Op) -> Window:
    """The geometry of ``op``, whose attributes count width first and pads left, right, top, bottom.

    Raises:
        UnsupportedError: an attribute is missing or not of the right length.
    """

    def pair(key: str, default: Optional[Pair] = None) -> Pair:
        value = op.get(key) or default
        if value is None or len(value) != 2:
            raise UnsupportedError(f"Operator {op.name!r} has no usable {key!r}", f"{value!r}")
        return int(value[1]), int(value[0])

    left, right, top, bottom = (int(v) for v in op.get("pad") or (0, 0, 0, 0))
    return Window(
        pair("kernel"), pair("stride"), pair("dilation", (1, 1)), ((top, bottom), (left, right))
    )


def run_operator(graph: Graph, op: Op, values: Values) -> np.ndarray:
    """Runs one ``*-fix``, ``upload`` or ``download`` operator.

    Args:
        graph: the model.
        op: the operator.
        values: at least the tensors it reads, int8, the batch first.

    Returns:
        int8, the operator's tensor.

    Raises:
        UnsupportedError: there is no rule for it, or its attributes have no defined meaning.
    """
    try:
        rule = RULES[op.type]
    except KeyError:
        raise UnsupportedError(
            f"Operator type {op.type!r} has no integer rule",
            f"operator {op.name!r}; known: {', '.join(sorted(RULES))}",
        ) from None
    with refusing(op):
        result = rule(graph, op, values)
    if result.shape[1:] != tuple(op.tensor.dims[1:]):
        raise UnsupportedError(
            f"Operator {op.name!r} does not give the tensor the model declares",
            f"{op.type} gives {list(result.shape[1:])}, declared {list(op.tensor.dims[1:])}",
        )
    return result


@contextlib.contextmanager
def refusing(op: Op) -> Iterator[None]:
    """Turns what numpy says of an operator with impossible attributes into an error that names it.

    Raises:
        UnsupportedError: in place of any error but our own.
    """
    try:
        yield
    except UnsupportedError as error:
        if op.name in str(error):
            raise
        seen = f"{error.evidence}; " if error.evidence else ""
        raise UnsupportedError(
            error.cause, f"{seen}operator {op.name!r}", error.next_step
        ) from error
    except _ATTRIBUTE_ERRORS as error:
        shown = {key: attr.value for key, attr in op.attrs.items() if key != "data"}
        raise UnsupportedError(
            f"Operator {op.name!r} (tensor {op.tensor.name!r}) cannot be computed",
            f"{op.type} with {str(shown)[:300]}: {type(error).__name__}: {error}",
            "check the model: deepfake-fpga inspect FILE.xmodel",
        ) from error


def is_supported(op_type: str) -> bool:
    """Whether there is an integer rule for this operator type."""
    return op_type in RULES


def fix_point(op: Op) -> int:
    """Of the tensor of ``op``.

    Raises:
        UnsupportedError: it has none.
    """
    value = op.tensor.fix_point
    if value is None:
        raise UnsupportedError(
            f"Tensor {op.tensor.name!r} has no fix point", f"{op.type} gives {op.tensor.type_name}"
        )
    return value


def convolution_fix_points(graph: Graph, op: Op) -> Tuple[int, int, int, int]:
    """``(fi, fw, fb, fo)``; ``fb`` is 0 without a bias."""
    biases = graph.input_ops(op, "bias")
    return (
        fix_point(graph.input_ops(op)[0]),
        fix_point(graph.input_ops(op, "weights")[0]),
        fix_point(biases[0]) if biases else 0,
        fix_point(op),
    )


def same_fix_points(graph: Graph, op: Op) -> None:
    """Refuses an operator that only moves bytes between tensors of different fix points.

    Raises:
        UnsupportedError: they differ; the DPU would not rescale.
    """
    sources = {fix_point(source) for source in graph.input_ops(op)}
    if sources != {fix_point(op)}:
        raise UnsupportedError(
            f"{op.type} {op.name!r} would have to change the fix point, which it cannot",
            f"inputs at {sorted(sources)}, output at {fix_point(op)}",
        )


def resize_sources(graph: Graph, op: Op) -> List[np.ndarray]:
    """Source rows and columns of a nearest ``upsample-fix`` or a ``downsample-fix``."""
    source, target = graph.input_ops(op)[0].tensor.dims, op.tensor.dims
    if op.type == "downsample-fix":
        scale = [int(v) for v in op.get("scale")]
        steps = (scale[1], scale[0])
        return [np.arange(target[a + 1], dtype=np.int64) * steps[a] for a in (0, 1)]
    corners, half = bool(op.get("align_corners")), bool(op.get("half_pixel_centers"))
    return [rules.nearest_sources(source[a], target[a], corners, half) for a in (1, 2)]


def pad_sources(graph: Graph, op: Op) -> List[np.ndarray]:
    """Source rows and columns of a ``pad-fix``, -1 for a zero.

    Raises:
        UnsupportedError: it pads the batch or the channels.
    """
    same_fix_points(graph, op)
    paddings = [int(v) for v in op.get("paddings")]
    if len(paddings) != 8 or any(paddings[:2] + paddings[6:]):
        raise UnsupportedError(
            f"pad-fix {op.name!r} pads more than height and width", f"{paddings}"
        )
    dims = graph.input_ops(op)[0].tensor.dims
    mode = str(op.get("mode"))
    return [
        rules.padding_sources(dims[a], paddings[2 * a], paddings[2 * a + 1], mode) for a in (1, 2)
    ]


def _sources(op: Op, values: Values, arg: str = "input") -> List[np.ndarray]:
    return [values[name] for name in op.inputs.get(arg, ())]


def _convolution(graph: Graph, op: Op, values: Values) -> np.ndarray:
    if int(op.get("group", 1)) != 1 and "depthwise" not in op.type:
        raise UnsupportedError(f"Grouped convolution {op.name!r} has no rule")
    x, weights = values[op.inputs["input"][0]], values[op.inputs["weights"][0]]
    biases = _sources(op, values, "bias")
    geometry = window(op)
    stride, pads = geometry.stride, geometry.pads
    if op.type.startswith("transposed"):
        x = rules.insert_zeros(x, stride)
        stride = (1, 1)
        pads = rules.transposed_pads(geometry.kernel, geometry.dilation, pads)
    depthwise = "depthwise" in op.type
    convolve = rules.convolve_depthwise if depthwise else rules.convolve
    acc = convolve(x, weights, stride, geometry.dilation, pads)
    bias = biases[0] if biases else None
    if bias is not None and depthwise and bias.size != acc.shape[-1]:
        bias = np.repeat(bias, acc.shape[-1] // bias.size)
    fix_points = convolution_fix_points(graph, op)
    nonlinear = str(op.get("nonlinear", "NONE"))
    if nonlinear == "HSIGMOID":
        # The genuine compiled model that has it drops shift_cut bits to reach hsigmoid_in.
        inner, shift = int(op.get("hsigmoid_in")), int(op.get("shift_hsigmoid"))
        codes = rules.finish_accumulator(acc, bias, (*fix_points[:3], inner))
        return rules.hard_sigmoid(codes, inner, shift)
    return rules.finish_accumulator(acc, bias, fix_points, nonlinear)


def _pool(graph: Graph, op: Op, values: Values) -> np.ndarray:
    x = values[op.inputs["input"][0]]
    geometry = window(op)
    size = (int(op.tensor.dims[1]), int(op.tensor.dims[2]))
    fi, fo = fix_point(graph.input_ops(op)[0]), fix_point(op)
    kind = str(op.get("type"))
    if kind == "MAX":
        largest = rules.pool_max(x, geometry.kernel, geometry.stride, geometry.pads, size)
        return rules.requantize(largest, fi, fo)
    if kind == "AVG":
        return rules.pool_average(
            x, geometry.kernel, geometry.stride, geometry.pads, size, (fi, fo)
        )
    raise UnsupportedError(f"Pooling {kind!r} of {op.name!r} has no rule", "known: MAX, AVG")


def _elementwise(graph: Graph, op: Op, values: Values) -> np.ndarray:
    inputs = _sources(op, values)
    fix_points = [fix_point(source) for source in graph.input_ops(op)]
    kind = str(op.get("type", "MUL" if op.type == "depthwise-fix" else "ADD"))
    nonlinear = str(op.get("nonlinear", "NONE"))
    if kind == "ADD":
        return rules.add(inputs, fix_points, fix_point(op), nonlinear)
    if kind == "MUL" and len(inputs) == 2:
        pair = (fix_points[0], fix_points[1])
        return rules.multiply(inputs[0], inputs[1], pair, fix_point(op), nonlinear)
    raise UnsupportedError(f"{op.type} {kind!r} of {len(inputs)} tensors has no rule", op.name)


def _concat(graph: Graph, op: Op, values: Values) -> np.ndarray:
    same_fix_points(graph, op)
    return np.concatenate(_sources(op, values), axis=int(op.get("axis")))


def _reshape(graph: Graph, op: Op, values: Values) -> np.ndarray:
    same_fix_points(graph, op)
    x = values[op.inputs["input"][0]]
    return x.reshape((len(x), *op.tensor.dims[1:]))


def _copy(graph: Graph, op: Op, values: Values) -> np.ndarray:
    same_fix_points(graph, op)
    return values[op.inputs["input"][0]]


def _resample(graph: Graph, op: Op, values: Values) -> np.ndarray:
    x = values[op.inputs["input"][0]]
    fi, fo = fix_point(graph.input_ops(op)[0]), fix_point(op)
    mode = str(op.get("mode"))
    if op.type == "upsample-fix" and mode == "BILINEAR":
        size = (int(op.tensor.dims[1]), int(op.tensor.dims[2]))
        corners, half = bool(op.get("align_corners")), bool(op.get("half_pixel_centers"))
        return rules.resize_bilinear(x, size, (fi, fo), corners, half)
    if op.type == "upsample-fix" and mode != "NEAREST":
        raise UnsupportedError(f"Resizing {mode!r} of {op.name!r} has no rule")
    return rules.requantize(rules.take_rows(x, *resize_sources(graph, op)), fi, fo)


def _pad(graph: Graph, op: Op, values: Values) -> np.ndarray:
    return rules.take_rows(values[op.inputs["input"][0]], *pad_sources(graph, op))


def _hard_sigmoid(graph: Graph, op: Op, values: Values) -> np.ndarray:
    inner, shift = int(op.get("hsigmoid_in")), int(op.get("shift_hsigmoid"))
    return rules.hard_sigmoid(values[op.inputs["input"][0]], inner, shift)


def _reorg(graph: Graph, op: Op, values: Values) -> np.ndarray:
    same_fix_points(graph, op)
    x = values[op.inputs["input"][0]]
    return rules.reorganize(x, int(op.get("scale")), bool(op.get("reverse")))


RULES: Dict[str, Callable[[Graph, Op, Values], np.ndarray]] = {
    **dict.fromkeys(CONVOLUTIONS, _convolution),
    **dict.fromkeys(COPIES, _copy),
    "pool-fix": _pool,
    "eltwise-fix": _elementwise,
    "depthwise-fix": _elementwise,
    "concat-fix": _concat,
    "reshape-fix": _reshape,
    "upsample-fix": _resample,
    "downsample-fix": _resample,
    "pad-fix": _pad,
    "hard-sigmoid-fix": _hard_sigmoid,
    "reorg-fix": _reorg,
}
"""Operator type to its rule."""
