"""One image file: whatever it holds, the picture is upright uint8 RGB, or there is a reason.

Grey, palette, alpha, 16 bits per channel and an orientation tag are treated; of an animation it
is the first picture.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Optional, Tuple

import numpy as np

from ...errors import UnsupportedError
from ...files import impostor
from ..ffmpeg import load_av, to_rgb
from ..records import Frame, Status


def read_image(name: str) -> Frame:
    """Reads one file into a frame, or into the record of its failure."""
    path = Path(name)
    try:
        image, reason = decode(path.read_bytes())
    except OSError as error:
        image, reason = None, error.strerror or str(error)
    return _framed(str(path), image, reason)


def read_bytes(name: str, data: bytes) -> Frame:
    """Reads a file whose content is at hand, like ``read_image``."""
    return _framed(name, *decode(data))


def decode(data: bytes) -> Tuple[Optional[np.ndarray], str]:
    """Decodes an image file's bytes.

    Returns:
        uint8 ``[H, W, 3]`` RGB and an empty text, or ``None`` and the reason.
    """
    strange = impostor(data[:256])
    if strange is not None:
        return None, strange
    if _is_cut(data):
        return None, "the file is truncated: its end marker is missing"
    if data[:4] == b"GIF8":
        return _decode_gif(data)
    return _decode_cv(data)


def _framed(name: str, image: Optional[np.ndarray], reason: str) -> Frame:
    if image is None:
        return Frame(name, 0, None, None, Status.DECODE_ERROR, reason)
    return Frame(name, 0, None, image)


def _decode_cv(data: bytes) -> Tuple[Optional[np.ndarray], str]:
    import cv2

    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as error:
        return None, f"OpenCV cannot decode it: {error.err}"
    if image is None:
        return None, "no image format OpenCV knows, or a damaged one"
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=image), ""


def _is_cut(data: bytes) -> bool:
    """Whether a PNG or JPEG ends early; decoders fill the rest with grey and say nothing."""
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return data.rfind(b"IEND") < 0
    if data[:2] != b"\xff\xd8":
        return False
    # Step over the segments of the header (a thumbnail has an end marker of its own) to the scan.
    at = 2
    while data[at : at + 1] == b"\xff" and data[at + 1 : at + 2] != b"\xda":
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return data.find(b"\xff\xd9", at) < 0


def _decode_gif(data: bytes) -> Tuple[Optional[np.ndarray], str]:
    try:
        av = load_av()
    except UnsupportedError as error:
        image, _ = _decode_cv(data)  # OpenCV reads GIF from 4.11 on
        return image, "" if image is not None else str(error)
    try:
        with av.open(io.BytesIO(data)) as container:
            for frame in container.decode(video=0):
                return to_rgb(frame), ""
    except (av.error.FFmpegError, ValueError, IndexError) as error:
        return None, f"FFmpeg cannot decode it: {error}"
    return None, "a GIF without a picture"
