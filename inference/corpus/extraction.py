"""Crops and masks of a whole data set of videos, in the layout the quantizer reads.

Where only crops are wanted and there are no videos, photographs are cut instead.

::

    crops/<video>_<n>.png   the face
    masks/<video>_<n>.gif   what differs from the original; empty for a REAL video
    metadata.json           as in the source, of the videos that gave crops
    videos.jsonl            settings, then for each video its frames, boxes and numbers, or why not
    data.json               what was taken, how, and what was left out

A video that cannot be used is left out with the reason; the others are done.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Callable, Dict, Iterable, List, Mapping, Optional, Sequence

from ... import __version__
from ...errors import DataError, ToolkitError, UsageError
from ...preprocessing import Image, Preprocessing
from ...quantize.dataset import FAKE, REAL
from ...quantize.pictures import IMAGE_SUFFIXES
from ..faces import FaceFinder
from ..sources.content import VIDEO_SUFFIXES
from ..sources.listing import natural_key
from .cutting import CropOptions, Cutting, cut_video
from .gif import gif_bytes
from .layout import Place
from .metadata import METADATA, Metadata, Video, read_metadata, stem
from .parcel import Journal, Parcel
from .shelf import Shelf
from .work import work

MOST_NOTES = 100
"""Notes about single videos that are repeated for the whole; all are in ``JOURNAL``."""

JOURNAL = "videos.jsonl"
MANIFEST = "data.json"


@dataclass(frozen=True)
class Job:
    """One video to be done.

    Attributes:
        place: its file.
        video: what is written about it; ``None`` where nothing is.
        original: the file of its original, where that is needed.
        refused: why it cannot be done; empty where it can.
    """

    place: Place
    video: Optional[Video]
    original: Optional[Place] = None
    refused: str = ""

    @property
    def stem(self) -> str:
        """What the names of its crops begin with."""
        return stem(self.place.name)

    @property
    def stamp(self) -> str:
        """Changes when the video or its original does."""
        places = [place for place in (self.place, self.original) if place is not None]
        try:
            return " ".join(place.shelf.stamp(place.name) for place in places)
        except OSError:  # a link that leads nowhere; reading it says so
            return ""


@dataclass
class Extraction:
    """What came of a whole data set.

    Attributes:
        target: the folder or tar.
        videos: how many there are.
        done: how many gave crops.
        resumed: how many of those were done before.
        crops: how many crops there are.
        labels: crops of each label.
        faces: how faces were found and why so, to the number of videos.
        skipped: video to why it gave none.
        notes: what else is to be known.
    """

    target: Path
    videos: int = 0
    done: int = 0
    resumed: int = 0
    crops: int = 0
    labels: Dict[str, int] = field(default_factory=dict)
    faces: Dict[str, int] = field(default_factory=dict)
    skipped: Dict[str, str] = field(default_factory=dict)
    notes: List[str] = field(default_factory=list)

    def to_json(self) -> Dict[str, Any]:
        """A JSON object."""
        return dict(asdict(self), target=str(self.target))


def list_jobs(shelves: Sequence[Shelf], metadata: Metadata, masks: bool) -> List[Job]:
    """The videos of a data set in their order, each with its original where that is needed.

    Without masks and without any video they are the photographs there.

    Raises:
        DataError: there is nothing to cut.
    """
    places = _places(shelves, VIDEO_SUFFIXES)
    if not places and not masks:
        places = _places(shelves, IMAGE_SUFFIXES)
    if not places:
        raise DataError(
            f"There are no videos in {', '.join(shelf.text for shelf in shelves)}",
            f"{sum(len(shelf.names) for shelf in shelves)} other files",
            f"give a folder or tar with videos and their {METADATA}"
            + ("" if masks else ", or with photographs"),
        )
    places.sort(key=lambda place: natural_key(place.path))
    first: Dict[str, Place] = {}
    for place in places:
        first.setdefault(stem(place.name), place)
    return [_job(place, first, metadata, masks) for place in places]


def extract(
    shelves: Sequence[Shelf],
    target: Path,
    options: CropOptions,
    jobs: int = 1,
    metadata_file: Optional[Path] = None,
    advance: Callable[[int, int], None] = lambda done, total: None,
    say: Callable[[str], None] = lambda text: None,
) -> Extraction:
    """Does all videos of a data set; what an earlier, interrupted call has done is kept.

    Args:
        shelves: where the videos are.
        target: folder or tar.
        options: what is taken.
        jobs: videos at a time.
        metadata_file: read instead of those in the data set.
        advance: told how many videos are done, of how many.
        say: told what was chosen for single videos, and what was left out and why.

    Raises:
        DataError: there is no video.
        UsageError: the target was written with other settings, or is not to be overwritten.
        WorkError: the target cannot be written.
    """
    metadata = read_metadata(shelves, metadata_file)
    todo = list_jobs(shelves, metadata, options.masks)
    FaceFinder(options.faces, Preprocessing())  # a detector that cannot be used is said at once
    parcel = Parcel(target)
    if (parcel.folder / "crops").exists() and not (parcel.folder / JOURNAL).exists():
        raise UsageError(f"{target} holds other crops", "", "name another folder")
    result = Extraction(target, len(todo), notes=[n for shelf in shelves for n in shelf.notes])
    if not metadata.videos:
        result.notes.append(f"there is no {METADATA}: the crops have no labels")
    result.notes += [
        f"{name} stands in two {METADATA}: that in {ours} counts, not that in {theirs}"
        for name, ours, theirs in metadata.twice
    ]
    settings = {"sources": [shelf.text for shelf in shelves], **options.to_json()}
    with Journal(parcel.folder / JOURNAL, settings) as journal:
        rest = [job for job in todo if not _is_done(job, journal, parcel)]
        done = result.resumed = len(todo) - len(rest)
        if done:
            say(f"{done} of {len(todo)} videos were done before")
        advance(done, len(todo))
        for job, line in work(rest, lambda job: _do(job, parcel, options), jobs):
            _remove(parcel, journal.done.get(job.place.path), line)
            journal.add(line)
            done += 1
            advance(done, len(todo))
            for note in line["notes"]:
                say(f"{job.place.path}: {note}")
            if line["skipped"]:
                say(f"{job.place.path} is left out: {line['skipped']}")
    _conclude(result, parcel, todo, journal.done, options)
    return result


def _places(shelves: Sequence[Shelf], suffixes: Iterable[str]) -> List[Place]:
    return [
        Place(shelf, name)
        for shelf in shelves
        for name in shelf.names
        if PurePosixPath(name).suffix.lower() in suffixes
    ]


def _job(place: Place, first: Mapping[str, Place], metadata: Metadata, masks: bool) -> Job:
    name = stem(place.name)
    video = metadata.videos.get(name)
    if first[name] is not place:
        return Job(place, video, refused=f"{first[name].path} has the same name")
    if video is None and metadata.videos:
        return Job(place, video, refused=f"it is not in {METADATA}")
    if not masks:
        return Job(place, video)
    if video is None or video.label not in (REAL, FAKE):
        seen = "not known" if video is None or video.label is None else repr(video.label)
        return Job(place, video, refused=f"its label is {seen}; REAL or FAKE is needed")
    if video.label == REAL:
        return Job(place, video)
    if video.original is None:
        return Job(place, video, refused=f"{METADATA} names no original of it")
    if video.original not in first:
        return Job(place, video, refused=f"its original {video.original} is not among the videos")
    return Job(place, video, first[video.original])


def _is_done(job: Job, journal: Journal, parcel: Parcel) -> bool:
    line = journal.done.get(job.place.path)
    if not line or line["skipped"] or line["stamp"] != job.stamp:
        return False
    return all((parcel.folder / name).is_file() for name in _files(line))


def _do(job: Job, parcel: Parcel, options: CropOptions) -> Dict[str, Any]:
    """One video: writes its crops and masks, and gives its line of the journal."""
    line: Dict[str, Any] = {
        "video": job.place.path, "stamp": job.stamp, "skipped": job.refused, "notes": [],
        "crops": [],
    }  # fmt: skip
    if job.refused:
        return line
    import cv2

    try:
        cutting = _cut(job, options)
    except (ToolkitError, OSError, ValueError, MemoryError, cv2.error) as error:
        line["skipped"] = _words(error)
        return line
    for number, crop in enumerate(cutting.crops):
        about = {"crop": f"crops/{job.stem}_{number}.png", **crop.about}
        parcel.write(about["crop"], _png(crop.picture))
        if crop.mask is not None:
            about["mask"] = f"masks/{job.stem}_{number}.gif"
            parcel.write(about["mask"], gif_bytes(crop.mask))
        line["crops"].append(about)
    line["notes"], line["faces"] = cutting.notes, cutting.faces
    return line


def _cut(job: Job, options: CropOptions) -> Cutting:
    with contextlib.ExitStack() as stack:
        path = stack.enter_context(job.place.shelf.file(job.place.name))
        original = None
        if job.original is not None:
            original = stack.enter_context(job.original.shelf.file(job.original.name))
        fake = job.video is not None and job.video.label == FAKE
        return cut_video(path, job.place.name, options, fake, original)


def _remove(parcel: Parcel, before: Optional[Mapping[str, Any]], now: Mapping[str, Any]) -> None:
    """Removes what an earlier call wrote of a video that has changed since."""
    if before is not None:
        for name in set(_files(before)) - set(_files(now)):
            with contextlib.suppress(FileNotFoundError):
                (parcel.folder / name).unlink()


def _conclude(
    result: Extraction,
    parcel: Parcel,
    todo: Sequence[Job],
    lines: Mapping[str, Mapping[str, Any]],
    options: CropOptions,
) -> None:
    """Writes what is to be said about the whole, then the tar."""
    records: Dict[str, Any] = {}
    labels: Dict[str, int] = Counter()
    for job in todo:
        line = lines[job.place.path]
        if line["skipped"]:
            result.skipped[job.place.path] = line["skipped"]
            continue
        result.done += 1
        result.crops += len(line["crops"])
        result.faces[line["faces"]] = result.faces.get(line["faces"], 0) + 1
        if job.video is not None:
            records[job.video.name] = dict(job.video.record)
            labels[job.video.label or "unknown"] += len(line["crops"])
    result.labels = dict(sorted(labels.items()))
    said = _said({job.place.path: lines[job.place.path]["notes"] for job in todo})
    result.notes += said[:MOST_NOTES]
    if len(said) > MOST_NOTES:
        result.notes.append(f"{len(said) - MOST_NOTES} more notes are in {JOURNAL}")
    if records:
        parcel.write_json(METADATA, records)
    about = {"version": __version__, "options": options.to_json(), **result.to_json()}
    parcel.write_json(MANIFEST, about)
    parcel.finish()


def _said(notes: Mapping[str, Sequence[str]]) -> List[str]:
    """The notes of all videos, each once, with the video or with how many say the same."""
    videos: Dict[str, List[str]] = {}
    for name, found in notes.items():
        for note in dict.fromkeys(found):
            videos.setdefault(note, []).append(name)
    return [
        f"{names[0]}: {note}" if len(names) == 1 else f"{len(names)} videos: {note}"
        for note, names in videos.items()
    ]


def _files(line: Mapping[str, Any]) -> List[str]:
    return [crop[kind] for crop in line["crops"] for kind in ("crop", "mask") if kind in crop]


def _words(error: BaseException) -> str:
    if isinstance(error, ToolkitError):
        return f"{error.cause}: {error.evidence}" if error.evidence else error.cause
    return f"{type(error).__name__}: {error}"


def _png(picture: Image) -> bytes:
    import cv2

    ok, data = cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    if not ok:
        raise ValueError("the crop cannot be encoded")
    return bytes(data.tobytes())
