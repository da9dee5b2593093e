"""Scenes with drawn people at known places, for tests of what finds and follows faces."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import List, Sequence, Tuple

import numpy as np

from deepfake_fpga.inference.faces import Box
from deepfake_fpga.quantize.faces import Identity, Pose
from deepfake_fpga.quantize.portrait import Sitter

PORTRAIT = 256
"""Pixels of a portrait; it is shrunk into a scene."""


@dataclass(frozen=True)
class Person:
    """Where a drawn person is in a scene.

    Attributes:
        seed: who.
        x: left edge of the portrait.
        y: upper edge.
        side: its pixels.
        yaw: radians to the side.
    """

    seed: int
    x: int
    y: int
    side: int = 160
    yaw: float = 0.0

    @property
    def box(self) -> Box:
        """The face from brow to below the lip and from ear to ear, as drawn."""
        who, unit = Identity.sample(self.seed), 0.3 * self.side
        x, y = self.x + 0.5 * self.side, self.y + 0.52 * self.side
        half = unit * (who.width + 0.08)
        middle = y + 0.06 * unit
        return Box(x - half, middle - half, x + half, middle + half)


@functools.lru_cache(maxsize=64)
def portrait(seed: int, yaw: float = 0.0) -> np.ndarray:
    """uint8 ``[256, 256, 3]``, RGB."""
    return Sitter(Identity.sample(seed), place=seed, size=PORTRAIT).draw(Pose(scale=0.3, yaw=yaw))


@functools.lru_cache(maxsize=8)
def ground(seed: int, height: int, width: int) -> np.ndarray:
    """A room without anybody: smooth patches of colour."""
    import cv2

    rng = np.random.RandomState(seed)
    rough = rng.randint(30, 200, (4, 6, 3)).astype(np.uint8)
    return np.asarray(cv2.resize(rough, (width, height), interpolation=cv2.INTER_CUBIC))


def scene(
    people: Sequence[Person], height: int = 360, width: int = 640, room: int = 1
) -> np.ndarray:
    """uint8 ``[height, width, 3]``, RGB; later people stand before earlier ones."""
    import cv2

    picture = ground(room, height, width).copy()
    for one in people:
        size = (one.side, one.side)
        drawn = cv2.resize(portrait(one.seed, one.yaw), size, interpolation=cv2.INTER_AREA)
        x0, y0 = max(one.x, 0), max(one.y, 0)
        x1, y1 = min(one.x + one.side, width), min(one.y + one.side, height)
        if x0 < x1 and y0 < y1:
            picture[y0:y1, x0:x1] = drawn[y0 - one.y : y1 - one.y, x0 - one.x : x1 - one.x]
    return picture


def crowd(count: int, columns: int = 5, side: int = 200) -> Tuple[List[Person], int, int]:
    """People in rows, and height and width of their scene."""
    people = [
        Person(seed, 10 + (side + 10) * (n % columns), 10 + (side + 10) * (n // columns), side)
        for n, seed in enumerate(range(40, 40 + count))
    ]
    rows = -(-count // columns)
    return people, 10 + (side + 10) * rows, 10 + (side + 10) * columns
