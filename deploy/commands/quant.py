"""The command ``quant``: calibrate a checkpoint, then test and export the quantized model."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Optional

import click

from ...errors import UsageError
from ...quantize.releases import DEFAULT, RELEASES
from .common import build_dir_option, quiet_option, teller

if TYPE_CHECKING:
    from ...quantize.evaluation import Evaluation
    from ..build_folder import Manifest
    from ..quantization import QuantRequest
    from ..searching import SearchRequest


@click.command(
    "quant",
    epilog="""\b
Examples:
  deepfake-fpga quant --mode calib --checkpoint weights.pth --data faces
  deepfake-fpga quant --mode test --data faces
  deepfake-fpga quant --mode calib --data faces --subset 200 -b 16 -d build
  deepfake-fpga quant --mode calib --data faces --release 1.4.1
  deepfake-fpga quant --mode calib --data faces --search --judge other-faces --floor-auc 0.97

The data folder has crops/<video>_<n>.png, masks/<video>_<n>.gif and metadata.json;
calibration also takes any folder of pictures.""",
)
@click.option(
    "--mode",
    type=click.Choice(["calib", "test"]),
    required=True,
    help="calib finds the fix points; test measures and writes UYNet_int.xmodel.",
)
@click.option(
    "-b",
    "--batch-size",
    type=click.IntRange(min=1),
    default=8,
    show_default=True,
    help="Pictures at a time.",
)
@build_dir_option("Folder with float_model/, quant_model/ and compiled/.")
@click.option(
    "--checkpoint",
    type=click.Path(path_type=Path),
    help="Float weights (.pth, .pt, .safetensors). "
    "Default: the one in float_model/, else the shipped one.",
)
@click.option("--data", type=click.Path(path_type=Path), help="Folder of pictures.")
@click.option("--subset", type=click.IntRange(min=1), help="Use at most so many pictures.")
@click.option(
    "--backend",
    type=click.Choice(["auto", "vitis", "sim"]),
    default="auto",
    show_default=True,
    help="Whose quantizer.",
)
@click.option(
    "--release",
    type=click.Choice(list(RELEASES)),
    help="Follow the rules and files of the vendor's release in your container. Default: "
    f"what its quantizer is, {DEFAULT} where it is not there; for test the calibrated one.",
)
@click.option(
    "--force", is_flag=True, help="Calibrate although the gate warns; the manifest records it."
)
@click.option("--no-report", is_flag=True, help="Test without the report, which takes longer.")
@click.option(
    "--fast-finetune",
    is_flag=True,
    help="calib: first tune the parameters layer by layer, which takes long; a run that was "
    "stopped goes on. test: use what was tuned.",
)
@click.option(
    "--finetune-images",
    type=click.IntRange(min=1),
    help="Tune on so many of the pictures. Default: all.",
)
@click.option(
    "--search",
    is_flag=True,
    help="calib: try many ways, compare them on --judge and keep the best; a run that was stopped "
    "goes on.",
)
@click.option(
    "--judge",
    type=click.Path(path_type=Path),
    help="Labelled crops of other people for --search: half of them choose, half report.",
)
@click.option(
    "--judge-images",
    type=click.IntRange(min=1),
    help="So many pictures choose at most, and as many report. Default: 200.",
)
@click.option("--floor-auc", type=click.FloatRange(0, 1), help="Least AUC --search may keep.")
@click.option("--floor-iou", type=click.FloatRange(0, 1), help="Least mask IoU likewise.")
@click.option("--json", "as_json", is_flag=True, help="Print the manifest to standard output.")
@quiet_option
def command(
    mode: str,
    batch_size: int,
    build_dir: Path,
    checkpoint: Optional[Path],
    data: Optional[Path],
    subset: Optional[int],
    backend: str,
    release: Optional[str],
    force: bool,
    fast_finetune: bool,
    finetune_images: Optional[int],
    no_report: bool,
    search: bool,
    judge: Optional[Path],
    judge_images: Optional[int],
    floor_auc: Optional[float],
    floor_iou: Optional[float],
    as_json: bool,
    quiet: bool,
) -> None:
    """Quantize a trained checkpoint to power-of-two INT8.

    First --mode calib, then --mode test, as with the vendor's tool.
    """
    if data is None:
        raise UsageError(
            f"quant --mode {mode} needs pictures",
            "no --data was given",
            f"deepfake-fpga quant --mode {mode} --data DIR",
        )
    if finetune_images is not None and not (fast_finetune and mode == "calib"):
        raise UsageError(
            "--finetune-images is for quant --mode calib --fast-finetune",
            f"--mode {mode}" + ("" if fast_finetune else " without --fast-finetune"),
        )
    wanted = _search(mode, search, judge, judge_images, floor_auc, floor_iou, fast_finetune)
    from ..build_folder import BuildFolder
    from ..progress import show_progress
    from ..quantization import QuantRequest, calibrate, measure, silent

    build = BuildFolder(build_dir)
    request = QuantRequest(
        build, data, checkpoint, subset, batch_size, backend, force, release, not no_report,
        fast_finetune, finetune_images, wanted,
    )  # fmt: skip
    say = teller(quiet)
    progress = silent if quiet else show_progress
    if mode == "calib":
        manifest = calibrate(request, say, progress)
        # A search may have chosen to tune, and a test must know.
        request = replace(request, fast_finetune=bool(manifest.options["fast_finetune"]))
        text, warnings = calibration_text(manifest, request), manifest.warnings
    else:
        manifest, evaluation = measure(request, say, progress)
        text, warnings = evaluation_text(evaluation, request), manifest.results["test_warnings"]
    for warning in warnings:
        click.echo(f"Warning: {warning}", err=True)
    if as_json:
        click.echo(json.dumps(manifest.to_json(), indent=2, ensure_ascii=False))
    elif not quiet:
        click.echo(text)


def _search(
    mode: str,
    asked: bool,
    judge: Optional[Path],
    judge_images: Optional[int],
    floor_auc: Optional[float],
    floor_iou: Optional[float],
    fast_finetune: bool,
) -> Optional[SearchRequest]:
    from ..searching import SearchRequest

    example = "deepfake-fpga quant --mode calib --search --data DIR --judge DIR"
    if not asked:
        for option, value in (
            ("--judge", judge), ("--judge-images", judge_images), ("--floor-auc", floor_auc),
            ("--floor-iou", floor_iou),
        ):  # fmt: skip
            if value is not None:
                raise UsageError(f"{option} is for --search", f"{option} {value}", example)
        return None
    if mode != "calib":
        raise UsageError("A search is a calibration", f"--mode {mode} --search", example)
    if judge is None:
        raise UsageError("A search needs labelled pictures to judge by", "no --judge", example)
    if fast_finetune:
        raise UsageError(
            "A search tries fast finetune by itself", "--search --fast-finetune", example
        )
    request = SearchRequest(judge, floor_auc, floor_iou)
    return request if judge_images is None else replace(request, judge_images=judge_images)


def calibration_text(manifest: Manifest, request: QuantRequest) -> str:
    """What a calibration did and what to type next."""
    names = ", ".join(record.path for record in manifest.made)
    return (
        f"Calibrated on {manifest.results['images']} images.\n"
        f"{request.build.quant_model}: {names}, manifest.json\n"
        f"Next: {_command('test', request)}"
    )


def evaluation_text(evaluation: Evaluation, request: QuantRequest) -> str:
    """The float and the quantized model side by side, and what to type next."""
    lines = [f"{'':<20}{'float':>10}{'INT8':>10}{'change':>10}"]
    ours, theirs = evaluation.float_scores, evaluation.quantized_scores
    if ours is not None and theirs is not None:
        lines += [
            _row("mask Dice", ours.dice, theirs.dice, f"{evaluation.masked} masks"),
            _row("mask IoU", ours.iou, theirs.iou, ""),
            _row("verdict accuracy", ours.accuracy, theirs.accuracy, f"{ours.images} labels"),
            _row("verdict AUC", ours.auc, theirs.auc, ""),
            _row("verdict EER", ours.eer, theirs.eer, ""),
        ]
    else:
        lines = [f"No Dice or accuracy: {evaluation.why_no_scores}."]
    alike = evaluation.agreement
    report = "report.html, " if request.report else ""
    lines += [
        f"Agreement on {alike.images} images: {alike.verdict_flips} verdicts differ, "
        f"{100 * alike.mask_pixels:.2f} % of mask pixels are equal,",
        f"the fake probability moves by {alike.mean_difference:.4f} on average, "
        f"{alike.max_difference:.4f} at most.",
    ]
    if alike.flipped:
        lines.append(f"Verdict differs on: {', '.join(alike.flipped)}")
    lines += [
        f"{request.build.quant_model}: UYNet_int.xmodel, evaluation.json, {report}manifest.json",
        f"Next: deepfake-fpga compile{_build_option(request)}",
    ]
    return "\n".join(lines)


def _row(title: str, ours: float, theirs: float, over: str) -> str:
    cells = [f"{title:<20}"]
    for value, sign in ((ours, ""), (theirs, ""), (theirs - ours, "+")):
        cells.append(f"{'-':>10}" if math.isnan(value) else f"{value:>{sign}10.4f}")
    return "".join(cells) + (f"   {over}" if over else "")


def _command(mode: str, request: QuantRequest) -> str:
    finetune = " --fast-finetune" if request.fast_finetune else ""
    return (
        f"deepfake-fpga quant --mode {mode} --data {request.data}{finetune}{_build_option(request)}"
    )


def _build_option(request: QuantRequest) -> str:
    return "" if request.build.path == Path("build") else f" -d {request.build.path}"
