"""Whether a calibration can be trusted: its pictures before, what it did to the tensors after.

A finding is not a line in a log: it stops the stage, until the data are put right or the user says
``--force``. Numpy only, so that pictures can be judged where torch is not.
"""

from __future__ import annotations

import enum
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

import numpy as np

from ..errors import DataError
from .dataset import FAKE, REAL, Batch

FEWEST_IMAGES = 8
HASH_SIDE = 16
"""Brightness is compared on 16 rows of 17 cells: 256 bits."""


class Check(enum.Enum):
    """What is checked."""

    TOO_FEW = "too few images"
    SOURCE = "one source dominates"
    DUPLICATES = "near-duplicates"
    BALANCE = "REAL and FAKE out of balance"
    SATURATION = "saturation"
    UNFILLED = "tensors that were never filled"


@dataclass(frozen=True)
class Limits:
    """The bounds of the gate, each with its reason.

    Attributes:
        fewest_images: a batch casts one vote on every fix position, and eight pictures are one
            batch; below that the positions are those of single pictures. ``--force`` does not
            override it, since the quantizer itself refuses fewer.
        source_share: share of pictures from one video. Beyond a half that video alone has the
            majority of the votes, so that its light, skin and codec decide every fix position.
        duplicate_bits: two pictures are near-duplicates when so many of the 256 bits of their
            brightness hashes differ, or fewer. The same crop saved as JPEG of quality 30 to 95
            differs in 0 to 12, neighbouring frames of a video in about 15, crops from random
            moments of one video rarely in fewer than 35, crops of different people in 50 and more.
        duplicate_share: share of pictures that repeat an earlier one. A repeated picture votes
            again without adding any value that was not seen; from a quarter on a set is clearly
            smaller than it looks.
        label_share: share of the rarer of REAL and FAKE. With less than a twelfth of the
            pictures, most batches of eight hold none of them and they have no vote; a tenth keeps
            clear of that.
        saturated_share: share of a tensor's values that were clipped. The search for fix
            positions gives up some extremes for a finer step: at most 0.0015 on trained and
            most untrained U-YNets. Several times that means that batches disagree on the range.
        saturated_few: the same for a tensor of fewer than ``few_values`` per picture. A batch of
            eight pictures has eight classifier results, so the search weighs each heavily and
            gives up one for the others: 0.04 on the shipped model, whose surest verdicts are
            clipped at a probability of 0.9997.
        few_values: see ``saturated_few``.
        filled_codes: the largest code a tensor must have reached. Below 8 of 127 four of seven
            bits are never used, and rounding noise is within 30 dB of the largest value; 0 is a
            tensor that was zero on every picture.
    """

    fewest_images: int = FEWEST_IMAGES
    source_share: float = 0.5
    duplicate_bits: int = 12
    duplicate_share: float = 0.25
    label_share: float = 0.1
    saturated_share: float = 0.01
    saturated_few: float = 0.125
    few_values: int = 100
    filled_codes: float = 8.0


@dataclass(frozen=True)
class Finding:
    """One reason not to trust a calibration.

    Attributes:
        check: what was checked.
        evidence: what was seen and what the limit is.
        next_step: what to do about it.
        value: the number that was judged (the worst where there are several).
        limit: what it was judged by.
        where: sources or tensors it is about, to their numbers.
        final: ``--force`` does not override it.
    """

    check: Check
    evidence: str
    next_step: str
    value: float
    limit: float
    where: Mapping[str, float] = field(default_factory=dict)
    final: bool = False

    def to_json(self) -> Dict[str, Any]:
        """A JSON object, numbers rounded to six digits."""
        return {
            "check": self.check.value,
            "evidence": self.evidence,
            "next_step": self.next_step,
            "value": round(self.value, 6),
            "limit": self.limit,
            "where": {name: round(number, 6) for name, number in self.where.items()},
        }


