"""The command ``eval``: how good a model is on labelled data, with its confidence."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Iterator, Optional, Tuple

import click

from ...errors import DataError, UsageError
from ..progress import progress_bar
from .common import build_dir_option, model_option, teller
from .face_options import face_options

if TYPE_CHECKING:
    from ...inference.faces import FaceOptions
    from ...inference.verdicts import Rules
    from ..evaluating.material import Material
    from ..evaluating.table import Judge

AGGREGATIONS = ("mean", "trimmed", "confident", "top-k", "noisy-or", "strongest-window")


def _names(value: Any) -> Tuple[str, ...]:
    """Words between commas, each once."""
    if isinstance(value, tuple):
        return value
    return tuple(dict.fromkeys(word.strip() for word in str(value).split(",") if word.strip()))


@click.command(
    "eval",
    epilog="""\b
Examples:
  deepfake-fpga eval --data faces -o result              accuracy, AUC, IoU ... with confidence
  deepfake-fpga eval --data faces --devices float,sim -o result      what INT8 changes
  deepfake-fpga eval --data dfdc_train_part_0 --every 10 -o result   videos, one frame of ten
  deepfake-fpga eval --data faces --robustness -o result re-encoded, blurred, relit ...
  deepfake-fpga eval --data faces -o new --baseline old/eval.json
  deepfake-fpga eval --data videos --calibrate -o result what a probability of run is to mean

