"""The scores of one device as columns: frames and the verdicts of their videos."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, List, Mapping, Optional, Sequence, Tuple

import numpy as np

from ...errors import FormatError, MissingError
from ...inference.verdicts import Rules, Scores, State, VideoVerdict, judge_pictures, judge_video
from ...inference.verdicts.records import FrameScore
from ...quantize.dataset import FAKE, REAL
from .material import Clip
from .scoring import Row, Rows

FRAME_COLUMNS = ("device", "video", "label", *Row._fields)
VIDEO_COLUMNS = (
    "device", "video", "label", "frames", "judged", "fake_probability", "verdict", "reason",
)  # fmt: skip

Judge = Callable[[Sequence[Row]], VideoVerdict]
"""What the rows of one video come to."""


@dataclass(frozen=True)
class Video:
    """One video and what is said of it.

    Attributes:
        name: of the clip.
        fake: the truth.
        frames: how many were read.
        judged: those with a probability.
        probability: that it is manipulated; NaN where nothing could be judged.
        state: the verdict.
        reason: why it is inconclusive; empty where it is not.
        facts: what is known of it.
    """

    name: str
    fake: bool
    frames: int
    judged: int
    probability: float
    state: State
    reason: str
    facts: Mapping[str, str]


@dataclass(frozen=True, eq=False)
class Table:
    """Frames and videos of one device.

    Attributes:
        videos: in the order of the data.
        rows: of all frames, video by video.
        unit: int64 ``[n]``, the place of each row's video.
    """

    videos: Tuple[Video, ...]
    rows: Tuple[Row, ...]
    unit: np.ndarray

    def column(self, name: str) -> np.ndarray:
        """One field of ``Row`` as float64 ``[n]``, NaN for ``None``."""
        place = Row._fields.index(name)
        values = [row[place] for row in self.rows]
        return np.array([np.nan if value is None else value for value in values], np.float64)

    @property
    def fake(self) -> np.ndarray:
        """The truth about each row's video, bool ``[n]``."""
        return np.asarray(np.array([video.fake for video in self.videos], bool)[self.unit])

    def of_videos(self, keep: np.ndarray) -> Table:
        """Only some videos, bool ``[videos]``, with their rows."""
        place = np.cumsum(keep) - 1
        rows = np.flatnonzero(keep[self.unit])
        return Table(
            tuple(video for video, kept in zip(self.videos, keep) if kept),
            tuple(self.rows[i] for i in rows),
            place[self.unit[rows]],
        )

    def of_rows(self, keep: np.ndarray) -> Table:
        """Only some rows, bool ``[n]``, and the videos that have any."""
        left = np.zeros(len(self.videos), bool)
        left[self.unit[keep]] = True
        rows = np.flatnonzero(keep)
        return Table(
            tuple(video for video, kept in zip(self.videos, left) if kept),
            tuple(self.rows[i] for i in rows),
            (np.cumsum(left) - 1)[self.unit[rows]],
        )


def make_table(clips: Sequence[Clip], rows: Rows, judge: Judge) -> Table:
    """Puts rows and verdicts together.

    Args:
        clips: in order.
        rows: by name of the clip.
        judge: says what the rows of one video come to.
    """
    videos, flat, unit = [], [], []
    for place, clip in enumerate(clips):
        own = rows[clip.name]
        found = judge(own)
        videos.append(
            Video(
                clip.name,
                clip.fake,
                found.frames,
                found.judged,
                np.nan if found.probability is None else found.probability,
                found.state,
                "" if found.reason is None else found.reason.value,
                clip.facts,
            )
        )
        flat += own
        unit += [place] * len(own)
    return Table(tuple(videos), tuple(flat), np.array(unit, np.int64))


def judge_of(rules: Rules, crops: bool) -> Judge:
    """How the frames of a video are taken together.

    Args:
        rules: of ``run``, for this model.
        crops: crops are judged as pictures are, by their mean, unless the rules' way was asked for.
    """

    def pictures(rows: Sequence[Row]) -> VideoVerdict:
        known = [row.probability for row in rows if row.probability is not None]
        reasons: Dict[str, int] = {}
        for row in rows:
            if row.probability is None:
                text = f"{row.status}: {row.reason}" if row.reason else row.status
                reasons[text] = reasons.get(text, 0) + 1
        return judge_pictures(len(rows), len(known), sum(known), reasons, rules)

    def video(rows: Sequence[Row]) -> VideoVerdict:
        scores = (
            FrameScore(
                row.time, row.frame, row.track, row.probability, row.mask_fraction, row.status,
                row.reason,
            )
            for row in rows
        )  # fmt: skip
        return judge_video(Scores(scores), rules)

    return pictures if crops else video


