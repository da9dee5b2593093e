"""How the journal of a folder is opened: begun, gone on with, set aside, or only looked at."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from pathlib import Path
from typing import Any, Iterator, Mapping

from ...errors import UsageError, WorkError
from ..sinks.formats import Format
from .base import JOURNAL, PARTS, Journal, Say
from .folder import locked
from .parts import sync_folder
from .tables import Tables
from .workers import Worker

FINAL = (
    "records.jsonl",
    "summary.json",
    # The database keeps runs apart itself.
    *(name for form in Format if form is not Format.SQLITE for name in form.files),
)


def open_journal(
    output: Path, about: Mapping[str, Any], *, fresh: bool = False, say: Say = lambda text: None
) -> Journal:
    """Opens the journal of a folder, or begins one.

    Args:
        output: the folder; made if it is not there.
        about: everything that changes the answers, fit for JSON.
        fresh: begins anew, and forgets what was done.
        say: told what was found.

    Raises:
        UsageError: another process works there with other options, or was not asked for ``fresh``.
        FormatError: there is a file of that name that is no journal.
        WorkError: it cannot be written.
    """
    text = json.dumps(about, sort_keys=True, ensure_ascii=True, default=str)
    key = hashlib.sha256(text.encode("ascii")).hexdigest()
    output.mkdir(parents=True, exist_ok=True)
    with locked(output):
        path = output / JOURNAL
        if fresh:
            _clear(output, say)
        elif path.exists():
            earlier = Tables(path)
            found, was = earlier.get("key"), earlier.get("about", "{}")
            others = Journal(output, earlier).living()
            earlier.close()
            if found and found != key:
                differing = _differences(json.loads(was), json.loads(text))
                _refuse_company(output, others, f"with another {differing}")
                aside = _set_aside(output, found)
                say(
                    f"The journal in {output} is of another {differing}: a new one is begun, the "
                    f"old one is kept with its results in {aside}"
                )
        journal = Journal(output, Tables(path))
        if not journal.key:
            with journal.tables.transaction():
                journal.tables.set("about", text)
                journal.tables.set("key", key)
    sync_folder(output)
    return journal


def journal_there(output: Path) -> bool:
    """Whether the folder has a journal."""
    return (output / JOURNAL).is_file()


@contextlib.contextmanager
def reading(output: Path) -> Iterator[Journal]:
    """The journal of a folder, to be looked at."""
    tables = Tables(output / JOURNAL)
    try:
        yield Journal(output, tables)
    finally:
        tables.close()


def _clear(output: Path, say: Say) -> None:
    path = output / JOURNAL
    if path.exists():
        with contextlib.suppress(WorkError):  # a damaged one knows of nobody
            with reading(output) as journal:
                others = journal.living()
            _refuse_company(output, others, "too")
        say(f"The journal in {output} is begun anew")
    for name in (JOURNAL, f"{JOURNAL}-journal", *FINAL):
        with contextlib.suppress(FileNotFoundError):
            (output / name).unlink()
    shutil.rmtree(str(output / PARTS), ignore_errors=True)


def _refuse_company(output: Path, others: Mapping[str, Worker], how: str) -> None:
    if others:
        pids = ", ".join(str(worker.pid) for worker in others.values())
        raise UsageError(
            f"Another process works in {output} {how}",
            f"pid {pids}",
            "choose another -o, or wait for it to end",
        )


def _set_aside(output: Path, key: str) -> Path:
    """Moves an old journal with what it led to into a folder named after its key."""
    aside = output / f"journal-{key[:8]}"
    number = 1
    while aside.exists():
        number += 1
        aside = output / f"journal-{key[:8]}-{number}"
    aside.mkdir()
    for name in (PARTS, *FINAL, f"{JOURNAL}-journal", JOURNAL):  # the journal itself last
        if (output / name).exists():
            (output / name).replace(aside / name)
    return aside


def _differences(was: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    names = [name for name in {**was, **now} if was.get(name) != now.get(name)]
    return " and ".join(names) or "version"
