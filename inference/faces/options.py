"""How faces are looked for: what a person may choose, and what ``auto`` makes of a picture."""

from __future__ import annotations

import enum
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Dict, Optional, Sequence, Tuple

import numpy as np

from ...errors import MissingError, UsageError
from ...files import sha256
from .base import Detection, Detector
from .boxes import BoxesDetector
from .cascade import LONGEST, CascadeDetector
from .quality import Limits
from .tracker import Following
from .yunet import YuNetDetector


class Kind(enum.Enum):
    """Who finds the faces."""

    AUTO = "auto"
    CASCADE = "cascade"
    YUNET = "yunet"
    WHOLE = "whole"
    BOXES = "boxes"


CROP_SIDE = 320
"""Pixels up to which a nearly square picture is taken for a crop of a face: data sets of crops
have 64 to 317, and no camera of today films so small."""

CROP_WIDE, CROP_TALL = 1.25, 1.5
"""Width over height, and height over width, up to which a picture is nearly square. Faces are
taller than wide, and so are crops that follow their outline; the first wider format of cameras is
4:3."""

CROP_SHARE = 0.45
"""Share of a nearly square picture's shorter side from which a face fills it: in crops with the
usual margin the box takes up 0.6, with a wide one 0.5."""

LOOK_SECONDS = 0.12
"""Time between two looks for faces: every third frame of 25 per second. A head moves by less than
a tenth of its width in that time."""


@dataclass(frozen=True)
class FaceOptions:
    """How faces are looked for.

    Attributes:
        kind: who finds them.
        model: the network's file, for YuNet.
        boxes: the file of boxes, for those.
        every: frames from one look to the next; ``None`` for one look in ``LOOK_SECONDS``.
        smallest: least side of a face in pixels; ``None`` for the usual limit.
        limits: from where on a face is judged.
        following: how faces are followed.
    """

    kind: Kind = Kind.AUTO
    model: Optional[Path] = None
    boxes: Optional[Path] = None
    every: Optional[int] = None
    smallest: Optional[float] = None
    limits: Limits = field(default_factory=Limits)
    following: Following = field(default_factory=Following)

    def to_json(self) -> Dict[str, Any]:
        """Everything that changes what is found, a file by its SHA-256."""
        return {
            "kind": self.kind.value,
            "model": None if self.model is None else sha256(self.model),
            "boxes": None if self.boxes is None else sha256(self.boxes),
            "every": self.every,
            "smallest": self.smallest,
            "limits": asdict(self.limits),
            "following": asdict(self.following),
        }

    def check(self) -> None:
        """Refuses what contradicts itself.

        Raises:
            UsageError: no file is given for what was chosen, or one is for something else.
            MissingError: a file given is not there.
        """
        for option, given, kind, what in (
            ("--face-model", self.model, Kind.YUNET, "FILE.onnx"),
            ("--face-boxes", self.boxes, Kind.BOXES, "FILE.jsonl"),
        ):
            if given is None and self.kind is kind:
                raise UsageError(f"--faces {kind.value} needs a file", "", f"add {option} {what}")
            if given is not None and self.kind not in (kind, Kind.AUTO):
                raise UsageError(
                    f"{option} is for --faces {kind.value}",
                    f"--faces is {self.kind.value}",
                    f"use --faces {kind.value}, or leave {option} {given} out",
                )
            if given is not None and not given.is_file():
                raise MissingError(
                    f"There is no face model {given}"
                    if kind is Kind.YUNET
                    else f"There is no file of boxes {given}",
                    "",
                    f"check {option}, or use --faces cascade",
                )
        if self.model is not None and self.boxes is not None:
            raise UsageError(
                "Faces are found by a network or taken from a file",
                f"--face-model {self.model} and --face-boxes {self.boxes}",
                "leave one of them out",
            )


def open_detector(options: FaceOptions) -> Tuple[Optional[Detector], str]:
    """The detector chosen, and why; ``None`` where frames are taken whole.

    ``auto`` takes the file that is given, else the cascade.

    Raises:
        ToolkitError: its file cannot be used, or is missing.
    """
    options.check()
    kind, reason = options.kind, f"asked for with --faces {options.kind.value}"
    if kind is Kind.WHOLE:
        return None, reason
    if kind is Kind.AUTO:
        kind, reason = Kind.CASCADE, "no other detector's file was given"
        if options.boxes is not None:
            kind, reason = Kind.BOXES, "--face-boxes was given"
        elif options.model is not None:
            kind, reason = Kind.YUNET, "--face-model was given"
    if kind is Kind.BOXES:
        assert options.boxes is not None
        return BoxesDetector(options.boxes), reason
    if kind is Kind.YUNET:
        assert options.model is not None
        return YuNetDetector(options.model), reason
    # Somewhat smaller ones are looked for, too, so that they can be said to be too small.
    if options.smallest is None:
        return CascadeDetector(0.75 * options.limits.smallest, LONGEST), reason
    return CascadeDetector(0.75 * options.smallest, None), reason


def crop_by_size(height: int, width: int) -> bool:
    """Whether a picture is so small and so square that it is a crop of a face already."""
    return max(height, width) <= CROP_SIDE and _square(height, width)


def crop_by_face(image: np.ndarray, found: Sequence[Detection]) -> bool:
    """Whether one face fills a nearly square picture as it does in a crop."""
    height, width = image.shape[:2]
    if not _square(height, width) or len(found) != 1:
        return False
    box, shorter = found[0].box, min(height, width)
    x, y = box.middle
    central = abs(x - width / 2) < 0.2 * width and abs(y - height / 2) < 0.2 * height
    return bool(central and box.side >= CROP_SHARE * shorter)


def _square(height: int, width: int) -> bool:
    return width <= CROP_WIDE * height and height <= CROP_TALL * width
