"""Labelled pictures in memory: read, drawn or cut, and what a float model is worth on them.

Everything random is drawn from a seed and the picture's number.

Importing this module imports torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Sequence

import numpy as np
import torch

from ..errors import DataError, MismatchError
from ..preprocessing import Preprocessing, fit, to_float
from .dataset import Dataset, read_dataset
from .metrics import Scores, Tally, auc
from .pictures import fit_mask, read_image
from .self_blending import self_blend
from .synthetic import make_take


@dataclass(frozen=True, eq=False)
class Samples:
    """Labelled pictures in memory, at the network's size.

    Attributes:
        images: uint8 ``[N, H, W, 3]``, RGB.
        masks: uint8 ``[N, H, W]``, 1 = manipulated.
        real: float32 ``[N]``, 1 = REAL, 0 = FAKE.
        preprocessing: how the pictures were fitted.
        videos: int ``[N]``, the same number for pictures of one video; ``None`` where every
            picture is its own.
    """

    images: np.ndarray
    masks: np.ndarray
    real: np.ndarray
    preprocessing: Preprocessing
    videos: Optional[np.ndarray] = None

    def __len__(self) -> int:
        return len(self.images)

    @classmethod
    def joined(cls, parts: Sequence[Samples]) -> Samples:
        """Several as one; their videos stay apart.

        Raises:
            MismatchError: they were fitted differently.
        """
        if len(parts) == 1:
            return parts[0]  # joining copies every picture
        first = parts[0].preprocessing
        for part in parts[1:]:
            if part.preprocessing != first:
                raise MismatchError(
                    "The pictures were fitted in different ways",
                    f"{first} and {part.preprocessing}",
                    "read them with one preprocessing",
                )
        numbers: List[np.ndarray] = []
        for part in parts:
            own = np.arange(len(part)) if part.videos is None else part.videos
            _, place = np.unique(own, return_inverse=True)
            start = 0 if not numbers else int(numbers[-1].max()) + 1
            numbers.append(place.reshape(-1) + start)
        return cls(
            np.concatenate([part.images for part in parts]),
            np.concatenate([part.masks for part in parts]),
            np.concatenate([part.real for part in parts]),
            first,
            np.concatenate(numbers),
        )


def load_samples(
    dataset: Dataset,
    preprocessing: Optional[Preprocessing] = None,
    progress: Optional[Callable[[int], Any]] = None,
) -> Samples:
    """Reads a labelled data set into memory (about 0.2 MB a picture).

    Pictures without label or mask are left out; they are in ``dataset.problems``.

    Raises:
        DataError: nothing usable is left.
    """
    preprocessing = preprocessing or Preprocessing()
    shape = (len(dataset), preprocessing.height, preprocessing.width)
    images, masks = np.empty((*shape, 3), np.uint8), np.empty(shape, np.uint8)
    real, count = np.empty(len(dataset), np.float32), 0
    names: List[str] = []
    for batch in dataset.batches(64, preprocessing):
        keep = np.flatnonzero((batch.labels >= 0) & batch.mask_known)
        rows = slice(count, count + len(keep))
        images[rows], masks[rows] = batch.images[keep], batch.masks[keep]
        real[rows] = batch.labels[keep]
        names += [batch.items[i].video for i in keep]
        count += len(keep)
        if progress is not None:
            progress(len(batch.items))
    if count == 0:
        raise DataError(
            f"The data in {dataset.folder} has no picture with label and mask",
            dataset.unlabelled or str(dataset.problem_counts),
            "give a folder with crops/, masks/ and metadata.json",
        )
    _, videos = np.unique(names, return_inverse=True)
    return Samples(images[:count], masks[:count], real[:count], preprocessing, videos.reshape(-1))


def draw_samples(
    split: str,
    videos: int,
    frames_per_video: int,
    seed: int = 0,
    preprocessing: Optional[Preprocessing] = None,
    progress: Optional[Callable[[int], Any]] = None,
) -> Samples:
    """Draws synthetic samples without writing them: the same as ``make_dataset`` would give."""
    preprocessing = preprocessing or Preprocessing()
    size = (preprocessing.height, preprocessing.width)
    images: List[np.ndarray] = []
    masks: List[np.ndarray] = []
    real: List[float] = []
    for video in range(videos):
        fake = video % 2 == 1
        take = make_take(split, seed, video // 2, frames_per_video, fake)
        images += [fit(picture, preprocessing) for picture in take.pictures]
        masks += [fit_mask(mask.astype(np.uint8), size) for mask in take.masks]
        real += [0.0 if fake else 1.0] * frames_per_video
        if progress is not None:
            progress(1)
    number = np.repeat(np.arange(videos), frames_per_video)
    return Samples(
        np.stack(images), np.stack(masks), np.array(real, np.float32), preprocessing, number
    )


def draw_photograph_crops(
    folder: Path, count: int, seed: int = 0, preprocessing: Optional[Preprocessing] = None
) -> Samples:
    """Random square crops of any photographs, as authentic pictures without a face.

    What a self-blended picture teaches is the seam, and a photograph of anything has the noise and
    the detail that a drawn face lacks.

    Args:
        folder: photographs, each at least 96 pixels wide and high.
        count: how many crops.
        seed: of their places, sizes and directions.
        preprocessing: how they are fitted; the default if not given.

    Raises:
        DataError: there is no photograph.
    """
    preprocessing = preprocessing or Preprocessing()
    dataset = read_dataset(folder)
    photographs = [read_image(item.image) for item in dataset.items]
    images: List[np.ndarray] = []
    for number in range(count):
        rng = np.random.RandomState([seed & 0x7FFFFFFF, number, 53])
        photograph = photographs[rng.randint(len(photographs))]
        least = min(photograph.shape[:2])
        side = int(rng.uniform(min(96, least), least + 1))
        top = rng.randint(photograph.shape[0] - side + 1)
        left = rng.randint(photograph.shape[1] - side + 1)
        images.append(fit(photograph[top : top + side, left : left + side], preprocessing))
    shape = (count, preprocessing.height, preprocessing.width)
    return Samples(
        np.stack(images), np.zeros(shape, np.uint8), np.ones(count, np.float32), preprocessing
    )


def load_authentic(
    folder: Path,
    preprocessing: Optional[Preprocessing] = None,
    say: Callable[[str], Any] = lambda text: None,
) -> Samples:
    """Crops of faces that nobody manipulated, such as ``data crops`` cuts out of photographs.

    Args:
        folder: pictures, or a folder with ``crops/``; labels and masks are not looked at.
        preprocessing: how they are fitted; the default if not given.
        say: told of each picture that cannot be used.

    Raises:
        DataError: no picture can be read.
    """
    preprocessing = preprocessing or Preprocessing()
    inside = folder / "crops"
    dataset = read_dataset(inside if inside.is_dir() else folder)
    images = [batch.images for batch in dataset.batches(64, preprocessing)]
    for problem in dataset.problems:
        say(f"{problem.path} is left out: {problem.kind.value}")
    if not any(len(some) for some in images):
        raise DataError(
            f"There is no picture to read in {folder}",
            str(dataset.problem_counts),
            "give a folder that deepfake-fpga data crops has written",
        )
    together = np.concatenate(images)
    return Samples(
        together,
        np.zeros(together.shape[:3], np.uint8),
        np.ones(len(together), np.float32),
        preprocessing,
    )


def with_self_blended(samples: Samples, seed: int = 0) -> Samples:
    """The authentic pictures of ``samples`` and each of them blended with itself, as FAKE.

    For validation: the same seed gives the same pictures.
    """
    authentic = np.flatnonzero(samples.real > 0.5)
    images, masks = samples.images[authentic], samples.masks[authentic]
    blended, seams = images.copy(), masks.copy()
    for place, number in enumerate(authentic):
        rng = np.random.RandomState([seed & 0x7FFFFFFF, int(number), 59])
        blended[place], seams[place] = self_blend(images[place], rng)
    one, nothing = np.ones(len(authentic), np.float32), np.zeros(len(authentic), np.float32)
    videos = None if samples.videos is None else samples.videos[authentic]
    halves = [
        Samples(images, masks, one, samples.preprocessing, videos),
        Samples(blended, seams, nothing, samples.preprocessing, videos),
    ]
    return Samples.joined(halves)


@dataclass(frozen=True)
class Validation:
    """What a model is worth on labelled pictures.

    Attributes:
        scores: picture by picture.
        video_auc: of the mean fake probability of each video against its label.
    """

    scores: Scores
    video_auc: float

    def to_json(self) -> Dict[str, Any]:
        """A JSON object; what is not defined becomes null."""
        value = None if np.isnan(self.video_auc) else round(self.video_auc, 6)
        return {**self.scores.to_json(), "video_auc": value}


def video_auc(fake: np.ndarray, samples: Samples) -> float:
    """AUC of the mean fake probability (float ``[N]``) of each video; NaN as ``metrics.auc``.

    Pictures of one video with different labels count as two videos.
    """
    number = np.arange(len(samples)) if samples.videos is None else samples.videos
    key = number.astype(np.int64) * 2 + (samples.real < 0.5)
    videos, place = np.unique(key, return_inverse=True)
    place = place.reshape(-1)
    means = np.bincount(place, fake) / np.bincount(place)
    return auc(means, videos % 2)


def score(
    model: torch.nn.Module,
    samples: Samples,
    batch_size: int = 32,
    progress: Optional[Callable[[int], Any]] = None,
) -> Scores:
    """Measures a float model in eval mode; it is left in the mode it was in.

    Args:
        model: a U-YNet, or anything with its inputs and outputs.
        samples: what to measure on.
        batch_size: pictures per pass.
        progress: called with the number of pictures after each pass.
    """
    return validate(model, samples, batch_size, progress).scores


def validate(
    model: torch.nn.Module,
    samples: Samples,
    batch_size: int = 32,
    progress: Optional[Callable[[int], Any]] = None,
) -> Validation:
    """The same with the AUC over videos; see ``score``."""
    was_training, tally = model.training, Tally()
    first = next(model.parameters(), None)
    device = torch.device("cpu") if first is None else first.device
    fake: List[np.ndarray] = []
    model.eval()
    try:
        with torch.no_grad():
            for start in range(0, len(samples), batch_size):
                rows = slice(start, start + batch_size)
                floats = torch.from_numpy(to_float(samples.images[rows], samples.preprocessing))
                floats = floats.to(device).contiguous(memory_format=torch.channels_last)
                logits, real = model(floats)
                fake.append(1.0 - real.float().cpu().numpy()[:, 0].astype(np.float64))
                tally.add(
                    fake[-1],
                    samples.real[rows] < 0.5,
                    logits.argmax(1).cpu().numpy(),
                    samples.masks[rows],
                )
                if progress is not None:
                    progress(len(floats))
    finally:
        model.train(was_training)
    return Validation(tally.scores(), video_auc(np.concatenate(fake), samples))
