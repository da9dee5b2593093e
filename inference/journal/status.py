"""How far a collection is: what is done, who does what, how long the rest will take."""

from __future__ import annotations

import datetime
import time
from dataclasses import dataclass
from typing import Any, Dict, List, Optional, Tuple

from .base import Journal
from .final import failures, is_final
from .workers import worker_of

RECENT = 200
"""So many blocks, the latest ones, tell the speed."""

LISTED = 1000
"""So many failures are listed."""


@dataclass(frozen=True)
class Claim:
    """A block under way.

    Attributes:
        pid: the process that has it.
        alive: whether that is still there.
        since: seconds since it was claimed.
        items: files in it.
        first: the first of them.
    """

    pid: int
    alive: bool
    since: float
    items: int
    first: str


@dataclass(frozen=True)
class Progress:
    """The state of a journal.

    Attributes:
        key: digest of everything that changes the answers.
        counts: items by state.
        frames: records of what is done.
        speeds: frames per second of one process, by kind of file, over the latest blocks.
        frames_left: frames still to come; ``None`` where the videos done tell nothing yet.
        seconds_left: time they will take with the processes at work; ``None`` if unknown.
        workers: processes at work.
        claims: blocks under way.
        failed: files that failed, with their reasons; ``LISTED`` at most.
        complete: whether everything is done and the final files are made of it.
    """

    key: str
    counts: Dict[str, int]
    frames: int
    speeds: Dict[str, float]
    frames_left: Optional[int]
    seconds_left: Optional[float]
    workers: int
    claims: List[Claim]
    failed: List[Tuple[str, str]]
    complete: bool

    def to_json(self) -> Dict[str, Any]:
        """A JSON object."""
        left = self.seconds_left
        return {
            "key": self.key,
            "complete": self.complete,
            "items": {"total": sum(self.counts.values()), **self.counts},
            "frames": self.frames,
            "frames_left": self.frames_left,
            "frames_per_second": {kind: round(speed, 3) for kind, speed in self.speeds.items()},
            "seconds_left": None if left is None else round(left, 1),
            "workers": self.workers,
            "claims": [
                {
                    "pid": claim.pid,
                    "alive": claim.alive,
                    "seconds": round(claim.since, 1),
                    "items": claim.items,
                    "first": claim.first,
                }
                for claim in self.claims
            ],
            "failed": [{"source": path, "reason": reason} for path, reason in self.failed],
        }

    def lines(self) -> List[str]:
        """The same for people."""
        total = sum(self.counts.values())
        text = [
            f"{self.counts['done']} of {total} files done, {self.counts['failed']} failed, "
            f"{self.counts['claimed']} under way, {self.counts['new']} waiting; "
            f"{self.frames} records",
        ]
        if self.complete:
            text.append("complete: the final files are made")
        elif self.seconds_left is not None:
            spent = datetime.timedelta(seconds=round(self.seconds_left))
            speeds = ", ".join(f"{kind} {speed:.1f}" for kind, speed in self.speeds.items())
            text.append(f"about {spent} left (frames/s of one process: {speeds})")
        for claim in self.claims:
            state = "at work" if claim.alive else "gone; the next run takes over"
            text.append(
                f"pid {claim.pid} ({state}): {claim.items} files from {claim.first}, "
                f"for {claim.since:.0f} s"
            )
        text.extend(f"failed: {path}: {reason}" for path, reason in self.failed[:20])
        if len(self.failed) > 20:
            text.append("more failures: see --json")
        return text


def progress_of(journal: Journal) -> Progress:
    """The state of a journal as it is now."""
    tables = journal.tables
    counts = journal.counts()
    frames, speeds, left = measure(journal)
    now = time.time()
    lives = set(journal.living())
    claims = [
        Claim(worker_of(worker).pid, worker in lives, now - begun, items, str(first))
        for worker, begun, items, first in tables.rows(
            "SELECT blocks.worker, blocks.begun, count(*), min(items.path) FROM blocks "
            "JOIN items ON items.block = blocks.number AND items.state = 'claimed' "
            "WHERE blocks.state = 'claimed' GROUP BY blocks.number"
        )
    ]
    over = not counts["new"] and not counts["claimed"]
    return Progress(
        key=journal.key,
        counts=counts,
        frames=frames,
        speeds=speeds,
        frames_left=None if left is None else sum(left.values()),
        seconds_left=seconds_left(speeds, left, max(1, len(lives))),
        workers=len(lives),
        claims=claims,
        failed=failures(journal, LISTED),
        complete=over and is_final(journal),
    )


def measure(journal: Journal) -> Tuple[int, Dict[str, float], Optional[Dict[str, int]]]:
    """Frames done, the speed by kind, and the frames left by kind.

    A video that is not done counts as many frames as those that are done have on average; the
    last are ``None`` where none is.
    """
    tables = journal.tables
    frames = 0
    left: Dict[str, int] = {}
    known: Dict[str, Tuple[int, int]] = {}
    for kind, over, count, total in tables.rows(
        "SELECT kind, state IN ('done', 'failed'), count(*), sum(frames) FROM items "
        "GROUP BY kind, state IN ('done', 'failed')"
    ):
        if over:
            frames += total or 0
            known[kind] = (count, total or 0)
        else:
            left[kind] = count
    if left.get("video"):
        if "video" not in known:
            return frames, _speeds(journal), None
        count, total = known["video"]
        left["video"] = round(left["video"] * total / count)
    return frames, _speeds(journal), left


def seconds_left(
    speeds: Dict[str, float], left: Optional[Dict[str, int]], workers: int
) -> Optional[float]:
    """Time for what is left, shared by some workers; ``None`` where a speed is not known."""
    if left is None or any(count and not speeds.get(kind) for kind, count in left.items()):
        return None
    return sum(count / speeds[kind] for kind, count in left.items() if count) / workers


def _speeds(journal: Journal) -> Dict[str, float]:
    rows = journal.tables.rows(
        "SELECT kind, sum(frames), sum(seconds) FROM (SELECT kind, frames, seconds FROM blocks "
        "WHERE state = 'done' AND seconds IS NOT NULL ORDER BY number DESC LIMIT ?) GROUP BY kind",
        (RECENT,),
    )
    return {kind: frames / seconds for kind, frames, seconds in rows if seconds and frames}
