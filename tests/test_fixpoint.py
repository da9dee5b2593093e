"""Rounding to codes and the fix-position search, from worked examples and exact arithmetic."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import List, Optional

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from deepfake_fpga.quantize.fixpoint import (  # noqa: E402
    PART,
    Rounding,
    codes,
    most_frequent,
    quantize,
    quantize_,
    saturated,
    search,
)

pytestmark = pytest.mark.torch

BELOW_HALF = float(np.nextafter(np.float32(0.5), np.float32(0)))


@pytest.mark.parametrize(
    ("value", "up", "away"),
    [
        (2.5, 3, 3),
        (-2.5, -2, -3),
        (-0.5, 0, -1),
        (0.5, 1, 1),
        (1.5, 2, 2),
        (-1.5, -1, -2),
        (BELOW_HALF, 0, 0),
        (-BELOW_HALF, 0, 0),
        (126.5, 127, 127),
        (127.5, 127, 127),
        (-128.5, -128, -128),
        (1e30, 127, 127),
        (-1e30, -128, -128),
    ],
)
def test_ties_and_limits(value: float, up: int, away: int) -> None:
    x = torch.tensor([value])
    assert float(codes(x, 0, Rounding.HALF_UP)) == up
    assert float(codes(x, 0, Rounding.HALF_AWAY)) == away
    assert float(quantize_(x.clone(), 0, Rounding.HALF_UP)) == up
    assert float(quantize_(x.clone(), 0, Rounding.HALF_AWAY)) == away


def exact_code(value: float, position: int, rounding: Rounding) -> int:
    scaled = Fraction(value) * Fraction(2) ** position
    if rounding is Rounding.HALF_UP:
        code = math.floor(scaled + Fraction(1, 2))
    else:
        code = int(math.copysign(1, scaled)) * math.floor(abs(scaled) + Fraction(1, 2))
    return max(-128, min(127, code))


@pytest.mark.parametrize("rounding", Rounding)
@pytest.mark.parametrize("position", [-3, 0, 5, 12])
def test_codes_are_exact(rounding: Rounding, position: int) -> None:
    generator = np.random.default_rng(3)
    grid = generator.integers(-300, 300, 400) / 2.0 ** (position + 1)  # every other one a tie
    values = np.concatenate([grid, generator.normal(0, 60 / 2.0**position, 400)])
    x = torch.from_numpy(values.astype(np.float32))
    expected = [exact_code(float(v), position, rounding) for v in x]
    assert codes(x, position, rounding).tolist() == expected
    on_grid = quantize(x, position, rounding)
    assert (on_grid * 2.0**position).tolist() == expected
    assert (quantize_(x, position, rounding) * 2.0**position).tolist() == expected


def test_in_place_equals_out_of_place() -> None:
    x = torch.randn(3, PART // 2 + 7)
    expected = quantize(x, 5, Rounding.HALF_UP)
    assert torch.equal(quantize_(x, 5, Rounding.HALF_UP), expected)
    strided = torch.randn(8, 6).t()
    expected = quantize(strided, 4, Rounding.HALF_AWAY)
    assert torch.equal(quantize_(strided, 4, Rounding.HALF_AWAY), expected)


@pytest.mark.parametrize(
    ("values", "position"),
    [
        ([0.9, -0.3, 0.05], 7),
        ([1.0, 0.25, -0.5], 6),
        ([0.996, 0.1, 0.2], 7),
        ([300.0, 1.0, 2.0], -2),
        ([1e-5, 2e-6], 12),
        ([0.0, 0.0], 12),
        ([-1.0, 0.5], 7),
    ],
)
def test_search_examples(values: List[float], position: int) -> None:
    assert search(torch.tensor(values)) == position


def test_search_trades_an_outlier_for_finer_steps() -> None:
    # Ten thousand values of at most 0.1 outweigh one of 1.0, which then saturates.
    x = torch.linspace(-0.1, 0.1, 10_000)
    x[0] = 1.0
    assert search(x) == brute_force(x.numpy()) > 6
    assert search(x, by_range=True) == 6


def test_search_takes_the_first_of_equals() -> None:
    assert search(torch.tensor([0.5, -0.25])) == 7
    assert search(torch.tensor([8.0, 4.0])) == 3


def brute_force(x: np.ndarray) -> int:
    """The definition, in float64 and without any shortcut."""
    step = max(np.float32(x.min()) / np.float32(-128.5), np.float32(x.max()) / np.float32(127.5))
    first = math.floor(math.log2(1 / step))
    errors = []
    for position in range(first, first + 5):
        scaled = x.astype(np.float64) * 2.0**position
        code = np.clip(np.floor(scaled + 0.5), -128, 127)
        errors.append(((scaled - code) ** 2).sum() / 4.0**position)
    return min(12, first + int(np.argmin(errors)))


@pytest.mark.parametrize("seed", range(8))
def test_search_equals_the_definition(seed: int) -> None:
    generator = np.random.default_rng(seed)
    spread = 10.0 ** generator.integers(-4, 4)
    x = (generator.standard_t(3, 2 * PART + 5) * spread).astype(np.float32)
    assert search(torch.from_numpy(x)) == brute_force(x)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_no_position_without_a_finite_range(bad: float) -> None:
    found: Optional[int] = search(torch.tensor([0.5, bad]))
    assert found is None


@pytest.mark.parametrize(("history", "winner"), [([5, 4, 4, 5], 4), ([6, 5, 5], 5), ([7], 7)])
def test_most_frequent(history: List[int], winner: int) -> None:
    assert most_frequent(history) == winner


def test_saturated_counts_what_rounds_outside() -> None:
    x = torch.tensor([127.4, 127.5, -128.5, -128.6, 500.0])
    assert saturated(x, 0, -128.6, 500.0) == 3
    assert saturated(x, -2, -128.6, 500.0) == 0
