"""A data set divided by the faces in it, with a proof that no two parts share one.

::

    <part>/…        crops, masks and metadata.json, or videos and metadata.json
    <part>.txt      the files of a part, one a line
    split.json      groups, counts, SHA-256 of the lists, and the proof
    split.html      the same to be read
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Callable, Dict, List, Sequence, Tuple

from ... import __version__
from ...errors import DataError, UsageError, WorkError
from .division import USUAL, Part, divide
from .layout import CROPS, MASKS, Entry, Inventory
from .links import groups, shared
from .metadata import METADATA, Video
from .parcel import Parcel
from .shelf import FolderShelf
from .work import work

SPLIT, PAGE = "split.json", "split.html"
PLAN = "split.plan.json"
HOWS = ("auto", "link", "copy", "list")


@dataclass(frozen=True)
class SplitOptions:
    """How a data set is divided.

    Attributes:
        parts: names and shares, of a sum of 1.
        seed: another one gives another division.
        keep_unlinked: a fake of which neither original nor person is known counts as a person of
            its own; else it is left out, since its face may be in any part.
        by_folder: all videos of one source count as showing one group of people.
        how: one of ``HOWS``.

    Raises:
        UsageError: ``how`` is something else.
    """

    parts: Tuple[Tuple[str, float], ...] = USUAL
    seed: int = 0
    keep_unlinked: bool = False
    by_folder: bool = False
    how: str = "auto"

    def __post_init__(self) -> None:
        if self.how not in HOWS:
            raise UsageError("There is no such way", repr(self.how), f"one of {', '.join(HOWS)}")


@dataclass
class Split:
    """A division and its proof.

    Attributes:
        options: how it was asked for.
        sources: what was divided.
        parts: the groups of each part.
        entries: the files of each part.
        left_out: file or video to why it is in no part.
        assumptions: what the proof rests on and cannot show itself.
        how: how the files were put there, and why.
    """

    options: SplitOptions
    sources: List[str]
    parts: List[Part]
    entries: Dict[str, List[Entry]]
    left_out: Dict[str, str] = field(default_factory=dict)
    assumptions: List[str] = field(default_factory=list)
    how: Tuple[str, str] = ("list", "asked for")

    def listing(self, part: str) -> str:
        """The list of a part's files, one a line."""
        return "".join(entry.place.path + "\n" for entry in self.entries[part])

    def videos(self, part: str) -> List[Video]:
        """The videos of a part that have files."""
        present = {entry.video for entry in self.entries[part]}
        group = next(one for one in self.parts if one.name == part)
        return [v for g in group.groups for v in g.videos if v.stem in present]

    def to_json(self) -> Dict[str, Any]:
        """The content of ``split.json``; the same for the same data and options."""
        parts = {part.name: self._part_json(part) for part in self.parts}
        found = shared({part.name: self.videos(part.name) for part in self.parts})
        kinds = [kind for _, _, kind, _, _, _ in found]
        pairs = [
            [one.name, other.name]
            for number, one in enumerate(self.parts)
            for other in self.parts[number + 1 :]
        ]
        return {
            "version": __version__,
            "sources": self.sources,
            "seed": self.options.seed,
            "how": {"way": self.how[0], "reason": self.how[1]},
            "parts": parts,
            "proof": {
                "compared": pairs,
                "shared_videos": kinds.count("video"),
                "shared_originals": kinds.count("original"),
                "shared_identities": kinds.count("identity"),
                "method": (
                    "for every two parts, the sets of videos, of originals and of people named "
                    "were intersected; all intersections are empty"
                ),
                "assumptions": self.assumptions,
            },
            "left_out": self.left_out,
            "groups": [
                {
                    "part": part.name,
                    "videos": [video.name for video in group.videos],
                    "originals": list(group.originals),
                    "identities": list(group.identities),
                }
                for part in self.parts
                for group in part.groups
            ],
        }

    def _part_json(self, part: Part) -> Dict[str, Any]:
        entries = self.entries[part.name]
        total = sum(len(found) for found in self.entries.values())
        labels = {video.stem: video.label or "unknown" for video in self.videos(part.name)}
        counts: Dict[str, Dict[str, int]] = {}
        for label in labels.values():
            counts.setdefault(label, {"videos": 0, "files": 0})["videos"] += 1
        for entry in entries:
            counts[labels[entry.video]]["files"] += 1
        return {
            "wanted": round(part.wanted, 6),
            "got": round(len(entries) / max(1, total), 6),
            "groups": len(part.groups),
            "videos": len(labels),
            "files": len(entries),
            "labels": dict(sorted(counts.items())),
            "list": f"{part.name}.txt",
            "sha256": hashlib.sha256(_bytes(self.listing(part.name))).hexdigest(),
        }


