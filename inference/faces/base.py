"""What a detector finds, and the one interface of every detector."""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from ..records import Frame


class Box(NamedTuple):
    """A rectangle in pixels of the picture; the lower right edge is outside."""

    x0: float
    y0: float
    x1: float
    y1: float

    @property
    def width(self) -> float:
        """Pixels."""
        return self.x1 - self.x0

    @property
    def height(self) -> float:
        """Pixels."""
        return self.y1 - self.y0

    @property
    def side(self) -> float:
        """The longer one."""
        return max(self.width, self.height)

    @property
    def middle(self) -> Tuple[float, float]:
        """Its x and y."""
        return (self.x0 + self.x1) / 2, (self.y0 + self.y1) / 2

    @property
    def area(self) -> float:
        """Pixels."""
        return max(0.0, self.width) * max(0.0, self.height)

    def overlap(self, other: Box) -> float:
        """Intersection over union, 0 to 1."""
        width = min(self.x1, other.x1) - max(self.x0, other.x0)
        height = min(self.y1, other.y1) - max(self.y0, other.y0)
        if width <= 0 or height <= 0:
            return 0.0
        common = width * height
        return common / (self.area + other.area - common)

    def within(self, height: int, width: int) -> float:
        """Share of its area that lies inside a picture of this size."""
        seen = Box(max(self.x0, 0.0), max(self.y0, 0.0), min(self.x1, width), min(self.y1, height))
        if seen.width <= 0 or seen.height <= 0 or not self.area:
            return 0.0
        return seen.area / self.area


@dataclass(frozen=True)
class Detection:
    """One face in one picture.

    Attributes:
        box: where; square, from the brows to below the lower lip, as the frontal cascade draws
            it, unless it comes from a file.
        score: how sure the detector is, 0 to 1; comparable within one kind of detector only.
        landmarks: ``(x, y)`` of right eye, left eye, nose, right and left corner of the mouth (of
            the person), in pixels; ``None`` where the detector has none.
        turns: quarter turns anticlockwise that put the face upright.
        profile: seen from the side.
        identity: number of the person, where the detector knows it; else ``None``.
    """

    box: Box
    score: float
    landmarks: Optional[Sequence[Tuple[float, float]]] = None
    turns: int = 0
    profile: bool = False
    identity: Optional[int] = None


class Detector(abc.ABC):
    """Finds faces.

    Attributes:
        name: the name by which ``--faces`` selects it.
        every_frame: whether it costs so little, or says so exactly, that each frame is asked for.
        tracks: whether identities are to be found by following the boxes.
        sure: score from which a face is believed by itself; weaker ones only continue a face that
            was there before, as what flickers at the detector's limit is no crowd of faces.
    """

    name: str
    every_frame = False
    tracks = True
    sure = 0.0

    @abc.abstractmethod
    def detect(self, image: np.ndarray, frame: Optional[Frame] = None) -> List[Detection]:
        """The faces in a picture, the surest first, weak ones too; may be called on any thread.

        Args:
            image: uint8 ``[H, W, 3]``, RGB.
            frame: whose picture it is, for detectors that answer from a file.
        """


def distinct(found: Sequence[Detection], most: float = 0.3) -> List[Detection]:
    """The detections, surest first, without those that overlap a surer one by more than ``most``.

    Of two of which one holds the middle of the other only the surer stays, too: cascades like to
    see a face in a face, and round one.
    """
    kept: List[Detection] = []
    for one in sorted(found, key=lambda d: (-d.score, d.box)):
        if not any(_same_place(one.box, other.box, most) for other in kept):
            kept.append(one)
    return kept


def _same_place(box: Box, other: Box, most: float) -> bool:
    return box.overlap(other) > most or _holds(box, other) or _holds(other, box)


def _holds(box: Box, other: Box) -> bool:
    x, y = other.middle
    return box.x0 < x < box.x1 and box.y0 < y < box.y1
