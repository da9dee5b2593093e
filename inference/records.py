"""What the stages of a run hand to each other: a frame, its result, and the record written of it.

Pictures are uint8 HWC in RGB order; masks are uint8 with 1 = manipulated. The classifier's output
1 means REAL, so everything a person sees is ``fake_probability = 1 - real``.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Callable, Dict, Generic, NamedTuple, Optional, Tuple, TypeVar, Union

import numpy as np

from ..preprocessing import Square

T = TypeVar("T")


class Status(enum.Enum):
    """What became of a frame, or of a face in it."""

    OK = "ok"
    DECODE_ERROR = "decode_error"
    NO_RESULT = "no_result"
    NO_FACE = "no_face"
    TOO_SMALL = "too_small"
    BLURRED = "blurred"
    CUT = "cut"
    PROFILE = "profile"


class Verdict(enum.Enum):
    """What is said of a frame or of a source."""

    FAKE = "FAKE"
    REAL = "REAL"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True)
class VideoInfo:
    """What is known of a video before it is decoded.

    Attributes:
        path: the file.
        rate: average frames per second, exact.
        time_base: the unit of the frames' ``pts``, in seconds, exact.
        start: when the file begins, in seconds; ``pts`` count from zero, records from ``start``.
        frames: number of frames by the header or by the duration; ``None`` where neither tells.
        has_file: whether ``path`` can be opened again, for the sound; else it is only a name.
        begin: where a selection begins, in seconds of the file's clock; ``None`` for all of it.
        end: where it ends.
    """

    path: Path
    rate: Fraction
    time_base: Fraction
    start: Fraction
    frames: Optional[int]
    has_file: bool = True
    begin: Optional[Fraction] = None
    end: Optional[Fraction] = None


Origin = Union[int, str]
"""A frame within its source: the index of a video's frame, the name of an image."""


@dataclass(frozen=True, eq=False)
class Frame:
    """One picture of a source, or the place of one that could not be decoded.

    Attributes:
        source: the file it comes from, as it is named in the records.
        index: position in the file, from 0.
        time: seconds from the start of the video; ``None`` for an image.
        image: uint8 ``[H, W, 3]``, RGB; ``None`` where it could not be decoded, or where no later
            stage wants it.
        status: ``OK``, or why it cannot be judged.
        reason: the same in words, or what is doubtful about it.
        video: the video it belongs to; ``None`` for an image.
        pts: presentation time in units of ``video.time_base``.
        same_as: the earlier frame of the same source that looks like this one, so that its result
            is taken; ``None`` where the frame is to be judged.
    """

    source: str
    index: int
    time: Optional[float]
    image: Optional[np.ndarray]
    status: Status = Status.OK
    reason: str = ""
    video: Optional[VideoInfo] = None
    pts: Optional[int] = None
    same_as: Optional[Origin] = None

    @property
    def key(self) -> Origin:
        """What ``same_as`` of another frame says if it means this one."""
        return self.source if self.video is None else self.index


class Face(NamedTuple):
    """A face in a frame.

    Attributes:
        track: number of the person within the source, from 1.
        box: x0, y0, x1, y1 in pixels of the frame.
        square: what was cut out for the network.
        turns: quarter turns anticlockwise that put it upright.
    """

    track: int
    box: Tuple[float, float, float, float]
    square: Square
    turns: int = 0


@dataclass(frozen=True, eq=False)
class Logits:
    """What the network itself gave for one frame, before anything was decided.

    Attributes:
        mask: ``[h, w, classes]``, int8 codes of the DPU (float32 of the device ``float``).
        scale: what one code of ``mask`` is worth.
        classifier: the classifier's output before its sigmoid.
    """

    mask: np.ndarray
    scale: float
    classifier: float


