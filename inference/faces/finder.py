"""From frames to faces ready for the network: looked for, followed, weighed and cut out.

The work is split like that of a source: ``wanted`` is asked in order before a frame is read,
``look`` does what takes time on any thread, ``locate`` is called in order again and knows what
came before.
"""

from __future__ import annotations

import math
import threading
from collections import Counter
from dataclasses import asdict, dataclass, replace
from typing import Any, Dict, List, Optional, Sequence

import numpy as np

from ...preprocessing import (
    USUAL_MARGIN,
    WHOLE_FRAME,
    Preprocessing,
    cut,
    fit,
    framing,
    square_about,
)
from ..records import Face, Frame, Status, VideoInfo
from .base import Detection
from .options import LOOK_SECONDS, FaceOptions, Kind, crop_by_face, crop_by_size, open_detector
from .quality import assess
from .scenes import CHANGED, distance, spread
from .tracker import Tracked, Tracker, by_identity, numbered


@dataclass(frozen=True, eq=False)
class Look:
    """What was seen in one frame by itself.

    Attributes:
        whole: the frame is a crop by its size.
        found: the faces; ``None`` where they were not looked for.
        spread: of its colours, to notice a change of scene; ``None`` for an image.
    """

    whole: bool = False
    found: Optional[List[Detection]] = None
    spread: Optional[np.ndarray] = None


@dataclass(frozen=True, eq=False)
class Located:
    """One face of a frame.

    Attributes:
        face: where it is.
        picture: uint8 ``[height, width, 3]``, fitted to the network; ``None`` where it is kept
            out.
        status: ``OK``, or why it is kept out.
        reason: the same in words.
    """

    face: Face
    picture: Optional[np.ndarray]
    status: Status = Status.OK
    reason: str = ""

    def bare(self) -> Located:
        """The same without the picture."""
        return replace(self, picture=None)


@dataclass(frozen=True, order=True)
class Choice:
    """How the faces of some pictures or videos were found.

    Attributes:
        method: ``whole`` or the detector's name.
        reason: why.
    """

    method: str
    reason: str


NAMED = 20
"""Videos named in the summary for each choice."""

LANES = 4096
"""Videos of which the state is kept; all but the last of each source are over."""


