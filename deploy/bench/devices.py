"""The measurement of devices side by side: rounds, sweeps, memory, agreement."""

from __future__ import annotations

import contextlib
import functools
import math
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

import numpy as np

from ...board.vendor import State, find_package
from ...errors import DataError, ToolkitError
from ...files import sha256
from ...inference.artifact import Artifact
from ...inference.session import Session
from ...preprocessing import fit
from ..build_folder import versions
from . import child
from .agreement import agreements
from .contenders import Contender, Subject
from .machine import busy_note, load, this_machine
from .material import first_pictures
from .record import Bench, DeviceResult, Latency, unsteady_notes
from .rounds import Clock, Series, Step, in_turn, percentile, told
from .runner import Runner, Settings, Sources

SWEPT = ("float", "quantized", "sim", "card")
"""Devices for which a sweep tells something; ``null`` and ``reference`` take no threads."""


def bench(
    chosen: Sequence[Contender],
    subject: Subject,
    artifact: Artifact,
    sources: Sources,
    frames: str,
    settings: Settings,
    left_out: Optional[Dict[str, str]] = None,
    step: Step = lambda text: None,
    clock: Clock = time.perf_counter,
    measure: Optional[Callable[..., Dict[str, Any]]] = None,
) -> Bench:
    """Measures every contender on the same frames.

    Args:
        chosen: see ``contenders``.
        subject: the model's files, for the processes that measure memory.
        artifact: the compiled model.
        sources: opens the frames.
        frames: what they are, in words.
        settings: how much.
        left_out: device to the reason why it is not measured.
        step: told what comes next.
        clock: seconds.
        measure: measures loading and memory of one device; ``child.measure`` if not given.

    Raises:
        DataError: no frame can be decoded.
        ToolkitError: a device cannot be opened or fails.
    """
    machine, before = this_machine(), load()
    pictures = _fitted(sources, artifact, max(4 * artifact.batch, 8))
    memory: Dict[str, Dict[str, Any]] = {}
    if settings.memory:
        # First of all, while nothing here holds the card.
        memory = _memory(chosen, subject, artifact, settings, step, measure or child.measure)
    with contextlib.ExitStack() as stack:
        runners = []
        for one in chosen:
            step(f"open {one.key}")
            batch = settings.sample if one.name == "reference" else None
            session = stack.enter_context(one.open(artifact, batch, settings.threads))
            runners.append(Runner(one, session, pictures, sources, settings, clock))
        for runner in runners:
            step(f"warm {runner.key} up")
            runner.warm_up()
        answers = {runner.key: runner.answer for runner in runners}
        works: Dict[str, Callable[[], Any]] = {}
        for runner in runners:
            works[f"{runner.key}, one batch after another"] = runner.one_by_one
            works[f"{runner.key}, in flight"] = runner.in_flight
            works[f"{runner.key}, end to end"] = runner.end_to_end
        in_turn(told(works, step), settings.rounds, clock=clock)
    found = [_result(runner, memory.get(runner.key, {})) for runner in runners]
    _sweep(chosen, found, artifact, pictures, settings, step, clock)
    devices = _fastest_layouts(found)
    strangers = [one.key for one in chosen if subject.width and one.makes is not None]
    names = {one.key: one.name for one in chosen}
    notes = [note for note in (busy_note(before, machine.cores),) if note]
    notes += unsteady_notes(devices)
    notes += [
        "the card is simulated: its figures are those of this machine and of made-up sensors"
        for device in devices
        if device.simulated
    ]
    notes += [note for runner in runners for note in runner.notes]
    return Bench(
        machine,
        str(subject.model),
        sha256(subject.model) if subject.model.is_file() else "",
        frames,
        {**settings.to_json(), "load_before": before},
        devices,
        dict(left_out or {}),
        agreements(answers, names, settings.threshold, strangers),
        notes,
        {**versions(), **_more_versions()},
    )


def _fitted(sources: Sources, artifact: Artifact, count: int) -> np.ndarray:
    """The first pictures at the model's size, repeated until there are ``count``."""
    found: List[np.ndarray] = []
    for source in sources():
        for picture in first_pictures(source, count - len(found)):
            found.append(fit(picture, artifact.preprocessing))
        if len(found) >= count:
            break
    if not found:
        raise DataError("There is no frame to measure with", "none could be decoded")
    return np.stack([found[at % len(found)] for at in range(count)])


