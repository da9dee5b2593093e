"""Which frames of a source are judged: a stretch of time, every so many, only where it changes.

Frames that are left out appear nowhere. A frame that looks like the last judged one is kept and
marked: it takes that one's result and no slot of a batch.

What changes is decided on a small grey picture: pixels that differ by more than the threshold
from the last judged frame count once an erosion has removed single ones, which are noise.
"""

from __future__ import annotations

import contextlib
import functools
import math
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, Dict, Generator, Iterable, Iterator, List, Optional, Sequence

import numpy as np

from ..errors import UsageError
from .records import Frame, Origin, VideoInfo
from .sources.base import Collection, Read, Source, TimedRead
from .sources.video import VideoSource

SMALL = 160
"""Longer side of the grey picture in which changes are looked for."""

STATIC_THRESHOLD = 8
"""Grey levels; what a video encoder changes in a still picture is mostly below."""

ROUNDING = 2e-6
"""Seconds: times are rounded to a millionth."""


@dataclass(frozen=True)
class Selection:
    """What is asked for.

    Attributes:
        every: one frame of so many.
        fps: so many frames per second of the video's own time; ``None`` for all.
        start: seconds from the start of the video; frames before are left out.
        end: frames from there on are left out; ``None`` for none.
        skip_static: whether frames that look like the last judged one inherit its result.
        static_threshold: grey levels by which a pixel must differ.

    Raises:
        UsageError: two of them contradict each other.
    """

    every: int = 1
    fps: Optional[float] = None
    start: float = 0.0
    end: Optional[float] = None
    skip_static: bool = False
    static_threshold: int = STATIC_THRESHOLD

    def __post_init__(self) -> None:
        if self.every != 1 and self.fps is not None:
            raise UsageError(
                "--every and --fps both say how many frames are taken",
                f"--every {self.every}, --fps {self.fps:g}",
                "leave one of them out",
            )
        if self.end is not None and self.end <= self.start:
            raise UsageError(
                "The selection ends before it begins",
                f"from {self.start:g} s to {self.end:g} s",
                "give an end after the start",
            )

    @property
    def all(self) -> bool:
        """Whether every frame is judged."""
        return self == Selection(static_threshold=self.static_threshold)

    @property
    def timed(self) -> bool:
        """Whether it needs the times of frames."""
        return self.fps is not None or self.start > 0 or self.end is not None

    def to_json(self) -> Dict[str, Any]:
        """The part of the summary that says what was asked for."""
        return {
            "every": self.every,
            "fps": self.fps,
            "start": self.start,
            "end": self.end,
            "skip_static": self.skip_static,
            "static_threshold": self.static_threshold if self.skip_static else None,
        }


def select(source: Source, selection: Selection) -> Source:
    """The source with only the selected frames; the source itself if that is all of them.

    Of a collection each video is selected from for itself, and its images are taken together.
    Images have no times; what is asked for by time leaves none of them out.
    """
    return source if selection.all else SelectedSource(source, selection)


def select_all(sources: Sequence[Source], selection: Selection) -> List[Source]:
    """Selects from every source.

    Raises:
        UsageError: times are asked for and no source has any.
    """
    if sources and selection.timed and all(source.kind == "images" for source in sources):
        raise UsageError(
            f"{sources[0].name} holds images, which have no times",
            "--fps, --start, --end and --duration are for videos and streams",
            "use --every for images",
        )
    return [select(source, selection) for source in sources]


class SelectedSource(Source):
    """A source of which some frames are left out or inherit results.

    Args:
        source: all frames.
        selection: which of them.
    """

    def __init__(self, source: Source, selection: Selection) -> None:
        self.source, self.selection = source, selection
        self.name, self.kind, self.notes = source.name, source.kind, source.notes
        self.reason, self.live, self.realtime = source.reason, source.live, source.realtime
        self.left_out, self.chained = 0, selection.skip_static
        self._watch = _Watch(selection.static_threshold)
        self._collects = isinstance(source, Collection)
        self._info: Optional[VideoInfo] = None
        self._shift = 0
        self.length = None
        info = getattr(source, "info", None)
        if isinstance(info, VideoInfo):
            self._info = _cut(info, selection)
            self._shift = math.floor(Fraction(selection.start) / info.time_base)
            self.length = _expected(source.length, info.rate, selection)
        elif source.length is not None:
            self.length = math.ceil(source.length / selection.every)
        if isinstance(source, Collection):
            before = source.each
            source.each = lambda part: self._part(before(part))
        if isinstance(source, VideoSource):
            source.begin = selection.start

    def places(self) -> Iterable[Path]:
        """Those of the source."""
        return self.source.places()

    def stop(self) -> None:
        """Asks the source to end."""
        self.source.stop()

    def forget(self) -> None:
        """Lets the next frame be judged, whatever it looks like."""
        self._watch = _Watch(self.selection.static_threshold)

    def reads(self) -> Iterator[Read]:
        """The selected frames; those that may inherit are made here, one after the other."""
        chosen = self._chosen()
        with contextlib.closing(chosen):
            if not self.selection.skip_static:
                for read in chosen:
                    yield self._retimed(read)
                return
            self.forget()
            for read in chosen:
                if self._collects and isinstance(read, TimedRead):
                    yield read
                    continue
                frame = self._placed(read)
                same_as = self._watch.same_as(frame)
                if same_as is not None:
                    frame = replace(frame, same_as=same_as)
                made = functools.partial(_itself, frame)
                yield made if frame.time is None else TimedRead(made, frame.time)

    def _part(self, part: Source) -> Source:
        return _Part(part, self.selection, self)

    def _chosen(self) -> Generator[Read, None, None]:
        selection = self.selection
        count, first, due = 0, 0.0, -math.inf
        with contextlib.closing(_generator(self.source)) as reads:
            for read in reads:
                time = read.time if isinstance(read, TimedRead) else None
                if self._collects and time is not None:  # its video has selected already
                    yield read
                    continue
                if time is not None:
                    if time < selection.start - ROUNDING:
                        continue
                    if selection.end is not None and time >= selection.end - ROUNDING:
                        return
                count += 1
                if (count - 1) % selection.every:
                    self._leave_out()
                    continue
                if time is not None and selection.fps is not None:
                    if time < due:
                        self._leave_out()
                        continue
                    first = time if due == -math.inf else first
                    passed = math.floor((time - first + ROUNDING) * selection.fps)
                    due = first + (passed + 1) / selection.fps - ROUNDING
                yield read

    def _leave_out(self) -> None:
        self.left_out += 1

    def _retimed(self, read: Read) -> Read:
        if not isinstance(read, TimedRead) or self._collects or self._info is None:
            return read
        return TimedRead(functools.partial(self._placed, read), read.time)

    def _placed(self, read: Read) -> Frame:
        """The frame, in a video that begins and ends where the selection does."""
        frame = read()
        if frame.video is None or self._info is None:
            return frame
        pts = None if frame.pts is None else frame.pts - self._shift
        return replace(frame, video=self._info, pts=pts)


