"""Self-blending: a face blended with a changed copy of itself, and the mask that tells where.

After the idea of self-blended images: forgeries of every kind leave a seam between two sources that
differ a little in colour, sharpness, compression or place. A picture that is its own second source
shows that seam and nothing else, so who learns from it does not learn one forger's habits. It needs
an authentic picture and roughly where the face is, so drawn faces and photographs serve alike.

OpenCV is imported where it is used.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Tuple

import numpy as np

from ..preprocessing import Image
from .camera import through_jpeg, to_bytes

VISIBLE = 3.0
"""Least mean change, in levels of 255, that deserves to be called a manipulation."""

_ATTEMPTS = 6

_OUTLINE = np.array(
    [
        (-0.92, -0.45), (-0.55, -0.72), (-0.2, -0.68), (0.2, -0.68), (0.55, -0.72), (0.92, -0.45),
        (0.95, 0.0), (0.85, 0.45), (0.6, 0.8), (0.25, 0.98), (-0.25, 0.98), (-0.6, 0.8),
        (-0.85, 0.45), (-0.95, 0.0),
    ]
)  # fmt: skip
_EYES = np.array(
    [(-0.85, -0.5), (0.0, -0.62), (0.85, -0.5), (0.8, -0.05), (0.0, 0.05), (-0.8, -0.05)]
)
_MOUTH = np.array([(-0.5, 0.3), (0.5, 0.3), (0.62, 0.6), (0.35, 0.9), (-0.35, 0.9), (-0.62, 0.6)])
_NOSE = np.array([(-0.2, -0.4), (0.2, -0.4), (0.4, 0.35), (0.0, 0.45), (-0.4, 0.35)])
_SHAPES = (_OUTLINE, _OUTLINE[_OUTLINE[:, 0] <= 0.21], _OUTLINE[_OUTLINE[:, 0] >= -0.21],
           _EYES, _MOUTH, np.concatenate([_EYES, _NOSE, _MOUTH]))  # fmt: skip
_SHARES = (0.5, 0.07, 0.07, 0.1, 0.11, 0.15)


@dataclass(frozen=True)
class Region:
    """Where the face is, as shares of the picture's width and height.

    Attributes:
        x, y: the face's middle.
        width, height: from ear to ear, and from the brow to the chin.
    """

    x: float = 0.5
    y: float = 0.54
    width: float = 0.5
    height: float = 0.58


CENTRE = Region()
"""Of a crop with the usual margin, drawn or cut by a detector."""


@dataclass(frozen=True)
class Change:
    """What is done to one of the two copies; lengths are shares of the face, colours in 0..255.

    Attributes:
        gain, offset: of each channel, around the face's mean.
        saturation: factor of the distance to grey.
        sharpness: below 0 a blur's sigma in pixels, above 0 the strength of an unsharp mask.
        shrink: the copy is made smaller by this factor and large again.
        quality: JPEG quality, 0 for none.
        shift: to the right and down.
        zoom, stretch: factor of both sides, and of the width alone.
        turn: radians.
    """

    gain: Tuple[float, ...]
    offset: Tuple[float, ...]
    saturation: float
    sharpness: float
    shrink: float
    quality: int
    shift: Tuple[float, float]
    zoom: float
    stretch: float
    turn: float

    @classmethod
    def sample(cls, rng: np.random.RandomState, strength: float = 1.0) -> Change:
        """A random change; ``strength`` scales how far colours and sharpness move."""
        kinds = rng.uniform(size=4) < (0.75, 0.55, 0.25, 0.3)
        if not kinds.any():
            kinds[rng.randint(2)] = True
        colour, sharp, small, packed = kinds
        level = rng.uniform(0.85, 1.15)
        spread = 22.0 * strength if colour else 0.0
        blurred = rng.uniform() < 0.6
        sharpness = -rng.uniform(0.7, 2.0) if blurred else rng.uniform(0.7, 1.8)
        return cls(
            gain=tuple(
                1 + (level * rng.uniform(0.93, 1.07, 3) - 1) * strength if colour else np.ones(3)
            ),
            offset=tuple(rng.uniform(-0.5, 0.5) * spread + rng.uniform(-0.6, 0.6, 3) * spread),
            saturation=1 + rng.uniform(-0.3, 0.3) * strength if colour else 1.0,
            sharpness=sharpness if sharp else 0.0,
            shrink=rng.uniform(0.45, 0.8) if small else 1.0,
            quality=int(rng.randint(15, 60)) if packed else 0,
            shift=(rng.uniform(-0.04, 0.04), rng.uniform(-0.03, 0.03)),
            zoom=rng.uniform(0.95, 1.05),
            stretch=rng.uniform(0.97, 1.03),
            turn=rng.uniform(-0.05, 0.05),
        )


@dataclass(frozen=True)
class Blend:
    """One way of blending a face with itself.

    Attributes:
        change: what one copy goes through.
        to_target: the changed copy is the surrounding, not what is laid in. It is not moved then.
        ratio: weight of what is laid in, inside the mask.
        softness: sigma of the mask's edge, share of the face's width.
        grow: size of the mask.
        warp: elastic deformation of the mask, share of the face's width.
        shape: number of the mask's shape: face, halves, eyes, mouth, features.
        seed: of the mask's outline.
    """

    change: Change
    to_target: bool
    ratio: float
    softness: float
    grow: float
    warp: float
    shape: int
    seed: int

    @classmethod
    def sample(cls, rng: np.random.RandomState, strength: float = 1.0) -> Blend:
        """A random blend."""
        return cls(
            change=Change.sample(rng, strength),
            to_target=bool(rng.uniform() < 0.35),
            ratio=float(rng.choice([0.6, 0.8, 1.0, 1.0, 1.0])),
            softness=rng.uniform(0.015, 0.09),
            grow=rng.uniform(0.8, 1.12),
            warp=rng.uniform(0.0, 0.05),
            shape=int(rng.choice(len(_SHAPES), p=_SHARES)),
            seed=int(rng.randint(2**31 - 1)),
        )


def blend_mask(recipe: Blend, region: Region, size: Tuple[int, int]) -> np.ndarray:
    """The soft mask: a deformed convex hull, float32 ``size`` (height, width) in 0..1."""
    import cv2

    rng = np.random.RandomState(recipe.seed)
    height, width = size
    half = np.array([region.width * width, region.height * height]) / 2
    points = _SHAPES[recipe.shape] * recipe.grow + rng.uniform(-0.09, 0.09, (1, 2))
    points = points + rng.uniform(-0.08, 0.08, points.shape)
    pixels = points * half + np.array([region.x * width, region.y * height])
    hull = cv2.convexHull(np.round(pixels * 16).astype(np.int32)[:, None])
    hard = np.zeros(size, np.uint8)
    cv2.fillPoly(hard, [hull], 255, lineType=cv2.LINE_AA, shift=4)
    across = float(2 * half[0])
    if recipe.warp > 0:
        coarse = rng.uniform(-1, 1, (2, 5, 5)).astype(np.float32) * np.float32(recipe.warp * across)
        dx, dy = (cv2.resize(c, (width, height), interpolation=cv2.INTER_CUBIC) for c in coarse)
        x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
        hard = np.asarray(
            cv2.remap(hard, x + dx, y + dy, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT),
            np.uint8,
        )
    soft = cv2.GaussianBlur(hard, (0, 0), max(0.6, recipe.softness * across))
    return np.asarray(soft.astype(np.float32) * np.float32(1 / 255))


def blend(picture: Image, recipe: Blend, region: Region = CENTRE) -> Tuple[Image, np.ndarray]:
    """Blends a picture with itself.

    Args:
        picture: uint8 ``[H, W, 3]``, RGB, authentic.
        recipe: what to do.
        region: where the face is.

    Returns:
        The blended picture, and the mask: bool ``[H, W]``, where what is laid in weighs more than
        half of its full weight.
    """
    soft = blend_mask(recipe, region, (picture.shape[0], picture.shape[1]))
    plain = picture.astype(np.float32)
    changed = _changed(plain, recipe.change, soft)
    if recipe.to_target:
        # Only what is laid in may be moved: a background has no other place to come from.
        laid, around = _moved(plain, recipe.change, region), changed
    else:
        laid, around = _moved(changed, recipe.change, region), plain
    alpha = (soft * np.float32(recipe.ratio))[..., None]
    return to_bytes(around + (laid - around) * alpha), soft > 0.5


def self_blend(
    picture: Image, rng: np.random.RandomState, region: Region = CENTRE
) -> Tuple[Image, np.ndarray]:
    """Blends a picture with itself at random, so that the two copies differ visibly.

    A blend whose copies differ by less than ``VISIBLE`` inside the mask is drawn again, stronger;
    after six such draws the strongest is given.

    Returns:
        As ``blend``.
    """
    best: Tuple[float, Image, np.ndarray] = (-1.0, picture, np.zeros(picture.shape[:2], bool))
    for attempt in range(_ATTEMPTS):
        recipe = Blend.sample(rng, 1.0 + 0.4 * attempt)
        blended, mask = blend(picture, recipe, region)
        if not mask.any():
            continue
        moved = float(np.abs(blended.astype(np.float32) - picture)[mask].mean())
        if recipe.to_target:  # the change is around the mask
            moved = float(np.abs(blended.astype(np.float32) - picture)[~mask].mean())
        if moved > best[0]:
            best = (moved, blended, mask)
        if moved >= VISIBLE:
            break
    return best[1], best[2]


def _changed(picture: np.ndarray, change: Change, soft: np.ndarray) -> np.ndarray:
    import cv2

    mean = (picture * soft[..., None]).sum((0, 1)) / max(1.0, float(soft.sum()))
    copy = (picture - mean) * np.asarray(change.gain, np.float32) + mean
    copy = copy + (mean * (np.asarray(change.gain) - 1) * 0.5 + np.asarray(change.offset))
    copy = copy.astype(np.float32)
    if change.saturation != 1.0:
        grey = copy.mean(2, keepdims=True)
        copy = grey + (copy - grey) * np.float32(change.saturation)
    height, width = copy.shape[:2]
    if change.shrink < 1.0:
        small = (max(4, int(width * change.shrink)), max(4, int(height * change.shrink)))
        copy = cv2.resize(copy, small, interpolation=cv2.INTER_AREA)
        copy = cv2.resize(copy, (width, height), interpolation=cv2.INTER_LINEAR)
    if change.sharpness < 0:
        copy = cv2.GaussianBlur(copy, (0, 0), -change.sharpness)
    elif change.sharpness > 0:
        copy = copy + change.sharpness * (copy - cv2.GaussianBlur(copy, (0, 0), 1.5))
    if change.quality:
        copy = through_jpeg(to_bytes(copy), change.quality).astype(np.float32)
    return np.asarray(np.clip(copy, 0, 255), np.float32)


def _moved(picture: np.ndarray, change: Change, region: Region) -> np.ndarray:
    """The copy shifted, turned and zoomed about the face's middle."""
    import cv2

    height, width = picture.shape[:2]
    middle = np.array([region.x * width, region.y * height])
    shift = np.array(change.shift) * (region.width * width)
    cos, sin = math.cos(change.turn) * change.zoom, math.sin(change.turn) * change.zoom
    turn = np.array([[cos * change.stretch, -sin], [sin * change.stretch, cos]])
    move = np.column_stack([turn, middle + shift - turn @ middle])
    return np.asarray(
        cv2.warpAffine(
            picture, move, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
    )
