"""Faces in frames: found by a detector, followed through a video, weighed, cut out."""

from __future__ import annotations

from .base import Box, Detection, Detector
from .boxes import BoxesDetector
from .cascade import CascadeDetector
from .finder import FaceFinder, Located, Look
from .options import FaceOptions, Kind
from .quality import Limits
from .results import mask_in_frame, with_mask
from .tracker import Following, Tracked, Tracker
from .yunet import YuNetDetector

__all__ = [
    "Box",
    "BoxesDetector",
    "CascadeDetector",
    "Detection",
    "Detector",
    "FaceFinder",
    "FaceOptions",
    "Following",
    "Kind",
    "Limits",
    "Located",
    "Look",
    "Tracked",
    "Tracker",
    "YuNetDetector",
    "mask_in_frame",
    "with_mask",
]
