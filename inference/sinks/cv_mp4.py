"""An MP4 file written with OpenCV, for where PyAV is missing: pictures only, at an even rate."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Optional, Tuple

import numpy as np

from ...errors import UnsupportedError
from ..records import VideoInfo
from .writer import VideoWriter, padded

CODEC = "mp4v"
"""MPEG-4 Part 2: the one that every OpenCV with FFmpeg can encode; few have H.264."""


class CvMp4Writer(VideoWriter):
    """One video file, as ``VideoWriter`` says.

    Raises:
        UnsupportedError: this OpenCV cannot encode.
    """

    def __init__(self, path: Path, info: VideoInfo, height: int, width: int) -> None:
        super().__init__(path, info, height, width)
        import cv2

        self._count = 0
        self._first: Optional[int] = None
        self._uneven = False
        self._writer = cv2.VideoWriter(
            str(self.partial),
            cv2.CAP_FFMPEG,
            int.from_bytes(CODEC.encode(), "little"),
            float(info.rate),
            (width, height),
        )
        if not self._writer.isOpened():
            self._remove()
            raise UnsupportedError(
                "The overlay video cannot be encoded",
                f"OpenCV {cv2.__version__} opens no encoder {CODEC} for {self.partial}",
                "pip install av, or use --no-overlay",
            )

    @staticmethod
    def encodable(image: np.ndarray) -> np.ndarray:
        """uint8 ``[H, W, 3]``, BGR, with even sides."""
        import cv2

        return np.asarray(cv2.cvtColor(padded(image), cv2.COLOR_RGB2BGR))

    @staticmethod
    def size(frame: Any) -> Tuple[int, int]:
        """Height and width."""
        return frame.shape[0], frame.shape[1]

    def write(self, frame: Any, pts: Optional[int]) -> None:
        """Appends a picture; ``pts`` is only compared with the even times of the file."""
        if frame.shape[:2] != (self.height, self.width):
            import cv2

            frame = cv2.resize(frame, (self.width, self.height), interpolation=cv2.INTER_AREA)
        if pts is not None:
            self._first = pts if self._first is None else self._first
            even = self._count / self.info.rate
            off = (pts - self._first) * self.info.time_base - even
            self._uneven = self._uneven or abs(off) * self.info.rate > 1
        self._writer.write(frame)
        self._count += 1

    def close(self, complete: bool) -> None:
        """Ends the file and gives it its name, after looking whether it is whole.

        Raises:
            OSError: it is not; OpenCV itself says nothing of a full disk.
        """
        import cv2

        self._writer.release()
        capture = cv2.VideoCapture(str(self.partial), cv2.CAP_FFMPEG)
        found = int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) if capture.isOpened() else 0
        capture.release()
        if found != self._count:
            raise OSError(f"{self.partial} holds {found} of {self._count} frames")
        if self._uneven:
            self.notes.append("the pictures are shown at even times, those of the video are not")
        self._publish()

    def abandon(self) -> None:
        """Drops the file."""
        self._writer.release()
        self._remove()
