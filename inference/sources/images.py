"""Image files as a source: one file, a folder, or a glob pattern.

Files come in natural order (``face_2`` before ``face_10``). A file that cannot be decoded is
recorded as such and the rest goes on. Whatever the file holds (grey, palette, alpha, 16 bits per
channel, an orientation tag), the picture is upright uint8 RGB; of an animation it is the first
picture.
"""

from __future__ import annotations

import functools
import glob
import io
import re
from pathlib import Path
from typing import Any, Iterator, List, Optional, Sequence, Tuple

import numpy as np

from ...errors import MissingError, UnsupportedError, UsageError
from ...files import impostor
from ..ffmpeg import load_av, to_rgb
from ..records import Frame, Status
from .base import Read, Source

# fmt: off
IMAGE_SUFFIXES = frozenset({
    ".png", ".jpg", ".jpeg", ".jpe", ".jp2", ".bmp", ".dib", ".webp", ".tif", ".tiff", ".gif",
    ".ppm", ".pgm", ".pbm", ".pnm",
})
VIDEO_SUFFIXES = frozenset({
    ".avi", ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".mpg", ".mpeg", ".ts", ".mts", ".wmv",
    ".flv", ".3gp", ".ogv", ".mxf", ".y4m",
})
# fmt: on


class ImageSource(Source):
    """A list of image files.

    Args:
        name: what the user named.
        paths: the files, in the order in which they are read.
    """

    kind = "images"

    def __init__(self, name: str, paths: Sequence[Path]) -> None:
        self.name = name
        self.paths = list(paths)
        self.length = len(self.paths)
        self.notes = []

    def reads(self) -> Iterator[Read]:
        """One call per file; all the work is in the call."""
        for path in self.paths:
            yield functools.partial(read_image, path)


def open_images(text: str) -> ImageSource:
    """The images that a path or a pattern names.

    Args:
        text: an image file, a folder (its image files, not those of its subfolders), or a glob
            pattern (``**`` descends).

    Raises:
        MissingError: nothing is there.
        UsageError: what is there holds no image.
    """
    path = Path(text)
    if path.is_dir():
        return ImageSource(text, _of_folder(path))
    if path.is_file():
        if path.suffix.lower() in VIDEO_SUFFIXES:
            raise UsageError(
                f"{text} is a video", "--images takes pictures", f"use: --video {text}"
            )
        return ImageSource(text, [path])
    if not glob.has_magic(text):
        raise MissingError(f"{text} does not exist", "", "check the path given to --images")
    found = [Path(match) for match in glob.glob(text, recursive=True)]
    files = [match for match in found if match.is_file()]
    images = [match for match in files if match.suffix.lower() in IMAGE_SUFFIXES]
    if not images:
        raise MissingError(
            f"No image matches {text}",
            f"{len(files)} files match, none with the suffix of an image" if files else "no match",
            "check the pattern given to --images, and quote it",
        )
    return ImageSource(text, sorted(images, key=natural_key))


def natural_key(path: Path) -> Tuple[Any, ...]:
    """Sorts by folder, then by name with its numbers as numbers; names as such break ties."""
    return (_split(str(path.parent)), _split(path.name), path.name)


def read_image(path: Path) -> Frame:
    """Reads one file into a frame, or into the record of its failure."""
    try:
        image, reason = decode(path.read_bytes())
    except OSError as error:
        image, reason = None, error.strerror or str(error)
    if image is None:
        return Frame(str(path), 0, None, None, Status.DECODE_ERROR, reason)
    return Frame(str(path), 0, None, image)


def decode(data: bytes) -> Tuple[Optional[np.ndarray], str]:
    """Decodes an image file's bytes.

    Returns:
        uint8 ``[H, W, 3]`` RGB and an empty text, or ``None`` and the reason.
    """
    strange = impostor(data[:256])
    if strange is not None:
        return None, strange
    if _is_cut(data):
        return None, "the file is truncated: its end marker is missing"
    if data[:4] == b"GIF8":
        return _decode_gif(data)
    return _decode_cv(data)


def _decode_cv(data: bytes) -> Tuple[Optional[np.ndarray], str]:
    import cv2

    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as error:
        return None, f"OpenCV cannot decode it: {error.err}"
    if image is None:
        return None, "no image format OpenCV knows, or a damaged one"
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=image), ""


def _of_folder(folder: Path) -> List[Path]:
    entries = list(folder.iterdir())
    images = [path for path in entries if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()]
    if images:
        return sorted(images, key=natural_key)
    folders = sorted(path.name for path in entries if path.is_dir())
    videos = sorted(path.name for path in entries if path.suffix.lower() in VIDEO_SUFFIXES)
    next_step = "name a folder that holds images"
    if "crops" in folders:
        next_step = f"use: --images {folder / 'crops'}"
    elif videos:
        next_step = f"use: --video {folder / videos[0]}"
    elif folders:
        next_step = f"use a pattern that descends: --images '{folder}/**/*.png'"
    raise UsageError(
        f"The folder {folder} holds no images",
        f"{len(entries)} entries, none with the suffix of an image",
        next_step,
    )


def _split(text: str) -> List[Any]:
    # Alternates text and number, so that two keys never compare the one with the other.
    parts = re.split(r"([0-9]+)", text.lower())
    return [int(part) if place % 2 else part for place, part in enumerate(parts)]


def _is_cut(data: bytes) -> bool:
    """Whether a PNG or JPEG ends early; decoders fill the rest with grey and say nothing."""
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return data.rfind(b"IEND") < 0
    if data[:2] != b"\xff\xd8":
        return False
    # Step over the segments of the header (a thumbnail has an end marker of its own) to the scan.
    at = 2
    while data[at : at + 1] == b"\xff" and data[at + 1 : at + 2] != b"\xda":
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return data.find(b"\xff\xd9", at) < 0


def _decode_gif(data: bytes) -> Tuple[Optional[np.ndarray], str]:
    try:
        av = load_av()
    except UnsupportedError as error:
        image, _ = _decode_cv(data)  # OpenCV reads GIF from 4.11 on
        return image, "" if image is not None else str(error)
    try:
        with av.open(io.BytesIO(data)) as container:
            for frame in container.decode(video=0):
                return to_rgb(frame), ""
    except (av.error.FFmpegError, ValueError, IndexError) as error:
        return None, f"FFmpeg cannot decode it: {error}"
    return None, "a GIF without a picture"
