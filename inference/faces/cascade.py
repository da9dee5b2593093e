"""The frontal cascade that OpenCV carries: the detector that is there without any file."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any, List, Optional

import numpy as np

from ...errors import UnsupportedError
from ..records import Frame
from .base import Box, Detection, Detector, distinct

FRONTAL = "haarcascade_frontalface_alt2.xml"
"""Of OpenCV's three frontal ones the one that finds most: 32 of 40 drawn faces on noisy ground
(``default`` 23, ``alt`` 29), all 30 sampled frames of a real clip (15, 26)."""

PROFILE = "haarcascade_profileface.xml"

LONGEST = 640
"""Pixels of the longer side of what is searched, where nobody asks for small faces: the time goes
with the area. Of a picture 1920 wide it finds faces from about 66 pixels."""

SMALLEST = 24
"""Pixels of the smallest face that is looked for in what is searched; the cascade's window has 20,
and a face needs a little more than that."""

STEP = 1.12
"""How much larger the window gets from pass to pass: finer costs time, coarser loses faces."""

NEIGHBOURS = 4
"""Windows that must agree on a face; where one was before, two are enough."""

SURE = 20
"""Windows that agree on a face that is certainly one; they are a score of 1."""

DOUBTFUL = 8
"""Up to so many windows, a better face is looked for on the other sides of the picture: a face on
its head looks a little like one that is upright."""

TURNED = 6
"""Windows that must agree where the picture was turned or the face is seen from the side: what is
looked for on four sides is found by mistake on four sides."""


class CascadeDetector(Detector):
    """Viola and Jones' detector with OpenCV's trained cascades.

    Where no upright frontal face is found for certain, the picture is also searched on its head
    and on both sides, and then for faces seen from the side. Their boxes are marked as such.

    Args:
        smallest: side of the smallest face in pixels of the picture.
        longest: pixels of the longer side of what is searched; ``None`` for as many as
            ``smallest`` takes.
        turned: whether pictures without an upright face are turned.
        profiles: whether faces seen from the side are looked for where there is no other.

    Raises:
        UnsupportedError: this OpenCV carries no cascades.
    """

    name = "cascade"
    sure = NEIGHBOURS / SURE

    def __init__(
        self,
        smallest: float = 36.0,
        longest: Optional[int] = LONGEST,
        turned: bool = True,
        profiles: bool = True,
    ) -> None:
        self.smallest, self.longest = smallest, longest
        self.turned, self.profiles = turned, profiles
        self._own = threading.local()  # a cascade may be used by one thread at a time
        self._cascade(FRONTAL)

    def detect(self, image: np.ndarray, frame: Optional[Frame] = None) -> List[Detection]:
        """See ``Detector.detect``."""
        import cv2

        height, width = image.shape[:2]
        scale = min(1.0, SMALLEST / self.smallest)
        if self.longest is not None:
            scale = min(scale, self.longest / max(height, width))
        grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        if scale < 1:
            size = (max(1, round(width * scale)), max(1, round(height * scale)))
            grey = cv2.resize(grey, size, interpolation=cv2.INTER_AREA)
        ratio = (width / grey.shape[1], height / grey.shape[0])
        least = max(20, int(self.smallest * scale))
        found = self._search(FRONTAL, grey, least, 1, 0)
        if not any(one.score > DOUBTFUL / SURE for one in found):
            found += self._turned(grey, least) or self._profiles(grey, least)
        return distinct([_scaled(one, *ratio) for one in found])

    def _turned(self, grey: np.ndarray, least: int) -> List[Detection]:
        """Faces that are not upright, of the first side on which there are any."""
        for turns in (2, 1, 3) if self.turned else ():
            turned = np.ascontiguousarray(np.rot90(grey, turns))
            found = self._search(FRONTAL, turned, least, TURNED, turns)
            if found:
                return [_turned_back(one, turned.shape) for one in found]
        return []

    def _profiles(self, grey: np.ndarray, least: int) -> List[Detection]:
        """Faces that look to the left, and in the mirror those that look to the right."""
        if not self.profiles:
            return []
        width = grey.shape[1]
        found = self._search(PROFILE, grey, least, TURNED, 0, profile=True)
        mirror = np.ascontiguousarray(grey[:, ::-1])
        for one in self._search(PROFILE, mirror, least, TURNED, 0, profile=True):
            box = Box(width - one.box.x1, one.box.y0, width - one.box.x0, one.box.y1)
            found.append(Detection(box, one.score, profile=True))
        return found

    def _search(
        self,
        name: str,
        grey: np.ndarray,
        least: int,
        neighbours: int,
        turns: int,
        profile: bool = False,
    ) -> List[Detection]:
        boxes, counts = self._cascade(name).detectMultiScale2(
            grey, scaleFactor=STEP, minNeighbors=neighbours, minSize=(least, least)
        )
        return [
            Detection(
                Box(float(x), float(y), float(x + w), float(y + h)),
                min(1.0, float(count) / SURE),
                turns=turns,
                profile=profile,
            )
            for (x, y, w, h), count in zip(boxes, np.asarray(counts).reshape(-1))
        ]

    def _cascade(self, name: str) -> Any:
        found = getattr(self._own, name, None)
        if found is None:
            found = _load(name)
            setattr(self._own, name, found)
        return found


def _load(name: str) -> Any:
    import cv2

    folder = getattr(getattr(cv2, "data", None), "haarcascades", "")
    path = Path(folder) / name
    if folder and path.is_file():
        cascade = cv2.CascadeClassifier(str(path))
        if not cascade.empty():
            return cascade
    raise UnsupportedError(
        "This OpenCV carries no face cascade",
        f"OpenCV {cv2.__version__}, {path} cannot be loaded",
        "pip install 'opencv-python-headless<5', or use --faces yunet, boxes or whole",
    )


def _turned_back(one: Detection, shape: Any) -> Detection:
    """A detection in a picture turned by its ``turns``, in pixels of the picture before that."""
    box, (height, width) = one.box, shape
    for _ in range(one.turns):
        # One quarter turn clockwise: what was x from the left is then y from the top.
        box = Box(height - box.y1, box.x0, height - box.y0, box.x1)
        height, width = width, height
    return Detection(box, one.score, turns=one.turns)


def _scaled(one: Detection, x: float, y: float) -> Detection:
    box = Box(one.box.x0 * x, one.box.y0 * y, one.box.x1 * x, one.box.y1 * y)
    return Detection(box, one.score, None, one.turns, one.profile)