def frames_csv(tables: Mapping[str, Table]) -> str:
    """All rows of all devices (RFC 4180); empty for what is not known."""
    return _csv(
        FRAME_COLUMNS,
        (
            (device, table.videos[unit].name, _label(table.videos[unit].fake), *row)
            for device, table in tables.items()
            for row, unit in zip(table.rows, table.unit)
        ),
    )


def videos_csv(tables: Mapping[str, Table]) -> str:
    """All videos of all devices, and after the fixed columns one for every fact."""
    facts = sorted({key for t in tables.values() for video in t.videos for key in video.facts})
    return _csv(
        (*VIDEO_COLUMNS, *facts),
        (
            (
                device, video.name, _label(video.fake), video.frames, video.judged,
                None if np.isnan(video.probability) else video.probability, video.state.value,
                video.reason, *(video.facts.get(key, "") for key in facts),
            )
            for device, table in tables.items()
            for video in table.videos
        ),
    )  # fmt: skip


def read_tables(frames: Path, videos: Path) -> Dict[str, Table]:
    """What ``frames_csv`` and ``videos_csv`` wrote, by device.

    Raises:
        MissingError: one of the files is not there.
        FormatError: one of them is something else.
    """
    for path in (frames, videos):
        if not path.is_file():
            raise MissingError(
                f"There is no {path}",
                "frames and videos are compared one by one",
                "keep eval.json together with the eval.csv and videos.csv of the same run",
            )
    try:
        found: Dict[str, List[Video]] = {}
        for entry in _read(videos):
            found.setdefault(entry["device"], []).append(_video(entry))
        rows: Dict[str, List[Row]] = {device: [] for device in found}
        unit: Dict[str, List[int]] = {device: [] for device in found}
        places = {
            device: {video.name: i for i, video in enumerate(own)} for device, own in found.items()
        }
        for entry in _read(frames):
            device = entry["device"]
            unit[device].append(places[device][entry["video"]])
            rows[device].append(_row(entry))
    except (OSError, ValueError, KeyError, csv.Error) as error:
        raise FormatError(
            f"The scores in {frames} and {videos} cannot be read",
            f"{type(error).__name__}: {error}",
            "make them again with deepfake-fpga eval",
        ) from error
    return {
        device: Table(tuple(own), tuple(rows[device]), np.array(unit[device], np.int64))
        for device, own in found.items()
    }


def in_common(ours: Table, theirs: Table) -> Tuple[Table, Table]:
    """Both tables with only the videos and frames that both have, in one order."""
    first, second = (
        {(video.name, video.fake): i for i, video in enumerate(table.videos)}
        for table in (ours, theirs)
    )
    names = [key for key in first if key in second]
    parts = []
    for table, other in ((ours, theirs), (theirs, ours)):
        known = {_key(other, i) for i in range(len(other.rows))}
        by_video: Dict[Tuple[str, bool], List[Row]] = {key: [] for key in names}
        for i, row in enumerate(table.rows):
            video = table.videos[table.unit[i]]
            if (video.name, video.fake) in by_video and _key(table, i) in known:
                by_video[video.name, video.fake].append(row)
        places = {(video.name, video.fake): video for video in table.videos}
        flat = [
            (row, place)
            for place, key in enumerate(names)
            for row in sorted(by_video[key], key=lambda r: (r.source, r.frame, r.track))
        ]
        parts.append(
            Table(
                tuple(places[key] for key in names),
                tuple(row for row, _ in flat),
                np.array([place for _, place in flat], np.int64),
            )
        )
    return parts[0], parts[1]


def _key(table: Table, i: int) -> Tuple[str, str, int, int]:
    row = table.rows[i]
    return table.videos[table.unit[i]].name, row.source, row.frame, row.track


def _label(fake: bool) -> str:
    return FAKE if fake else REAL


def _csv(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(header)
    for row in rows:
        writer.writerow(["" if value is None else value for value in row])
    return out.getvalue()


def _read(path: Path) -> Iterable[Dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        yield from csv.DictReader(file)


def _video(entry: Mapping[str, str]) -> Video:
    known = entry["fake_probability"]
    facts = {key: value for key, value in entry.items() if key not in VIDEO_COLUMNS and value}
    return Video(
        entry["video"],
        entry["label"] == FAKE,
        int(entry["frames"]),
        int(entry["judged"]),
        float(known) if known else np.nan,
        State(entry["verdict"]),
        entry["reason"],
        facts,
    )


def _row(entry: Mapping[str, str]) -> Row:
    words = ("source", "status", "reason")
    whole = ("frame", "track", "height", "width", "tp", "fp", "fn", "tn")
    values: List[Any] = []
    for name in Row._fields:
        text: Optional[str] = entry[name]
        if name in words:
            values.append(text)
        elif not text:
            values.append(None)
        else:
            values.append(int(text) if name in whole else float(text))
    return Row(*values)
