"""Masks and overlays of images as PNG files, one per image."""

from __future__ import annotations

import abc
import os
from pathlib import Path
from typing import Any, Callable, List, Optional, Set

import numpy as np

from ...errors import WorkError
from ..overlay import draw, full_mask, side_by_side
from ..records import FrameResult
from .base import Sink

COMPRESSION = 1
"""zlib level of the PNG files, with run lengths only: quicker than, and as small as, level 3."""

Names = Callable[[str], str]
"""Gives the name of the file for the source of a result, without suffix."""


class PictureSink(Sink):
    """Writes one PNG per image that could be decoded; frames of videos are left out.

    A file is called after its image; a second image of the same name gets ``-2`` and so on.

    Args:
        folder: where they go.
        names: gives the name for a source, without suffix, instead.

    Attributes:
        written: how many there are so far.
    """

    needs_image = True
    renders = True

    def __init__(self, folder: Path, names: Optional[Names] = None) -> None:
        self.folder = folder
        self.written = 0
        self._names = names
        self._taken: Set[str] = set()

    @abc.abstractmethod
    def picture(self, result: FrameResult) -> Optional[np.ndarray]:
        """uint8 ``[H, W]``, or ``[H, W, 3]`` RGB; ``None`` where there is nothing to show."""

    def render(self, result: FrameResult) -> Optional[bytes]:
        """The PNG's bytes."""
        if result.frame.video is not None or result.frame.image is None:
            return None
        picture = self.picture(result)
        return None if picture is None else png(picture)

    def write(self, result: FrameResult, rendered: Any) -> None:
        """Puts the PNG in its place."""
        if result.frame.video is not None:
            return
        source = result.frame.source
        name = self._names(source) if self._names else free_name(Path(source).stem, self._taken)
        if rendered is None:
            return
        if not self.folder.is_dir():
            self.folder.mkdir(parents=True, exist_ok=True)
        temporary = self.folder / f".{name}.part"
        temporary.write_bytes(rendered)
        os.replace(str(temporary), str(self.folder / f"{name}.png"))
        self.written += 1

    def outputs(self) -> List[Path]:
        """The folder, if there is anything in it."""
        return [self.folder] if self.written else []


class MaskSink(PictureSink):
    """Writes the masks at the size of their images: 255 = manipulated, else 0."""

    def picture(self, result: FrameResult) -> Optional[np.ndarray]:
        """The mask of a judged image."""
        assert result.frame.image is not None
        if result.mask is None or not result.judged:
            return None
        return full_mask(result.mask, *result.frame.image.shape[:2])


class OverlaySink(PictureSink):
    """Writes the overlays.

    Args:
        folder: where they go.
        beside: puts the original left of its overlay.
        names: as for every ``PictureSink``.
    """

    def __init__(self, folder: Path, beside: bool = False, names: Optional[Names] = None) -> None:
        super().__init__(folder, names)
        self.beside = beside

    def picture(self, result: FrameResult) -> Optional[np.ndarray]:
        """The overlay of any image that could be decoded."""
        assert result.frame.image is not None
        overlay = draw(result)
        return side_by_side(result.frame.image, overlay) if self.beside else overlay


def free_name(stem: str, taken: Set[str]) -> str:
    """``stem``, or ``stem-2``, ``stem-3`` ... where that is taken (whatever its case); takes it."""
    name, number = stem, 1
    while name.lower() in taken:
        number += 1
        name = f"{stem}-{number}"
    taken.add(name.lower())
    return name


def png(picture: np.ndarray) -> bytes:
    """Encodes uint8 ``[H, W]`` or ``[H, W, 3]`` RGB as PNG."""
    import cv2

    if picture.ndim == 3:
        picture = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    options = [
        *(cv2.IMWRITE_PNG_COMPRESSION, COMPRESSION),
        *(cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE),
    ]
    good, data = cv2.imencode(".png", picture, options)
    if not good:
        raise WorkError("OpenCV cannot encode a PNG", f"a picture of {list(picture.shape)}")
    return bytes(data)
