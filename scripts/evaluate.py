"""Measures a float checkpoint on labelled crops: AUC, accuracy, Dice and IoU of the mask.

python scripts/synthesize.py --output data/test --videos 500 --frames 2 --split test
python scripts/evaluate.py --checkpoint deploy/data/uynet_demo.safetensors --data data/test
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import torch
from tqdm import tqdm

from deepfake_fpga.errors import ToolkitError
from deepfake_fpga.quantize.checkpoint import load_checkpoint
from deepfake_fpga.quantize.dataset import read_dataset
from deepfake_fpga.quantize.samples import load_samples, score


def main() -> int:
    """Reads the command line, measures and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--checkpoint", type=Path, required=True, help=".safetensors, .pth or .pt")
    parser.add_argument("--data", type=Path, required=True, help="crops/, masks/, metadata.json")
    parser.add_argument("--subset", type=int, help="measure on so many pictures only")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--threads", type=int, default=2, help="of torch")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    checkpoint = load_checkpoint(args.checkpoint)
    dataset = read_dataset(args.data)
    if args.subset:
        dataset = dataset.subset(args.subset)
    with tqdm(total=len(dataset), unit="image", desc="reading") as bar:
        samples = load_samples(dataset, checkpoint.preprocessing, bar.update)
    with tqdm(total=len(samples), unit="image", desc="measuring") as bar:
        scores = score(checkpoint.model, samples, args.batch_size, bar.update)
    if args.json:
        record = {"checkpoint": checkpoint.describe(), "data": str(args.data), **scores.to_json()}
        record["problems"] = dataset.problem_counts
        print(json.dumps(record, indent=2))
        return 0
    print(f"{'images':<28}{scores.images}")
    for title, value in (
        ("AUC of the verdict", scores.auc),
        ("accuracy of the verdict", scores.accuracy),
        ("Dice of the mask", scores.dice),
        ("IoU of the mask", scores.iou),
        ("mean IoU per manipulated", scores.fake_iou),
    ):
        print(f"{title:<28}{value:.4f}")
    for kind, count in dataset.problem_counts.items():
        print(f"left out or incomplete: {count} x {kind}")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except ToolkitError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_status)
