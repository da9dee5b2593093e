"""Where a data set is written to: a folder, or a tar that appears when it is complete.

What is meant for a tar is collected in a folder beside it, so that an interrupted run can be
taken up again; the tar holds no times and no owners, so equal content is an equal file.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import shutil
import tarfile
from pathlib import Path
from typing import IO, Any, Dict, Iterator, List, Optional, cast

from ...errors import UsageError, WorkError
from ...files import replacing
from ..sources.listing import natural_key

TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz")


class Parcel:
    """The place a data set is written to.

    Args:
        target: a folder, or a file that ends in one of ``TAR_SUFFIXES``.

    Attributes:
        target: as given.
        folder: where files are written; the target itself if that is a folder.
        tar: whether the target is a tar.

    Raises:
        UsageError: there is something of that name that is not to be overwritten.
    """

    def __init__(self, target: Path) -> None:
        self.target = target
        self.tar = target.name.endswith(TAR_SUFFIXES)
        self.folder = target
        if self.tar:
            self.folder = target.with_name(f".{target.name}.work")
            if target.exists():
                raise UsageError(
                    f"{target} is there already", "", "name another file, or remove it"
                )
        elif target.exists() and not target.is_dir():
            raise UsageError(
                f"{target} is a file", f"a tar ends in {', '.join(TAR_SUFFIXES)}", "name a folder"
            )

    def write(self, name: str, content: bytes) -> None:
        """Writes a file, whole or not at all; on any thread.

        Raises:
            WorkError: it cannot be written.
        """
        try:
            with replacing(self.folder / name) as temporary:
                temporary.write_bytes(content)
        except OSError as error:
            raise WorkError(
                f"{self.folder / name} cannot be written",
                error.strerror or str(error),
                "see whether the disk is full, then run the same again: it goes on where it was",
            ) from error

    def write_json(self, name: str, value: Any) -> None:
        """Writes a JSON file."""
        text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        self.write(name, text.encode("utf-8", "backslashreplace"))

    def finish(self) -> None:
        """Makes the tar of what was written, and removes the folder it was collected in."""
        if not self.tar:
            return
        with replacing(self.target) as temporary, temporary.open("wb") as file:
            if self.target.name.endswith(".tar"):
                _pack(self.folder, file)
            else:
                with gzip.GzipFile("", "wb", 6, file, mtime=0) as zipped:
                    _pack(self.folder, cast(IO[bytes], zipped))
        shutil.rmtree(str(self.folder), ignore_errors=True)


class Journal:
    """What has been done already: one JSON object a line, added as work is finished.

    Args:
        path: the file; a line that an interruption cut off is passed over.
        settings: what decides about the results; the first line.

    Raises:
        UsageError: the folder was written with other settings.
    """

    def __init__(self, path: Path, settings: Dict[str, Any]) -> None:
        self.path = path
        self.settings: Dict[str, Any] = json.loads(json.dumps(settings))
        self.done: Dict[str, Dict[str, Any]] = {}
        self._file: Optional[IO[str]] = None
        lines = list(_lines(path))
        if lines:
            self._check(lines[0])
            self.done = {line["video"]: line for line in lines[1:] if "video" in line}

    def __enter__(self) -> Journal:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._rewrite()  # without what was cut off
        self._file = self.path.open("a", encoding="utf-8", errors="backslashreplace")
        return self

    def __exit__(self, *_: object) -> None:
        assert self._file is not None
        self._file.close()
        self._rewrite()

    def add(self, line: Dict[str, Any]) -> None:
        """Keeps what was done about ``line["video"]``."""
        assert self._file is not None
        self.done[line["video"]] = line
        self._file.write(_text(line))
        self._file.flush()

    def _rewrite(self) -> None:
        with replacing(self.path) as temporary:
            lines = [self.settings]
            lines += [self.done[name] for name in sorted(self.done, key=natural_key)]
            text = "".join(map(_text, lines))
            temporary.write_bytes(text.encode("utf-8", "backslashreplace"))

    def _check(self, first: Dict[str, Any]) -> None:
        if first == self.settings:
            return
        names = sorted(
            name for name in {*first, *self.settings} if first.get(name) != self.settings.get(name)
        )
        changed = "; ".join(
            f"{name} was {first.get(name)}, now {self.settings.get(name)}" for name in names
        )
        raise UsageError(
            f"{self.path.parent} was written with other settings",
            changed,
            "name another folder, or remove it",
        )


def _lines(path: Path) -> Iterator[Dict[str, Any]]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return
    for line in text.splitlines():
        try:
            value = json.loads(line)
        except ValueError:
            continue  # cut off
        if isinstance(value, dict):
            yield value


def _text(line: Dict[str, Any]) -> str:
    return json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n"


def _pack(folder: Path, file: IO[bytes]) -> None:
    names: List[str] = []
    for place, inside, files in os.walk(str(folder)):
        inside.sort()
        at = Path(place).relative_to(folder)
        # A killed run leaves temporary files, whose names begin with a dot.
        names += [(at / name).as_posix() for name in files if not name.startswith(".")]
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name in sorted(names):
            member = tarfile.TarInfo(name)
            content = (folder / name).read_bytes()
            member.size, member.mode = len(content), 0o644
            archive.addfile(member, io.BytesIO(content))
