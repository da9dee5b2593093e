"""Synthetic face crops and clips, authentic and manipulated, with the truth about each pixel.

The drawn person is in ``faces`` and ``portrait``, the faking in ``manipulation``, lens, sensor and
codec in ``camera``. Identities of the splits come from disjoint ranges of seeds. OpenCV and PyAV
are imported where they are used.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional, Sequence, Tuple

import numpy as np

from ..errors import UsageError
from ..files import replacing, write_json
from ..preprocessing import Image
from .camera import Camera
from .faces import Identity, motion
from .manipulation import Manipulation, manipulate
from .portrait import Sitter

SPLIT_RANGE = 1000000
"""Identity seeds in each split."""
SPLITS = {"train": 0, "validation": 1, "test": 2, "demo": 3}
"""The split's number; its identities are ``number * SPLIT_RANGE`` and up."""

AUDIO_RATE = 44100


def identity_seed(split: str, seed: int, number: int) -> int:
    """The seed of the ``number``-th identity of a split.

    Raises:
        UsageError: the split is none of ``SPLITS``.
    """
    if split not in SPLITS:
        raise UsageError("There is no such split", repr(split), f"one of {', '.join(SPLITS)}")
    return SPLITS[split] * SPLIT_RANGE + (seed * 10007 + number) % SPLIT_RANGE


@dataclass(frozen=True)
class Take:
    """Crops of one synthetic video.

    Attributes:
        identity: seed of the person.
        fake: whether every picture is manipulated.
        pictures: uint8 ``[size, size, 3]`` each, RGB.
        masks: bool ``[size, size]`` each, True where manipulated.
    """

    identity: int
    fake: bool
    pictures: List[Image]
    masks: List[np.ndarray]


def make_take(split: str, seed: int, number: int, frames: int, fake: bool, size: int = 256) -> Take:
    """Crops of one video of the ``number``-th identity of a split.

    Args:
        split: one of ``SPLITS``.
        seed: of the data set.
        number: of the identity; the video and its manipulated twin share it.
        frames: how many crops, from random moments of the video.
        fake: whether they are manipulated.
        size: height and width in pixels.

    Returns:
        The crops and their masks; the same arguments give the same pixels.
    """
    identity = identity_seed(split, seed, number)
    rng = np.random.RandomState([identity, seed & 0x7FFFFFFF, int(fake), 31])
    who = Identity.sample(identity)
    sitter = Sitter(who, place=identity, size=size)
    poses = [motion(rng, 150, 15.0)[rng.randint(150)] for _ in range(frames)]
    pictures = [sitter.draw(pose) for pose in poses]
    masks = [np.zeros((size, size), bool) for _ in poses]
    if fake:
        recipe = _recipe(rng, split, identity)
        donor = _donor_sitter(recipe, size)
        for i, pose in enumerate(poses):
            other = donor.draw(pose) if donor else None
            pictures[i], masks[i] = manipulate(pictures[i], who, pose, recipe.flicker(rng), other)
    return Take(identity, fake, Camera.sample(rng).film(pictures, rng), masks)


