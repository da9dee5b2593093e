"""What is said of a face and of a video: three states, why, and how much of it was looked at.

A *track* is one identity within a video. Where no faces are looked for, every frame of a video is
one track, ``WHOLE_FRAME``.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any, Dict, Optional, Sequence, Tuple

from ..records import FrameResult, Status

WHOLE_FRAME = 0
"""The track of clips whose faces are not looked for: the frame as it is."""


class State(enum.Enum):
    """What is said of a track, a video or a folder of images."""

    MANIPULATED = "manipulated"
    AUTHENTIC = "authentic"
    INCONCLUSIVE = "inconclusive"


class Reason(enum.Enum):
    """Why a frame was not judged, or why a verdict is inconclusive."""

    NO_FRAMES = "no_frames"
    NO_FACE = "no_face"
    TOO_SMALL = "too_small"
    BLURRED = "blurred"
    CUT = "cut"
    PROFILE = "profile"
    DECODE_ERROR = "decode_error"
    NO_RESULT = "no_result"
    TOO_FEW_FRAMES = "too_few_frames"
    LOW_COVERAGE = "low_coverage"
    NEAR_THRESHOLD = "near_threshold"
    CONFLICTING_TRACKS = "conflicting_tracks"

    @property
    def words(self) -> str:
        """The same for people."""
        return _WORDS[self]


_WORDS = {
    Reason.NO_FRAMES: "no frame could be read",
    Reason.NO_FACE: "no face was found",
    Reason.TOO_SMALL: "the face is too small",
    Reason.BLURRED: "the face is too blurred",
    Reason.CUT: "the face is cut off by the edge of the picture",
    Reason.PROFILE: "the face is seen from the side only",
    Reason.DECODE_ERROR: "frames could not be decoded",
    Reason.NO_RESULT: "the device gave no result",
    Reason.TOO_FEW_FRAMES: "too few frames could be judged",
    Reason.LOW_COVERAGE: "too little of the video could be judged",
    Reason.NEAR_THRESHOLD: "the score is too near the border between the two answers",
    Reason.CONFLICTING_TRACKS: "faces disagree, and the suspicious ones are there only briefly",
}


@dataclass(frozen=True)
class FrameScore:
    """What one frame says of one track.

    Attributes:
        time: seconds from the start of the video; ``None`` for an image.
        frame: number of the frame within its source, from 0.
        track: the identity.
        fake_probability: 0 to 1; ``None`` where the face was not judged, never a default.
        mask_fraction: share of the picture marked as manipulated; ``None`` likewise.
        status: ``ok``, or the value of the ``Reason`` why it was not judged.
        reason: the same in words; empty where all is well.
    """

    time: Optional[float]
    frame: int
    track: int
    fake_probability: Optional[float]
    mask_fraction: Optional[float]
    status: str = Status.OK.value
    reason: str = ""

    @property
    def judged(self) -> bool:
        """Whether there is a probability."""
        return self.fake_probability is not None


def scores_of(result: FrameResult) -> Tuple[FrameScore, ...]:
    """What a result says of the tracks in its frame, or of the frame where there is none."""
    return tuple(
        FrameScore(
            result.frame.time,
            result.frame.index,
            WHOLE_FRAME if part.face is None else part.face.track,
            part.fake_probability,
            part.mask_fraction,
            part.status.value,
            part.reason,
        )
        for part in result.parts
    )


@dataclass(frozen=True)
class TrackVerdict:
    """What is said of one track.

    Attributes:
        track: the identity.
        state: the answer.
        probability: that it is manipulated; ``None`` where nothing could be judged.
        score: what the frames' probabilities come to before calibration; ``None`` likewise.
        frames: frames the track is in.
        judged: those with a probability.
        reason: why it is inconclusive; ``None`` where it is not.
        mask_fraction: mean share of the picture marked, over the judged frames.
        begin: time of its first frame in seconds; ``None`` for images.
        end: time of its last frame.
    """

    track: int
    state: State
    probability: Optional[float]
    score: Optional[float]
    frames: int
    judged: int
    reason: Optional[Reason]
    mask_fraction: Optional[float]
    begin: Optional[float]
    end: Optional[float]

    @property
    def coverage(self) -> float:
        """Share of its frames that were judged."""
        return self.judged / self.frames if self.frames else 0.0

    def to_json(self) -> Dict[str, Any]:
        """A JSON object."""
        return {
            "track": self.track,
            "name": track_name(self.track),
            "verdict": self.state.value,
            "fake_probability": self.probability,
            "score": self.score,
            "frames": self.frames,
            "judged": self.judged,
            "coverage": round(self.coverage, 6),
            "reason": None if self.reason is None else self.reason.value,
            "mask_fraction": self.mask_fraction,
            "begin": self.begin,
            "end": self.end,
        }


@dataclass(frozen=True)
class VideoVerdict:
    """What is said of a whole video.

    Attributes:
        state: the answer.
        probability: that it is manipulated; ``None`` where nothing could be judged.
        frames: frames of the video.
        judged: those in which at least one track has a probability.
        reason: why it is inconclusive; ``None`` where it is not.
        words: what the answer rests on, for people.
        tracks: one entry per identity, by number.
    """

    state: State
    probability: Optional[float]
    frames: int
    judged: int
    reason: Optional[Reason]
    words: str
    tracks: Sequence[TrackVerdict] = ()

    @property
    def coverage(self) -> float:
        """Share of the frames that were judged."""
        return self.judged / self.frames if self.frames else 0.0

    def to_json(self) -> Dict[str, Any]:
        """A JSON object; strict, ``null`` for what is not known."""
        return {
            "verdict": self.state.value,
            "fake_probability": self.probability,
            "coverage": round(self.coverage, 6),
            "reason": None if self.reason is None else self.reason.value,
            "explanation": self.words,
            "tracks": [track.to_json() for track in self.tracks],
        }


def limits(threshold: float, band: float) -> Tuple[float, float]:
    """Below and above which probabilities are away from a threshold.

    The band is narrower where the threshold is nearer than one half to 0 or 1, so that there is
    room on its other side.
    """
    below, above = min(1.0, 2.0 * threshold), min(1.0, 2.0 * (1.0 - threshold))
    return round(threshold - band * below, 9), round(threshold + band * above, 9)


def track_name(track: int) -> str:
    """What a person calls a track."""
    return "whole frame" if track == WHOLE_FRAME else f"face {track}"
