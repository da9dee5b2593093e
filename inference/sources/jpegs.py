"""A stream of JPEG pictures one after the other (Motion JPEG), taken apart by its markers."""

from __future__ import annotations

import contextlib
import functools
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import IO, Iterator, Optional

from ..records import Frame, Status, VideoInfo
from .base import Read, Source, TimedRead
from .images import decode
from .video import FALLBACK_RATE

MOST_BYTES = 64 << 20
"""A picture that has not ended by then is damaged."""

BLOCK = 1 << 16


class JpegSource(Source):
    """JPEG pictures from a stream of bytes, read once, as they come.

    Args:
        name: what it is called.
        pipe: has ``read``.
    """

    kind, live, length = "video", True, None

    def __init__(self, name: str, pipe: IO[bytes]) -> None:
        self.name, self._pipe = name, pipe
        self.notes = [f"Motion JPEG states no frame rate; {FALLBACK_RATE} is assumed"]
        self.info = VideoInfo(
            Path(name),
            FALLBACK_RATE,
            1 / Fraction(FALLBACK_RATE),
            Fraction(0),
            None,
            has_file=False,
        )

    def reads(self) -> Iterator[Read]:
        """One call per picture, in which it is decoded."""
        with contextlib.closing(self._pipe):
            for index, data in enumerate(split(self._pipe)):
                time = round(float(index / self.info.rate), 6)
                yield TimedRead(functools.partial(self._frame, index, time, data), time)

    def _frame(self, index: int, time: float, data: bytes) -> Frame:
        image, reason = decode(data)
        frame = Frame(self.name, index, time, image, Status.OK, "", self.info, index)
        if image is None:
            frame = replace(frame, status=Status.DECODE_ERROR, reason=reason)
        return frame


def split(pipe: IO[bytes]) -> Iterator[bytes]:
    """The pictures, each from its start marker to its end marker; what is between is dropped.

    A picture that is cut off by the end of the stream is given as far as it goes.
    """
    buffer = bytearray()
    more = True
    while more or buffer:
        at = buffer.find(b"\xff\xd8\xff")
        if at > 0:
            del buffer[:at]
        end = _end_of(buffer) if at >= 0 else None
        if end is not None:
            yield bytes(buffer[:end])
            del buffer[:end]
            continue
        if at < 0:
            del buffer[:-2]
        elif len(buffer) > MOST_BYTES:
            del buffer[:2]
            continue
        if not more:
            following = buffer.find(b"\xff\xd8\xff", 2)
            if at >= 0:
                yield bytes(buffer if following < 0 else buffer[:following])
            if following < 0:
                return
            del buffer[:following]
            continue
        block = _some(pipe)
        more = bool(block)
        buffer += block


def _end_of(data: bytearray) -> Optional[int]:
    """Where the picture that begins at 0 ends; ``None`` where more bytes are needed.

    Segments are stepped over, as a thumbnail inside has an end marker of its own.
    """
    at = 2
    while True:
        while data[at : at + 2] == b"\xff\xff":  # fill bytes
            at += 1
        if len(data) < at + 4:
            return at + 2 if data[at : at + 2] == b"\xff\xd9" else None
        if data[at] != 0xFF:
            following = data.find(b"\xff\xd8\xff", 2)  # damaged: up to the next start or end
            found = data.find(b"\xff\xd9", at)
            return following if following >= 0 else found + 2 if found >= 0 else None
        marker = data[at + 1]
        if marker == 0xD9:
            return at + 2
        if marker == 0xD8:  # the next picture begins: this one never ended
            return at
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if marker == 0xDA:
            scan = _scan_end(data, at)
            if scan is None:
                return None
            at = scan


def _scan_end(data: bytearray, at: int) -> Optional[int]:
    """Where coded data ends: at a marker that is neither a restart nor a stuffed byte."""
    while True:
        at = data.find(b"\xff", at)
        if at < 0 or at + 1 >= len(data):
            return None
        if data[at + 1] == 0 or 0xD0 <= data[at + 1] <= 0xD7:
            at += 2
        elif data[at + 1] == 0xFF:
            at += 1
        else:
            return at


def _some(pipe: IO[bytes]) -> bytes:
    # ``read`` of a buffered pipe would wait for the whole block.
    read = getattr(pipe, "read1", pipe.read)
    block: bytes = read(BLOCK)
    return block
