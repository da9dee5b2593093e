"""Measures a checkpoint, and its compiled model, on real photographs that Python packages carry.

python scripts/evaluate_photographs.py
python scripts/evaluate_photographs.py --checkpoint runs/w8/uynet.safetensors --json
python scripts/evaluate_photographs.py --model deploy/data/YNET.xmodel
python scripts/evaluate_photographs.py --packages photos/lib/python3.11/site-packages

Photographs of faces: astronaut.png of scikit-image (NASA, public domain) and grace_hopper.jpg of
matplotlib (US Navy, public domain). A face is found by OpenCV's cascade; authentic crops of several
margins, places, directions and JPEG qualities are set against the same crops blended with
themselves. Without a package, or without a face, the photograph is left out with the reason.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Callable, Dict, List, NamedTuple, Optional, Tuple

import numpy as np

from deepfake_fpga.deploy.defaults import DEMO_CHECKPOINT
from deepfake_fpga.errors import ToolkitError
from deepfake_fpga.preprocessing import Image, Preprocessing, fit
from deepfake_fpga.quantize.camera import through_jpeg
from deepfake_fpga.quantize.metrics import Scores, Tally
from deepfake_fpga.quantize.self_blending import Region, self_blend

if TYPE_CHECKING:
    from deepfake_fpga.inference.session import Session
    from deepfake_fpga.quantize.samples import Samples

PHOTOGRAPHS = (
    ("astronaut", "skimage", "data/astronaut.png", "pip install scikit-image"),
    (
        "grace_hopper",
        "matplotlib",
        "mpl-data/sample_data/grace_hopper.jpg",
        "pip install matplotlib",
    ),
)
"""Name, package, file in it, and how to get it."""

MARGINS = (0.25, 0.4, 0.6)
"""Added on each side of the face, as shares of it."""
SHIFTS = ((0.0, 0.0), (0.06, -0.04), (-0.05, 0.05), (0.03, 0.06))
QUALITIES = (0, 90, 70, 50)


class Face(NamedTuple):
    """A photograph and the face in it, in pixels."""

    name: str
    picture: Image
    x: float
    y: float
    side: float


def find_faces(packages: Optional[Path]) -> Tuple[List[Face], Dict[str, str]]:
    """The photographs there are, and why others are left out."""
    import cv2

    faces: List[Face] = []
    missing: Dict[str, str] = {}
    for name, package, inside, how in PHOTOGRAPHS:
        folder = _folder(package, packages)
        path = None if folder is None else folder / inside
        if path is None or not path.is_file():
            missing[name] = f"{package} does not carry it here: {how}"
            continue
        picture = cv2.imread(str(path))
        grey = cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)
        cascade = cv2.CascadeClassifier(
            cv2.data.haarcascades + "haarcascade_frontalface_default.xml"
        )
        found = cascade.detectMultiScale(grey, 1.1, 6, minSize=(60, 60))
        if not len(found):
            missing[name] = "the cascade finds no face in it"
            continue
        x, y, width, height = max(found, key=lambda box: int(box[2]) * int(box[3]))
        rgb = np.ascontiguousarray(picture[..., ::-1])
        faces.append(Face(name, rgb, x + width / 2, y + height / 2, float(max(width, height))))
    return faces, missing


def _folder(package: str, packages: Optional[Path]) -> Optional[Path]:
    if packages is not None:
        return packages / package
    spec = importlib.util.find_spec(package)
    return None if spec is None or spec.origin is None else Path(spec.origin).parent


def make_crops(face: Face, seed: int) -> Tuple[List[Image], List[np.ndarray], List[bool]]:
    """Authentic crops and the same ones blended with themselves, at the network's size.

    Returns:
        Pictures, masks (bool), and whether each is manipulated.
    """
    import cv2

    pictures: List[Image] = []
    masks: List[np.ndarray] = []
    fake: List[bool] = []
    preprocessing = Preprocessing()
    number = 0
    for margin in MARGINS:
        for shift in SHIFTS:
            for flip in (False, True):
                number += 1
                crop, region = _cut(face, margin, shift)
                if flip:
                    crop = np.ascontiguousarray(crop[:, ::-1])
                    region = Region(1 - region.x, region.y, region.width, region.height)
                rng = np.random.RandomState([seed, number, len(face.name)])
                crop = cv2.resize(crop, (256, 256), interpolation=cv2.INTER_AREA)
                blended, mask = self_blend(crop, rng, region)
                quality = QUALITIES[number % len(QUALITIES)]
                for picture, truth, manipulated in (
                    (crop, np.zeros(mask.shape, bool), False),
                    (blended, mask, True),
                ):
                    packed = through_jpeg(picture, quality) if quality else picture
                    pictures.append(fit(packed, preprocessing))
                    size = (preprocessing.width, preprocessing.height)
                    masks.append(
                        cv2.resize(truth.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
                        > 0
                    )
                    fake.append(manipulated)
    return pictures, masks, fake


def _cut(face: Face, margin: float, shift: Tuple[float, float]) -> Tuple[Image, Region]:
    side = face.side * (1 + 2 * margin)
    height, width = face.picture.shape[:2]
    side = min(side, height, width)
    x = min(max(face.x + shift[0] * face.side, side / 2), width - side / 2)
    y = min(max(face.y + shift[1] * face.side, side / 2), height - side / 2)
    left, top = int(x - side / 2), int(y - side / 2)
    crop = face.picture[top : top + int(side), left : left + int(side)]
    # The cascade's box is about a fifth wider than the face and ends at the chin.
    region = Region(
        (face.x - left) / side,
        (face.y + 0.1 * face.side - top) / side,
        0.75 * face.side / side,
        0.85 * face.side / side,
    )
    return np.ascontiguousarray(crop), region


def main() -> int:
    """Reads the command line, measures and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--checkpoint", type=Path, default=DEMO_CHECKPOINT)
    parser.add_argument("--model", type=Path, help="its compiled model, to be measured on sim too")
    parser.add_argument(
        "--packages", type=Path, help="folder with the packages, if not installed here"
    )
    parser.add_argument("--rounds", type=int, default=3, help="draws of the blends")
    parser.add_argument("--threads", type=int, default=2, help="of torch")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args()

    faces, missing = find_faces(args.packages)
    for name, why in missing.items():
        print(f"{name} is left out: {why}", file=sys.stderr)
    if not faces:
        print("skipped: there is no photograph to measure on", file=sys.stderr)
        return 0

    import torch

    from deepfake_fpga.inference.artifact import load_artifact
    from deepfake_fpga.inference.session import Session
    from deepfake_fpga.quantize.checkpoint import load_checkpoint
    from deepfake_fpga.quantize.samples import Samples, score

    torch.set_num_threads(args.threads)
    checkpoint = load_checkpoint(args.checkpoint)
    parts: Dict[str, Samples] = {}
    for face in faces:
        drawn = [make_crops(face, seed) for seed in range(args.rounds)]
        parts[face.name] = Samples(
            np.stack([picture for pictures, _, _ in drawn for picture in pictures]),
            np.stack([m for _, masks, _ in drawn for m in masks]).astype(np.uint8),
            np.array([0.0 if f else 1.0 for _, _, fake in drawn for f in fake], np.float32),
            checkpoint.preprocessing,
        )
    parts["all"] = Samples.joined(list(parts.values()))
    results = {"float": measured(parts, lambda samples: score(checkpoint.model, samples))}
    if args.model is not None:
        with Session(load_artifact(args.model), "sim", threads=args.threads) as session:
            results["sim"] = measured(parts, lambda samples: score_compiled(session, samples))
    if args.json:
        record = {"checkpoint": checkpoint.describe(), "left_out": missing, "results": results}
        print(json.dumps(record, indent=2))
        return 0
    print(
        f"{'photograph':<16}{'device':>8}{'images':>8}{'AUC':>9}{'accuracy':>10}{'IoU':>8}"
        f"{'false alarms':>14}"
    )
    for device, found in results.items():
        for name, own in found.items():
            print(
                f"{name:<16}{device:>8}{own['images']:>8}{own['auc']:>9.4f}{own['accuracy']:>10.4f}"
                f"{own['iou']:>8.4f}{own['false_alarms']:>14.4f}"
            )
    return 0


def measured(
    parts: Dict[str, Samples], score: Callable[[Samples], Scores]
) -> Dict[str, Dict[str, object]]:
    """The scores of each part, and the share of its authentic pictures that are accused."""
    found: Dict[str, Dict[str, object]] = {}
    for name, samples in parts.items():
        rows = np.flatnonzero(samples.real > 0.5)
        authentic = type(samples)(
            samples.images[rows], samples.masks[rows], samples.real[rows], samples.preprocessing
        )
        wrong = 1 - score(authentic).accuracy
        found[name] = {**score(samples).to_json(), "false_alarms": round(wrong, 6)}
    return found


def score_compiled(session: Session, samples: Samples) -> Scores:
    """What a compiled model is worth."""
    tally = Tally()
    size = session.batch
    for start in range(0, len(samples), size):
        rows = slice(start, start + size)
        given = session.result(session.submit(samples.images[rows]))
        fake = 1.0 - given.real.astype(np.float64)
        tally.add(fake, samples.real[rows] < 0.5, given.mask, samples.masks[rows])
    return tally.scores()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except ToolkitError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_status)
