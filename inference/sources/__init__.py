"""Where frames come from: files of any number, archives, streams, cameras, standard input."""

from __future__ import annotations

from .base import Read, Source
from .files import FilesSource, open_images
from .live import LiveOptions
from .opening import OpenOptions, open_source
from .video import VideoSource, open_video

__all__ = [
    "FilesSource",
    "LiveOptions",
    "OpenOptions",
    "Read",
    "Source",
    "VideoSource",
    "open_images",
    "open_source",
    "open_video",
]
