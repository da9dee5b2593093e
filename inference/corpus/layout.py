"""What the files of a data set are: crops and masks of the quantizer's layout, or videos."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Container, Dict, List, Optional, Sequence

from ...quantize.pictures import IMAGE_SUFFIXES
from ..sources.content import VIDEO_SUFFIXES
from ..sources.listing import natural_key
from .metadata import Metadata, read_metadata, stem
from .shelf import Shelf

CROPS, MASKS = "crops", "masks"
MASK_SUFFIXES = (".gif", ".png")


@dataclass(frozen=True)
class Place:
    """A file on a shelf."""

    shelf: Shelf
    name: str

    @property
    def path(self) -> str:
        """How a person names it."""
        return self.shelf.path(self.name)

    @property
    def base(self) -> str:
        """The name without folders."""
        return PurePosixPath(self.name).name


@dataclass(frozen=True)
class Entry:
    """A crop or a video of a data set.

    Attributes:
        place: its file.
        video: stem of the video it is, or was cut from.
        mask: the crop's mask; ``None`` where there is none.
        is_crop: whether it is a crop.
        part: the folder above ``crops`` or above the video, from the top; empty at the top.
    """

    place: Place
    video: str
    mask: Optional[Place] = None
    is_crop: bool = True
    part: str = ""


@dataclass
class Inventory:
    """The files of a data set.

    Attributes:
        entries: crops, then videos, each in natural order.
        stray: masks that belong to no crop.
        metadata: what is written about the videos.
    """

    entries: List[Entry] = field(default_factory=list)
    stray: List[Place] = field(default_factory=list)
    metadata: Metadata = field(default_factory=Metadata)

    @property
    def is_crops(self) -> bool:
        """Whether there are crops."""
        return any(entry.is_crop for entry in self.entries)


def take_inventory(shelves: Sequence[Shelf], metadata: Optional[Metadata] = None) -> Inventory:
    """Lists what is on the shelves; other files are passed over.

    Args:
        shelves: where the data set is.
        metadata: what is written about it; read from the shelves if not given.

    Raises:
        FormatError: a ``metadata.json`` cannot be understood.
    """
    found = Inventory(metadata=read_metadata(shelves) if metadata is None else metadata)
    for shelf in shelves:
        _take(shelf, found)
    found.entries.sort(key=lambda e: (not e.is_crop, e.part, natural_key(e.place.path)))
    return found


def video_of(name: str, known: Container[str]) -> str:
    """The video of a crop ``<video>_<n>``: the longest beginning that is known, else without n."""
    parts = name.split("_")
    for count in range(len(parts), 0, -1):
        beginning = "_".join(parts[:count])
        if beginning in known:
            return beginning
    return "_".join(parts[:-1]) or name


def _take(shelf: Shelf, found: Inventory) -> None:
    masks: Dict[str, Place] = {}
    crops: List[PurePosixPath] = []
    for name in shelf.names:
        path = PurePosixPath(name)
        suffix = path.suffix.lower()
        folder = path.parent.name
        if folder == MASKS and suffix in MASK_SUFFIXES:
            masks.setdefault((path.parent.parent / path.stem).as_posix(), Place(shelf, name))
        elif folder == CROPS and suffix in IMAGE_SUFFIXES:
            crops.append(path)
        elif suffix in VIDEO_SUFFIXES:
            part = path.parent.as_posix()
            found.entries.append(
                Entry(Place(shelf, name), stem(name), None, False, "" if part == "." else part)
            )
    used = set()
    for path in crops:
        top = path.parent.parent
        key = (top / path.stem).as_posix()
        used.add(key)
        video = video_of(path.stem, found.metadata.videos)
        part = "" if top.as_posix() == "." else top.as_posix()
        found.entries.append(
            Entry(Place(shelf, path.as_posix()), video, masks.get(key), True, part)
        )  # fmt: skip
    found.stray += [place for key, place in masks.items() if key not in used]
