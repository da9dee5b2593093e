"""What is measured on: labelled videos, as face crops with masks or as video files.

Two layouts are read: that of the quantizer (``crops/``, ``masks/``, ``metadata.json``), and that of
DFDC, videos with a ``metadata.json`` beside them, also in folders one level down.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Set, Tuple

from ...errors import DataError, FormatError, MissingError, UnsupportedError
from ...files import sha256
from ...inference.corpus.links import groups
from ...inference.corpus.metadata import METADATA, Metadata
from ...inference.ffmpeg import load_av
from ...quantize.dataset import FAKE, REAL, read_dataset

LEVEL = re.compile(r"(?:^|[/_.-])(raw|c0|c23|c40|crf\d+)(?=$|[/_.-])", re.IGNORECASE)
"""A compression level in the name of a file or folder, as FaceForensics++ writes it."""


@dataclass(frozen=True)
class Clip:
    """One video, the unit that is resampled.

    Attributes:
        name: without suffix; with its folder's name before it where there are several folders.
        fake: whether it is labelled FAKE.
        files: its crops in order, or the one video file.
        masks: one per crop; ``None`` where there is none.
        video: whether ``files`` is a video.
        facts: what metadata and names tell of it (``source``, ``compression``, ...), for breakdown.
        group: which faces it shows, the same for all videos tied together by people and originals
            (``inference.corpus.links``); empty for crops.
        frames: how many frames to expect; ``None`` where the file does not say.
    """

    name: str
    fake: bool
    files: Tuple[Path, ...]
    masks: Tuple[Optional[Path], ...] = ()
    video: bool = False
    facts: Mapping[str, str] = field(default_factory=dict)
    group: str = ""
    frames: Optional[int] = None


@dataclass(frozen=True)
class Material:
    """Labelled videos in a fixed order.

    Attributes:
        name: the folders, as named.
        clips: in order.
        digest: SHA-256 over names, labels and the content of every file.
        notes: what could not be used, in words.
    """

    name: str
    clips: Tuple[Clip, ...]
    digest: str
    notes: Tuple[str, ...] = ()

    @property
    def videos(self) -> bool:
        """Whether these are video files, not crops."""
        return any(clip.video for clip in self.clips)


def read_material(
    folders: Sequence[Path],
    subset: Optional[int] = None,
    seed: int = 0,
    on_file: Callable[[int, Optional[int]], None] = lambda done, total: None,
) -> Material:
    """Lists the labelled videos of one or more folders and takes their digest.

    Args:
        folders: each in one of the two layouts.
        subset: so many videos only, labels in equal parts where possible.
        seed: of the choice.
        on_file: called with files digested and files in all.

    Raises:
        MissingError: a folder or its labels are not there.
        FormatError: ``metadata.json`` cannot be read.
        DataError: nothing labelled is in them.
    """
    clips: List[Clip] = []
    notes: List[str] = []
    told = Metadata()
    for folder in folders:
        if not folder.is_dir():
            raise MissingError(f"The data folder {folder} does not exist", "", "check --data")
        crops = (folder / "crops").is_dir()
        found, remarks = _crops(folder) if crops else _videos(folder, told)
        if len(folders) > 1:
            found = [_within(folder.name, clip) for clip in found]
        clips += found
        notes += remarks
    names = [clip.name for clip in clips]
    twice = next((name for name in names if names.count(name) > 1), None) if clips else None
    if twice is not None:
        raise DataError(
            f"Two videos are called {twice}", "they could not be told apart", "rename one of them"
        )
    if not clips:
        raise DataError(
            f"No labelled video is in {', '.join(map(str, folders))}",
            "; ".join(notes) or f"{METADATA} names none",
            'metadata.json wants {"<video>.mp4": {"label": "REAL" or "FAKE"}, ...}',
        )
    if len({clip.video for clip in clips}) > 1:
        raise DataError(
            "Crops and videos cannot be measured together",
            ", ".join(map(str, folders)),
            "measure them one after the other",
        )
    clips = _grouped(clips, told)
    if subset is not None and subset < len(clips):
        clips = _chosen(clips, subset, seed)
    return Material(
        ", ".join(map(str, folders)), tuple(clips), _digest(clips, on_file), tuple(notes)
    )


def read_metadata(path: Path) -> Dict[str, Dict[str, Any]]:
    """The entries of a ``metadata.json``.

    Raises:
        FormatError: it is not an object of objects.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return {str(name): dict(entry) for name, entry in content.items()}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise FormatError(
            f"The labels in {path} cannot be read",
            f"{type(error).__name__}: {error}",
            'write {"<video>.mp4": {"label": "REAL"}, ...}',
        ) from error