def make_dataset(
    folder: Path,
    videos: int,
    frames_per_video: int,
    seed: int = 0,
    split: str = "train",
    size: int = 256,
    progress: Optional[Callable[[int], Any]] = None,
) -> Dict[str, Dict[str, Any]]:
    """Writes a data set of crops in the layout of DFDC face crops.

    ``crops/<video>_<n>.png``, ``masks/<video>_<n>.gif`` (0 and 255) and ``metadata.json``. Videos
    come in pairs of one identity: the authentic one, then its manipulated twin.

    Args:
        folder: made if it is not there.
        videos: how many.
        frames_per_video: crops of each.
        seed: another seed gives other people and other manipulations.
        split: one of ``SPLITS``.
        size: height and width of the crops in pixels.
        progress: called with 1 after each video.

    Returns:
        What ``metadata.json`` holds.

    Raises:
        UsageError: the folder already holds a data set.
    """
    import cv2

    folder = Path(folder)
    if (folder / "metadata.json").exists():
        raise UsageError(
            "The folder already holds a data set", str(folder), "name another folder or remove it"
        )
    for name in ("crops", "masks"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    metadata: Dict[str, Dict[str, Any]] = {}
    for video in range(videos):
        fake = video % 2 == 1
        take = make_take(split, seed, video // 2, frames_per_video, fake, size)
        stem = f"{split}{video:06d}"
        for n, (picture, mask) in enumerate(zip(take.pictures, take.masks)):
            cv2.imwrite(str(folder / "crops" / f"{stem}_{n}.png"), picture[..., ::-1])
            write_gif(folder / "masks" / f"{stem}_{n}.gif", mask)
        record: Dict[str, Any] = {
            "label": "FAKE" if fake else "REAL",
            "split": split,
            "identity": f"{take.identity:07d}",
        }
        if fake:
            record["original"] = f"{split}{video - 1:06d}.mp4"
        metadata[f"{stem}.mp4"] = record
        if progress is not None:
            progress(1)
    write_json(folder / "metadata.json", metadata)
    return metadata


def write_gif(path: Path, mask: np.ndarray) -> None:
    """Writes a mask (bool ``[H, W]``) as a one-frame grey GIF of 0 and 255."""
    import av

    with replacing(path) as temporary, av.open(str(temporary), "w", format="gif") as out:
        stream = out.add_stream("gif", rate=1)
        stream.height, stream.width = mask.shape
        stream.pix_fmt = "gray"
        grey = np.where(mask, 255, 0).astype(np.uint8)
        frame = av.VideoFrame.from_ndarray(grey, format="gray")
        for packet in list(stream.encode(frame)) + list(stream.encode(None)):
            out.mux(packet)


@dataclass(frozen=True)
class Clip:
    """A written clip and the truth about it.

    Attributes:
        path: the ``.mp4`` file.
        fps: frames per second.
        identity: seed of the person.
        fake: bool ``[frames]``.
        masks: bool ``[frames, size, size]``, True where manipulated.
    """

    path: Path
    fps: int
    identity: int
    fake: np.ndarray
    masks: np.ndarray

    @property
    def label(self) -> str:
        """``FAKE`` if any frame is manipulated."""
        return "FAKE" if bool(self.fake.any()) else "REAL"


def make_clip(
    path: Path,
    seed: int = 0,
    seconds: float = 7.0,
    fps: int = 25,
    manipulated: Sequence[Tuple[float, float]] = ((2.5, 5.0),),
    split: str = "demo",
    size: int = 256,
    crf: int = 20,
    progress: Optional[Callable[[int], Any]] = None,
) -> Clip:
    """Writes a clip of one person talking, H.264 and AAC in an MP4 file.

    Args:
        path: the file.
        seed: of the person, the motion and the manipulation.
        seconds: length.
        fps: frames per second.
        manipulated: stretches in seconds, from and to, in which the face is manipulated.
        split: one of ``SPLITS``, where the identity comes from.
        size: height and width in pixels, even.
        crf: H.264 constant rate factor.
        progress: called with 1 after each frame.

    Returns:
        The truth about each frame.
    """
    path = Path(path)
    identity = identity_seed(split, seed, 0)
    rng = np.random.RandomState([identity, seed & 0x7FFFFFFF, 37])
    count = max(1, round(seconds * fps))
    who, poses = Identity.sample(identity), motion(rng, count, float(fps))
    sitter = Sitter(who, place=identity, size=size)
    recipe = _recipe(rng, split, identity)
    donor = _donor_sitter(recipe, size)
    camera = replace(Camera.sample(rng), crf=0, quality=0)
    fake = np.array([any(a <= i / fps < b for a, b in manipulated) for i in range(count)], bool)
    masks = np.zeros((count, size, size), bool)

    def frames() -> Iterator[Image]:
        for i, pose in enumerate(poses):
            picture = sitter.draw(pose)
            if fake[i]:
                other = donor.draw(pose) if donor else None
                picture, masks[i] = manipulate(picture, who, pose, recipe.flicker(rng), other)
            yield camera.shoot(picture, rng)
            if progress is not None:
                progress(1)

    sound = voice(np.array([pose.mouth for pose in poses]), fps, seed)
    with replacing(path) as temporary:
        _write_mp4(temporary, frames(), sound, fps, size, crf)
    return Clip(path, fps, identity, fake, masks)


def voice(mouth: np.ndarray, fps: float, seed: int) -> np.ndarray:
    """Something like speech, as loud as the mouth is open.

    Args:
        mouth: opening in 0..1 for each frame.
        fps: frames per second.
        seed: of pitch and breath.

    Returns:
        float32 ``[samples]`` in -1..1 at ``AUDIO_RATE``.
    """
    rng = np.random.RandomState([seed & 0x7FFFFFFF, 41])
    samples = round(len(mouth) * AUDIO_RATE / fps)
    time = np.arange(samples) / AUDIO_RATE
    loud = np.interp(time * fps, np.arange(len(mouth)), mouth)
    pitch = rng.uniform(105, 210) * (1 + 0.06 * np.sin(2 * math.pi * 0.6 * time) + 0.08 * loud)
    phase = 2 * math.pi * np.cumsum(pitch) / AUDIO_RATE
    sound = np.zeros(samples)
    for harmonic in range(1, 13):
        hertz = harmonic * float(pitch.mean())
        formants = math.exp(-(((hertz - 550) / 300) ** 2))
        formants += 0.5 * math.exp(-(((hertz - 1500) / 400) ** 2))
        sound += (0.08 + formants) / harmonic**0.5 * np.sin(harmonic * phase)
    sound = 0.16 * loud * sound + 0.002 * rng.standard_normal(samples)
    return np.asarray(np.clip(sound, -1, 1), np.float32)


def _write_mp4(
    path: Path, frames: Iterator[Image], sound: np.ndarray, fps: int, size: int, crf: int
) -> None:
    import av

    with av.open(str(path), "w", format="mp4") as out:
        video = out.add_stream("libx264", rate=fps)
        video.width = video.height = size
        video.pix_fmt = "yuv420p"
        video.options = {"crf": str(crf), "preset": "veryfast", "threads": "1"}
        audio = out.add_stream("aac", rate=AUDIO_RATE)
        audio.codec_context.layout = "mono"
        block, done = 1024, 0
        for number, picture in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            frame.pts = number
            frame.time_base = Fraction(1, fps)
            for packet in video.encode(frame):
                out.mux(packet)
            until = min(len(sound), int((number + 1) * AUDIO_RATE / fps))
            while done + block <= until:
                done += _encode_sound(out, audio, sound[done : done + block], done)
        if done < len(sound):
            _encode_sound(out, audio, sound[done:], done)
        for stream in (video, audio):
            for packet in stream.encode(None):
                out.mux(packet)


def _encode_sound(out: Any, stream: Any, sound: np.ndarray, start: int) -> int:
    import av

    frame = av.AudioFrame.from_ndarray(
        np.ascontiguousarray(sound[None]), format="fltp", layout="mono"
    )
    frame.sample_rate, frame.pts = AUDIO_RATE, start
    frame.time_base = Fraction(1, AUDIO_RATE)
    for packet in stream.encode(frame):
        out.mux(packet)
    return len(sound)


def _recipe(rng: np.random.RandomState, split: str, identity: int) -> Manipulation:
    other = SPLITS[split] * SPLIT_RANGE + int(rng.randint(SPLIT_RANGE - 1))
    return Manipulation.sample(rng, other if other != identity else other + 1)


def _donor_sitter(recipe: Manipulation, size: int) -> Optional[Sitter]:
    return None if recipe.donor is None else Sitter(Identity.sample(recipe.donor), size=size)