class _Part(SelectedSource):
    """A video of a collection; what it leaves out is counted for the whole."""

    def __init__(self, source: Source, selection: Selection, whole: SelectedSource) -> None:
        self._whole = whole
        super().__init__(source, selection)

    def _leave_out(self) -> None:
        self._whole.left_out += 1


class _Watch:
    """Compares pictures with the last one that was to be judged."""

    def __init__(self, threshold: int) -> None:
        self._threshold = threshold
        self._reference: Optional[np.ndarray] = None
        self._key: Origin = 0

    def same_as(self, frame: Frame) -> Optional[Origin]:
        """The last judged frame, if this one looks the same; else this one becomes the last."""
        if frame.image is None:
            return None
        picture = small(frame.image)
        if self._reference is not None and not changed(self._reference, picture, self._threshold):
            return self._key
        self._reference, self._key = picture, frame.key
        return None


def small(image: np.ndarray) -> np.ndarray:
    """A picture as it is compared.

    Args:
        image: uint8 ``[H, W, 3]``, RGB.

    Returns:
        uint8 ``[h, w]``, grey, no side longer than ``SMALL``.
    """
    import cv2

    height, width = image.shape[:2]
    scale = SMALL / max(height, width)
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    if scale < 1:
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        grey = cv2.resize(grey, size, interpolation=cv2.INTER_AREA)
    return np.asarray(grey)


def changed(one: np.ndarray, other: np.ndarray, threshold: int) -> bool:
    """Whether two small pictures differ in more than noise.

    Args:
        one: uint8 ``[h, w]``.
        other: uint8 ``[h, w]``; one of another size differs.
        threshold: grey levels; a pixel counts from one more on.
    """
    import cv2

    if one.shape != other.shape:
        return True
    marked = (cv2.absdiff(one, other) > threshold).astype(np.uint8)
    return bool(cv2.erode(marked, np.ones((3, 3), np.uint8)).any())


def seconds_of(text: str) -> float:
    """Seconds from ``"12.5"``, ``"1:02"`` or ``"1:02:03.5"``.

    Raises:
        ValueError: it is none of these.
    """
    parts = text.strip().split(":")
    if len(parts) > 3 or not all(parts):
        raise ValueError(text)
    numbers = [int(part) for part in parts[:-1]] + [float(parts[-1])]
    if (
        min(numbers) < 0
        or not all(math.isfinite(n) for n in numbers)
        or max(numbers[1:] or [0]) >= 60
    ):
        raise ValueError(text)
    return float(sum(number * 60**place for place, number in enumerate(reversed(numbers))))


def _cut(info: VideoInfo, selection: Selection) -> VideoInfo:
    rate = info.rate / selection.every
    if selection.fps is not None:
        rate = min(rate, Fraction(selection.fps).limit_denominator(1001))
    start = info.start + Fraction(selection.start)
    end = None if selection.end is None else info.start + Fraction(selection.end)
    begin = start if selection.start > 0 else None
    return replace(info, rate=rate, start=start, begin=begin, end=end)


def _expected(length: Optional[int], rate: Fraction, selection: Selection) -> Optional[int]:
    """How many frames of a video to expect, roughly: for the display of progress."""
    if selection.end is not None:
        most = math.ceil((selection.end - selection.start) * rate)
        length = most if length is None else min(length, most)
    elif length is not None:
        length = max(0, length - int(selection.start * rate))
    if length is None:
        return None
    share = 1 / selection.every if selection.fps is None else min(1.0, selection.fps / rate)
    return math.ceil(length * share)


def _itself(frame: Frame) -> Frame:
    return frame


def _generator(source: Source) -> Generator[Read, None, None]:
    yield from source.reads()
