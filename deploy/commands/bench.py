"""The command ``bench``: devices side by side on this machine, and the goals for speed."""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Iterator, List, Optional, Sequence, Tuple

import click

from ...errors import UsageError
from ...files import write_json, write_text
from .common import build_dir_option, model_option

if TYPE_CHECKING:
    from ...inference.artifact import Artifact
    from ...inference.sources import Source
    from ..bench.baseline import Change
    from ..bench.contenders import Subject
    from ..bench.record import Bench

GENERATED = 256
"""Pictures drawn where none are given."""


def _numbers(ctx: click.Context, param: click.Parameter, value: Any) -> Optional[Tuple[int, ...]]:
    """Whole numbers from 1, between commas, each once, in the order given."""
    if value is None:
        return None
    parts = value if isinstance(value, (tuple, list)) else str(value).split(",")
    try:
        found = tuple(dict.fromkeys(int(part) for part in parts))
    except ValueError:
        found = ()
    if not found or min(found) < 1:
        raise click.BadParameter(
            f"{value!r} is not a list of whole numbers from 1, such as 1,2,4", ctx, param
        )
    return found


@click.command(
    "bench",
    epilog="""\b
Examples:
  deepfake-fpga bench                              the shipped model, all usable devices
  deepfake-fpga bench --width 64 --devices float,sim,null
  deepfake-fpga bench --video clip.mp4 -o result   bench.json and chart.svg in result
  deepfake-fpga bench --batches 1,2,4,8 --threads 2,1
  deepfake-fpga bench --baseline benchmarks/baselines/KIND.json --tolerance 0.1
  deepfake-fpga bench --goals                      every goal for speed and memory; minutes
  deepfake-fpga bench --goals --quick              the same on a small scale

Exit status: 0 done, 1 sim, reference and card differ, a device is slower than the baseline, or a
goal is missed; 2 wrong use.""",
)
@click.option(
    "--images",
    multiple=True,
    metavar="DIR|FILE|GLOB",
    help="Frames to measure with. Default: pictures drawn for it.",
)
@click.option("--video", "videos", multiple=True, metavar="FILE", help="Frames from a video.")
@model_option
@build_dir_option("Folder whose compiled model, checkpoint and calibration are taken.")
@click.option(
    "--width",
    type=click.IntRange(min=1),
    help="Measure a U-YNet of this width with random parameters instead; 64 is the full one.",
)
@click.option(
    "--checkpoint", type=click.Path(path_type=Path), help="Float weights of --model, for float."
)
@click.option(
    "--devices",
    metavar="NAME,NAME...",
    help="Of float, quantized, sim, reference, null, card. Default: all that are usable here.",
)
@click.option(
    "--quantized", is_flag=True, help="Also measure the quantized model in test mode, in torch."
)
@click.option(
    "--batches",
    callback=_numbers,
    metavar="N,N...",
    help="Measure these batches as well, one after another.",
)
@click.option(
    "-t",
    "--threads",
    callback=_numbers,
    metavar="N,N...",
    help="Threads; of several the first is for the table, all are compared. Default: one per core.",
)
@click.option(
    "--in-flight",
    type=click.IntRange(min=1),
    default=3,
    show_default=True,
    help="Batches given to a device before the first answer is waited for.",
)
@click.option(
    "--rounds",
    type=click.IntRange(min=1),
    help="How often everything is measured, in turn. Default: 5, with --quick 3.",
)
@click.option(
    "--frames",
    type=click.IntRange(min=1),
    default=256,
    show_default=True,
    help="Frames through the whole pipeline at most.",
)
@click.option(
    "--sample",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Pictures for the reference device, which is slow.",
)
@click.option("--quick", is_flag=True, help="Measure less; figures are rough.")
@click.option(
    "--goals", is_flag=True, help="Measure the project's goals for speed and memory instead."
)
@click.option(
    "--baseline",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Compare with a bench.json of the same kind of machine.",
)
@click.option(
    "--tolerance",
    type=click.FloatRange(0, 1),
    default=0.15,
    show_default=True,
    help="Share of its rate that a device may lose against the baseline.",
)
@click.option("--any-machine", is_flag=True, help="Compare even with another kind of machine.")
@click.option(
    "--save-baseline",
    is_flag=True,
    help="Keep the result in benchmarks/baselines of the checkout, for this kind of machine.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for bench.json and chart.svg.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the record as JSON.")
