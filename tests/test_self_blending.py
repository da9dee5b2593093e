"""Self-blending: where it changes a picture, what mask it gives, that it is drawn from the seed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("cv2")
pytest.importorskip("av")  # the drawn people pass a codec

from deepfake_fpga.quantize.self_blending import (
    CENTRE,
    VISIBLE,
    Blend,
    Change,
    Region,
    blend,
    blend_mask,
    self_blend,
)
from deepfake_fpga.quantize.synthetic import make_take

NOTHING = Change(
    gain=(1.0, 1.0, 1.0),
    offset=(0.0, 0.0, 0.0),
    saturation=1.0,
    sharpness=0.0,
    shrink=1.0,
    quality=0,
    shift=(0.0, 0.0),
    zoom=1.0,
    stretch=1.0,
    turn=0.0,
)
PLAIN = Blend(
    change=NOTHING, to_target=False, ratio=1.0, softness=0.03, grow=1.0, warp=0.0, shape=0, seed=4
)


@pytest.fixture(scope="module")
def face() -> np.ndarray:
    return make_take("train", 0, 2, 1, fake=False).pictures[0]


def test_no_change_gives_the_picture_back(face: np.ndarray):
    blended, mask = blend(face, PLAIN)
    assert np.array_equal(blended, face)
    assert 0.1 < mask.mean() < 0.4


def test_a_tint_is_laid_in_by_the_mask_and_the_ratio():
    grey = np.full((200, 200, 3), 100, np.uint8)
    tinted = replace(NOTHING, offset=(40.0, 0.0, -20.0))
    recipe = replace(PLAIN, change=tinted, ratio=0.5)
    soft = blend_mask(recipe, CENTRE, (200, 200))
    blended, mask = blend(grey, recipe)
    wanted = 100 + 0.5 * soft[..., None] * np.array([40.0, 0.0, -20.0])
    assert np.abs(blended - wanted).max() <= 0.51
    assert np.array_equal(mask, soft > 0.5)
    assert blended[mask].mean(0) == pytest.approx([120, 100, 90], abs=3)
    assert np.array_equal(blended[soft == 0], grey[soft == 0])


def test_with_the_target_changed_the_face_stays():
    grey = np.full((200, 200, 3), 100, np.uint8)
    tinted = replace(NOTHING, offset=(40.0, 40.0, 40.0))
    recipe = replace(PLAIN, change=tinted, to_target=True)
    soft = blend_mask(recipe, CENTRE, (200, 200))
    blended, mask = blend(grey, recipe)
    assert np.all(blended[soft == 1] == 100)
    assert np.all(blended[soft == 0] == 140)
    assert np.array_equal(mask, soft > 0.5)


def test_a_shift_moves_only_what_is_inside():
    stripes = np.zeros((200, 200, 3), np.uint8)
    stripes[:, ::8] = 200
    shifted = replace(NOTHING, shift=(0.04, 0.0))  # 4 of the face's 100 pixels
    recipe = replace(PLAIN, change=shifted)
    soft = blend_mask(recipe, CENTRE, (200, 200))
    blended, _ = blend(stripes, recipe)
    moved = np.roll(stripes, 4, axis=1)
    inside = np.abs(blended[soft == 1].astype(int) - moved[soft == 1])
    assert (soft == 1).sum() > 1000
    assert inside.max() <= 1
    assert np.array_equal(blended[soft == 0], stripes[soft == 0])


def test_the_mask_lies_where_the_face_is():
    region = Region(x=0.3, y=0.7, width=0.2, height=0.3)
    soft = blend_mask(PLAIN, region, (200, 300))
    rows, columns = np.nonzero(soft > 0.5)
    assert soft.shape == (200, 300)
    assert columns.mean() / 300 == pytest.approx(0.3, abs=0.03)
    assert rows.mean() / 200 == pytest.approx(0.7, abs=0.05)
    assert columns.max() - columns.min() < 0.25 * 300


def test_masks_are_hulls_until_they_are_warped():
    cv2 = pytest.importorskip("cv2")
    for seed in range(20):
        recipe = Blend.sample(np.random.RandomState(seed))
        hard = (blend_mask(replace(recipe, warp=0.0, softness=0.0), CENTRE, (224, 224)) > 0.5) * 1
        contours, _ = cv2.findContours(hard.astype(np.uint8), 0, cv2.CHAIN_APPROX_NONE)
        assert len(contours) == 1
        hull = cv2.contourArea(cv2.convexHull(contours[0]))
        assert cv2.contourArea(contours[0]) > 0.96 * hull


def test_every_draw_is_visible_and_has_a_mask(face: np.ndarray):
    for seed in range(40):
        blended, mask = self_blend(face, np.random.RandomState(seed))
        change = np.abs(blended.astype(float) - face)
        assert mask.any()
        assert not mask.all()
        assert max(change[mask].mean(), change[~mask].mean()) >= VISIBLE
        assert blended.dtype == np.uint8
        assert blended.shape == face.shape


def test_a_flat_picture_is_blended_too():
    flat = np.full((224, 224, 3), 128, np.uint8)
    for seed in range(10):
        blended, mask = self_blend(flat, np.random.RandomState(seed))
        assert mask.any()
        assert not np.array_equal(blended, flat)


def test_the_seed_decides(face: np.ndarray):
    before = face.copy()
    one, other, third = (self_blend(face, np.random.RandomState(seed)) for seed in (3, 3, 4))
    assert np.array_equal(one[0], other[0])
    assert np.array_equal(one[1], other[1])
    assert not np.array_equal(one[0], third[0])
    assert np.array_equal(face, before)
