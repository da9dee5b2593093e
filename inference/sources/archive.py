"""A tar of images and videos, read from its beginning to its end without being unpacked.

Compression (gzip, bzip2, xz) is recognised. Images are decoded from memory; a video goes through
a temporary file of its own. Names inside are only labels, so no name can lead anywhere. What an
archive gives before it turns out to be damaged is kept.
"""

from __future__ import annotations

import contextlib
import functools
import lzma
import re
import tarfile
import zlib
from pathlib import Path
from typing import IO, Any, Iterable, Iterator, Optional, Tuple, Type, cast

from ...errors import FormatError, ToolkitError
from .base import Collection, Read, lost
from .content import HEAD, IMAGE_SUFFIXES, VIDEO_SUFFIXES, Content, recognise
from .images import read_bytes
from .spool import spooled

MOST_IMAGE_BYTES = 256 << 20
"""A larger file is taken for no image; its frame is recorded as not decoded."""

DAMAGE: Tuple[Type[Exception], ...] = (
    tarfile.TarError, EOFError, OSError, zlib.error, lzma.LZMAError, ValueError,
)  # fmt: skip


class TarSource(Collection):
    """A tar archive.

    Args:
        name: what the user named.
        path: the file; ``None`` where ``stream`` is read.
        stream: read instead of a file, once.

    Raises:
        FormatError: it is no tar.
    """

    kind = "mixed"

    def __init__(
        self, name: str, path: Optional[Path] = None, stream: Optional[IO[bytes]] = None
    ) -> None:
        super().__init__(name)
        self._path, self._stream = path, stream
        self.live = stream is not None
        if path is not None:
            try:
                with _opened(path, None):
                    pass
            except DAMAGE as error:
                raise _no_tar(name, error) from error

    def places(self) -> Iterable[Path]:
        """The archive."""
        return [] if self._path is None else [self._path]

    def reads(self) -> Iterator[Read]:
        """The images and videos in the archive's order; what is neither is passed over."""
        given = others = links = 0
        try:
            with _opened(self._path, self._stream) as archive:
                for member in _members(archive):
                    if member.issym() or member.islnk():
                        links += 1
                        continue
                    if not member.isreg():
                        continue
                    file = archive.extractfile(member)
                    content, head = _content(member, file)
                    if file is None or content not in (Content.IMAGE, Content.VIDEO):
                        others += 1
                        continue
                    given += 1
                    name = f"{self.name}/{label(member.name)}"
                    rest = cast(IO[bytes], _Rest(head, file))
                    if content is Content.IMAGE:
                        yield _image(name, member.size, rest)
                    else:
                        yield from self._video(name, member.size, rest)
                _check_end(archive)
        except DAMAGE as error:
            if isinstance(error, ToolkitError):
                raise
            if not given and not others and self._stream is not None:
                raise _no_tar(self.name, error) from error
            self.note(f"the archive is damaged or cut off after {given + others} files: {error}")
        finally:
            if self._stream is not None:
                self._stream.close()
        if links:
            self.note(f"{links} links were not followed")
        if not given:
            self.note(f"no image or video among {others} files")

    def _video(self, name: str, size: int, file: IO[bytes]) -> Iterator[Read]:
        try:
            with spooled(name, file, size) as video:
                yield from self.read_part(video)
        except ToolkitError as error:
            yield lost(name, f"{error.cause}: {error.evidence}" if error.evidence else error.cause)


def label(name: str) -> str:
    """The name of a member without what would lead anywhere or upset a terminal."""
    parts = [part for part in name.split("/") if part not in ("", ".", "..")]
    return re.sub(r"[\x00-\x1f\x7f]", "?", "/".join(parts)) or "unnamed"


class _Member(tarfile.TarInfo):
    """Remembers how the headers ended, which ``tarfile`` keeps to itself."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> Any:
        try:
            return super().fromtarfile(archive)
        except tarfile.TarError as error:
            archive.ended = error  # type: ignore[attr-defined]
            raise


class _Rest:
    """A member's file, with the bytes at its head that were looked at before."""

    def __init__(self, head: bytes, file: IO[bytes]) -> None:
        self._head, self._file = head, file

    def read(self, size: int = -1) -> bytes:
        """Like that of a file."""
        head, self._head = self._head, b""
        if not head:
            return self._file.read(size)
        return head + self._file.read(size if size < 0 else max(0, size - len(head)))


@contextlib.contextmanager
def _opened(path: Optional[Path], stream: Optional[IO[bytes]]) -> Iterator[tarfile.TarFile]:
    name = None if path is None else str(path)
    with tarfile.open(name, "r|*", fileobj=stream, tarinfo=_Member) as archive:
        yield archive


def _members(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    while True:
        member = archive.next()
        if member is None:
            return
        yield member
        archive.members = []  # type: ignore[attr-defined]  # else it keeps one for every file


def _content(member: tarfile.TarInfo, file: Optional[IO[bytes]]) -> Tuple[Content, bytes]:
    path = Path(member.name)
    suffix = path.suffix.lower()
    if path.name.startswith("._"):  # what macOS keeps beside its files
        return Content.UNKNOWN, b""
    if suffix in IMAGE_SUFFIXES:
        return Content.IMAGE, b""
    if suffix in VIDEO_SUFFIXES:
        return Content.VIDEO, b""
    if suffix or file is None:
        return Content.UNKNOWN, b""
    head = file.read(HEAD)
    return recognise(head)[0], head


def _image(name: str, size: int, file: IO[bytes]) -> Read:
    if size > MOST_IMAGE_BYTES:
        return lost(name, f"{size} bytes are too many for an image")
    return functools.partial(read_bytes, name, file.read())


def _check_end(archive: tarfile.TarFile) -> None:
    ended = getattr(archive, "ended", None)
    if isinstance(ended, tarfile.EOFHeaderError):  # type: ignore[attr-defined]
        return
    if isinstance(ended, tarfile.EmptyHeaderError):  # type: ignore[attr-defined]
        raise tarfile.ReadError("its end mark is missing")
    raise tarfile.ReadError(str(ended or "no end was found"))


def _no_tar(name: str, error: Exception) -> FormatError:
    return FormatError(
        f"{name} is not a tar archive that can be read", str(error), "check it with: tar tf FILE"
    )
