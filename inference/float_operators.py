"""Float operators of a quantized graph that the compiler leaves to the host, in plain numpy.

Maps are NHWC with the batch first, spatial attributes count width before height, weights stand as
the quantizer exports them. Convolutions sum in float64 and are rounded once to float32, so on
fixed-point grids the result is exact.
"""

from __future__ import annotations

import itertools
import math
from typing import Callable, Dict, List, Sequence, Tuple

import numpy as np

from ..compile.xir.graph import Op
from ..errors import UnsupportedError
from .devices.integer_rules import insert_zeros, transposed_pads

Rule = Callable[[Op, List[np.ndarray]], np.ndarray]
Pair = Tuple[int, int]


def _operands(op: Op, x: List[np.ndarray], argument: str) -> List[np.ndarray]:
    """Those of ``x`` that ``op`` reads as ``argument``."""
    by_name = dict(zip(op.input_names, x))
    return [by_name[name] for name in op.inputs.get(argument, ())]


def _pair(op: Op, key: str) -> Pair:
    width, height = op.get(key) or (1, 1)
    return int(height), int(width)


def _pads(op: Op) -> Tuple[Pair, Pair]:
    left, right, top, bottom = (int(v) for v in op.get("pad") or (0, 0, 0, 0))
    return (top, bottom), (left, right)


def _windows(x: np.ndarray, kernel: Pair, stride: Pair, dilation: Pair, size: Pair) -> np.ndarray:
    """``[N, oh, ow, kh, kw, C]``: what every output pixel sees of the padded ``x``."""
    n, _, _, channels = x.shape
    rows, columns, sn = x.strides[1], x.strides[2], x.strides[0]
    return np.lib.stride_tricks.as_strided(
        x,
        (n, *size, *kernel, channels),
        (
            sn,
            rows * stride[0],
            columns * stride[1],
            rows * dilation[0],
            columns * dilation[1],
            x.strides[3],
        ),
        writeable=False,
    )


def _padded(x: np.ndarray, pads: Tuple[Pair, Pair], fill: float) -> np.ndarray:
    """``x`` with its border; a negative width crops."""
    (top, bottom), (left, right) = pads
    grown = [(max(a, 0), max(b, 0)) for a, b in pads]
    x = np.pad(x, ((0, 0), grown[0], grown[1], (0, 0)), constant_values=fill)
    rows = slice(max(-top, 0), x.shape[1] - max(-bottom, 0))
    columns = slice(max(-left, 0), x.shape[2] - max(-right, 0))
    return np.ascontiguousarray(x[:, rows, columns])


def _convolution(op: Op, x: List[np.ndarray]) -> np.ndarray:
    (source,), (weights,) = _operands(op, x, "input"), _operands(op, x, "weights")
    bias = _operands(op, x, "bias")
    stride, dilation, pads = _pair(op, "stride"), _pair(op, "dilation"), _pads(op)
    kernel = (int(weights.shape[1]), int(weights.shape[2]))
    source, weights = source.astype(np.float64), weights.astype(np.float64)
    if op.type.startswith("transposed"):
        source = insert_zeros(source, stride)
        pads = transposed_pads(kernel, dilation, pads)
        stride = (1, 1)
    source = _padded(source, pads, 0.0)
    size = (int(op.tensor.dims[1]), int(op.tensor.dims[2]))
    seen = _windows(source, kernel, stride, dilation, size)
    if "depthwise" in op.type:
        # [multiplier, kh, kw, channels]; a channel's results stand together.
        result = np.einsum("nyxhwc,mhwc->nyxcm", seen, weights)
        result = result.reshape(*result.shape[:3], -1)
    else:
        groups = int(op.get("group") or 1)
        outputs, taken = weights.shape[0] // groups, weights.shape[3]
        if op.type.startswith("transposed") and groups > 1:
            raise UnsupportedError(f"Grouped convolution {op.name!r} has no rule on the host")
        parts = []
        for group in range(groups):
            part = seen[..., group * taken : (group + 1) * taken]
            matrix = weights[group * outputs : (group + 1) * outputs]
            parts.append(np.tensordot(part, matrix, axes=((3, 4, 5), (1, 2, 3))))
        result = np.concatenate(parts, axis=-1)
    if bias:
        result = result + bias[0]
    return np.asarray(result, np.float32)


