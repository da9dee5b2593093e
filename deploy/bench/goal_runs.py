"""How each goal is measured: the engine at full width, the pipeline around a device of no cost."""

from __future__ import annotations

import contextlib
import functools
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Sequence

import numpy as np

from ...errors import ToolkitError
from ...inference.artifact import Artifact, load_artifact, pace_target
from ...inference.devices.pace import ceiling
from ...inference.devices.reference import ReferenceDevice
from ...inference.devices.sim import SimDevice
from ...inference.run import RunOptions, run
from ...inference.session import Session
from ...inference.sinks import Format
from ...inference.sources import open_images, open_video
from . import child
from .contenders import LAYOUTS, Subject, contender
from .goals import GoalReport, Measured
from .machine import busy_note, cores, load, this_machine
from .material import Head, compiled, make_clip, make_model, make_pictures
from .plain import PlainDevice, decode_clip, decode_pictures, transcode_clip
from .rounds import Series, Step, in_turn, ratio, told

SECTIONS = ("engine", "pipeline")


@dataclass(frozen=True)
class Scale:
    """How much is measured for the goals.

    Attributes:
        rounds: of everything that takes seconds.
        width: of the U-YNet.
        reference_width: of the one the reference device computes.
        batch: pictures per submission.
        threads: of computations and of the pipeline, except where a goal says otherwise.
        images: PNG crops.
        small_frames, large_frames: of the 256x256 and the 1280x720 clip.
        paced_images: for the paced device.
        long_frames, short_frames: of the clips for flat memory.
        quantized: whether the quantized model is measured; its calibration takes a while.
    """

    rounds: int = 5
    width: int = 64
    reference_width: int = 8
    batch: int = 8
    threads: int = field(default_factory=cores)
    images: int = 1000
    small_frames: int = 600
    large_frames: int = 120
    paced_images: int = 1600
    long_frames: int = 6000
    short_frames: int = 300
    quantized: bool = True


QUICK = Scale(
    rounds=3,
    width=16,
    images=200,
    small_frames=100,
    large_frames=20,
    paced_images=320,
    long_frames=600,
    short_frames=100,
)
"""Seconds instead of minutes; it shows that everything works and roughly where it stands."""


def measure_goals(
    scale: Scale,
    quick: bool = False,
    sections: Sequence[str] = SECTIONS,
    step: Step = lambda text: None,
) -> GoalReport:
    """Measures every goal.

    A goal that cannot be measured here (no torch, no PyAV) stays in the table, with the reason.

    Args:
        scale: how much.
        quick: whether ``scale`` is less than the goals ask for.
        sections: of ``SECTIONS``.
        step: told what is measured next.
    """
    machine, before = this_machine(), load()
    found: Dict[str, Measured] = {}
    parts: List[Callable[[], List[Measured]]] = []
    with tempfile.TemporaryDirectory(prefix="deepfake-fpga-bench-") as name:
        folder = Path(name)
        step("make the model")
        model = make_model(folder / "uynet.xmodel", scale.width)
        if "engine" in sections:
            parts.append(lambda: load_goals(scale, model, folder / "cache", step))
            parts.append(lambda: engine_goals(scale, load_artifact(model), step))
            parts.append(lambda: reference_goal(scale, step))
        if "pipeline" in sections:
            parts.append(lambda: image_goals(scale, model, folder, step))
            parts.append(lambda: video_goals(scale, model, folder, step))
            parts.append(lambda: memory_goal(scale, model, folder, step))
        notes = [note for note in (busy_note(before, machine.cores),) if note]
        for part in parts:
            try:
                found.update((one.key, one) for one in part())
            except ToolkitError as error:
                notes.append(str(error))
    settings = {**scale.__dict__, "load_before": before}
    return GoalReport(machine, quick, settings, found, notes)


def load_goals(scale: Scale, model: Path, cache: Path, step: Step) -> List[Measured]:
    """Time to an engine and peak memory, each in processes of their own."""
    subject = Subject(model, width=scale.width)
    task: Dict[str, Any] = {
        "task": "device",
        "subject": subject.to_json(),
        "name": "sim",
        "batch": scale.batch,
        "threads": scale.threads,
        "batches": 3,
    }
    cold, cached = [], []
    sim: Dict[str, Any] = {}
    for number in range(scale.rounds):
        step(f"load sim, round {number + 1}")
        place = cache / str(number)
        cold.append(child.measure(task, place)["load_seconds"])
        sim = child.measure(task, place)
        cached.append(sim["load_seconds"])
    imports = f"and {sim['import_seconds']:.2f} s for importing onnx and onnxruntime"
    found = [
        Measured.of("load-cold", Series(tuple(cold)), imports),
        Measured.of("load-cached", Series(tuple(cached)), imports),
    ]
    peaks: Dict[str, float] = {}
    try:
        for layout in LAYOUTS:
            step(f"memory of float {layout}")
            answer = child.measure({**task, "name": "float", "layout": layout})
            peaks[layout] = answer["peak_bytes"]
    except ToolkitError as error:
        return [*found, Measured("memory", None, detail=str(error))]
    least = min(peaks, key=lambda layout: peaks[layout])
    detail = (
        f"sim {sim['peak_bytes'] / 2**20:.0f} MiB, "
        + ", ".join(f"float {layout} {peak / 2**20:.0f} MiB" for layout, peak in peaks.items())
        + f"; whole processes, against {least}"
    )
    return [*found, Measured("memory", sim["peak_bytes"] / peaks[least], 0.0, detail)]


