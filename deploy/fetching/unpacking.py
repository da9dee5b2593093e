"""ZIP archives from strangers: looked at as a whole, then unpacked where nothing can escape.

Refused before a byte is written: names that lead out of the folder, links and devices, encrypted
or doubled entries, and archives that unpack to absurdly more than they are. What was unpacked
before an interruption is not unpacked again.
"""

from __future__ import annotations

import os
import shutil
import stat
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Callable, Dict, List, Optional, Sequence, Tuple

from ...errors import FormatError
from ...files import replacing

MAX_RATIO = 100
"""Unpacked bytes for each byte of the archive; pictures come to about one."""

SMALL = 64 << 20
"""Archives that unpack to no more than this may have any ratio."""

MAX_ENTRIES = 2_000_000
MAX_BYTES = 1 << 40

_JUNK = frozenset({"__MACOSX", ".DS_Store", "Thumbs.db", "desktop.ini"})
_BLOCK = 1 << 18

Progress = Callable[[int, Optional[int]], None]


@dataclass(frozen=True)
class Content:
    """What of an archive is to be unpacked.

    Attributes:
        files: path below the target to entry.
        size: bytes of all of them.
    """

    files: Dict[str, zipfile.ZipInfo]
    size: int


def look_into(archive: zipfile.ZipFile, name: str, holds: Sequence[str]) -> Content:
    """Checks every entry of an archive.

    Args:
        archive: opened for reading.
        name: the archive's, for messages.
        holds: what must be in it, at the top or in one folder, which is then left out.

    Raises:
        FormatError: it is dangerous, damaged or another archive.
    """
    entries = archive.infolist()
    if len(entries) > MAX_ENTRIES:
        raise _refused(name, "too many entries", f"{len(entries)}, {MAX_ENTRIES} at most")
    files: Dict[str, zipfile.ZipInfo] = {}
    size = 0
    for entry in entries:
        path = _checked(entry, name)
        if _JUNK & set(path.parts) or entry.is_dir():
            continue
        if entry.flag_bits & 1:
            raise _refused(name, "an encrypted entry", repr(entry.filename))
        if str(path) in files:
            raise _refused(name, "one name twice", repr(entry.filename))
        files[str(path)] = entry
        size += entry.file_size
    packed = os.path.getsize(str(archive.filename))
    if size > MAX_BYTES or (size > SMALL and size > MAX_RATIO * packed):
        raise _refused(name, "absurdly much in it", f"{packed} bytes unpack to {size}")
    return Content(_below(files, name, holds), size)


def open_archive(path: Path) -> zipfile.ZipFile:
    """Opens an archive.

    Raises:
        FormatError: it is none, or its end is missing.
    """
    try:
        return zipfile.ZipFile(str(path))
    except (zipfile.BadZipFile, zipfile.LargeZipFile, NotImplementedError, ValueError) as error:
        raise FormatError(
            f"{path.name} is no whole ZIP archive", str(error), "fetch it again with --force"
        ) from error


def unpack(
    archive: zipfile.ZipFile, content: Content, folder: Path, name: str, progress: Progress
) -> None:
    """Unpacks into ``folder``; files that are there with the right content are left.

    Raises:
        FormatError: an entry is damaged; what was unpacked before it stays.
    """
    done = 0
    made = set()
    for path in sorted(content.files):
        entry = content.files[path]
        target = folder.joinpath(*path.split("/"))
        if target.parent not in made:
            target.parent.mkdir(parents=True, exist_ok=True)
            made.add(target.parent)
        if not _is_there(target, entry):
            _unpack_one(archive, entry, target, name)
        done += entry.file_size
        progress(done, content.size)


def measure(folder: Path) -> Tuple[int, int]:
    """Number and bytes of the files in a folder, all levels; 0 and 0 where there is none."""
    sizes: List[int] = []
    for place, _, names in os.walk(str(folder)):
        sizes += [os.lstat(os.path.join(place, name)).st_size for name in names]
    return len(sizes), sum(sizes)


def _checked(entry: zipfile.ZipInfo, name: str) -> PurePosixPath:
    """The entry's path, if it stays where it is put."""
    shown = repr(entry.orig_filename)
    path = PurePosixPath(entry.filename)
    outside = path.is_absolute() or ".." in path.parts or (not path.parts and not entry.is_dir())
    if outside or set("\\\0") & set(entry.orig_filename) or ":" in "".join(path.parts[:1]):
        raise _refused(name, "a name that leads out of its folder", shown)
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        what = "a link" if kind == stat.S_IFLNK else "a special file"
        raise _refused(name, what, shown)
    return path


def _below(
    files: Dict[str, zipfile.ZipInfo], name: str, holds: Sequence[str]
) -> Dict[str, zipfile.ZipInfo]:
    """The files by their path below the folder that holds what is asked for."""
    tops = sorted({path.split("/")[0] + "/" for path in files if "/" in path})
    for prefix in ["", *tops]:
        inside = {path[len(prefix) :] for path in files if path.startswith(prefix)}
        parts = {path.split("/")[0] for path in inside}
        if set(holds) <= parts:
            return {
                path[len(prefix) :]: entry
                for path, entry in files.items()
                if path.startswith(prefix)
            }
    found = sorted({path.split("/")[0] for path in files})
    raise FormatError(
        f"{name} is not the archive that is expected",
        f"it holds {', '.join(found[:6]) or 'nothing'}; wanted: {', '.join(holds)}",
        "look at its page; if the archive is right, correct holds in a file for --sources",
    )


def _is_there(target: Path, entry: zipfile.ZipInfo) -> bool:
    if not target.is_file() or target.stat().st_size != entry.file_size:
        return False
    check = 0
    with target.open("rb") as file:
        for block in iter(lambda: file.read(_BLOCK), b""):
            check = zlib.crc32(block, check)
    return check == entry.CRC


def _unpack_one(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, target: Path, name: str) -> None:
    try:
        with replacing(target) as temporary:
            with archive.open(entry) as packed, temporary.open("wb") as file:
                shutil.copyfileobj(packed, file, _BLOCK)
            found = temporary.stat().st_size
            if found != entry.file_size:
                raise zipfile.BadZipFile(f"{found} bytes, {entry.file_size} stated")
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise FormatError(
            f"{name} is damaged",
            f"{entry.filename}: {error or type(error).__name__}",
            "fetch it again with --force",
        ) from error


def _refused(name: str, what: str, evidence: str) -> FormatError:
    return FormatError(
        f"{name} is not unpacked: it has {what}",
        evidence,
        "do not trust this archive; ask where it comes from",
    )
