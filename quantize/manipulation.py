"""Manipulations: what is done to a drawn face to fake it, and the mask that tells where.

A manipulation is a blend, as in the literature on self-blended images: a copy of the face, moved
a little, of another colour and sharpness, compressed on its own, or the inner face of another
person in the same pose, is laid over the picture through a soft mask.

OpenCV is imported where it is used.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Optional, Tuple

import numpy as np

from ..preprocessing import Image
from .camera import through_jpeg, to_bytes
from .faces import Identity, Placement, Pose, ellipse
from .portrait import noise


@dataclass(frozen=True)
class Manipulation:
    """One way of faking a face; lengths are in face units, colours in 0..255.

    Attributes:
        seed: of the mask's and the warp's shape.
        region: ``face``, ``half``, ``eyes`` or ``mouth``.
        donor: identity whose inner face is laid in; None blends the face with itself.
        match: how far a donor's colour is brought to the target's, 0..1.
        shift: how far the copy is moved, to the right and down.
        turn: radians.
        zoom: factor.
        warp: size of the elastic displacement.
        tint: added to the copy, RGB.
        contrast: factor around the copy's mean.
        sharpness: below 0 a blur's sigma in pixels, above 0 the strength of an unsharp mask.
        quality: JPEG quality of the copy, 0 for none.
        softness: sigma of the mask's edge.
        opacity: weight of the copy inside the mask.
    """

    seed: int
    region: str
    donor: Optional[int]
    match: float
    shift: Tuple[float, float]
    turn: float
    zoom: float
    warp: float
    tint: Tuple[float, ...]
    contrast: float
    sharpness: float
    quality: int
    softness: float
    opacity: float

    @classmethod
    def sample(cls, rng: np.random.RandomState, donor: int) -> Manipulation:
        """A random manipulation; ``donor`` is the identity a swap takes its face from."""
        direction = rng.standard_normal(3)
        tint = direction / np.linalg.norm(direction) * rng.uniform(18, 38)
        blurred = rng.uniform() < 0.65
        return cls(
            seed=int(rng.randint(2**31 - 1)),
            region=str(rng.choice(["face", "half", "eyes", "mouth"], p=[0.5, 0.15, 0.15, 0.2])),
            donor=donor if rng.uniform() < 0.45 else None,
            match=rng.uniform(0.4, 0.9),
            shift=(rng.uniform(-0.05, 0.05), rng.uniform(-0.05, 0.05)),
            turn=rng.uniform(-0.05, 0.05),
            zoom=rng.uniform(0.94, 1.06),
            warp=rng.uniform(0.0, 0.03),
            tint=tuple(tint),
            contrast=rng.uniform(0.8, 1.2),
            sharpness=-rng.uniform(1.0, 2.4) if blurred else rng.uniform(0.8, 2.0),
            quality=int(rng.randint(12, 50)) if rng.uniform() < 0.5 else 0,
            softness=rng.uniform(0.02, 0.07),
            opacity=rng.uniform(0.85, 1.0),
        )

    def flicker(self, rng: np.random.RandomState) -> Manipulation:
        """The same manipulation as it comes out in one frame of a clip: a touch different."""
        return replace(
            self,
            shift=(self.shift[0] + 0.004 * rng.randn(), self.shift[1] + 0.004 * rng.randn()),
            tint=tuple(np.asarray(self.tint) * (1 + 0.06 * rng.randn())),
        )


def region_mask(who: Identity, pose: Pose, recipe: Manipulation, size: int) -> np.ndarray:
    """The soft mask of a manipulation: float32 ``[size, size]`` in 0..1."""
    import cv2

    rng = np.random.RandomState(recipe.seed)
    grow = rng.uniform(0.88, 1.12)
    u, v, ru, rv = {
        "face": (0.0, 0.2, 0.68, 0.82),
        "half": (float(rng.choice([-0.32, 0.32])), 0.15, 0.4, 0.8),
        "eyes": (0.0, who.eye_v - 0.08, 0.74, 0.36),
        "mouth": (0.0, who.mouth_v + 0.02, 0.56, 0.38),
    }[recipe.region]
    polygon = ellipse(0, 0, ru * grow, rv * grow, n=48)
    t = np.arange(48) * (2 * math.pi / 48)
    wave = sum(
        rng.uniform(-0.07, 0.07) * np.cos(k * t + rng.uniform(0, 2 * math.pi)) for k in (2, 3, 5)
    )
    polygon = polygon * (1 + np.asarray(wave))[:, None] + np.array([u, v])
    at = Placement(pose, size)
    shape = np.zeros((size, size), np.uint8)
    fixed = np.round(at.pixels(polygon, 0.15) * 16).astype(np.int32)[:, None]
    cv2.fillPoly(shape, [fixed], 255, lineType=cv2.LINE_AA, shift=4)
    soft = cv2.GaussianBlur(shape, (0, 0), max(0.5, recipe.softness * at.unit))
    return np.asarray(soft.astype(np.float32) * np.float32(1 / 255))


def manipulate(
    picture: Image, who: Identity, pose: Pose, recipe: Manipulation, donor: Optional[Image] = None
) -> Tuple[Image, np.ndarray]:
    """Applies a manipulation.

    Args:
        picture: uint8 ``[size, size, 3]``, RGB, the authentic face.
        who: the person in it.
        pose: their pose.
        recipe: what to do.
        donor: the donor of ``recipe`` drawn in the same pose, if it has one.

    Returns:
        The manipulated picture, and the mask: bool ``[size, size]``, where the blend weighs more
        than half of its full weight.
    """
    import cv2

    size = picture.shape[0]
    soft = region_mask(who, pose, recipe, size)
    copy = (picture if donor is None else donor).astype(np.float32)
    if donor is not None:
        copy = _match_colour(copy, picture, soft, recipe.match)
    mean = (copy * soft[..., None]).sum((0, 1)) / max(1.0, float(soft.sum()))
    copy = (copy - mean) * recipe.contrast + mean + np.asarray(recipe.tint, np.float32)
    copy = _moved(copy.astype(np.float32), pose, recipe)
    if recipe.sharpness < 0:
        copy = np.asarray(cv2.GaussianBlur(copy, (0, 0), -recipe.sharpness), np.float32)
    else:
        copy = copy + recipe.sharpness * (copy - cv2.GaussianBlur(copy, (0, 0), 1.5))
    if recipe.quality:
        copy = through_jpeg(to_bytes(copy), recipe.quality).astype(np.float32)
    alpha = (soft * recipe.opacity)[..., None]
    fake = picture + (np.clip(copy, 0, 255) - picture) * alpha
    return to_bytes(fake), soft > 0.5


def _match_colour(copy: np.ndarray, target: Image, soft: np.ndarray, share: float) -> np.ndarray:
    """Brings the copy's mean and deviation inside the mask towards the target's."""
    inside = soft > 0.5
    ours, theirs = copy[inside], target[inside].astype(np.float32)
    if len(ours) == 0:
        return copy
    gain = np.clip(theirs.std(0) / np.maximum(ours.std(0), 1.0), 0.5, 2.0)
    matched = (copy - ours.mean(0)) * gain + theirs.mean(0)
    return np.asarray(copy + (matched - copy) * share, np.float32)


def _moved(copy: np.ndarray, pose: Pose, recipe: Manipulation) -> np.ndarray:
    """The copy shifted, turned, zoomed and elastically displaced about the face's middle."""
    import cv2

    size = copy.shape[0]
    unit = pose.scale * size
    cos, sin = math.cos(recipe.turn) / recipe.zoom, math.sin(recipe.turn) / recipe.zoom
    x, y = np.meshgrid(np.arange(size, dtype=np.float32), np.arange(size, dtype=np.float32))
    dx = x - np.float32(pose.x * size + recipe.shift[0] * unit)
    dy = y - np.float32(pose.y * size + recipe.shift[1] * unit)
    map_x = np.float32(pose.x * size) + cos * dx + sin * dy
    map_y = np.float32(pose.y * size) - sin * dx + cos * dy
    if recipe.warp > 0:
        rng = np.random.RandomState([recipe.seed, 43])
        map_x += recipe.warp * unit * noise(rng, size, 6)
        map_y += recipe.warp * unit * noise(rng, size, 6)
    return np.asarray(
        cv2.remap(
            copy,
            map_x.astype(np.float32),
            map_y.astype(np.float32),
            cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        )
    )
