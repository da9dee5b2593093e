"""Anyone's data set held against what training and testing on it need.

The parts (train, test and so on) are told from each other by the sources named, by folders with
such names, or by ``split`` in ``metadata.json``; what two parts share is a leak.
"""

from __future__ import annotations

import contextlib
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Mapping, Optional, Sequence, Set, Tuple

import numpy as np

from ...errors import DataError, FormatError, UsageError
from ...quantize.dataset import FAKE, REAL
from ...quantize.gate import Limits
from .faults import Examination, Fault, Kind, shell, sorted_faults
from .layout import Entry, Inventory, take_inventory
from .links import groups, shared
from .metadata import METADATA, Metadata, Video, read_metadata
from .parcel import Journal
from .probing import Seen, probe
from .shelf import FolderShelf, Shelf, open_shelf
from .work import work

SPLIT_NAMES = frozenset({
    "train", "training", "val", "valid", "validation", "dev", "development", "test", "testing",
    "eval", "evaluation", "holdout", "calib", "calibration",
})  # fmt: skip
"""Folders of these names are parts."""

BYS = ("auto", "source", "folder", "metadata", "none")


@dataclass(frozen=True)
class CheckOptions:
    """How a data set is looked at.

    Attributes:
        by: one of ``BYS``: how parts are told from each other.
        deep: decodes every frame of videos.
        bits: hash bits in which near-duplicates may differ.
        label_share: least share of the rarer label.

    Raises:
        UsageError: ``by`` is something else.
    """

    by: str = "auto"
    deep: bool = False
    bits: int = Limits().duplicate_bits
    label_share: float = Limits().label_share

    def __post_init__(self) -> None:
        if self.by not in BYS:
            raise UsageError(
                "Parts cannot be told so", repr(self.by), f"one of {', '.join(BYS)}"
            )  # fmt: skip


@dataclass(frozen=True)
class _Held:
    """One file with all that is known of it."""

    entry: Entry
    part: str
    video: Optional[Video]


def check(
    sources: Sequence[str],
    options: CheckOptions,
    jobs: int = 1,
    journal: Optional[Path] = None,
    identities: Optional[Mapping[str, Sequence[str]]] = None,
    advance: Callable[[int, int], None] = lambda done, total: None,
) -> Examination:
    """Looks at every file.

    Args:
        sources: folders and tars, each ``PATH`` or ``PART=PATH``.
        options: how.
        jobs: files at a time.
        journal: what was seen is kept here, so that a later call need not look again.
        identities: people by video, beside those in ``metadata.json``.
        advance: told how many files are done, of how many.

    Raises:
        MissingError: a source is not there.
        DataError: there is nothing to look at.
        UsageError: the journal was written with other settings.
    """
    with contextlib.ExitStack() as stack:
        named = [_named(source) for source in sources]
        shelves = [stack.enter_context(open_shelf(path)) for _, path in named]
        faults: List[Fault] = []
        own: List[Tuple[Shelf, Metadata]] = []
        for shelf in shelves:
            faults += [Fault(Kind.PLACE, shelf.text, note) for note in shelf.notes]
            if shelf.damaged:
                faults.append(Fault(Kind.TRUNCATED, shelf.text, "; ".join(shelf.notes)))
            try:
                own.append((shelf, read_metadata([shelf])))
            except FormatError as error:
                faults.append(
                    Fault(Kind.BAD_METADATA, shelf.text, f"{error.cause}: {error.evidence}")
                )
                own.append((shelf, Metadata()))
        union = Metadata()
        for _, one in own:
            union.conflicts += one.conflicts
            for video in one.videos.values():
                union.put(video)
        for one in (union, *(metadata for _, metadata in own)):
            one.identify(identities or {})
        inventory = take_inventory(shelves, union)
        if not inventory.entries:
            raise DataError(
                f"There are no crops and no videos in {', '.join(sources)}",
                f"{sum(len(shelf.names) for shelf in shelves)} other files",
                "crops are in a folder crops/, see the example of: deepfake-fpga data check --help",
            )
        held, by = _parts(inventory, shelves, named, dict(enumerate(own)), options.by)
        seen, resumed = _probe_all(held, options, jobs, journal, advance)
        faults += [Fault(Kind.CONFLICT, name, both) for name, both in union.conflicts]
        faults += _leaks(held, own)
        faults += _copies(held, seen, options)
        faults += _files(held, seen)
        faults += _words(held, inventory, bool(union.videos))
        faults += _balance(held, options)
        parts: Dict[str, Dict[str, int]] = {}
        for file in held:
            label = (file.video.label if file.video is not None else None) or "unknown"
            count = parts.setdefault(file.part, {})
            count[label] = count.get(label, 0) + 1
        return Examination(
            list(sources), parts, by, len(held), sorted_faults(faults), resumed
        )  # fmt: skip


