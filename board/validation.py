"""What ``xbutil validate`` found out: the state of every test, in all forms the tool has had.

The status with which the tool ends says nothing certain, so the verdict comes from its words; a
test that was begun and has no state counts as not passed.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass, replace
from typing import Dict, List, Optional, Tuple

from .health import user_function
from .tools import ToolOutput, run_tool

TIMEOUT = 300.0
"""Seconds; a whole validation of a well card takes one or two minutes."""


class TestState(enum.Enum):
    """How one test ended."""

    __test__ = False  # not for pytest

    PASSED = "PASSED"
    WARNED = "PASSED WITH WARNINGS"
    SKIPPED = "SKIPPED"
    FAILED = "FAILED"
    UNFINISHED = "UNFINISHED"
    UNKNOWN = "UNKNOWN"


_BAD = (TestState.FAILED, TestState.UNFINISHED, TestState.UNKNOWN)


@dataclass(frozen=True)
class CardTest:
    """One test.

    Attributes:
        name: as the tool calls it in this release.
        state: how it ended; ``UNFINISHED`` where no state was printed, ``UNKNOWN`` for a word
            this package does not know.
        said: the word printed.
        bdf: of the card; empty in the legacy form.
        details: what was measured or why it was skipped.
        warnings: what goes with "with warnings", and errors.
    """

    name: str
    state: TestState
    said: str = ""
    bdf: str = ""
    details: Tuple[str, ...] = ()
    warnings: Tuple[str, ...] = ()


@dataclass(frozen=True)
class Validation:
    """One run of the tool.

    Attributes:
        tests: in order.
        shell, sc_version: as printed, empty where not.
        remarks: what else it said that matters (banners).
        ending: how the program ended, in words; empty for a text that was only read.
        timed_out: whether it was killed at its time limit.
        declared_failed: the tool itself called the whole a failure.
    """

    tests: Tuple[CardTest, ...]
    shell: str = ""
    sc_version: str = ""
    remarks: Tuple[str, ...] = ()
    ending: str = ""
    timed_out: bool = False
    declared_failed: bool = False

    @property
    def passed(self) -> bool:
        """Whether the card may be used: something passed and nothing failed or hung."""
        return not self.reasons

    @property
    def reasons(self) -> Tuple[str, ...]:
        """Why it did not pass; empty if it did."""
        reasons = [f"{t.name}: {t.state.value}" for t in self.tests if t.state in _BAD]
        if self.timed_out:
            reasons.append(self.ending)
        if self.declared_failed and not reasons:
            reasons.append("the tool says that validation failed")
        good = (TestState.PASSED, TestState.WARNED)
        if not any(t.state in good for t in self.tests) and not reasons:
            reasons.append("no test passed" if self.tests else "no test was run")
        return tuple(reasons)

    def count(self, state: TestState) -> int:
        """How many tests ended so."""
        return sum(test.state is state for test in self.tests)


def run_validation(
    bdf: Optional[str] = None, quick: bool = False, timeout: float = TIMEOUT
) -> Validation:
    """Runs ``xbutil validate`` and reads it; what a hung one had printed is kept.

    Args:
        bdf: PCI address of either function; ``None`` for all cards.
        quick: only the short tests, where the tool can choose.
        timeout: seconds until it is killed.

    Raises:
        MissingError: ``xbutil`` is not there.
        DeviceError: it cannot be started.
    """
    device = [] if bdf is None else ["-d", user_function(bdf)]
    output = run_tool("xbutil", ["validate", *device, *(["-r", "quick"] if quick else [])], timeout)
    found = parse_validation(output.text)
    if quick and not found.tests and not output.timed_out and output.status != 0:
        # The legacy tool has no -r.
        output = run_tool("xbutil", ["validate", *device], timeout)
        found = parse_validation(output.text)
    return _ended(found, output)


def parse_validation(said: str) -> Validation:
    """Reads the text of ``xbutil validate``: the current, the verbose or the legacy form."""
    said = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", said).replace("\r", "\n")
    if re.search(r"(?m)^INFO: == ", said):
        return _legacy(said)
    return _current(said)


def _ended(found: Validation, output: ToolOutput) -> Validation:
    remarks = found.remarks
    if not found.tests and output.last_words:
        remarks = (*remarks, output.last_words)
    return replace(found, ending=output.ending, timed_out=output.timed_out, remarks=remarks)


def _state(word: str) -> TestState:
    word = " ".join(word.upper().split())
    if word == "PASSED WITH WARNING":  # the legacy tool's way
        return TestState.WARNED
    for state in (TestState.PASSED, TestState.WARNED, TestState.SKIPPED, TestState.FAILED):
        if word == state.value:
            return state
    return TestState.UNKNOWN


_TEST = re.compile(r"^\s*Test\s+\d+\s+\[([^\]]*)\]\s*:\s*(.*?)\s*$")
_LABEL = re.compile(r"^\s*([A-Z][A-Za-z() ]*?)\s*:\s(?:\s*)(.*?)\s*$|^\s*([A-Z][A-Za-z() ]*?)\s*:$")
_LABELS = ("details", "warning", "error", "description", "test status", "xclbin", "testcase")


def _current(said: str) -> Validation:
    tests: List[CardTest] = []
    head: Dict[str, str] = {}
    remarks: List[str] = []
    block: Optional[Dict[str, List[str]]] = None
    name, bdf, label = "", "", ""

    def close() -> None:
        if block is not None:
            tests.append(_test(name, bdf, block))

    for line in said.splitlines():
        start = _TEST.match(line)
        if start:
            close()
            bdf, name, label, block = start.group(1), start.group(2), "", {}
            continue
        words = line.strip()
        if not words or set(words) <= set("-"):
            continue
        key, value = _labelled(line)
        if block is None:
            if key in ("platform", "sc version"):
                head.setdefault(key, value)
            elif words.startswith("*") and words.strip("* "):
                remarks.append(" ".join(words.strip("* ").split()))
        elif words.lower().startswith(("validation ", "validate device")):
            close()
            block = None
        elif key.startswith(_LABELS):
            label = key
            block.setdefault(label, []).append(value)
        elif label and label != "test status":
            block[label].append(words)
    close()
    return Validation(
        tuple(tests),
        head.get("platform", ""),
        head.get("sc version", ""),
        tuple(remarks),
        declared_failed=re.search(r"(?mi)^\s*validation failed", said) is not None,
    )


def _labelled(line: str) -> Tuple[str, str]:
    match = _LABEL.match(line)
    if match is None:
        return "", ""
    return (match.group(1) or match.group(3)).lower(), match.group(2) or ""


def _test(name: str, bdf: str, block: Dict[str, List[str]]) -> CardTest:
    def lines(*labels: str) -> Tuple[str, ...]:
        return tuple(
            line for key, found in block.items() if key.startswith(labels) for line in found if line
        )

    status = lines("test status")
    word = status[-1].strip("[] ") if status else ""
    return CardTest(
        name,
        _state(word) if status else TestState.UNFINISHED,
        word,
        bdf,
        lines("details"),
        lines("warning", "error"),
    )


def _legacy(said: str) -> Validation:
    tests: List[CardTest] = []
    name: Optional[str] = None
    details: List[str] = []

    def close(word: str) -> None:
        nonlocal name, details
        if name is not None:
            state = _state(word) if word else TestState.UNFINISHED
            if not word and details and "skipping validation" in details[-1].lower():
                # The words are there, the line with the state is cut off.
                state, word = TestState.SKIPPED, TestState.SKIPPED.value
            tests.append(CardTest(name, state, word, details=tuple(details)))
        name, details = None, []

    for line in said.splitlines():
        start = re.match(r"^\s*INFO: == Starting (.*?):?\s*$", line)
        end = re.match(r"^\s*(?:INFO|WARN|WARNING|ERROR): == (.*?)\s*$", line)
        if start:
            close("")
            name = start.group(1)
        elif end and name is not None and end.group(1).startswith(name + " "):
            close(end.group(1)[len(name) + 1 :])
        elif name is not None and line.strip(" .`"):
            details.append(line.strip().lstrip("."))
    close("")
    shell = re.search(r"(?m)Validating card\[\d+\]:\s*(\S+)", said)
    failed = re.search(r"(?i)failed to validate|validation failed", said)
    return Validation(
        tuple(tests),
        shell.group(1) if shell else "",
        declared_failed=failed is not None,
    )