def plan_split(inventory: Inventory, sources: Sequence[str], options: SplitOptions) -> Split:
    """Divides a data set; nothing is written.

    Raises:
        DataError: nothing says who is in the videos, or there are too few people.
    """
    if not inventory.entries:
        raise DataError(
            f"There are no crops and no videos in {', '.join(sources)}", "", "check the path"
        )
    if not inventory.metadata.videos:
        raise DataError(
            "Nothing says which videos show the same faces",
            f"there is no {METADATA} in {', '.join(sources)}",
            f"add a {METADATA} with label and original of each video",
        )
    left: Dict[str, str] = {}
    entries = _one_kind(inventory, left)
    weights: Dict[str, int] = {}
    known: Dict[str, Video] = {}
    for entry in entries:
        video = inventory.metadata.videos.get(entry.video)
        if video is None:
            left[entry.place.path] = f"its video {entry.video} is not in {METADATA}"
        elif _unlinked(video) and not options.keep_unlinked and not options.by_folder:
            left[entry.place.path] = "a fake of which neither original nor person is known"
        else:
            if options.by_folder:
                people = (*video.identities, f"folder {entry.place.shelf.text}/{entry.part}")
                video = replace(video, identities=tuple(dict.fromkeys(people)))
            known[entry.video] = video
            weights[entry.video] = weights.get(entry.video, 0) + 1
    if not known:
        raise DataError(
            "No video can be placed",
            next(iter(left.values())),
            "give identities with --identities FILE.csv, or --keep-unlinked",
        )
    # Videos without files tie others together all the same, and weigh nothing.
    absent = {n: v for n, v in inventory.metadata.videos.items() if n not in known}
    held = [g for g in groups([*known.values(), *absent.values()]) if _present(g.videos, known)]
    held = [replace(g, videos=_present(g.videos, known)) for g in held]
    parts = divide(held, weights, options.parts, options.seed)
    part_of = {v.stem: part.name for part in parts for g in part.groups for v in g.videos}
    placed: Dict[str, List[Entry]] = {part.name: [] for part in parts}
    for entry in entries:
        if entry.video in part_of and entry.place.path not in left:
            placed[part_of[entry.video]].append(entry)
    split = Split(options, list(sources), parts, placed, left)
    split.assumptions = _assumptions(list(known.values()), options)
    prove(split)
    return split


def prove(split: Split) -> None:
    """Compares the parts' videos, originals and people as plain sets.

    Raises:
        WorkError: two parts share one.
    """
    found = shared({part.name: split.videos(part.name) for part in split.parts})
    if found:
        one, other, kind, name, _, _ = found[0]
        raise WorkError(
            "The division is not sound; this is a fault of the program",
            f"{one} and {other} share the {kind} {name}",
            "please report it with the metadata.json",
        )


def write_split(
    split: Split,
    inventory: Inventory,
    target: Path,
    jobs: int = 1,
    advance: Callable[[int, int], None] = lambda done, total: None,
) -> Split:
    """Writes the parts, the lists, ``split.json`` and ``split.html``; can be taken up again.

    Returns:
        The split with ``how`` filled in.

    Raises:
        UsageError: the target holds another split, or the way asked for is not possible.
        WorkError: a file cannot be written.
    """
    from .split_page import split_page

    parcel = Parcel(target)
    entries = [entry for found in split.entries.values() for entry in found]
    split = replace(split, how=_way(split.options.how, entries, parcel))
    record = split.to_json()
    _refuse_other(parcel, record)
    parcel.write_json(PLAN, record)
    if split.how[0] != "list":
        tasks = _tasks(split)
        advance(0, len(tasks))
        put = _Put(parcel, split.how[0])
        for done, _ in enumerate(work(tasks, put, jobs), 1):
            advance(done, len(tasks))
        for part in split.parts:
            present = {video.stem: video for video in split.videos(part.name)}
            records = {
                v.name: dict(v.record, split=part.name)
                for v in inventory.metadata.videos.values()
                if v.stem in present
            }
            parcel.write_json(f"{part.name}/{METADATA}", records)
    for part in split.parts:
        parcel.write(f"{part.name}.txt", _bytes(split.listing(part.name)))
    parcel.write(PAGE, _bytes(split_page(record)))
    parcel.write_json(SPLIT, record)
    (parcel.folder / PLAN).unlink()
    parcel.finish()
    return split