@click.option("-q", "--quiet", is_flag=True, help="Only the exit status, warnings and errors.")
@click.pass_context
def command(
    ctx: click.Context,
    images: Tuple[str, ...],
    videos: Tuple[str, ...],
    model: Optional[Path],
    build_dir: Path,
    width: Optional[int],
    checkpoint: Optional[Path],
    devices: Optional[str],
    quantized: bool,
    batches: Optional[Tuple[int, ...]],
    threads: Optional[Tuple[int, ...]],
    in_flight: int,
    rounds: Optional[int],
    frames: int,
    sample: int,
    quick: bool,
    goals: bool,
    baseline: Optional[Path],
    tolerance: float,
    any_machine: bool,
    save_baseline: bool,
    output: Optional[Path],
    as_json: bool,
    quiet: bool,
) -> None:
    """Measure the devices of this machine side by side, outputs and times.

    Everything is measured in turn, several times; medians are shown with the spread of their
    middle half. The answers are compared as well: sim, reference and card have to be equal.
    """
    if goals:
        given = [
            name
            for name, value in (
                ("--images", images),
                ("--video", videos),
                ("--model", model),
                ("--devices", devices),
                ("--batches", batches),
                ("--baseline", baseline),
                ("--save-baseline", save_baseline),
            )
            if value
        ]
        if given:
            raise UsageError(
                "--goals measures with its own models and frames",
                f"{', '.join(given)} given",
                "leave one out",
            )
        ctx.exit(_goals(quick, width, rounds, threads, output, as_json, quiet))
    if width is not None and (model is not None or checkpoint is not None):
        raise UsageError(
            "--width makes a model of its own", "--model or --checkpoint was given", "leave one out"
        )
    from ..bench.baseline import compare, read_record, save
    from ..bench.contenders import contenders
    from ..bench.devices import bench
    from ..bench.runner import Settings
    from ..bench.table import bench_text

    record = None if baseline is None else read_record(baseline)
    named = [] if devices is None else [name.strip() for name in devices.split(",")]
    settings = Settings(
        rounds=rounds or (3 if quick else 5),
        in_flight=in_flight,
        frames=min(frames, 32) if quick else frames,
        sample=sample,
        seconds=0.1 if quick else 0.5,
        batches=batches or (),
        thread_counts=threads if threads and len(threads) > 1 else (),
    )
    if threads:
        settings = replace(settings, threads=threads[0])
    with tempfile.TemporaryDirectory(prefix="deepfake-fpga-bench-") as name:
        folder = Path(name)
        subject, artifact = _subject(model, build_dir, width, checkpoint, folder)
        chosen, left_out = contenders(named, subject, artifact, quantized)
        sources, words = _sources(images, videos, folder, settings.frames)
        with _steps("bench", quiet) as step:
            found = bench(chosen, subject, artifact, sources, words, settings, left_out, step)
    changes: List[Change] = []
    if record is not None:
        changes = compare(found, record, tolerance, any_machine, wanted=not named)
    content = {**found.to_json(), "baseline": [change.to_json() for change in changes]}
    written = [] if output is None else _write(output, found, content)
    if save_baseline:
        written.append(save(found))
        for note in found.notes:
            click.echo(f"Warning: the baseline is saved all the same: {note}", err=True)
    if as_json:
        click.echo(json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False))
    elif not quiet:
        click.echo(bench_text(found, changes))
        if written:
            click.echo("written: " + ", ".join(str(path) for path in written))
    for wrong in found.failures:
        click.echo(f"Error: {wrong.name} and {wrong.with_name} differ.", err=True)
    for change in changes:
        if change.worse:
            share = "gone" if change.ratio is None else f"at {change.ratio:.2f} of the baseline"
            click.echo(f"Error: {change.device} is {share}.", err=True)
    ctx.exit(1 if found.failures or any(change.worse for change in changes) else 0)


