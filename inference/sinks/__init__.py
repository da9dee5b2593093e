"""Where results go: JSON Lines and other tables, masks, pictures, videos."""

from __future__ import annotations

from .arrays import ArraySink
from .base import Sink
from .database import DatabaseSink
from .formats import Format, sink_of
from .page import PageSink
from .pictures import MaskSink, OverlaySink
from .records import RecordSink
from .run_lengths import RunLengthSink
from .table import TableSink
from .video import OverlayVideoSink
from .window import WindowSink

__all__ = [
    "ArraySink",
    "DatabaseSink",
    "Format",
    "MaskSink",
    "OverlaySink",
    "OverlayVideoSink",
    "PageSink",
    "RecordSink",
    "RunLengthSink",
    "Sink",
    "TableSink",
    "WindowSink",
    "sink_of",
]