def _named(source: str) -> Tuple[str, str]:
    """``PART=PATH`` or ``PATH``; a path that is there is taken as it is."""
    name, equals, path = source.partition("=")
    if equals and not Path(source).exists() and re.fullmatch(r"[\w.-]+", name):
        return name, path
    return "", source


def _parts(
    inventory: Inventory,
    shelves: Sequence[Shelf],
    named: Sequence[Tuple[str, str]],
    own: Mapping[int, Tuple[Shelf, Metadata]],
    by: str,
) -> Tuple[List[_Held], str]:
    """Every file with its part, and how the parts were told."""
    reason = f"asked for with --parts-by {by}"
    tops = {entry.part.split("/")[0].lower() for entry in inventory.entries}
    splits = {video.split for video in inventory.metadata.videos.values() if video.split}
    if by == "auto":
        if len(shelves) > 1:
            by, reason = "source", "several sources were named"
        elif len(tops) > 1 and tops <= SPLIT_NAMES:
            by, reason = "folder", "the folders have such names"
        elif len(splits) > 1:
            by, reason = "metadata", f"split in {METADATA} has several values"
        else:
            by, reason = "none", "nothing tells parts from each other"
    names: Dict[int, str] = {}
    for number, (shelf, (name, path)) in enumerate(zip(shelves, named)):
        text = name or Path(path).name or path
        names[id(shelf)] = text if text not in names.values() else f"{text} ({number + 1})"
    metadata = {id(shelf): one for shelf, one in own.values()}
    held = []
    for entry in inventory.entries:
        shelf, written = entry.place.shelf, metadata[id(entry.place.shelf)]
        folder = shelf.path(entry.part) if entry.part else shelf.text
        video = (
            written.inside.get((folder, entry.video))
            or written.videos.get(entry.video)
            or inventory.metadata.videos.get(entry.video)
        )
        part = "all"
        if by == "source":
            part = names[id(entry.place.shelf)]
        elif by == "folder":
            part = entry.part.split("/")[0] or "."
        elif by == "metadata":
            part = (video.split if video is not None else None) or "without split"
        held.append(_Held(entry, part, video))
    if by == "source":  # in the order in which they were named
        order = {id(shelf): number for number, shelf in enumerate(shelves)}
        held.sort(key=lambda one: order[id(one.entry.place.shelf)])
    return held, f"{by}: {reason}"


def _probe_all(
    held: Sequence[_Held],
    options: CheckOptions,
    jobs: int,
    path: Optional[Path],
    advance: Callable[[int, int], None],
) -> Tuple[Dict[str, Seen], int]:
    entries = [one.entry for one in held]
    stamps: Dict[str, str] = {}
    sizes: Dict[str, int] = {}
    for entry in entries:
        stamps[entry.place.path], sizes[entry.place.path] = _stamp(entry)
    often = Counter(sizes.values())
    found: Dict[str, Seen] = {}

    def look(entry: Entry) -> Seen:
        return probe(entry, often[sizes[entry.place.path]] > 1, options.deep)

    with contextlib.ExitStack() as stack:
        journal = None
        if path is not None:
            settings = {"what": "data check", "deep": options.deep}
            journal = stack.enter_context(Journal(path, settings))
            for entry in entries:
                name = entry.place.path
                line = journal.done.get(name)
                if line is None or line["stamp"] != stamps[name]:
                    continue
                if often[sizes[name]] == 1 or "sha256" in line["seen"]:
                    found[name] = line["seen"]
        resumed = len(found)
        rest = [entry for entry in entries if entry.place.path not in found]
        advance(resumed, len(entries))
        for entry, seen in work(rest, look, jobs):
            name = entry.place.path
            found[name] = seen
            if journal is not None:
                journal.add({"video": name, "stamp": stamps[name], "seen": seen})
            advance(len(found), len(entries))
    return found, resumed


def _stamp(entry: Entry) -> Tuple[str, int]:
    places = [entry.place] if entry.mask is None else [entry.place, entry.mask]
    try:
        stamp = " ".join(place.shelf.stamp(place.name) for place in places)
        return stamp, entry.place.shelf.size(entry.place.name)
    except OSError:  # a link that leads nowhere; the probe says so
        return "", -1