def _goals(
    quick: bool,
    width: Optional[int],
    rounds: Optional[int],
    threads: Optional[Sequence[int]],
    output: Optional[Path],
    as_json: bool,
    quiet: bool,
) -> int:
    """Measures and prints the goals; returns the exit status."""
    from ..bench.goal_runs import QUICK, Scale, measure_goals
    from ..bench.goals import goals_text

    scale = QUICK if quick else Scale()
    if width is not None:
        scale = replace(scale, width=width)
    if rounds is not None:
        scale = replace(scale, rounds=rounds)
    if threads:
        scale = replace(scale, threads=threads[0])
    with _steps("goals", quiet) as step:
        report = measure_goals(scale, quick or scale.width != Scale().width, step=step)
    if output is not None:
        write_json(output / "goals.json", report.to_json())
    if as_json:
        click.echo(json.dumps(report.to_json(), indent=2, ensure_ascii=False, allow_nan=False))
    elif not quiet:
        click.echo(goals_text(report))
        if output is not None:
            click.echo(f"written: {output / 'goals.json'}")
    return 1 if report.missed else 0


def _subject(
    model: Optional[Path],
    build_dir: Path,
    width: Optional[int],
    checkpoint: Optional[Path],
    folder: Path,
) -> Tuple[Subject, Artifact]:
    """The model that is measured, made in ``folder`` where a width is given."""
    from ...inference.artifact import load_artifact
    from ..bench.contenders import Subject
    from ..bench.material import make_model
    from ..build_folder import BuildFolder
    from ..defaults import choose_checkpoint, choose_model

    if width is not None:
        path = make_model(folder / f"uynet_w{width}.xmodel", width)
        return Subject(path, width=width), load_artifact(path)
    path, _ = choose_model(model, build_dir)
    if checkpoint is None:
        checkpoint = choose_checkpoint(path, build_dir)
    build = BuildFolder(build_dir)
    own = path.resolve().parent == build.compiled.resolve()
    calibration = build.quant_model if own and build.quant_model.is_dir() else None
    return Subject(path, checkpoint, calibration), load_artifact(path)


def _sources(
    images: Sequence[str], videos: Sequence[str], folder: Path, count: int
) -> Tuple[Callable[[], Sequence[Source]], str]:
    """What opens the frames, and what they are in words."""
    from ...inference.sources import open_images, open_video
    from ..bench.material import PICTURE, make_pictures

    if images or videos:

        def given() -> List[Source]:
            opened: List[Source] = [open_images(text) for text in dict.fromkeys(images)]
            return opened + [open_video(text) for text in dict.fromkeys(videos)]

        given()  # a name that is wrong is told before anything is measured
        return given, ", ".join([*images, *videos])
    drawn = str(make_pictures(folder / "pictures", min(count, GENERATED)))
    words = f"{min(count, GENERATED)} generated PNG crops of {PICTURE}x{PICTURE}"
    return lambda: [open_images(drawn)], words


def _write(output: Path, found: Bench, content: Any) -> List[Path]:
    from ..bench.chart import chart

    write_json(output / "bench.json", content)
    write_text(output / "chart.svg", chart(found))
    return [output / "bench.json", output / "chart.svg"]


@contextlib.contextmanager
def _steps(title: str, quiet: bool) -> Iterator[Callable[[str], None]]:
    """One line on standard error, for a person watching: the time so far and what is measured."""
    if quiet or not sys.stderr.isatty():
        yield lambda text: None
        return
    begun = time.monotonic()

    def step(text: str) -> None:
        seconds = int(time.monotonic() - begun)
        line = f"{title} {seconds // 60}:{seconds % 60:02d} {text}"
        print("\r\x1b[K" + line[: shutil.get_terminal_size().columns - 1], end="", file=sys.stderr)
        sys.stderr.flush()

    try:
        yield step
    finally:
        print("\r\x1b[K", end="", file=sys.stderr)
