"""Scores of labelled clips on a device, kept clip by clip so that an interrupted run goes on.

Pictures go the way of ``run``: the same sources, pipeline and session. What is kept of a frame is
a line of numbers: probability, mask against truth, size.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
import os
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from ...errors import DataError
from ...inference.faces import FaceOptions
from ...inference.faces.finder import FaceFinder
from ...inference.pipeline import run_pipeline
from ...inference.records import Frame, FrameResult
from ...inference.session import Session
from ...inference.sinks import Sink
from ...inference.sources import Source
from ...inference.sources.base import Read
from ...inference.sources.files import one_of_many
from ...inference.sources.images import read_image
from ...inference.verdicts.records import scores_of
from ...quantize.boundary import boundary_f, tolerance_of
from ...quantize.metrics import Counts
from ...quantize.pictures import fit_mask, read_mask
from .material import Clip, Material
from .perturbations import Perturbation, after

SCHEMA = 1


class Row(NamedTuple):
    """One frame, or one face in it.

    Attributes:
        source: name of the file.
        frame: number of the frame in it, from 0.
        time: seconds; ``None`` for a crop.
        track: the identity, 0 for the whole frame.
        status: ``ok``, or why there is no probability.
        reason: the same in words.
        probability: that it is FAKE; ``None`` where not judged.
        mask_fraction: share of the picture marked; ``None`` likewise.
        height: of the face's box in pixels; where no face was looked for, of the picture before
            anything was done to it; 0 where not decoded.
        width: likewise.
        tp: pixels of the mask at the network's size, predicted and true; ``None`` where the true
            mask is not known.
        fp: predicted, not true.
        fn: true, not predicted.
        tn: neither.
        boundary: boundary F; ``None`` where ``tp`` is, and of an authentic picture.
    """

    source: str
    frame: int
    time: Optional[float]
    track: int
    status: str
    reason: str
    probability: Optional[float]
    mask_fraction: Optional[float]
    height: int = 0
    width: int = 0
    tp: Optional[int] = None
    fp: Optional[int] = None
    fn: Optional[int] = None
    tn: Optional[int] = None
    boundary: Optional[float] = None


Rows = Dict[str, List[Row]]
"""Rows by the clip's name."""


class ClipSource(Source):
    """One clip, changed on the way if that is asked for.

    Args:
        clip: crops or a video file.
        every: one frame of so many.
        change: what is done to the pictures.
        seed: of what is left to chance.

    Attributes:
        sizes: height and width of each picture before it was changed, by file and number.
        places: position of each crop in the clip, by its file.
    """

    def __init__(
        self, clip: Clip, every: int = 1, change: Optional[Perturbation] = None, seed: int = 0
    ) -> None:
        self.clip, self._every, self._change, self._seed = clip, every, change, seed
        self.name, self.notes = clip.name, []
        self.kind = "video" if clip.video else "images"
        self.length = None if clip.frames is None else math.ceil(clip.frames / every)
        self.sizes: Dict[Tuple[str, int], Tuple[int, int]] = {}
        self.crops = {} if clip.video else {str(path): i for i, path in enumerate(clip.files)}

    def reads(self) -> Iterator[Read]:
        """The frames in order."""
        inner: Optional[Source] = one_of_many(str(self.clip.files[0])) if self.clip.video else None
        if inner is None:
            reads: Iterator[Read] = iter([functools.partial(read_image, p) for p in self.crops])
        else:
            reads = inner.reads()
        reads = (after(read, functools.partial(self._measured, read)) for read in reads)
        if self._change is not None:
            reads = self._change.applied(reads, self._seed, self.clip.name)
        for number, read in enumerate(reads):
            if number % self._every == 0:
                yield read
        if inner is not None:
            self.notes += inner.notes

    def _measured(self, read: Read) -> Frame:
        frame = read()
        if frame.image is not None:
            self.sizes[frame.source, frame.index] = frame.image.shape[:2]
        return frame