def _crops(folder: Path) -> Tuple[List[Clip], List[str]]:
    dataset = read_dataset(folder)
    if dataset.unlabelled:
        raise MissingError(
            f"The data folder {folder} has no labels",
            dataset.unlabelled,
            f"eval needs {folder / METADATA}",
        )
    entries = {_stem(name): entry for name, entry in read_metadata(folder / METADATA).items()}
    held: Dict[str, List[Any]] = {}
    for item in dataset.items:
        if item.label is not None:
            held.setdefault(item.video, []).append(item)
    clips = [
        Clip(
            name,
            items[0].label == FAKE,
            tuple(item.image for item in items),
            tuple(item.mask for item in items),
            facts=_facts(entries.get(name, {}), name),
            frames=len(items),
        )
        for name, items in held.items()
    ]
    return clips, [f"{count} x {kind}" for kind, count in dataset.problem_counts.items()]


def _videos(folder: Path, told: Metadata) -> Tuple[List[Clip], List[str]]:
    tables = [folder / METADATA] if (folder / METADATA).is_file() else []
    tables = tables or sorted(folder.glob(f"*/{METADATA}"))
    if not tables:
        raise MissingError(
            f"The data folder {folder} has no labels",
            f"neither crops/ nor {METADATA} is in it or one level below",
            'eval needs metadata.json: {"<video>.mp4": {"label": "REAL" or "FAKE"}, ...}',
        )
    clips: List[Clip] = []
    lacking, unlabelled = 0, 0
    for table in tables:
        place = table.parent
        entries = read_metadata(table)
        told.add(table.read_bytes(), str(table), str(place))
        for name, entry in entries.items():
            path = place / name
            if entry.get("label") not in (REAL, FAKE):
                unlabelled += 1
            elif not path.is_file():
                lacking += 1
            else:
                facts = _facts(entry, str(path.relative_to(folder)))
                frames, density = _header(path)
                if density:
                    facts.setdefault("bits_per_pixel", density)
                clip = Clip(
                    _stem(name), entry["label"] == FAKE, (path,), video=True, facts=facts,
                    frames=frames,
                )  # fmt: skip
                clips.append(_within(place.name, clip) if place != folder else clip)
    notes = [f"{lacking} videos of {METADATA} are not there"] if lacking else []
    if unlabelled:
        notes.append(f"{unlabelled} entries of {METADATA} have neither REAL nor FAKE")
    return clips, notes


def _facts(entry: Mapping[str, Any], place: str) -> Dict[str, str]:
    facts = {
        key: f"{value:g}" if isinstance(value, float) else str(value)
        for key, value in entry.items()
        if key not in ("label", "original") and isinstance(value, (str, int, float))
    }
    level = LEVEL.search(place.replace("\\", "/").rsplit(".", 1)[0])
    if level and "compression" not in facts:
        facts["compression"] = level.group(1).lower()
    return facts


def _grouped(clips: Sequence[Clip], told: Metadata) -> List[Clip]:
    """The clips with the groups of those that are videos, over all folders."""
    labels = {
        video.stem: group.label for group in groups(told.inside.values()) for video in group.videos
    }
    return [replace(c, group=labels[c.files[0].stem]) if c.video else c for c in clips]


def _header(path: Path) -> Tuple[Optional[int], str]:
    """Frames and bits per pixel of a video by its header; nothing where that does not tell."""
    try:
        av = load_av()
    except UnsupportedError:
        return None, ""
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            frames = int(stream.frames)
            pixels = stream.codec_context.width * stream.codec_context.height * frames
    except (av.error.FFmpegError, OSError, ValueError, IndexError, AttributeError):
        return None, ""
    return frames or None, f"{8 * path.stat().st_size / pixels:.4g}" if pixels else ""


def _within(folder: str, clip: Clip) -> Clip:
    facts = {**clip.facts}
    facts.setdefault("source", folder)
    return replace(clip, name=f"{folder}/{clip.name}", facts=facts)


def _chosen(clips: Sequence[Clip], count: int, seed: int) -> List[Clip]:
    choose = random.Random(seed)
    queues = [[clip for clip in clips if clip.fake == fake] for fake in (False, True)]
    for queue in queues:
        choose.shuffle(queue)
    kept: Set[str] = set()
    while len(kept) < count:
        queues = [queue for queue in queues if queue]
        for queue in queues[: count - len(kept)]:
            kept.add(queue.pop().name)
    return [clip for clip in clips if clip.name in kept]


def _digest(clips: Sequence[Clip], on_file: Callable[[int, Optional[int]], None]) -> str:
    digest = hashlib.sha256()
    total, done = sum(len(clip.files) for clip in clips), 0
    for clip in clips:
        digest.update(json.dumps([clip.name, clip.fake, len(clip.files)]).encode())
        for place, path in enumerate(clip.files):
            mask = clip.masks[place] if clip.masks else None
            entry = [path.name, sha256(path), None if mask is None else sha256(mask)]
            digest.update(json.dumps(entry).encode())
            done += 1
            on_file(done, total)
    return digest.hexdigest()


def _stem(name: str) -> str:
    return name.rsplit(".", 1)[0] if "." in name else name