def engine_goals(scale: Scale, artifact: Artifact, step: Step) -> List[Measured]:
    """The engine beside the float, the plain and the quantized model, in one run."""
    graph, subgraph = artifact.graph, artifact.graph.subgraphs("DPU")[0]
    size = (artifact.preprocessing.height, artifact.preprocessing.width)
    codes = np.random.default_rng(1).integers(0, 33, (scale.batch, *size, 3)).astype(np.int8)
    with contextlib.ExitStack() as stack:
        step("build sim")
        exact = SimDevice(graph, subgraph, scale.batch, scale.threads)
        single = SimDevice(graph, subgraph, 1, scale.threads)
        plain = PlainDevice(graph, subgraph, scale.batch, scale.threads)
        for device in (exact, single, plain):
            stack.callback(device.close)
        name = exact.inputs[0].name

        def one_by_one() -> None:
            for image in codes:
                single.compute({name: image[None]})

        works: Dict[str, Callable[[], Any]] = {
            "sim": lambda: exact.compute({name: codes}),
            "plain": lambda: plain.compute({name: codes}),
            "batch 1": one_by_one,
        }
        missing = ""
        try:
            works.update(_torch_works(scale, artifact, step))
        except (ImportError, ToolkitError) as error:
            missing = str(error)
        for key, work in works.items():
            step(f"warm {key} up")
            work()
        seconds = in_turn(told(works, step), scale.rounds)
    sim = seconds["sim"]
    rate = scale.batch / sim.median
    alone = ratio(seconds["batch 1"], sim)
    found = [
        Measured.of("sim-over-plain", ratio(seconds["plain"], sim), exact.engine_reason),
        Measured.of("batch-1", alone, f"by processor time {alone.busy_median:.2f} x"),
    ]
    layouts = [f"float {layout}" for layout in LAYOUTS if f"float {layout}" in seconds]
    if not layouts:
        lost = ("sim-over-float", "sim-over-quantized")
        return [*found, *(Measured(key, None, detail=missing) for key in lost)]
    best = min(layouts, key=lambda key: seconds[key].median)
    rates = ", ".join(f"{key} {scale.batch / seconds[key].median:.2f}" for key in layouts)
    detail = f"images/s: sim {rate:.2f}, {rates}; {best.partition(' ')[2]} counts"
    found.append(Measured.of("sim-over-float", ratio(seconds[best], sim), detail))
    if "quantized" in seconds:
        slow = seconds["quantized"]
        detail = f"images/s: sim {rate:.2f}, quantized {scale.batch / slow.median:.2f}"
        found.append(Measured.of("sim-over-quantized", ratio(slow, sim), detail))
    else:
        found.append(Measured("sim-over-quantized", None, detail="left out"))
    return found


def _torch_works(scale: Scale, artifact: Artifact, step: Step) -> Dict[str, Callable[[], Any]]:
    import torch

    torch.set_num_threads(scale.threads)
    size = (artifact.preprocessing.height, artifact.preprocessing.width)
    subject = Subject(artifact.path, width=scale.width)
    images = torch.rand(scale.batch, 3, *size, generator=torch.Generator().manual_seed(1))
    works: Dict[str, Callable[[], Any]] = {}

    def add(key: str, network: Any) -> None:
        def work() -> None:
            with torch.no_grad():
                network(images)

        works[key] = work

    for layout in LAYOUTS:
        step(f"make float {layout}")
        makes = contender("float", subject, size, layout).makes
        assert makes is not None
        add(f"float {layout}", makes())
    if scale.quantized:
        step("calibrate the quantized model")
        makes = contender("quantized", subject, size).makes
        assert makes is not None
        add("quantized", makes())
    return works


def reference_goal(scale: Scale, step: Step) -> List[Measured]:
    """One picture by the integer rules in numpy."""
    graph = compiled(scale.reference_width)
    device = ReferenceDevice(graph, graph.subgraphs("DPU")[0], 1)
    info = device.inputs[0]
    codes = np.random.default_rng(1).integers(0, 33, info.shape).astype(np.int8)
    works = {"reference": lambda: device.compute({info.name: codes})}
    seconds = in_turn(told(works, step), scale.rounds)["reference"]
    device.close()
    return [Measured.of("reference", seconds)]


