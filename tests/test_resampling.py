"""Figures of resampled videos: against pairs counted one by one, and intervals known beforehand."""

from __future__ import annotations

import math
from typing import List, Sequence, Tuple

import numpy as np
import pytest

from deepfake_fpga.quantize import metrics, resampling
from deepfake_fpga.quantize.boundary import boundary_f, outline, tolerance_of
from deepfake_fpga.quantize.resampling import (
    RANKED,
    Ranking,
    Resampling,
    by_unit,
    calibration_error,
    interval,
    ratio,
)

ONE = np.ones((1, 1))


def ranked(
    scores: Sequence[float], positive: Sequence[int], far: float = 0.0, unit: Sequence[int] = ()
) -> dict[str, float]:
    units = np.array(unit, int) if len(unit) else np.zeros(len(scores), int)
    ranking = Ranking(np.array(scores, np.float64), np.array(positive, bool), units)
    counts = np.ones((1, int(units.max(initial=0)) + 1))
    return dict(zip(RANKED, ranking.statistic(far)(counts)[0]))


def slow_auc(scores: Sequence[float], positive: Sequence[int]) -> float:
    won = pairs = 0.0
    for i, a in enumerate(scores):
        for j, b in enumerate(scores):
            if positive[i] and not positive[j]:
                pairs += 1
                won += 1.0 if a > b else 0.5 if a == b else 0.0
    return won / pairs


def slow_points(scores: Sequence[float], positive: Sequence[int]) -> List[Tuple[float, float]]:
    """Share of negatives and of positives at or over every threshold, the strictest first."""
    yes, no = sum(positive), len(positive) - sum(positive)
    points = [(0.0, 0.0)]
    for threshold in sorted(set(scores), reverse=True):
        over = [p for s, p in zip(scores, positive) if s >= threshold]
        points.append(((len(over) - sum(over)) / no, sum(over) / yes))
    return points


def slow_eer(scores: Sequence[float], positive: Sequence[int]) -> float:
    """Walks along the straight pieces of the ROC curve in small steps."""
    best, found = 9.0, math.nan
    points = slow_points(scores, positive)
    for (x0, y0), (x1, y1) in zip(points, points[1:]):
        for step in range(20001):
            t = step / 20000
            x, y = x0 + t * (x1 - x0), y0 + t * (y1 - y0)
            if abs(x - (1 - y)) < best:
                best, found = abs(x - (1 - y)), x
    return found


def slow_average_precision(scores: Sequence[float], positive: Sequence[int]) -> float:
    total, before = 0.0, 0
    for threshold in sorted(set(scores), reverse=True):
        over = [p for s, p in zip(scores, positive) if s >= threshold]
        total += (sum(over) - before) / sum(positive) * sum(over) / len(over)
        before = sum(over)
    return total


def test_hand_computed() -> None:
    # .9 manipulated, .8 authentic, .7 manipulated, .1 authentic: three of four pairs are right.
    found = ranked([0.9, 0.8, 0.7, 0.1], [1, 0, 1, 0])
    assert found["auc"] == pytest.approx(3 / 4)
    assert found["average_precision"] == pytest.approx(1 / 2 * 1 + 1 / 2 * 2 / 3)
    assert found["eer"] == pytest.approx(0.5)
    assert found["threshold"] == pytest.approx(0.85)
    assert found["detection"] == pytest.approx(0.5)
    # One of the four pairs is a tie.
    assert ranked([0.5, 0.9, 0.5, 0.1], [1, 1, 0, 0])["auc"] == pytest.approx(3.5 / 4)
    perfect = ranked([0.9, 0.8, 0.2, 0.1], [1, 1, 0, 0])
    assert (perfect["auc"], perfect["eer"], perfect["average_precision"]) == (1.0, 0.0, 1.0)
    assert perfect["threshold"] == pytest.approx(0.5)
    assert perfect["detection"] == 1.0


def test_threshold_for_a_share_of_false_alarms() -> None:
    scores, positive = [0.9, 0.8, 0.7, 0.6, 0.5, 0.4], [1, 0, 1, 0, 1, 0]
    assert ranked(scores, positive, 1 / 3)["threshold"] == pytest.approx(0.65)
    assert ranked(scores, positive, 1 / 3)["detection"] == pytest.approx(2 / 3)
    assert ranked(scores, positive, 1.0)["threshold"] == pytest.approx(0.2)
    # The highest score is of an authentic one: no threshold is strict enough.
    worst = ranked([0.9, 0.8], [0, 1], 0.5)
    assert math.isnan(worst["threshold"])
    assert worst["detection"] == 0.0


