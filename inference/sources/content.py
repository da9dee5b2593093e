"""What a file is by its first bytes, and by its suffix where they do not tell."""

from __future__ import annotations

import enum
from pathlib import PurePath
from typing import Optional, Tuple

# fmt: off
IMAGE_SUFFIXES = frozenset({
    ".png", ".jpg", ".jpeg", ".jpe", ".jp2", ".bmp", ".dib", ".webp", ".tif", ".tiff", ".gif",
    ".ppm", ".pgm", ".pbm", ".pnm",
})
VIDEO_SUFFIXES = frozenset({
    ".avi", ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".mpg", ".mpeg", ".ts", ".mts", ".wmv",
    ".flv", ".3gp", ".ogv", ".mxf", ".y4m",
})
ARCHIVE_SUFFIXES = frozenset({".tar", ".tgz", ".tbz", ".tbz2", ".txz", ".gz", ".bz2", ".xz"})
# fmt: on

HEAD = 512
"""Bytes that are enough to recognise a file: the mark of a tar is at 257."""


class Content(enum.Enum):
    """What may be in a file."""

    IMAGE = "image"
    VIDEO = "video"
    ARCHIVE = "tar"
    TEXT = "text"
    ZIP = "zip archive"
    UNKNOWN = "unknown"


_STARTS = (
    (b"\x89PNG\r\n\x1a\n", Content.IMAGE, "PNG"),
    (b"\xff\xd8\xff", Content.IMAGE, "JPEG"),
    (b"GIF8", Content.IMAGE, "GIF"),
    (b"II*\x00", Content.IMAGE, "TIFF"),
    (b"MM\x00*", Content.IMAGE, "TIFF"),
    (b"\x00\x00\x00\x0cjP  ", Content.IMAGE, "JPEG 2000"),
    (b"\x1aE\xdf\xa3", Content.VIDEO, "Matroska or WebM"),
    (b"FLV\x01", Content.VIDEO, "Flash video"),
    (b"\x00\x00\x01\xba", Content.VIDEO, "MPEG program stream"),
    (b"\x00\x00\x01\xb3", Content.VIDEO, "MPEG video"),
    (b"OggS", Content.VIDEO, "Ogg"),
    (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", Content.VIDEO, "Windows Media"),
    (b"YUV4MPEG2 ", Content.VIDEO, "YUV4MPEG2"),
    (b"\x06\x0e\x2b\x34\x02\x05\x01\x01", Content.VIDEO, "MXF"),
    (b"#EXTM3U", Content.VIDEO, "HTTP Live Streaming"),
    (b"\x1f\x8b\x08", Content.ARCHIVE, "gzip"),
    (b"BZh", Content.ARCHIVE, "bzip2"),
    (b"\xfd7zXZ\x00", Content.ARCHIVE, "xz"),
    (b"PK\x03\x04", Content.ZIP, "zip"),
)


def recognise(head: bytes, name: str = "") -> Tuple[Content, str]:
    """What a file is.

    Args:
        head: its first ``HEAD`` bytes, fewer if it is shorter.
        name: its name; the suffix decides where the bytes do not.

    Returns:
        The content and the words that say how it was recognised.
    """
    found = _by_bytes(head)
    if found is not None:
        return found[0], f"{found[1]} by its first bytes"
    suffix = PurePath(name).suffix.lower()
    for suffixes, content in (
        (IMAGE_SUFFIXES, Content.IMAGE),
        (VIDEO_SUFFIXES, Content.VIDEO),
        (ARCHIVE_SUFFIXES, Content.ARCHIVE),
    ):
        if suffix in suffixes:
            return content, f"by its suffix {suffix}"
    if _is_text(head):
        return Content.TEXT, "text by its first bytes"
    return Content.UNKNOWN, "neither its first bytes nor its suffix are known"


def _by_bytes(head: bytes) -> Optional[Tuple[Content, str]]:
    for start, content, name in _STARTS:
        if head.startswith(start):
            return content, name
    if head[257:262] == b"ustar":
        return Content.ARCHIVE, "tar"
    if head[:4] == b"RIFF" and head[8:12] in (b"WEBP", b"AVI "):
        if head[8:12] == b"WEBP":
            return Content.IMAGE, "WebP"
        return Content.VIDEO, "AVI"
    if head[4:8] == b"ftyp":
        if head[8:12] in (b"heic", b"heix", b"mif1", b"avif"):
            return Content.IMAGE, "HEIF"
        return Content.VIDEO, "MP4 or QuickTime"
    if head[4:8] in (b"moov", b"mdat", b"wide"):
        return Content.VIDEO, "QuickTime"
    if head[:1] == head[188:189] == head[376:377] == b"\x47":
        return Content.VIDEO, "MPEG transport stream"
    if head[:1] == b"P" and head[1:2] in b"123456" and head[2:3].isspace():
        return Content.IMAGE, "Netpbm"
    if head[:2] == b"BM" and head[6:10] == bytes(4):
        return Content.IMAGE, "BMP"
    return None


def _is_text(head: bytes) -> bool:
    if not head.strip() or b"\x00" in head:
        return False
    try:
        head.decode("utf-8")
    except UnicodeDecodeError as error:
        return error.start >= len(head) - 3 and len(head) >= HEAD  # a letter cut in the middle
    return True
