"""How the blocks of a journal go through a pipeline: read as sources, written and committed.

The pipeline never drains between blocks: the next is claimed when the reader wants it, and one is
committed when the first result of the next arrives. Until then all of it lies in the worker's own
workspace.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any, Callable, Deque, Dict, Iterator, List, Optional, Sequence

from ...errors import ToolkitError
from ..records import FrameResult
from ..selection import Selection, select
from ..sinks.base import Keeper, Sink
from ..sinks.lines import LineSink
from ..sources.base import Source
from .base import Item, Journal, LostClaimError
from .block_source import BlockSource
from .parts import Outcome, part_name, sync_all, sync_file, sync_folder, trailer

SECONDS = 2.0
"""So much work is in a block of images, as far as the speed is known: what a crash costs."""

FEWEST, MOST = 8, 512
"""Images of a block."""

AHEAD = 2
"""Blocks that may wait to be committed."""

MakeSinks = Callable[[Path, Callable[[str], str]], List[Sink]]
"""Makes the sinks of a block that write files of their own: into a folder, by the names that the
second argument gives for a file of the input."""


class BlockSink(Sink):
    """Writes every block into a workspace and commits it when it is done.

    Args:
        journal: the journal.
        make: makes the sinks that write files of their own, anew for each block.
        lines: the sinks that write a line for each result; the records first. They are only asked
            for their lines.
        keepers: what these keep of a video is stored with it; they get the results before.

    Attributes:
        committed: frames of the blocks committed.
        images: images written, also of blocks not yet committed.
    """

    def __init__(
        self,
        journal: Journal,
        make: MakeSinks,
        lines: Sequence[LineSink],
        keepers: Sequence[Keeper] = (),
    ) -> None:
        self.notes: List[str] = []
        self.committed = 0
        self.images = 0
        self._journal, self._make, self._lines = journal, make, list(lines)
        self._keepers = keepers
        kinds = [*make(journal.workspace, str), *lines]
        self.needs_image = any(sink.needs_image for sink in kinds)
        self.needs_logits = any(sink.needs_logits for sink in kinds)
        self.renders = any(sink.renders for sink in kinds)
        self._works: Dict[int, _Work] = {}
        self._current = 0
        self._start = 0.0
        # Waiting for the disk must not hold the results up.
        self._committer = ThreadPoolExecutor(1, "commit")
        self._commits: Deque[Future[None]] = deque()

    @property
    def speed(self) -> Optional[float]:
        """Images per second until now; ``None`` before enough are done to tell."""
        if self.images < 2 * FEWEST:
            return None
        return self.images / max(1e-3, time.monotonic() - self._start)

    def begin(self, origin: int, source: BlockSource, chosen: Source) -> None:
        """Announces the block whose results will have this ``origin``; on the thread that reads.

        Args:
            origin: counts the blocks.
            source: all of the block.
            chosen: what is selected of it.
        """
        block = source.block
        folder = self._journal.workspace / str(block.number)
        names = {item.path: item.name for item in block.items}
        sinks = self._make(folder / "out", lambda path: names.get(path, block.items[0].name))
        keepers = self._keepers if block.kind == "video" else ()
        self._works[origin] = _Work(
            self._journal, source, chosen, folder, sinks, self._lines, keepers
        )

    def open(self) -> None:
        """Makes the folder of the parts."""
        self._journal.parts.mkdir(parents=True, exist_ok=True)
        self._start = time.monotonic()

    def render(self, result: FrameResult) -> List[Any]:
        """What the sinks of the block make of a result."""
        return self._works[result.origin].render(result)

    def write(self, result: FrameResult, rendered: Any) -> None:
        """Writes one result; before the first of a block, the ones before are committed."""
        while self._current < result.origin:
            self._commit()
        self._look(AHEAD)
        if not self.images:
            self._start = time.monotonic()
        self._works[result.origin].write(result, rendered)
        self.images += result.frame.video is None

    def close(self, complete: bool) -> None:
        """Commits the last block; after a failure as much of the current one as is done."""
        try:
            while complete and self._works:
                self._commit()
            work = self._works.get(self._current)
            if work is not None and work.block.kind == "image":
                self._commit(partly=True)
            if complete:
                self._look(0)
        finally:
            # What caused a failure (a full disk) may well be in the way of these too.
            self._committer.shutdown()
            for work in self._works.values():
                work.drop()
            self._works.clear()

    def _commit(self, partly: bool = False) -> None:
        work = self._works.pop(self._current)
        self._current += 1
        self._commits.append(self._committer.submit(self._enter, work, partly))

    def _look(self, most: int) -> None:
        """Raises what a commit has raised, and waits until no more than ``most`` are open."""
        while self._commits and (self._commits[0].done() or len(self._commits) > most):
            self._commits.popleft().result()

    def _enter(self, work: _Work, partly: bool) -> None:
        try:
            self.committed += work.commit(partly)
        except LostClaimError as error:
            self.notes.append(f"{error}; its results are left to that one")
        finally:
            work.drop()


def block_sources(journal: Journal, sink: BlockSink, selection: Selection) -> Iterator[Source]:
    """Claims one block after the other until nothing is left to claim.

    Args:
        journal: where.
        sink: is told of every block before its frames come.
        selection: which frames of each video are judged.
    """
    origin = 0
    while True:
        speed = sink.speed
        images = 2 * FEWEST if speed is None else min(MOST, max(FEWEST, int(speed * SECONDS)))
        block = journal.claim(images)
        if block is None:
            if journal.take_over():
                continue
            return
        source = BlockSource(block)
        chosen = select(source, selection) if block.kind == "video" else source
        sink.begin(origin, source, chosen)
        yield chosen
        origin += 1


class _Work:
    """One block on its way: what is written of it, and what is to be entered."""

    def __init__(
        self,
        journal: Journal,
        source: BlockSource,
        chosen: Source,
        folder: Path,
        sinks: List[Sink],
        lines: Sequence[LineSink],
        keepers: Sequence[Keeper],
    ) -> None:
        self._keepers = keepers
        self.block, self._source, self._chosen = source.block, source, chosen
        self._journal, self._folder = journal, folder
        self._sinks, self._lines = sinks, lines
        self._files: List[IO[bytes]] = []
        self._ends = [0] * len(lines)
        self._opened: List[Sink] = []
        self._ready = False
        self._outcomes: Dict[str, Outcome] = {}
        self._reasons: Dict[int, str] = {}
        self._items = {item.path: item for item in self.block.items}

    def render(self, result: FrameResult) -> List[Any]:
        return [
            sink.render(result) if sink.renders else None for sink in [*self._sinks, *self._lines]
        ]

    def write(self, result: FrameResult, rendered: Any) -> None:
        if not self._ready:
            self._open()
        parts = rendered or [None] * (len(self._sinks) + len(self._lines))
        for sink, part in zip(self._sinks, parts):
            sink.write(result, part)
        lines = [
            sink.line(result, part).encode("utf-8", "backslashreplace")
            for sink, part in zip(self._lines, parts[len(self._sinks) :])
        ]
        for file, line in zip(self._files, lines):
            file.write(line)
        outcome = self._outcome(self._items.get(result.frame.source, self.block.items[0]))
        for number, line in enumerate(lines):
            offset, length = outcome.places[number]
            outcome.places[number] = (offset, length + len(line))
            self._ends[number] += len(line)
        outcome.frames += 1
        outcome.judged += result.judged
        if not result.judged:
            self._reasons.setdefault(outcome.number, f"{result.status.value}: {result.reason}")

    def commit(self, partly: bool) -> int:
        """Puts everything into its place and enters it; returns the frames."""
        if not self._ready:
            self._open()
        items = [item for item in self.block.items if not partly or item.path in self._outcomes]
        if not items:
            return 0
        while self._opened:
            sink = self._opened.pop()
            sink.close(complete=True)
            self._outcome(items[0]).notes.extend(sink.notes)
        for note in self._source.notes:
            self._outcome(items[0]).notes.append(note)
        outcomes = [self._ended(item) for item in items]
        for file, end in zip(self._files, self._ends):
            file.seek(end)  # a line that a failure cut short lies behind
            file.truncate()
        kept = self._keep()
        self._files[0].write(trailer(self.block.number, outcomes))
        out = self._folder / "out"
        if kept or out.is_dir():
            for file in self._files:
                file.flush()
            sync_all(self._folder)
        else:
            for file in self._files:
                sync_file(file)
        self._close_files()
        self._journal.commit(self.block, outcomes, self._publish)
        return sum(outcome.frames for outcome in outcomes)

    def drop(self) -> None:
        """Removes what is left in the workspace."""
        self._source.give_up()
        for sink in self._opened:
            with contextlib.suppress(ToolkitError, OSError):
                sink.close(complete=False)
        with contextlib.suppress(OSError):
            self._close_files()
        shutil.rmtree(str(self._folder), ignore_errors=True)

    def _open(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        for sink in self._lines:
            path = self._folder / part_name(self.block.number, sink.path.name)
            self._files.append(path.open("wb"))
        for block_sink in self._sinks:
            block_sink.open()
            self._opened.append(block_sink)
        self._ready = True

    def _publish(self) -> None:
        output = self._journal.output
        out = self._folder / "out"
        for folder, _, names in os.walk(str(out)):
            target = output / os.path.relpath(folder, str(out))
            target.mkdir(parents=True, exist_ok=True)
            for name in names:
                os.replace(os.path.join(folder, name), str(target / name))
        names = [*(keeper.file for keeper in self._keepers)]
        # The records last: they say that all is there.
        names += [sink.path.name for sink in reversed(self._lines)]
        for name in [part_name(self.block.number, name) for name in names]:
            if not (self._folder / name).exists():
                continue  # a keeper that kept nothing
            os.replace(str(self._folder / name), str(self._journal.parts / name))
        sync_folder(self._journal.parts)

    def _keep(self) -> bool:
        """Stores what the keepers have of the video; whether there was anything."""
        found = False
        for keeper in self._keepers:
            data = keeper.save(self.block.items[0].path)
            if data is not None:
                (self._folder / part_name(self.block.number, keeper.file)).write_bytes(data)
                found = True
        return found

    def _close_files(self) -> None:
        while self._files:
            self._files.pop().close()

    def _outcome(self, item: Item) -> Outcome:
        if item.path not in self._outcomes:
            places = [(end, 0) for end in self._ends]
            self._outcomes[item.path] = Outcome(item.number, places=places)
        return self._outcomes[item.path]

    def _ended(self, item: Item) -> Outcome:
        outcome = self._outcome(item)
        outcome.size, outcome.mtime, outcome.sha256 = self._source.identity(item.path)
        outcome.left_out = self._chosen.left_out if item is self.block.items[0] else 0
        outcome.reason = self._source.failures.get(item.path, "")
        if not outcome.reason and not outcome.judged:
            outcome.reason = self._reasons.get(item.number, "no frame was read")
        return outcome
