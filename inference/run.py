"""A whole run: sources through a session into an output folder, and what it comes to.

In the folder afterwards: ``records.jsonl``, ``summary.json``, ``masks/`` and ``overlays/`` for
images, ``overlay.mp4`` for a video, and whatever other ``Format`` is asked for. A run that ends
early leaves what it has done, and a summary that says so.
"""

from __future__ import annotations

import functools
import os
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Tuple

from ..errors import ToolkitError, UsageError, WorkError
from ..files import write_json
from .faces import FaceFinder, FaceOptions
from .labels import Accuracy
from .pipeline import Meter, Progress, run_pipeline
from .selection import Selection, select_all
from .session import Session
from .sinks import (
    Format,
    MaskSink,
    OverlaySink,
    OverlayVideoSink,
    RecordSink,
    Sink,
    sink_of,
)
from .sources import Source
from .sources.base import Collection
from .sources.content import IMAGE_SUFFIXES
from .summary import Summary, Tally
from .trace import Trace
from .verdicts import Rules, choose_rules

RECORDS = "records.jsonl"
SUMMARY = "summary.json"


@dataclass(frozen=True)
class RunOptions:
    """How a run is done.

    Attributes:
        threads: workers that decode, draw and encode; ``None`` for one per core, 8 at most.
        in_flight: batches under way on the device.
        threshold: fake probability from which a frame's verdict is FAKE.
        rules: how frames become verdicts; those of the model, with this threshold, if not given.
        pictures: whether masks, overlays and videos are written.
        beside: puts the original left of its overlay.
        accuracy: labels to compare with.
        model_reason: why this model, for the summary.
        formats: what is written beside the records.
        rle_at_source: run lengths have the size of the pictures, else that of the network.
        viewers: sinks of the caller's own, which write nothing into the folder.
        selection: which frames of the sources are judged.
        faces: how faces are found in them; ``None`` to take every picture as a crop of a face.
        trace: a file for what every thread did and when, see ``trace``.
    """

    threads: Optional[int] = None
    in_flight: int = 3
    threshold: float = 0.5
    rules: Optional[Rules] = None
    pictures: bool = True
    beside: bool = False
    accuracy: Optional[Accuracy] = None
    model_reason: str = ""
    formats: Tuple[Format, ...] = ()
    rle_at_source: bool = True
    viewers: Sequence[Sink] = ()
    selection: Selection = field(default_factory=Selection)
    faces: Optional[FaceOptions] = None
    trace: Optional[Path] = None

    def finder(self, session: Session) -> Optional[FaceFinder]:
        """What finds the faces for the session's model; ``None`` where nothing does.

        Raises:
            ToolkitError: it cannot be used, or not with this model.
        """
        if self.faces is None:
            return None
        return FaceFinder(self.faces, session.artifact.preprocessing)


def run(
    sources: Sequence[Source],
    session: Session,
    output: Path,
    options: Optional[RunOptions] = None,
    progress: Optional[Progress] = None,
) -> Summary:
    """Judges every frame of the sources and writes what was found.

    Args:
        sources: read one after the other.
        session: the model on its device; not closed here.
        output: the folder for everything written.
        options: how.
        progress: called now and then with frames done and frames expected.

    Returns:
        The summary, also written to ``summary.json``.

    Raises:
        UsageError: an output would replace an input.
        ToolkitError: any other failure; what was done until then is in the folder.
        KeyboardInterrupt: likewise.
    """
    options = RunOptions() if options is None else options
    threads = options.threads or min(8, os.cpu_count() or 1)
    _guard_inputs(sources, output, options.formats)
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"The output folder {output} cannot be made", error.strerror or "", "choose another -o"
        ) from error
    finder = options.finder(session)
    rules = options.rules or choose_rules(session.artifact.path, options.threshold)
    tally = Tally(sources, options.accuracy)
    chosen = select_all(sources, options.selection)
    sinks = _sinks(sources, session, output, options)
    meter = Meter()
    before = replace(session.timings)
    trace = None if options.trace is None else Trace()
    if trace is not None:
        session.observe(functools.partial(trace.span, "device"))
    start = time.perf_counter()
    failure: Optional[BaseException] = None
    try:
        run_pipeline(
            chosen,
            session,
            [*sinks, tally],
            threads=threads,
            in_flight=options.in_flight,
            threshold=options.threshold,
            meter=meter,
            progress=progress,
            trace=trace,
            faces=finder,
        )
    except BaseException as error:
        failure = error
    seconds = time.perf_counter() - start
    meter.seconds["pre"] += session.timings.prepare - before.prepare
    meter.seconds["device"] += session.timings.device - before.device
    meter.seconds["post"] += session.timings.host - before.host
    notes = [f"{source.name}: {note}" for source in sources for note in source.notes]
    for entry, source in zip(tally.sources, chosen):
        entry.left_out = source.left_out
    notes.extend(session.incidents())
    notes.extend(finder.notes() if finder is not None else ())
    notes.extend(note for sink in sinks for note in sink.notes)
    written = [path for sink in sinks for path in sink.outputs()]
    written.sort(key=lambda path: path.name != RECORDS)
    summary = Summary(
        complete=failure is None,
        error="" if failure is None else words_of(failure),
        model=str(session.artifact.path),
        model_reason=options.model_reason,
        device=session.device_name,
        device_reason=session.reason,
        devices=tally.devices,
        batch=session.batch,
        threads=threads,
        rules=rules,
        seconds=seconds,
        meter=meter,
        statuses=tally.statuses,
        sources=tally.sources,
        accuracy=options.accuracy,
        selection=None if options.selection.all else options.selection,
        faces=None if finder is None else finder.to_json(),
        notes=notes,
        outputs=[str(path) for path in [*written, output / SUMMARY]],
        overlays={
            name: str(path)
            for sink in sinks
            if isinstance(sink, OverlayVideoSink)
            for name, path in sink.files.items()
        },
    )
    try:
        write_json(output / SUMMARY, summary.to_json())
        if trace is not None and options.trace is not None:
            trace.write(options.trace)
    except OSError as error:
        failure = failure or error
    if failure is not None:
        raise _for_people(failure, meter, output) from failure
    return summary