def _leaks(held: Sequence[_Held], own: Sequence[Tuple[Shelf, Metadata]]) -> Iterator[Fault]:
    """Videos, originals and people in more than one part."""
    parts: Dict[str, Dict[str, Video]] = {}
    for one in held:
        video = one.video or Video(one.entry.video)
        parts.setdefault(one.part, {})[one.entry.video] = video
    kinds = {
        "video": Kind.LEAK_VIDEO, "original": Kind.LEAK_ORIGINAL, "identity": Kind.LEAK_IDENTITY,
    }  # fmt: skip
    tied: Set[Tuple[str, str]] = set()
    for first, second, kind, name, ours, theirs in shared(
        {part: list(videos.values()) for part, videos in parts.items()}
    ):
        detail = f"{first}: {_some(ours)}; {second}: {_some(theirs)}"
        tied.update((first, video) for video in ours)
        tied.update((second, video) for video in theirs)
        yield Fault(kinds[kind], name, detail)
    # Ties of several steps, by way of videos that have no files here.
    where = {video.stem: part for part, videos in parts.items() for video in videos.values()}
    everything: Dict[str, Video] = {}
    for _, metadata in own:
        everything.update(metadata.videos)
    for videos in parts.values():
        everything.update(videos)
    for group in groups(everything.values()):
        inside: Dict[str, List[str]] = {}
        for video in group.videos:
            if video.stem in where:
                inside.setdefault(where[video.stem], []).append(video.name)
        if len(inside) > 1 and not any(
            (part, name) in tied for part, names in inside.items() for name in names
        ):
            detail = "; ".join(f"{part}: {_some(names)}" for part, names in inside.items())
            name = ", ".join((*group.identities, *group.originals))
            yield Fault(Kind.LEAK_IDENTITY, name, f"{detail}, in several steps")


def _copies(
    held: Sequence[_Held], seen: Mapping[str, Seen], options: CheckOptions
) -> Iterator[Fault]:
    """Identical files, and pictures of two parts that look alike."""
    first: Dict[str, _Held] = {}
    same = set()
    for one in held:
        path = one.entry.place.path
        digest = seen[path].get("sha256")
        if digest is None:
            continue
        other = first.setdefault(digest, one)
        if other is not one:
            same.add(path)
            leak = other.part != one.part
            parts = f" ({other.part} and {one.part})" if leak else ""
            yield Fault(
                Kind.LEAK_FILE if leak else Kind.DUPLICATE,
                path,
                f"the same as {other.entry.place.path}{parts}",
                _remove(one.entry),
            )
    by_part: Dict[str, List[Tuple[str, np.ndarray]]] = {}
    for one in held:
        path = one.entry.place.path
        text = seen[path].get("hash")
        if text is not None and path not in same:
            bits = np.unpackbits(np.frombuffer(bytes.fromhex(text), np.uint8))
            by_part.setdefault(one.part, []).append((path, bits))
    names = list(by_part)
    for number, part in enumerate(names):
        for other_part in names[:number]:
            for later, earlier, distance in _alike(
                by_part[part], by_part[other_part], options.bits
            ):
                yield Fault(
                    Kind.LEAK_PICTURE,
                    later,
                    f"looks like {earlier}: {distance} of 256 bits differ "
                    f"({other_part} and {part})",
                )


def _alike(
    ours: Sequence[Tuple[str, np.ndarray]], theirs: Sequence[Tuple[str, np.ndarray]], bits: int
) -> Iterator[Tuple[str, str, int]]:
    """Each of ours that has one of theirs within so many bits, with the nearest."""
    right = np.stack([hashed for _, hashed in theirs]).astype(np.float32) * 2 - 1
    for start in range(0, len(ours), 512):  # memory stays linear
        block = ours[start : start + 512]
        left = np.stack([hashed for _, hashed in block]).astype(np.float32) * 2 - 1
        distances = (left.shape[1] - left @ right.T) / 2
        nearest = distances.argmin(axis=1)
        for row, column in enumerate(nearest):
            distance = int(distances[row, column])
            if distance <= bits:
                yield block[row][0], theirs[int(column)][0], distance


def _files(held: Sequence[_Held], seen: Mapping[str, Seen]) -> Iterator[Fault]:
    """Files that cannot be decoded, and masks that do not fit."""
    for one in held:
        entry = one.entry
        path = entry.place.path
        about = seen[path]
        if about["fault"] is not None:
            kind, detail = about["fault"]
            yield Fault(Kind[kind], path, detail, _remove(entry))
        if not entry.is_crop:
            continue
        label = one.video.label if one.video is not None else None
        if entry.mask is None:
            if label == FAKE:
                yield Fault(Kind.MASK_MISSING, path, f"no masks/{Path(path).stem}.gif")
            continue
        yield from _mask_faults(entry, label, about)


