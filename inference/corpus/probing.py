"""One file of a data set looked at: does it decode, is it whole, what does it look like."""

from __future__ import annotations

import contextlib
import hashlib
import struct
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

import numpy as np

from ...errors import ToolkitError
from ...files import impostor
from ...preprocessing import Image
from ...quantize.gate import brightness_hash
from ..records import Status
from ..sources.images import decode
from ..sources.video import open_video
from .layout import Entry, Place

FLAT = 4.0
"""Grey levels of deviation below which a picture has no features to be recognised by."""

SMALLEST = 17
"""Pixels a picture must have each way to be compared."""

Seen = Dict[str, Any]
"""What was seen of a file, as a JSON object: ``fault`` (a name of ``Kind`` and what was seen, or
``None``), ``size`` (``[height, width]``), ``hash`` (hexadecimal, or ``None``), ``sha256``, ``mask``
(of a crop that has one: ``fault``, ``size``, ``values``, ``share``)."""


def probe(entry: Entry, with_digest: bool, deep: bool) -> Seen:
    """Looks at a crop with its mask, or at a video.

    Args:
        entry: what.
        with_digest: computes the SHA-256, which only files of one size can share.
        deep: decodes every frame of a video; else the first, and the file's structure.
    """
    seen = _crop(entry) if entry.is_crop else _video(entry, deep)
    if with_digest:
        with contextlib.suppress(OSError):  # said already
            seen["sha256"] = _digest(entry.place)
    return seen


def looks(image: Image) -> Optional[str]:
    """The brightness hash in hexadecimal; ``None`` for a picture without features."""
    if min(image.shape[:2]) < SMALLEST or float(image.mean(axis=2).std()) < FLAT:
        return None
    return np.packbits(brightness_hash(image[None])[0]).tobytes().hex()


def cut_off(path: Path) -> str:
    """What is missing at the end of an MP4, a QuickTime or an AVI file; empty if nothing is."""
    length = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(16)
        if head[:4] == b"RIFF":
            (stated,) = struct.unpack_from("<I", head, 4)
            missing = stated + 8 - length
            # Beyond 2 GB further lists follow, and some writers state 0.
            return f"{missing} of {stated + 8} bytes are missing" if 0 < missing < 2**31 else ""
        if head[4:8] not in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"):
            return ""
        at = 0
        while at + 8 <= length:
            file.seek(at)
            head = file.read(16)
            (size,) = struct.unpack_from(">I", head)
            if size == 1 and len(head) == 16:
                (size,) = struct.unpack_from(">Q", head, 8)
            if size == 0:  # to the end of the file
                return ""
            if size < 8:
                return f"its structure is broken at byte {at}"
            at += size
        if at != length:
            return f"{abs(at - length)} bytes are " + ("missing" if at > length else "too many")
    return ""


def _crop(entry: Entry) -> Seen:
    seen: Seen = {"fault": None, "hash": None, "size": None}
    if entry.mask is not None:
        seen["mask"] = _mask(entry.mask)
    try:
        data = entry.place.shelf.read(entry.place.name)
    except OSError as error:
        seen["fault"] = ["UNREADABLE", error.strerror or str(error)]
        return seen
    image, reason = decode(data)
    if image is None:
        seen["fault"] = ["TRUNCATED" if "truncated" in reason else "UNREADABLE", reason]
    else:
        seen["size"] = list(image.shape[:2])
        seen["hash"] = looks(image)
    return seen


def _mask(place: Place) -> Seen:
    try:
        data = place.shelf.read(place.name)
    except OSError as error:
        return {"fault": ["MASK_UNREADABLE", error.strerror or str(error)]}
    if data[:4] == b"GIF8" and not data.rstrip(b"\0").endswith(b";"):
        return {"fault": ["MASK_UNREADABLE", "the file is truncated: its end marker is missing"]}
    image, reason = decode(data)
    if image is None:
        return {"fault": ["MASK_UNREADABLE", reason]}
    grey = image.max(axis=2)
    values: List[int] = np.unique(grey).tolist()
    # As the quantizer reads it: over half of the brightest.
    share = float((2 * grey.astype(np.int32) > int(grey.max(initial=0))).mean())
    return {
        "fault": None,
        "size": list(grey.shape),
        "values": len(values),
        "some": values[:4],
        "share": round(share, 6),
    }


def _video(entry: Entry, deep: bool) -> Seen:
    seen: Seen = {"fault": None, "hash": None, "size": None}
    try:
        strange = impostor(entry.place.shelf.read(entry.place.name, 256))
        if strange:
            seen["fault"] = ["UNREADABLE", f"it is {strange}"]
            return seen
        with entry.place.shelf.file(entry.place.name) as path:
            missing = cut_off(path)
            fault, image = _decoded(path, deep)
    except ToolkitError as error:
        seen["fault"] = ["UNREADABLE", error.evidence or error.cause]
        return seen
    except OSError as error:
        seen["fault"] = ["UNREADABLE", error.strerror or str(error)]
        return seen
    if missing:
        fault = ("TRUNCATED", missing)
    seen["fault"] = None if fault is None else list(fault)
    if image is not None:
        seen["size"] = list(image.shape[:2])
        seen["hash"] = looks(image)
    return seen


def _decoded(path: Path, deep: bool) -> Tuple[Optional[Tuple[str, str]], Optional[Image]]:
    """What is wrong with the frames that are looked at, and the first picture."""
    video = open_video(str(path))
    stated = video.length
    first: Optional[Image] = None
    count, bad = 0, 0
    for read in video.reads():
        frame = read()
        count += 1
        bad += frame.status is not Status.OK
        if first is None:
            first = frame.image
        if not deep and first is not None:
            return None, first
    if first is None:
        return ("UNREADABLE", f"none of {count} frames can be decoded"), None
    if bad:
        return ("UNREADABLE", f"{bad} of {count} frames cannot be decoded"), first
    if stated is not None and count < stated - 1:
        return ("TRUNCATED", f"the header states {stated} frames, {count} are there"), first
    return None, first


def _digest(place: Place) -> str:
    digest = hashlib.sha256()
    with place.shelf.file(place.name) as path, path.open("rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()
