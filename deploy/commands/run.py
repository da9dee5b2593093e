"""The command ``run``: images or videos in; verdicts, masks and overlays out."""

from __future__ import annotations

import contextlib
import json
import shlex
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, List, Mapping, Optional, Sequence, Set, Tuple

import click

from ...errors import DataError, UsageError
from ...files import sha256
from ..parameters import address, list_of
from ..progress import progress_bar
from .common import build_dir_option, model_option, quiet_option, teller
from .face_options import face_options
from .input_options import InputOptions, input_options

if TYPE_CHECKING:
    from ...inference.faces import FaceOptions
    from ...inference.sinks import Sink
    from ...inference.summary import Summary

AGGREGATIONS = ["mean", "trimmed", "confident", "top-k", "noisy-or", "strongest-window"]
SHOWN = 10
"""Lines about single videos in the table at the end."""

DEVICES = ["auto", "sim", "reference", "null", "replay", "float", "card"]

FORMATS = ["csv", "sqlite", "npy", "rle", "rle-list"]


@click.command(
    "run",
    epilog="""\b
Examples:
  deepfake-fpga run --video clip.mp4 -o result
  deepfake-fpga run --images faces -o result --labels metadata.json
  deepfake-fpga run --images 'faces/*_0.png' -o result --side-by-side
  deepfake-fpga run --images faces -o result --no-overlay --json
  deepfake-fpga run --images faces -o result --write csv,sqlite,rle
  deepfake-fpga run --video clip.mp4 -o result --serve 8080
  deepfake-fpga run --input rtsp://cam/1 --input camera:0 -o result --duration 10:00
  deepfake-fpga run --input long.mp4 -o result --fps 5 --start 1:00:00 --skip-static
  tar c faces | deepfake-fpga run --input - -o result
  deepfake-fpga run --video clip.mp4 -o result --device card --fallback sim

\b
In the output folder:
  records.jsonl      one JSON object per image or frame, in order
  summary.json       counts, verdict, speed by stage
  report.html        for a video: what was found, where, how sure, in plain words
  timeline.*         when: JSON, WebVTT for players, a picture
  contact.png        frames from all over the video
  evidence.json      SHA-256 of everything, for deepfake-fpga verify
  masks/ overlays/   PNG files, for images
  overlay.mp4        for a video: same rate and frame count, sound kept

\b
More for a collection (more than one file):
  journal.sqlite     what is done, what failed and why; deepfake-fpga journal DIR
  parts/             the results of what is done
  An interrupted run goes on with the same command; several may run at once.
  A file that cannot be read is listed as failed and stops no other.

\b
More with --write:
  csv       records.csv, the records as a table
  sqlite    records.sqlite, tables runs and frames; each run adds to them
  rle       masks.rle.jsonl, masks as COCO run lengths (pycocotools)
  rle-list  masks.counts.jsonl, the same with lists of numbers
  npy       segmentation_output_array.npy, classification_output_array.npy:
            what the network gave, as DeepYNet's scripts write it, 0.8 MB a frame

Exit status: 0 done, 1 nothing could be judged or the work failed, 2 wrong use.""",
)
@click.option(
    "--images",
    multiple=True,
    metavar="DIR|FILE|GLOB",
    help="Images to check; quote a pattern. Can be given more than once.",
)
@click.option(
    "--video",
    "videos",
    multiple=True,
    metavar="FILE",
    help="A video to check, of any kind FFmpeg reads. Can be given more than once.",
)
@input_options
@face_options
@click.option(
    "-o",
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    help="Folder for everything written.",
)
@model_option
@build_dir_option("Folder whose compiled model is taken.")
@click.option(
    "--device",
    type=click.Choice(DEVICES),
    default="auto",
    show_default=True,
    help="What computes: card is the VCK5000, sim its integers at speed, reference the same and "
    "slow, null gives zeros, replay answers from a recording, float is the checkpoint. auto is "
    "card where host and model are fit for it, else sim.",
)
@click.option(
    "--fallback",
    type=click.Choice(["sim", "reference"]),
    help="What goes on where the card fails or is refused; each record names its device. "
    "Default: stop with the reason.",
)
@click.option(
    "--card-timeout",
    type=click.FloatRange(min=0.1),
    metavar="SECONDS",
    help="Time without an answer after which the card counts as hung. Default: 30.",
)
@click.option(
    "--max-celsius",
    type=click.FloatRange(min=30, max=107),
    metavar="DEGREES",
    help="Temperature of the card at which to stop. Default: 95.",
)
@click.option(
    "-t",
    "--threads",
    type=click.IntRange(min=1),
    help="Threads for decoding, drawing and the simulated device. Default: one per core.",
)
@click.option("--no-overlay", is_flag=True, help="Write no pictures and no video.")
@click.option("--side-by-side", is_flag=True, help="Put the original left of its overlay.")
@click.option(
    "--write",
    multiple=True,
    type=list_of(FORMATS),
    metavar="FORMAT,...",
    help=f"Other forms of the results beside records.jsonl: {', '.join(FORMATS)}.",
)
@click.option(
    "--rle-size",
    type=click.Choice(["source", "network"]),
    default="source",
    show_default=True,
    help="Size of the masks of --write rle: that of the picture or that of the network.",
)
@click.option(
    "--show", "window", is_flag=True, help="Show the overlay in a window while the run lasts."
)
@click.option(
    "--serve",
    type=address,
    metavar="[HOST:]PORT",
    help="Show overlay, verdict and rate on a page in the browser while the run lasts. Only "
    "this machine sees it unless a HOST is given; PORT 0 takes one that is free.",
)
@click.option(
    "--labels",
    type=click.Path(path_type=Path),
    metavar="metadata.json",
    help="Right answers by video name; accuracy is reported.",
)
@click.option(
    "--threshold",
    type=click.FloatRange(0, 1),
    default=0.5,
    show_default=True,
    help="Fake probability from which a frame is FAKE and a video is manipulated.",
)
@click.option(
    "--checkpoint", type=click.Path(path_type=Path), help="Float weights, for --device float."
)
@click.option(
    "--weights",
    type=click.Path(path_type=Path),
    metavar="INT.xmodel",
    help="Quantized file to take the constants from, where a model of the vendor's compiler keeps "
    "them in an order nobody knows.",
)
@click.option(
    "--record",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Keep the device's inputs and outputs in a file, for --device replay and parity.",
)
@click.option(
    "--recording",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="What --device replay plays back.",
)
@click.option(
    "--pace",
    type=click.Choice(["vck5000"]),
    help="Let sim, reference or null answer no sooner than the card would, to measure the host.",
)
@click.option(
    "--trace",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write what every thread did and when, for chrome://tracing or ui.perfetto.dev.",
)
@click.option(
    "--aggregation",
    type=click.Choice(AGGREGATIONS),
    help="How the frames of a video become its score. Default: what was measured best for the "
    "model, else top-k (docs/verdicts.md).",
)
@click.option("--no-report", is_flag=True, help="Write no report.html.")
@click.option(
    "--no-evidence",
    is_flag=True,
    help="Write no timeline, contact sheet, report and evidence.json for videos.",
)
@click.option(
    "--key",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Sign evidence.json with this key, for verify --key.",
)
@click.option("--retry-failed", is_flag=True, help="Do again what failed before, in a collection.")
@click.option(
    "--fresh", is_flag=True, help="Forget what an earlier run of the collection has done."
)
@click.option("--json", "as_json", is_flag=True, help="Print the summary to standard output.")
@quiet_option
def command(
    images: Tuple[str, ...],
    videos: Tuple[str, ...],
    asked: InputOptions,
    faces: FaceOptions,
    output: Path,
    model: Optional[Path],
    build_dir: Path,
    device: str,
    fallback: Optional[str],
    card_timeout: Optional[float],
    max_celsius: Optional[float],
    threads: Optional[int],
    no_overlay: bool,
    side_by_side: bool,
    write: Tuple[Tuple[str, ...], ...],
    rle_size: str,
    window: bool,
    serve: Optional[Tuple[str, int]],
    labels: Optional[Path],
    threshold: float,
    checkpoint: Optional[Path],
    weights: Optional[Path],
    record: Optional[Path],
    recording: Optional[Path],
    pace: Optional[str],
    trace: Optional[Path],
    retry_failed: bool,
    fresh: bool,
    aggregation: Optional[str],
    no_report: bool,
    no_evidence: bool,
    key: Optional[Path],
    as_json: bool,
    quiet: bool,
) -> None:
    """Check images or a video for face manipulation.

    Every image or frame gets a fake probability, a verdict and a mask of the manipulated pixels.
    One that cannot be decoded is recorded as such and the rest goes on.
    """
    if checkpoint is not None and device != "float":
        raise UsageError(
            "--checkpoint is for the float device",
            f"--device is {device}",
            f"add --device float, or leave --checkpoint {checkpoint} out",
        )
    if recording is not None and device != "replay":
        raise UsageError(
            "--recording is for the device replay",
            f"--device is {device}",
            f"add --device replay, or leave --recording {recording} out",
        )
    for option, given in (
        ("--fallback", fallback),
        ("--card-timeout", card_timeout),
        ("--max-celsius", max_celsius),
    ):
        if given is not None and device not in ("auto", "card"):
            raise UsageError(
                f"{option} is for the card",
                f"--device is {device}",
                f"add --device card, or leave {option} {given} out",
            )
    from ...inference.artifact import load_artifact, pace_target
    from ...inference.collection import CollectionOptions, run_collection
    from ...inference.collection_inputs import SINGLE, inputs_of
    from ...inference.devices import CardOptions
    from ...inference.journal.folder import locked
    from ...inference.labels import read_labels
    from ...inference.run import RunOptions, run
    from ...inference.session import Session
    from ...inference.sinks import Format
    from ...inference.verdicts import choose_rules
    from ...inference.verdicts.gallery import Gallery
    from ..defaults import choose_checkpoint, choose_model
    from ..evidence.clips import stamps
    from ..evidence.folder import EvidenceOptions, write_evidence
    from ..evidence.manifest import read_key

    say = teller(quiet)
    selection = asked.selection()
    sources = asked.sources(images, videos)
    for source in sources:
        say(f"Input: {source.name} ({source.reason})")
    accuracy = None if labels is None else read_labels(labels)
    viewers = _viewers(window, serve, side_by_side, say)
    gallery = None if no_evidence else Gallery()
    shows = not no_overlay and any(source.kind != "images" for source in sources)
    if gallery is not None and shows:
        viewers.append(gallery)
    evidence = EvidenceOptions(
        report=not no_report,
        pictures=not no_overlay,
        key=None if key is None else read_key(key),
        options=click.get_current_context().params,
        before=stamps(place for source in sources for place in source.places()),
        also=[path for path in (trace, record) if path is not None],
    )
    path, model_reason = choose_model(model, build_dir)
    if device == "float" and checkpoint is None:
        checkpoint = choose_checkpoint(path, build_dir)
    say(f"Model: {path} ({model_reason})")
    card = CardOptions()
    if card_timeout is not None:
        card = replace(card, timeout=card_timeout)
    if max_celsius is not None:
        card = replace(card, max_celsius=max_celsius)
    artifact = load_artifact(path, weights)
    with Session(
        artifact,
        device,
        threads=threads,
        checkpoint=checkpoint,
        record=record,
        recording=recording,
        card=card,
        fallback=fallback or "",
        pace=None if pace is None else pace_target(artifact),
    ) as session:
        say(f"Device: {session.device_name} ({session.reason})")
        if device == "auto" and session.device_name == "reference":
            click.echo(
                "Warning: the reference device is the definition, not made for speed: "
                "pip install onnx onnxruntime lets sim compute the same many times faster",
                err=True,
            )
        options = RunOptions(
            threads=threads,
            threshold=threshold,
            rules=choose_rules(path, threshold, aggregation),
            pictures=not no_overlay,
            beside=side_by_side,
            accuracy=accuracy,
            model_reason=model_reason,
            formats=tuple(Format(name) for names in write for name in names),
            rle_at_source=rle_size == "source",
            viewers=viewers,
            trace=trace,
            selection=selection,
            faces=faces,
        )
        inputs, reason = inputs_of(sources, options)
        if record is not None or recording is not None:
            inputs, reason = [], "a recording is of a whole run"
        if reason and reason != SINGLE:
            say(f"Without a journal, so it cannot be resumed: {reason}")
        if retry_failed and not inputs:
            raise UsageError(
                "--retry-failed is for collections with a journal",
                f"there is none: {reason}",
                "leave --retry-failed out",
            )
        collection = CollectionOptions(
            fresh=fresh,
            retry_failed=retry_failed,
            answers={
                name: sha256(file)
                for name, file in (("weights", weights), ("checkpoint", checkpoint))
                if file is not None
            },
        )
        told: Set[str] = set()
        with progress_bar("run", "frame", quiet=quiet) as progress:

            def show(done: int, total: Optional[int]) -> None:
                progress(done, total)
                _warn(session.incidents(), told)

            try:
                if inputs:
                    summary = run_collection(
                        inputs, session, output, options, collection, show, say
                    )
                else:
                    summary = run(sources, session, output, options, show)
            except KeyboardInterrupt:
                again = "; the same command goes on from there" if inputs else ""
                click.echo(f"What was done until now is in {output}{again}.", err=True)
                raise
    digest = ""
    if gallery is not None:
        # Processes that share a collection come to its end together.
        with locked(output) if inputs else contextlib.nullcontext():
            written = write_evidence(output, summary, artifact, gallery, evidence)
        summary, digest = written.summary, written.sha256
    _warn(summary.notes, told)
    if as_json:
        click.echo(json.dumps(summary.to_json(), indent=2, ensure_ascii=False, allow_nan=False))
    elif not quiet:
        click.echo(summary_text(summary))
        if digest:
            click.echo(
                f"evidence: SHA-256 {digest} (deepfake-fpga verify {shlex.quote(str(output))})"
            )
    if not summary.overall.judged:
        raise DataError(
            "Nothing could be judged",
            summary.verdict.words,
            f"look at the reasons in {output / 'records.jsonl'}",
        )


