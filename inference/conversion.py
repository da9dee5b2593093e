"""Pixel formats by FFmpeg: one converter per thread, kept.

Setting a converter up costs more than converting a small frame, and PyAV sets one up for every
frame whose own ``reformat`` is called.
"""

from __future__ import annotations

import threading
from typing import Any

_local = threading.local()


def convert(frame: Any, pixels: str, **options: Any) -> Any:
    """A PyAV video frame in another pixel format; as ``frame.reformat``, but quicker.

    Args:
        frame: an ``av.VideoFrame``.
        pixels: the pixel format, such as ``rgb24``.
        options: more for ``VideoReformatter.reformat``.
    """
    if not hasattr(_local, "reformatter"):
        from av.video.reformatter import VideoReformatter

        _local.reformatter = VideoReformatter()
    return _local.reformatter.reformat(frame, format=pixels, **options)