class Census:
    """What a calibration's pictures are, counted as batches of them pass.

    Attributes:
        images: how many could be read.
        sources: pictures of each video; empty where the videos are not known.
        labels: pictures of each label; only those that have one.
    """

    def __init__(self) -> None:
        self.images = 0
        self.sources: Counter[str] = Counter()
        self.labels: Counter[str] = Counter()
        self._names: List[str] = []
        self._hashes: List[np.ndarray] = []

    def add(self, batch: Batch) -> None:
        """Counts a batch."""
        self.images += len(batch.items)
        # In a plain folder every picture is its own "video", which says nothing.
        self.sources.update(item.video for item in batch.items if item.video != item.image.stem)
        self.labels.update(item.label for item in batch.items if item.label is not None)
        self._names += [item.image.name for item in batch.items]
        self._hashes.append(brightness_hash(batch.images))

    def duplicates(self, bits: int) -> List[Tuple[str, str]]:
        """Pictures that repeat an earlier one, each with the first such, by name."""
        if not self._hashes:
            return []
        return [
            (self._names[later], self._names[first])
            for later, first in near_duplicates(np.concatenate(self._hashes), bits)
        ]

    def findings(self, limits: Optional[Limits] = None) -> List[Finding]:
        """What speaks against calibrating on these pictures; empty where nothing does."""
        limits = limits or Limits()
        found = [
            self._too_few(limits),
            self._one_source(limits),
            self._repeated(limits),
            self._imbalance(limits),
        ]
        return [finding for finding in found if finding is not None]

    def to_json(self) -> Dict[str, Any]:
        """What was counted, as a JSON object."""
        return {
            "images": self.images,
            "sources": len(self.sources) or None,
            "largest_source": max(self.sources.values(), default=None),
            "labels": dict(sorted(self.labels.items())),
            "near_duplicates": len(self.duplicates(Limits().duplicate_bits)),
        }

    def _too_few(self, limits: Limits) -> Optional[Finding]:
        if self.images >= limits.fewest_images:
            return None
        return Finding(
            Check.TOO_FEW,
            f"{self.images} usable, at least {limits.fewest_images} are needed",
            "give more pictures like those the model will see; 100 to 1000 are usual",
            self.images,
            limits.fewest_images,
            final=True,
        )

    def _one_source(self, limits: Limits) -> Optional[Finding]:
        total = sum(self.sources.values())
        if not total:
            return None
        name, count = self.sources.most_common(1)[0]
        share = count / total
        if share <= limits.source_share:
            return None
        return Finding(
            Check.SOURCE,
            f"{count} of {total} pictures are from the video {name}, that is {share:.0%}, at most "
            f"{limits.source_share:.0%} are allowed",
            f"add pictures of other videos, or remove some of {name}; --subset spreads evenly",
            share,
            limits.source_share,
            {name: share},
        )

    def _repeated(self, limits: Limits) -> Optional[Finding]:
        pairs = self.duplicates(limits.duplicate_bits)
        share = len(pairs) / max(self.images, 1)
        if share <= limits.duplicate_share:
            return None
        later, first = pairs[0]
        return Finding(
            Check.DUPLICATES,
            f"{len(pairs)} of {self.images} pictures look like an earlier one, that is "
            f"{share:.0%}, at most {limits.duplicate_share:.0%} are allowed; {later} looks like "
            f"{first}",
            "take frames further apart, from more videos",
            share,
            limits.duplicate_share,
        )

    def _imbalance(self, limits: Limits) -> Optional[Finding]:
        total = sum(self.labels.values())
        if not total:
            return None
        shares = {label: self.labels[label] / total for label in (REAL, FAKE)}
        rarer = min(shares, key=lambda label: shares[label])
        if shares[rarer] >= limits.label_share:
            return None
        return Finding(
            Check.BALANCE,
            f"{self.labels[rarer]} of {total} labelled pictures are {rarer}, that is "
            f"{shares[rarer]:.0%}, at least {limits.label_share:.0%} are needed",
            f"add {rarer} pictures; --subset takes as many of each label where it can",
            shares[rarer],
            limits.label_share,
            shares,
        )


