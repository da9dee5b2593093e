"""Which files a journal is about: listed in a stream at first, compared with the listing later."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Dict, Iterable, Iterator, List, Optional, Sequence, Tuple

from .base import Journal, Say
from .tables import Tables, stored

CHUNK = 1000

Listed = Tuple[str, str]
"""``image`` or ``video``, and the path as it is named in the records."""


@dataclass(frozen=True)
class Input:
    """What a user named.

    Attributes:
        name: as typed.
        kind: of the source, for the summary: ``images``, ``video`` or ``mixed``.
        files: lists its files in order; may be called again.
    """

    name: str
    kind: str
    files: Callable[[], Iterable[Listed]]


def plan(
    journal: Journal,
    inputs: Sequence[Input],
    say: Say,
    check: Callable[[str], None] = lambda path: None,
) -> None:
    """Enters all files of the inputs, or compares those entered with what is there now.

    A file that has changed since it was read (its bytes, not only its time) is done again; new
    files are added behind the others, but not those in the output folder: what runs have written.
    Results of files that are no longer listed are kept.

    Args:
        journal: to be planned.
        inputs: what the user named; the same whenever the journal is opened.
        say: told what differs.
        check: raises what there is against a file; called with each at first.
    """
    tables = journal.tables
    planned = False
    with tables.transaction():
        if not tables.get("planned"):
            planned = True
            for number, given in enumerate(inputs):
                tables.change(
                    "INSERT INTO sources (number, name, kind) VALUES (?, ?, ?)",
                    (number, stored(given.name), given.kind),
                )
                names = _Names(tables)
                twice = 0
                for kind, path in given.files():
                    check(path)
                    twice += not names.add(number, kind, path)
                if twice:
                    say(f"{given.name}: {twice} files are listed more than once, each is done once")
            tables.set("planned", "1")
            journal.changed()
    if not planned:
        _compare(journal, inputs, say)


def _compare(journal: Journal, inputs: Sequence[Input], say: Say) -> None:
    tables = journal.tables
    ours = _Inside(journal.output)
    listed = 0
    changed: List[str] = []
    added: List[str] = []
    for number, given in enumerate(inputs):
        for chunk in _chunks(given.files()):
            fresh = []
            stale = []
            seen = set()
            for kind, path in chunk:
                row = _row(tables, number, path)
                if row is None:
                    if path not in ours:
                        fresh.append((kind, path))
                elif row[0] not in seen:
                    seen.add(row[0])
                    item, state, size, mtime, digest = row
                    if state in ("done", "failed") and _differs(path, size, mtime, digest):
                        stale.append(item)
                        changed.append(path)
            listed += len(seen)
            if fresh or stale:
                with tables.transaction():
                    names = _Names(tables)
                    added += [path for kind, path in fresh if names.add(number, kind, path)]
                    for item in stale:
                        tables.change(
                            "UPDATE items SET state = 'new' WHERE number = ? "
                            "AND state IN ('done', 'failed')",
                            (item,),
                        )
                    journal.changed()
    gone = tables.rows("SELECT count(*) FROM items")[0][0] - listed - len(added)
    if changed:
        say(f"{len(changed)} files have changed and are done again: {_some(changed)}")
    if added:
        say(f"{len(added)} files are new: {_some(added)}")
    if gone > 0:
        say(f"{gone} files of the journal are no longer there; what was found in them is kept")


class _Inside:
    """Tells the files in a folder and below it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder.resolve()
        self._known: Dict[str, bool] = {}

    def __contains__(self, path: str) -> bool:
        parent = os.path.dirname(path)
        if parent not in self._known:
            place = Path(parent).resolve()
            self._known[parent] = place == self._folder or self._folder in place.parents
        return self._known[parent]


class _Names:
    """Enters items, each with a name for its pictures that no other has, whatever its case."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._last: Dict[str, int] = {}

    def add(self, source: int, kind: str, path: str) -> bool:
        """Enters one item; whether it was not there yet."""
        if _row(self._tables, source, path) is not None:
            return False
        stem = Path(path).stem
        if kind == "video":
            stem = f"overlay-{stem}"
        self._tables.change(
            "INSERT INTO items (source, kind, path, name, state) VALUES (?, ?, ?, ?, 'new')",
            (source, kind, stored(path), stored(self._free(stem))),
        )
        return True

    def _free(self, stem: str) -> str:
        name, number = stem, self._last.get(stem.lower(), 1)
        while self._taken(name if number == 1 else f"{stem}-{number}"):
            number += 1
        if number > 1:  # few stems occur twice; only those are remembered
            name = f"{stem}-{number}"
            self._last[stem.lower()] = number
        return name

    def _taken(self, name: str) -> bool:
        query = "SELECT 1 FROM items WHERE name = ?"
        return bool(self._tables.rows(query, (stored(name),)))


def digest_of(path: Path, stop: Callable[[], bool] = lambda: False) -> Optional[str]:
    """SHA-256 of a file; ``None`` where it cannot be read, or ``stop`` says so on the way."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            for data in iter(lambda: file.read(1 << 20), b""):
                digest.update(data)
                if stop():
                    return None
    except OSError:
        return None
    return digest.hexdigest()


def _row(tables: Tables, source: int, path: str) -> Optional[Tuple[int, str, int, int, str]]:
    rows = tables.rows(
        "SELECT number, state, size, mtime, sha256 FROM items WHERE source = ? AND path = ?",
        (source, stored(path)),
    )
    return rows[0] if rows else None


def _differs(path: str, size: Optional[int], mtime: Optional[int], digest: Optional[str]) -> bool:
    """Whether a file is there and is not the one that was read."""
    with contextlib.suppress(OSError):
        found = os.stat(path)
        if (found.st_size, found.st_mtime_ns) == (size, mtime):
            return False
        return size != found.st_size or digest is None or digest_of(Path(path)) != digest
    return False


def _chunks(files: Iterable[Listed]) -> Iterator[List[Listed]]:
    rest = iter(files)
    while True:
        chunk = list(itertools.islice(rest, CHUNK))
        if not chunk:
            return
        yield chunk


def _some(paths: Sequence[str]) -> str:
    return ", ".join(paths[:3]) + (", ..." if len(paths) > 3 else "")
