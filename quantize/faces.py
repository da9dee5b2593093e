"""Drawn faces: who a synthetic person is, how they hold their head, and how that looks.

Everything is drawn in face coordinates: ``u`` to the right, ``v`` downwards, the face about one
unit wide on each side of the middle, eyes slightly above and chin about 1.2 below it. A pose
turns these into pixels. A third number, the depth, lets the nose move more than the ears when
the head turns.

OpenCV is imported where it is used.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Dict, List, Sequence, Tuple

import numpy as np

Colour = np.ndarray
"""float32 ``[3]``, RGB in 0..255."""

TEXTURE_SPAN = 1.7
"""Skin textures cover face coordinates from minus this to plus this."""
TEXTURE_SIZE = 256

_SKIN = (
    (244, 212, 188),
    (234, 190, 158),
    (222, 172, 130),
    (188, 130, 92),
    (140, 90, 62),
    (92, 60, 46),
)
_HAIR = (
    (28, 22, 20),
    (58, 38, 26),
    (96, 62, 36),
    (150, 104, 56),
    (204, 168, 108),
    (130, 58, 32),
    (150, 148, 146),
)
_IRIS = ((70, 44, 26), (104, 72, 36), (86, 110, 66), (70, 104, 140), (110, 120, 124))


@dataclass(frozen=True)
class Identity:
    """A synthetic person; lengths are in face coordinates, colours RGB in 0..255."""

    seed: int
    skin: Tuple[float, ...]
    hair: Tuple[float, ...]
    iris: Tuple[float, ...]
    lips: Tuple[float, ...]
    shirt: Tuple[float, ...]
    width: float
    crown: float
    chin: float
    jaw: float
    eye_u: float
    eye_v: float
    eye_width: float
    eye_height: float
    eye_tilt: float
    brow_v: float
    brow_thickness: float
    brow_arch: float
    nose_v: float
    nose_width: float
    mouth_v: float
    mouth_width: float
    lip_height: float
    hairline: float
    hair_volume: float
    hair_length: float
    parting: float
    beard: float
    freckles: float
    blush: float
    glasses: bool
    roughness: float

    @classmethod
    def sample(cls, seed: int) -> Identity:
        """The person with this seed; the same seed is the same person for ever."""
        rng = np.random.RandomState([seed & 0x7FFFFFFF, 17])
        uniform = rng.uniform
        skin = _between(_SKIN, rng)
        bald = uniform() < 0.1
        return cls(
            seed=seed,
            skin=tuple(skin),
            hair=tuple(_between(_HAIR, rng, mix=0.3)),
            iris=tuple(_between(_IRIS, rng, mix=0.3)),
            lips=tuple(skin * uniform(0.6, 0.9) + uniform(0.0, 0.28) * np.array([190, 40, 60])),
            shirt=tuple(rng.uniform(20, 235, 3)),
            width=uniform(0.82, 1.0),
            crown=uniform(1.15, 1.35),
            chin=uniform(1.1, 1.35),
            jaw=uniform(1.8, 2.7),
            eye_u=uniform(0.36, 0.45),
            eye_v=uniform(-0.2, -0.06),
            eye_width=uniform(0.17, 0.225),
            eye_height=uniform(0.065, 0.115),
            eye_tilt=uniform(-0.12, 0.12),
            brow_v=uniform(-0.47, -0.36),
            brow_thickness=uniform(0.03, 0.075),
            brow_arch=uniform(0.0, 0.1),
            nose_v=uniform(0.3, 0.42),
            nose_width=uniform(0.13, 0.22),
            mouth_v=uniform(0.66, 0.76),
            mouth_width=uniform(0.26, 0.4),
            lip_height=uniform(0.05, 0.1),
            hairline=uniform(0.68, 0.92),
            hair_volume=0.0 if bald else uniform(0.06, 0.32),
            hair_length=0.0 if bald else uniform(-0.4, 1.9),
            parting=uniform(-0.6, 0.6),
            beard=uniform(0.2, 0.8) if uniform() < 0.25 else 0.0,
            freckles=uniform(0.0, 1.0) if uniform() < 0.3 else 0.0,
            blush=uniform(0.0, 0.3),
            glasses=bool(uniform() < 0.15),
            roughness=uniform(1.5, 6.0),
        )


@dataclass(frozen=True)
class Pose:
    """Where the head is and what it does in one frame.

    Attributes:
        x: middle of the face, share of the picture's width.
        y: middle of the face, share of the picture's height.
        scale: pixels of one face unit, share of the picture's height.
        roll: radians, in the picture's plane.
        yaw: radians, to the side.
        pitch: radians, up and down.
        blink: 0 open eyes, 1 shut.
        mouth: 0 shut, 1 wide open.
        smile: -1 sad to 1 happy.
        gaze: -1 left to 1 right.
        light: direction of the light, any length.
        brightness: factor.
    """

    x: float = 0.5
    y: float = 0.52
    scale: float = 0.27
    roll: float = 0.0
    yaw: float = 0.0
    pitch: float = 0.0
    blink: float = 0.0
    mouth: float = 0.0
    smile: float = 0.0
    gaze: float = 0.0
    light: Tuple[float, float, float] = (0.4, -0.5, 0.9)
    brightness: float = 1.0


class Placement:
    """Turns face coordinates into pixels for one pose and picture size."""

    def __init__(self, pose: Pose, size: int) -> None:
        self.size = size
        self.unit = pose.scale * size
        cos, sin = math.cos(pose.roll), math.sin(pose.roll)
        self._turn = np.array([[cos, sin], [-sin, cos]], np.float64) * self.unit
        self._middle = np.array([pose.x * size, pose.y * size])
        self._cos = np.array([math.cos(pose.yaw), math.cos(pose.pitch)])
        self._sin = np.array([math.sin(pose.yaw), math.sin(pose.pitch)])

    def pixels(self, points: np.ndarray, depth: float = 0.0) -> np.ndarray:
        """Face coordinates ``[n, 2]`` to pixels ``[n, 2]`` (x, y)."""
        turned: np.ndarray = np.asarray(points) * self._cos + depth * self._sin
        return np.asarray(turned @ self._turn + self._middle)

    def texture_to_pixels(self, depth: float = 0.15) -> np.ndarray:
        """The affine map ``[2, 3]`` from texture pixels to picture pixels."""
        span, last = TEXTURE_SPAN, float(TEXTURE_SIZE - 1)
        face = np.array([[-span, -span], [span, -span], [-span, span]])
        to = self.pixels(face, depth)
        result = np.empty((2, 3))
        result[:, 0] = (to[1] - to[0]) / last
        result[:, 1] = (to[2] - to[0]) / last
        result[:, 2] = to[0]
        return result


def ellipse(u: float, v: float, ru: float, rv: float, tilt: float = 0.0, n: int = 24) -> np.ndarray:
    """An ellipse as a polygon ``[n, 2]`` in face coordinates."""
    t = np.arange(n) * (2 * math.pi / n)
    x, y = ru * np.cos(t), rv * np.sin(t)
    cos, sin = math.cos(tilt), math.sin(tilt)
    return np.stack([u + x * cos - y * sin, v + x * sin + y * cos], axis=1)


def outline(who: Identity, grow: float = 1.0) -> np.ndarray:
    """The edge of the face as a polygon ``[72, 2]``: an ellipse above, a jaw below."""
    t = np.arange(72) * (2 * math.pi / 72)
    cos, sin = np.cos(t), np.sin(t)
    power = np.where(sin > 0, 2.0 / who.jaw, 1.0)
    x = np.sign(cos) * np.abs(cos) ** power * who.width
    y = np.sign(sin) * np.abs(sin) ** power * np.where(sin > 0, who.chin, who.crown)
    return np.stack([x, y], axis=1) * grow


def _between(
    palette: Sequence[Tuple[int, int, int]], rng: np.random.RandomState, mix: float = 1.0
) -> Colour:
    """A colour between two neighbours of a palette."""
    first = rng.randint(len(palette) - 1)
    share = rng.uniform(0, mix)
    low, high = np.array(palette[first], np.float32), np.array(palette[first + 1], np.float32)
    jitter = rng.uniform(0.94, 1.06, 3).astype(np.float32)
    return np.clip((low + (high - low) * share) * jitter, 5, 250)


def motion(rng: np.random.RandomState, frames: int, fps: float) -> List[Pose]:
    """The poses of someone talking to the camera: sway, blinks, speech, a drifting light.

    Args:
        rng: source of randomness.
        frames: how many poses.
        fps: poses per second.

    Returns:
        One pose per frame.
    """
    time = np.arange(frames) / fps
    scale = rng.uniform(0.26, 0.33)
    base: Dict[str, Tuple[float, float, float]] = {
        # name: (rest, drift of the rest between people, sway)
        "x": (0.5, 0.035, 0.018),
        "y": (0.52, 0.025, 0.012),
        "roll": (0.0, 0.08, 0.06),
        "yaw": (0.0, 0.16, 0.16),
        "pitch": (0.0, 0.06, 0.06),
        "smile": (0.1, 0.4, 0.25),
        "gaze": (0.0, 0.25, 0.35),
        "light_x": (0.0, 0.6, 0.12),
        "light_y": (-0.35, 0.3, 0.08),
        "brightness": (1.0, 0.12, 0.04),
    }
    tracks = {
        name: rest + rng.uniform(-drift, drift) + sway * _sway(rng, time)
        for name, (rest, drift, sway) in base.items()
    }
    blink = np.zeros(frames)
    next_blink = rng.uniform(0.2, 3.0)
    while next_blink < time[-1] + 1:
        blink = np.maximum(blink, np.clip(1.4 - np.abs(time - next_blink) / 0.09, 0, 1))
        next_blink += rng.uniform(1.5, 4.0)
    talk = np.clip(_sway(rng, time) * 2 + 0.6, 0, 1)
    mouth = talk * np.abs(np.sin(2 * math.pi * rng.uniform(1.8, 2.8) * time + rng.uniform(0, 6)))
    mouth = mouth * (0.55 + 0.45 * np.abs(np.sin(2 * math.pi * 0.9 * time)))
    zoom = scale * (1 + 0.03 * _sway(rng, time))
    return [
        Pose(
            x=float(tracks["x"][i]),
            y=float(tracks["y"][i]),
            scale=float(zoom[i]),
            roll=float(tracks["roll"][i]),
            yaw=float(tracks["yaw"][i]),
            pitch=float(tracks["pitch"][i]),
            blink=float(blink[i]),
            mouth=float(mouth[i]),
            smile=float(tracks["smile"][i]),
            gaze=float(tracks["gaze"][i]),
            light=(float(tracks["light_x"][i]), float(tracks["light_y"][i]), 0.9),
            brightness=float(tracks["brightness"][i]),
        )
        for i in range(frames)
    ]


def _sway(rng: np.random.RandomState, time: np.ndarray) -> np.ndarray:
    """A slow wandering between about -1 and 1: three sines of unrelated speed."""
    total = np.zeros(len(time))
    for speed, weight in ((0.13, 0.5), (0.31, 0.3), (0.7, 0.2)):
        rate = speed * rng.uniform(0.7, 1.3)
        total += weight * np.sin(2 * math.pi * rate * time + rng.uniform(0, 2 * math.pi))
    return total
