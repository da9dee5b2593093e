"""The integer arithmetic of every fixed-point operator: arrays in, arrays out, no graph.

This is the definition (level L2) that every other device is measured by. All codes are int8, all
layouts NHWC; ``fi``, ``fw``, ``fb``, ``fo`` stand for the fix points of input, weights, bias and
output. The rules are those of the DPU's operators as established on the vendor's open kernels,
in exact integers; where those kernels lose bits or are defective, the exact rule holds.

The one rounding there is, ties upwards, saturating::

    R(a, s) = clip((a + 2^(s-1)) >> s, -128, 127)   for s > 0
    R(a, s) = clip(a << -s, -128, 127)              for s <= 0
"""

from __future__ import annotations

import math
from typing import List, Optional, Sequence, Tuple

import numpy as np

from ...errors import UnsupportedError

Pair = Tuple[int, int]
"""(height, width) or (vertical, horizontal)."""

Pads = Tuple[Pair, Pair]
"""((top, bottom), (left, right))."""

LEAKY_NUMERATOR, LEAKY_SHIFT = 26, 8
"""The slope of a leaky ReLU on the DPU, 26/256."""

HARD_SIGMOID_FACTOR = 2731
"""2731 / 2^14 stands for 1/6."""

_FLOAT32_EXACT_PRODUCTS = 2**24 // (128 * 128)
_BAND_VALUES = 4 << 20
_AVERAGES = {(3, 3): (7, 6), (5, 5): (10, 8), (6, 6): (7, 8), (7, 7): (21, 10), (14, 14): (21, 12)}


# -- rounding -----------------------------------------------------------------------------------


def shift_round(values: np.ndarray, shift: int) -> np.ndarray:
    """``R(values, shift)``.

    Args:
        values: integers of any shape, below 2^62 after a left shift that does not saturate.
        shift: bits dropped; negative shifts left.

    Returns:
        int8 of the same shape.
    """
    wide = values.astype(np.int64)
    if shift > 62:
        wide = np.zeros_like(wide)
    elif shift > 0:
        wide = (wide + (1 << (shift - 1))) >> shift
    elif shift < 0:
        # Saturates long before it overflows.
        wide = np.clip(wide, -256, 256) << min(-shift, 16)
    return np.asarray(np.clip(wide, -128, 127), np.int8)


def requantize(codes: np.ndarray, fi: int, fo: int) -> np.ndarray:
    """The same values at another fix point: ``R(codes, fi - fo)``."""
    return shift_round(codes, fi - fo)


def saturating_float(values: np.ndarray) -> np.ndarray:
    """``floor(v + 1/2)`` of float values, saturated to int8."""
    return np.asarray(np.clip(np.floor(values.astype(np.float64) + 0.5), -128, 127), np.int8)


def activate(values: np.ndarray, fraction: int, nonlinear: str) -> Tuple[np.ndarray, int]:
    """Applies an activation to an accumulator, before rounding.

    Args:
        values: int64 accumulator with ``fraction`` (at least 0) fraction bits.
        fraction: see above.
        nonlinear: ``NONE``, ``""``, ``RELU``, ``PRELU`` (slope 0), ``RELU6`` or ``LEAKYRELU``.

    Returns:
        The activated accumulator and its fraction bits.

    Raises:
        UnsupportedError: no exact rule is known for the activation.
    """
    if nonlinear in ("", "NONE"):
        return values, fraction
    if nonlinear in ("RELU", "PRELU"):
        return np.maximum(values, 0), fraction
    if nonlinear == "RELU6":
        return np.clip(values, 0, 6 << fraction), fraction
    if nonlinear == "LEAKYRELU":
        scaled = np.where(values < 0, values * LEAKY_NUMERATOR, values << LEAKY_SHIFT)
        return scaled, fraction + LEAKY_SHIFT
    raise UnsupportedError(
        f"Activation {nonlinear!r} has no exact integer rule",
        "known: NONE, RELU, PRELU, RELU6, LEAKYRELU; HSIGMOID on conv2d-fix",
    )


