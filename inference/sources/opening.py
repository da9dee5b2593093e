"""What a user's word means: a file by its content, a folder, a pattern, a stream, a camera."""

from __future__ import annotations

import glob
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, List, Optional

from ...errors import FormatError, MissingError, UsageError
from ...files import impostor, refuse_impostor
from .archive import TarSource
from .base import Source
from .camera import device_of, open_camera
from .content import HEAD, IMAGE_SUFFIXES, Content, recognise
from .files import PICTURES, one_image, one_of_many, open_folder, open_list, open_pattern
from .live import LiveOptions
from .pipe import open_pipe, standard_input
from .streams import SCHEMES, open_stream, scheme_of, without_password
from .video import open_video


@dataclass(frozen=True)
class OpenOptions:
    """How sources are opened.

    Attributes:
        expect: ``images`` or ``video`` where only such are wanted; empty for anything.
        stdin_format: what comes from standard input, see ``pipe.FORMATS``.
        live: how long to wait for streams and cameras.
        several: whether this is one of several inputs: a video that cannot be opened is then
            recorded as such, when its turn comes, and stops no other.
        stdin: read instead of standard input.
    """

    expect: str = ""
    stdin_format: str = "auto"
    live: LiveOptions = field(default_factory=LiveOptions)
    stdin: Optional[IO[bytes]] = None
    several: bool = False


def open_source(text: str, options: Optional[OpenOptions] = None) -> Source:
    """The source a word names; its ``reason`` says why it was taken for that.

    Args:
        text: a file (image, video, tar, text list), a folder, a glob pattern, a URL, a camera
            (``camera:0``, ``/dev/video0``, or a number that is no file), or ``-``.
        options: what is expected and how to wait.

    Raises:
        UsageError: it names nothing that can be read.
        WorkError: it is there and cannot be read.
    """
    options = OpenOptions() if options is None else options
    if text == "-":
        pipe = standard_input() if options.stdin is None else options.stdin
        return open_pipe("stdin", pipe, options.stdin_format)
    path = Path(text)
    scheme = scheme_of(text)
    if scheme == "file":
        return open_source(text[len("file://") :], options)
    if scheme and not path.exists():
        return _stream(text, scheme, options)
    device = device_of(text)
    if device is not None and (isinstance(device, str) or not path.exists()):
        if options.expect == "images":
            raise _not_images(text, "a camera")
        return _because(open_camera(text, options.live), "a camera by its name")
    if path.is_dir():
        return _folder(text, options)
    if path.is_file():
        return _file(text, path, options)
    if path.exists() and stat.S_ISFIFO(path.stat().st_mode):
        source = open_pipe(text, path.open("rb"), options.stdin_format)
        return _because(source, f"a pipe: {source.reason}")
    if glob.has_magic(text) and options.expect != "video":
        suffixes = IMAGE_SUFFIXES if options.expect == "images" else PICTURES
        return _because(open_pattern(text, suffixes), "a pattern: it has *, ? or [")
    raise MissingError(
        f"{text} does not exist",
        "it is no file, folder, pattern with a match, URL or camera",
        f"check the path given to --{options.expect or 'input'}",
    )


def _stream(text: str, scheme: str, options: OpenOptions) -> Source:
    if scheme not in SCHEMES:
        raise UsageError(
            f"{without_password(text)} has a scheme that is not known",
            f"{scheme}:// is none of {', '.join(SCHEMES)}",
            "download it first, or give another address",
        )
    if options.expect == "images":
        raise _not_images(text, "a stream")
    return _because(open_stream(text, options.live), f"a stream by its scheme {scheme}")


def _folder(text: str, options: OpenOptions) -> Source:
    if options.expect == "video":
        raise UsageError(f"{text} is a folder", "--video takes one file", "name the file")
    suffixes = IMAGE_SUFFIXES if options.expect == "images" else PICTURES
    return _because(open_folder(text, suffixes), "a folder")


def _file(text: str, path: Path, options: OpenOptions) -> Source:
    try:
        with path.open("rb") as file:
            head = file.read(HEAD)
    except OSError as error:
        raise UsageError(
            f"{text} cannot be read", error.strerror or str(error), "check its permissions"
        ) from error
    content, how = recognise(head, path.name)
    expect = options.expect
    if content in (Content.TEXT, Content.UNKNOWN, Content.ARCHIVE) and impostor(head):
        refuse_impostor(path, "input")
    if content is Content.ARCHIVE:
        return _because(TarSource(text, path), f"a tar: {how}")
    if content is Content.ZIP:
        raise UsageError(f"{text} is a zip archive", how, "unpack it, or make a tar of it")
    if content is Content.TEXT:
        return _because(open_list(text), f"a list of files: {how}")
    opened = one_of_many if options.several else open_video
    if expect == "video":
        return _because(opened(text), f"a video: {how}")
    if expect == "images" and content is Content.VIDEO:
        raise UsageError(f"{text} is a video", "--images takes pictures", f"use: --video {text}")
    if content is Content.IMAGE or expect == "images":
        return _because(one_image(text), f"an image: {how}")
    if content is Content.VIDEO:
        return _because(opened(text), f"a video: {how}")
    try:
        return _because(open_video(text), "a video: it can be opened as one")
    except FormatError as error:
        tried: List[str] = [how, f"as a video: {error.evidence}"]
        raise UsageError(
            f"{text} is nothing that can be read here",
            "; ".join(tried),
            "give an image, a video, a tar of them, or a text file with one path on each line",
        ) from error


def _not_images(text: str, what: str) -> UsageError:
    text = without_password(text)
    return UsageError(f"{text} is {what}", "--images takes pictures", f"use: --video {text}")


def _because(source: Source, reason: str) -> Source:
    source.reason = reason
    return source
