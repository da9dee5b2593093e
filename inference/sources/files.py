"""Files as a source: one, a folder, a glob pattern or a text list; images and videos alike.

Where they are few enough they come in natural order (``face_2`` before ``face_10``). A file that
cannot be opened or decoded is recorded as such and the rest goes on.
"""

from __future__ import annotations

import functools
import glob
import itertools
import os
from pathlib import Path
from typing import AbstractSet, Iterable, Iterator, List, Tuple

from ...errors import MissingError, ToolkitError, UsageError
from .base import Collection, Read, lost
from .content import HEAD, IMAGE_SUFFIXES, VIDEO_SUFFIXES, Content, recognise
from .images import read_image
from .listing import Names, in_folder, in_list, matching
from .video import open_video

PICTURES = IMAGE_SUFFIXES | VIDEO_SUFFIXES


class FilesSource(Collection):
    """Image and video files.

    Args:
        name: what the user named.
        names: the files.
        place: the folder or file that was read for the names.
    """

    def __init__(self, name: str, names: Names, place: Path) -> None:
        super().__init__(name)
        self._names, self._place = names, place
        self.kind = "mixed"
        if names.note:
            self.notes.append(names.note)
        if names.held is not None:
            suffixes = {os.path.splitext(path)[1].lower() for path in names.held}
            if suffixes <= IMAGE_SUFFIXES:
                self.kind, self.length = "images", len(names.held)
            elif suffixes <= VIDEO_SUFFIXES:
                self.kind = "video"

    def reads(self) -> Iterator[Read]:
        """One call per image, in which all its work is done; videos are opened on the way."""
        for name in self._names:
            yield from read_file(self, name)

    def files(self) -> Iterator[str]:
        """The names of the files, in the order in which they are read; may be called again."""
        return iter(self._names)

    def places(self) -> Iterable[Path]:
        """The files, if they are held; else what was named."""
        return [self._place] if self._names.held is None else map(Path, self._names.held)


def read_file(source: Collection, name: str) -> Iterator[Read]:
    """The frames of one file, whatever it is, as part of ``source``."""
    suffix = os.path.splitext(name)[1].lower()
    # Where only videos were named a GIF is one.
    if suffix in IMAGE_SUFFIXES and source.kind != "video":
        yield functools.partial(read_image, name)
        return
    path = Path(name)
    if suffix not in PICTURES:
        try:
            content, how = of_file(path)
        except OSError as error:
            yield lost(str(path), error.strerror or str(error))
            return
        if content is Content.ARCHIVE:
            yield lost(str(path), f"an archive ({how}); give it as an input of its own")
            return
        if content is not Content.VIDEO:
            yield functools.partial(read_image, name)
            return
    try:
        video = open_video(str(path))
    except ToolkitError as error:
        yield lost(str(path), f"{error.cause}: {error.evidence}" if error.evidence else error.cause)
        return
    yield from source.read_part(video)


