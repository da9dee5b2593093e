"""What a user named, as the files of a collection; or why there is no collection in it."""

from __future__ import annotations

import functools
import itertools
import os
from pathlib import Path
from typing import Dict, Iterator, List, Sequence, Tuple

from ..errors import UsageError
from .journal import Input
from .journal.planning import Listed
from .run import RECORDS, SUMMARY, RunOptions
from .sinks import Format
from .sources import FilesSource, Source, VideoSource
from .sources.content import IMAGE_SUFFIXES

SINGLE = "a single file needs none"


def inputs_of(sources: Sequence[Source], options: RunOptions) -> Tuple[List[Input], str]:
    """The inputs of a collection, or why a run over these sources has no journal.

    Args:
        sources: what the user named.
        options: how it is done.

    Returns:
        The inputs and an empty text, or nothing and the reason.
    """
    if Format.NPY in options.formats:
        return [], f"{Format.NPY.files[0]} is one file over a whole run"
    if options.trace is not None:
        return [], "a timeline is of a whole run"
    inputs = []
    for source in sources:
        if isinstance(source, VideoSource) and not source.live:
            inputs.append(Input(source.name, "video", functools.partial(_one, source.path)))
        elif isinstance(source, FilesSource):
            if source.kind != "video" and not options.selection.all:
                return [], "a selection among images goes through them one after the other"
            inputs.append(Input(source.name, source.kind, functools.partial(_files, source)))
        else:
            return [], f"{source.name} is read in one go"
    listed = itertools.chain.from_iterable(given.files() for given in inputs)
    if len(list(itertools.islice(listed, 2))) < 2:
        return [], SINGLE
    return inputs, ""


class OutputCheck:
    """Refuses a file that could be replaced by what a run writes.

    Args:
        output: the folder of the run.
    """

    def __init__(self, output: Path) -> None:
        self._output = output.resolve()
        self._known: Dict[str, Path] = {}

    def __call__(self, path: str) -> None:
        """Looks at one file.

        Raises:
            UsageError: it could be replaced.
        """
        parent, name = os.path.split(path)
        if parent not in self._known:
            self._known[parent] = Path(parent).resolve()
        folder = self._known[parent]
        written = folder in (self._output / "masks", self._output / "overlays")
        if folder == self._output:
            suffix = os.path.splitext(name)[1].lower()
            overlay = name.startswith("overlay") and suffix not in IMAGE_SUFFIXES
            written = overlay or name in (RECORDS, SUMMARY)
        if written:
            raise UsageError(
                f"Results in {self._output} could replace what is read from {path}",
                "masks/, overlays/ and overlay-*.mp4 are written there",
                "choose another -o",
            )


def _one(path: Path) -> Iterator[Listed]:
    yield "video", str(path)


def _files(source: FilesSource) -> Iterator[Listed]:
    """The files of a source; what is not surely an image is a block of its own."""
    for name in source.files():
        path = str(Path(name))
        suffix = os.path.splitext(path)[1].lower()
        image = source.kind == "images" or (source.kind == "mixed" and suffix in IMAGE_SUFFIXES)
        yield "image" if image else "video", path
