r"""Trains U-YNet on crops in the layout of DFDC, or on synthetic faces drawn for it.

Examples:
  python scripts/train.py --data data/train --validation data/validation --output runs/w8
  python scripts/train.py --draw 400 --epochs 4 --output runs/short
  python scripts/train.py --draw 2000 --self-blending 0.5 --degrade --patience 3 --output runs/sbi
  python scripts/train.py --draw 2000 --faces faces/train --validation-faces faces/validation \
      --self-blending 0.5 --degrade --output runs/photographs
  python scripts/train.py --data data/train --width 64 --recompute --batch-size 8 --accumulate 4 \
      --validation data/validation --output runs/w64
  python scripts/train.py --draw 200 --weights runs/w8/uynet.safetensors --quantization-aware \
      --learning-rate 1e-4 --epochs 1 --output runs/aware
  python scripts/train.py --data data/train --validation data/validation --output runs/w8 --resume

In the output folder: last.pth (resumes), uynet.safetensors (the best weights), steps.csv and
epochs.csv, and events/ where TensorBoard is installed. Ctrl-C ends after the step in hand; repeat
the command with --resume and the training ends with the weights it would have had. Twice Ctrl-C
ends at once; it then resumes from the last checkpoint.
"""

from __future__ import annotations

import argparse
import json
import shlex
import signal
import sys
import time
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any, Dict, List, Optional

import torch
from tqdm import tqdm

from deepfake_fpga.errors import MismatchError, OrderError, ToolkitError, UsageError
from deepfake_fpga.preprocessing import DETECTORS, USUAL_MARGIN, Preprocessing
from deepfake_fpga.quantize.checkpoint import load_checkpoint
from deepfake_fpga.quantize.dataset import read_dataset
from deepfake_fpga.quantize.samples import (
    Samples,
    Validation,
    draw_photograph_crops,
    draw_samples,
    load_authentic,
    load_samples,
    with_self_blended,
)
from deepfake_fpga.quantize.training import StepReport, Trainer, export
from deepfake_fpga.quantize.training_log import TrainingLog
from deepfake_fpga.quantize.training_plan import Plan

INTERRUPTED = 130


def main() -> int:
    """Reads the command line and trains."""
    args = _arguments()
    torch.set_num_threads(args.threads)
    last = args.output / "last.pth"
    if args.resume and not last.is_file():
        raise OrderError("There is nothing to resume", f"no {last}", "train without --resume first")
    if last.exists() and not args.resume:
        raise UsageError("The folder holds a training", str(last), "add --resume or name another")
    if args.device == "cuda" and not torch.cuda.is_available():
        raise UsageError("There is no CUDA device", "torch.cuda.is_available() is false",
                         "use --device cpu")  # fmt: skip
    _check(args)
    plan = Plan(**{f.name: getattr(args, f.name) for f in fields(Plan)})
    weights = _weights(args)
    trainer = _trainer(args, plan, _samples(args), _validation(args), weights)
    if args.resume:
        trainer.restore(last)
        print(f"resumed at step {trainer.step} of {trainer.steps}")
    _run(trainer, args.output, args.save_every)
    if trainer.stopped_early:
        print(f"stopped early: {trainer.stopped_early}")
    elif not trainer.done:
        print(f"stopped at step {trainer.step} of {trainer.steps}; add --resume to go on")
        return INTERRUPTED
    path = args.output / "uynet.safetensors"
    # The pictures were whole crops; how they were cut is the weights' own record, if they have one.
    preprocessing = trainer.samples.preprocessing
    record = {
        "width": plan.width,
        "bilinear": plan.bilinear,
        "training_command": " ".join(["python", *(shlex.quote(word) for word in sys.argv)]),
        "training_plan": asdict(plan),
        "preprocessing": _recorded(args, preprocessing).to_json(),
    }
    export(path, trainer.best or trainer.model.state_dict(), record)
    print(f"{path}: {path.stat().st_size / 1e6:.2f} MB")
    return 0


