"""What a check says, what it is needed for, and how that becomes ok, warn, fail or skipped."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Any, Dict, FrozenSet, Optional, Sequence, Tuple


class Purpose(enum.Enum):
    """What the computer is to be used for."""

    RUN = "run"
    QUANT = "quant"
    COMPILE = "compile"
    CARD = "card"


class State(enum.Enum):
    """The first column of the table."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"
    SKIPPED = "skipped"


def needs(*purposes: Purpose) -> FrozenSet[Purpose]:
    """The purposes that something is needed for."""
    return frozenset(purposes)


EVERYTHING = needs(*Purpose)


@dataclass(frozen=True)
class Finding:
    """What one check saw.

    Attributes:
        name: what was looked at, one to three words.
        good: whether it is as it should be; ``None`` where that is no question on this computer.
        seen: what was seen.
        fix: what to type where it is not good.
        needed: purposes that cannot be had without it; where none is wanted, a warning is enough.
    """

    name: str
    good: Optional[bool]
    seen: str
    fix: str = ""
    needed: FrozenSet[Purpose] = field(default_factory=frozenset)

    def state(self, wanted: FrozenSet[Purpose]) -> State:
        """The state where the computer is wanted for some purposes."""
        if self.good is None:
            return State.SKIPPED
        if self.good:
            return State.OK
        return State.FAIL if self.needed & wanted else State.WARN


@dataclass(frozen=True)
class Line:
    """One line of the table.

    Attributes:
        group: of checks.
        state: see ``Finding.state``.
    """

    group: str
    state: State
    finding: Finding

    def to_json(self) -> Dict[str, Any]:
        """The line for programs."""
        return {
            "group": self.group,
            "check": self.finding.name,
            "state": self.state.value,
            "seen": self.finding.seen,
            "fix": self.finding.fix if self.state in (State.WARN, State.FAIL) else "",
            "needed_for": sorted(purpose.value for purpose in self.finding.needed),
        }


@dataclass(frozen=True)
class Report:
    """Everything that was found.

    Attributes:
        wanted: what the computer is to be used for.
        reason: why that.
        lines: the table.
    """

    wanted: FrozenSet[Purpose]
    reason: str
    lines: Sequence[Line]

    @property
    def failed(self) -> Tuple[Line, ...]:
        """The lines that stand in the way."""
        return tuple(line for line in self.lines if line.state is State.FAIL)

    def count(self, state: State) -> int:
        """How many lines have a state."""
        return sum(line.state is state for line in self.lines)

    def to_json(self) -> Dict[str, Any]:
        """The report for programs."""
        return {
            "ok": not self.failed,
            "wanted_for": [purpose.value for purpose in Purpose if purpose in self.wanted],
            "reason": self.reason,
            "counts": {state.value: self.count(state) for state in State},
            "checks": [line.to_json() for line in self.lines],
        }
