"""Run lengths: the strings pycocotools makes, and an encoder that takes pixel by pixel."""

from __future__ import annotations

from typing import List

import numpy as np
import pytest

from deepfake_fpga.inference.run_lengths import area, bounding_box, compressed, run_lengths

from .sink_cases import slow_decode


def disc() -> np.ndarray:
    rows, columns = np.mgrid[:224, :224]
    return ((rows - 40) ** 2 + (columns - 150) ** 2 <= 30**2).astype(np.uint8)


def box() -> np.ndarray:
    mask = np.zeros((224, 224), np.uint8)
    mask[100:150, 60:180] = 1
    return mask


def column(*pixels: int) -> np.ndarray:
    return np.array(pixels, np.uint8)[:, None]


def span() -> np.ndarray:
    """The last pixel of one column and the first of the next: one run."""
    mask = np.zeros((3, 4), np.uint8)
    mask[2, 1] = mask[0, 2] = 1
    return mask


# What pycocotools 2 gives for these masks: encode(), area() and toBbox().
RECORDED = [
    (np.zeros((224, 224), np.uint8), "PPa1", 0, [0, 0, 0, 0]),
    (np.ones((224, 224), np.uint8), "0PPa1", 50176, [0, 0, 224, 224]),
    (box(), "TW=b1^5" + "0" * 237 + "l`9", 6000, [60, 100, 120, 50]),
    (
        disc(),
        "XYj01h6>F6J6L2M4L4M2N2N2N2N2N2O0O2O0O2N2O000O2O000O2O00000000000O20N1000000000001N10001N"
        "10001N2N101N101N2N2N2N2N2N3L4L3N4J6J:Bo[9",
        2821,
        [120, 10, 61, 61],
    ),
    (column(0, 0, 1, 1, 1, 0, 1), "231N", 4, [0, 2, 1, 5]),
    (column(1, 1, 1, 1, 1, 1, 0), "061", 6, [0, 0, 1, 6]),
    (np.indices((6, 5)).sum(0) % 2, "1110010O0010O0010O0010O000", 15, [0, 0, 5, 6]),
    (span(), "525", 2, [1, 0, 2, 3]),
]


def slow_counts(mask: np.ndarray) -> List[int]:
    counts, last = [0], 0
    for x in range(mask.shape[1]):
        for y in range(mask.shape[0]):
            pixel = int(mask[y, x] != 0)
            if pixel != last:
                counts.append(0)
                last = pixel
            counts[-1] += 1
    return counts


def slow_string(counts: List[int]) -> str:
    """Signed LEB128 with groups of five bits, of each count less the one two before."""
    letters = []
    for place, count in enumerate(counts):
        value = count - counts[place - 2] if place > 2 else count
        while True:
            group, value = value & 31, value >> 5
            done = value == (-1 if group & 16 else 0)
            letters.append(chr(48 + group + (0 if done else 32)))
            if done:
                break
    return "".join(letters)


@pytest.mark.parametrize("number", range(len(RECORDED)))
def test_the_strings_are_those_of_pycocotools(number: int) -> None:
    mask, string, pixels, around = RECORDED[number]
    counts = run_lengths(mask)
    assert compressed(counts) == string
    assert area(counts) == pixels
    assert bounding_box(counts, mask.shape[0]) == around
    np.testing.assert_array_equal(slow_decode(string, *mask.shape), mask)


@pytest.mark.parametrize("seed", range(40))
def test_any_mask_is_as_pixel_by_pixel(seed: int) -> None:
    random = np.random.default_rng(seed)
    height, width = random.integers(1, 40, 2)
    mask = (random.random((height, width)) < random.random() ** 3).astype(np.uint8)
    if seed % 2:
        mask = np.kron(mask, np.ones(random.integers(1, 40, 2), np.uint8))
    if seed % 3 == 0:  # what is set need not be 1, nor the rows follow each other in memory
        mask = np.asfortranarray(mask * np.uint8(255))
    counts = run_lengths(mask)
    assert counts.tolist() == slow_counts(mask)
    assert compressed(counts) == slow_string(counts.tolist())
    np.testing.assert_array_equal(slow_decode(compressed(counts), *mask.shape), mask != 0)
    np.testing.assert_array_equal(slow_decode(counts.tolist(), *mask.shape), mask != 0)
    assert area(counts) == np.count_nonzero(mask)
    rows, columns = np.nonzero(mask)
    if len(rows):
        x, y = columns.min(), rows.min()
        around = [x, y, columns.max() - x + 1, rows.max() - y + 1]
        assert bounding_box(counts, mask.shape[0]) == around
    else:
        assert bounding_box(counts, mask.shape[0]) == [0, 0, 0, 0]


def test_long_runs_take_as_many_groups_as_they_need() -> None:
    for exponent in range(1, 40):
        for near in (-1, 0, 1):
            long = 2**exponent + near
            counts = np.array([long, 1, 5, long, 1, 1, 2 * long, long])
            assert compressed(counts) == slow_string(counts.tolist())
