"""Groups of videos dealt out to train, validation and test: whole, balanced, the same each time."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Dict, List, Mapping, Sequence, Tuple

from ...errors import DataError, UsageError
from .links import Group

Weights = Mapping[str, int]
"""Video (stem) to how many pictures it has; 1 where videos themselves are dealt out."""

ROUNDS = 20
"""Passes over all groups in search of better places; most end after three."""

USUAL = (("train", 0.8), ("validation", 0.1), ("test", 0.1))


@dataclass(frozen=True)
class Part:
    """One part of a division.

    Attributes:
        name: ``train`` and so on.
        wanted: share of the pictures of each label it should have.
        groups: what it got.
    """

    name: str
    wanted: float
    groups: Tuple[Group, ...]


def shares(text: str) -> Tuple[Tuple[str, float], ...]:
    """Reads ``train=80,validation=10,test=10``; the numbers are brought to a sum of 1.

    Raises:
        UsageError: it is not that.
    """
    wrong = UsageError(
        "The parts cannot be understood", repr(text), "write --parts train=80,validation=10,test=10"
    )
    found: Dict[str, float] = {}
    for piece in text.split(","):
        name, _, number = piece.strip().partition("=")
        try:
            value = float(number)
        except ValueError:
            raise wrong from None
        usable = name and not set(name) & set("/\\:\0") and not name.startswith(".")
        if not usable or name in found or not 0 < value < 1e9:
            raise wrong
        found[name] = value
    if len(found) < 2:
        raise wrong
    return tuple((name, value / sum(found.values())) for name, value in found.items())


def divide(
    held: Sequence[Group], weights: Weights, parts: Sequence[Tuple[str, float]], seed: int = 0
) -> List[Part]:
    """Deals groups out so that each part has its share of every label and of all pictures.

    The largest group comes first and goes where it leaves the least squared error; then single
    groups are moved as long as that helps. Equal groups come in an order that the seed decides;
    nothing else is by chance.

    Raises:
        DataError: there are fewer groups than parts.
    """
    if len(held) < len(parts):
        raise DataError(
            "The videos cannot be divided: too many show the same faces",
            f"{len(held)} groups that belong together, {len(parts)} parts",
            "add videos of other people, or ask for fewer parts with --parts",
        )
    order = list(range(len(held)))
    random.Random(seed).shuffle(order)
    table = _Table(held, weights, parts)
    for number in sorted(order, key=lambda n: -table.sizes[n]):
        table.put(number, min(range(len(parts)), key=lambda part: table.cost(number, part)))
    table.fill_empty()
    for _ in range(ROUNDS):
        if not table.improve():
            break
    dealt: List[List[Group]] = [[] for _ in parts]
    for group, place in zip(held, table.place):
        dealt[place].append(group)
    return [Part(name, share, tuple(got)) for (name, share), got in zip(parts, dealt)]


class _Table:
    """Where each group is, and how far that is from what is wanted."""

    def __init__(
        self, held: Sequence[Group], weights: Weights, parts: Sequence[Tuple[str, float]]
    ) -> None:
        labels = sorted({video.label or "" for group in held for video in group.videos})
        columns = {label: number for number, label in enumerate(labels)}
        self.counts: List[List[int]] = []
        for group in held:
            row = [0] * (len(labels) + 1)
            for video in group.videos:
                weight = weights.get(video.stem, 1)
                row[columns[video.label or ""]] += weight
                row[-1] += weight
            self.counts.append(row)
        self.sizes = [row[-1] for row in self.counts]
        totals = [max(1, sum(column)) for column in zip(*self.counts)]
        self.wanted = [[share * total for total in totals] for _, share in parts]
        self.scale = [1.0 / total**2 for total in totals]
        self.have = [[0] * len(totals) for _ in parts]
        self.place = [-1] * len(held)

    def cost(self, number: int, part: int, sign: int = 1) -> float:
        """How much the error grows if a group comes to a part (or leaves it)."""
        change = 0.0
        rows = (self.counts[number], self.have[part], self.wanted[part], self.scale)
        for count, have, wanted, scale in zip(*rows):
            change += scale * sign * count * (sign * count + 2 * (have - wanted))
        return change

    def put(self, number: int, part: int) -> None:
        """Moves a group."""
        before = self.place[number]
        for column, count in enumerate(self.counts[number]):
            if before >= 0:
                self.have[before][column] -= count
            self.have[part][column] += count
        self.place[number] = part

    def fill_empty(self) -> None:
        """Gives every part at least one group, the smallest of the part that has the most."""
        for part in range(len(self.have)):
            if part not in self.place:
                richest = max(set(self.place), key=lambda p: (self.place.count(p), -p))
                inside = [n for n, place in enumerate(self.place) if place == richest]
                self.put(min(inside, key=lambda n: (self.sizes[n], n)), part)

    def improve(self) -> bool:
        """One pass over all groups; whether anything became better."""
        better = False
        members = [self.place.count(part) for part in range(len(self.have))]
        for number, place in enumerate(self.place):
            if members[place] == 1:
                continue
            leaving = self.cost(number, place, -1)
            costs = [
                leaving + self.cost(number, part) if part != place else 0.0
                for part in range(len(self.have))
            ]
            part = min(range(len(costs)), key=lambda p: costs[p])
            if costs[part] < -1e-12:
                self.put(number, part)
                members[place] -= 1
                members[part] += 1
                better = True
        return better
