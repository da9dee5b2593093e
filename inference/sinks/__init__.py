"""Where results go: JSON Lines, pictures, videos."""

from __future__ import annotations

from .base import Sink
from .pictures import MaskSink, OverlaySink
from .records import RecordSink
from .video import OverlayVideoSink

__all__ = ["MaskSink", "OverlaySink", "OverlayVideoSink", "RecordSink", "Sink"]
