"""One video becomes crops of its faces and, for a fake, masks of what differs from its original."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Tuple
from typing import Counter as CounterOf

import numpy as np

from ...errors import DataError, UsageError
from ...preprocessing import Image, Preprocessing, Square, cut
from ...quantize.pictures import IMAGE_SUFFIXES, fit_mask, read_image
from ..faces import FaceFinder, FaceOptions
from ..records import Frame, Status
from ..sources.video import open_video
from .alignment import Alignment, align, chosen, frames_at, pairs
from .difference import MaskOptions, difference

SAME_MOMENT = 0.6
"""Least similarity outside the mask. Fakes of all compressions have more than 0.85 there; pictures
of two moments of a moving camera fall below 0.5."""

MOST = 0.95
"""Largest share of a crop that a mask may cover. A face with the usual margin fills 0.6; where all
differs, the two are not of one moment."""


@dataclass(frozen=True)
class CropOptions:
    """What is taken from each video.

    Attributes:
        masks: compares fakes with their originals; without, only crops are made.
        every: one frame of so many.
        frames: frames of each video, spread over it; ``None`` for no limit.
        size: side of the crops in pixels; ``None`` leaves them as large as they are.
        faces: how faces are found.
        margin: share of the face box added on each side; ``None`` for the usual one.
        keep_unchanged: keeps crops of a fake that do not differ from the original.
        mask: how masks are made.

    Raises:
        UsageError: a number is out of its range.
    """

    masks: bool = True
    every: int = 1
    frames: Optional[int] = 16
    size: Optional[int] = None
    faces: FaceOptions = field(default_factory=FaceOptions)
    margin: Optional[float] = None
    keep_unchanged: bool = False
    mask: MaskOptions = field(default_factory=MaskOptions)

    def __post_init__(self) -> None:
        for name, value in (("every", self.every), ("frames", self.frames), ("size", self.size)):
            if value is not None and value < 1:
                raise UsageError(f"The option {name} is out of its range", f"{value}", "1 or more")

    def to_json(self) -> Dict[str, Any]:
        """A JSON object with all that decides about the result."""
        faces = self.faces
        record: Dict[str, Any] = {
            "masks": self.masks,
            "every": self.every,
            "frames": self.frames,
            "size": self.size,
            "faces": faces.kind.value,
            "face_model": None if faces.model is None else str(faces.model),
            "face_boxes": None if faces.boxes is None else str(faces.boxes),
            "smallest_face": faces.smallest,
            "margin": self.margin,
        }
        if self.masks:
            record.update(keep_unchanged=self.keep_unchanged, mask=self.mask.to_json())
        return record


@dataclass(frozen=True, eq=False)
class Crop:
    """One face.

    Attributes:
        picture: uint8 ``[H, W, 3]``, RGB.
        mask: bool ``[H, W]``; ``None`` where masks are not wanted.
        about: where it comes from and what was measured, as a JSON object.
    """

    picture: Image
    mask: Optional[np.ndarray]
    about: Dict[str, Any]


@dataclass
class Cutting:
    """The crops of one video.

    Attributes:
        crops: in order of frames, then of faces.
        notes: what was chosen, and what was left out.
        faces: how faces were found, and why so.
    """

    crops: List[Crop] = field(default_factory=list)
    notes: List[str] = field(default_factory=list)
    faces: str = ""


def cut_video(
    path: Path, name: str, options: CropOptions, fake: bool = False, original: Optional[Path] = None
) -> Cutting:
    """The crops of one video, or of one photograph.

    Args:
        path: the file; by its suffix it is a video or a photograph.
        name: what it is called, for boxes from a file.
        options: what is taken.
        fake: whether an unchanged face is to be left out.
        original: compared with, where masks are wanted; without one masks are empty.

    Raises:
        ToolkitError: the video or its original cannot be read.
        DataError: there is no crop in it; the evidence says why.
    """
    if original is None:
        found = _Cutter(options, name, fake=False)
        if path.suffix.lower() in IMAGE_SUFFIXES:
            found.take(Frame(name, 0, None, read_image(path)), None)
            return found.finish()
        video = open_video(str(path))
        numbers = chosen(video.length, options.every, options.frames)
        for frame in frames_at(video, numbers, options.every, options.frames):
            found.take(frame, None)
        found.cutting.notes += video.notes
        return found.finish()
    found = _compared(path, original, name, options, fake, Alignment())
    if found.apart > len(found.cutting.crops):
        # Equal counts do not prove that both begin with the same frame.
        searched = align(open_video(str(path)), open_video(str(original)), force=True)
        if searched.offset:
            other = _compared(path, original, name, options, fake, searched)
            found = other if other.apart < found.apart else found
    return found.finish()


def _compared(
    path: Path, original: Path, name: str, options: CropOptions, fake: bool, how: Alignment
) -> _Cutter:
    ours, theirs = open_video(str(path)), open_video(str(original))
    if how == Alignment():
        how = align(ours, theirs)
    found = _Cutter(options, name, fake)
    if how != Alignment():
        found.cutting.notes.append(
            f"frames go together {how.reason}" if how.by_time else how.reason
        )
    numbers = chosen(ours.length, options.every, options.frames)
    if numbers is None:
        most = options.frames or 10**9
        numbers = list(range(0, most * options.every, options.every))
    asked = len(numbers)
    for frame, other in pairs(ours, theirs, numbers, how):
        found.take(frame, other)
    if found.seen < asked and ours.length is not None:
        found.cutting.notes.append(f"{asked - found.seen} of {asked} frames have no counterpart")
    found.cutting.notes += ours.notes + [f"original: {note}" for note in theirs.notes]
    return found


class _Cutter:
    """Takes frames of one video in order."""

    def __init__(self, options: CropOptions, name: str, fake: bool) -> None:
        self.options, self.name, self.fake = options, name, fake
        self.cutting = Cutting()
        self.seen = 0
        self.left: CounterOf[str] = Counter()
        self.apart = 0
        self._resized = False
        self._finder = FaceFinder(options.faces, Preprocessing())
        if options.margin is not None and self._finder.detector is not None:
            self._finder.preprocessing = replace(
                self._finder.preprocessing, margin=options.margin
            )  # fmt: skip

    def take(self, frame: Frame, other: Optional[Frame]) -> None:
        """Adds the faces of a frame; ``other`` is the original's."""
        self.seen += 1
        image, before = frame.image, None if other is None else other.image
        if image is None or (other is not None and before is None):
            self.left["the frame cannot be decoded"] += 1
            return
        if before is not None:
            before = self._fitted(before, image)
        for square, turns, about in self._places(replace(frame, source=self.name)):
            theirs = None if before is None else self._cut(before, square, turns)
            if other is not None:
                about["original_frame"] = other.index
            about = {"frame": frame.index, "time": frame.time, **about}
            self._add(self._cut(image, square, turns), theirs, about)

    def finish(self) -> Cutting:
        """The crops, with notes on what was left out.

        Raises:
            DataError: there is none.
        """
        self.cutting.faces = "; ".join(
            f"{choice.method}, {choice.reason}" for choice in self._finder.choices
        )
        left = [f"{count} times {why}" for why, count in sorted(self.left.items())]
        if not self.cutting.crops:
            seen = "; ".join(left) or "it has no frames"
            raise DataError("it gives no crop", f"{self.seen} frames looked at: {seen}")
        if left:
            self.cutting.notes.append("left out: " + ", ".join(left))
        return self.cutting

    def _places(self, frame: Frame) -> Iterator[Tuple[Optional[Square], int, Dict[str, Any]]]:
        finder = self._finder
        located = finder.locate(0, frame, finder.look(frame, True))
        if located is None:
            yield None, 0, {"face": 1, "box": None}
            return
        if not located:
            self.left["no face"] += 1
        for one in located:
            if one.status is not Status.OK:
                self.left[f"the face is {one.status.value}"] += 1
                continue
            face = one.face
            about = {"face": face.track, "box": list(face.box), "square": list(face.square)}
            if face.turns:
                about["turns"] = face.turns
            yield face.square, face.turns, about

    def _add(self, image: Image, theirs: Optional[Image], about: Dict[str, Any]) -> None:
        mask: Optional[np.ndarray] = None
        if self.options.masks:
            mask = np.zeros(image.shape[:2], bool)
        if theirs is not None:
            found = difference(image, theirs, self.options.mask)
            if found.outside < SAME_MOMENT or found.mask.mean() > MOST:
                self.apart += 1
                self.left["the original shows another moment"] += 1
                return
            mask = found.mask
            if self.fake and not mask.any() and not self.options.keep_unchanged:
                self.left["nothing differs from the original"] += 1
                return
            about.update(
                limit=round(found.limit, 4),
                similarity=round(found.similarity, 4),
                outside=round(found.outside, 4),
            )
        if mask is not None:
            about["mask_fraction"] = round(float(mask.mean()), 5)
        self.cutting.crops.append(Crop(*self._sized(image, mask), about))

    def _sized(
        self, image: Image, mask: Optional[np.ndarray]
    ) -> Tuple[Image, Optional[np.ndarray]]:
        side = self.options.size
        if side is None or image.shape[:2] == (side, side):
            return image, mask
        import cv2

        smaller = min(image.shape[:2]) > side
        method = cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
        image = np.asarray(cv2.resize(image, (side, side), interpolation=method), np.uint8)
        if mask is not None:
            mask = fit_mask(mask.astype(np.uint8), (side, side)).astype(bool)
        return image, mask

    def _fitted(self, image: Image, like: Image) -> Image:
        if image.shape == like.shape:
            return image
        import cv2

        if not self._resized:
            self._resized = True
            sizes = [f"{one.shape[1]}x{one.shape[0]}" for one in (image, like)]
            self.cutting.notes.append(f"the original is {sizes[0]}, resized to {sizes[1]}")
        size = like.shape[1::-1]
        return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)

    @staticmethod
    def _cut(image: Image, square: Optional[Square], turns: int) -> Image:
        return image if square is None else cut(image, square, turns)
