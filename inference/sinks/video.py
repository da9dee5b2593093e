"""Overlay videos: for every video of a run one MP4 of the same rate, length and sound."""

from __future__ import annotations

from pathlib import Path
from typing import Any, List, Optional, Set, Type

from ..overlay import draw, placeholder, side_by_side
from ..records import FrameResult, VideoInfo
from .base import Sink
from .pictures import free_name
from .writer import VideoWriter, choose_writer


class OverlayVideoSink(Sink):
    """Writes ``overlay.mp4``, or ``overlay-NAME.mp4`` for each of several videos.

    A frame that could not be decoded is shown as a plain picture that says so, so frame count
    and timing stay those of the source. A run that fails leaves what it has as a whole file.

    Args:
        folder: where they go.
        beside: puts the original left of its overlay.
        several: names each after its video.
        kind: who writes; chosen, and the choice noted, if not given.

    Attributes:
        notes: what could not be kept of the videos.
        paths: the files written.
    """

    needs_image = True
    renders = True

    def __init__(
        self,
        folder: Path,
        beside: bool = False,
        several: bool = False,
        kind: Optional[Type[VideoWriter]] = None,
    ) -> None:
        self.folder, self.beside, self.several = folder, beside, several
        self._kind, why = (kind, "") if kind else choose_writer()
        self._why = why
        self.notes: List[str] = []
        self.paths: List[Path] = []
        self._taken: Set[str] = set()
        self._video: Optional[VideoInfo] = None
        self._writer: Optional[VideoWriter] = None
        self._early: List[FrameResult] = []

    def render(self, result: FrameResult) -> Any:
        """The overlay ready for the encoder; ``None`` where there is no picture."""
        image = result.frame.image
        if result.frame.video is None or image is None:
            return None
        overlay = draw(result)
        return self._kind.encodable(side_by_side(image, overlay) if self.beside else overlay)

    def write(self, result: FrameResult, rendered: Any) -> None:
        """Appends one frame to the file of its video, ending that of the one before."""
        video = result.frame.video
        if video is not self._video:
            self._end(complete=True)
            self._video = video
        if video is None:
            return
        if self._writer is None:
            if rendered is None:
                self._early.append(result)
                return
            stem = video.path.stem
            name = free_name(f"overlay-{stem}" if self.several else "overlay", self._taken)
            height, width = self._kind.size(rendered)
            self._writer = self._kind(self.folder / f"{name}.mp4", video, height, width)
            for early in self._early:
                self._append(self._writer, early, None)
            self._early = []
        self._append(self._writer, result, rendered)

    def close(self, complete: bool) -> None:
        """Ends the last file."""
        self._end(complete)

    def _append(self, writer: VideoWriter, result: FrameResult, rendered: Any) -> None:
        if rendered is None:
            rendered = self._kind.encodable(placeholder(result, writer.height, writer.width))
        writer.write(rendered, result.frame.pts)

    def _end(self, complete: bool) -> None:
        writer, self._writer = self._writer, None
        self._early = []
        if writer is not None:
            try:
                writer.close(complete)
            except BaseException:
                writer.abandon()
                raise
            self.paths.append(writer.path)
            if self._why and len(self.paths) == 1:
                self.notes.append(f"{writer.path}: {self._why}")
            self.notes.extend(f"{writer.info.path}: {note}" for note in writer.notes)
