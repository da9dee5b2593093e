"""The journal of a collection: which of its items are done, who does the others, what came of them.

One journal belongs to one output folder and one key: the digest of everything that changes the
answers. An item is one file. Items are claimed in blocks, computed, and committed: the block's
files are renamed into place, its part last, and then the rows say ``done``. A part without its row
(the process ended in between) is taken as it is, a claim without a part is given back. All of that
also holds between processes that share the journal.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Sequence, Set, Tuple

from ...errors import ToolkitError
from .parts import Outcome, part_name, read_part
from .tables import Tables, loaded
from .workers import BEAT, Worker, exists, this_worker, worker_of

JOURNAL = "journal.sqlite"
PARTS = "parts"

Say = Callable[[str], None]


@dataclass(frozen=True)
class Item:
    """One file of a collection.

    Attributes:
        number: its place in the order of the records.
        source: position of the source it belongs to.
        kind: ``image`` or ``video``.
        path: the file, as it is named in the records.
        name: what its pictures are called, without suffix.
    """

    number: int
    source: int
    kind: str
    path: str
    name: str


@dataclass(frozen=True)
class Block:
    """Items that one worker has claimed together: images of one source, or one video."""

    number: int
    kind: str
    items: List[Item]


class LostClaimError(Exception):
    """Another process took the block over, as this one seemed to be gone."""


class Journal:
    """The journal of an output folder, opened by one worker.

    Args:
        output: the folder.
        tables: its file.

    Attributes:
        worker: who opened it.
        incidents: what was found or mended on the way, in words.
    """

    def __init__(self, output: Path, tables: Tables) -> None:
        self.output = output
        self.parts = output / PARTS
        self.tables = tables
        self.worker = this_worker()
        self.incidents: List[str] = []
        self._since = time.time()
        self._closed = threading.Event()
        self._beat: Optional[threading.Thread] = None

    @property
    def key(self) -> str:
        """The digest of everything that changes the answers."""
        return self.tables.get("key")

    @property
    def workspace(self) -> Path:
        """Where this worker puts what is not yet committed."""
        return self.output / f".work-{self.worker.tag}"

    def enter(self, device: str) -> None:
        """Makes the worker known, and gives signs of life from now on."""
        now = time.time()
        with self.tables.transaction():
            self.tables.change(
                "INSERT INTO workers (worker, device, begun, seen) VALUES (?, ?, ?, ?)",
                (self.worker.key, device, now, now),
            )
        self._beat = threading.Thread(target=self._live, name="journal", daemon=True)
        self._beat.start()

    def close(self) -> None:
        """Gives back what is still claimed and closes the file.

        The claims of a worker that cannot even do that are taken over once its process is gone.
        """
        self._closed.set()
        if self._beat is not None:
            self._beat.join(1.0)
            with contextlib.suppress(ToolkitError, OSError):
                self.release()
            with contextlib.suppress(ToolkitError, OSError), self.tables.transaction():
                self.tables.change(
                    "UPDATE workers SET ended = ? WHERE worker = ?", (time.time(), self.worker.key)
                )
        shutil.rmtree(str(self.workspace), ignore_errors=True)
        self.tables.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def claim(self, images: int) -> Optional[Block]:
        """The next block of this worker; ``None`` where nothing is left to claim.

        Args:
            images: how many images to take at most; of videos it is always one.
        """
        with self.tables.transaction():
            if self._closed.is_set():
                return None
            rows = self.tables.rows(
                "SELECT number, source, kind, path, name FROM items WHERE state = 'new' "
                "ORDER BY number LIMIT ?",
                (images,),
            )
            items = [Item(row[0], row[1], row[2], loaded(row[3]), loaded(row[4])) for row in rows]
            if not items:
                return None
            first = items[0]
            count = 1
            while (
                first.kind == "image"
                and count < len(items)
                and (items[count].kind, items[count].source) == (first.kind, first.source)
            ):
                count += 1
            items = items[:count]
            number = self.tables.insert(
                "INSERT INTO blocks (worker, kind, state, begun) VALUES (?, ?, 'claimed', ?)",
                (self.worker.key, first.kind, time.time()),
            )
            self.tables.change_many(
                "UPDATE items SET state = 'claimed', block = ? WHERE number = ?",
                [(number, item.number) for item in items],
            )
        return Block(number, first.kind, items)

    def commit(
        self, block: Block, outcomes: Sequence[Outcome], publish: Callable[[], None]
    ) -> None:
        """Enters a block that is done, whole or in part; items without an outcome are given back.

        Args:
            block: claimed before.
            outcomes: of its items.
            publish: puts the block's files into place, its part last; called once the block is
                sure to be this worker's still.

        Raises:
            LostClaimError: it is not; nothing was published.
            OSError: what ``publish`` raises.
        """
        now = time.time()
        with self.tables.transaction():
            owned = self.tables.rows(
                "SELECT 1 FROM blocks WHERE number = ? AND state = 'claimed' AND worker = ?",
                (block.number, self.worker.key),
            )
            if not owned:
                raise LostClaimError(f"Block {block.number} was taken over by another process")
            publish()
            self._settle(block.number, outcomes, now, now - self._since)
        self._since = now

    def release(self) -> None:
        """Gives back everything this worker has claimed and not committed."""
        with self.tables.transaction():
            for (number,) in self.tables.rows(
                "SELECT number FROM blocks WHERE state = 'claimed' AND worker = ?",
                (self.worker.key,),
            ):
                self._give_up(number)

    def take_over(self) -> int:
        """Settles the claims of workers that are gone; returns how many blocks that were."""
        count = 0
        with self.tables.transaction():
            lives = self.living()
            for number, worker in self.tables.rows(
                "SELECT number, worker FROM blocks WHERE state = 'claimed'"
            ):
                if worker not in lives and worker != self.worker.key:
                    adopted = self._give_up(number)
                    count += 1
                    self.incidents.append(
                        f"block {number} of a process that is gone (pid {worker_of(worker).pid}) "
                        + ("was finished and is kept" if adopted else "is done again")
                    )
        self._clear({worker_of(key) for key in lives} | {self.worker})
        return count

    def _clear(self, workers: Set[Worker]) -> None:
        """Removes workspaces and half-written files that no worker at it has."""
        tags = {worker.tag for worker in workers}
        for path in self.output.glob(".work-*"):
            if path.name[len(".work-") :] not in tags:
                shutil.rmtree(str(path), ignore_errors=True)
        for path in self.output.glob(".*.part*"):  # the names that files.replacing gives
            pid = path.name.rpartition(".part")[0].rpartition(".")[2]
            if pid.isdigit() and not exists(int(pid)):
                with contextlib.suppress(OSError):
                    path.unlink()

    def living(self) -> Dict[str, Worker]:
        """The other workers that are at it, by their keys."""
        found = {}
        for key, seen in self.tables.rows("SELECT worker, seen FROM workers WHERE ended IS NULL"):
            worker = worker_of(key)
            if key != self.worker.key and worker.lives(seen):
                found[key] = worker
        return found

    def counts(self) -> Dict[str, int]:
        """Items by state."""
        counts = dict.fromkeys(("new", "claimed", "done", "failed"), 0)
        counts.update(self.tables.rows("SELECT state, count(*) FROM items GROUP BY state"))
        return counts

    def retry_failed(self) -> int:
        """Has the items that failed done again; returns how many."""
        with self.tables.transaction():
            count = self.tables.change("UPDATE items SET state = 'new' WHERE state = 'failed'")
            if count:
                self.changed()
        return count

    def changed(self) -> None:
        """Notes, inside a transaction, that the final files are of an earlier state."""
        self.tables.set("revision", str(int(self.tables.get("revision", "0")) + 1))

    def _give_up(self, number: int) -> bool:
        """Ends a claim; returns whether its part was there, so that it is done after all."""
        outcomes = read_part(self.parts / part_name(number), number)
        if outcomes is not None:
            self._settle(number, outcomes, time.time(), None)
            return True
        self.tables.change("UPDATE blocks SET state = 'released' WHERE number = ?", (number,))
        self.tables.change(
            "UPDATE items SET state = 'new' WHERE state = 'claimed' AND block = ?", (number,)
        )
        return False

    def _settle(
        self, number: int, outcomes: Sequence[Outcome], now: float, seconds: Optional[float]
    ) -> None:
        self.tables.change_many(
            "UPDATE items SET state = ?, reason = ?, size = ?, mtime = ?, sha256 = ?, frames = ?, "
            "judged = ?, left_out = ?, notes = ?, places = ? WHERE number = ? AND block = ?",
            [(*_columns(outcome), outcome.number, number) for outcome in outcomes],
        )
        self.tables.change(
            "UPDATE items SET state = 'new' WHERE state = 'claimed' AND block = ?", (number,)
        )
        self.tables.change(
            "UPDATE blocks SET state = 'done', ended = ?, seconds = ?, frames = ? WHERE number = ?",
            (now, seconds, sum(outcome.frames for outcome in outcomes), number),
        )
        self.changed()

    def _live(self) -> None:
        while not self._closed.wait(BEAT):
            with contextlib.suppress(ToolkitError), self.tables.transaction():
                self.tables.change(
                    "UPDATE workers SET seen = ? WHERE worker = ?", (time.time(), self.worker.key)
                )


def _columns(outcome: Outcome) -> Tuple[Any, ...]:
    def text(value: Any) -> Optional[str]:
        return json.dumps(value, separators=(",", ":")) if value else None

    return (
        "failed" if outcome.reason else "done",
        _plain(outcome.reason) or None,
        outcome.size,
        outcome.mtime,
        outcome.sha256,
        outcome.frames,
        outcome.judged,
        outcome.left_out,
        text(outcome.notes),
        text(outcome.places),
    )


def _plain(text: str) -> str:
    """The text without what is no UTF-8, as a file name in a reason may be."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