def _pool(op: Op, x: List[np.ndarray]) -> np.ndarray:
    largest = op.type == "maxpool2d"
    kernel, stride, pads = _pair(op, "kernel"), _pair(op, "stride"), _pads(op)
    size = (int(op.tensor.dims[1]), int(op.tensor.dims[2]))
    source = x[0]
    # With pad_mode CEIL the last windows may reach further than the padding.
    reach = [
        (size[i] - 1) * stride[i] + kernel[i] - source.shape[1 + i] - pads[i][0] for i in range(2)
    ]
    wide = tuple((pads[i][0], max(pads[i][1], reach[i])) for i in range(2))
    fill = -np.inf if largest else 0.0
    seen = _windows(
        np.ascontiguousarray(_padded(source, (wide[0], wide[1]), fill)),
        kernel,
        stride,
        (1, 1),
        size,
    )
    if largest:
        return np.asarray(seen.max(axis=(3, 4)), np.float32)
    if not op.get("count_include_pad", True) and any(v for pair in pads for v in pair):
        raise UnsupportedError(f"Average pool {op.name!r} that leaves its padding out has no rule")
    total = seen.sum(axis=(3, 4), dtype=np.float64)
    return np.asarray(total / (kernel[0] * kernel[1]), np.float32)


def _matmul(op: Op, x: List[np.ndarray]) -> np.ndarray:
    first, second = (operand.astype(np.float64) for operand in _operands(op, x, "input"))
    if op.get("transpose_a", False):
        first = np.swapaxes(first, -1, -2)
    if op.get("transpose_b", False):
        second = np.swapaxes(second, -1, -2)
    result = first @ second
    for bias in _operands(op, x, "bias"):
        result = result + bias
    return np.asarray(result, np.float32)


def _scale(op: Op, x: List[np.ndarray]) -> np.ndarray:
    (source,), (factor,) = _operands(op, x, "input"), _operands(op, x, "scale")
    result = source.astype(np.float64) * factor
    for bias in _operands(op, x, "bias"):
        result = result + bias
    return np.asarray(result, np.float32)


def _mean(op: Op, x: List[np.ndarray]) -> np.ndarray:
    axes = tuple(int(axis) for axis in op.get("axis"))
    keep = bool(op.get("keep_dims", False))
    return np.asarray(x[0].mean(axis=axes, dtype=np.float64, keepdims=keep), np.float32)


def _float_mean(op: Op, x: List[np.ndarray]) -> np.ndarray:
    """A mean the quantizer did not know: the file says its result's shape, not its axes."""
    given, made = x[0].shape[1:], tuple(op.tensor.dims[1:])
    axes = range(1, x[0].ndim)
    kept = len(given) == len(made)
    found = [
        chosen
        for count in range(1, x[0].ndim)
        for chosen in itertools.combinations(axes, count)
        if made == _without(given, chosen, kept)
    ]
    # Over an axis of one value a mean changes nothing, so the fewest axes will do.
    least = [chosen for chosen in found if not kept or all(given[a - 1] > 1 for a in chosen)]
    if len(least) != 1:
        raise UnsupportedError(
            f"The axes of the mean {op.name!r} cannot be told from its shapes",
            f"{list(given)} to {list(made)} per image",
            "average with nn.AdaptiveAvgPool2d(1), or quantize with --release 3.0",
        )
    return np.asarray(x[0].mean(axis=least[0], dtype=np.float64, keepdims=kept), np.float32)


def _without(shape: Sequence[int], axes: Sequence[int], kept: bool) -> Tuple[int, ...]:
    sizes = [1 if axis in axes else size for axis, size in enumerate(shape, 1)]
    return tuple(s for axis, s in enumerate(sizes, 1) if kept or axis not in axes)


