"""A video decoded with OpenCV, for where PyAV is missing, as in the vendor's containers.

OpenCV shows no packets: of a damaged stretch it is known how many attempts to decode failed, and
these frames keep their places, evenly spaced; what a decoder conceals is not seen.
"""

from __future__ import annotations

import contextlib
import functools
import os
import tempfile
from fractions import Fraction
from pathlib import Path
from typing import Any, Dict, Iterator, Optional

import numpy as np

from ...errors import FormatError, UnsupportedError
from ..records import Frame, Status, VideoInfo
from .base import Read, TimedRead
from .video import FALLBACK_RATE, NO_INDEX, VideoSource

TIME_BASE = Fraction(1, 90_000)
"""The clock of MPEG streams; OpenCV tells times in milliseconds, with fractions."""

PATIENCE = 250
"""So many failures in a row are the end; OpenCV does not tell one from a damaged frame."""


class CvVideoSource(VideoSource):
    """A video file, as ``VideoSource`` says.

    Raises:
        FormatError: it is not a video OpenCV can decode.
        UnsupportedError: this OpenCV has no FFmpeg.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        import cv2

        with _open(self.path) as capture:
            rate, frames = capture.get(cv2.CAP_PROP_FPS), capture.get(cv2.CAP_PROP_FRAME_COUNT)
        # The header's fraction: 30000/1001 and its like have no larger denominator.
        exact = Fraction(rate).limit_denominator(1001) if 0 < rate < 10_000 else None
        if not exact:
            exact = FALLBACK_RATE
            self.notes.append(f"the file states no frame rate; {exact} is assumed")
        self.length = int(frames) if 0 < frames < 2**40 else None
        self.info = VideoInfo(self.path, exact, TIME_BASE, Fraction(0), self.length)

    def reads(self) -> Iterator[Read]:
        """Decodes in order; each call turns one decoded frame into RGB."""
        import cv2

        with _open(self.path) as capture:
            timeline = _Timeline(self)
            failures = 0
            while failures < PATIENCE:
                if not capture.grab():
                    failures += 1
                    continue
                time = capture.get(cv2.CAP_PROP_POS_MSEC)
                yield from timeline.failed(failures, time)
                failures = 0
                place = timeline.place(time)
                if place["time"] < self.begin:
                    continue
                try:
                    image = capture.retrieve()[1]
                except cv2.error as error:
                    failed = functools.partial(_failed, place, f"OpenCV: {error.err}")
                    yield TimedRead(failed, place["time"])
                    continue
                yield TimedRead(functools.partial(_convert, image, place), place["time"])
            yield from timeline.finish()
        stated = self.info.frames
        if stated is not None and timeline.index < stated:
            # Where the header has no count, OpenCV gives the length times the rate.
            self.notes.append(
                f"by its header the file has {stated} frames, {timeline.index} are there: "
                "it is probably truncated"
            )
        self.length = timeline.index


class _Timeline:
    """Gives every frame its index and time."""

    def __init__(self, source: CvVideoSource) -> None:
        self.index = 0
        self._source = source
        self._period = max(1, round(1 / source.info.rate / TIME_BASE))
        self._next = 0  # the earliest time of the next frame by the rate
        self._last = -1
        self._waiting = 0

    def failed(self, count: int, until: float) -> Iterator[Read]:
        """Notes ``count`` failures before a frame of time ``until``, in milliseconds.

        A decoder that reorders fails before the place of the lost frame has come, so lost frames
        are put where the times have a gap.
        """
        self._waiting += count
        gap = self._pts(until) - self._last
        lost = min(self._waiting, round(gap / self._period) - 1) if self.index else self._waiting
        first = self._last
        for number in range(1, lost + 1):
            yield self._lost(first + number * gap // (lost + 1))

    def finish(self) -> Iterator[Read]:
        """The lost frames at the end, as far as the header states so many."""
        stated = self._source.info.frames or 0
        while self._waiting and self.index < stated:
            yield self._lost(self._next)

    def _lost(self, at: int) -> Read:
        self._waiting -= 1
        place = self.place(float(at * TIME_BASE) * 1000)
        failed = functools.partial(_failed, place, "OpenCV cannot decode it")
        return TimedRead(failed, place["time"])

    def place(self, milliseconds: float) -> Dict[str, Any]:
        """Source, index, time and pts of the next frame."""
        at = max(self._pts(milliseconds), self._last + 1)
        index, self._last, self._next = self.index, at, at + self._period
        self.index += 1
        return {
            "source": self._source.name,
            "index": index,
            "time": round(float(at * TIME_BASE), 6),
            "video": self._source.info,
            "pts": at,
        }

    def _pts(self, milliseconds: float) -> int:
        # Older OpenCV says 0 for the frames that a decoder holds back to the end.
        at = round(milliseconds / 1000 / float(TIME_BASE))
        return at if at > self._last else self._next


def _convert(image: Optional[np.ndarray], place: Dict[str, Any]) -> Frame:
    import cv2

    if image is None:
        return _failed(place, "OpenCV cannot decode it")
    return Frame(image=np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB)), **place)


def _failed(place: Dict[str, Any], reason: str) -> Frame:
    return Frame(image=None, status=Status.DECODE_ERROR, reason=reason, **place)


@contextlib.contextmanager
def _open(path: Path) -> Iterator[Any]:
    # What is wrong with a file is said in the records; FFmpeg would say it on standard error.
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    import cv2

    if cv2.CAP_FFMPEG not in cv2.videoio_registry.getBackends():
        raise UnsupportedError(
            "Videos need PyAV, or an OpenCV with FFmpeg, and neither is here",
            f"OpenCV {cv2.__version__} was built without FFmpeg",
            "pip install av, or conda install -c conda-forge av",
        )
    with _readable(path) as name:
        capture = cv2.VideoCapture(name, cv2.CAP_FFMPEG)
    try:
        if not capture.isOpened():
            raise FormatError(
                f"{path} is not a video OpenCV can read",
                "no video stream that it can decode",
                NO_INDEX,
            )
        with contextlib.suppress(AttributeError):  # releases that never turn the picture
            capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 1)
        yield capture
    finally:
        capture.release()


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[str]:
    """A name OpenCV can take: one that is no UTF-8 would end the process."""
    try:
        str(path).encode("utf-8")
    except UnicodeEncodeError:
        with tempfile.TemporaryDirectory(prefix="deepfake-fpga-") as folder:
            link = os.path.join(folder, "video")
            os.symlink(str(path.resolve()), link)
            yield link
    else:
        yield str(path)
