"""A run over a collection: many files, a journal, and an end that is reached whatever happens.

In the folder, beside what ``run`` writes: ``journal.sqlite``, and ``parts/`` with the results of
what is done. The same command goes on where an earlier one stopped, and several may run at once.
"""

from __future__ import annotations

import copy
import itertools
import os
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence

from ..errors import UsageError, WorkError
from ..files import write_json
from .collection_inputs import OutputCheck
from .journal import (
    BlockSink,
    Input,
    Journal,
    block_sources,
    journal_there,
    make_final,
    open_journal,
    plan,
    progress_of,
    results,
)
from .journal.final import give_back, left_out, videos
from .journal.final import notes as notes_of
from .journal.folder import locked
from .journal.status import measure
from .journal.tables import loaded
from .pipeline import Meter, Progress, run_pipeline
from .run import RECORDS, SUMMARY, RunOptions, about_run, words_of
from .session import Session, model_sha256
from .sinks import Format, MaskSink, OverlaySink, OverlayVideoSink, RecordSink, Sink, sink_of
from .sinks.base import Keeper
from .sinks.database import DatabaseSink
from .sinks.lines import LineSink
from .sources import Source
from .summary import Summary, Tally
from .verdicts import choose_rules

INTEGERS = ("card", "sim", "reference")
"""Devices that give the same answers."""

LOOK = 1000
"""So many files of each input are looked at before a journal is begun."""

WAIT = 0.5
"""Seconds between two looks at whether other processes have ended."""


@dataclass(frozen=True)
class CollectionOptions:
    """How a collection is gone through.

    Attributes:
        fresh: forget what was done.
        retry_failed: do again what failed.
        answers: what else changes the answers, by the words a message names it with.
    """

    fresh: bool = False
    retry_failed: bool = False
    answers: Mapping[str, Any] = field(default_factory=dict)


def run_collection(
    inputs: Sequence[Input],
    session: Session,
    output: Path,
    options: Optional[RunOptions] = None,
    collection: Optional[CollectionOptions] = None,
    progress: Optional[Progress] = None,
    say: Callable[[str], None] = lambda text: None,
) -> Summary:
    """Judges every file of the inputs that is not done yet, and puts all results together.

    Args:
        inputs: what the user named.
        session: the model on its device; not closed here.
        output: the folder for everything written.
        options: how; ``inputs_of`` names those that are not possible.
        collection: how the journal is used.
        progress: called now and then with frames done and frames expected of this process.
        say: told what the journal says.

    Returns:
        The summary over everything, also of earlier runs; speeds are those of this one.

    Raises:
        UsageError: an output would replace an input, or another process works there otherwise.
        ToolkitError: any other failure; what was done until then is kept in the journal.
        KeyboardInterrupt: likewise.
    """
    options = RunOptions() if options is None else options
    collection = CollectionOptions() if collection is None else collection
    check = OutputCheck(output)
    if not journal_there(output):  # before anything is written
        for given in inputs:
            for _, path in itertools.islice(given.files(), LOOK):
                check(path)
    if Format.SQLITE in options.formats:
        DatabaseSink(output / Format.SQLITE.files[0]).check()
    about = answers(inputs, session, options, collection)
    try:
        journal = open_journal(output, about, fresh=collection.fresh, say=say)
    except OSError as error:
        raise UsageError(
            f"The output folder {output} cannot be used", error.strerror or "", "choose another -o"
        ) from error
    run = _Run(journal, session, output, options, collection)
    with journal:
        try:
            run.prepare(inputs, say, check)
            return run.through(progress)
        except OSError as error:
            raise WorkError(
                "The results could not be written",
                words_of(error),
                "make room, then type the same command again: what is done is kept",
            ) from error


