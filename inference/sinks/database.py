"""The records of runs as an SQLite database, which can be read while it grows.

Each run adds a row to ``runs`` and its records to ``frames``, so the runs of one folder can be
compared. There is no temporary name: what is in the database is whole at any time, also after the
process was killed, and ``runs.complete`` says whether a run came to its end.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import sqlite3
import time
from pathlib import Path
from typing import Any, Iterator, List, Mapping, Optional

from ...errors import FormatError, WorkError
from ..records import FIELDS, FrameResult
from .base import Sink

APPLICATION = 0x64466631
"""``application_id`` in the header: the database is one of ours."""

ROWS = 1000
SECONDS = 1.0
"""A transaction ends after so many rows or so many seconds: what a crash loses at most."""

BUSY_SECONDS = 30.0

_TYPES = {
    "source": "TEXT",
    "frame": "INTEGER",
    "time": "REAL",
    "fake_probability": "REAL",
    "verdict": "TEXT",
    "mask_fraction": "REAL",
    "device": "TEXT",
    "status": "TEXT",
    "reason": "TEXT",
    "track": "INTEGER",
    "box": "TEXT",
}

_TABLES = (
    "CREATE TABLE IF NOT EXISTS runs (id INTEGER PRIMARY KEY, started TEXT NOT NULL, "
    "ended TEXT, complete INTEGER)",
    "CREATE TABLE IF NOT EXISTS frames (run INTEGER NOT NULL REFERENCES runs (id), "
    "number INTEGER NOT NULL, {columns}, PRIMARY KEY (run, number)) WITHOUT ROWID",
)

_INDICES = (
    "CREATE INDEX IF NOT EXISTS frames_by_source ON frames (source, frame)",
    "CREATE INDEX IF NOT EXISTS frames_by_verdict ON frames (verdict, fake_probability)",
)


class DatabaseSink(Sink):
    """Adds a run to ``records.sqlite``.

    ``frames`` has the fields of the records and two more: ``run``, and ``number``, the place of
    the record in its run. ``runs`` has ``started`` and ``ended`` (UTC), ``complete`` (1, 0 for one
    that ended early, ``NULL`` while it lasts and after a crash) and what ``about`` says.

    Args:
        path: the file.
        about: columns of ``runs`` and their texts or numbers.
    """

    def __init__(self, path: Path, about: Optional[Mapping[str, Any]] = None) -> None:
        self.path = path
        self.about = dict(about or {})
        self.run = 0
        self._base: Optional[sqlite3.Connection] = None
        self._rows: List[List[Any]] = []
        self._number = 0
        self._due = 0.0
        marks = ", ".join("?" * (len(FIELDS) + 2))
        self._insert = f"INSERT INTO frames (run, number, {', '.join(FIELDS)}) VALUES ({marks})"

    def check(self) -> None:
        """Refuses a file that is something else, before any work is done for it.

        Raises:
            FormatError: it is no database, or somebody else's.
        """
        if self.path.is_file():
            with self._explained(), contextlib.closing(sqlite3.connect(str(self.path))) as base:
                self._refuse_others(base)

    def open(self) -> None:
        """Makes the database, or extends the one that is there, and enters the run.

        Raises:
            FormatError: the file is something else.
            WorkError: it cannot be written.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with self._explained():
                self._base = sqlite3.connect(
                    str(self.path), timeout=BUSY_SECONDS, isolation_level=None
                )
                self._refuse_others(self._base)
                self._base.execute("PRAGMA journal_mode = WAL")  # or as before, where it cannot
                self._base.execute("PRAGMA synchronous = NORMAL")
                with _transaction(self._base):
                    self.run = self._enter(self._base)
        except BaseException:
            self._release()
            raise
        self._due = time.monotonic() + SECONDS

    def write(self, result: FrameResult, rendered: Any) -> None:
        """Keeps the rows of its parts until their transaction is due."""
        for part in result.parts:
            record = part.to_json()
            values = [_storable(record[field]) for field in FIELDS]
            self._rows.append([self.run, self._number, *values])
            self._number += 1
        if len(self._rows) >= ROWS or time.monotonic() > self._due:
            self._commit()

    def close(self, complete: bool) -> None:
        """Writes the rest, says how the run ended and closes the database."""
        if self._base is None:
            return
        try:
            self._commit()
            with self._explained():
                self._base.execute(
                    "UPDATE runs SET ended = ?, complete = ? WHERE id = ?",
                    (_now(), int(complete), self.run),
                )
        finally:
            self._release()

    def outputs(self) -> List[Path]:
        """The file."""
        return [self.path] if self.run else []

    def _release(self) -> None:
        if self._base is not None:
            self._base.close()
            self._base = None

    def _commit(self) -> None:
        assert self._base is not None
        with self._explained(), _transaction(self._base):
            self._base.executemany(self._insert, self._rows)
        self._rows = []
        self._due = time.monotonic() + SECONDS

    def _refuse_others(self, base: sqlite3.Connection) -> None:
        """Leaves a database that somebody else made alone."""
        found = base.execute("PRAGMA application_id").fetchone()[0]
        tables = base.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if tables and found != APPLICATION:
            raise FormatError(
                f"The database {self.path} is not one of a run",
                f"its application_id is {found}",
                "move it away, or choose another -o",
            )

    def _enter(self, base: sqlite3.Connection) -> int:
        """The tables with all their columns, and a row for the run; its number."""
        columns = {field: _TYPES.get(field, "") for field in FIELDS}
        listed = ", ".join(f"{name} {kind}" for name, kind in columns.items())
        base.execute(f"PRAGMA application_id = {APPLICATION}")
        for table in _TABLES:
            base.execute(table.format(columns=listed))
        # A database of an earlier version lacks what has been added since.
        for table, wanted in (("runs", dict.fromkeys(self.about, "")), ("frames", columns)):
            known = {row[1] for row in base.execute(f"PRAGMA table_info({table})")}
            for name in [name for name in wanted if name not in known]:
                base.execute(f"ALTER TABLE {table} ADD COLUMN {name} {wanted[name]}")
        for index in _INDICES:
            base.execute(index)
        names = ", ".join(["started", *self.about])
        marks = ", ".join("?" * (len(self.about) + 1))
        values = [_now(), *map(_storable, self.about.values())]
        cursor = base.execute(f"INSERT INTO runs ({names}) VALUES ({marks})", values)
        return int(cursor.lastrowid or 0)

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            if "not a database" in str(error):
                raise FormatError(
                    f"{self.path} is no SQLite database",
                    str(error),
                    "move it away, or choose another -o",
                ) from error
            raise WorkError(
                f"The database {self.path} cannot be written",
                f"SQLite says: {error}",
                "make room, end the program that holds it locked, or choose another -o; "
                "what was written before is in it",
            ) from error


@contextlib.contextmanager
def _transaction(base: sqlite3.Connection) -> Iterator[None]:
    base.execute("BEGIN IMMEDIATE")
    try:
        yield
        base.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):  # a full disk has rolled back by itself
            base.execute("ROLLBACK")
        raise


def _now() -> str:
    moment = datetime.datetime.now(datetime.timezone.utc)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _storable(value: Any) -> Any:
    """The value for SQLite, which takes no lists and no lone surrogates (names not in UTF-8)."""
    if isinstance(value, list):
        return json.dumps(value)
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode("utf-8")
    return value