@pytest.mark.parametrize("seed", range(6))
def test_weighted_figures_are_those_of_the_frames_repeated(seed: int) -> None:
    rng = np.random.RandomState(seed)
    n, videos = 60, 7
    levels = (5, 12, 1000)[seed % 3]  # few levels: many ties
    unit = rng.randint(videos, size=n)
    positive = rng.uniform(size=n) < 0.4
    scores = np.round(rng.uniform(size=n) * 0.6 + 0.3 * positive, 3 if levels == 1000 else 1)
    counts = rng.randint(0, 4, size=(5, videos)).astype(float)
    found = Ranking(scores, positive, unit).statistic(0.1)(counts)
    for row, count in zip(found, counts):
        times = count[unit].astype(int)
        s, p = np.repeat(scores, times).tolist(), np.repeat(positive, times).astype(int).tolist()
        assert row[0] == pytest.approx(slow_auc(s, p), abs=1e-12)
        assert row[0] == pytest.approx(metrics.auc(np.array(s), np.array(p)), abs=1e-12)
        assert row[1] == pytest.approx(slow_eer(s, p), abs=1e-4)
        assert row[1] == pytest.approx(metrics.eer(np.array(s), np.array(p)), abs=1e-12)
        assert row[2] == pytest.approx(slow_average_precision(s, p), abs=1e-12)
        allowed = [(x, y) for x, y in slow_points(s, p) if x <= 0.1]
        assert row[4] == pytest.approx(allowed[-1][1], abs=1e-12)
        if not math.isnan(row[3]):
            authentic = [score for score, yes in zip(s, p) if not yes]
            passed = sum(score >= row[3] for score in authentic) / len(authentic)
            assert passed <= 0.1
        error = calibration_error(scores, positive, unit, videos, 10)(count[None])[0]
        assert error == pytest.approx(metrics.ece(np.array(s), np.array(p)), abs=1e-12)


def test_one_kind_only_is_not_defined() -> None:
    for positive in ([1, 1], [0, 0]):
        assert all(math.isnan(value) for value in ranked([0.2, 0.7], positive).values())
    nothing = Ranking(np.empty(0), np.empty(0, bool), np.empty(0, int))
    assert np.isnan(nothing.statistic(0.1)(ONE)).all()


def test_every_resample_draws_as_many_videos_as_there_are() -> None:
    draws = np.concatenate(list(Resampling(13, 200, 5).draws()))
    assert draws.shape == (200, 13)
    assert (draws.sum(axis=1) == 13).all()
    assert np.array_equal(draws, np.concatenate(list(Resampling(13, 200, 5).draws())))
    assert not np.array_equal(draws, np.concatenate(list(Resampling(13, 200, 6).draws())))
    # Each video is drawn once on average.
    assert np.allclose(draws.mean(axis=0), 1.0, atol=0.35)


def test_draws_do_not_depend_on_the_size_of_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = np.concatenate(list(Resampling(9, 50, 1).draws()))
    monkeypatch.setattr(resampling, "_CELLS", 64)
    blocks = list(Resampling(9, 50, 1).draws())
    assert len(blocks) > 5
    assert np.array_equal(whole, np.concatenate(blocks))


def binomial_quantile(n: int, p: float, level: float) -> float:
    total = 0.0
    for k in range(n + 1):
        ways = math.exp(math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1))
        total += ways * p**k * (1 - p) ** (n - k)
        if total >= level:
            return k / n
    return 1.0


@pytest.mark.parametrize("right", [50, 90])
def test_the_interval_of_a_share_is_that_of_the_binomial_distribution(right: int) -> None:
    # Drawing 100 videos of which `right` are right is a binomial trial: its quantiles are known.
    values = (np.arange(100) < right).astype(float)
    whole, samples = Resampling(100, 8000, 3).apply(ratio(values, np.ones(100)))
    assert whole[0] == pytest.approx(right / 100)
    low, high = interval(samples[:, 0])
    assert low == pytest.approx(binomial_quantile(100, right / 100, 0.025), abs=0.0101)
    assert high == pytest.approx(binomial_quantile(100, right / 100, 0.975), abs=0.0101)
    inner = interval(samples[:, 0], 0.5)
    assert low < inner[0] < whole[0] < inner[1] < high