def of_file(path: Path) -> Tuple[Content, str]:
    """What a file holds, and how that was seen.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        return recognise(file.read(HEAD), path.name)


def open_images(text: str) -> FilesSource:
    """The images that a path or a pattern names.

    Args:
        text: an image file, a folder (its image files, not those of its subfolders), or a glob
            pattern (``**`` descends).

    Raises:
        MissingError: nothing is there.
        UsageError: what is there holds no image.
    """
    path = Path(text)
    if path.is_dir():
        return open_folder(text, IMAGE_SUFFIXES)
    if path.is_file():
        if path.suffix.lower() in VIDEO_SUFFIXES:
            raise UsageError(
                f"{text} is a video", "--images takes pictures", f"use: --video {text}"
            )
        return one_image(text)
    if not glob.has_magic(text):
        raise MissingError(f"{text} does not exist", "", "check the path given to --images")
    return open_pattern(text, IMAGE_SUFFIXES)


def one_image(text: str) -> FilesSource:
    """An image file, whatever its suffix."""
    source = FilesSource(text, Names(lambda: iter([str(Path(text))])), Path(text))
    source.kind, source.length = "images", 1
    return source


def one_of_many(text: str) -> FilesSource:
    """A video file that is opened when its turn comes, so that a bad one does not stop the rest.

    Raises:
        MissingError: there is no such file.
        UsageError: it is a folder.
    """
    path = Path(text)
    if path.is_dir():
        raise UsageError(f"{text} is a folder", "--video takes one file", "name the file")
    if not path.is_file():
        raise MissingError(f"The video {text} does not exist", "", "check the path")
    source = FilesSource(text, Names(lambda: iter([str(path)])), path)
    source.kind = "video"
    return source


def open_folder(text: str, suffixes: AbstractSet[str] = PICTURES) -> FilesSource:
    """The files of a folder that have one of the suffixes, not those of its subfolders.

    Raises:
        UsageError: there are none, or the folder cannot be read.
    """
    folder = str(Path(text))
    try:
        names = Names(lambda: _only(in_folder(folder), suffixes))
    except OSError as error:
        raise UsageError(
            f"The folder {text} cannot be read", error.strerror or "", "check its permissions"
        ) from error
    if names.held == []:
        raise _nothing_in(Path(text), suffixes)
    return FilesSource(text, names, Path(text))


def open_pattern(text: str, suffixes: AbstractSet[str] = PICTURES) -> FilesSource:
    """The files that match a glob pattern and have one of the suffixes.

    Raises:
        MissingError: there are none.
    """
    names = Names(lambda: _only(matching(text), suffixes))
    if names.held == []:
        files = sum(1 for _ in matching(text))
        kind, option = _words(suffixes)
        raise MissingError(
            f"No {kind} matches {text}",
            f"{files} files match, none with the suffix of an {kind}" if files else "no match",
            f"check the pattern given to {option}, and quote it",
        )
    return FilesSource(text, names, Path(_before_magic(text)))


def open_list(text: str) -> FilesSource:
    """The files named in a text file, in its order, relative to its folder.

    Raises:
        UsageError: it names none, or none of the first ones is there.
    """
    path = str(Path(text))
    names = Names(lambda: in_list(path), ordered=True)
    first = names.some(20)
    if not any(os.path.isfile(name) for name in first):
        seen = f"the first is {first[0]}" if first else "no line names a file"
        raise UsageError(
            f"{text} is a text file, but no list of images or videos",
            f"{seen}; none of its first lines is a file" if first else seen,
            "put one path on each line, relative to the folder of the list",
        )
    return FilesSource(text, names, Path(text))


def _only(names: Iterator[str], suffixes: AbstractSet[str]) -> Iterator[str]:
    return (name for name in names if os.path.splitext(name)[1].lower() in suffixes)


def _words(suffixes: AbstractSet[str]) -> Tuple[str, str]:
    if suffixes is IMAGE_SUFFIXES:
        return "image", "--images"
    return "image or video", "--input"


def _before_magic(text: str) -> str:
    parts: List[str] = []
    for part in Path(text).parts:
        if glob.has_magic(part):
            break
        parts.append(part)
    return os.path.join(*parts) if parts else os.curdir


def _nothing_in(folder: Path, suffixes: AbstractSet[str]) -> UsageError:
    """Says what is in a folder instead, from the first of its entries."""
    kind, option = _words(suffixes)
    with os.scandir(str(folder)) as found:
        entries = sorted(entry.name for entry in itertools.islice(found, 10_000))
    folders = [name for name in entries if (folder / name).is_dir()]
    videos = [name for name in entries if Path(name).suffix.lower() in VIDEO_SUFFIXES]
    next_step = f"name a folder that holds {kind.replace(' or ', 's or ')}s"
    if "crops" in folders:
        next_step = f"use: {option} {folder / 'crops'}"
    elif videos:
        next_step = f"use: --video {folder / videos[0]}"
    elif folders:
        next_step = f"use a pattern that descends: {option} '{folder}/**/*.png'"
    return UsageError(
        f"The folder {folder} holds no {kind.replace(' or ', 's or ')}s",
        f"{len(entries)} entries, none with the suffix of an {kind}",
        next_step,
    )
