"""PyAV where it is installed: right colours with every version, one converter per thread.

Setting a converter up costs more than converting a small frame, and PyAV sets one up for every
frame whose own ``reformat`` is called. PyAV before 15 looks at a frame's matrix and range only if
they are named.
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

from ..errors import UnsupportedError

FULL_RANGE = 2
"""``AVCOL_RANGE_JPEG``: black is 0 and white 255, not 16 and 235."""

_local = threading.local()


def load_av() -> Any:
    """The module ``av``.

    Raises:
        UnsupportedError: it is not installed here.
    """
    try:
        import av
    except ImportError as error:
        raise UnsupportedError(
            "Videos and GIF pictures need PyAV, which is not installed",
            str(error),
            "pip install av, or conda install -c conda-forge av",
        ) from error
    return av


def to_rgb(frame: Any) -> np.ndarray:
    """A decoded picture, by the matrix and range its stream states (BT.601, limited, if none).

    Args:
        frame: an ``av.VideoFrame`` of any pixel format.

    Returns:
        uint8 ``[H, W, 3]``, RGB.
    """
    full = getattr(frame, "color_range", 0) == FULL_RANGE or frame.format.name.startswith("yuvj")
    converted = _reformatter().reformat(
        frame,
        format="rgb24",
        dst_colorspace="DEFAULT",
        src_color_range="JPEG" if full else "MPEG",
        dst_color_range="MPEG",
    )
    image: np.ndarray = converted.to_ndarray()
    return image


def from_rgb(image: np.ndarray) -> Any:
    """A picture for an encoder: yuv420p, BT.709, limited range.

    Args:
        image: uint8 ``[H, W, 3]``, RGB, contiguous, with even sides.

    Returns:
        An ``av.VideoFrame`` without a timestamp.
    """
    frame = load_av().VideoFrame.from_ndarray(image, format="rgb24")
    return _reformatter().reformat(frame, format="yuv420p", dst_colorspace="ITU709")


def _reformatter() -> Any:
    if not hasattr(_local, "reformatter"):
        from av.video.reformatter import VideoReformatter

        _local.reformatter = VideoReformatter()
    return _local.reformatter