class _Put:
    """Puts one file in its place."""

    def __init__(self, parcel: Parcel, way: str) -> None:
        self._parcel, self._way = parcel, way

    def __call__(self, task: Tuple[Entry, Any, str]) -> None:
        _, place, name = task
        target = self._parcel.folder / name
        if self._way == "copy":
            try:
                if target.is_file() and target.stat().st_size == place.shelf.size(place.name):
                    return
                content = place.shelf.read(place.name)
            except OSError as error:
                raise WorkError(
                    f"{place.path} cannot be read",
                    error.strerror or str(error),
                    "deepfake-fpga data check names all such files",
                ) from error
            self._parcel.write(name, content)
            return
        source = Path(place.path)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            if target.exists() and os.path.samefile(str(source), str(target)):
                return
            try:
                os.link(str(source), str(target))
            except OSError:  # another disk, or a file system without such links
                os.symlink(str(source.resolve()), str(target))
        except OSError as error:
            raise WorkError(
                f"{target} cannot be linked to {source}",
                error.strerror or str(error),
                "use --how copy, or --how list",
            ) from error


def _one_kind(inventory: Inventory, left: Dict[str, str]) -> List[Entry]:
    """Crops if there are any, else videos; of files of one name the first."""
    crops = inventory.is_crops
    names: Dict[str, str] = {}
    found = []
    for entry in inventory.entries:
        path = entry.place.path
        if entry.is_crop != crops:
            left[path] = "a video beside crops"
        elif names.setdefault(entry.place.base, path) != path:
            left[path] = f"it has the same name as {names[entry.place.base]}"
        else:
            found.append(entry)
    return found


def _tasks(split: Split) -> List[Tuple[Entry, Any, str]]:
    tasks: List[Tuple[Entry, Any, str]] = []
    for part, entries in split.entries.items():
        for entry in entries:
            folder = f"{part}/{CROPS}" if entry.is_crop else part
            tasks.append((entry, entry.place, f"{folder}/{entry.place.base}"))
            if entry.mask is not None:
                tasks.append((entry, entry.mask, f"{part}/{MASKS}/{entry.mask.base}"))
    return tasks


def _way(how: str, entries: Sequence[Entry], parcel: Parcel) -> Tuple[str, str]:
    blocked = ""
    if parcel.tar:
        blocked = "a tar holds copies"
    elif not all(isinstance(entry.place.shelf, FolderShelf) for entry in entries):
        blocked = "members of a tar cannot be linked to"
    if how == "link" and blocked:
        raise UsageError("The files cannot be linked", blocked, "use --how copy or --how list")
    if how == "auto":
        return ("copy", blocked) if blocked else ("link", "takes no room")
    return how, f"asked for with --how {how}"


def _refuse_other(parcel: Parcel, record: Dict[str, Any]) -> None:
    wanted = json.loads(json.dumps(record))
    for name in (SPLIT, PLAN):
        path = parcel.folder / name
        if path.is_file():
            try:
                same = json.loads(path.read_text(encoding="utf-8")) == wanted
            except ValueError:
                same = False
            if not same:
                raise UsageError(
                    f"{parcel.target} holds another split",
                    "files of both would be mixed",
                    "name another folder, or remove it",
                )
            return
    if parcel.folder.is_dir() and any((parcel.folder / part).exists() for part in record["parts"]):
        raise UsageError(
            f"{parcel.target} has folders of these names already",
            ", ".join(record["parts"]),
            "name another folder",
        )


def _unlinked(video: Video) -> bool:
    return video.label != "REAL" and video.original is None and not video.identities


def _present(videos: Sequence[Video], known: Dict[str, Video]) -> Tuple[Video, ...]:
    return tuple(video for video in videos if video.stem in known)


def _assumptions(videos: Sequence[Video], options: SplitOptions) -> List[str]:
    said = ["what metadata.json says of originals and people is taken to be true"]
    nameless = sum(1 for v in videos if v.original is None and not v.identities)
    if nameless and not options.keep_unlinked:
        said.append(
            f"of {nameless} originals nobody says who is in them: each counts as another person; "
            "name the people with --identities, or take each source as one group with --by-folder"
        )
    if options.keep_unlinked:
        loose = sum(1 for video in videos if _unlinked(video))
        if loose:
            said.append(
                f"{loose} fakes have neither original nor person, and were kept with "
                "--keep-unlinked: of these nothing is proved"
            )
    return said


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
