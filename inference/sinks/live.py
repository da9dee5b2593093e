"""What somebody who watches a run sees: the latest result, its picture and how fast it goes.

The run only leaves each result here, which costs it next to nothing; whoever watches draws the
latest one on a thread of its own and misses those between.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import Any, Deque, Dict, Optional, Tuple

import numpy as np

from ..overlay import draw, placeholder, side_by_side
from ..records import FrameResult, Verdict
from .base import Sink

LONGEST = 1280
"""Pixels of the longer side of what is shown; larger pictures are drawn at this size."""

RATE_SECONDS = 3.0
"""The rate is that of the last seconds."""


class Latest:
    """One result and a few counts, between the run and those who watch it."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._result: Optional[FrameResult] = None
        self._counts = {"frames": 0, "judged": 0, "fake": 0}
        self._total = 0.0
        self._times: Deque[Tuple[float, int]] = deque()
        self._ended = False

    def put(self, result: FrameResult) -> None:
        """Replaces the result."""
        probability = result.fake_probability
        now = time.monotonic()
        with self._changed:
            self._result = result
            self._counts["frames"] += 1
            if probability is not None:
                self._counts["judged"] += 1
                self._counts["fake"] += result.verdict is Verdict.FAKE
                self._total += probability
            if not self._times or now - self._times[-1][0] > RATE_SECONDS / 10:
                self._times.append((now, self._counts["frames"]))
                while now - self._times[0][0] > RATE_SECONDS:
                    self._times.popleft()
            self._changed.notify_all()

    def end(self) -> None:
        """Tells those who wait that nothing follows."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    @property
    def ended(self) -> bool:
        """Whether nothing follows."""
        return self._ended

    def after(self, number: int, seconds: float) -> Tuple[int, Optional[FrameResult]]:
        """Waits for a result later than the ``number``-th.

        Args:
            number: the one seen last; 0 for none.
            seconds: how long to wait at most.

        Returns:
            Its number and the result; ``number`` and ``None`` where there is none in time.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._counts["frames"] > number or self._ended, seconds)
            if self._counts["frames"] > number:
                return self._counts["frames"], self._result
            return number, None

    def pause(self, seconds: float) -> None:
        """Waits so long, or until the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._ended, seconds)

    def status(self) -> Dict[str, Any]:
        """The counts, the mean fake probability, frames/s of late and the latest record."""
        with self._changed:
            judged = self._counts["judged"]
            return {
                "ended": self._ended,
                **self._counts,
                "fake_probability": round(self._total / judged, 7) if judged else None,
                "frames_per_second": self._rate(),
                "record": None if self._result is None else self._result.to_json(),
            }

    def _rate(self) -> Optional[float]:
        if not self._times:
            return None
        first, before = self._times[0]
        seconds = time.monotonic() - first
        count = self._counts["frames"] - before
        return round(count / seconds, 1) if count and seconds > 0 else None


class LiveSink(Sink):
    """Shows a run while it lasts; what is shown how is the matter of the kinds.

    Args:
        beside: puts the original left of its overlay.

    Attributes:
        latest: what there is to show.
    """

    needs_image = True

    def __init__(self, beside: bool = False) -> None:
        self.beside = beside
        self.latest = Latest()

    def write(self, result: FrameResult, rendered: Any) -> None:
        """Leaves the result to those who watch."""
        self.latest.put(result)


def picture(result: FrameResult, beside: bool) -> np.ndarray:
    """What is shown of a result.

    Returns:
        uint8 ``[H, W, 3]``, BGR as OpenCV's functions take it.
    """
    import cv2

    image = result.frame.image
    if image is None:
        shown = placeholder(result, 360, 640)
    else:
        image = _within(image)
        shown = draw(result, image)
        shown = side_by_side(image, shown) if beside else shown
    return np.asarray(cv2.cvtColor(shown, cv2.COLOR_RGB2BGR))


def _within(image: np.ndarray) -> np.ndarray:
    """The picture, smaller if it is larger than what is shown."""
    import cv2

    share = LONGEST / max(image.shape[:2])
    if share >= 1:
        return image
    size = (max(1, round(image.shape[1] * share)), max(1, round(image.shape[0] * share)))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA))
