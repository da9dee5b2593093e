"""What can be wrong with a data set, how much that matters, and how it is put right."""

from __future__ import annotations

import enum
import shlex
from dataclasses import dataclass
from typing import Any, Dict, List, NamedTuple, Sequence, Set


class About(NamedTuple):
    """A kind of fault.

    Attributes:
        text: what it is.
        must: whether a training or a test with it is wrong; else it is only worth knowing.
        step: what to do.
    """

    text: str
    must: bool
    step: str


_SPLIT = "divide the whole anew: deepfake-fpga data split {sources} -o FOLDER"
_MASKS = "make them from the videos: deepfake-fpga data masks VIDEOS -o FOLDER"
_METADATA = 'write into metadata.json: {{"<video>.mp4": {{"label": "REAL"}}, ...}}'


class Kind(enum.Enum):
    """What can be wrong, worst first."""

    BAD_METADATA = About("metadata.json that cannot be read", True, "mend the file")
    CONFLICT = About("two entries of one video that differ", True, "mend the wrong one")
    LEAK_VIDEO = About("one video in two parts", True, _SPLIT)
    LEAK_ORIGINAL = About("one original in two parts", True, _SPLIT)
    LEAK_IDENTITY = About("one person in two parts", True, _SPLIT)
    LEAK_FILE = About("identical files in two parts", True, "remove one of each")
    LEAK_PICTURE = About("near-duplicates in two parts", True, "look at them, and remove one side")
    UNREADABLE = About("cannot be decoded", True, "get the file again, or remove it")
    TRUNCATED = About("cut off", True, "get the file again, or remove it")
    DUPLICATE = About("identical files", True, "remove all but one")
    MASK_MISSING = About("FAKE without a mask", True, _MASKS)
    MASK_UNREADABLE = About("mask that cannot be decoded", True, _MASKS)
    MASK_SIZE = About("mask of another size than its picture", True, _MASKS)
    MASK_VALUES = About("mask with more than two values", True, _MASKS)
    MASK_OF_REAL = About("REAL with marked pixels", True, "remove the mask, or mend the label")
    NO_METADATA = About("no metadata.json", True, _METADATA)
    NOT_IN_METADATA = About("not in metadata.json", True, _METADATA)
    LABEL = About("label that is neither REAL nor FAKE", True, _METADATA)
    NAME = About("crop not named <video>_<n>", True, "rename it")
    IMBALANCE = About("REAL and FAKE out of balance", True, "add pictures of the rarer label")
    MASK_EMPTY = About("FAKE with an empty mask", False, "leave such frames out of training")
    STRAY_MASK = About("mask without a picture", False, "remove it")
    NO_FILE = About("in metadata.json, but not there", False, "nothing, if it was left out")
    NO_ORIGINAL = About("FAKE whose original is not named", False, "add original or identity")
    PLACE = About("the place itself", False, "see the note")

    @property
    def key(self) -> str:
        """The name in JSON."""
        return self.name.lower()


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong.

    Attributes:
        kind: what.
        where: the file, or the video's name.
        detail: what was seen.
        command: what would put it right; empty where that takes a decision or other data.
    """

    kind: Kind
    where: str
    detail: str = ""
    command: str = ""

    def to_json(self) -> Dict[str, Any]:
        """A JSON object."""
        return {"where": self.where, "detail": self.detail, "command": self.command}


@dataclass(frozen=True)
class Examination:
    """What was found of a data set.

    Attributes:
        sources: what was looked at.
        parts: files of each label, by part.
        by: how the parts were told from each other, and why.
        files: how many were looked at.
        faults: all of them, worst first.
        resumed: files of which the result of an earlier call was taken.
    """

    sources: List[str]
    parts: Dict[str, Dict[str, int]]
    by: str
    files: int
    faults: List[Fault]
    resumed: int = 0

    @property
    def sound(self) -> bool:
        """Whether nothing must be put right."""
        return not any(fault.kind.value.must for fault in self.faults)

    def of(self, kind: Kind) -> List[Fault]:
        """The faults of one kind."""
        return [fault for fault in self.faults if fault.kind is kind]

    def step(self, kind: Kind) -> str:
        """What to do about a kind, for these sources."""
        paths = [source.partition("=")[2] or source for source in self.sources]
        return kind.value.step.format(sources=" ".join(map(shlex.quote, paths)))

    def to_json(self) -> Dict[str, Any]:
        """A JSON object."""
        kinds = [kind for kind in Kind if self.of(kind)]
        return {
            "sound": self.sound,
            "sources": self.sources,
            "files": self.files,
            "parts": self.parts,
            "parts_by": self.by,
            "faults": {
                kind.key: {
                    "what": kind.value.text,
                    "must_be_fixed": kind.value.must,
                    "count": len(self.of(kind)),
                    "fix": self.step(kind),
                    "found": [fault.to_json() for fault in self.of(kind)],
                }
                for kind in kinds
            },
        }

    def script(self) -> str:
        """A shell script of all commands, each once."""
        lines = ["#!/bin/sh", "# Read this before you run it: it removes and renames files."]
        done: Set[str] = set()
        for kind in Kind:
            commands = dict.fromkeys(fault.command for fault in self.of(kind) if fault.command)
            new = [command for command in commands if command not in done]
            done.update(new)
            if new:
                lines += ["", f"# {kind.value.text}", *new]
        return "\n".join(lines) + "\n"


def shell(*words: str) -> str:
    """A command as one types it."""
    return " ".join(map(shlex.quote, words))


def sorted_faults(faults: Sequence[Fault]) -> List[Fault]:
    """Worst kinds first, each in the order in which they were found."""
    order = {kind: number for number, kind in enumerate(Kind)}
    return sorted(faults, key=lambda fault: order[fault.kind])
