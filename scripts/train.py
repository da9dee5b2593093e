"""Trains U-YNet on crops in the layout of DFDC, or on synthetic faces drawn for it.

    python scripts/train.py --data data/train --validation data/validation --output runs/w8
    python scripts/train.py --draw 400 --epochs 4 --output runs/short
    python scripts/train.py --data data/train --validation data/validation --output runs/w8 --resume

In the output folder: last.pth (resumes), uynet.safetensors (the best weights), log.jsonl.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from dataclasses import asdict, fields
from pathlib import Path
from typing import Dict, Optional

import torch
from tqdm import tqdm

from deepfake_fpga.errors import MismatchError, OrderError, ToolkitError, UsageError
from deepfake_fpga.quantize.checkpoint import load_checkpoint
from deepfake_fpga.quantize.dataset import read_dataset
from deepfake_fpga.quantize.metrics import Scores
from deepfake_fpga.quantize.training import (
    Plan,
    Samples,
    StepReport,
    Trainer,
    draw_samples,
    export,
    load_samples,
)


def main() -> int:
    """Reads the command line and trains."""
    args = _arguments()
    torch.set_num_threads(args.threads)
    last = args.output / "last.pth"
    if args.resume and not last.is_file():
        raise OrderError("There is nothing to resume", f"no {last}", "train without --resume first")
    if last.exists() and not args.resume:
        raise UsageError("The folder holds a training", str(last), "add --resume or name another")
    plan = Plan(**{f.name: getattr(args, f.name) for f in fields(Plan)})
    trainer = Trainer(plan, _samples(args), _validation(args), _weights(args))
    if args.resume:
        trainer.restore(last)
        print(f"resumed at step {trainer.step} of {trainer.steps}")
    args.output.mkdir(parents=True, exist_ok=True)
    _run(trainer, args.output, args.save_every)
    path = args.output / "uynet.safetensors"
    record = {
        "width": plan.width,
        "bilinear": plan.bilinear,
        "training_command": " ".join(["python", *(shlex.quote(word) for word in sys.argv)]),
        "training_plan": asdict(plan),
        "preprocessing": trainer.samples.preprocessing.to_json(),
    }
    export(path, trainer.best or trainer.model.state_dict(), record)
    print(f"{path}: {path.stat().st_size / 1e6:.2f} MB")
    return 0


def _run(trainer: Trainer, folder: Path, save_every: int) -> None:
    start = time.time()
    with (folder / "log.jsonl").open("a", encoding="utf-8") as log, tqdm(
        initial=trainer.step, total=trainer.steps, unit="step"
    ) as bar:

        def write(record: object) -> None:
            log.write(json.dumps(record) + "\n")
            log.flush()

        def on_step(report: StepReport) -> None:
            bar.update(1)
            bar.set_postfix(mask=f"{report.mask_loss:.4f}", label=f"{report.label_loss:.4f}")
            if report.step % 20 == 0:
                write({"time": round(time.time() - start, 1), **asdict(report)})

        def on_epoch(epoch: int, scores: Optional[Scores]) -> None:
            if scores is not None:
                write({"epoch": epoch, "validation": scores.to_json()})
                bar.write(
                    f"epoch {epoch}: AUC {scores.auc:.4f}, accuracy {scores.accuracy:.4f}, "
                    f"Dice {scores.dice:.4f}, IoU {scores.iou:.4f}"
                )

        trainer.run(folder, save_every=save_every, on_step=on_step, on_epoch=on_epoch)


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


def _samples(args: argparse.Namespace) -> Samples:
    if args.data:
        return _load(args.data)
    with tqdm(total=args.draw, unit="video", desc="drawing") as bar:
        return draw_samples("train", args.draw, 2, args.seed, progress=bar.update)


def _validation(args: argparse.Namespace) -> Optional[Samples]:
    if args.validation:
        return _load(args.validation)
    if args.data:
        return None
    videos = max(20, args.draw // 10)
    with tqdm(total=videos, unit="video", desc="drawing validation") as bar:
        return draw_samples("validation", videos, 2, args.seed, progress=bar.update)


def _load(folder: Path) -> Samples:
    dataset = read_dataset(folder)
    with tqdm(total=len(dataset), unit="image", desc=f"reading {folder}") as bar:
        samples = load_samples(dataset, progress=bar.update)
    for kind, count in dataset.problem_counts.items():
        print(f"{folder}: {count} x {kind}", file=sys.stderr)
    return samples


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--data", type=Path, help="folder with crops/, masks/, metadata.json")
    source.add_argument("--draw", type=int, metavar="VIDEOS", help="draw synthetic ones instead")
    parser.add_argument("--validation", type=Path, help="folder the best weights are chosen by")
    parser.add_argument("--output", type=Path, required=True, help="folder of the training")
    parser.add_argument("--resume", action="store_true", help="continue from last.pth there")
    parser.add_argument("--weights", type=Path, help="checkpoint to begin with, not random values")
    parser.add_argument("--save-every", type=int, default=200, help="steps between checkpoints")
    parser.add_argument("--threads", type=int, default=2, help="of torch")
    default = Plan()
    parser.add_argument("--width", type=int, default=default.width, help="64 is the original")
    parser.add_argument("--bilinear", action="store_true", help="upsample by interpolation")
    parser.add_argument("--epochs", type=int, default=default.epochs)
    parser.add_argument("--batch-size", type=int, default=default.batch_size)
    parser.add_argument("--learning-rate", type=float, default=default.learning_rate)
    parser.add_argument("--warmup", type=int, default=default.warmup, help="steps")
    parser.add_argument("--mask-share", type=float, default=default.mask_share, help="of the loss")
    parser.add_argument(
        "--tail-limit",
        type=float,
        default=default.tail_limit,
        help="penalise activations above this, for INT8 (0: do not)",
    )
    parser.add_argument("--no-augment", dest="augment", action="store_false")
    parser.add_argument("--bfloat16", action="store_true", help="quicker on CPUs that know it")
    parser.add_argument("--seed", type=int, default=default.seed)
    return parser.parse_args()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except ToolkitError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_status)