def _viewers(
    window: bool,
    serve: Optional[Tuple[str, int]],
    beside: bool,
    say: Callable[[str], None],
) -> List[Sink]:
    from ...inference.sinks import PageSink, WindowSink

    viewers: List[Sink] = []
    if window:
        viewers.append(WindowSink(beside))
    if serve is not None:
        host, port = serve
        viewers.append(PageSink(host, port, beside, lambda url: say(f"Watch: {url}")))
        if not (host.startswith("127.") or host in ("localhost", "::1")):
            click.echo(
                f"Warning: whoever reaches {host} over the network sees the pictures", err=True
            )
    return viewers


def summary_text(summary: Summary) -> str:
    """A short table: a line per source, the speed, the accuracy, what was written."""
    rows = [("source", "frames", "judged", "fake", "probability", "verdict")]
    below: List[str] = []
    for source in summary.sources:
        verdict = source.verdict(summary.rules)
        rows.append(
            (
                source.name,
                str(source.frames),
                f"{100 * verdict.coverage:.0f} %",
                str(source.fake),
                "-" if verdict.probability is None else f"{verdict.probability:.4f}",
                verdict.state.value,
            )
        )
        for name, part in source.parts(summary.rules):
            if part.reason is not None or part.judged < part.frames:
                below.append(f"{name}: {part.words}")
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(
            cell.ljust(width) if column in (0, 5) else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths))
        ).rstrip()
        for row in rows
    ]
    lines += below[:SHOWN]
    if len(below) > SHOWN:
        lines.append(f"... and {len(below) - SHOWN} more, in summary.json")
    calibration = summary.rules.calibration
    if not calibration.fitted and any(source.clips for source in summary.sources):
        lines.append(f"the probability of a video is a score: {calibration.reason}")
    lines.append("")
    stages = ", ".join(f"{stage} {value:.2f}" for stage, value in summary.meter.seconds.items())
    lines.append(
        f"{summary.meter.done} frames in {summary.seconds:.2f} s: "
        f"{summary.frames_per_second:.1f} frames/s on {summary.device}"
    )
    if set(summary.devices) - {summary.device}:
        parts = (f"{count} frames by {name}" for name, count in summary.devices.items())
        lines.append(f"answered: {', '.join(parts)}")
    lines.append(f"busy seconds over all threads: {stages}")
    if summary.meter.fill is not None:
        lines.append(
            f"{summary.meter.batches} batches of {summary.batch}, "
            f"{100 * summary.meter.fill:.1f} % of the slots filled"
        )
    if summary.selection is not None:
        whole = summary.overall
        lines.append(f"{whole.left_out} frames left out, {whole.inherited} inherited a result")
    if summary.accuracy is not None:
        lines.append(_accuracy_text(summary))
    if summary.journal is not None:
        lines.extend(_journal_text(summary.journal))
    lines.append("written: " + ", ".join(summary.outputs))
    return "\n".join(lines)


