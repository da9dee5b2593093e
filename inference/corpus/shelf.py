"""Where the files of a data set are: in a folder, or in a tar that is read without being unpacked.

Names are paths with ``/`` from the folder's or the archive's top. Members of a tar are found by
their offsets, so that any of them can be read at any time and by any thread; a compressed one is
unzipped once into a temporary file for that.
"""

from __future__ import annotations

import abc
import bz2
import contextlib
import gzip
import lzma
import os
import shutil
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any, Dict, Iterator, List, Optional, cast

from ...errors import FormatError, MissingError, WorkError
from ..sources.archive import DAMAGE, label

SPARE = 64 << 20
"""Bytes that are left free on the disk."""

BLOCK = 1 << 20
BLOCKING = 512
"""Bytes of a block of a tar."""

_OPENERS: Dict[bytes, Any] = {b"\x1f\x8b": gzip.open, b"BZ": bz2.open, b"\xfd7": lzma.open}


class Shelf(abc.ABC):
    """The files of a data set.

    Attributes:
        text: what the user named.
        names: the files, sorted.
        notes: what was found wrong with the place itself.
        damaged: whether files of it are lost.
    """

    text: str
    names: List[str]
    notes: List[str]
    damaged: bool = False

    @abc.abstractmethod
    def size(self, name: str) -> int:
        """Bytes of a file."""

    @abc.abstractmethod
    def stamp(self, name: str) -> str:
        """Changes when the file does: size and time."""

    @abc.abstractmethod
    def read(self, name: str, most: int = -1) -> bytes:
        """The content of a file, or its first ``most`` bytes; on any thread."""

    @abc.abstractmethod
    def file(self, name: str) -> Any:
        """A context that gives a path on the disk with the content of a file."""

    def path(self, name: str) -> str:
        """How a person names the file."""
        return f"{self.text.rstrip('/')}/{name}"

    def close(self) -> None:
        """Removes what is temporary."""
        return

    def __enter__(self) -> Shelf:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class FolderShelf(Shelf):
    """A folder and what is below it; hidden files and folders are passed over."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.root = Path(text)
        self.notes = []
        self.names = []
        for folder, inside, files in os.walk(text):
            inside[:] = sorted(name for name in inside if not name.startswith("."))
            at = Path(folder).relative_to(self.root)
            self.names += [
                (at / name).as_posix() for name in files if not name.startswith(".")
            ]  # fmt: skip
        self.names.sort()

    def size(self, name: str) -> int:
        """Bytes of a file."""
        return (self.root / name).stat().st_size

    def stamp(self, name: str) -> str:
        """Size and time of change in nanoseconds."""
        state = (self.root / name).stat()
        return f"{state.st_size}-{state.st_mtime_ns}"

    def read(self, name: str, most: int = -1) -> bytes:
        """The content."""
        with (self.root / name).open("rb") as file:
            return file.read(most)

    @contextlib.contextmanager
    def file(self, name: str) -> Iterator[Path]:
        """The file itself."""
        yield self.root / name


@dataclass(frozen=True)
class _Member:
    offset: int
    size: int
    time: int


class TarShelf(Shelf):
    """A tar archive; links in it are not followed.

    Raises:
        FormatError: it is no tar that can be read.
        WorkError: there is no room to unzip it.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.notes = []
        self._temporary: Optional[str] = None
        self._path = text
        self._members: Dict[str, _Member] = {}
        try:
            self._unzip(Path(text))
            self._list()
        except BaseException:
            self.close()
            raise
        self.names = sorted(self._members)

    def size(self, name: str) -> int:
        """Bytes of a member."""
        return self._members[name].size

    def stamp(self, name: str) -> str:
        """Size and the time written in the archive."""
        member = self._members[name]
        return f"{member.size}-{member.time}"

    def read(self, name: str, most: int = -1) -> bytes:
        """The content of a member."""
        member = self._members[name]
        with open(self._path, "rb") as file:
            file.seek(member.offset)
            return file.read(member.size if most < 0 else min(most, member.size))

    @contextlib.contextmanager
    def file(self, name: str) -> Iterator[Path]:
        """A temporary copy of a member, with its suffix."""
        member = self._members[name]
        _check_room(self.path(name), member.size)
        suffix = PurePosixPath(name).suffix[:16]
        handle, path = tempfile.mkstemp(suffix=suffix, prefix="deepfake-fpga-")
        try:
            with os.fdopen(handle, "wb") as copy, open(self._path, "rb") as file:
                file.seek(member.offset)
                left = member.size
                while left:
                    block = file.read(min(BLOCK, left))
                    if not block:
                        break
                    copy.write(block)
                    left -= len(block)
            yield Path(path)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)

    def close(self) -> None:
        """Removes the unzipped copy."""
        if self._temporary is not None:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._temporary)
            self._temporary = None

    def _unzip(self, path: Path) -> None:
        with path.open("rb") as file:
            opener = _OPENERS.get(file.read(2))
        if opener is None:
            return
        _check_room(self.text, 2 * path.stat().st_size)
        handle, self._temporary = tempfile.mkstemp(suffix=".tar", prefix="deepfake-fpga-")
        self._path = self._temporary
        with os.fdopen(handle, "wb") as plain:
            try:
                with opener(str(path), "rb") as file:
                    stream = cast(IO[bytes], file)
                    for number, block in enumerate(iter(lambda: stream.read(BLOCK), b"")):
                        if not number % 64:
                            _check_room(self.text, 0)
                        plain.write(block)
            except WorkError:
                raise
            except DAMAGE as error:
                self._damage(f"{self.text} is damaged or cut off: {error}")
            length = plain.tell()
        if not length:
            raise _no_tar(self.text, "; ".join(self.notes) or "it holds nothing")

    def _damage(self, note: str) -> None:
        self.damaged = True
        self.notes.append(note)

    def _list(self) -> None:
        length = os.path.getsize(self._path)
        links = end = 0
        try:
            with tarfile.open(self._path, "r:") as archive:
                for member in archive:
                    name = label(member.name)
                    end = member.offset_data
                    if member.isreg():
                        end += -(-member.size // BLOCKING) * BLOCKING
                    if member.issym() or member.islnk():
                        links += 1
                    if not member.isreg() or _hidden(name):
                        continue
                    if member.issparse():
                        self.notes.append(f"{self.path(name)} is sparse and passed over: unpack it")
                        continue
                    if member.offset_data + member.size > length:
                        self._damage(f"{self.path(name)} is cut off with the archive")
                        continue
                    if name in self._members:
                        self.notes.append(f"{self.path(name)} is there twice; the last one counts")
                    self._members[name] = _Member(
                        member.offset_data, member.size, int(member.mtime)
                    )
        except DAMAGE as error:
            if not self._members:
                raise _no_tar(self.text, str(error)) from error
            self._damage(f"{self.text} is damaged or cut off: {error}")
        else:
            # Without its end mark an archive ends for tarfile as if all were well.
            with open(self._path, "rb") as file:
                file.seek(end)
                if file.read(BLOCKING) != bytes(BLOCKING):
                    self._damage(f"{self.text} is cut off: its end mark is missing")
        if links:
            self.notes.append(f"{self.text}: {links} links were not followed")


def open_shelf(text: str) -> Shelf:
    """The folder or tar a user named.

    Raises:
        MissingError: there is nothing of that name.
        FormatError: it is a file, but no tar.
    """
    path = Path(text)
    if path.is_dir():
        return FolderShelf(text)
    if not path.exists():
        raise MissingError(f"There is no folder or archive {text}", "", "check the path")
    return TarShelf(text)


def _hidden(name: str) -> bool:
    return any(part.startswith(".") for part in name.split("/"))


def _check_room(name: str, size: int) -> None:
    folder = tempfile.gettempdir()
    free = shutil.disk_usage(folder).free
    if size + SPARE > free:
        raise WorkError(
            f"There is no room for {name} in {folder}",
            f"{free / 1e6:.0f} MB are free",
            "set TMPDIR to a folder with more room, or unpack the archive",
        )


def _no_tar(name: str, seen: str) -> FormatError:
    return FormatError(
        f"{name} is neither a folder nor a tar archive that can be read",
        seen,
        "check it with: tar tf FILE",
    )
