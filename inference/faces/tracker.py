"""Which face of one frame is which of the next: identities and smooth boxes from detections.

A face moves on as it did last, and the detections that lie nearest (in overlap, distance and
size, all pairs together) are taken for it. Its place follows them by an alpha-beta filter, which
does not lag behind an even movement, and its size by an exponential mean. Nothing here is random:
the same detections give the same tracks.

Between detections, and for ``carry`` seconds after the last one, a face is where it is expected.
It is known again for ``memory`` seconds. Nothing is known of the future: a frame can be judged at
once, live sources too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import List, Optional, Sequence, Tuple

import numpy as np

from .assignment import assign
from .base import Box, Detection


@dataclass(frozen=True)
class Following:
    """How faces are followed.

    Attributes:
        carry: seconds for which a face that was not found again is expected and judged. Longer,
            and the wall behind somebody who left is judged.
        memory: seconds after which a face that was not found again is forgotten.
        misses: times it must have been looked for in vain before that; where frames are far apart
            in time, one miss says little.
        reach: how far a face may have moved from where it is expected, in widths of the box.
        growth: by which factor its size may have changed.
        place: share of a surprise in place that is believed (alpha).
        speed: share of it that is put down to a change of speed (beta).
        size: share of a change in size that is believed.
    """

    carry: float = 0.25
    memory: float = 1.0
    misses: int = 3
    reach: float = 0.8
    growth: float = 1.6
    place: float = 0.65
    speed: float = 0.35
    size: float = 0.4


@dataclass(frozen=True)
class Tracked:
    """A face in a frame.

    Attributes:
        track: its number, from 1.
        box: where it is.
        seen: what was detected of it in this frame; ``None`` where it is only expected.
        turns: quarter turns anticlockwise that put it upright.
    """

    track: int
    box: Box
    seen: Optional[Detection]
    turns: int = 0


LONGEST_STEP = 0.5
"""Seconds over which a speed is believed at most."""


class _Track:
    """One face that is followed."""

    def __init__(self, number: int, one: Detection, time: float) -> None:
        self.number = number
        self.middle = np.array(one.box.middle)
        self.speed = np.zeros(2)
        self.size = np.array([one.box.width, one.box.height])
        self.time = self.last_seen = time
        self.turns = one.turns
        self.hits, self.missed = 1, 0
        self.seen: Optional[Detection] = one

    @property
    def box(self) -> Box:
        (x, y), (w, h) = self.middle.tolist(), (self.size / 2).tolist()
        return Box(x - w, y - h, x + w, y + h)

    def expect(self, time: float) -> None:
        """Moves on to ``time``."""
        step = min(max(0.0, time - self.time), LONGEST_STEP)
        self.middle = self.middle + self.speed * step
        self.time = time
        self.seen = None

    def expected(self, time: float, carry: float) -> bool:
        """Whether it is there though it was not found: between two looks, or for a moment."""
        if not self.missed:
            return True
        # Seen once and not again is a mistake of the detector, most likely.
        return self.hits > 1 and time - self.last_seen <= carry

    def take(self, one: Detection, time: float, rules: Following) -> None:
        """Follows a detection."""
        passed = time - self.last_seen
        surprise = np.array(one.box.middle) - self.middle
        self.middle = self.middle + rules.place * surprise
        if 0 < passed <= LONGEST_STEP:
            self.speed = self.speed + rules.speed * surprise / passed
        elif passed > LONGEST_STEP:
            self.speed = np.zeros(2)
        self.size = self.size + rules.size * (np.array([one.box.width, one.box.height]) - self.size)
        self.turns, self.seen, self.last_seen = one.turns, one, time
        self.hits, self.missed = self.hits + 1, 0


class Tracker:
    """Follows the faces of one video.

    Args:
        rules: how.
        sure: score from which a detection that continues nothing is a new face.
    """

    def __init__(self, rules: Optional[Following] = None, sure: float = 0.0) -> None:
        self.rules, self.sure = Following() if rules is None else rules, sure
        self._tracks: List[_Track] = []
        self._next = 1

    def update(self, time: float, found: Optional[Sequence[Detection]]) -> List[Tracked]:
        """The faces of the next frame, by number.

        Args:
            time: of the frame, in seconds.
            found: the detections in it; ``None`` where nobody looked.
        """
        rules = self.rules
        for track in self._tracks:
            track.expect(time)
        if found is not None:
            self._match(time, found)
            self._tracks = [track for track in self._tracks if not self._over(track, time)]
        limit = rules.carry + 1e-9
        return [
            Tracked(track.number, track.box, track.seen, track.turns)
            for track in sorted(self._tracks, key=lambda t: t.number)
            if track.seen is not None or track.expected(time, limit)
        ]

    def end(self) -> None:
        """Ends all tracks: the scene has changed; numbers go on."""
        self._tracks = []

    def _over(self, track: _Track, time: float) -> bool:
        return track.missed >= self.rules.misses and time - track.last_seen > self.rules.memory

    def _match(self, time: float, found: Sequence[Detection]) -> None:
        worth = [[self._likeness(track, one) for one in found] for track in self._tracks]
        pairs = assign(worth)
        for place, track in enumerate(self._tracks):
            if place not in pairs:
                track.missed += 1
        for place, which in pairs.items():
            self._tracks[place].take(found[which], time, self.rules)
        taken = set(pairs.values())
        for which, one in enumerate(found):
            if which in taken or one.score < self.sure:
                continue
            known = any(t.seen is None and t.box.overlap(one.box) > 0.5 for t in self._tracks)
            if not known:
                self._tracks.append(_Track(self._next, one, time))
                self._next += 1

    def _likeness(self, track: _Track, one: Detection) -> float:
        """How well a detection fits a track, 0 (not at all) to 1."""
        rules, box = self.rules, track.box
        ratio = one.box.side / box.side if box.side else 0.0
        if not 1 / rules.growth <= ratio <= rules.growth:
            return 0.0
        (x, y), (a, b) = box.middle, one.box.middle
        # Who was lost for longer may be further away.
        reach = rules.reach * box.side * (1 + min(track.missed, 3) / 3)
        distance = float(np.hypot(x - a, y - b))
        if distance > reach:
            return 0.0
        near, size = 1 - distance / reach, min(ratio, 1 / ratio)
        return 0.5 * box.overlap(one.box) + 0.3 * near + 0.2 * size


def by_identity(found: Sequence[Detection]) -> List[Tracked]:
    """The faces of a frame whose identities are known, by number."""
    tracked = [
        Tracked(one.identity, one.box, one, one.turns) for one in found if one.identity is not None
    ]
    return sorted(tracked, key=lambda t: t.track)


def numbered(found: Sequence[Detection]) -> List[Tracked]:
    """The faces of a single picture, numbered from 1 from left to right."""
    order: List[Tuple[Box, Detection]] = sorted(((d.box, d) for d in found), key=lambda p: p[0])
    return [Tracked(n, box, one, one.turns) for n, (box, one) in enumerate(order, 1)]
