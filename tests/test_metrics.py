"""Metrics against values worked out otherwise: by hand, by pairs, by sets."""

from __future__ import annotations

import math

import numpy as np
import pytest

from deepfake_fpga.quantize.metrics import Counts, Tally, accuracy, auc, dice, iou


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
