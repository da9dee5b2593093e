"""Metrics against values worked out otherwise: by hand, by pairs, by sets."""

from __future__ import annotations

import math

import numpy as np
import pytest

from deepfake_fpga.quantize.metrics import (
    Counts,
    Tally,
    accuracy,
    auc,
    balanced_accuracy,
    dice,
    ece,
    eer,
    fitted_threshold,
    iou,
    log_loss,
    reliability,
    roc,
)


def test_counts_of_a_hand_drawn_pair():
    predicted = np.array([[1, 1, 0], [0, 1, 0]])
    truth = np.array([[1, 0, 0], [1, 1, 0]])
    assert Counts.of(predicted, truth) == Counts(tp=2, fp=1, fn=1, tn=2)
    assert dice(predicted, truth) == pytest.approx(4 / 6)
    assert iou(predicted, truth) == pytest.approx(2 / 4)
    assert accuracy(predicted, truth) == pytest.approx(4 / 6)


def test_masks_against_sets_of_pixels():
    rng = np.random.RandomState(1)
    for _ in range(20):
        a, b = rng.uniform(size=(2, 9, 7)) < rng.uniform(0.1, 0.9)
        ours, theirs = ({tuple(p) for p in np.argwhere(mask)} for mask in (a, b))
        assert dice(a, b) == pytest.approx(2 * len(ours & theirs) / (len(ours) + len(theirs)))
        assert iou(a, b) == pytest.approx(len(ours & theirs) / len(ours | theirs))


def test_255_is_as_true_as_1():
    mask = np.array([0, 255, 255], np.uint8)
    assert dice(mask, np.array([0, 1, 1], np.uint8)) == 1.0


def test_nothing_predicted_where_nothing_is():
    empty, full = np.zeros((4, 4)), np.ones((4, 4))
    assert dice(empty, empty) == iou(empty, empty) == 1.0
    assert dice(empty, full) == iou(full, empty) == 0.0
    assert math.isnan(accuracy(np.empty(0), np.empty(0)))


def test_counts_add_up_like_one_large_array():
    rng = np.random.RandomState(2)
    a, b = rng.uniform(size=(2, 6, 5)) < 0.4
    assert Counts.of(a[:2], b[:2]) + Counts.of(a[2:], b[2:]) == Counts.of(a, b)


def test_different_shapes_are_refused():
    with pytest.raises(ValueError, match="shapes"):
        dice(np.zeros((2, 3)), np.zeros((3, 2)))
    with pytest.raises(ValueError, match="shapes"):
        auc(np.zeros(3), np.zeros(2))


def test_auc_of_known_cases():
    assert auc(np.array([0.1, 0.4, 0.35, 0.8]), np.array([0, 0, 1, 1])) == pytest.approx(0.75)
    assert auc(np.array([1.0, 2.0, 3.0]), np.array([0, 0, 1])) == 1.0
    assert auc(np.array([3.0, 2.0, 1.0]), np.array([0, 0, 1])) == 0.0
    assert auc(np.full(6, 0.5), np.array([0, 1, 0, 1, 1, 1])) == 0.5
    assert math.isnan(auc(np.array([0.2, 0.3]), np.array([1, 1])))
    assert math.isnan(auc(np.array([0.2, math.nan]), np.array([0, 1])))


def test_auc_against_all_pairs():
    rng = np.random.RandomState(3)
    for levels in (3, 10, 1000):
        scores, labels = rng.randint(levels, size=60) / levels, rng.uniform(size=60) < 0.3
        pairs = [
            1.0 if p > n else 0.5 if p == n else 0.0
            for p in scores[labels]
            for n in scores[~labels]
        ]
        assert auc(scores, labels) == pytest.approx(sum(pairs) / len(pairs))


def test_tally_of_two_batches():
    tally = Tally()
    mask = np.zeros((2, 4, 4), np.uint8)
    truth = mask.copy()
    mask[0, :2], truth[0, :1] = 1, 1  # 4 pixels right, 4 too many
    tally.add(np.array([[0.9], [0.2]]), np.array([1, 0]), mask, truth)
    mask[:], truth[:] = 0, 0
    truth[1, 0, 0] = 1  # one missed
    tally.add(np.array([0.6, 0.4]), np.array([0, 1]), mask, truth)
    scores = tally.scores()
    assert scores.images == 4
    assert scores.accuracy == 0.5
    assert scores.auc == 0.75  # of four pairs one, 0.4 against 0.6, is the wrong way round
    assert scores.dice == pytest.approx(2 * 4 / (2 * 4 + 4 + 1))
    assert scores.iou == pytest.approx(4 / 9)
    assert scores.fake_iou == pytest.approx((4 / 8 + 0) / 2)
    assert Tally().scores().to_json()["auc"] is None