def _trainer(
    args: argparse.Namespace,
    plan: Plan,
    samples: Samples,
    validation: Optional[Samples],
    weights: Optional[Dict[str, torch.Tensor]],
) -> Trainer:
    if not args.quantization_aware:
        return Trainer(plan, samples, validation, weights, args.device)
    from deepfake_fpga.quantize.aware import AwareTrainer

    if args.device != "cpu":
        raise UsageError(
            "Quantization-aware training computes on the CPU, as the quantizer does",
            f"--device {args.device}",
            "leave --device out",
        )
    if weights is None:
        raise UsageError(
            "Quantization-aware training begins with trained weights",
            "--weights was not given",
            "train in float first, then add --weights runs/NAME/uynet.safetensors",
        )
    return AwareTrainer(plan, samples, validation, weights)


def _run(trainer: Trainer, folder: Path, save_every: int) -> None:
    start = time.time()
    log = TrainingLog(folder, trainer.step)
    if log.tensorboard:
        print(f"{log.tensorboard}: the log is steps.csv and epochs.csv")

    def interrupt(number: int, frame: Any) -> None:
        print("stopping after this step; Ctrl-C again to stop at once", file=sys.stderr)
        trainer.stop()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        with tqdm(initial=trainer.step, total=trainer.steps, unit="step", mininterval=1) as bar:

            def on_step(report: StepReport) -> None:
                bar.update(1)
                bar.set_postfix(mask=f"{report.mask_loss:.4f}", label=f"{report.label_loss:.4f}")
                if report.step % 10 == 0 or report.step == report.steps:
                    seconds = round(time.time() - start, 1)
                    log.add("steps", {**asdict(report), "seconds": seconds})

            def on_epoch(epoch: int, found: Optional[Validation]) -> None:
                if found is None:
                    return
                seconds = round(time.time() - start, 1)
                line = {**found.to_json(), "step": trainer.step, "epoch": epoch}
                log.add("epochs", {**line, "seconds": seconds})
                bar.write(
                    f"epoch {epoch}: AUC {found.scores.auc:.4f}, of videos {found.video_auc:.4f}, "
                    f"accuracy {found.scores.accuracy:.4f}, IoU {found.scores.iou:.4f}"
                )

            trainer.run(folder, save_every=save_every, on_step=on_step, on_epoch=on_epoch)
    finally:
        signal.signal(signal.SIGINT, before)
        log.close()


def _recorded(args: argparse.Namespace, used: Preprocessing) -> Preprocessing:
    """The preprocessing to record: how the faces were cut, or what the weights begun with say."""
    manifest = args.faces / "data.json" if args.faces else None
    if manifest is not None and manifest.is_file():
        options = json.loads(manifest.read_text("utf-8"))["options"]
        if options["faces"] in DETECTORS:
            margin = USUAL_MARGIN if options["margin"] is None else options["margin"]
            return replace(used, face=options["faces"], margin=margin)
    if not args.weights:
        return used
    theirs = load_checkpoint(args.weights).preprocessing
    return replace(used, face=theirs.face, margin=theirs.margin)


def _weights(args: argparse.Namespace) -> Optional[Dict[str, torch.Tensor]]:
    if not args.weights:
        return None
    checkpoint = load_checkpoint(args.weights)
    if (checkpoint.width, checkpoint.bilinear) != (args.width, args.bilinear):
        raise MismatchError(
            "The weights are of another network",
            f"width {checkpoint.width}, bilinear {checkpoint.bilinear}",
            "repeat them with --width and --bilinear",
        )
    return checkpoint.model.state_dict()


def _check(args: argparse.Namespace) -> None:
    """Refuses before any picture is read or drawn what cannot be meant."""
    if (args.photographs or args.faces) and not args.self_blending:
        raise UsageError("Photographs are manipulated by self-blending only",
                         "--self-blending is 0", "give a share of it, such as 0.5")  # fmt: skip
    if args.face_times < 1:
        raise UsageError("Faces are shown at least once", f"--face-times is {args.face_times}",
                         "give 1 or more, or leave --faces out")  # fmt: skip
    if args.validation_faces and args.data and not args.validation:
        raise UsageError("--validation-faces come on top of other validation",
                         "--data without --validation", "add --validation")  # fmt: skip


