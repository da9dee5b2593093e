"""The float32 sum in blocks is the sum of a plain loop, bit for bit."""

from __future__ import annotations

from typing import Callable, Dict

import numpy as np
import pytest

from deepfake_fpga.quantize import sequential
from deepfake_fpga.quantize.sequential import added

PART = 1 << 12


def loop(start: float, terms: np.ndarray) -> float:
    total = np.float32(start)
    for term in terms:
        total = np.float32(total + term)
    return float(total)


def draws(seed: int) -> Dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    count = 8 * PART
    uniform = rng.random(count)
    return {
        "uniform": uniform,
        "squares": (uniform - 0.5) ** 2,
        "spread": np.exp(6 * rng.standard_normal(count)),
        "coarse": np.round(uniform * 64) / 64,  # ties wherever the unit is twice as coarse
        "one bit": rng.integers(0, 2, count) * 0.75,
        "tiny": uniform * 1e-30,
        "zeros": np.zeros(count),
        "few large": np.where(uniform < 1e-3, 1e4, uniform),
    }


@pytest.mark.parametrize("kind", list(draws(0)))
def test_equals_the_loop(kind: str) -> None:
    terms = draws(1)[kind].astype(np.float32)
    total = expected = 0.0
    for part in terms.reshape(-1, PART):
        total, expected = added(total, part), loop(expected, part)
        assert total == expected


@pytest.mark.parametrize("start", [1.0, 3.0, 2.0**12, 2.0**20 - 0.0625, 2.0**23 + 1, 2.0**30])
def test_starts_anywhere_in_a_binade(start: float) -> None:
    for kind, terms in draws(2).items():
        part = terms[:PART].astype(np.float32)
        assert added(start, part) == loop(start, part), kind


def test_terms_halfway_go_to_the_even_sum() -> None:
    # From 2**24 on a float32 counts in twos: 1 is halfway, and the first neighbour is even.
    ones = np.zeros(PART, np.float32)
    ones[::64] = 1
    assert added(2.0**24, ones) == 2.0**24
    assert added(2.0**24 + 2, ones) == 2.0**24 + 4


def test_blocks_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the comparison above would compare the loop with itself."""
    slow: Callable[[float, np.ndarray], float] = sequential._one_by_one
    calls = []

    def counted(start: float, terms: np.ndarray) -> float:
        calls.append(start)
        return slow(start, terms)

    monkeypatch.setattr(sequential, "_one_by_one", counted)
    total, parts = 0.0, (draws(3)["squares"].astype(np.float32)).reshape(-1, 1024)
    for part in parts:
        total = added(total, part)
    assert len(calls) < len(parts) // 3
