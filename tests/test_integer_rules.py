"""The integer rules against fractions, plain loops, numpy's own functions and recorded examples."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import List, Optional

import numpy as np
import pytest

from deepfake_fpga.errors import UnsupportedError
from deepfake_fpga.inference.devices import integer_rules as rules


def fix(value: Fraction) -> int:
    """The rounding in words: ties upwards, then saturate."""
    return max(-128, min(127, math.floor(value + Fraction(1, 2))))


def codes(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(-128, 128, shape).astype(np.int8)


# -- rounding -----------------------------------------------------------------------------------


def test_ties_go_up_as_recorded() -> None:
    halves = np.array([1, 3, -1, -3, -5, -127, 127])
    assert rules.shift_round(halves, 1).tolist() == [1, 2, 0, -1, -2, -63, 64]
    values = np.array([0.5, 1.5, -0.5, -1.5, -2.5, -63.5, 63.5])
    assert rules.saturating_float(values).tolist() == [1, 2, 0, -1, -2, -63, 64]


@pytest.mark.parametrize("shift", range(-20, 20))
def test_rounding_is_that_of_fractions(shift: int) -> None:
    values = [*range(-300, 301), -(2**31), 2**31 - 1, 2**40, -(2**40)]
    expected = [fix(Fraction(v) / Fraction(2) ** shift) for v in values]
    assert rules.shift_round(np.array(values), shift).tolist() == expected


def test_a_shift_beyond_the_word_gives_nothing() -> None:
    assert rules.shift_round(np.array([2**62 - 1, -(2**62)]), 70).tolist() == [0, 0]


@pytest.mark.parametrize("nonlinear", ["NONE", "", "RELU", "PRELU", "RELU6", "LEAKYRELU"])
@pytest.mark.parametrize(
    "fix_points", [(5, 7, 9, 4), (5, 7, 15, 4), (-2, 1, 3, 1), (3, 2, -4, 8), (-4, -3, -9, -2)]
)
def test_bias_and_activation_are_exact(nonlinear: str, fix_points: tuple) -> None:
    fi, fw, fb, fo = fix_points
    acc = np.random.default_rng(0).integers(-40000, 40000, (50, 4))
    bias = np.array([-128, -3, 5, 127], np.int8)
    got = rules.finish_accumulator(acc, bias, fix_points, nonlinear)
    two = Fraction(2)
    for row, results in zip(acc.tolist(), got.tolist()):
        for value, b, result in zip(row, bias.tolist(), results):
            real = value / two ** (fi + fw) + b / two**fb
            if nonlinear in ("RELU", "PRELU", "RELU6"):
                real = max(real, Fraction(0))
            if nonlinear == "RELU6":
                real = min(real, Fraction(6))
            if nonlinear == "LEAKYRELU" and real < 0:
                real = real * 26 / 256
            assert result == fix(real * two**fo)


def test_recorded_sums_beyond_24_bits_are_exact() -> None:
    # The vendor's float32 kernel gives 65, -64 and 65 here; exact integers do not.
    acc = np.array([[16908287], [-16908289], [131071]])
    points = (0, 18, 18, 0)
    assert rules.finish_accumulator(acc[:2], None, points).tolist() == [[64], [-65]]
    bias = np.array([64], np.int8)
    assert rules.finish_accumulator(acc[2:], bias, (0, 18, 0, 0)).tolist() == [[64]]


@pytest.mark.parametrize("nonlinear", ["HSWISH", "SWISH"])
def test_an_activation_without_a_rule_is_refused(nonlinear: str) -> None:
    with pytest.raises(UnsupportedError, match=nonlinear):
        rules.finish_accumulator(np.zeros((1, 1), np.int64), None, (0, 0, 0, 0), nonlinear)


# -- convolutions -------------------------------------------------------------------------------


def naive_convolution(
    x: np.ndarray, weights: np.ndarray, stride: tuple, dilation: tuple, pads: tuple, depthwise: bool
) -> np.ndarray:
    """One sum per output cell, by the definition."""
    n, h, w, _ = x.shape
    first, kh, kw, channels = weights.shape
    (top, bottom), (left, right) = pads
    oh = (h + top + bottom - (kh - 1) * dilation[0] - 1) // stride[0] + 1
    ow = (w + left + right - (kw - 1) * dilation[1] - 1) // stride[1] + 1
    outputs = first * channels if depthwise else first
    result = np.zeros((n, oh, ow, outputs), np.int64)
    for p in range(n):
        for y in range(oh):
            for z in range(ow):
                for o in range(outputs):
                    total = 0
                    for dy in range(kh):
                        for dx in range(kw):
                            row = y * stride[0] + dy * dilation[0] - top
                            column = z * stride[1] + dx * dilation[1] - left
                            if not (0 <= row < h and 0 <= column < w):
                                continue
                            if depthwise:
                                c, m = divmod(o, first)
                                total += int(x[p, row, column, c]) * int(weights[m, dy, dx, c])
                            else:
                                for c in range(channels):
                                    total += int(x[p, row, column, c]) * int(weights[o, dy, dx, c])
                    result[p, y, z, o] = total
    return result


@pytest.mark.parametrize("depthwise", [False, True])
@pytest.mark.parametrize(
    ("kernel", "stride", "dilation", "pads"),
    [
        ((3, 3), (1, 1), (1, 1), ((1, 1), (1, 1))),
        ((2, 3), (2, 1), (1, 1), ((0, 1), (2, 0))),
        ((3, 2), (1, 3), (2, 1), ((2, 0), (1, 1))),
        ((1, 1), (2, 2), (1, 1), ((0, 0), (0, 0))),
    ],
)
def test_convolution_is_the_sum_it_says(
    depthwise: bool, kernel: tuple, stride: tuple, dilation: tuple, pads: tuple
) -> None:
    x = codes(1, 2, 6, 5, 3)
    weights = codes(2, 2, *kernel, 3)
    function = rules.convolve_depthwise if depthwise else rules.convolve
    expected = naive_convolution(x, weights, stride, dilation, pads, depthwise)
    assert np.array_equal(function(x, weights, stride, dilation, pads), expected)


@pytest.mark.parametrize("channels", [1024, 1025, 4000])
def test_the_largest_sums_are_exact(channels: int) -> None:
    x = np.full((1, 1, 1, channels), -128, np.int8)
    weights = np.full((1, 1, 1, channels), -128, np.int8)
    weights[0, 0, 0, 0] = 127
    acc = rules.convolve(x, weights, (1, 1), (1, 1), ((0, 0), (0, 0)))
    assert acc.item() == 128 * 128 * (channels - 1) - 128 * 127


def test_rows_in_bands_are_the_rows_in_one(monkeypatch: pytest.MonkeyPatch) -> None:
    x, weights = codes(3, 1, 9, 7, 4), codes(4, 5, 3, 3, 4)
    arguments = (x, weights, (2, 1), (1, 2), ((1, 1), (2, 2)))
    whole = rules.convolve(*arguments)
    monkeypatch.setattr(rules, "_BAND_VALUES", 1)
    assert np.array_equal(rules.convolve(*arguments), whole)


@pytest.mark.parametrize(
    ("kernel", "stride", "pads"),
    [
        ((2, 2), (2, 2), ((0, 0), (0, 0))),
        ((4, 4), (4, 4), ((0, 0), (0, 0))),
        ((3, 3), (2, 2), ((1, 1), (1, 1))),
        ((4, 3), (2, 1), ((1, 0), (0, 2))),
    ],
)
def test_transposed_convolution_scatters_the_flipped_weights(
    kernel: tuple, stride: tuple, pads: tuple
) -> None:
    # The textbook definition: every input cell adds its multiple of the kernel to the output.
    x, stored = codes(5, 1, 4, 3, 2), codes(6, 3, *kernel, 2)
    textbook = stored[:, ::-1, ::-1]
    whole = np.zeros((1, 3 * stride[0] + kernel[0], 2 * stride[1] + kernel[1], 3), np.int64)
    for y in range(4):
        for z in range(3):
            block = np.einsum("ohwi,i->hwo", textbook.astype(np.int64), x[0, y, z].astype(np.int64))
            top, left = y * stride[0], z * stride[1]
            whole[0, top : top + kernel[0], left : left + kernel[1]] += block
    (top, bottom), (left, right) = pads
    expected = whole[:, top : whole.shape[1] - bottom, left : whole.shape[2] - right]
    got = rules.convolve(
        rules.insert_zeros(x, stride),
        stored,
        (1, 1),
        (1, 1),
        rules.transposed_pads(kernel, (1, 1), pads),
    )
    assert np.array_equal(got, expected)


# -- pooling ------------------------------------------------------------------------------------


def test_average_factors_are_the_recorded_ones() -> None:
    recorded = {
        (3, 3): (7, 6),
        (5, 5): (10, 8),
        (6, 6): (7, 8),
        (7, 7): (21, 10),
        (14, 14): (21, 12),
        (1, 1): (1, 0),
        (2, 2): (1, 2),
        (4, 4): (1, 4),
        (8, 8): (1, 6),
    }
    for kernel, factor in recorded.items():
        assert rules.average_factor(kernel) == factor
    # As the quantizer multiplies the true average: cells * N / 2^M.
    multipliers = {
        (2, 3): 0.99609375,
        (3, 5): 0.99609375,
        (1, 7): 0.998046875,
        (9, 9): 0.9986572265625,
        (10, 10): 1.0009765625,
        (11, 11): 1.00439453125,
        (12, 12): 1.001953125,
        (13, 13): 1.00054931640625,
    }
    for kernel, multiplier in multipliers.items():
        factor, shift = rules.average_factor(kernel)
        assert kernel[0] * kernel[1] * factor / 2.0**shift == multiplier


def test_recorded_averages_of_full_windows() -> None:
    for side, average in ((3, 125), (7, 127)):
        x = np.full((1, side, side, 2), 127, np.int8)
        pads = ((0, 0), (0, 0))
        got = rules.pool_average(x, (side, side), (1, 1), pads, (1, 1), (0, 0))
        assert got.tolist() == [[[[average, average]]]]


def test_average_counts_padding_as_zeros() -> None:
    x = codes(7, 1, 4, 4, 1)
    got = rules.pool_average(x, (2, 2), (2, 2), ((1, 1), (1, 1)), (3, 3), (3, 4))
    wide = np.pad(x[0, :, :, 0].astype(int), 1)
    for y in range(3):
        for z in range(3):
            total = int(wide[2 * y : 2 * y + 2, 2 * z : 2 * z + 2].sum())
            assert got[0, y, z, 0] == fix(Fraction(total * 2, 4))


def test_largest_of_a_negative_window_is_negative() -> None:
    x = -np.abs(codes(8, 1, 4, 4, 2).astype(int)).clip(1, 128).astype(np.int8)
    got = rules.pool_max(x, (3, 3), (2, 2), ((1, 1), (1, 1)), (2, 2))
    assert got[0, 0, 0].tolist() == x[0, :2, :2].max(axis=(0, 1)).tolist()
    assert got[0, 1, 1].tolist() == x[0, 1:4, 1:4].max(axis=(0, 1)).tolist()
    assert (got < 0).all()


def test_a_window_may_reach_beyond_the_padding() -> None:
    x = codes(9, 1, 5, 5, 1)
    got = rules.pool_max(x, (2, 2), (2, 2), ((0, 0), (0, 0)), (3, 3))
    assert got[0, 2, 2, 0] == x[0, 4, 4, 0]


# -- elementwise --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "second", "out"), [(5, 5, 5), (7, 2, 4), (-3, 2, 0), (-1, -4, 3)]
)
def test_sums_of_all_pairs_round_once(first: int, second: int, out: int) -> None:
    values = np.arange(-128, 128).astype(np.int8)
    got = rules.add([values[:, None], values[None, :]], [first, second], out)
    x, y = np.meshgrid(values.astype(float), values.astype(float), indexing="ij")
    real = (x / 2.0**first + y / 2.0**second) * 2.0**out
    assert np.array_equal(got, np.clip(np.floor(real + 0.5), -128, 127))


@pytest.mark.parametrize(
    ("first", "second", "out"), [(5, 5, 5), (7, 2, 4), (-3, 2, 0), (-1, -4, 3)]
)
def test_products_of_all_pairs_are_true_products(first: int, second: int, out: int) -> None:
    values = np.arange(-128, 128).astype(np.int8)
    got = rules.multiply(values[:, None], values[None, :], (first, second), out, "RELU")
    x, y = np.meshgrid(values.astype(float), values.astype(float), indexing="ij")
    real = np.maximum(x * y * 2.0 ** (out - first - second), 0)
    assert np.array_equal(got, np.clip(np.floor(real + 0.5), -128, 127))


@pytest.mark.parametrize("inner", [-1, 2, 4, 6])
def test_hard_sigmoid_is_a_sixth_of_x_plus_three(inner: int) -> None:
    values = np.arange(-128, 128).astype(np.int8)
    got = rules.hard_sigmoid(values, inner, 14 + inner - 7)
    for value, result in zip(values.tolist(), got.tolist()):
        real = (Fraction(value) / Fraction(2) ** inner + 3) * Fraction(2731, 2**14)
        assert result == fix(max(real, Fraction(0)) * 2**7)


# -- moving data --------------------------------------------------------------------------------


@pytest.mark.parametrize(("mode", "name"), [("SYMMETRIC", "symmetric"), ("REFLECT", "reflect")])
def test_mirrored_padding_is_numpys(mode: str, name: str) -> None:
    rows = np.arange(5)
    assert np.array_equal(
        rules.padding_sources(5, 3, 4, mode),
        np.pad(rows, (3, 4), mode=name),  # type: ignore[call-overload]
    )


def test_padding_with_zeros() -> None:
    x = codes(10, 2, 3, 2, 4)
    sources = [rules.padding_sources(n, a, b, "CONSTANT") for n, a, b in ((3, 1, 2), (2, 0, 3))]
    expected = np.pad(x, ((0, 0), (1, 2), (0, 3), (0, 0)))
    assert np.array_equal(rules.take_rows(x, *sources), expected)


@pytest.mark.parametrize(("mode", "before"), [("REFLECT", 5), ("SYMMETRIC", 6), ("WRAP", 1)])
def test_padding_without_a_meaning_is_refused(mode: str, before: int) -> None:
    with pytest.raises(UnsupportedError, match=mode):
        rules.padding_sources(5, before, 0, mode)


def test_nearest_sources() -> None:
    def sources(length: int, size: int, **how: bool) -> List[int]:
        return rules.nearest_sources(length, size, **how).tolist()

    assert sources(3, 6) == [0, 0, 1, 1, 2, 2]
    assert sources(4, 6) == [0, 0, 1, 2, 2, 3]
    assert sources(3, 5, corners=True) == [0, 1, 1, 2, 2]
    assert sources(2, 4, half=True) == [0, 0, 0, 1]


@pytest.mark.parametrize(("corners", "half"), [(False, False), (True, False), (False, True)])
@pytest.mark.parametrize("factor", [2, 4])
def test_bilinear_blends_neighbours(corners: bool, half: bool, factor: int) -> None:
    x = codes(11, 1, 5, 3, 2)
    size = (5 * factor, 3 * factor)
    if corners:
        size = (5 + 4 * (factor - 1), 3 + 2 * (factor - 1))
    got = rules.resize_bilinear(x, size, (3, 4), corners, half)

    def place(at: int, length: int, count: int) -> Fraction:
        if corners:
            return Fraction(at * (length - 1), count - 1)
        if half:
            return Fraction(2 * at + 1, 2) * length / count - Fraction(1, 2)
        return Fraction(at * length, count)

    for y in range(size[0]):
        for z in range(size[1]):
            for c in range(2):
                py, pz = place(y, 5, size[0]), place(z, 3, size[1])
                y0, z0 = max(math.floor(py), 0), max(math.floor(pz), 0)
                y1, z1 = min(math.ceil(py), 4), min(math.ceil(pz), 2)
                rows: List[Fraction] = []
                for row in (y0, y1):
                    low, high = int(x[0, row, z0, c]), int(x[0, row, z1, c])
                    rows.append(low + (high - low) * (pz - z0))
                value = rows[0] + (rows[1] - rows[0]) * (py - y0)
                assert got[0, y, z, c] == fix(value * 2)


@pytest.mark.parametrize("scale", [2, 3])
def test_reorganizing_follows_its_formula_and_back(scale: int) -> None:
    s = scale
    x = codes(12, 1, 2 * s * s, 3 * s, 2)
    got = rules.reorganize(x, s, reverse=False)
    _, height, width, channels = got.shape
    assert (height, width, channels) == (2 * s, 3, 2 * s * s)
    for y in range(height):
        for z in range(width):
            for i in range(s):
                for j in range(s):
                    source = x[0, y % s + (y // s) * s * s + i * s, z * s + j]
                    assert np.array_equal(got[0, y, z, (i * s + j) * 2 :][:2], source)
    assert np.array_equal(rules.reorganize(got, s, reverse=True), x)


def test_no_bias_is_a_bias_of_zero() -> None:
    acc = np.arange(-300, 300).reshape(-1, 1)
    zero: Optional[np.ndarray] = np.zeros(1, np.int8)
    assert np.array_equal(
        rules.finish_accumulator(acc, None, (2, 3, 0, 4)),
        rules.finish_accumulator(acc, zero, (2, 3, 9, 4)),
    )