class RowSink(Sink):
    """Turns results into rows, and hands over those of every clip that has ended.

    Args:
        sources: the clips in the order in which they are read.
        done: called with a clip, its rows and what was found wrong with it.
    """

    renders = True

    def __init__(
        self, sources: Sequence[ClipSource], done: Callable[[Clip, List[Row], List[str]], None]
    ) -> None:
        self._sources, self._done = sources, done
        self._rows: List[Row] = []
        self._at = 0

    def render(self, result: FrameResult) -> List[Row]:
        """The rows of one frame."""
        source = self._sources[result.origin]
        height, width = source.sizes.pop((result.frame.source, result.frame.index), (0, 0))
        name = Path(result.frame.source).name
        rows = []
        for score, part in zip(scores_of(result), result.parts):
            if part.face is not None:
                x0, y0, x1, y1 = part.face.box
                height, width = round(y1 - y0), round(x1 - x0)
            row = Row(
                name, score.frame, score.time, score.track, score.status, score.reason,
                score.fake_probability, score.mask_fraction, height, width,
            )  # fmt: skip
            rows.append(row)
        if len(rows) == 1 and rows[0].probability is not None and source.crops:
            rows[0] = self._against_truth(rows[0], result, source)
        return rows

    def write(self, result: FrameResult, rendered: List[Row]) -> None:
        """Collects rows; a new origin ends the clip before."""
        self._until(result.origin)
        self._rows += rendered

    def close(self, complete: bool) -> None:
        """The last clips have ended too, if all was read."""
        if complete:
            self._until(len(self._sources))

    def _until(self, origin: int) -> None:
        while self._at < origin:
            source = self._sources[self._at]
            notes = [f"{source.name}: {note}" for note in source.notes]
            self._done(source.clip, self._rows, notes)
            self._rows = []
            self._at += 1

    def _against_truth(self, row: Row, result: FrameResult, source: ClipSource) -> Row:
        clip = source.clip
        path = clip.masks[source.crops[result.frame.source]] if clip.masks else None
        assert result.mask is not None
        size = (result.mask.shape[0], result.mask.shape[1])
        if path is None and clip.fake:
            return row
        truth = np.zeros(size, np.uint8)
        if path is not None:
            try:
                mask = read_mask(path)
            except DataError as error:
                source.notes.append(str(error))
                return row
            if mask.shape != (row.height, row.width):
                wrong = f"{mask.shape[1]}x{mask.shape[0]}, its crop {row.width}x{row.height}"
                source.notes.append(f"the mask {path} is {wrong}")
                return row
            truth = fit_mask(mask, size)
        counts = Counts.of(result.mask, truth)
        boundary = None
        if clip.fake:
            boundary = round(boundary_f(result.mask, truth, tolerance_of(*size)), 6)
        return row._replace(**vars(counts), boundary=boundary)


class ScoreCache:
    """The rows of the clips that are done, one line of JSON each.

    A line that was cut off is left out; a file of another key is not read.

    Args:
        path: the file.
        key: what the scores depend on.
    """

    def __init__(self, path: Path, key: Dict[str, Any]) -> None:
        self.path = path
        self._head = json.dumps({"schema": SCHEMA, **key}, sort_keys=True)
        self.rows: Rows = {}
        self.notes: Dict[str, List[str]] = {}
        good = 0
        if path.is_file():
            lines = path.read_bytes().splitlines(keepends=True)
            if lines and lines[0].rstrip(b"\n").decode("utf-8", "replace") == self._head:
                good = len(lines[0])
                for line in lines[1:]:
                    if not line.endswith(b"\n") or not self._take(line):
                        break
                    good += len(line)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("r+b" if good else "wb")
        self._file.truncate(good)
        self._file.seek(good)
        if not good:
            self._file.write(f"{self._head}\n".encode())

    def add(self, clip: Clip, rows: List[Row], notes: List[str]) -> None:
        """Keeps what was found of a clip that has ended."""
        self.rows[clip.name], self.notes[clip.name] = rows, notes
        line = json.dumps({"clip": clip.name, "notes": notes, "rows": rows}, allow_nan=False)
        self._file.write(f"{line}\n".encode())
        self._file.flush()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def _take(self, line: bytes) -> bool:
        try:
            record = json.loads(line.decode("utf-8"))
            rows = [Row(*row) for row in record["rows"]]
            self.notes[str(record["clip"])] = [str(note) for note in record["notes"]]
            self.rows[str(record["clip"])] = rows
        except (ValueError, KeyError, TypeError):
            return False
        return True


def cache_path(folder: Path, device: str, change: Optional[Perturbation], key: Any) -> Path:
    """Where scores are kept: one file for each device, data set, model and perturbation."""
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    name = "as-is" if change is None else change.name
    return folder / f"{device}-{name}-{digest[:12]}.jsonl"


def score(
    material: Material,
    session: Session,
    cache: ScoreCache,
    *,
    every: int = 1,
    change: Optional[Perturbation] = None,
    seed: int = 0,
    faces: Optional[FaceOptions] = None,
    threads: Optional[int] = None,
    progress: Callable[[int, Optional[int]], None] = lambda done, total: None,
) -> Tuple[Rows, List[str]]:
    """The rows of every clip; those in the cache are not computed again.

    Args:
        material: the clips.
        session: the model on its device; not closed here.
        cache: keeps every clip as it ends.
        every: one frame of so many.
        change: what is done to the pictures.
        seed: of what is left to chance.
        faces: how faces are found in videos; ``None`` to take every picture as a crop of a face.
        threads: workers that decode; ``None`` for one per core, 8 at most.
        progress: called with frames done and frames expected, those from the cache among them.

    Returns:
        The rows, and what was found wrong.
    """
    wanted = [clip for clip in material.clips if clip.name not in cache.rows]
    before = sum(len(cache.rows.get(clip.name, ())) for clip in material.clips)
    sources = [ClipSource(clip, every, change, seed) for clip in wanted]
    sink = RowSink(sources, cache.add)
    finder = None
    if faces is not None and material.videos:
        finder = FaceFinder(faces, session.artifact.preprocessing)
    if sources:
        run_pipeline(
            sources,
            session,
            [sink],
            threads=threads or min(8, os.cpu_count() or 1),
            faces=finder,
            progress=lambda done, total: progress(
                before + done, None if total is None else before + total
            ),
        )
    notes = [note for clip in material.clips for note in cache.notes[clip.name]]
    rows = {clip.name: cache.rows[clip.name] for clip in material.clips}
    if finder is not None:
        notes += finder.notes()
    return rows, notes