class FaceFinder:
    """The faces of all sources of a run.

    Args:
        options: how they are looked for.
        preprocessing: the model's record.

    Attributes:
        preprocessing: the record with the margin that is used.
        choices: how faces were found, with the number of videos and images.

    Raises:
        MismatchError: the model was trained on faces framed by another detector.
        ToolkitError: the detector cannot be used.
    """

    def __init__(self, options: FaceOptions, preprocessing: Preprocessing) -> None:
        self.options = options
        self.detector, self.reason = open_detector(options)
        self.limits = options.limits
        if options.smallest is not None:
            self.limits = replace(self.limits, smallest=options.smallest)
        self._crops = preprocessing
        self.preprocessing = preprocessing
        if self.detector is not None:
            self.preprocessing = framing(preprocessing, self.detector.name)
        self._may_be_crops = options.kind is Kind.AUTO and options.boxes is None
        self.choices: Counter[Choice] = Counter()
        self._lock = threading.Lock()
        self._whole_video: Optional[VideoInfo] = None
        self._names: Dict[Choice, List[str]] = {}
        self._clocks: Dict[int, _Clock] = {}
        self._lanes: Dict[int, _Lane] = {}

    def wanted(self, origin: int, read: Any) -> bool:
        """Whether faces are to be looked for in a frame about to be read; asked in order."""
        if self.detector is None:
            return False
        time = getattr(read, "time", None)
        if time is None or self.detector.every_frame:
            return True
        return self._clocks.setdefault(origin, _Clock(self.options.every)).due(time)

    def look(self, frame: Frame, wanted: bool) -> Look:
        """What there is to see in one frame; on any thread.

        Args:
            frame: with its picture.
            wanted: what ``wanted`` said.
        """
        image = frame.image
        if image is None or self.detector is None:
            return Look(whole=True)
        if frame.video is not None and frame.video is self._whole_video:
            return Look(whole=True)  # decided already, however far ahead this thread may be
        if self._may_be_crops and crop_by_size(*image.shape[:2]):
            return Look(whole=True)
        found = self.detector.detect(image, frame) if wanted else None
        return Look(False, found, None if frame.video is None else spread(image))

    def locate(self, origin: int, frame: Frame, look: Look) -> Optional[List[Located]]:
        """The faces of a frame, by track; called for the frames of a video in order.

        Images may come in any order and on any thread, as each is for itself.

        Args:
            origin: position of its source among those of the run.
            frame: with its picture.
            look: what was seen in it.

        Returns:
            None of them where there is no face; ``None`` where the whole frame is the face.
        """
        image = frame.image
        assert image is not None
        lane = self._lanes.get(origin)
        if lane is None or frame.video is None or lane.video is not frame.video:
            if self.detector is not None and not look.whole and look.found is None:
                look = replace(look, found=self.detector.detect(image, frame))
            lane = self._begin(origin, frame, look)
        if lane.whole or self.detector is None:
            return None
        return [self._cut(image, tracked) for tracked in self._follow(lane, frame, look)]

    def whole(self, image: np.ndarray) -> np.ndarray:
        """A frame that is a crop already, fitted to the network."""
        return fit(image, self._crops)

    def notes(self) -> List[str]:
        """What the user should know of the choices made."""
        found = self.preprocessing
        if self._crops.face != WHOLE_FRAME or self.detector is None:
            return []
        if all(choice.method == "whole" for choice in self.choices):
            return []
        return [
            "the model does not say with which margin its faces were cut out; "
            f"{found.margin:.2f} of the box is added on each side"
            + (", the usual one" if found.margin == USUAL_MARGIN else "")
        ]

    def to_json(self) -> Dict[str, Any]:
        """What was chosen and why, for the summary."""
        return {
            "asked": self.options.kind.value,
            "detector": "whole" if self.detector is None else self.detector.name,
            "detector_reason": self.reason,
            "margin": round(self.preprocessing.margin, 6),
            "limits": asdict(self.limits),
            "choices": [
                {
                    "method": choice.method,
                    "reason": choice.reason,
                    "files": count,
                    "videos": self._names[choice],
                }
                for choice, count in sorted(self.choices.items())
            ],
        }

    def _begin(self, origin: int, frame: Frame, look: Look) -> _Lane:
        """Decides how the faces of a video, or of an image, are found."""
        whole, reason = self.detector is None, self.reason
        if self.detector is not None and self.options.kind is Kind.AUTO:
            assert frame.image is not None
            if look.whole:
                whole, reason = True, "small and nearly square: a crop of a face already"
            elif self._may_be_crops and crop_by_face(frame.image, self._sure(look.found or ())):
                whole, reason = True, "nearly square and filled by one face: a crop already"
            else:
                reason = f"larger than a crop of a face; {self.reason}"
        method = "whole" if whole or self.detector is None else self.detector.name
        choice = Choice(method, reason)
        with self._lock:
            self.choices[choice] += 1
            names = self._names.setdefault(choice, [])
            if len(names) < NAMED and frame.video is not None:
                names.append(frame.source)
        sure = 0.0 if self.detector is None else self.detector.sure
        lane = _Lane(frame.video, whole, Tracker(self.options.following, sure))
        if frame.video is not None:
            if whole:
                self._whole_video = frame.video
            self._lanes.pop(origin, None)
            self._lanes[origin] = lane
            while len(self._lanes) > LANES:
                ended = next(iter(self._lanes))
                del self._lanes[ended]
                self._clocks.pop(ended, None)
        return lane

    def _sure(self, found: Sequence[Detection]) -> List[Detection]:
        assert self.detector is not None
        return [one for one in found if one.score >= self.detector.sure]

    def _follow(self, lane: _Lane, frame: Frame, look: Look) -> Sequence[Tracked]:
        assert self.detector is not None
        assert frame.image is not None
        found = look.found
        if not self.detector.tracks:
            return by_identity(found or ())
        if frame.video is None:
            return numbered(self._sure(found or ()))
        if look.spread is not None:
            if lane.spread is not None and distance(lane.spread, look.spread) > CHANGED:
                lane.tracker.end()
                if found is None:
                    found = self.detector.detect(frame.image, frame)
            lane.spread = look.spread
        time = frame.time if frame.time is not None else float(frame.index / frame.video.rate)
        return lane.tracker.update(time, found)

    def _cut(self, image: np.ndarray, tracked: Tracked) -> Located:
        square = square_about(tracked.box, self.preprocessing.margin)
        box = tuple(round(value, 1) for value in tracked.box)
        face = Face(tracked.track, box, square, tracked.turns)  # type: ignore[arg-type]
        wrong = assess(image, tracked.box, self.limits, tracked.seen)
        if wrong is not None:
            return Located(face, None, *wrong)
        picture = fit(cut(image, square, tracked.turns), self.preprocessing)
        return Located(face, picture)


@dataclass
class _Lane:
    """The video of a source that is being read."""

    video: Optional[VideoInfo]
    whole: bool
    tracker: Tracker
    spread: Optional[np.ndarray] = None


class _Clock:
    """When to look next within one source."""

    def __init__(self, every: Optional[int]) -> None:
        self._every = every
        self._time, self._last = math.inf, math.inf
        self._count = 0

    def due(self, time: float) -> bool:
        """Whether to look at a frame of this time; a time that goes back begins a new video."""
        new = time <= self._time
        self._time = time
        if self._every is not None:
            self._count = 0 if new else self._count + 1
            return self._count % self._every == 0
        if new or time - self._last >= LOOK_SECONDS - 1e-6:
            self._last = time
            return True
        return False
