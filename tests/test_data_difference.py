"""Masks of differences: the index against its formula, thresholds, cleaning, known masks."""

from __future__ import annotations

import math
from typing import Callable, List, Tuple

import cv2
import numpy as np
import pytest

from deepfake_fpga.errors import UsageError
from deepfake_fpga.inference.corpus.difference import (
    C1,
    C2,
    MaskOptions,
    Threshold,
    clean,
    difference,
    otsu,
    overlap,
    similarity_map,
)
from deepfake_fpga.inference.corpus.gif import gif_bytes
from deepfake_fpga.quantize.camera import through_h264, through_jpeg
from deepfake_fpga.quantize.synthetic_pairs import Pair, make_pair

from .needs import needs_av

Pictures = List[Tuple[np.ndarray, np.ndarray, np.ndarray]]
"""Fake, original and true mask."""


@pytest.fixture(scope="module")
def made() -> List[Pair]:
    return [make_pair("test", 11, number, 2, 176) for number in range(8)]


def textbook(a: np.ndarray, b: np.ndarray, row: int, column: int) -> float:
    """Equation 13 at one pixel, from sums over the 121 pixels around it."""
    weights = np.array(
        [
            [math.exp(-(x * x + y * y) / (2 * 1.5**2)) for x in range(-5, 6)]
            for y in range(-5, 6)
        ]
    )  # fmt: skip
    weights /= weights.sum()
    ours = a[row - 5 : row + 6, column - 5 : column + 6].astype(float)
    theirs = b[row - 5 : row + 6, column - 5 : column + 6].astype(float)
    x, y = (weights * ours).sum(), (weights * theirs).sum()
    xx, yy = (weights * (ours - x) ** 2).sum(), (weights * (theirs - y) ** 2).sum()
    xy = (weights * (ours - x) * (theirs - y)).sum()
    return float(
        (2 * x * y + C1) * (2 * xy + C2) / ((x * x + y * y + C1) * (xx + yy + C2))
    )  # fmt: skip


def test_the_index_is_that_of_the_paper() -> None:
    rng = np.random.RandomState(0)
    a = rng.randint(0, 256, (24, 26)).astype(np.uint8)
    b = np.clip(a.astype(int) + rng.randint(-60, 60, a.shape), 0, 255).astype(np.uint8)
    found = similarity_map(a, b)
    for row, column in ((5, 5), (10, 12), (18, 20)):
        assert found[row, column] == pytest.approx(textbook(a, b, row, column), abs=2e-4)
    assert np.allclose(similarity_map(a, a), 1)
    assert similarity_map(a, 255 - a).mean() < 0


def test_otsu_is_the_best_of_all_limits() -> None:
    rng = np.random.RandomState(1)
    values = np.concatenate([rng.normal(0.1, 0.03, 900), rng.normal(0.6, 0.1, 300)]).clip(0, 1)

    def between(limit: float) -> float:
        low, high = values[values <= limit], values[values > limit]
        if not len(low) or not len(high):
            return 0.0
        return len(low) * len(high) * (low.mean() - high.mean()) ** 2

    best = max(between(step / 256) for step in range(256))
    assert between(otsu(values)) > 0.995 * best


def test_cleaning_removes_specks_fills_holes_and_closes_gaps() -> None:
    mask = np.zeros((100, 100), bool)
    mask[20:60, 20:60] = True
    mask[35:40, 35:40] = False  # a hole
    mask[20:60, 50:52] = False  # a gap
    mask[80, 80] = True  # a speck
    mask[10:13, 90:93] = True  # a small component
    truth = np.zeros((100, 100), bool)
    truth[20:60, 20:60] = True
    options = MaskOptions(smallest=0.01)
    assert overlap(clean(mask, options), truth) > 0.97
    kept = clean(mask, MaskOptions(fill=False, closing=0.0, opening=0.0, smallest=0.0))
    assert np.array_equal(kept, mask)
    assert not clean(np.zeros((9, 9), bool), options).any()
    assert clean(np.ones((9, 9), bool), options).all()


def naive(fake: np.ndarray, original: np.ndarray, limit: float) -> np.ndarray:
    grey = [cv2.cvtColor(one, cv2.COLOR_RGB2GRAY).astype(int) for one in (fake, original)]
    return np.abs(grey[0] - grey[1]) > limit


