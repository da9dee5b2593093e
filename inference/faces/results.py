"""Results of frames in which faces were looked for: those of the faces, and what they come to."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import List, Optional, Sequence

import numpy as np

from ...preprocessing import paste
from ..records import Frame, FrameResult, Status
from .finder import Located

NO_FACE = "no face was found"


def marked(frame: Frame, located: Optional[Sequence[Located]]) -> Frame:
    """The frame with the reason why none of its faces can be judged, if none can.

    Args:
        frame: as it was read.
        located: its faces; ``None`` where it is taken whole.
    """
    if located is None or any(one.picture is not None for one in located):
        return frame
    if not located:
        return replace(frame, status=Status.NO_FACE, reason=NO_FACE)
    return replace(frame, status=located[0].status, reason=located[0].reason)


def summed_up(frame: Frame, faces: List[FrameResult], bare: FrameResult) -> FrameResult:
    """The result of a frame from those of its faces.

    Args:
        frame: as ``marked`` gives it.
        faces: their results, by track; not empty.
        bare: a result for the frame in which nothing is known.
    """
    reals = [face.real for face in faces if face.judged and face.real is not None]
    real = min(reals) if reals else None
    if real is None and any(face.real is not None for face in faces):
        real = math.nan  # the device gave something, but no number
    devices = dict.fromkeys(face.device for face in faces if face.real is not None)
    device = "+".join(devices) or bare.device
    return replace(bare, frame=frame, real=real, device=device, faces=tuple(faces))


def for_frame(result: FrameResult, frame: Frame) -> FrameResult:
    """The same result for another frame that looks the same."""
    faces = tuple(
        replace(face, frame=replace(frame, status=face.frame.status, reason=face.frame.reason))
        for face in result.faces
    )
    status, reason = result.frame.status, result.frame.reason
    if status is not Status.OK:
        frame = replace(frame, status=status, reason=reason)
    return replace(result, frame=frame, faces=faces)


def with_mask(result: FrameResult) -> FrameResult:
    """The result with the masks of its faces together, at the size of the frame's picture."""
    image = result.frame.image
    if not result.faces or image is None:
        return result
    masks = [mask for mask in map(mask_in_frame, result.faces) if mask is not None]
    if not masks:
        return result
    return replace(result, mask=np.bitwise_or.reduce(masks))


def mask_in_frame(result: FrameResult) -> Optional[np.ndarray]:
    """The mask of one face at the size of the frame's picture.

    Returns:
        uint8 ``[H, W]``, 1 = manipulated; ``None`` where it was not judged.
    """
    image = result.frame.image
    if image is None or result.mask is None or result.face is None or not result.judged:
        return None
    height, width = image.shape[:2]
    return paste(result.mask, result.face.square, height, width, result.face.turns)