def _journal_text(journal: Mapping[str, Any]) -> List[str]:
    items, failed = journal["items"], journal["failed"]
    lines = [
        f"collection: {items['done']} of {items['total']} files done, {items['failed']} failed"
    ]
    lines += [f"failed: {entry['source']}: {entry['reason']}" for entry in failed[:SHOWN]]
    if len(failed) > SHOWN:
        lines.append("all that failed: deepfake-fpga journal DIR --json")
    if failed:
        lines.append("once they are mended: the same command with --retry-failed")
    return lines


def _accuracy_text(summary: Summary) -> str:
    counts = summary.accuracy
    assert counts is not None
    if counts.accuracy is None:
        text = f"accuracy: unknown, {counts.name} names none of the judged videos"
    else:
        share = 100 * counts.accuracy
        text = f"accuracy: {share:.2f} % ({counts.correct} of {counts.judged})"
    if counts.unknown:
        shown = ", ".join(counts.unknown[:5]) + (", ..." if len(counts.unknown) > 5 else "")
        text += f"; {len(counts.unknown)} videos without a label: {shown}"
    return text


def _warn(notes: Sequence[str], told: Set[str]) -> None:
    """Prints what was not told before, as soon as it happens."""
    for note in notes:
        if note not in told:
            told.add(note)
            click.echo(f"Warning: {note}", err=True)
