"""Writes synthetic face crops, authentic and manipulated, in the layout of DFDC; or one clip.

python scripts/synthesize.py --output data/train --videos 3600 --frames 2 --split train
python scripts/synthesize.py --pairs data/videos --videos 40 --frames 60 --size 320
python scripts/synthesize.py --clip talking.mp4 --seed 3 --fake 2.5 5.0
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from tqdm import tqdm

from deepfake_fpga.errors import ToolkitError
from deepfake_fpga.quantize.synthetic import SPLITS, make_clip, make_dataset
from deepfake_fpga.quantize.synthetic_pairs import make_pairs


def main() -> int:
    """Reads the command line and writes what it asks for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    target = parser.add_mutually_exclusive_group(required=True)
    target.add_argument("--output", type=Path, help="folder of the data set")
    target.add_argument("--clip", type=Path, help="an .mp4 file instead of a data set")
    target.add_argument(
        "--pairs", type=Path, help="folder for videos of originals and fakes made of them"
    )
    parser.add_argument("--videos", type=int, default=200, help="half of them manipulated")
    parser.add_argument("--frames", type=int, default=2, help="crops of each video")
    parser.add_argument(
        "--split", choices=sorted(SPLITS), help="default: train, or demo for a clip"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--size", type=int, default=256, help="height and width in pixels")
    parser.add_argument("--seconds", type=float, default=7.0, help="length of the clip")
    parser.add_argument("--fps", type=int, default=25, help="of the clip")
    parser.add_argument(
        "--fake",
        type=float,
        nargs=2,
        action="append",
        metavar=("FROM", "TO"),
        help="manipulated stretch of the clip in seconds, may be repeated; without it, none",
    )
    args = parser.parse_args()
    if args.output:
        with tqdm(total=args.videos, unit="video") as bar:
            metadata = make_dataset(
                args.output,
                args.videos,
                args.frames,
                args.seed,
                args.split or "train",
                args.size,
                bar.update,
            )
        fakes = sum(record["label"] == "FAKE" for record in metadata.values())
        crops = len(metadata) * args.frames
        print(
            f"{args.output}: {crops} crops of {len(metadata)} videos, {fakes} of them manipulated"
        )
        return 0
    if args.pairs:
        split = args.split or "train"
        records = make_pairs(args.pairs, args.videos // 2, args.frames, args.seed, split, args.size)
        print(f"{args.pairs}: {len(records)} videos of {args.frames} frames, truth.npz")
        return 0
    with tqdm(total=round(args.seconds * args.fps), unit="frame") as bar:
        clip = make_clip(
            args.clip,
            args.seed,
            args.seconds,
            args.fps,
            [tuple(pair) for pair in args.fake or ()],
            args.split or "demo",
            args.size,
            progress=bar.update,
        )
    print(
        json.dumps(
            {
                "clip": str(clip.path),
                "label": clip.label,
                "frames": len(clip.fake),
                "manipulated_frames": int(clip.fake.sum()),
            }
        )
    )
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except ToolkitError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_status)
