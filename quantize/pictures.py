"""Pictures and masks on disk: decoded to the one form every stage uses.

OpenCV and PyAV are imported where a file is read.
"""

from __future__ import annotations

from pathlib import Path
from typing import Tuple

import numpy as np

from ..errors import DataError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff")


def read_image(path: Path) -> np.ndarray:
    """Decodes a picture.

    Returns:
        uint8 ``[H, W, 3]``, RGB.

    Raises:
        DataError: it cannot be decoded.
    """
    import cv2

    try:
        raw = np.frombuffer(path.read_bytes(), np.uint8)  # not imread: it fails on some names
        image = cv2.imdecode(raw, cv2.IMREAD_COLOR) if raw.size else None
    except (OSError, cv2.error) as error:
        raise DataError(f"The image {path} cannot be read", str(error).strip()) from error
    if image is None:
        start = raw[:8].tobytes()
        raise DataError(
            f"The image {path} cannot be decoded", f"{raw.size} bytes beginning {start!r}"
        )
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)


def read_mask(path: Path) -> np.ndarray:
    """Decodes a mask.

    Values over half of the brightest count as manipulated, so masks of 0 and 255 and masks of
    0 and 1 both read as they are meant. GIF goes through PyAV where it is installed, because
    OpenCV reads it only in late releases.

    Returns:
        uint8 ``[H, W]``, 0 or 1.

    Raises:
        DataError: it cannot be decoded.
    """
    picture = _decode_gif(path) if path.suffix.lower() == ".gif" else read_image(path)
    value = picture.max(axis=2).astype(np.int32)
    mask: np.ndarray = (2 * value > value.max(initial=0)).astype(np.uint8)
    return mask


def fit_mask(mask: np.ndarray, size: Tuple[int, int]) -> np.ndarray:
    """Resizes a mask to ``(height, width)`` by the nearest pixel; uint8 ``[height, width]``."""
    if mask.shape == size:
        return mask
    import cv2

    resized = cv2.resize(mask, (size[1], size[0]), interpolation=cv2.INTER_NEAREST)
    return np.asarray(resized, np.uint8)


def _decode_gif(path: Path) -> np.ndarray:
    try:
        import av
    except ImportError:  # Python 3.7 has no PyAV; OpenCV reads GIF from 4.11 on
        return read_image(path)
    try:
        with av.open(str(path)) as container:
            for frame in container.decode(video=0):
                return np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise DataError(f"The mask {path} cannot be read", str(error)) from error
    raise DataError(f"The mask {path} cannot be read", "it has no picture")
