"""File names from a folder, a pattern or a text list, however many: walked, never held whole.

Up to ``SORTED`` names are held and sorted naturally (``face_2`` before ``face_10``). Where there
are more, they come as the file system gives them, and a note says so.
"""

from __future__ import annotations

import fnmatch
import glob
import itertools
import os
import re
from typing import Any, Callable, Iterator, List, Optional, Tuple

SORTED = 50_000
"""So many names are held, to be sorted; more are taken as they come."""


class Names:
    """Names that can be walked again and again.

    Args:
        walk: starts a walk.
        ordered: whether the walk has an order of its own, as a text list has.
        limit: how many are held; ``SORTED`` if not given.

    Attributes:
        held: all names in their order, if there are no more than the limit; else ``None``.
        note: what is to be said of the order; empty where there is nothing to say.
    """

    def __init__(
        self,
        walk: Callable[[], Iterator[str]],
        *,
        ordered: bool = False,
        limit: Optional[int] = None,
    ) -> None:
        self._walk = walk
        limit = SORTED if limit is None else limit
        first = list(itertools.islice(walk(), limit + 1))
        self.held: Optional[List[str]] = None
        self.note = ""
        if len(first) <= limit:
            self.held = first if ordered else sorted(first, key=natural_key)
        elif not ordered:
            self.note = f"more than {limit} files: read in the folder's own order, not sorted"

    def __iter__(self) -> Iterator[str]:
        return self._walk() if self.held is None else iter(self.held)

    def some(self, count: int) -> List[str]:
        """The first names."""
        return list(itertools.islice(self, count))


def natural_key(path: str) -> Tuple[Any, ...]:
    """Sorts by folder, then by name with its numbers as numbers; names as such break ties."""
    folder, name = os.path.split(path)
    return (_split(folder), _split(name), name)


def in_folder(folder: str) -> Iterator[str]:
    """The files of a folder, not those of its subfolders."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if _is_file(entry):
                yield os.path.join(folder, entry.name)


def matching(pattern: str) -> Iterator[str]:
    """The files a glob pattern names, as ``glob.glob`` does with ``recursive``, one by one."""
    anchor, rest = os.path.splitdrive(pattern)
    parts = [part for part in rest.split(os.sep) if part]
    start = anchor + os.sep if rest.startswith(os.sep) else anchor
    return _expand(start, parts)


def in_list(path: str) -> Iterator[str]:
    """The entries of a text list, one per line; ``#`` begins a comment line.

    Relative names are taken from the list's own folder.
    """
    folder = os.path.dirname(path)
    with open(path, encoding="utf-8", errors="surrogateescape") as lines:
        yield from entries(lines, folder)


def entries(lines: Iterator[str], folder: str) -> Iterator[str]:
    """The names in lines of text, without comments and empty lines."""
    for line in lines:
        name = line.strip("\r\n\ufeff\x00 \t")
        if name and not name.startswith("#"):
            yield os.path.join(folder, os.path.expanduser(name))


def _expand(base: str, parts: List[str]) -> Iterator[str]:
    if not parts:
        if os.path.isfile(base):
            yield base
        return
    head, rest = parts[0], parts[1:]
    if head == "**":
        while rest and rest[0] == "**":
            rest = rest[1:]
        # A pattern that ends in ** means everything below.
        yield from _expand(base, rest or ["*"])
        for name in _folders(base):
            yield from _expand(os.path.join(base, name), ["**", *rest])
    elif not glob.has_magic(head):
        path = os.path.join(base, head)
        if os.path.lexists(path):
            yield from _expand(path, rest)
    else:
        wanted = re.compile(fnmatch.translate(os.path.normcase(head))).match
        hidden = head.startswith(".")
        for entry in _scan(base):
            if entry.name.startswith(".") and not hidden:
                continue
            if not wanted(os.path.normcase(entry.name)):
                continue
            path = os.path.join(base, entry.name)
            if rest:
                if _is_folder(entry):
                    yield from _expand(path, rest)
            elif _is_file(entry):
                yield path


def _folders(base: str) -> Iterator[str]:
    for entry in _scan(base):
        # A link to a folder is not followed: it may lead round in a circle.
        if not entry.name.startswith(".") and _is_folder(entry) and not entry.is_symlink():
            yield entry.name


def _scan(base: str) -> Iterator[Any]:
    try:
        with os.scandir(base or os.curdir) as found:
            yield from found
    except OSError:
        return  # no folder, or none that may be read: nothing matches there


def _is_file(entry: Any) -> bool:
    try:
        return bool(entry.is_file())
    except OSError:
        return False


def _is_folder(entry: Any) -> bool:
    try:
        return bool(entry.is_dir())
    except OSError:
        return False


def _split(text: str) -> List[Any]:
    # Alternates text and number, so that two keys never compare the one with the other.
    parts = re.split(r"([0-9]+)", text.lower())
    return [int(part) if place % 2 else part for place, part in enumerate(parts)]
