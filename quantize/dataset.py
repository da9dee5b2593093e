"""Face crops, their masks and labels: which there are, which cannot be used, and batches of them.

Two layouts are read. The labelled one is that of the published U-YNet::

    crops/<video>_<n>.png   the face
    masks/<video>_<n>.gif   the manipulated pixels; not needed for a REAL video
    metadata.json           {"<video>.mp4": {"label": "REAL" or "FAKE", ...}, ...}

The other is any folder of pictures, for calibration. What cannot be used is listed by name in
``Dataset.problems``, never skipped in silence. Everything is numpy, so that evaluation
without torch can use it.
"""

from __future__ import annotations

import enum
import json
import random
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Dict, Iterator, List, Mapping, Optional, Tuple

import numpy as np

from ..errors import DataError, FormatError, MissingError
from ..files import impostor
from ..preprocessing import Preprocessing, fit, to_float
from .pictures import IMAGE_SUFFIXES, fit_mask, read_image, read_mask

REAL, FAKE = "REAL", "FAKE"
UNKNOWN_LABEL = -1


class ProblemKind(enum.Enum):
    """Why a picture, or a part of what is known about it, cannot be used."""

    UNREADABLE_IMAGE = "unreadable image"
    UNREADABLE_MASK = "unreadable mask"
    MISSING_MASK = "missing mask of a FAKE"
    MASK_SIZE = "mask of another size than its image"
    UNKNOWN_VIDEO = "video not in metadata.json"
    UNKNOWN_LABEL = "label that is neither REAL nor FAKE"


@dataclass(frozen=True)
class Problem:
    """One thing that cannot be used.

    Attributes:
        kind: what is wrong.
        path: the picture or mask.
        detail: what was seen.
    """

    kind: ProblemKind
    path: Path
    detail: str = ""


@dataclass(frozen=True)
class Item:
    """One picture.

    Attributes:
        image: its file.
        video: the video it was cut from; the file's stem in a plain folder.
        label: ``REAL``, ``FAKE`` or ``None`` where it is not known.
        mask: the mask's file; ``None`` where there is none.
    """

    image: Path
    video: str
    label: Optional[str] = None
    mask: Optional[Path] = None


@dataclass(frozen=True)
class Batch:
    """Pictures read and brought to the network's size.

    Attributes:
        items: one per picture.
        images: uint8 ``[N, H, W, 3]``, RGB.
        masks: uint8 ``[N, H, W]``, 1 = manipulated; zeros where not known.
        mask_known: bool ``[N]``.
        labels: int8 ``[N]``, 1 = REAL, 0 = FAKE, -1 = not known.
        preprocessing: how the pictures were fitted.
    """

    items: Tuple[Item, ...]
    images: np.ndarray
    masks: np.ndarray
    mask_known: np.ndarray
    labels: np.ndarray
    preprocessing: Preprocessing

    @property
    def floats(self) -> np.ndarray:
        """The float network's input, float32 ``[N, 3, H, W]`` in 0..1."""
        return to_float(self.images, self.preprocessing)


