"""The videos of a run: what is said of each, the frames kept of it, and the folder it gets."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Dict, Iterable, List, Tuple

from ...errors import ToolkitError
from ...inference.records import FrameResult
from ...inference.sinks.pictures import free_name
from ...inference.sources import open_video
from ...inference.summary import Summary
from ...inference.verdicts.gallery import ClipGallery, Gallery
from ...inference.verdicts.judgement import judge_video
from ...inference.verdicts.records import VideoVerdict
from ...inference.verdicts.scores import Scores

Stamp = Tuple[int, int]
"""Size in bytes and time of the last change in nanoseconds."""


@dataclass(frozen=True)
class Clip:
    """One video of a run.

    Attributes:
        name: as in the records.
        scores: of its frames.
        verdict: what they come to.
        gallery: the frames kept of it.
        folder: where its evidence goes.
    """

    name: str
    scores: Scores
    verdict: VideoVerdict
    gallery: ClipGallery
    folder: Path


def stamps(paths: Iterable[Path]) -> Dict[str, Stamp]:
    """Size and time of files, to see later whether they were changed meanwhile."""
    found = {}
    for path in paths:
        if path.is_file():
            state = path.stat()
            found[str(path)] = (state.st_size, state.st_mtime_ns)
    return found


def clips_of(output: Path, summary: Summary, gallery: Gallery, pictures: bool) -> List[Clip]:
    """The videos of a run, in their order.

    Args:
        output: the folder of the run; that of the video, too, where it is alone.
        summary: what the run came to.
        gallery: the frames it kept.
        pictures: whether videos of which none were kept are read again for them.
    """
    by_name: Dict[str, Scores] = {}
    for source in summary.sources:
        by_name.update(source.clips)  # one that two inputs name is one video
    found = list(by_name.items())
    alone = len(found) == 1 and sum(len(s.parts(summary.rules)) for s in summary.sources) == 1
    taken = {"masks", "overlays", "parts"}
    clips = []
    for name, scores in found:
        folder = output if alone else output / free_name(folder_name(name), taken)
        verdict = judge_video(scores, summary.rules)
        kept = gallery.clips.get(name)
        if kept is None:
            kept = _seen_again(name, scores) if pictures else ClipGallery()
        clips.append(Clip(name, scores, verdict, kept, folder))
    return clips


def _seen_again(name: str, scores: Scores) -> ClipGallery:
    """The gallery of a video that an earlier run judged: without the masks, which are gone.

    Empty where it cannot be read any more, or was never a video.
    """
    gallery = ClipGallery()
    found: Dict[int, float] = {}
    for score in scores:
        if score.fake_probability is not None:
            found[score.frame] = max(score.fake_probability, found.get(score.frame, 0.0))
    try:
        source = open_video(name) if found else None
    except ToolkitError:
        source = None
    for frame in () if source is None else source:
        if frame.index in found:
            gallery.add(FrameResult(frame, 1.0 - found[frame.index], None, ""))
    return gallery


def folder_name(name: str) -> str:
    """A folder name for a video: nothing that leads elsewhere, hides or is no UTF-8."""
    stem = Path(name).stem.encode("utf-8", "replace").decode("utf-8")
    kept = "".join(c if c.isprintable() and c not in '/\\:*?"<>|' else "_" for c in stem)
    return kept.strip(". ")[:100] or "video"
