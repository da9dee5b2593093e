"""The journal's SQLite file: its tables, and transactions that wait for their turn.

The default rollback journal with ``synchronous = EXTRA``: what was committed survives a power
failure, and several processes may write. Nothing needs an SQLite newer than 3.8.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
from pathlib import Path
from typing import Any, Callable, Iterator, List, Sequence, TypeVar, Union

from ...errors import FormatError, WorkError

T = TypeVar("T")

APPLICATION = 0x6A6F7572
"""``application_id`` in the header: the file is a journal."""

VERSION = 1

PATIENCE = 900.0
"""Seconds to wait for another process that writes; planning a million items takes a while."""

SCHEMA = (
    "CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID",
    "CREATE TABLE sources (number INTEGER PRIMARY KEY, name TEXT, kind TEXT)",
    "CREATE TABLE workers (worker TEXT PRIMARY KEY, device TEXT, begun REAL, seen REAL, "
    "ended REAL) WITHOUT ROWID",
    "CREATE TABLE blocks (number INTEGER PRIMARY KEY AUTOINCREMENT, worker TEXT, kind TEXT, "
    "state TEXT, begun REAL, ended REAL, seconds REAL, frames INTEGER)",
    "CREATE INDEX blocks_by_state ON blocks (state, number)",
    "CREATE TABLE items (number INTEGER PRIMARY KEY, source INTEGER, kind TEXT, path TEXT, "
    "name TEXT COLLATE NOCASE, state TEXT, reason TEXT, block INTEGER, size INTEGER, "
    "mtime INTEGER, sha256 TEXT, frames INTEGER, judged INTEGER, left_out INTEGER, notes TEXT, "
    "places TEXT)",
    "CREATE UNIQUE INDEX items_by_path ON items (source, path)",
    "CREATE UNIQUE INDEX items_by_name ON items (name)",
    "CREATE INDEX items_by_state ON items (state, number)",
)
"""States of an item: ``new``, ``claimed``, ``done``, ``failed``; of a block: ``claimed``, ``done``,
``released``. Times are seconds since 1970."""

_BUSY = 5.0


class Tables:
    """The file, opened; may be used on several threads.

    Args:
        path: the file; made if it is not there.

    Raises:
        FormatError: the file is something else, or damaged.
        WorkError: it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.RLock()
        with self._explained():
            self._base = sqlite3.connect(
                str(path), timeout=_BUSY, isolation_level=None, check_same_thread=False
            )
            self._base.execute("PRAGMA synchronous = EXTRA")
        try:
            with self.transaction():
                self._enter()
        except BaseException:
            self._base.close()
            raise

    def close(self) -> None:
        """Closes the file."""
        with self._lock:
            self._base.close()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """A transaction that writes; all of it happens, or nothing.

        Raises:
            WorkError: it cannot be written: the disk is full, or another process does not end.
        """
        with self._lock, self._explained():
            _patiently(lambda: self._base.execute("BEGIN IMMEDIATE"))
            try:
                yield
                _patiently(lambda: self._base.execute("COMMIT"))
            except BaseException:
                with contextlib.suppress(sqlite3.Error):  # a full disk has rolled back by itself
                    self._base.execute("ROLLBACK")
                raise

    def rows(self, statement: str, values: Sequence[Any] = ()) -> List[Any]:
        """All rows of a query."""
        with self._lock, self._explained():
            return _patiently(lambda: self._base.execute(statement, values).fetchall())

    def stream(self, statement: str, values: Sequence[Any] = ()) -> Iterator[Any]:
        """The rows of a query one after the other, for results larger than memory."""
        with self._lock, self._explained():
            cursor = _patiently(lambda: self._base.execute(statement, values))
        while True:
            with self._lock, self._explained():
                rows = cursor.fetchmany(1000)
            if not rows:
                return
            yield from rows

    def change(self, statement: str, values: Sequence[Any] = ()) -> int:
        """Makes a change, inside a transaction; returns how many rows it met."""
        return self._base.execute(statement, values).rowcount

    def change_many(self, statement: str, values: Sequence[Sequence[Any]]) -> None:
        """Makes a change once for each of ``values``, inside a transaction."""
        self._base.executemany(statement, values)

    def insert(self, statement: str, values: Sequence[Any]) -> int:
        """Adds a row, inside a transaction; returns its number."""
        return int(self._base.execute(statement, values).lastrowid or 0)

    def get(self, name: str, default: str = "") -> str:
        """An entry of ``meta``."""
        rows = self.rows("SELECT value FROM meta WHERE name = ?", (name,))
        return str(rows[0][0]) if rows else default

    def set(self, name: str, value: str) -> None:
        """Changes an entry of ``meta``, inside a transaction."""
        self.change("INSERT OR REPLACE INTO meta (name, value) VALUES (?, ?)", (name, value))

    def _enter(self) -> None:
        found = self._base.execute("PRAGMA application_id").fetchone()[0]
        if not self._base.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            self._base.execute(f"PRAGMA application_id = {APPLICATION}")
            self._base.execute(f"PRAGMA user_version = {VERSION}")
            for statement in SCHEMA:
                self._base.execute(statement)
            return
        version = self._base.execute("PRAGMA user_version").fetchone()[0]
        if found != APPLICATION or version != VERSION:
            raise FormatError(
                f"{self.path} is not a journal of this version",
                f"its application_id is {found}, its version {version}, wanted {VERSION}",
                "start over with --fresh, or choose another -o",
            )

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            text = str(error)
            if "not a database" in text or "malformed" in text:
                raise FormatError(
                    f"The journal {self.path} is damaged",
                    f"SQLite says: {text}",
                    "start over with --fresh, or choose another -o",
                ) from error
            raise WorkError(
                f"The journal {self.path} cannot be written",
                f"SQLite says: {text}",
                "make room or end who holds it, then type the same command again: what was done "
                "until then is kept",
            ) from error


def stored(text: str) -> Union[str, bytes]:
    """A file name for SQLite, which takes as text only what is UTF-8."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return os.fsencode(text)
    return text


def loaded(value: Union[str, bytes]) -> str:
    """What ``stored`` made it of."""
    return os.fsdecode(value) if isinstance(value, bytes) else value


def _patiently(call: Callable[[], T]) -> T:
    """Makes the call, again while another process holds the file."""
    limit = time.monotonic() + PATIENCE
    while True:
        try:
            return call()
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > limit:
                raise
            time.sleep(0.01)