\b
DIR holds crops/, masks/ and metadata.json, or videos and metadata.json as DFDC has them.
Exit status: 0 done, 1 worse than the baseline or failed, 2 wrong use.""",
)
@click.option(
    "--data",
    "folders",
    multiple=True,
    required=True,
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Labelled crops or videos; may be repeated, each is a source of its own.",
)
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for eval.json, eval.html, eval.csv, videos.csv, and for what is done so far.",
)
@click.option(
    "--devices",
    type=_names,
    default="auto",
    show_default=True,
    metavar="NAME,NAME...",
    help="Of auto, card, sim, reference, null, float. Others are compared with the first.",
)
@model_option
@build_dir_option("Folder whose compiled model and checkpoint are taken.")
@click.option("--checkpoint", type=click.Path(path_type=Path), help="Float weights, for float.")
@click.option("--subset", type=click.IntRange(min=1), help="Take so many videos only.")
@click.option(
    "--every",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Take one frame of so many.",
)
@face_options
@click.option(
    "--threshold",
    type=click.FloatRange(0, 1),
    default=0.5,
    show_default=True,
    help="Probability from which a frame or a video counts as FAKE.",
)
@click.option(
    "--far",
    type=click.FloatRange(0, 1),
    default=0.01,
    show_default=True,
    help="Choose a threshold that accuses at most this share of the authentic ones.",
)
@click.option(
    "--aggregation",
    type=click.Choice(AGGREGATIONS),
    help="How the frames of a video become its score. Default: of videos what run does with the "
    "model, of crops their mean.",
)
@click.option(
    "--bootstrap",
    type=click.IntRange(min=0),
    default=1000,
    show_default=True,
    help="Resamples of the videos for the intervals.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of all that is random.")
@click.option(
    "--by",
    type=_names,
    default="",
    metavar="KEY,KEY...",
    help="Also split the figures by these entries of metadata.json.",
)
@click.option(
    "--robustness",
    is_flag=True,
    help="Measure again with the pictures compressed, shrunk, blurred, noisy and relit.",
)
@click.option(
    "--perturbations",
    type=_names,
    default="",
    metavar="NAME-N,...",
    help="Only these, such as jpeg-50,h264-33,blur-2; implies --robustness.",
)
@click.option(
    "--baseline",
    type=click.Path(path_type=Path),
    metavar="eval.json",
    help="Compare with an earlier result, video by video.",
)
@click.option(
    "--tolerance",
    type=click.FloatRange(0, 1),
    default=0.01,
    show_default=True,
    help="By how much a figure may be worse than the baseline's.",
)
@click.option(
    "--calibrate",
    "to_calibrate",
    is_flag=True,
    help="Fit the temperature of the verdicts to these videos and write it to verdict.json beside "
    "the model, for run to use.",
)
@click.option("-t", "--threads", type=click.IntRange(min=1), help="Default: one per core.")
@click.option("--json", "as_json", is_flag=True, help="Print the record as JSON.")
@click.option("-q", "--quiet", is_flag=True, help="Only the exit status, warnings and errors.")
@click.pass_context
def command(
    ctx: click.Context,
    folders: Tuple[Path, ...],
    output: Path,
    devices: Tuple[str, ...],
    model: Optional[Path],
    build_dir: Path,
    checkpoint: Optional[Path],
    subset: Optional[int],
    every: int,
    faces: FaceOptions,
    threshold: float,
    far: float,
    aggregation: Optional[str],
    bootstrap: int,
    seed: int,
    by: Tuple[str, ...],
    robustness: bool,
    perturbations: Tuple[str, ...],
    baseline: Optional[Path],
    tolerance: float,
    to_calibrate: bool,
    threads: Optional[int],
    as_json: bool,
    quiet: bool,
) -> None:
    """Measure how good a model is on labelled crops or videos.

    Every figure comes with a confidence interval, for which whole videos are drawn again and
    again. What is done is kept in the output folder: the same command goes on after an
    interruption.
    """
    from ...inference.artifact import load_artifact
    from ...inference.devices import DEVICES
    from ...inference.faces import Kind
    from ...inference.session import Session
    from ..defaults import choose_checkpoint, choose_model
    from ..evaluating.calibrating import calibrate, keep
    from ..evaluating.comparison import against, read_baseline
    from ..evaluating.evaluation import EvalOptions, evaluate, write_evaluation
    from ..evaluating.material import read_material
    from ..evaluating.measures import Settings
    from ..evaluating.page import write_eval_page
    from ..evaluating.perturbations import perturbations as parse
    from ..evaluating.words import terminal_text

    usable = [name for name in DEVICES if name != "replay"]
    for name in devices:
        if name not in usable:
            raise UsageError(f"eval knows no device {name!r}", f"known are {', '.join(usable)}")
    if checkpoint is not None and "float" not in devices:
        raise UsageError(
            "--checkpoint is for the float device",
            f"--devices is {','.join(devices)}",
            "add float to --devices",
        )
    say = teller(quiet)
    changes = parse(perturbations, False) if perturbations else []
    old = None if baseline is None else read_baseline(baseline)
    path, model_reason = choose_model(model, build_dir)
    if "float" in devices and checkpoint is None:
        checkpoint = choose_checkpoint(path, build_dir)
    with progress_bar("reading", "file", quiet=quiet, leave=False) as show:
        material = read_material(folders, subset, seed, show)
    if not material.videos and faces.kind is not Kind.AUTO:
        raise UsageError(
            "The data are crops of faces already",
            f"--faces is {faces.kind.value}",
            "leave --faces out, or measure on videos",
        )
    if to_calibrate:
        _can_be_calibrated(path, material, devices)
    for note in material.notes:
        say(f"Warning: {note}")
    if robustness and not changes:
        changes = parse((), material.videos)
    say(f"Model: {path} ({model_reason})")
    artifact = load_artifact(path)
    rules, judge, judged_by = _judging(path, threshold, aggregation, material.videos)
    options = EvalOptions(
        Settings(threshold, far, bootstrap, seed),
        rules,
        judge,
        judged_by,
        every=every,
        by=by,
        changes=tuple(changes),
        faces=faces if material.videos else None,
        threads=threads,
    )

    def open_session(name: str) -> Session:
        session = Session(
            artifact,
            name,
            threads=threads,
            checkpoint=checkpoint if name == "float" else None,
        )
        say(f"Device: {session.device_name} ({session.reason})")
        return session

    with _bars(quiet) as progress:
        try:
            found = evaluate(
                material,
                devices,
                open_session,
                options,
                output,
                model_reason=model_reason,
                checkpoint=checkpoint,
                progress=progress,
            )
        except KeyboardInterrupt:
            click.echo(f"What was done is in {output}; the same command goes on.", err=True)
            raise
    if old is not None:
        found.against = against(old, found.tables, material.digest, options.settings, tolerance)
        found.baseline, found.tolerance = str(old.path), tolerance
    if to_calibrate:
        try:
            fit = calibrate(found.devices[0].table, rules, material.clips)
        except DataError:  # too many could not be judged: the figures are kept all the same
            write_evaluation(found, output)
            raise
        found.calibration = fit.to_json()
        kept = keep(fit, path, material.name)
    record = write_evaluation(found, output)
    write_eval_page(output / "eval.html", record)
    written = [str(output / name) for name in ("eval.json", *record["files"], "eval.html")]
    if to_calibrate:
        written.append(str(kept))
        say(f"Calibration: {fit.words}")
    if as_json:
        click.echo(json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False))
    elif not quiet:
        click.echo(terminal_text(record, written))
    for one in found.against:
        for change in one.changes:
            if change.worse:
                click.echo(
                    f"Error: {change.level} {change.name} of {one.device} is worse than the "
                    f"baseline by more than {tolerance:g}.",
                    err=True,
                )
    ctx.exit(1 if found.worse else 0)


def _can_be_calibrated(model: Path, material: Material, devices: Tuple[str, ...]) -> None:
    from ..evaluating.calibrating import check_enough, refuse_shipped

    if not material.videos:
        raise UsageError(
            "Crops are judged by their mean, which nothing calibrates",
            "--calibrate was given, and --data holds crops",
            "give labelled videos",
        )
    if devices[0] in ("float", "null"):
        raise UsageError(
            f"The compiled model is not calibrated by what {devices[0]} says",
            f"--devices is {','.join(devices)}",
            "name card or sim first",
        )
    refuse_shipped(model)
    check_enough(material.clips)


def _judging(
    path: Path, threshold: float, aggregation: Optional[str], videos: bool
) -> Tuple[Rules, Judge, str]:
    """Rules, judge, and in words how frames become the score of their video."""
    from ...inference.verdicts import choose_rules
    from ..evaluating.table import judge_of

    rules = choose_rules(path, threshold, aggregation)
    if videos:
        return rules, judge_of(rules, False), f"{rules.aggregation}, {rules.calibration.reason}"
    if aggregation is None:
        return rules, judge_of(rules, True), "the mean over its crops, as run judges pictures"
    rules = replace(rules, min_frames=1)
    return rules, judge_of(rules, False), f"{aggregation} over its crops"


@contextlib.contextmanager
def _bars(quiet: bool) -> Iterator[Callable[[str, int, Optional[int]], None]]:
    """One bar with the time left for every device and perturbation."""
    with contextlib.ExitStack() as stack:
        title, show = "", None

        def progress(what: str, done: int, total: Optional[int]) -> None:
            nonlocal title, show
            if what != title or show is None:
                stack.close()
                title = what
                show = stack.enter_context(progress_bar(what, "frame", quiet=quiet))
            show(done, total)

        yield progress