def image_goals(scale: Scale, model: Path, folder: Path, step: Step) -> List[Measured]:
    """PNG crops, with the device that costs nothing, as fast as possible and at the card's pace."""
    artifact = load_artifact(model)
    subgraph, target = artifact.graph.subgraphs("DPU")[0], pace_target(artifact)
    most = ceiling(artifact.graph, subgraph, target)
    step("draw pictures")
    many = make_pictures(folder / "crops", max(scale.images, scale.paced_images))
    paths = sorted(many.iterdir())[: scale.images]
    size = (artifact.preprocessing.height, artifact.preprocessing.width)
    fill: List[float] = []
    with Session(artifact, "null") as free:

        def pictures() -> None:
            fill.append(_run(free, many, len(paths), folder, scale.threads))

        works: Dict[str, Callable[[], Any]] = {
            "pictures": pictures,
            "bare pictures": lambda: decode_pictures(paths, size, scale.threads),
        }
        pictures()
        seconds = in_turn(told(works, step), scale.rounds)
    rates = Series(tuple(len(paths) / t for t in seconds["pictures"].values))
    bare = len(paths) / seconds["bare pictures"].median
    busy = [len(paths) / seconds[key].busy_median for key in ("pictures", "bare pictures")]
    detail = (
        f"{scale.threads} threads; decoding and resizing alone {bare:.0f} images/s; per second of "
        f"one core {busy[0]:.0f}, decoding and resizing alone {busy[1]:.0f}; "
        f"{100 * fill[-1]:.1f} % of the batch slots filled"
    )
    found = [Measured.of("images", rates, detail)]
    count = scale.paced_images
    for threads in (4, 8):
        with Session(artifact, "null", pace=target) as session:
            works = {
                f"paced, {threads} threads": functools.partial(
                    _run, session, many, count, folder, threads
                )
            }
            times = next(iter(in_turn(told(works, step), scale.rounds).values()))
        shares = Series(tuple(count / t / most for t in times.values))
        detail = f"{shares.median * most:.1f} of {most:.1f} frames/s, {count} images"
        found.append(Measured.of(f"paced-{threads}", shares, detail))
    return found


def video_goals(scale: Scale, model: Path, folder: Path, step: Step) -> List[Measured]:
    """Clips, with the device that costs nothing, beside decoding and transcoding alone."""
    found: List[Measured] = []
    with Session(load_artifact(model), "null") as session:
        for name, frames, height, width in (
            ("720p", scale.large_frames, 720, 1280),
            ("256", scale.small_frames, 256, 256),
        ):
            step(f"make a clip of {frames} frames, {width}x{height}")
            clip = make_clip(folder / f"{name}.mp4", frames, height, width)
            once = functools.partial(_run_clip, session, clip, folder, scale.threads)
            works: Dict[str, Callable[[], Any]] = {
                f"{name} decode": functools.partial(decode_clip, clip),
                f"{name} run": functools.partial(once, False),
                f"{name} transcode": functools.partial(
                    transcode_clip, clip, folder / "transcoded.mp4"
                ),
                f"{name} overlay": functools.partial(once, True),
            }
            for work in works.values():
                work()
            seconds = in_turn(told(works, step), scale.rounds)
            for key, base, ours in (
                (f"video-{name}", f"{name} decode", f"{name} run"),
                (f"overlay-{name}", f"{name} transcode", f"{name} overlay"),
            ):
                share = ratio(seconds[base], seconds[ours])
                detail = (
                    f"frames/s: {frames / seconds[ours].median:.0f}, "
                    f"{base.partition(' ')[2]} alone {frames / seconds[base].median:.0f}; "
                    f"by processor time {share.busy_median:.2f} x"
                )
                found.append(Measured.of(key, share, detail))
    return found


def memory_goal(scale: Scale, model: Path, folder: Path, step: Step) -> List[Measured]:
    """Peak memory of a long and of a short clip, with overlays, each in a process of its own."""
    peaks: Dict[int, float] = {}
    for frames in (scale.short_frames, scale.long_frames):
        step(f"make and run a clip of {frames} frames")
        clip = make_clip(folder / f"{frames}.mp4", frames, 256, 256)
        task = {
            "task": "video",
            "model": str(model),
            "clip": str(clip),
            "output": str(folder / f"out-{frames}"),
            "pictures": True,
            "threads": scale.threads,
        }
        peaks[frames] = child.measure(task)["peak_bytes"]
    detail = ", ".join(f"{frames} frames {peak / 2**20:.0f} MiB" for frames, peak in peaks.items())
    value = peaks[scale.long_frames] / peaks[scale.short_frames]
    return [Measured("flat-memory", value, 0.0, f"{detail}, with overlays")]


def _run(session: Session, pictures: Path, count: int, folder: Path, threads: int) -> float:
    """Runs the first pictures of a folder; returns how full the batches were."""
    options = RunOptions(threads=threads, pictures=False, formats=(Format.RLE,))
    summary = run([Head(open_images(str(pictures)), count)], session, folder / "out", options)
    return summary.meter.fill or 0.0


def _run_clip(
    session: Session, clip: Path, folder: Path, threads: int, pictures: bool
) -> Optional[float]:
    options = RunOptions(threads=threads, pictures=pictures)
    return run([open_video(str(clip))], session, folder / "out", options).meter.fill