def _mask_faults(entry: Entry, label: Optional[str], about: Seen) -> Iterator[Fault]:
    assert entry.mask is not None
    mask, where = about["mask"], entry.mask.path
    if mask["fault"] is not None:
        yield Fault(Kind.MASK_UNREADABLE, where, mask["fault"][1])
        return
    if about["size"] is not None and mask["size"] != about["size"]:
        sizes = [f"{width}x{height}" for height, width in (mask["size"], about["size"])]
        yield Fault(Kind.MASK_SIZE, where, f"mask {sizes[0]}, picture {sizes[1]}")
    if mask["values"] > 2:
        some = ", ".join(map(str, mask["some"]))
        detail = f"{mask['values']} values ({some}, …); over half of the brightest would count"
        yield Fault(Kind.MASK_VALUES, where, detail)
    if label == REAL and mask["share"] > 0:
        command = _rm(entry.mask.shelf, where)
        yield Fault(Kind.MASK_OF_REAL, where, f"{mask['share']:.1%} is marked", command)
    if label == FAKE and mask["share"] == 0:
        yield Fault(Kind.MASK_EMPTY, where)


def _words(held: Sequence[_Held], inventory: Inventory, described: bool) -> Iterator[Fault]:
    """Names, labels and what metadata.json lacks."""
    if not described:
        folders = dict.fromkeys(
            f"{one.entry.place.shelf.text}/{one.entry.part}".rstrip("/") for one in held
        )
        for folder in folders:
            yield Fault(Kind.NO_METADATA, folder)
    present = set()
    for one in held:
        entry, path = one.entry, one.entry.place.path
        present.add(entry.video)
        if described and one.video is None:
            yield Fault(Kind.NOT_IN_METADATA, path, f"no {entry.video}.mp4")
        name = Path(entry.place.base).stem
        if entry.is_crop and not re.fullmatch(r".+_\d+", name):
            yield Fault(Kind.NAME, path, "it does not end in _<n>", _rename(entry))
        elif entry.is_crop and one.video is not None and name == entry.video:
            yield Fault(Kind.NAME, path, "it is the name of the video itself", _rename(entry))
    for place in inventory.stray:
        yield Fault(Kind.STRAY_MASK, place.path, "", _rm(place.shelf, place.path))
    for stem, video in inventory.metadata.videos.items():
        if video.label not in (REAL, FAKE):
            yield Fault(Kind.LABEL, video.name, f"label {video.label!r}")
        if stem not in present:
            yield Fault(Kind.NO_FILE, video.name)
        elif video.label == FAKE and video.original is None and not video.identities:
            yield Fault(Kind.NO_ORIGINAL, video.name, "leaks by it cannot be found")


def _balance(held: Sequence[_Held], options: CheckOptions) -> Iterator[Fault]:
    parts: Dict[str, Dict[str, int]] = {}
    for one in held:
        label = one.video.label if one.video is not None else None
        if label in (REAL, FAKE):
            count = parts.setdefault(one.part, {REAL: 0, FAKE: 0})
            count[str(label)] += 1
    for part, count in parts.items():
        total = sum(count.values())
        rarer = min(count, key=lambda label: count[label])
        if count[rarer] < options.label_share * total:
            yield Fault(
                Kind.IMBALANCE,
                part,
                f"{count[rarer]} of {total} are {rarer}, at least {options.label_share:.0%} are "
                "needed",
            )


def _remove(entry: Entry) -> str:
    paths = [entry.place.path] + ([] if entry.mask is None else [entry.mask.path])
    return _rm(entry.place.shelf, *paths)


def _rm(shelf: Shelf, *paths: str) -> str:
    return shell("rm", "-f", *paths) if isinstance(shelf, FolderShelf) else ""


def _rename(entry: Entry) -> str:
    path = Path(entry.place.path)
    if not isinstance(entry.place.shelf, FolderShelf):
        return ""
    return shell("mv", str(path), str(path.with_name(f"{path.stem}_0{path.suffix}")))


def _some(names: Sequence[Any], most: int = 3) -> str:
    text = ", ".join(map(str, names[:most]))
    return text + (f" and {len(names) - most} more" if len(names) > most else "")
