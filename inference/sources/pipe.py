"""Standard input, or anything else that is read once from its beginning to its end."""

from __future__ import annotations

import io
import os
import sys
from typing import IO, Any, Iterator, Tuple

from ...errors import FormatError, UnsupportedError, UsageError
from ...files import impostor
from ..ffmpeg import load_av
from .archive import MOST_IMAGE_BYTES, TarSource
from .base import Collection, Read, Source, lost
from .content import HEAD, Content, recognise
from .files import read_file
from .images import read_bytes
from .jpegs import JpegSource
from .listing import entries
from .spool import spooled

FORMATS = ("auto", "tar", "video", "mjpeg", "list")
"""What standard input may be said to be."""


def standard_input() -> IO[bytes]:
    """Standard input as bytes, apart from Python's own object.

    A thread may be left waiting in it when the program ends; Python's own must not be held then.

    Raises:
        UsageError: it is a terminal, or closed.
    """
    if sys.stdin is None or sys.stdin.closed or sys.stdin.isatty():
        raise UsageError(
            "Nothing comes from standard input",
            "it is a terminal" if sys.stdin is not None else "it is closed",
            "pipe something in: tar c faces | deepfake-fpga run --input - -o OUT",
        )
    try:
        return os.fdopen(os.dup(sys.stdin.fileno()), "rb")
    except (OSError, ValueError):  # something that stands for it
        return sys.stdin.buffer


def open_pipe(name: str, pipe: IO[bytes], form: str = "auto") -> Source:
    """What comes through a pipe.

    Args:
        name: what it is called in records.
        pipe: has ``read``; it is read once.
        form: one of ``FORMATS``; ``auto`` decides by the first bytes.

    Raises:
        FormatError: it is empty, or nothing that is known.
    """
    if form == "list":
        return _because(ListSource(name, pipe), "a list, as --stdin-format says")
    if form == "tar":
        return _because(TarSource(name, stream=pipe), "a tar, as --stdin-format says")
    if form == "mjpeg":
        return _because(JpegSource(name, pipe), "Motion JPEG, as --stdin-format says")
    if form == "video":
        return _because(_video(name, pipe), "a video, as --stdin-format says")
    head, pipe = peeked(pipe)
    strange = impostor(head)
    if strange is not None:
        raise FormatError(f"{name} is {strange}", f"its first bytes are {head[:40]!r}")
    content, how = recognise(head)
    if content is Content.ARCHIVE:
        return _because(TarSource(name, stream=pipe), f"a tar: {how}")
    if head.startswith(b"\xff\xd8\xff"):
        return _because(JpegSource(name, pipe), f"Motion JPEG: {how}")
    if content is Content.IMAGE:
        return _because(ImageSource(name, pipe), f"an image: {how}")
    if content is Content.TEXT:
        return _because(ListSource(name, pipe), f"a list of files: {how}")
    if content is Content.ZIP:
        raise FormatError(f"{name} is a zip archive", how, "send a tar instead")
    try:
        return _because(_video(name, pipe), f"a video: {how}")
    except FormatError as error:
        raise FormatError(
            f"{name} is neither a tar, a video, JPEG pictures nor a list of files",
            f"its first bytes are {head[:24]!r}; {error.evidence}",
            "say what it is with --stdin-format",
        ) from error


class ListSource(Collection):
    """Files whose names come through a pipe, one per line, relative to the current folder."""

    kind, live = "mixed", True

    def __init__(self, name: str, pipe: IO[bytes]) -> None:
        super().__init__(name)
        self._pipe = pipe

    def reads(self) -> Iterator[Read]:
        """The files' frames, as the names come."""
        lines = io.TextIOWrapper(_Readable(self._pipe), "utf-8", errors="surrogateescape")  # type: ignore[type-var]
        try:
            for name in entries(lines, ""):
                yield from read_file(self, name)
        finally:
            lines.close()


class ImageSource(Source):
    """One image through a pipe."""

    kind, live, length = "images", True, 1

    def __init__(self, name: str, pipe: IO[bytes]) -> None:
        self.name, self.notes, self._pipe = name, [], pipe

    def reads(self) -> Iterator[Read]:
        """The image."""
        with self._pipe:
            data = self._pipe.read(MOST_IMAGE_BYTES + 1)
        if len(data) > MOST_IMAGE_BYTES:
            yield lost(self.name, "more bytes than an image has")
        else:
            yield lambda: read_bytes(self.name, data)


class SpooledSource(Collection):
    """A video through a pipe for a decoder that needs a file."""

    kind, live = "video", True

    def __init__(self, name: str, pipe: IO[bytes]) -> None:
        super().__init__(name)
        self._pipe = pipe

    def reads(self) -> Iterator[Read]:
        """The frames, once all of it is there."""
        with self._pipe, spooled(self.name, self._pipe) as video:
            yield from self.read_part(video)


def peeked(pipe: IO[bytes]) -> Tuple[bytes, IO[bytes]]:
    """The first ``HEAD`` bytes, and a stream that gives them again before the rest."""
    head = b""
    while len(head) < HEAD:
        piece = pipe.read(HEAD - len(head))
        if not piece:
            break
        head += piece
    return head, io.BufferedReader(_Rest(head, pipe))


class _Readable(io.RawIOBase):
    """Makes what only has ``read`` into a stream; gives what is there, without waiting for more."""

    def __init__(self, pipe: IO[bytes]) -> None:
        super().__init__()
        self._pipe = pipe
        self._read = getattr(pipe, "read1", pipe.read)

    def close(self) -> None:
        """Closes the pipe, too."""
        if not self.closed:
            self._pipe.close()
        super().close()

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fills as much of the buffer as there is at once."""
        piece = self._read(len(buffer))
        buffer[: len(piece)] = piece
        return len(piece)

    def read1(self, size: int = -1) -> bytes:
        """As ``read`` of a raw stream."""
        return self._read(65536 if size < 0 else size)


class _Rest(_Readable):
    """A stream with its head put back."""

    def __init__(self, head: bytes, pipe: IO[bytes]) -> None:
        super().__init__(pipe)
        self._head = head

    def readinto(self, buffer: Any) -> int:
        """The head first."""
        if not self._head:
            return super().readinto(buffer)
        piece = self._head[: len(buffer)]
        self._head = self._head[len(piece) :]
        buffer[: len(piece)] = piece
        return len(piece)


def _video(name: str, pipe: IO[bytes]) -> Source:
    try:
        load_av()
    except UnsupportedError:
        return SpooledSource(name, pipe)
    from .av_video import AvPipeSource

    return AvPipeSource(name, pipe)


def _because(source: Source, reason: str) -> Source:
    source.reason = reason
    return source
