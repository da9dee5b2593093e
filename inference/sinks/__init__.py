"""Where results go: JSON Lines and other tables, masks, pictures, videos."""

from __future__ import annotations

from .arrays import ArraySink
from .base import Sink
from .database import DatabaseSink
from .formats import Format, sink_of
from .pictures import MaskSink, OverlaySink
from .records import RecordSink
from .run_lengths import RunLengthSink
from .table import TableSink
from .video import OverlayVideoSink

__all__ = [
    "ArraySink",
    "DatabaseSink",
    "Format",
    "MaskSink",
    "OverlaySink",
    "OverlayVideoSink",
    "RecordSink",
    "RunLengthSink",
    "Sink",
    "TableSink",
    "sink_of",
]