def _sinks(
    sources: Sequence[Source], session: Session, output: Path, options: RunOptions
) -> List[Sink]:
    about = about_run(session, options, [source.name for source in sources])
    # Those that may refuse to open come first, before the records of an earlier run are replaced.
    sinks = list(options.viewers)
    for form in dict.fromkeys(options.formats):
        sinks.append(sink_of(form, output, at_source=options.rle_at_source, about=about))
    sinks.append(RecordSink(output / RECORDS))
    if options.pictures:
        if any(source.kind in ("images", "mixed") for source in sources):
            sinks.append(MaskSink(output / "masks"))
            sinks.append(OverlaySink(output / "overlays", options.beside))
        shown = [source for source in sources if source.kind != "images"]
        if shown:
            several = len(shown) > 1 or isinstance(shown[0], Collection)
            live = [place for place, source in enumerate(sources) if source.live]
            sinks.append(OverlayVideoSink(output, options.beside, several, live=live))
    return sinks


def about_run(session: Session, options: RunOptions, names: Sequence[str]) -> Dict[str, Any]:
    """What the database says of a run over the sources of these names."""
    return {
        "model": str(session.artifact.path),
        "model_reason": options.model_reason,
        "device": session.device_name,
        "device_reason": session.reason,
        "threshold": options.threshold,
        "sources": ", ".join(names),
    }


def _guard_inputs(sources: Sequence[Source], output: Path, formats: Sequence[Format]) -> None:
    """Refuses an output folder in which results would take the place of what is read."""
    files = {RECORDS, SUMMARY}.union(*(form.files for form in formats))
    for source in sources:
        folders = {(output / name).resolve() for name in ("masks", "overlays")}
        paths = list(source.places())
        parents = {path.parent for path in paths}
        if len(paths) == 1:  # it may be a folder whose files are not known yet
            parents.add(paths[0])
        clash = any(parent.resolve() in folders for parent in parents)
        replaced = {
            path.parent
            for path in paths
            if path.name in files
            or (path.name.startswith("overlay") and path.suffix.lower() not in IMAGE_SUFFIXES)
        }
        if clash or any(parent.resolve() == output.resolve() for parent in replaced):
            raise UsageError(
                f"Results in {output} could replace what is read from {source.name}",
                f"masks/, overlays/, overlay.mp4, {', '.join(sorted(files))} are written there",
                "choose another -o",
            )


def words_of(error: BaseException) -> str:
    """What ended a run, for the summary and for messages."""
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    return str(error) or type(error).__name__


def _for_people(failure: BaseException, meter: Meter, output: Path) -> BaseException:
    """The failure as an error of the toolkit where it is one of the outside world."""
    if isinstance(failure, OSError) and not isinstance(failure, ToolkitError):
        return WorkError(
            "The results could not be written",
            words_of(failure),
            f"make room or choose another -o; {meter.done} records are in {output / RECORDS}",
        )
    return failure
