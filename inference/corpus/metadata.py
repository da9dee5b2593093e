"""What is written about the videos of a data set: labels, originals, people, splits.

``metadata.json`` is that of DFDC, ``{"<video>.mp4": {"label": "FAKE", "original": "<video>.mp4",
"split": "train"}}``; ``identity`` may stand beside (a text, or a list where a fake shows one
person and is driven by another). A data set may have several, each for its own folder.
"""

from __future__ import annotations

import csv
import io
import json
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

from ...errors import FormatError, MissingError
from .shelf import Shelf

METADATA = "metadata.json"


@dataclass(frozen=True)
class Video:
    """What is written about one video.

    Attributes:
        name: as in ``metadata.json``, with its suffix.
        label: as written there; ``None`` where there is none.
        original: stem of the video a fake was made of.
        identities: the people in it, by whatever name.
        split: the part it is said to belong to.
        folder: where its ``metadata.json`` is.
        record: everything that stands there.
    """

    name: str
    label: Optional[str] = None
    original: Optional[str] = None
    identities: Tuple[str, ...] = ()
    split: Optional[str] = None
    folder: str = ""
    record: Mapping[str, Any] = field(default_factory=dict)

    @property
    def stem(self) -> str:
        """The name without its suffix: crops and masks begin with it."""
        return stem(self.name)


@dataclass
class Metadata:
    """What is written about all videos.

    Attributes:
        videos: by stem, in the order of the files.
        inside: by folder and stem.
        files: where it was read.
        twice: names that stand in more than one file, with both folders; the first counts.
        conflicts: those of which the two say another label or original.
    """

    videos: Dict[str, Video] = field(default_factory=dict)
    inside: Dict[Tuple[str, str], Video] = field(default_factory=dict)
    files: List[str] = field(default_factory=list)
    twice: List[Tuple[str, str, str]] = field(default_factory=list)
    conflicts: List[Tuple[str, str]] = field(default_factory=list)

    def add(self, text: bytes, where: str, folder: str) -> None:
        """Takes the content of one ``metadata.json``.

        Raises:
            FormatError: it is not what a metadata.json holds.
        """
        self.files.append(where)
        for video in _parsed(text, where, folder):
            self.put(video)

    def put(self, video: Video) -> None:
        """Takes what is written about one video, unless something is known of it already."""
        self.inside.setdefault((video.folder, video.stem), video)
        known = self.videos.setdefault(video.stem, video)
        if known is video:
            return
        self.twice.append((video.name, known.folder or ".", video.folder or "."))
        if (known.label, known.original) != (video.label, video.original):
            both = [
                f"{one.folder or '.'}: {one.label}, original {one.original}"
                for one in (known, video)
            ]
            self.conflicts.append((video.name, "; ".join(both)))

    def identify(self, identities: Mapping[str, Sequence[str]]) -> None:
        """Adds people to the videos, by stem."""
        for name, video in self.videos.items():
            self.videos[name] = _with_people(video, identities)
        for place, video in self.inside.items():
            self.inside[place] = _with_people(video, identities)


def stem(name: str) -> str:
    """A video's name without folder and suffix."""
    return PurePosixPath(name).stem


def read_metadata(shelves: Sequence[Shelf], given: Optional[Path] = None) -> Metadata:
    """Every ``metadata.json`` of a data set, or the one that is given instead.

    Raises:
        MissingError: the given file is not there.
        FormatError: one cannot be understood.
    """
    found = Metadata()
    if given is not None:
        if not given.is_file():
            raise MissingError(f"There is no file {given}", "", "check --metadata")
        found.add(given.read_bytes(), str(given), "")
        return found
    for shelf in shelves:
        for name in shelf.names:
            path = PurePosixPath(name)
            if path.name == METADATA:
                folder = path.parent.as_posix()
                where = shelf.path(name)
                found.add(
                    shelf.read(name), where, shelf.path(folder) if folder != "." else shelf.text
                )
    return found


def read_identities(path: Path) -> Dict[str, List[str]]:
    """Who is in which video, from a CSV with the columns ``video`` and ``identity``.

    Several people are several lines, or one with ``;`` between them.

    Raises:
        MissingError: there is no such file.
        FormatError: it has no such columns.
    """
    if not path.is_file():
        raise MissingError(f"There is no file {path}", "", "check --identities")
    people: Dict[str, List[str]] = {}
    try:
        rows = csv.DictReader(io.StringIO(path.read_text(encoding="utf-8-sig")))
        for row in rows:
            names = [name.strip() for name in row["identity"].split(";") if name.strip()]
            people.setdefault(stem(row["video"].strip()), []).extend(names)
    except (KeyError, AttributeError, TypeError, UnicodeDecodeError, csv.Error) as error:
        raise FormatError(
            f"The identities in {path} cannot be read",
            f"{type(error).__name__}: {error}",
            "write a CSV with the columns video,identity",
        ) from error
    return people


def _with_people(video: Video, identities: Mapping[str, Sequence[str]]) -> Video:
    people = identities.get(video.stem)
    if not people:
        return video
    return replace(video, identities=tuple(dict.fromkeys((*video.identities, *people))))


def _parsed(text: bytes, where: str, folder: str) -> List[Video]:
    try:
        content = json.loads(text.decode("utf-8-sig"))
        return [_video(name, entry, folder) for name, entry in content.items()]
    except (ValueError, TypeError, AttributeError) as error:
        raise FormatError(
            f"{where} cannot be read",
            f"{type(error).__name__}: {error}",
            'write {"<video>.mp4": {"label": "FAKE", "original": "<video>.mp4"}, ...}',
        ) from error


def _video(name: str, entry: Mapping[str, Any], folder: str) -> Video:
    label, original, split = entry.get("label"), entry.get("original"), entry.get("split")
    people = entry.get("identity")
    if people is None or isinstance(people, (str, int)):
        people = [] if people in (None, "") else [people]
    return Video(
        name=str(name),
        label=None if label is None else str(label),
        original=stem(str(original)) if original else None,
        identities=tuple(str(one) for one in people),
        split=str(split) if split else None,
        folder=folder,
        record=dict(entry),
    )