def answers(
    inputs: Sequence[Input], session: Session, options: RunOptions, collection: CollectionOptions
) -> Dict[str, Any]:
    """Everything that changes the answers, by the words a message names it with."""
    artifact = session.artifact
    name = session.device_name
    formats = [form.value for form in options.formats if form is not Format.SQLITE]
    if formats and not options.rle_at_source:
        formats.append("at the size of the network")
    return {
        "model": [model_sha256(artifact), artifact.mask, artifact.classifier],
        "preprocessing": artifact.preprocessing.to_json(),
        "faces": None if options.faces is None else options.faces.to_json(),
        "threshold": options.threshold,
        "kind of device": "integers" if name in INTEGERS else name,
        "choice of outputs": [options.pictures, options.beside, *formats],
        "selection": None if options.selection.all else options.selection.to_json(),
        "input": [[given.name, given.kind] for given in inputs],
        **collection.answers,
    }


class _Run:
    """One process at work on a journal."""

    def __init__(
        self,
        journal: Journal,
        session: Session,
        output: Path,
        options: RunOptions,
        collection: CollectionOptions,
    ) -> None:
        self.journal, self.session, self.output = journal, session, output
        self.options, self.collection = options, collection
        self.threads = options.threads or min(8, os.cpu_count() or 1)
        self.meter = Meter()
        self.seconds = 0.0
        self.notes: List[str] = []
        self.lines: List[LineSink] = [RecordSink(output / RECORDS)]
        for form in dict.fromkeys(options.formats):
            sink = sink_of(form, output, at_source=options.rle_at_source, about={})
            if isinstance(sink, LineSink):
                self.lines.append(sink)
        self._keepers = [sink for sink in options.viewers if isinstance(sink, Keeper)]
        self._more: List[Path] = []
        if Format.SQLITE in options.formats:
            self._more = [output / name for name in Format.SQLITE.files]
        self._finder = options.finder(session)

    def prepare(
        self, inputs: Sequence[Input], say: Callable[[str], None], check: Callable[[str], None]
    ) -> None:
        """Looks at what is there and what is done."""
        self.journal.enter(self.session.device_name)
        plan(self.journal, inputs, say, check)
        self.journal.take_over()
        if self.collection.retry_failed:
            say(f"{self.journal.retry_failed()} files that failed are done again")
        counts = self.journal.counts()
        over = counts["done"] + counts["failed"]
        others = self.journal.living()
        if over or others:
            text = f"{over} of {sum(counts.values())} files are done already"
            if counts["failed"]:
                text += f" ({counts['failed']} failed; --retry-failed does them again)"
            if others:
                pids = ", ".join(str(worker.pid) for worker in others.values())
                text += f"; at work beside this process: pid {pids}"
            say(text)

    def through(self, progress: Optional[Progress]) -> Summary:
        """Works until everything is done, and puts it together."""
        tables = self.journal.tables
        while True:
            self.work(progress)
            revision = tables.get("revision")
            try:
                tally = self.finish()
            except ValueError:  # lines that are not where they were
                if tables.get("revision") == revision:
                    raise
            if tables.get("revision") == revision:
                return self.summarize(tally)
            # Another process has just been told to do some again.

    def work(self, progress: Optional[Progress]) -> None:
        """Claims and does blocks until nothing is left, here or with any other process."""
        before = replace(self.session.timings)
        start = time.perf_counter()
        try:
            while True:
                counts = self.journal.counts()
                if counts["new"]:
                    self._once(progress)
                elif not counts["claimed"]:
                    break
                elif not self.journal.take_over():
                    time.sleep(WAIT)
        finally:
            self.seconds += time.perf_counter() - start
            timings = self.session.timings
            self.meter.seconds["pre"] += timings.prepare - before.prepare
            self.meter.seconds["device"] += timings.device - before.device
            self.meter.seconds["post"] += timings.host - before.host

    def finish(self) -> Tally:
        """Makes the final files, and counts all that is in them."""
        options, journal = self.options, self.journal
        make_final(journal, self.lines, self._database, self._more)
        sources = journal.tables.rows("SELECT name, kind FROM sources ORDER BY number")
        named = [_Named(loaded(name), kind) for name, kind in sources]
        tally = Tally(named, copy.deepcopy(options.accuracy))
        for result in results(journal, self.output / RECORDS, options.threshold):
            tally.write(result, None)
        for entry, count in zip(tally.sources, left_out(journal)):
            entry.left_out = count
        return tally

    def summarize(self, tally: Tally) -> Summary:
        """Writes the summary of all that is in the journal."""
        options, journal = self.options, self.journal
        give_back(journal, self._keepers)
        outputs = [sink.path for sink in self.lines]
        outputs += self._more
        outputs += [self.output / name for name in ("masks", "overlays")]
        overlays = {
            path: str(self.output / f"{name}.mp4")
            for path, name in videos(journal)
            if options.pictures
        }
        overlays = {path: video for path, video in overlays.items() if os.path.isfile(video)}
        summary = Summary(
            complete=True,
            error="",
            model=str(self.session.artifact.path),
            model_reason=options.model_reason,
            device=self.session.device_name,
            device_reason=self.session.reason,
            devices=tally.devices,
            batch=self.session.batch,
            threads=self.threads,
            rules=options.rules or choose_rules(self.session.artifact.path, options.threshold),
            seconds=self.seconds,
            meter=self.meter,
            statuses=tally.statuses,
            sources=tally.sources,
            accuracy=tally.accuracy,
            selection=None if options.selection.all else options.selection,
            faces=None if self._finder is None else self._finder.to_json(),
            notes=[
                *notes_of(journal),
                *journal.incidents,
                *self.session.incidents(),
                *(self._finder.notes() if self._finder is not None else ()),
                *self.notes,
            ],
            outputs=[
                *(str(path) for path in outputs if path.exists()),
                *overlays.values(),
                str(self.output / SUMMARY),
            ],
            overlays=overlays,
            journal=progress_of(journal).to_json(),
        )
        with locked(self.output):  # others may end at the same moment
            write_json(self.output / SUMMARY, summary.to_json())
        return summary

    def _database(self) -> None:
        """Enters all records into the database; they come from the final file."""
        options = self.options
        if not self._more:
            return
        names = self.journal.tables.rows("SELECT name FROM sources ORDER BY number")
        about = about_run(self.session, options, [loaded(name) for (name,) in names])
        with sink_of(Format.SQLITE, self.output, about=about) as sink:
            for result in results(self.journal, self.output / RECORDS, options.threshold):
                sink.write(result, None)

    def _once(self, progress: Optional[Progress]) -> None:
        sink = BlockSink(self.journal, self._sinks, self.lines, self._keepers)
        expected = _Expected(self.journal, sink, self.meter.done)
        try:
            run_pipeline(
                block_sources(self.journal, sink, self.options.selection),
                self.session,
                [*self.options.viewers, sink],
                threads=self.threads,
                in_flight=self.options.in_flight,
                threshold=self.options.threshold,
                meter=self.meter,
                progress=None if progress is None else expected.told(progress),
                faces=self._finder,
            )
        finally:
            self.notes.extend(sink.notes)

    def _sinks(self, folder: Path, names: Callable[[str], str]) -> List[Sink]:
        if not self.options.pictures:
            return []
        beside = self.options.beside
        return [
            MaskSink(folder / "masks", names),
            OverlaySink(folder / "overlays", beside, names),
            OverlayVideoSink(folder, beside, several=True, names=names),
        ]


class _Expected:
    """How many frames this process may expect; looked up seldom, as that takes time."""

    def __init__(self, journal: Journal, sink: BlockSink, before: int) -> None:
        self._journal, self._sink, self._before = journal, sink, before
        self._due = 0.0
        self._total: Optional[int] = None

    def told(self, progress: Progress) -> Progress:
        """Tells ``progress`` instead of what the pipeline knows."""

        def tell(done: int, total: Optional[int]) -> None:
            start = time.monotonic()
            if start >= self._due:
                left = measure(self._journal)[2]
                if left is not None:
                    self._total = self._before + self._sink.committed + sum(left.values())
                self._due = time.monotonic() + max(2.0, 50 * (time.monotonic() - start))
            progress(done, None if self._total is None else max(done, self._total))

        return tell


class _Named(Source):
    """What the summary wants to know of an input."""

    def __init__(self, name: str, kind: str) -> None:
        self.name, self.kind, self.length, self.notes = name, kind, None, []

    def reads(self) -> Any:
        return iter(())
