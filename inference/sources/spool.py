"""Videos that cannot be read in place (in an archive, from a pipe), kept in a temporary file.

The file is removed when the video has been read.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import IO, Iterator, Optional

from ...errors import WorkError
from .video import VideoSource, open_video

SPARE = 64 << 20
"""Bytes that are left free on the disk."""

BLOCK = 1 << 20


@contextlib.contextmanager
def spooled(name: str, stream: IO[bytes], size: Optional[int] = None) -> Iterator[VideoSource]:
    """A video from a stream of bytes, by way of a temporary file.

    Args:
        name: what the video is called in records and notes; its suffix helps to recognise it.
        stream: read to its end.
        size: how many bytes there are, if that is known.

    Raises:
        WorkError: there is no room for it.
        FormatError: it is no video.
    """
    folder = tempfile.gettempdir()
    _check(name, folder, size or 0)
    handle, path = tempfile.mkstemp(suffix=Path(name).suffix[:16], prefix="deepfake-fpga-")
    try:
        with os.fdopen(handle, "wb") as file:
            for number, block in enumerate(iter(lambda: stream.read(BLOCK), b"")):
                if size is None and not number % 64:
                    _check(name, folder, 0)
                try:
                    file.write(block)
                except OSError as error:
                    raise _no_room(name, folder, error.strerror or str(error)) from error
        video = open_video(path)
        video.name = name
        video.info = replace(video.info, path=Path(name), has_file=False)
        yield video
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)


def _check(name: str, folder: str, size: int) -> None:
    free = shutil.disk_usage(folder).free
    if size + SPARE > free:
        wanted = f"{size / 1e6:.0f} MB are needed and " if size else ""
        raise _no_room(name, folder, f"{wanted}{free / 1e6:.0f} MB are free")


def _no_room(name: str, folder: str, seen: str) -> WorkError:
    return WorkError(
        f"There is no room for {name} in {folder}",
        seen,
        "set TMPDIR to a folder with more room, or unpack the archive",
    )