@dataclass(frozen=True)
class Dataset:
    """The pictures of a folder in a fixed order.

    Attributes:
        folder: where they are.
        items: sorted by video and number.
        problems: what cannot be used; pictures found unreadable while batches are read are added.
        unlabelled: why there are no labels and masks; empty where there are.
    """

    folder: Path
    items: Tuple[Item, ...]
    problems: List[Problem] = field(default_factory=list)
    unlabelled: str = ""

    def __len__(self) -> int:
        return len(self.items)

    @property
    def problem_counts(self) -> Dict[str, int]:
        """How many problems of each kind, only kinds that occur."""
        counts: Dict[str, int] = {}
        for problem in self.problems:
            counts[problem.kind.value] = counts.get(problem.kind.value, 0) + 1
        return counts

    def subset(self, count: int, seed: int = 0) -> Dataset:
        """At most ``count`` pictures, labels in equal parts, spread over the videos.

        The choice depends only on the items and the seed; the order stays that of the items.
        """
        if count >= len(self.items):
            return self
        chosen: List[Item] = []
        queues = _spread(self.items, random.Random(seed))
        while len(chosen) < count:
            queues = [queue for queue in queues if queue]
            chosen += [queue.pop() for queue in queues][: count - len(chosen)]
        kept = set(chosen)
        return replace(self, items=tuple(item for item in self.items if item in kept))

    def batches(
        self, size: int, preprocessing: Optional[Preprocessing] = None, masks: bool = True
    ) -> Iterator[Batch]:
        """Reads the pictures in order, ``size`` at a time; the last batch may be shorter.

        A picture that cannot be read is left out and added to ``problems``.

        Args:
            size: pictures per batch.
            preprocessing: the model's record; the default if not given.
            masks: read the masks too; without, ``mask_known`` is all false.
        """
        preprocessing = preprocessing or Preprocessing()
        rows: List[_Row] = []
        for item in self.items:
            row = self._read(item, preprocessing, masks)
            if row is not None:
                rows.append(row)
            if len(rows) == size:
                yield _stack(rows, preprocessing)
                rows = []
        if rows:
            yield _stack(rows, preprocessing)

    def _read(self, item: Item, preprocessing: Preprocessing, masks: bool) -> Optional[_Row]:
        try:
            image = read_image(item.image)
        except DataError as error:
            self._add(Problem(ProblemKind.UNREADABLE_IMAGE, item.image, error.evidence))
            return None
        mask = self._read_mask(item, image.shape[:2]) if masks else None
        size = (preprocessing.height, preprocessing.width)
        fitted = np.zeros(size, np.uint8) if mask is None else fit_mask(mask, size)
        return _Row(item, fit(image, preprocessing), fitted, mask is not None)

    def _read_mask(self, item: Item, size: Tuple[int, int]) -> Optional[np.ndarray]:
        if item.mask is None:
            return np.zeros(size, np.uint8) if item.label == REAL else None
        try:
            mask = read_mask(item.mask)
        except DataError as error:
            self._add(Problem(ProblemKind.UNREADABLE_MASK, item.mask, error.evidence))
            return None
        if mask.shape != size:
            detail = f"mask {mask.shape[1]}x{mask.shape[0]}, image {size[1]}x{size[0]}"
            self._add(Problem(ProblemKind.MASK_SIZE, item.mask, detail))
            return None
        return mask

    def _add(self, problem: Problem) -> None:
        if problem not in self.problems:  # the same folder may be read twice
            self.problems.append(problem)


def read_dataset(folder: Path) -> Dataset:
    """Lists the pictures of a folder in either layout; no picture is decoded yet.

    Raises:
        MissingError: there is no such folder.
        FormatError: ``metadata.json`` cannot be read.
        DataError: no picture is in it.
    """
    if not folder.is_dir():
        raise MissingError(f"The data folder {folder} does not exist", "", "check --data")
    crops = folder / "crops"
    labelled = crops.is_dir()
    problems: List[Problem] = []
    images = []
    for path in _pictures(crops if labelled else folder):
        with path.open("rb") as file:
            wrong = impostor(file.read(256))
        if wrong:
            problems.append(Problem(ProblemKind.UNREADABLE_IMAGE, path, f"it is {wrong}"))
        else:
            images.append(path)
    if not images:
        inside = sorted(p.name for p in folder.iterdir())[:6]
        raise DataError(
            f"There are no pictures in {crops if labelled else folder}",
            f"it has {', '.join(inside) or 'nothing'}; pictures are {', '.join(IMAGE_SUFFIXES)}",
            "give a folder with crops/, masks/ and metadata.json, or a folder of pictures",
        )
    if not labelled:
        items = tuple(Item(path, path.stem) for path in images)
        return Dataset(folder, items, problems, "it is a plain folder of pictures")
    metadata = folder / "metadata.json"
    if not metadata.is_file():
        items = tuple(Item(path, _video(path, {}), None, _mask_of(path)) for path in images)
        return Dataset(folder, items, problems, "it has no metadata.json")
    labels = read_labels(metadata)
    items = tuple(_labelled_item(path, labels, problems) for path in images)
    return Dataset(folder, items, problems)