def _pad(op: Op, x: List[np.ndarray]) -> np.ndarray:
    given = [int(v) for v in op.get("paddings")]
    widths = list(zip(given[::2], given[1::2]))
    mode = str(op.get("mode"))
    if mode == "CONSTANT":
        value = (op.get("constant_values") or (0.0,))[0]
        return np.asarray(np.pad(x[0], widths, constant_values=np.float32(value)))
    if mode == "REFLECT":
        return np.asarray(np.pad(x[0], widths, mode="reflect"))
    raise UnsupportedError(f"Padding {mode!r} of {op.name!r} has no rule", "CONSTANT, REFLECT")


def _slice(op: Op, x: List[np.ndarray]) -> np.ndarray:
    begin_mask, end_mask = int(op.get("begin_mask", 0)), int(op.get("end_mask", 0))
    taken = []
    limits = zip(op.get("begin"), op.get("end"), op.get("strides"))
    for axis, (begin, end, stride) in enumerate(limits):
        start = None if axis == 0 or begin_mask >> axis & 1 else int(begin)
        stop = None if axis == 0 or end_mask >> axis & 1 else int(end)
        taken.append(slice(start, stop, int(stride)))
    return np.ascontiguousarray(x[0][tuple(taken)])


def _prelu(op: Op, x: List[np.ndarray]) -> np.ndarray:
    (source,), (slope,) = _operands(op, x, "input"), _operands(op, x, "weight")
    return np.asarray(np.where(source >= 0, source, source * slope), np.float32)


def _pixel_shuffle(op: Op, x: List[np.ndarray]) -> np.ndarray:
    n, height, width, channels = x[0].shape
    scale = int(op.get("scale"))
    parts = x[0].reshape(n, height, width, channels // scale**2, scale, scale)
    moved = parts.transpose(0, 1, 4, 2, 5, 3)
    return np.ascontiguousarray(moved.reshape(n, height * scale, width * scale, -1))


def _silu(op: Op, x: List[np.ndarray]) -> np.ndarray:
    values = x[0].astype(np.float64)
    return np.asarray(values / (1.0 + np.exp(-np.clip(values, -700, None))), np.float32)


def _mish(op: Op, x: List[np.ndarray]) -> np.ndarray:
    values = x[0].astype(np.float64)
    return np.asarray(values * np.tanh(np.logaddexp(0.0, values)), np.float32)


_ERF = np.vectorize(math.erf, otypes=[np.float64])


def _gelu(op: Op, x: List[np.ndarray]) -> np.ndarray:
    values = x[0].astype(np.float64)
    return np.asarray(values * 0.5 * (1.0 + _ERF(values / math.sqrt(2.0))), np.float32)


def _unary(function: np.ufunc) -> Rule:
    return lambda op, x: np.asarray(function(x[0]), np.float32)


def _pairwise(function: np.ufunc) -> Rule:
    return lambda op, x: np.asarray(function(x[0], x[1]), np.float32)


FLOAT_RULES: Dict[str, Rule] = {
    "conv2d": _convolution,
    "depthwise-conv2d": _convolution,
    "transposed-conv2d": _convolution,
    "transposed-depthwise-conv2d": _convolution,
    "maxpool2d": _pool,
    "avgpool2d": _pool,
    "matmul": _matmul,
    "scale": _scale,
    "reduction_mean": _mean,
    "pad": _pad,
    "strided_slice": _slice,
    "prelu": _prelu,
    "pixel-shuffle": _pixel_shuffle,
    "sub": _pairwise(np.subtract),
    "div": _pairwise(np.divide),
    "max": _pairwise(np.maximum),
    "min": _pairwise(np.minimum),
    "exp": _unary(np.exp),
    "gelu": _gelu,
    "mish": _mish,
    "aten::mean": _float_mean,
    "aten::abs": _unary(np.abs),
    "aten::neg": _unary(np.negative),
    "aten::reciprocal": _unary(np.reciprocal),
    "hard-tanh": lambda op, x: np.asarray(np.clip(x[0], -1, 1), np.float32),
    "aten::silu": _silu,
    "aten::silu_": _silu,
}
"""Operator type to rule."""
