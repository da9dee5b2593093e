"""A video file as a source, and who decodes it: PyAV where it is installed, else OpenCV.

Whoever does, frames come in the order of presentation, upright (the rotation flag is applied),
as RGB, with their real times.
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Iterable, List

from ...errors import UnsupportedError, UsageError
from ...files import refuse_impostor
from ..ffmpeg import load_av
from ..records import VideoInfo
from .base import Source

FALLBACK_RATE = Fraction(25)
NO_INDEX = "check the file with a player; a truncated MP4 lacks the index at its end"


class VideoSource(Source):
    """A video file.

    Args:
        text: its path.

    Attributes:
        path: the file that is decoded.
        info: rate, time base and length by the header.
        begin: frames before this time, in seconds, may be left out; indices and times stay.

    Raises:
        MissingError: there is no such file.
        FormatError: it is something else.
    """

    kind = "video"
    info: VideoInfo
    begin: float = 0.0

    def __init__(self, text: str) -> None:
        self.path = Path(text)
        if self.path.is_dir():
            raise UsageError(f"{text} is a folder", "--video takes one file", "name the file")
        refuse_impostor(self.path, "video")
        self.name = text
        self.notes: List[str] = []

    def places(self) -> Iterable[Path]:
        """The file."""
        return [self.path]


def open_video(text: str) -> VideoSource:
    """The video in the file ``text``; if OpenCV decodes it, ``notes`` say why and what that costs.

    Raises:
        MissingError: there is no such file.
        FormatError: it is not a video that can be decoded here.
    """
    try:
        load_av()
    except UnsupportedError as error:
        from .cv_video import CvVideoSource

        source = CvVideoSource(text)
        source.notes.append(
            f"read with OpenCV, as PyAV is missing ({error.evidence}): "
            "colours are taken as BT.601, and damage may pass unseen"
        )
        return source
    from .av_video import AvVideoSource

    return AvVideoSource(text)
