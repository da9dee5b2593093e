"""A mask as a GIF of two colours, written without any library, so that it is the same everywhere.

By the GIF89a specification: LZW codes of 3 to 12 bits, palette index 0 black and 1 white.
"""

from __future__ import annotations

import struct
from typing import Dict

import numpy as np

_BITS = 2  # of a pixel, by the format the least
_CLEAR, _END = 1 << _BITS, (1 << _BITS) + 1
_MOST = 4096


def gif_bytes(mask: np.ndarray) -> bytes:
    """The file.

    Args:
        mask: ``[H, W]``, up to 65535 each way; what is not zero is white.
    """
    height, width = mask.shape
    head = b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0)
    palette = bytes([0, 0, 0, 255, 255, 255])
    place = b"," + struct.pack("<HHHHB", 0, 0, width, height, 0)
    packed = _packed((np.asarray(mask).reshape(-1) != 0).astype(np.uint8).tobytes())
    blocks = b"".join(
        bytes([len(packed[at : at + 255])]) + packed[at : at + 255]
        for at in range(0, len(packed), 255)
    )
    return head + palette + place + bytes([_BITS]) + blocks + b"\0;"


def _packed(pixels: bytes) -> bytes:
    """The LZW codes of the pixels, the lowest bits first."""
    out = bytearray()
    table: Dict[int, int] = {}
    size, following = _BITS + 1, _END + 1
    held, count = _CLEAR, size  # bits that are not yet written
    code = -1
    for pixel in pixels:
        if code < 0:
            code = pixel
            continue
        longer = table.get(2 * code + pixel)
        if longer is not None:
            code = longer
            continue
        held |= code << count
        count += size
        if following < _MOST:
            table[2 * code + pixel] = following
            if following == 1 << size:
                size += 1
            following += 1
        else:
            held |= _CLEAR << count
            count += size
            table.clear()
            size, following = _BITS + 1, _END + 1
        while count >= 8:
            out.append(held & 255)
            held >>= 8
            count -= 8
        code = pixel
    if code >= 0:
        held |= code << count
        count += size
        if following == 1 << size and following < _MOST:
            size += 1
    held |= _END << count
    count += size
    out += held.to_bytes((count + 7) // 8, "little")
    return bytes(out)
