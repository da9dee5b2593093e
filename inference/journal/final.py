"""What a journal comes to: the files of lines made whole from the parts, and their results."""

from __future__ import annotations

import contextlib
import itertools
import json
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, Callable, Iterator, List, Mapping, Optional, Sequence, Tuple

from ...errors import WorkError
from ...files import replacing
from ...preprocessing import Square
from ..faces.results import summed_up
from ..records import Face, Frame, FrameResult, Status, VideoInfo
from ..sinks.base import Keeper
from ..sinks.lines import LineSink
from .base import Journal
from .folder import locked
from .parts import assemble, part_name, sync_file, sync_folder
from .tables import loaded

_OVER = "state IN ('done', 'failed')"


def make_final(
    journal: Journal,
    lines: Sequence[LineSink],
    then: Callable[[], None] = lambda: None,
    more: Sequence[Path] = (),
) -> bool:
    """Makes each file of lines from everything done so far, in order.

    Args:
        journal: what is done.
        lines: the sinks whose lines the parts hold; their paths are written.
        then: makes what is made of these files; called if they were made, by one process only.
        more: what that is.

    Returns:
        Whether there was anything to do: not where they are of this very state already.

    Raises:
        OSError: they cannot be written; the parts are kept.
        WorkError: a part is missing.
    """
    tables = journal.tables
    with locked(journal.output):
        revision = tables.get("revision", "0")
        there = all(path.is_file() for path in more)
        if there and tables.get("final") == _state(revision, lines, more):
            return False
        for number, sink in enumerate(lines):
            with replacing(sink.path) as temporary, temporary.open("wb") as target:
                target.write(sink.header.encode("utf-8"))
                try:
                    assemble(journal.parts, target, sink.path.name, _places(journal, number))
                except FileNotFoundError as error:
                    raise WorkError(
                        f"A part of the results in {journal.output} is missing",
                        str(error.filename),
                        "start over with --fresh",
                    ) from error
                sync_file(target)
        then()
        sync_folder(journal.output)
        with tables.transaction():
            tables.set("final", _state(revision, lines, more))
    return True


def is_final(journal: Journal) -> bool:
    """Whether the final files were made of everything that is done."""
    final = journal.tables.get("final").split(":")
    return final[0] == journal.tables.get("revision", "0")


def left_out(journal: Journal) -> List[int]:
    """Frames that a selection dropped, of each input in order."""
    rows = journal.tables.rows(
        "SELECT sources.number, (SELECT sum(left_out) FROM items WHERE source = sources.number) "
        "FROM sources ORDER BY sources.number"
    )
    return [count or 0 for _, count in rows]


def results(journal: Journal, records: Path, threshold: float) -> Iterator[FrameResult]:
    """The results behind the final records, in their order, as far as the records tell.

    Args:
        journal: what is done.
        records: the final file of the records.
        threshold: that of the run.

    Yields:
        Results without pictures and masks; ``origin`` is the position of the input.
    """
    with records.open("rb") as lines:
        for source, text in journal.tables.stream(
            f"SELECT source, places FROM items WHERE {_OVER} ORDER BY source, number"
        ):
            left = json.loads(text)[0][1] if text else 0
            found: List[Mapping[str, Any]] = []
            while left > 0:
                line = lines.readline()
                left -= len(line) or left
                found.append(json.loads(line.decode("utf-8")))
            for _, same in itertools.groupby(found, key=_frame):
                yield result_of(list(same), threshold, source)


def result_of(
    records: Sequence[Mapping[str, Any]], threshold: float, origin: int = 0
) -> FrameResult:
    """The result that the records of one frame were written of, without picture and mask.

    Args:
        records: one for each face in the frame; a single one where it was taken whole.
        threshold: that of the run.
        origin: position of the input.
    """
    parts: List[FrameResult] = [_part(record, threshold, origin) for record in records]
    if parts[0].face is None:
        return parts[0]
    frame = parts[0].frame
    if any(part.frame.status is Status.OK for part in parts):
        frame = replace(frame, status=Status.OK, reason="")
    return summed_up(frame, parts, replace(parts[0], frame=frame, real=None, face=None))


