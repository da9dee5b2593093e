"""Where frames come from: image files, folders, patterns, videos."""

from __future__ import annotations

from .base import Read, Source
from .images import ImageSource, open_images
from .video import VideoSource, open_video

__all__ = ["ImageSource", "Read", "Source", "VideoSource", "open_images", "open_video"]