def best_naive(pictures: Pictures) -> float:
    """The mean overlap of the one limit that is best in hindsight."""
    return max(
        float(np.mean([overlap(naive(fake, original, limit), mask)
                       for fake, original, mask in pictures]))
        for limit in range(2, 40, 2)
    )  # fmt: skip


def encoded(pair: Pair, how: Callable[..., List[np.ndarray]], first: int, second: int) -> Pictures:
    fakes, originals = how(pair.fake, second), how(pair.original, first)
    return list(zip(fakes, originals, pair.masks))


def jpegs(pictures: List[np.ndarray], quality: int) -> List[np.ndarray]:
    return [through_jpeg(picture, quality) for picture in pictures]


@pytest.mark.parametrize(
    ("how", "first", "second", "least", "gain"),
    [
        # Without a codec all that is not exactly equal was manipulated, which is easy to see.
        pytest.param(lambda pictures, _: pictures, 0, 0, 0.88, 0.1, id="as made"),
        pytest.param(jpegs, 90, 70, 0.86, 0.3, id="jpeg 90, 70"),
        pytest.param(through_h264, 18, 23, 0.86, 0.3, id="h264 18, 23", marks=needs_av),
        pytest.param(through_h264, 23, 28, 0.84, 0.3, id="h264 23, 28", marks=needs_av),
        pytest.param(through_h264, 28, 33, 0.8, 0.3, id="h264 28, 33", marks=needs_av),
    ],
)
def test_known_masks_are_found(
    made: List[Pair],
    how: Callable[..., List[np.ndarray]],
    first: int,
    second: int,
    least: float,
    gain: float,
) -> None:
    pictures = [one for pair in made for one in encoded(pair, how, first, second)]
    options = MaskOptions()
    ours = float(np.mean([overlap(difference(f, o, options).mask, m) for f, o, m in pictures]))
    rival = best_naive(pictures)
    print(f"overlap {ours:.3f}, naive {rival:.3f}")
    assert ours > least
    assert ours > rival + gain


def test_a_pair_that_differs_in_compression_only_has_an_empty_mask(made: List[Pair]) -> None:
    for pair in made:
        for picture in pair.original:
            found = difference(through_jpeg(picture, 60), through_jpeg(picture, 90), MaskOptions())
            assert not found.mask.any()
            assert found.outside > 0.85


def test_structure_alone_finds_what_has_no_colour_of_its_own() -> None:
    rng = np.random.RandomState(2)
    picture = cv2.GaussianBlur(rng.randint(0, 256, (120, 120, 3)).astype(np.uint8), (0, 0), 2)
    picture = np.clip((picture.astype(float) - 128) * 5 + 128, 0, 255).astype(np.uint8)
    fake = picture.copy()
    fake[40:80, 40:80] = picture[40:80, 40:80][:, ::-1]  # the same pixels, another order
    truth = np.zeros((120, 120), bool)
    truth[40:80, 40:80] = True
    options = MaskOptions(colour=False, threshold=Threshold.FIXED, level=0.3)
    assert overlap(difference(fake, picture, options).mask, truth) > 0.8


def test_a_limit_for_all_is_taken_as_it_is(made: List[Pair]) -> None:
    pair = made[0]
    options = MaskOptions(threshold=Threshold.FIXED, level=0.33)
    found = difference(pair.fake[0], pair.original[0], options)
    assert found.limit == 0.33
    with pytest.raises(UsageError):
        MaskOptions(level=1.5)


def test_a_gif_decodes_to_the_mask() -> None:
    rng = np.random.RandomState(3)
    for number in range(30):
        shape = tuple(rng.randint(1, 150, 2))
        mask = rng.rand(*shape) < rng.choice([0, 0.02, 0.5, 1])
        if number % 2:  # long runs reach the longest codes
            mask = cv2.GaussianBlur(rng.rand(*shape), (0, 0), 5) > 0.5
        data = np.frombuffer(gif_bytes(mask), np.uint8)
        decoded = cv2.imdecode(data, cv2.IMREAD_COLOR)
        assert np.array_equal(decoded, np.repeat(255 * mask[..., None], 3, axis=2))