def test_videos_are_resampled_and_not_frames() -> None:
    # Two videos of 1000 frames, one told right throughout, one wrong: any draw gives 0, 1/2 or 1.
    unit = np.repeat([0, 1], 1000)
    right = by_unit(unit == 0, unit, 2)
    _, samples = Resampling(2, 400, 0).apply(ratio(right, by_unit(np.ones(2000), unit, 2)))
    assert set(np.round(samples[:, 0], 6)) == {0.0, 0.5, 1.0}
    assert interval(samples[:, 0]) == (0.0, 1.0)
    # Repeating every frame changes nothing.
    for repeats in (1, 50):
        frames = np.repeat(np.arange(30), repeats)
        values = by_unit(np.repeat(np.arange(30) % 3 == 0, repeats), frames, 30)
        _, found = Resampling(30, 300, 7).apply(ratio(values, by_unit(frames >= 0, frames, 30)))
        assert interval(found[:, 0]) == pytest.approx((5.0 / 30, 15.5 / 30), abs=0.02)


def test_too_few_defined_resamples_give_no_interval() -> None:
    assert all(np.isnan(interval(np.array([1.0, np.nan, np.nan]))))
    assert interval(np.array([1.0, 1.0, np.nan])) == (1.0, 1.0)
    assert all(np.isnan(interval(np.empty(0))))


def slow_boundary(predicted: np.ndarray, truth: np.ndarray, tolerance: int) -> float:
    def line(mask: np.ndarray) -> List[Tuple[int, int]]:
        found = []
        for y, x in zip(*np.nonzero(mask)):
            for dy, dx in ((0, 1), (1, 0), (0, -1), (-1, 0)):
                a, b = y + dy, x + dx
                if 0 <= a < mask.shape[0] and 0 <= b < mask.shape[1] and not mask[a, b]:
                    found.append((int(y), int(x)))
                    break
        return found

    ours, theirs = line(predicted), line(truth)
    near = lambda p, of: any(math.hypot(p[0] - q[0], p[1] - q[1]) <= tolerance for q in of)  # noqa: E731
    precision = sum(near(p, theirs) for p in ours) / len(ours)
    recall = sum(near(p, ours) for p in theirs) / len(theirs)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def square(y: int, x: int, side: int = 10, size: int = 40) -> np.ndarray:
    mask = np.zeros((size, size), np.uint8)
    mask[y : y + side, x : x + side] = 1
    return mask


def test_boundary_of_squares() -> None:
    assert outline(square(5, 5)).sum() == 36
    # Beyond the edge of the picture is as at the edge: two sides are left.
    assert outline(square(0, 0)).sum() == 19
    assert boundary_f(square(5, 5), square(5, 5), 0) == 1.0
    assert boundary_f(square(5, 5), square(6, 5), 1) == 1.0
    assert boundary_f(square(5, 5), square(20, 20), 3) == 0.0
    nothing = np.zeros((40, 40), np.uint8)
    assert boundary_f(nothing, nothing, 3) == 1.0
    assert boundary_f(nothing, square(5, 5), 3) == 0.0
    assert tolerance_of(224, 224) == 3
    with pytest.raises(ValueError, match="shapes differ"):
        boundary_f(nothing, nothing[:20], 3)


@pytest.mark.parametrize("seed", range(4))
def test_boundary_against_all_distances(seed: int) -> None:
    rng = np.random.RandomState(seed)
    masks = []
    for _ in range(2):
        mask = np.zeros((30, 34), np.uint8)
        for _ in range(3):
            y, x = rng.randint(20, size=2)
            mask[y : y + rng.randint(3, 12), x : x + rng.randint(3, 14)] = 1
        masks.append(mask)
    for tolerance in (0, 1, 2, 4):
        expected = slow_boundary(masks[0], masks[1], tolerance)
        assert boundary_f(masks[0], masks[1], tolerance) == pytest.approx(expected, abs=1e-12)