def _result(runner: Runner, memory: Dict[str, Any]) -> DeviceResult:
    rates, seconds = runner.rates, runner.latencies
    return DeviceResult(
        runner.contender.name,
        runner.contender.layout,
        runner.session.reason,
        runner.session.batch,
        Series(tuple(rates["images"])),
        Series(tuple(rates["device"])) if rates["device"] else None,
        Series(tuple(rates["end"])),
        Latency(
            1000 * percentile(seconds, 50),
            1000 * percentile(seconds, 90),
            1000 * percentile(seconds, 99),
            len(seconds),
        ),
        memory=memory,
        joules=Series(tuple(runner.joules)).median if runner.joules else None,
        simulated=runner.contender.name == "card" and find_package("vart").state is State.SIMULATED,
    )


def _fastest_layouts(found: Sequence[DeviceResult]) -> List[DeviceResult]:
    """One result per device: of several layouts the fastest, the rates of the others with it."""
    best: Dict[str, DeviceResult] = {}
    for one in sorted(found, key=lambda one: -one.images.median):
        if one.name not in best:
            best[one.name] = one
        else:
            best[one.name].others[one.layout] = one.images
    return [best[name] for name in dict.fromkeys(one.name for one in found)]


def _memory(
    chosen: Sequence[Contender],
    subject: Subject,
    artifact: Artifact,
    settings: Settings,
    step: Step,
    measure: Callable[..., Dict[str, Any]],
) -> Dict[str, Dict[str, Any]]:
    """What loading each device takes, in a process of its own; twice where an engine is kept."""
    found: Dict[str, Dict[str, Any]] = {}
    with tempfile.TemporaryDirectory(prefix="deepfake-fpga-bench-") as folder:
        for one in chosen:
            task = {
                "task": "device",
                "subject": subject.to_json(),
                "name": one.name,
                "layout": one.layout,
                "batch": settings.sample if one.name == "reference" else artifact.batch,
                "threads": settings.threads,
                "batches": 1 if one.name == "reference" else 2,
            }
            step(f"load {one.key} in a process of its own")
            try:
                found[one.key] = measure(task, Path(folder))
                if one.name == "sim":
                    again = measure(task, Path(folder))
                    found[one.key]["cached_load_seconds"] = again["load_seconds"]
            except ToolkitError as error:
                found[one.key] = {"error": str(error)}
    return found


def _sweep(
    chosen: Sequence[Contender],
    found: Sequence[DeviceResult],
    artifact: Artifact,
    pictures: np.ndarray,
    settings: Settings,
    step: Step,
    clock: Clock,
) -> None:
    """Other batches and numbers of threads, each as images/s one batch after another."""
    for one, result in zip(chosen, found):
        if one.name not in SWEPT:
            continue
        cases: List[Tuple[str, int]] = []
        if one.name != "card":  # the card computes its own batch, on its own engines
            cases += [("batch", batch) for batch in settings.batches]
            cases += [("threads", count) for count in settings.thread_counts]
        works: Dict[str, Callable[[], Any]] = {}
        images: Dict[str, int] = {}
        with contextlib.ExitStack() as stack:
            for kind, number in cases:
                name = f"{one.key}, {kind} {number}"
                batch = number if kind == "batch" else artifact.batch
                threads = number if kind == "threads" else settings.threads
                session = stack.enter_context(one.open(artifact, batch, threads))
                part = _repeated(pictures, batch)
                session.run(part)
                repeats = _repeats(session, part, settings.seconds, clock)
                works[name] = functools.partial(_run_times, session, part, repeats)
                images[name] = batch * repeats
            series = in_turn(told(works, step), settings.rounds, clock=clock)
        for (kind, number), (name, times) in zip(cases, series.items()):
            rates = Series(tuple(images[name] / max(t, 1e-9) for t in times.values))
            (result.batch_sweep if kind == "batch" else result.thread_sweep)[number] = rates


def _repeated(pictures: np.ndarray, count: int) -> np.ndarray:
    return np.stack([pictures[at % len(pictures)] for at in range(count)])


def _repeats(session: Session, part: np.ndarray, seconds: float, clock: Clock) -> int:
    start = clock()
    session.run(part)
    return min(max(1, math.ceil(seconds / max(clock() - start, 1e-6))), 200)


def _run_times(session: Session, part: np.ndarray, repeats: int) -> None:
    for _ in range(repeats):
        session.run(part)


def _more_versions() -> Dict[str, str]:
    """Of what computed: the modules that are loaded by now."""
    found = {}
    for name in ("onnxruntime", "torch", "cv2", "av"):
        version = getattr(sys.modules.get(name), "__version__", None)
        if version is not None:
            found[name] = str(version)
    return found
