"""A video decoded with PyAV: anything FFmpeg reads, with its exact timestamps.

A frame that cannot be decoded keeps its place: the packets that were read are compared with the
frames that came out, which holds whatever number of threads the decoder uses and however it
reorders.
"""

from __future__ import annotations

import contextlib
import functools
import math
import struct
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import IO, Any, Dict, Iterable, Iterator, List, Optional, cast

import numpy as np

from ...errors import FormatError
from ..ffmpeg import load_av, to_rgb
from ..records import Frame, Status, VideoInfo
from .base import Read, TimedRead
from .video import FALLBACK_RATE, NO_INDEX, VideoSource


class AvVideoSource(VideoSource):
    """A video file, as ``VideoSource`` says.

    Raises:
        FormatError: it is not a video FFmpeg can decode.
        UnsupportedError: PyAV is not installed.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        path = self.path
        with _open(path) as container:
            self._describe(container)

    def reads(self) -> Iterator[Read]:
        """Decodes in order; each call turns one decoded frame into RGB."""
        with _open(self.path) as container:
            yield from self._decode(container)

    def _describe(self, container: Any) -> None:
        path = self.path
        stream = _stream(container, path)
        rate = _rate(stream)
        if rate is None:
            rate = FALLBACK_RATE
            self.notes.append(f"the file states no frame rate; {rate} is assumed")
        # A start below zero belongs to sound that warms its decoder up before the pictures.
        start = max(Fraction(0), Fraction(container.start_time or 0, 1_000_000))
        self.info = VideoInfo(
            path, rate, Fraction(stream.time_base), start, _count(container, stream, rate)
        )
        self.length = self.info.frames

    def _decode(self, container: Any) -> Iterator[Read]:
        av = load_av()
        stream = _stream(container, self.path)
        stream.thread_type = "AUTO"
        timeline = _Timeline(self)
        if self.begin > 0 and not self.live:
            timeline.skip(_seek(container, stream, self))
        packets = container.demux(stream)
        while True:
            try:
                packet = next(packets, None)
            except av.error.FFmpegError as error:
                self.notes.append(f"reading ended early: {error.strerror}")
                packet = None
            if packet is None:
                break
            timeline.expect(packet)
            try:
                decoded = packet.decode()
            except av.error.EOFError:
                break
            except av.error.FFmpegError as error:
                yield from timeline.failed(packet, f"FFmpeg cannot decode it: {error.strerror}")
                continue
            for frame in decoded:
                yield from timeline.decoded(frame)
        yield from timeline.finish()
        stated = stream.frames
        if stated and timeline.index < stated:
            self.notes.append(
                f"the header states {stated} frames, {timeline.index} are there: "
                "the file is probably truncated"
            )
        self.length = timeline.index


@dataclass(frozen=True)
class _Landing:
    """Where a seek leads: the time of a key frame and the number of frames before it."""

    pts: int
    index: int


class AvPipeSource(AvVideoSource):
    """A video from a stream of bytes that is read once, as it comes.

    Args:
        name: what it is called.
        pipe: has ``read``.

    Raises:
        FormatError: it is not a video FFmpeg can decode from a pipe.
    """

    live = True

    def __init__(self, name: str, pipe: IO[bytes]) -> None:
        self.name, self.path, self.notes = name, Path(name), []
        self._pipe, self._opened = pipe, contextlib.ExitStack()
        guarded = _Guarded(pipe)
        try:
            container = self._opened.enter_context(_open(self.path, cast(IO[bytes], guarded)))
        finally:
            if guarded.error is not None:
                raise guarded.error
        self._container = container
        self._describe(container)
        self.info = replace(self.info, has_file=False)

    def places(self) -> Iterable[Path]:
        """None that could be read again."""
        return ()

    def reads(self) -> Iterator[Read]:
        """The frames, once."""
        with contextlib.closing(self._pipe), self._opened:
            yield from self._decode(self._container)
        if not self.length:
            self.notes.append(
                "no frame could be read from the pipe; an MP4 needs its index at the front for "
                "that (ffmpeg -movflags +faststart), or name the file instead"
            )


class _Guarded:
    """A pipe that ends where reading is interrupted; PyAV would lose a Ctrl-C and read on."""

    def __init__(self, pipe: IO[bytes]) -> None:
        self._pipe = pipe
        self.error: Optional[BaseException] = None

    def read(self, size: int) -> bytes:
        """Like that of a file; nothing after an error."""
        if self.error is None:
            try:
                return self._pipe.read(size)
            except BaseException as error:
                self.error = error
        return b""


class _Timeline:
    """Gives every frame its index and time, and every packet without a frame its place.

    Frames leave a decoder in order of presentation, so a packet whose time has passed and whose
    frame has not appeared is lost. That alone is no failure (some streams hold packets that are
    not meant to be shown); it is one once the decoder has reported an error.
    """

    def __init__(self, source: AvVideoSource) -> None:
        self.source = source
        self.info = source.info
        self.index = 0
        self._waiting: Dict[int, None] = {}
        self._reason = ""
        self._turns: Optional[int] = None
        self._offset = math.floor(self.info.start / self.info.time_base)
        self._last = -1
        self._floor: Optional[int] = None

    def skip(self, landing: Optional[_Landing]) -> None:
        """Begins where a seek has led; what the decoder gives from before has been counted."""
        if landing is not None:
            self.index, self._floor = landing.index, landing.pts

    def expect(self, packet: Any) -> None:
        """Notes that a packet should give a frame."""
        if _shows(packet) and (self._floor is None or packet.pts >= self._floor):
            self._waiting[packet.pts] = None

    def failed(self, packet: Any, reason: str) -> Iterator[Read]:
        """Notes an error of the decoder; its frame is placed when its time has passed."""
        self._reason = reason
        if packet.size and packet.pts is None:
            yield self._lost(None)

    def decoded(self, frame: Any) -> Iterator[Read]:
        """The lost frames before ``frame``, then ``frame``."""
        if self._turns is None:
            self._turns = quarter_turns(frame)
        if frame.pts is not None:
            if self._floor is not None and frame.pts < self._floor:
                return
            self._waiting.pop(frame.pts, None)
            for pts in self._passed(frame.pts):
                yield self._lost(pts)
        place = self._place(frame.pts)
        place["reason"] = "the decoder reports damage" if frame.is_corrupt else ""
        yield TimedRead(functools.partial(_convert, frame, self._turns, place), place["time"])

    def finish(self) -> Iterator[Read]:
        """The lost frames at the end."""
        for pts in self._passed(None):
            yield self._lost(pts)

    def _passed(self, limit: Optional[int]) -> List[int]:
        gone = sorted(pts for pts in self._waiting if limit is None or pts < limit)
        for pts in gone:
            del self._waiting[pts]
        return gone if self._reason else []

    def _lost(self, pts: Optional[int]) -> Read:
        frame = Frame(
            image=None, status=Status.DECODE_ERROR, **dict(self._place(pts), reason=self._reason)
        )
        return TimedRead(lambda: frame, cast(float, frame.time))

    def _place(self, pts: Optional[int]) -> Dict[str, Any]:
        """Source, index, time and pts of the next frame; times without a stamp follow the rate."""
        index, base = self.index, self.info.time_base
        self.index += 1
        at = round(index / self.info.rate / base) if pts is None else pts - self._offset
        at = max(at, self._last + 1)
        self._last = at
        return {
            "source": self.source.name,
            "index": index,
            "time": round(at * base.numerator / base.denominator, 6),
            "video": self.info,
            "pts": at,
        }


def quarter_turns(frame: Any) -> int:
    """How many quarter turns counter-clockwise make a decoded frame upright (0 to 3)."""
    turn = getattr(frame, "rotation", None)
    if turn is None:
        # Before PyAV 14 the angle is read from the display matrix: 16.16 fixed point, rows a b.
        matrix = next((d for d in frame.side_data if d.type.name == "DISPLAYMATRIX"), None)
        turn = 0.0 if matrix is None else matrix_angle(bytes(matrix))
    return round(turn / 90) % 4


def matrix_angle(matrix: bytes) -> float:
    """Degrees counter-clockwise by which a display matrix (nine int32) turns the picture."""
    first, second = struct.unpack_from("=2i", matrix)
    return -math.degrees(math.atan2(second, first))


def _convert(frame: Any, turns: int, place: Dict[str, Any]) -> Frame:
    av = load_av()
    try:
        image = to_rgb(frame)
    except (av.error.FFmpegError, ValueError, MemoryError) as error:
        reason = f"FFmpeg cannot turn it into RGB: {error}"
        return Frame(image=None, status=Status.DECODE_ERROR, **dict(place, reason=reason))
    if turns:
        image = np.ascontiguousarray(np.rot90(image, turns))
    return Frame(image=image, **place)


@contextlib.contextmanager
def _open(path: Path, pipe: Optional[IO[bytes]] = None) -> Iterator[Any]:
    av = load_av()
    try:
        container = av.open(str(path) if pipe is None else pipe)
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise FormatError(
            f"{path} is not a video FFmpeg can read",
            getattr(error, "strerror", None) or str(error),
            NO_INDEX,
        ) from error
    try:
        yield container
    finally:
        container.close()


def _shows(packet: Any) -> bool:
    """Whether a packet should give a frame whose time is known."""
    discard = getattr(packet, "is_discard", False)
    return bool(packet.size and packet.pts is not None and not discard)


def _seek(container: Any, stream: Any, source: AvVideoSource) -> Optional[_Landing]:
    """Goes to the last key frame before ``source.begin``, if its number can be told.

    The packets before it are counted, not decoded. Where that cannot be relied on (packets
    without times, a container that cannot seek), the container stays at its start.
    """
    av = load_av()
    info = source.info
    if container.format.name == "avi" and getattr(stream.codec_context, "has_b_frames", True):
        return None  # AVI holds no times of presentation; they are made up while decoding
    target = math.floor((Fraction(source.begin) + info.start) / info.time_base)
    try:
        with _open(source.path) as probe:
            watched = _stream(probe, source.path)
            probe.seek(target, stream=watched)
            key = next(iter(probe.demux(watched)), None)
        if key is None or not _shows(key) or not key.is_keyframe or key.pts > target:
            return None
        count = 0
        with _open(source.path) as probe:
            for packet in probe.demux(_stream(probe, source.path)):
                if packet.dts is not None and packet.dts >= key.pts:
                    break
                if packet.size and packet.pts is None:
                    return None
                count += _shows(packet) and packet.pts < key.pts
        if count:
            container.seek(target, stream=stream)
        return _Landing(key.pts, count) if count else None
    except (av.error.FFmpegError, OSError, ValueError):
        return None


def _stream(container: Any, path: Path) -> Any:
    if not container.streams.video:
        kinds = ", ".join(sorted({stream.type for stream in container.streams})) or "none"
        raise FormatError(
            f"{path} has no video stream", f"its streams: {kinds}", "name another file"
        )
    stream = container.streams.video[0]
    if stream.codec_context is None:
        raise FormatError(
            f"{path} uses a video codec that FFmpeg lacks here", "no decoder", "convert the file"
        )
    return stream


def _rate(stream: Any) -> Optional[Fraction]:
    for name in ("average_rate", "guessed_rate", "base_rate"):
        rate = getattr(stream, name, None)
        if rate:
            return Fraction(rate)
    return None


def _count(container: Any, stream: Any, rate: Fraction) -> Optional[int]:
    if stream.frames:
        return int(stream.frames)
    if stream.duration:
        return int(max(1, round(stream.duration * Fraction(stream.time_base) * rate)))
    if container.duration:
        return int(max(1, round(Fraction(container.duration, 1_000_000) * rate)))
    return None
