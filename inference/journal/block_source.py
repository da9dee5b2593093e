"""The files of one block as a source; each is identified by what was read of it."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import threading
from pathlib import Path
from typing import Dict, Iterator, Optional, Tuple

from ...errors import ToolkitError
from ..records import Frame, Status
from ..sources.base import Collection, Read, lost
from ..sources.files import read_file
from ..sources.images import read_bytes
from .base import Block
from .planning import digest_of

Identity = Tuple[Optional[int], Optional[int], Optional[str]]
"""Size, time in nanoseconds and SHA-256 of what was read."""


class BlockSource(Collection):
    """The files of one block.

    A file that cannot be opened gives one record that says so. Each is identified while it is
    read: images by the bytes that are decoded, videos by a second reading beside the decoder.

    Args:
        block: what to read.

    Attributes:
        failures: why a file could not be read to its end, by path.
    """

    def __init__(self, block: Block) -> None:
        super().__init__(block.items[0].path)
        self.block = block
        self.kind = "images" if block.kind == "image" else "video"
        self.failures: Dict[str, str] = {}
        self._found: Dict[str, Identity] = {}
        self._digest: Optional[_Digest] = None

    def reads(self) -> Iterator[Read]:
        """One call per image; the frames of a video as it is decoded."""
        if self.block.kind == "image":
            for item in self.block.items:
                yield functools.partial(self._image, item.path)
            return
        path = self.block.items[0].path
        self._digest = _Digest(path)
        count = 0
        try:
            for read in read_file(self, path):
                count += 1
                yield read
        except (ToolkitError, OSError, ValueError) as error:
            self.failures[path] = str(error) or type(error).__name__
            if not count:
                yield lost(path, self.failures[path])

    def identity(self, path: str) -> Identity:
        """What was read of a file; waits for the digest of a video."""
        if self._digest is not None:
            return self._digest.wait()
        return self._found.get(path, (None, None, None))

    def give_up(self) -> None:
        """Ends what still runs beside the reading."""
        if self._digest is not None:
            self._digest.stopped = True

    def _image(self, path: str) -> Frame:
        try:
            with open(path, "rb") as file:
                status = os.fstat(file.fileno())
                data = file.read()
        except OSError as error:
            return Frame(path, 0, None, None, Status.DECODE_ERROR, error.strerror or str(error))
        digest = hashlib.sha256(data).hexdigest()
        self._found[path] = (len(data), status.st_mtime_ns, digest)
        return read_bytes(path, data)


class _Digest:
    """The identity of a file, found on a thread of its own."""

    def __init__(self, path: str) -> None:
        self.stopped = False
        self._path = path
        self._identity: Identity = (None, None, None)
        self._thread = threading.Thread(target=self._run, name="digest", daemon=True)
        self._thread.start()

    def wait(self) -> Identity:
        self._thread.join()
        return self._identity

    def _run(self) -> None:
        with contextlib.suppress(OSError):
            status = os.stat(self._path)
            digest = digest_of(Path(self._path), lambda: self.stopped)
            self._identity = (status.st_size, status.st_mtime_ns, digest)