def test_eer_of_curves_drawn_by_hand():
    assert eer([0.1, 0.2, 0.8, 0.9], [0, 0, 1, 1]) == 0.0
    assert eer([0.1, 0.2, 0.8, 0.9], [1, 1, 0, 0]) == 1.0
    assert eer([0.5, 0.5, 0.5, 0.5], [0, 1, 0, 1]) == 0.5
    # From 0.6 on: one of four negatives passes, one of four positives is missed.
    scores = [0.1, 0.2, 0.3, 0.7, 0.4, 0.6, 0.8, 0.9]
    assert eer(scores, [0, 0, 0, 0, 1, 1, 1, 1]) == 0.25
    # From (0, 1/2) straight to (1/3, 1): false = f, missed = 1/2 - 3/2 f, equal at 1/5.
    assert eer([0.9, 0.5, 0.5, 0.1, 0.2], [1, 1, 0, 0, 0]) == pytest.approx(0.2)
    assert math.isnan(eer([0.3, 0.4], [1, 1]))


def test_eer_of_two_gaussians():
    """Of unit Gaussians two apart, the error at the middle is the tail beyond one: 15.87 %."""
    rng = np.random.RandomState(0)
    scores = np.concatenate([rng.normal(0, 1, 40000), rng.normal(2, 1, 40000)])
    tail = 0.5 * math.erfc(1 / math.sqrt(2))
    assert eer(scores, np.arange(80000) >= 40000) == pytest.approx(tail, abs=0.005)


def test_the_roc_counts_what_passes():
    rng = np.random.RandomState(4)
    scores, truth = np.round(rng.uniform(size=60), 1), rng.uniform(size=60) < 0.4
    for threshold, false, true in zip(*roc(scores, truth)):
        passed = scores >= threshold
        assert true == pytest.approx((passed & truth).sum() / truth.sum())
        assert false == pytest.approx((passed & ~truth).sum() / (~truth).sum())


def test_log_loss():
    assert log_loss([0.5, 0.5], [0, 1]) == pytest.approx(math.log(2))
    by_hand = -(math.log(0.8) + math.log(1 - 0.3) + math.log(0.1)) / 3
    assert log_loss([0.8, 0.3, 0.1], [1, 0, 1]) == pytest.approx(by_hand)
    assert log_loss([0.0], [1]) == pytest.approx(6 * math.log(10))  # one in a million, not none
    assert log_loss([1.0, 0.0], [1, 0]) == pytest.approx(1e-6, rel=1e-3)
    assert math.isnan(log_loss([], []))


def test_calibration_error():
    # 0.05, 0.05 and 0.15 are two intervals: |0.05 - 0.5| * 2/3 + |0.15 - 0| * 1/3.
    assert ece([0.05, 0.05, 0.15], [0, 1, 0]) == pytest.approx(0.45 * 2 / 3 + 0.15 / 3)
    assert ece([1.0, 1.0], [1, 1]) == 0.0
    assert reliability([0.0, 0.1, 1.0], [0, 1, 1])[9] == (1, 1.0, 1.0)
    assert [count for count, _, _ in reliability([0.0, 0.1, 1.0], [0, 1, 1])] == [1, 1] + 7 * [
        0
    ] + [1]
    assert math.isnan(ece([], []))


def test_probabilities_that_come_true_have_no_calibration_error():
    rng = np.random.RandomState(7)
    p = rng.uniform(size=200000)
    truth = rng.uniform(size=p.size) < p
    assert ece(p, truth) < 0.01
    assert ece(np.clip(p - 0.2, 0, 1), truth) > 0.15


def test_a_threshold_is_fitted_where_it_helps():
    # All scores have sunk by 0.3: between 0.2 and 0.4 everything is told apart.
    assert fitted_threshold([0.1, 0.2, 0.4, 0.6], [0, 0, 1, 1]) == pytest.approx((0.3, 1.0))
    assert fitted_threshold([0.1, 0.4, 0.6, 0.9], [0, 0, 1, 1]) == (0.5, 1.0)
    # One half is as good as anything, although 0.35 would be too.
    assert fitted_threshold([0.3, 0.4, 0.45, 0.6], [0, 1, 0, 1])[0] == 0.5
    assert all(map(math.isnan, fitted_threshold([0.1, 0.2], [1, 1])))


def test_no_threshold_is_better_than_the_fitted_one():
    rng = np.random.RandomState(11)
    for _ in range(30):
        truth = rng.uniform(size=40) < 0.3
        truth[:2] = True, False
        scores = np.round(np.clip(0.2 * truth + rng.uniform(0, 0.7, 40), 0, 1), 2)
        threshold, reached = fitted_threshold(scores, truth)
        assert reached == pytest.approx(balanced_accuracy(scores, truth, threshold))
        for other in np.linspace(0, 1, 201):
            passed = scores >= other
            rate = (passed[truth].mean() + (~passed[~truth]).mean()) / 2
            assert rate <= reached + 1e-9


def test_both_verdicts_at_one_half_are_fake():
    tally = Tally()
    tally.add(np.array([0.5]), np.array([1]), np.ones((1, 2, 2)), np.ones((1, 2, 2)))
    assert tally.scores().accuracy == 1.0
