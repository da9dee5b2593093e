"""Overlay videos: for every video of a run one MP4 of the same rate, length and sound."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Collection, Dict, List, Optional, Set, Type

from ..overlay import draw, placeholder, side_by_side
from ..records import FrameResult, VideoInfo
from .base import Sink
from .pictures import Names, free_name
from .writer import VideoWriter, choose_writer

FILES = -1
"""Stands for all sources that are read one after the other."""


class OverlayVideoSink(Sink):
    """Writes ``overlay.mp4``, or ``overlay-NAME.mp4`` for each of several videos.

    A frame that could not be decoded is shown as a plain picture that says so, so frame count
    and timing stay those of the source. A run that fails leaves what it has as a whole file.

    Args:
        folder: where they go.
        beside: puts the original left of its overlay.
        several: names each after its video.
        live: positions of sources that are read beside the others, each with a file of its own.
        kind: who writes; chosen, and the choice noted, if not given.
        names: gives the name for a source, without suffix, instead.

    Attributes:
        notes: what could not be kept of the videos.
        paths: the files written.
        files: the same by the name of their video in the records.
    """

    needs_image = True
    renders = True

    def __init__(
        self,
        folder: Path,
        beside: bool = False,
        several: bool = False,
        kind: Optional[Type[VideoWriter]] = None,
        live: Collection[int] = (),
        names: Optional[Names] = None,
    ) -> None:
        self.folder, self.beside, self.several = folder, beside, several
        self._kind, why = (kind, "") if kind else choose_writer()
        self._why = why
        self.notes: List[str] = []
        self.paths: List[Path] = []
        self.files: Dict[str, Path] = {}
        self._names = names
        self._taken: Set[str] = set()
        self._live = frozenset(live)
        self._lanes: Dict[int, _Lane] = {}

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
        place = result.origin if result.origin in self._live else FILES
        lane = self._lanes.setdefault(place, _Lane(None))
        if video is not lane.video:
            self._end(lane, complete=True)
            lane = self._lanes[place] = _Lane(video, result.frame.source)
        if video is None:
            return
        if lane.writer is None:
            if rendered is None:
                lane.early.append(result)
                return
            stem = f"overlay-{video.path.stem}" if self.several else "overlay"
            source = result.frame.source
            name = self._names(source) if self._names else free_name(stem, self._taken)
            height, width = self._kind.size(rendered)
            lane.writer = self._kind(self.folder / f"{name}.mp4", video, height, width)
            for early in lane.early:
                self._append(lane.writer, early, None)
            lane.early = []
        self._append(lane.writer, result, rendered)

    def close(self, complete: bool) -> None:
        """Ends the last files; one that cannot be ended does not keep the others from it."""
        failure: Optional[BaseException] = None
        for lane in self._lanes.values():
            try:
                self._end(lane, complete)
            except BaseException as error:
                failure = failure or error
        self._lanes = {}
        if failure is not None:
            raise failure

    def outputs(self) -> List[Path]:
        """The videos."""
        return self.paths

    def _append(self, writer: VideoWriter, result: FrameResult, rendered: Any) -> None:
        if rendered is None:
            rendered = self._kind.encodable(placeholder(result, writer.height, writer.width))
        writer.write(rendered, result.frame.pts)

    def _end(self, lane: _Lane, complete: bool) -> None:
        writer, lane.writer = lane.writer, None
        if writer is not None:
            try:
                writer.close(complete)
            except BaseException:
                writer.abandon()
                raise
            self.paths.append(writer.path)
            self.files[lane.name] = writer.path
            if self._why and len(self.paths) == 1:
                self.notes.append(f"{writer.path}: {self._why}")
            self.notes.extend(f"{writer.info.path}: {note}" for note in writer.notes)


@dataclass
class _Lane:
    """The video being written from one live source, or from the files, which come in turn."""

    video: Optional[VideoInfo]
    name: str = ""
    writer: Optional[VideoWriter] = None
    early: List[FrameResult] = field(default_factory=list)
