"""A stream from the network, by PyAV where it is installed, else by OpenCV."""

from __future__ import annotations

import functools
import os
import re
from fractions import Fraction
from typing import Any, Dict, Iterator, List, Optional

import numpy as np

from ...errors import UnsupportedError, WorkError
from ..ffmpeg import load_av, to_rgb
from .av_video import quarter_turns
from .live import Connection, LiveOptions, LiveSource, LostError, Picture

SCHEMES = ("rtsp", "rtsps", "rtmp", "rtmps", "http", "https", "udp", "tcp", "srt", "rtp", "mms")

UNTIMED = ("mpjpeg", "mjpeg")
"""Formats without times; FFmpeg makes some up, evenly spaced, whatever comes when."""


def scheme_of(text: str) -> str:
    """The scheme of a URL in small letters; empty where the text is none."""
    found = re.match(r"([A-Za-z][A-Za-z0-9+.-]*)://", text)
    return found.group(1).lower() if found else ""


def open_stream(url: str, options: Optional[LiveOptions] = None) -> LiveSource:
    """The stream at a URL.

    Raises:
        WorkError: it cannot be opened.
    """
    options = LiveOptions() if options is None else options
    notes: List[str] = []
    try:
        load_av()
        connect: Any = AvConnection
    except UnsupportedError as error:
        connect = CvConnection
        notes.append(f"read with OpenCV, as PyAV is missing ({error.evidence})")
    shown = without_password(url)
    try:
        opened = functools.partial(connect, url, options.timeout)
        source = LiveSource(shown, "stream", label_of(shown), opened, options)
    except LostError as error:
        raise WorkError(
            f"The stream {shown} cannot be opened",
            str(error),
            "check the address with a player such as ffplay, and that this host may reach it",
        ) from error
    source.notes.extend(notes)
    return source


def without_password(url: str) -> str:
    """The URL as it may be shown."""
    return re.sub(r"(://[^/@:]*):[^/@]*@", r"\1:***@", url)


def label_of(url: str) -> str:
    """A name for files: letters, digits and hyphens."""
    text = re.sub(r"^[^:]*://([^/@]*@)?", "", url.split("?")[0])
    return re.sub(r"[^A-Za-z0-9]+", "-", text).strip("-") or "stream"


class AvConnection(Connection):
    """A stream opened with PyAV.

    Args:
        url: where it is.
        timeout: seconds without data after which it counts as broken.
    """

    def __init__(self, url: str, timeout: float) -> None:
        av = load_av()
        options: Dict[str, str] = {}
        if scheme_of(url) in ("rtsp", "rtsps"):
            options["rtsp_transport"] = "tcp"
        try:
            self._container = av.open(url, timeout=(timeout, timeout), options=options)
        except (av.error.FFmpegError, OSError, ValueError) as error:
            raise LostError(_words(error)) from error
        if not self._container.streams.video:
            kinds = _kinds(self._container)
            self._container.close()
            raise LostError(f"it has no pictures, only {kinds}")
        self._stream = self._container.streams.video[0]
        self._stream.thread_type = "SLICE"  # threads by frame would hold frames back
        rate = self._stream.average_rate or self._stream.guessed_rate
        self.rate = Fraction(rate) if rate else None
        duration = self._container.duration
        self.length = duration / 1e6 if duration and duration > 0 else None
        self._timed = self._container.format.name not in UNTIMED

    def pictures(self) -> Iterator[Picture]:
        """Decodes as packets come; what cannot be decoded is counted."""
        av = load_av()
        turns: Optional[int] = None
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets, None)
            except (av.error.FFmpegError, OSError) as error:
                raise LostError(_words(error)) from error
            if packet is None:
                return
            try:
                decoded = packet.decode()
            except av.error.EOFError:
                return
            except av.error.FFmpegError:
                self.damaged += turns is not None  # before the first key frame it is usual
                continue
            for frame in decoded:
                turns = quarter_turns(frame) if turns is None else turns
                yield frame.time if self._timed else None, functools.partial(_upright, frame, turns)

    def close(self) -> None:
        """Closes the container."""
        self._container.close()


class CvConnection(Connection):
    """A stream opened with OpenCV; arguments as ``AvConnection``."""

    def __init__(self, url: str, timeout: float) -> None:
        os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
        import cv2

        limits = []
        for name in ("CAP_PROP_OPEN_TIMEOUT_MSEC", "CAP_PROP_READ_TIMEOUT_MSEC"):
            if hasattr(cv2, name):  # from OpenCV 4.5.2 on
                limits += [getattr(cv2, name), int(timeout * 1000)]
        self._capture = cv2.VideoCapture(url, cv2.CAP_FFMPEG, limits)
        if not self._capture.isOpened():
            self._capture.release()
            raise LostError("OpenCV cannot open it")
        rate = self._capture.get(cv2.CAP_PROP_FPS)
        # What states no rate of its own is given the unit of its clock instead.
        self.rate = Fraction(rate).limit_denominator(1001) if 0 < rate <= 1000 else None
        count = self._capture.get(cv2.CAP_PROP_FRAME_COUNT)
        if self.rate and 0 < count < 2**40:
            self.length = count / float(self.rate)
        codec = int(self._capture.get(cv2.CAP_PROP_FOURCC)) & 0xFFFFFFFF
        self._timed = self.length is not None or codec.to_bytes(4, "little") != b"MJPG"

    def pictures(self) -> Iterator[Picture]:
        """Decodes as data comes."""
        import cv2

        while self._capture.grab():
            seconds = self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
            good, image = self._capture.retrieve()
            if not good:
                self.damaged += 1
                continue
            yield seconds if self._timed else None, functools.partial(_rgb, image)
        if self.length is None:
            raise LostError("no more data")

    def close(self) -> None:
        """Releases the capture."""
        self._capture.release()


def _upright(frame: Any, turns: int) -> np.ndarray:
    image = to_rgb(frame)
    return np.ascontiguousarray(np.rot90(image, turns)) if turns else image


def _rgb(image: np.ndarray) -> np.ndarray:
    import cv2

    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB))


def _kinds(container: Any) -> str:
    return ", ".join(sorted({stream.type for stream in container.streams})) or "nothing"


def _words(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