def read_labels(path: Path) -> Dict[str, str]:
    """The labels of a ``metadata.json``: video name without suffix to label, as written there.

    Raises:
        FormatError: it is not an object of ``{"<video>.mp4": {"label": ...}}``.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return {_stem(name): str(entry["label"]) for name, entry in content.items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise FormatError(
            f"The labels in {path} cannot be read",
            f"{type(error).__name__}: {error}",
            'write {"<video>.mp4": {"label": "REAL"}, ...}',
        ) from error


@dataclass(frozen=True)
class _Row:
    item: Item
    image: np.ndarray
    mask: np.ndarray
    mask_known: bool


def _stack(rows: List[_Row], preprocessing: Preprocessing) -> Batch:
    codes = {REAL: 1, FAKE: 0, None: UNKNOWN_LABEL}
    return Batch(
        items=tuple(row.item for row in rows),
        images=np.stack([row.image for row in rows]),
        masks=np.stack([row.mask for row in rows]),
        mask_known=np.array([row.mask_known for row in rows], bool),
        labels=np.array([codes[row.item.label] for row in rows], np.int8),
        preprocessing=preprocessing,
    )


def _spread(items: Tuple[Item, ...], choose: random.Random) -> List[List[Item]]:
    """One queue per label, each going round its videos before it takes a video again."""
    by_label: Dict[str, Dict[str, List[Item]]] = {}
    for item in items:
        by_label.setdefault(item.label or "", {}).setdefault(item.video, []).append(item)
    queues = []
    for label in sorted(by_label):
        videos = list(by_label[label].values())
        choose.shuffle(videos)
        for crops in videos:
            choose.shuffle(crops)
        longest = max(len(crops) for crops in videos)
        rounds = [crops[i] for i in range(longest) for crops in videos if i < len(crops)]
        queues.append(rounds[::-1])
    return queues


def _pictures(folder: Path) -> List[Path]:
    found = [
        path
        for path in folder.iterdir()
        if path.suffix.lower() in IMAGE_SUFFIXES
        and path.is_file()
        and not path.name.startswith(".")
    ]
    return sorted(found, key=_natural)


def _natural(path: Path) -> List[Any]:
    """Orders a_2 before a_10; the exact name decides between equals such as 1 and 01."""
    parts = re.split(r"(\d+)", path.name)
    return [(int(part), "") if part.isdigit() else (0, part) for part in parts] + [(0, path.name)]


def _labelled_item(path: Path, labels: Mapping[str, str], problems: List[Problem]) -> Item:
    video = _video(path, labels)
    mask = _mask_of(path)
    label = labels.get(video)
    if label is None:
        problems.append(Problem(ProblemKind.UNKNOWN_VIDEO, path, f"no {video}.mp4"))
    elif label not in (REAL, FAKE):
        problems.append(Problem(ProblemKind.UNKNOWN_LABEL, path, f"label {label!r}"))
        label = None
    elif label == FAKE and mask is None:
        detail = f"no {path.parent.parent / 'masks' / (path.stem + '.gif')}"
        problems.append(Problem(ProblemKind.MISSING_MASK, path, detail))
    return Item(path, video, label, mask)


def _video(path: Path, labels: Mapping[str, str]) -> str:
    """The video of ``<video>_<n>``: the longest beginning that has a label, else without n."""
    parts = path.stem.split("_")
    for count in range(len(parts), 0, -1):
        name = "_".join(parts[:count])
        if name in labels:
            return name
    return "_".join(parts[:-1]) or path.stem


def _mask_of(image: Path) -> Optional[Path]:
    for suffix in (".gif", ".png"):
        mask = image.parent.parent / "masks" / (image.stem + suffix)
        if mask.is_file():
            return mask
    return None


def _stem(name: str) -> str:
    return name.rsplit(".", 1)[0] if "." in name else name