def _samples(args: argparse.Namespace) -> Samples:
    if args.data:
        found = _load(args.data)
    else:
        with tqdm(total=args.draw, unit="video", desc="drawing", mininterval=1) as bar:
            found = draw_samples("train", args.draw, 2, args.seed, progress=bar.update)
    authentic: List[Samples] = []
    if args.photographs:
        crops = draw_photograph_crops(args.photographs, args.photograph_crops, args.seed)
        authentic.append(crops)
    if args.faces:
        authentic += [load_authentic(args.faces, say=_warn)] * args.face_times
    # Each stands for two pictures: as it is, and to be blended with itself, anew in every epoch.
    blended = [replace(crops, real=crops.real * 0) for crops in authentic]
    return Samples.joined([found, *authentic, *blended])


def _validation(args: argparse.Namespace) -> Optional[Samples]:
    if args.validation:
        found = _load(args.validation)
    elif args.data:
        return None
    else:
        videos = max(20, args.draw // 10)
        with tqdm(total=videos, unit="video", desc="drawing validation", mininterval=1) as bar:
            found = draw_samples("validation", videos, 2, args.seed, progress=bar.update)
    parts = [found]
    if args.self_blending:
        parts.append(with_self_blended(found, args.seed))
    if args.validation_faces:
        faces = load_authentic(args.validation_faces, say=_warn)
        parts.append(with_self_blended(faces, args.seed))
    return Samples.joined(parts)


def _warn(text: str) -> None:
    print(text, file=sys.stderr)


def _load(folder: Path) -> Samples:
    dataset = read_dataset(folder)
    with tqdm(total=len(dataset), unit="image", desc=f"reading {folder}", mininterval=1) as bar:
        samples = load_samples(dataset, progress=bar.update)
    for kind, count in dataset.problem_counts.items():
        print(f"{folder}: {count} x {kind}", file=sys.stderr)
    return samples


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--data", type=Path, help="folder with crops/, masks/, metadata.json")
    source.add_argument("--draw", type=int, metavar="VIDEOS", help="draw synthetic ones instead")
    add("--validation", type=Path, help="folder the best weights are chosen by")
    add("--photographs", type=Path, help="folder of photographs without faces to add crops of")
    add("--photograph-crops", type=int, default=500, help="how many crops of them")
    add(
        "--faces", type=Path, help="crops of faces in photographs to add, as data crops writes them"
    )
    add("--face-times", type=int, default=1, help="how often each of them is shown in an epoch")
    add("--validation-faces", type=Path, help="the same of other people, blended for validation")
    add("--output", type=Path, required=True, help="folder of the training")
    add("--resume", action="store_true", help="continue from last.pth there")
    add("--weights", type=Path, help="checkpoint to begin with, not random values")
    add("--quantization-aware", action="store_true", help="train on the DPU's grid (aware.py)")
    add("--save-every", type=int, default=200, help="steps between checkpoints")
    add("--threads", type=int, default=2, help="of torch")
    add("--device", choices=["cpu", "cuda"], default="cpu", help="where to compute")
    default = Plan()
    add("--width", type=int, default=default.width, help="64 is the original")
    add("--bilinear", action="store_true", help="upsample by interpolation")
    add("--epochs", type=int, default=default.epochs)
    add("--batch-size", type=int, default=default.batch_size)
    add("--accumulate", type=int, default=default.accumulate, help="batches per step")
    add("--learning-rate", type=float, default=default.learning_rate)
    add("--warmup", type=int, default=default.warmup, help="steps")
    add("--mask-share", type=float, default=default.mask_share, help="of the loss")
    add("--tail-limit", type=float, default=default.tail_limit,
        help="penalise activations above this, for INT8 (0: do not)")  # fmt: skip
    add("--no-augment", dest="augment", action="store_false")
    add("--self-blending", type=float, default=default.self_blending,
        help="share of the manipulated pictures that self-blended ones replace")  # fmt: skip
    add("--degrade", action="store_true", help="send half of the pictures through a worse camera")
    add("--bfloat16", action="store_true", help="quicker on GPUs, and on CPUs that know it")
    add("--recompute", action="store_true", help="less memory, more time (checkpointed gradients)")
    add("--patience", type=int, default=default.patience,
        help="stop after so many epochs without a better AUC of videos (0: never)")  # fmt: skip
    add("--seed", type=int, default=default.seed)
    return parser.parse_args()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("stopped at once; --resume goes on from the last checkpoint", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except ToolkitError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_status)
