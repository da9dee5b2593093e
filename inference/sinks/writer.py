"""The one interface of what writes a video file, and who does: PyAV or, without it, OpenCV."""

from __future__ import annotations

import abc
import contextlib
import os
from pathlib import Path
from typing import Any, List, Optional, Tuple, Type

import numpy as np

from ...errors import UnsupportedError
from ..ffmpeg import load_av
from ..records import VideoInfo


class VideoWriter(abc.ABC):
    """One MP4 file; it has a temporary name until it is closed.

    Args:
        path: the file.
        info: the video it is made from.
        height: of the pictures, even.
        width: of the pictures, even.

    Attributes:
        notes: what of the original could not be kept.
    """

    def __init__(self, path: Path, info: VideoInfo, height: int, width: int) -> None:
        self.path, self.info = path, info
        self.height, self.width = height, width
        self.notes: List[str] = []
        self.partial = path.with_name(f"{path.stem}.part{path.suffix}")
        path.parent.mkdir(parents=True, exist_ok=True)

    @staticmethod
    @abc.abstractmethod
    def encodable(image: np.ndarray) -> Any:
        """A picture as the encoder takes it; may be called on any thread.

        Args:
            image: uint8 ``[H, W, 3]``, RGB. Odd sides grow by one pixel, a copy of the last.
        """

    @staticmethod
    @abc.abstractmethod
    def size(frame: Any) -> Tuple[int, int]:
        """Height and width of a picture from ``encodable``."""

    @abc.abstractmethod
    def write(self, frame: Any, pts: Optional[int]) -> None:
        """Appends a picture; one of another size is brought to that of the file.

        Args:
            frame: from ``encodable``.
            pts: presentation time in units of the video's time base.
        """

    @abc.abstractmethod
    def close(self, complete: bool) -> None:
        """Ends the file and gives it its name.

        Args:
            complete: whether the sound goes on to its end; else it stops with the pictures.
        """

    @abc.abstractmethod
    def abandon(self) -> None:
        """Drops the file."""

    def _publish(self) -> None:
        os.replace(str(self.partial), str(self.path))

    def _remove(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            self.partial.unlink()


def choose_writer() -> Tuple[Type[VideoWriter], str]:
    """Who writes videos here, and what that costs; the words are empty where it costs nothing."""
    try:
        load_av()
    except UnsupportedError as error:
        from .cv_mp4 import CvMp4Writer

        return CvMp4Writer, (
            f"written with OpenCV, as PyAV is missing ({error.evidence}): MPEG-4 Part 2, which "
            "browsers do not show, at an even rate, and without the sound if there was any"
        )
    from .mp4 import Mp4Writer

    return Mp4Writer, ""


def padded(image: np.ndarray) -> np.ndarray:
    """The picture with even sides, as encoders want it: the last row or column twice."""
    rows, columns = image.shape[0] % 2, image.shape[1] % 2
    if rows or columns:
        image = np.pad(image, ((0, rows), (0, columns), (0, 0)), mode="edge")
    return np.ascontiguousarray(image)
