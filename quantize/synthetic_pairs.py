"""Synthetic videos in the layout of DFDC: originals, fakes made of them, and the true masks.

As in a real data set the fake is made of the finished original (its noise is the original's), and
the two are encoded apart. PyAV is imported where it is used.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, Dict, List, Sequence, Tuple

import numpy as np

from ..files import replacing, write_json
from ..preprocessing import Image
from .camera import Camera
from .faces import Identity, motion
from .manipulation import Manipulation, manipulate
from .portrait import Sitter
from .synthetic import identity_seed


@dataclass(frozen=True)
class Pair:
    """An original and a fake made of it, frame by frame.

    Attributes:
        identity: seed of the person.
        original: uint8 ``[size, size, 3]`` each, RGB.
        fake: the same, manipulated.
        masks: bool ``[frames, size, size]``, True where manipulated.
    """

    identity: int
    original: List[Image]
    fake: List[Image]
    masks: np.ndarray


def make_pair(split: str, seed: int, number: int, frames: int, size: int = 160) -> Pair:
    """The ``number``-th pair of a split; the same arguments give the same pixels.

    Raises:
        UsageError: there is no such split.
    """
    identity = identity_seed(split, seed, number)
    rng = np.random.RandomState([identity, seed & 0x7FFFFFFF, 47])
    who = Identity.sample(identity)
    sitter = Sitter(who, place=identity, size=size)
    # One stretch of a longer motion, so that neighbouring frames differ as they do in a video.
    poses = motion(rng, frames, 15.0)
    camera = replace(Camera.sample(rng), crf=0, quality=0)
    original = [camera.shoot(sitter.draw(pose), rng) for pose in poses]
    recipe = Manipulation.sample(rng, identity_seed(split, seed, number + 5000))
    donor = None
    if recipe.donor is not None:
        donor = Sitter(Identity.sample(recipe.donor), size=size)
    fake, masks = [], []
    for picture, pose in zip(original, poses):
        other = None if donor is None else donor.draw(pose)
        made, mask = manipulate(picture, who, pose, recipe.flicker(rng), other)
        fake.append(made)
        masks.append(mask)
    return Pair(identity, original, fake, np.stack(masks))


def make_pairs(
    folder: Path,
    pairs: int,
    frames: int = 8,
    seed: int = 0,
    split: str = "train",
    size: int = 160,
    crf: Tuple[int, int] = (18, 23),
) -> Dict[str, Dict[str, Any]]:
    """Writes pairs of videos and their ``metadata.json`` as DFDC has it.

    ``<split><n>.mp4`` with even numbers are originals, the next odd one is made of it.
    ``truth.npz`` holds the masks of each fake by its name, bool ``[frames, size, size]``.

    Args:
        folder: made if it is not there.
        pairs: how many.
        frames: of each video.
        seed: another seed gives other people and other manipulations.
        split: one of ``synthetic.SPLITS``.
        size: height and width in pixels, even.
        crf: H.264 constant rate factor of the originals and of the fakes.

    Returns:
        What ``metadata.json`` holds.
    """
    metadata: Dict[str, Dict[str, Any]] = {}
    truth: Dict[str, np.ndarray] = {}
    for number in range(pairs):
        pair = make_pair(split, seed, number, frames, size)
        names = [f"{split}{2 * number + odd:06d}.mp4" for odd in (0, 1)]
        for name, pictures, factor in zip(names, (pair.original, pair.fake), crf):
            with replacing(folder / name) as temporary:
                write_video(temporary, pictures, factor)
        identity = f"{pair.identity:07d}"
        metadata[names[0]] = {"label": "REAL", "split": split, "identity": identity}
        metadata[names[1]] = {
            "label": "FAKE", "split": split, "identity": identity, "original": names[0],
        }  # fmt: skip
        truth[names[1]] = pair.masks
    with replacing(folder / "truth.npz") as temporary:
        arrays: Dict[str, Any] = dict(truth)
        np.savez_compressed(str(temporary), **arrays)
    write_json(folder / "metadata.json", metadata)
    return metadata


def write_video(path: Path, pictures: Sequence[Image], crf: int = 20, rate: int = 15) -> None:
    """Writes an H.264 video without sound."""
    import av

    with av.open(str(path), "w", format="mp4") as out:
        stream = out.add_stream("libx264", rate=rate)
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": str(crf), "preset": "veryfast", "threads": "1"}
        for number, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, rate)
            for packet in stream.encode(frame):
                out.mux(packet)
        for packet in stream.encode(None):
            out.mux(packet)
