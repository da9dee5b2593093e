"""Which videos show the same face: the groups that no split may take apart.

Two videos belong together if one was made of the other, if both were made of the same one, or if
they name the same person; and so on through any number of steps. An original counts although it
is not in the data set itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict, Iterable, List, Sequence, Tuple

from ..sources.listing import natural_key
from .metadata import Video


@dataclass(frozen=True)
class Group:
    """Videos that show the same faces.

    Attributes:
        videos: in natural order of their names.
        originals: stems of the originals that tie them together, in the data set or not.
        identities: the people named.
    """

    videos: Tuple[Video, ...]
    originals: Tuple[str, ...]
    identities: Tuple[str, ...]

    @property
    def name(self) -> str:
        """The first video's stem."""
        return self.videos[0].stem

    @property
    def label(self) -> str:
        """A person named in them, else an original, else the first video's stem."""
        return (*self.identities, *self.originals, self.name)[0]


def groups(videos: Iterable[Video]) -> List[Group]:
    """The connected components of videos, originals and people, in order of their first video."""
    held = sorted(videos, key=lambda video: natural_key(video.name))
    forest = _Forest()
    for video in held:
        forest.root(_node(video))
        for other in _nodes(video)[1:]:
            forest.join(_node(video), other)
    members: Dict[str, List[Video]] = {}
    for video in held:
        members.setdefault(forest.root(_node(video)), []).append(video)
    return [_group(part) for part in members.values()]


def shared(
    parts: Dict[str, Sequence[Video]],
) -> List[Tuple[str, str, str, str, List[str], List[str]]]:
    """What ties videos of two parts together: the leaks.

    Unlike ``groups`` this compares plain sets, so that the one can prove the other.

    Returns:
        Part, other part, kind (``video``, ``original``, ``identity``), its name, and the videos
        of each part that have it.
    """
    found = []
    names = list(parts)
    holders = {name: _holders(videos) for name, videos in parts.items()}
    for number, one in enumerate(names):
        for other in names[number + 1 :]:
            for key in sorted(set(holders[one]) & set(holders[other])):
                kind, _, name = key.partition(":")
                ours, theirs = holders[one][key], holders[other][key]
                both_there = all("self" in dict(sides) for sides in (ours, theirs))
                if kind == "video" and not both_there:
                    kind = "original"
                found.append(
                    (one, other, kind, name, [v for _, v in ours], [v for _, v in theirs])
                )  # fmt: skip
    return found


def _holders(videos: Sequence[Video]) -> Dict[str, List[Tuple[str, str]]]:
    holders: Dict[str, List[Tuple[str, str]]] = {}
    for video in videos:
        for number, node in enumerate(_nodes(video)):
            role = "self" if number == 0 else "made of"
            holders.setdefault(node, []).append((role, video.name))
    return holders


def _node(video: Video) -> str:
    return f"video:{video.stem}"


def _nodes(video: Video) -> List[str]:
    nodes = [_node(video)]
    if video.original is not None:
        nodes.append(f"video:{video.original}")
    return nodes + [f"identity:{name}" for name in video.identities]


def _group(videos: Sequence[Video]) -> Group:
    originals = dict.fromkeys(v.original for v in videos if v.original is not None)
    people = dict.fromkeys(name for video in videos for name in video.identities)
    return Group(tuple(videos), tuple(sorted(originals)), tuple(sorted(people)))


class _Forest:
    """Disjoint sets, each a tree to its root."""

    def __init__(self) -> None:
        self._parent: Dict[str, str] = {}

    def root(self, node: str) -> str:
        path = []
        parent = self._parent
        while parent.setdefault(node, node) != node:
            path.append(node)
            node = parent[node]
        for passed in path:
            parent[passed] = node
        return node

    def join(self, one: str, other: str) -> None:
        one, other = self.root(one), self.root(other)
        if one != other:
            self._parent[other] = one