def _frame(record: Mapping[str, Any]) -> Tuple[str, int]:
    return record["source"], record["frame"]


def _part(record: Mapping[str, Any], threshold: float, origin: int) -> _Recorded:
    status = Status(record["status"])
    video = None
    if record["time"] is not None:
        video = VideoInfo(Path(record["source"]), Fraction(1), Fraction(1), Fraction(0), None)
    frame = Frame(
        record["source"],
        record["frame"],
        record["time"],
        None,
        Status.OK if status is Status.NO_RESULT else status,
        record["reason"],
        video,
        same_as=record["inherited_from"],
    )
    real: Optional[float] = None
    if record["fake_probability"] is not None:
        real = 1.0 - record["fake_probability"]
    elif status is Status.NO_RESULT:
        real = float("nan")
    face = None
    if record["track"] is not None:
        face = Face(record["track"], tuple(record["box"]), Square(0, 0, 1))
    return _Recorded(
        frame,
        real,
        None,
        record["device"],
        threshold,
        origin,
        face=face,
        fraction=record["mask_fraction"],
    )


def notes(journal: Journal) -> List[str]:
    """What was found wrong with the files, in their order."""
    rows = journal.tables.rows(
        f"SELECT notes FROM items WHERE notes IS NOT NULL AND {_OVER} ORDER BY source, number"
    )
    return [str(note) for (text,) in rows for note in json.loads(text)]


def videos(journal: Journal) -> Iterator[Tuple[str, str]]:
    """Path and picture name of every video that is done or failed; not each has an overlay."""
    for path, name in journal.tables.stream(
        "SELECT path, name FROM items WHERE state IN ('done', 'failed') "
        "AND kind = 'video' ORDER BY number"
    ):
        yield loaded(path), loaded(name)


def give_back(journal: Journal, keepers: Sequence[Keeper]) -> None:
    """Gives the keepers what they or others have kept of the videos that are done."""
    for path, block in journal.tables.stream(
        f"SELECT path, block FROM items WHERE {_OVER} AND kind = 'video' ORDER BY number"
    ):
        for keeper in keepers:
            with contextlib.suppress(FileNotFoundError):
                data = (journal.parts / part_name(block, keeper.file)).read_bytes()
                keeper.load(loaded(path), data)


def failures(journal: Journal, limit: int) -> List[Tuple[str, str]]:
    """Files that failed, with the reason, in their order; ``limit`` at most."""
    rows = journal.tables.rows(
        "SELECT path, reason FROM items WHERE state = 'failed' ORDER BY number LIMIT ?", (limit,)
    )
    return [(loaded(path), reason) for path, reason in rows]


def _state(revision: str, lines: Sequence[LineSink], more: Sequence[Path]) -> str:
    """What tells whether files are those that were made, or were put there by somebody else."""
    found = [revision]
    for sink in lines:
        with contextlib.suppress(OSError):
            status = sink.path.stat()
            found.append(f"{status.st_size}-{status.st_mtime_ns}")
    found.extend(path.name for path in more if path.is_file())
    return ":".join(found)


def _places(journal: Journal, file: int) -> Iterator[Tuple[int, int, int]]:
    for block, text in journal.tables.stream(
        f"SELECT block, places FROM items WHERE {_OVER} ORDER BY source, number"
    ):
        if text:
            offset, length = json.loads(text)[file]
            yield block, offset, length


@dataclass(frozen=True, eq=False)
class _Recorded(FrameResult):
    """A result of which only the record is left."""

    fraction: Optional[float] = None

    @property
    def mask_fraction(self) -> Optional[float]:
        return self.fraction

    @property
    def reason(self) -> str:
        return self.frame.reason