def tensor_findings(
    saturation: Mapping[str, float],
    peaks: Mapping[str, float],
    sizes: Mapping[str, int],
    limits: Optional[Limits] = None,
) -> List[Finding]:
    """What speaks against a calibration that was made.

    Args:
        saturation: tensor name to the share of its values that were clipped.
        peaks: tensor name to the largest magnitude seen, in codes of its fix position.
        sizes: tensor name to its values per picture; without one a tensor counts as large.
        limits: the bounds.
    """
    limits = limits or Limits()
    found = []
    few = {name for name, size in sizes.items() if size < limits.few_values}
    clipped = {
        name: share
        for name, share in saturation.items()
        if share > (limits.saturated_few if name in few else limits.saturated_share)
    }
    if clipped:
        worst = max(clipped, key=lambda name: clipped[name])
        found.append(
            Finding(
                Check.SATURATION,
                f"more than {limits.saturated_share:.0%} of the values (of tensors with few, "
                f"{limits.saturated_few:.1%}) are clipped in {_named(clipped, True, '{:.1%}')}",
                "give more and more varied pictures, or larger batches, so that every batch meets "
                "the range",
                clipped[worst],
                limits.saturated_few if worst in few else limits.saturated_share,
                clipped,
            )
        )
    empty = {n: v for n, v in peaks.items() if v < limits.filled_codes}
    if empty:
        found.append(
            Finding(
                Check.UNFILLED,
                f"the largest code stays below {limits.filled_codes:g} of 127 in "
                f"{_named(empty, False, '{:.1f}')} (0 is zero on every picture)",
                "give pictures that resemble the training data; if they do, these layers of the "
                "checkpoint are dead",
                min(empty.values()),
                limits.filled_codes,
                empty,
            )
        )
    return found


def refuse(findings: Sequence[Finding], force: bool, context: str = "") -> None:
    """Stops where findings stand against the calibration.

    Args:
        findings: what was found.
        force: let all pass but the final ones.
        context: more that was seen, such as unreadable pictures.

    Raises:
        DataError: with every finding, its evidence and what to do.
    """
    standing = [f for f in findings if f.final or not force]
    if not standing:
        return
    count = len(standing)
    cause = f"The calibration cannot be trusted: {', '.join(f.check.value for f in standing)}"
    evidence = "; ".join(f.evidence if count == 1 else f"({n}) {f.evidence}"
                         for n, f in enumerate(standing, 1))  # fmt: skip
    steps = "; ".join(f.next_step if count == 1 else f"({n}) {f.next_step}"
                      for n, f in enumerate(standing, 1))  # fmt: skip
    if not any(f.final for f in standing):
        steps += "; or --force, which the manifest records"
    raise DataError(cause, f"{evidence}; {context}" if context else evidence, steps)


def brightness_hash(images: np.ndarray) -> np.ndarray:
    """A difference hash: whether each cell of a coarse grid is brighter than its left neighbour.

    Light, contrast, compression and size hardly change it; another picture changes half of it.

    Args:
        images: uint8 ``[N, H, W, 3]``, at least 17 pixels each way.

    Returns:
        bool ``[N, 256]``.
    """
    grey = np.asarray(images, np.float32).sum(axis=3)
    rows = np.arange(HASH_SIDE) * grey.shape[1] // HASH_SIDE
    columns = np.arange(HASH_SIDE + 1) * grey.shape[2] // (HASH_SIDE + 1)
    cells = np.add.reduceat(np.add.reduceat(grey, rows, axis=1), columns, axis=2)
    # Columns of a cell may differ by one; without the mean, a flat picture would have edges.
    cells /= np.diff(np.append(columns, grey.shape[2]))
    brighter: np.ndarray = cells[:, :, 1:] > cells[:, :, :-1]
    return brighter.reshape(len(grey), -1)


def near_duplicates(hashes: np.ndarray, bits: int) -> List[Tuple[int, int]]:
    """``(later, first)`` for every picture that has an earlier one at most ``bits`` away.

    Args:
        hashes: bool ``[N, B]``.
        bits: largest Hamming distance.
    """
    signs = np.where(hashes, np.float32(1), np.float32(-1))
    pairs = []
    block = 512  # rows at a time: memory stays linear in N
    for start in range(0, len(signs), block):
        part = signs[start : start + block]
        distance = (signs.shape[1] - part @ signs[: start + len(part)].T) / 2
        for row, line in enumerate(distance):
            close = np.flatnonzero(line[: start + row] <= bits)
            if close.size:
                pairs.append((start + row, int(close[0])))
    return pairs


def _named(numbers: Mapping[str, float], largest: bool, form: str, shown: int = 3) -> str:
    order = sorted(numbers, key=lambda name: numbers[name], reverse=largest)
    text = ", ".join(f"{name} ({form.format(numbers[name])})" for name in order[:shown])
    return text + (f" and {len(order) - shown} more" if len(order) > shown else "")