class _once(Generic[T]):  # noqa: N801
    """A property that is worked out when it is first asked for, and kept with its object.

    It sets the object's dictionary, where Python looks first: of a frozen one, too.
    """

    def __init__(self, work: Callable[[Any], T]) -> None:
        self._work, self.__doc__ = work, work.__doc__

    def __get__(self, instance: Any, owner: Any = None) -> T:
        value = instance.__dict__[self._work.__name__] = self._work(instance)
        return value


@dataclass(frozen=True, eq=False)
class FrameResult:
    """What was found out about one frame, or about one face in it.

    Where faces were looked for, the result of a frame sums up those of its faces: it has the
    least ``real`` among them and, once somebody wants to look at it, their masks together.

    Attributes:
        frame: the frame.
        real: the classifier's output, 1 = REAL; ``None`` where the frame was not judged.
        mask: uint8 ``[h, w]`` at the network's size, 1 = manipulated; ``None`` like ``real``.
        device: the device that judged it.
        threshold: the fake probability from which the verdict is FAKE.
        origin: position of the frame's source among the sources of the run.
        logits: what the network gave; ``None`` like ``real``, and where no sink wants it.
        face: the face it is about; ``None`` where it is about the frame.
        faces: one result for each face in the frame; empty where there is none or none was
            looked for.
    """

    frame: Frame
    real: Optional[float]
    mask: Optional[np.ndarray]
    device: str
    threshold: float = 0.5
    origin: int = 0
    logits: Optional[Logits] = None
    face: Optional[Face] = None
    faces: Tuple[FrameResult, ...] = ()

    @property
    def parts(self) -> Tuple[FrameResult, ...]:
        """What a record is written of: each of the faces, else the frame."""
        return self.faces or (self,)

    @_once
    def status(self) -> Status:
        """The frame's status, or ``NO_RESULT`` where the device gave nothing usable."""
        if self.frame.status is Status.OK and not self.judged:
            return Status.NO_RESULT
        return self.frame.status

    @_once
    def judged(self) -> bool:
        """Whether there is a verdict."""
        return self.real is not None and math.isfinite(self.real)

    @_once
    def fake_probability(self) -> Optional[float]:
        """``1 - real``, rounded to what a float32 can say; ``None`` where not judged."""
        if self.real is None or not self.judged:
            return None
        return round(1.0 - self.real, 7)

    @property
    def verdict(self) -> Optional[Verdict]:
        """FAKE from the threshold on, else REAL; ``None`` where not judged."""
        return judge(self.fake_probability, self.threshold)

    @_once
    def mask_fraction(self) -> Optional[float]:
        """Share of the picture marked as manipulated; ``None`` where not judged."""
        if self.mask is None or not self.judged:
            return None
        return round(float(np.count_nonzero(self.mask)) / self.mask.size, 7)

    @property
    def reason(self) -> str:
        """Why there is no verdict, or what is doubtful about it; empty where all is well."""
        if self.status is Status.NO_RESULT:
            return f"device {self.device} gave {self.real} for the classifier"
        return self.frame.reason

    def to_json(self) -> Dict[str, Any]:
        """The record written for the frame; strict JSON, ``null`` for what is not known."""
        verdict = self.verdict
        return {
            "source": self.frame.source,
            "frame": self.frame.index,
            "time": self.frame.time,
            "fake_probability": self.fake_probability,
            "verdict": None if verdict is None else verdict.value,
            "mask_fraction": self.mask_fraction,
            "device": self.device,
            "status": self.status.value,
            "reason": self.reason,
            "inherited_from": self.frame.same_as,
            "track": None if self.face is None else self.face.track,
            "box": None if self.face is None else list(self.face.box),
        }


def judge(fake_probability: Optional[float], threshold: float) -> Optional[Verdict]:
    """FAKE where the probability reaches the threshold, REAL below, ``None`` where unknown."""
    if fake_probability is None:
        return None
    return Verdict.FAKE if fake_probability >= threshold else Verdict.REAL


FIELDS = tuple(FrameResult(Frame("", 0, None, None), None, None, "").to_json())
"""The names in a record, in their order."""
