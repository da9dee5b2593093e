"""The report as a table for people: 80 columns, colour only on a terminal."""

from __future__ import annotations

import textwrap
from typing import List

from .findings import Report, State

COLOURS = {State.OK: "32", State.WARN: "33", State.FAIL: "31", State.SKIPPED: "2"}
_NAME = 20


def table(report: Report, width: int = 80, colour: bool = False) -> str:
    """The report as text.

    Args:
        report: what was found.
        width: columns; a command to type is never broken and may pass it.
        colour: whether the first column has escape sequences for colours.
    """
    lines: List[str] = []
    group = ""
    indent = " " * (10 + _NAME)
    for line in report.lines:
        if line.group != group:
            group = line.group
            lines.append(f"{group}:")
        finding = line.finding
        state = f"{line.state.value:<8}"
        if colour:
            state = f"\x1b[{COLOURS[line.state]}m{state}\x1b[0m"
        seen = textwrap.wrap(
            finding.seen,
            max(20, width - len(indent)),
            break_long_words=False,
            break_on_hyphens=False,
        ) or [""]
        name = f"{finding.name:<{_NAME - 1}}"
        lines.append(f"  {state}{name} {seen[0]}".rstrip())
        lines += [indent + more for more in seen[1:]]
        if finding.fix and line.state in (State.WARN, State.FAIL):
            lines.append(f"{indent}fix: {finding.fix}")
    lines += ["", *textwrap.wrap(summary(report), width, break_on_hyphens=False)]
    return "\n".join(lines)


def summary(report: Report) -> str:
    """The last line: what it comes to, and for what."""
    wanted = ", ".join(sorted(purpose.value for purpose in report.wanted))
    counts = ", ".join(
        f"{report.count(state)} {state.value}" for state in State if report.count(state)
    )
    if report.failed:
        names = ", ".join(line.finding.name for line in report.failed)
        return f"Not fit for {wanted} ({report.reason}): {names}. {counts}"
    return f"Fit for {wanted} ({report.reason}). {counts}"
