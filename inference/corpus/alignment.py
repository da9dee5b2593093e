"""Which frame of an original a fake's frame was made of, and which frames of a video are taken."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Iterable, Iterator, List, Optional, Sequence, Tuple

import numpy as np

from ..records import Frame
from ..sources.video import VideoSource

SEARCH = 12
"""So many frames an original may begin earlier or later, at most."""

WINDOW = 48
"""Frames of the fake that are compared in the search."""

FEWEST = 4
"""Frames that are compared at least; from fewer nothing can be told."""

BETTER = 0.97
"""Another offset than 0 is taken if the difference falls below this share. In a still scene all
offsets are alike to within a hundredth; a slowly moving head makes 0.9 of one frame."""

RATE_TOLERANCE = 1e-3
"""Rates that differ by less are the same: 30 and 29.97 do (``1/1001``), 25 and 24 do not."""

_THUMB = 64


@dataclass(frozen=True)
class Alignment:
    """How two videos go together.

    Attributes:
        offset: the original's frame minus the fake's.
        by_time: frames go together by their times, not by their numbers.
        reason: why.
    """

    offset: int = 0
    by_time: bool = False
    reason: str = "same number of frames"


def chosen(length: Optional[int], every: int, most: Optional[int]) -> Optional[List[int]]:
    """The numbers of the frames that are taken, spread over the whole video.

    Args:
        length: frames of the video by its header.
        every: one of so many.
        most: so many in all; ``None`` for no limit.

    Returns:
        Ascending numbers; ``None`` where the length is not known and so nothing can be spread.
    """
    if length is None:
        return None
    numbers = range(0, length, every)
    if most is None or len(numbers) <= most:
        return list(numbers)
    return [numbers[int((i + 0.5) * len(numbers) / most)] for i in range(most)]


def frames_at(source: VideoSource, numbers: Optional[Sequence[int]], every: int = 1,
              most: Optional[int] = None) -> Iterator[Frame]:  # fmt: skip
    """The frames of these numbers; every ``every``-th where there are none, ``most`` of them."""
    wanted = None if numbers is None else set(numbers)
    last = max(numbers) if numbers else -1
    count = 0
    for number, read in enumerate(source.reads()):
        if (number % every == 0) if wanted is None else (number in wanted):
            yield read()
            count += 1
        if (wanted is not None and number >= last) or (most is not None and count >= most):
            return


def frames_near(source: VideoSource, times: Iterable[float]) -> Iterator[Frame]:
    """For each of the ascending times the frame whose own time is nearest."""
    reads = iter(source.reads())
    before = next(reads, None)
    if before is None:
        return
    after = next(reads, None)
    for time in times:
        while after is not None and _time(after) <= time:
            before, after = after, next(reads, None)
        nearer = after is not None and _time(after) - time < time - _time(before)
        yield after() if nearer and after is not None else before()


def align(fake: VideoSource, original: VideoSource, force: bool = False) -> Alignment:
    """How a fake and its original go together.

    By number where rate and count agree. Where the counts differ, the beginnings are compared at
    offsets of up to ``SEARCH`` frames. Where the rates differ, times decide.

    Args:
        fake: the fake.
        original: its original.
        force: search although the counts agree.
    """
    ours, theirs = fake.info.rate, original.info.rate
    if abs(float(ours / theirs) - 1) > RATE_TOLERANCE:
        return Alignment(
            0, True, f"by time, as the rates differ: {float(ours):g} and {float(theirs):g} a second"
        )
    if fake.length == original.length and fake.length is not None and not force:
        return Alignment()
    offset, gain = best_offset(_thumbs(fake, WINDOW), _thumbs(original, WINDOW + 2 * SEARCH))
    why = "frames do not match" if force else f"{fake.length} and {original.length} frames"
    found = "no other offset is better"
    if offset:
        found = f"offset {offset} lowers the difference to {gain:.0%}"
    return Alignment(offset, False, f"{why}: {found}")


def best_offset(fake: np.ndarray, original: np.ndarray) -> Tuple[int, float]:
    """The offset at which two series of small pictures differ least.

    Args:
        fake: ``[frames, h, w]``.
        original: the same, of more or fewer frames.

    Returns:
        The offset (original minus fake), and the difference there as a share of that at 0.
    """
    costs = {}
    for offset in range(-SEARCH, SEARCH + 1):
        first, last = max(0, -offset), min(len(fake), len(original) - offset)
        count = last - first
        if count < max(FEWEST, 0.75 * len(fake)):
            continue
        ours, theirs = fake[first:last], original[first + offset : last + offset]
        apart = ours - theirs
        # What was manipulated stays all the time; its changes tell more of the motion.
        costs[offset] = float(np.abs(apart).mean() + apart.std(axis=0, ddof=1).mean())
    if 0 not in costs:
        return 0, 1.0
    best = min(costs, key=lambda offset: (costs[offset], abs(offset)))
    share = costs[best] / max(costs[0], 1e-9)
    return (best, share) if best and share < BETTER else (0, 1.0)


def pairs(
    fake: VideoSource, original: VideoSource, numbers: Sequence[int], how: Alignment
) -> Iterator[Tuple[Frame, Frame]]:
    """A fake's frames of these numbers, each with the original's of the same moment."""
    numbers = [number for number in numbers if number + how.offset >= 0]
    ours = frames_at(fake, numbers)
    if how.by_time:
        ours, same = itertools.tee(ours)
        yield from zip(ours, frames_near(original, (frame.time or 0.0 for frame in same)))
        return
    yield from zip(ours, frames_at(original, [number + how.offset for number in numbers]))


def _thumbs(source: VideoSource, count: int) -> np.ndarray:
    import cv2

    small = []
    for frame in frames_at(source, range(count)):
        if frame.image is None:
            small.append(np.zeros((_THUMB, _THUMB), np.float32))
            continue
        shrunk = cv2.resize(frame.image, (_THUMB, _THUMB), interpolation=cv2.INTER_AREA)
        small.append(shrunk.mean(axis=2, dtype=np.float32))
    return np.stack(small) if small else np.zeros((0, _THUMB, _THUMB), np.float32)


def _time(read: object) -> float:
    return float(getattr(read, "time", 0.0))