def finish_accumulator(
    acc: np.ndarray,
    bias: Optional[np.ndarray],
    fix_points: Tuple[int, int, int, int],
    nonlinear: str = "NONE",
) -> np.ndarray:
    """Bias, activation and rounding after a convolution.

    ``R(act(acc * 2^k + bias * 2^(fi + fw - fb + k)), fi + fw - fo + k)`` with a ``k`` that makes
    every shift non-negative: a bias finer than the products is not rounded before it is added.

    Args:
        acc: int64 ``[..., channels]``, with ``fi + fw`` fraction bits.
        bias: int8 ``[channels]`` or ``None``.
        fix_points: ``(fi, fw, fb, fo)``; ``fb`` does not matter without a bias.
        nonlinear: see ``activate``.

    Returns:
        int8 codes at ``fo``.
    """
    fi, fw, fb, fo = fix_points
    fraction = max(fi + fw, 0, fb if bias is not None else 0)
    total = acc.astype(np.int64) << (fraction - fi - fw)
    if bias is not None:
        total = total + (bias.astype(np.int64) << (fraction - fb))
    total, fraction = activate(total, fraction, nonlinear)
    return shift_round(total, fraction - fo)


# -- convolutions -------------------------------------------------------------------------------


def convolve(
    x: np.ndarray, weights: np.ndarray, stride: Pair, dilation: Pair, pads: Pads
) -> np.ndarray:
    """Cross-correlation with zero padding: ``sum x * w``, exact.

    Args:
        x: int8 ``[N, H, W, I]``.
        weights: int8 ``[O, kh, kw, I]``.
        stride: vertical, horizontal.
        dilation: vertical, horizontal.
        pads: zeros around the input; a negative pad crops.

    Returns:
        int64 ``[N, OH, OW, O]``; sizes round down.
    """
    outputs, kh, kw, channels = weights.shape
    terms = kh * kw * channels
    # Products of int8 summed in floats are exact while the sum fits the mantissa.
    exact = np.float32 if terms <= _FLOAT32_EXACT_PRODUCTS else np.float64
    matrix = np.ascontiguousarray(weights.reshape(outputs, terms).T.astype(exact))
    source = _padded(x, pads)
    oh, ow = _output_size(source.shape[1:3], (kh, kw), stride, dilation)
    result = np.empty((len(x), oh, ow, outputs), np.int64)
    band = max(1, _BAND_VALUES // (ow * terms))
    for picture, accumulators in zip(source, result):
        for top in range(0, oh, band):
            rows = min(band, oh - top)
            part = picture[top * stride[0] :]
            columns = np.empty((rows, ow, kh, kw, channels), exact)
            for dy in range(kh):
                for dx in range(kw):
                    columns[:, :, dy, dx] = _tap(part, (dy, dx), (rows, ow), stride, dilation)
            acc = columns.reshape(rows * ow, terms) @ matrix
            accumulators[top : top + rows] = acc.reshape(rows, ow, outputs)
    return result


def convolve_depthwise(
    x: np.ndarray, weights: np.ndarray, stride: Pair, dilation: Pair, pads: Pads
) -> np.ndarray:
    """Depthwise cross-correlation with zero padding.

    Args:
        x: int8 ``[N, H, W, C]``.
        weights: int8 ``[M, kh, kw, C]``.
        stride: vertical, horizontal.
        dilation: vertical, horizontal.
        pads: zeros around the input.

    Returns:
        int64 ``[N, OH, OW, C * M]``, channel ``c * M + m``.
    """
    multiplier, kh, kw, channels = weights.shape
    source = _padded(x, pads).astype(np.int64)
    wide = weights.astype(np.int64)
    oh, ow = _output_size(source.shape[1:3], (kh, kw), stride, dilation)
    acc = np.zeros((len(x), oh, ow, channels, multiplier), np.int64)
    for dy in range(kh):
        for dx in range(kw):
            for m in range(multiplier):
                for n, picture in enumerate(source):
                    tap = _tap(picture, (dy, dx), (oh, ow), stride, dilation)
                    acc[n, ..., m] += tap * wide[m, dy, dx]
    return acc.reshape(len(x), oh, ow, channels * multiplier)


def insert_zeros(x: np.ndarray, stride: Pair) -> np.ndarray:
    """``[N, H, W, C]`` with ``stride - 1`` zeros between rows and between columns."""
    n, h, w, c = x.shape
    wide = np.zeros((n, (h - 1) * stride[0] + 1, (w - 1) * stride[1] + 1, c), x.dtype)
    wide[:, :: stride[0], :: stride[1]] = x
    return wide


def transposed_pads(kernel: Pair, dilation: Pair, pads: Pads) -> Pads:
    """Padding of the zero-inserted input: ``(kernel - 1) * dilation - pad`` on each side.

    The stored weights of a transposed convolution are flipped already, so after this it is a
    plain cross-correlation of stride 1.
    """
    reach = ((kernel[0] - 1) * dilation[0], (kernel[1] - 1) * dilation[1])
    (top, bottom), (left, right) = pads
    return (reach[0] - top, reach[0] - bottom), (reach[1] - left, reach[1] - right)


# -- pooling ------------------------------------------------------------------------------------


def pool_max(x: np.ndarray, kernel: Pair, stride: Pair, pads: Pads, size: Pair) -> np.ndarray:
    """The largest code of each window; cells outside the input are skipped.

    Args:
        x: int8 ``[N, H, W, C]``.
        kernel: height, width.
        stride: vertical, horizontal.
        pads: cells outside on each side.
        size: height and width of the output; windows may reach beyond the padding.

    Returns:
        int8 ``[N, *size, C]``.
    """
    source = _padded(x, _reaching(x, kernel, stride, pads, size), fill=-128)
    taps = [
        source[:, dy : dy + (size[0] - 1) * stride[0] + 1 : stride[0]][
            :, :, dx : dx + (size[1] - 1) * stride[1] + 1 : stride[1]
        ]
        for dy in range(kernel[0])
        for dx in range(kernel[1])
    ]
    result: np.ndarray = taps[0].copy()
    for tap in taps[1:]:
        np.maximum(result, tap, out=result)
    return result


def average_factor(kernel: Pair) -> Pair:
    """``(N, M)``: the DPU multiplies a window's sum by ``N / 2^M`` in place of dividing it.

    Args:
        kernel: height, width.
    """
    if tuple(kernel) in _AVERAGES:
        return _AVERAGES[(kernel[0], kernel[1])]
    cells = kernel[0] * kernel[1]
    best, error = (1, 0), math.inf
    for shift in range(math.ceil(math.log2(128 * cells))):
        factor = round(2.0**shift / cells)
        distance = abs(factor / 2.0**shift - 1.0 / cells)
        if distance < error:
            best, error = (factor, shift), distance
    return best


def pool_average(
    x: np.ndarray, kernel: Pair, stride: Pair, pads: Pads, size: Pair, fix_points: Pair
) -> np.ndarray:
    """``R(N * sum(window), M + fi - fo)``; cells outside count as 0, the divisor never changes.

    Args:
        x: int8 ``[N, H, W, C]``.
        kernel: height, width.
        stride: vertical, horizontal.
        pads: cells outside on each side.
        size: height and width of the output.
        fix_points: ``(fi, fo)``.

    Returns:
        int8 ``[N, *size, C]``.
    """
    factor, shift = average_factor(kernel)
    pads = _reaching(x, kernel, stride, pads, size)
    ones = np.ones((1, *kernel, x.shape[3]), np.int8)
    total = convolve_depthwise(x, ones, stride, (1, 1), pads)[:, : size[0], : size[1]]
    return shift_round(total * factor, shift + fix_points[0] - fix_points[1])


# -- elementwise --------------------------------------------------------------------------------


def add(
    inputs: Sequence[np.ndarray], fix_points: Sequence[int], fo: int, nonlinear: str = "NONE"
) -> np.ndarray:
    """``R(sum x_i * 2^(m - f_i), m - fo)`` with ``m`` the finest fix point: one rounding.

    Args:
        inputs: int8 arrays that broadcast.
        fix_points: one per input.
        fo: of the output.
        nonlinear: see ``activate``.

    Returns:
        int8.
    """
    fraction = max(0, *fix_points)
    total: np.ndarray = np.zeros((), np.int64)
    for codes, fix_point in zip(inputs, fix_points):
        total = total + (codes.astype(np.int64) << (fraction - fix_point))
    total, fraction = activate(total, fraction, nonlinear)
    return shift_round(total, fraction - fo)


def multiply(
    x: np.ndarray, y: np.ndarray, fix_points: Pair, fo: int, nonlinear: str = "NONE"
) -> np.ndarray:
    """``R(x * y, f1 + f2 - fo)``: the true product.

    Returns:
        int8, broadcast.
    """
    fraction = max(0, sum(fix_points))
    total = (x.astype(np.int64) * y.astype(np.int64)) << (fraction - sum(fix_points))
    total, fraction = activate(total, fraction, nonlinear)
    return shift_round(total, fraction - fo)


def hard_sigmoid(x: np.ndarray, hsigmoid_in: int, shift_hsigmoid: int) -> np.ndarray:
    """``R(clip(2731 * (x + 3 * 2^hsigmoid_in), 0, 2^32), shift_hsigmoid)``.

    Args:
        x: int8 codes at ``hsigmoid_in``.
        hsigmoid_in: fix point of the input, from the operator's attribute.
        shift_hsigmoid: ``14 + hsigmoid_in - fo`` in the models seen.
    """
    up = max(0, -hsigmoid_in)
    three = 3 << (hsigmoid_in + up)
    total = HARD_SIGMOID_FACTOR * ((x.astype(np.int64) << up) + three)
    return shift_round(np.clip(total, 0, 2**32 << up), shift_hsigmoid + up)


# -- moving data --------------------------------------------------------------------------------


def nearest_sources(
    length: int, size: int, corners: bool = False, half: bool = False
) -> np.ndarray:
    """Which input row each output row of a nearest-neighbour resize copies.

    ``floor(o * in / out)``; ``corners``: ``floor(o * (in - 1) / (out - 1) + 1/2)``; ``half``:
    ``floor((o + 1/2) * in / out)`` less one half before the floor, kept inside.

    Returns:
        int64 ``[size]``.
    """
    places = np.arange(size, dtype=np.float64)
    if corners and size > 1:
        places = np.floor(places * (length - 1) / (size - 1) + 0.5)
    elif half:
        places = np.floor((places + 0.5) * length / size - 0.5)
    else:
        places = np.floor(places * length / size)
    return np.clip(places, 0, length - 1).astype(np.int64)


def resize_bilinear(
    x: np.ndarray, size: Pair, fix_points: Pair, corners: bool = False, half: bool = False
) -> np.ndarray:
    """Bilinear resize: float32 blending of neighbours, then one rounding.

    Args:
        x: int8 ``[N, H, W, C]``.
        size: height and width of the output.
        fix_points: ``(fi, fo)``.
        corners: align the corner pixels.
        half: align pixel centres by half a pixel.

    Returns:
        int8 ``[N, *size, C]``.
    """
    y0, y1, ty = _blend(x.shape[1], size[0], corners, half)
    x0, x1, tx = _blend(x.shape[2], size[1], corners, half)
    tx, ty = tx[None, None, :, None], ty[None, :, None, None]
    values = x.astype(np.float32)
    rows0, rows1 = values[:, y0], values[:, y1]
    top = rows0[:, :, x0] + (rows0[:, :, x1] - rows0[:, :, x0]) * tx
    bottom = rows1[:, :, x0] + (rows1[:, :, x1] - rows1[:, :, x0]) * tx
    blended = top + (bottom - top) * ty
    return saturating_float(blended * np.float32(2.0 ** (fix_points[1] - fix_points[0])))


def padding_sources(length: int, before: int, after: int, mode: str) -> np.ndarray:
    """Which input row each row of a padded tensor copies, -1 for a zero.

    Args:
        length: of the axis.
        before: rows added at the start.
        after: rows added at the end.
        mode: ``CONSTANT`` (zeros), ``SYMMETRIC`` (the edge is repeated) or ``REFLECT`` (it is not).

    Returns:
        int64 ``[before + length + after]``.

    Raises:
        UnsupportedError: the mode is another, or the mirror is longer than the axis.
    """
    places = np.arange(-before, length + after)
    if mode == "CONSTANT":
        return np.where((places < 0) | (places >= length), -1, places)
    edge = {"SYMMETRIC": 1, "REFLECT": 0}.get(mode)
    if edge is None or max(before, after) > length - 1 + edge:
        raise UnsupportedError(f"Padding by {before} and {after} in mode {mode!r} is not defined")
    places = np.where(places < 0, -places - edge, places)
    return np.where(places >= length, 2 * (length - 1) - places + edge, places)


def take_rows(x: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """``x[:, rows][:, :, columns]`` with zeros where an index is -1.

    Args:
        x: ``[N, H, W, C]``.
        rows: int64, source row of each output row.
        columns: int64, source column of each output column.
    """
    result = x[:, rows][:, :, columns]
    result[:, rows < 0] = 0
    result[:, :, columns < 0] = 0
    return result


def reorganize(x: np.ndarray, scale: int, reverse: bool) -> np.ndarray:
    """The DPU's reorg, which is no space-to-depth.

    ``out[n, y, x, (i * s + j) * C + c] = in[n, y % s + (y // s) * s * s + i * s, x * s + j, c]``

    Args:
        x: ``[N, H, W, C]``, ``H`` a multiple of ``s * s``.
        scale: ``s``.
        reverse: the inverse.
    """
    n, h, w, c = x.shape
    s = scale
    if reverse:
        groups = x.reshape(n, h // s, s, w, s, s, c // (s * s))
        return np.ascontiguousarray(groups.transpose(0, 1, 4, 2, 3, 5, 6)).reshape(
            n, h * s, w * s, c // (s * s)
        )
    if h % (s * s) or w % s:
        raise UnsupportedError(f"reorg by {s} of {h}x{w} is not defined", "height needs s * s")
    groups = x.reshape(n, h // (s * s), s, s, w // s, s, c)
    return np.ascontiguousarray(groups.transpose(0, 1, 3, 4, 2, 5, 6)).reshape(
        n, h // s, w // s, s * s * c
    )


# -- helpers ------------------------------------------------------------------------------------


def _padded(x: np.ndarray, pads: Pads, fill: int = 0) -> np.ndarray:
    (top, bottom), (left, right) = pads
    grown = tuple((max(a, 0), max(b, 0)) for a, b in pads)
    if any(a or b for a, b in grown):
        x = np.pad(x, ((0, 0), *grown, (0, 0)), constant_values=fill)
    rows = slice(max(-top, 0), x.shape[1] - max(-bottom, 0))
    columns = slice(max(-left, 0), x.shape[2] - max(-right, 0))
    return x[:, rows, columns]


def _reaching(x: np.ndarray, kernel: Pair, stride: Pair, pads: Pads, size: Pair) -> Pads:
    """``pads`` made long enough at the end for ``size`` windows."""
    grown: List[Pair] = []
    for axis, (before, after) in enumerate(pads):
        reach = (size[axis] - 1) * stride[axis] + kernel[axis]
        grown.append((before, max(after, reach - before - x.shape[axis + 1])))
    return grown[0], grown[1]


def _output_size(size: Sequence[int], kernel: Pair, stride: Pair, dilation: Pair) -> Pair:
    rows, columns = ((size[a] - (kernel[a] - 1) * dilation[a] - 1) // stride[a] + 1 for a in (0, 1))
    return rows, columns


def _tap(picture: np.ndarray, at: Pair, size: Pair, stride: Pair, dilation: Pair) -> np.ndarray:
    """The input cells that kernel cell ``at`` meets, ``[*size, C]``."""
    top, left = at[0] * dilation[0], at[1] * dilation[1]
    cells: np.ndarray = picture[
        top : top + (size[0] - 1) * stride[0] + 1 : stride[0],
        left : left + (size[1] - 1) * stride[1] + 1 : stride[1],
    ]
    return cells


def _blend(
    length: int, size: int, corners: bool, half: bool
) -> Tuple[np.ndarray, np.ndarray, np.ndarray]:
    if corners and size > 1:
        step = np.float32(length - 1) / np.float32(size - 1)
    else:
        step = np.float32(length) / np.float32(size)
    places = np.arange(size, dtype=np.float32)
    places = (places + np.float32(0.5)) * step - np.float32(0.5) if half else places * step
    low = np.maximum(np.floor(places), 0).astype(np.int64)
    high = np.minimum(np.ceil(places), length - 1).astype(np.int64)
    return low, high, np.asarray(places - low.astype(np.float32), np.float32)
