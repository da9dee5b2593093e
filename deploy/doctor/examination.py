"""All checks in their order, each kept from harming the others."""

from __future__ import annotations

from typing import Callable, Iterator, List, Sequence, Tuple

from ..host import Host
from . import card, container, display, docker, firmware, model, python, system
from .facts import Choice, Facts, Request, collect, default_choices
from .findings import Finding, Line, Report, State

Check = Callable[[Facts], Iterator[Finding]]

CHECKS: Tuple[Tuple[str, Tuple[Check, ...]], ...] = (
    ("place", (container.check_place, container.check_release)),
    ("Python", (python.check_python, python.check_packages)),
    ("vendor's tools", (python.check_vendor, python.check_runtime, container.check_arch)),
    ("card", (card.check_card, card.check_nodes, card.check_health)),
    ("card's environment", (firmware.check_firmware, firmware.check_xrt)),
    ("model", (model.check_model,)),
    ("docker", (docker.check_docker,)),
    (
        "computer",
        (
            system.check_disk,
            system.check_memory,
            system.check_processor,
            system.check_text,
            system.check_temporary,
        ),
    ),
    ("screen", (display.check_display,)),
    ("choices", (python.check_choices,)),
)
"""Group of the table to its checks."""


def examine(
    request: Request,
    host: Host,
    choose: Callable[[], Sequence[Choice]] = default_choices,
    checks: Sequence[Tuple[str, Sequence[Check]]] = CHECKS,
) -> Report:
    """Runs all checks; a check that fails itself becomes a line that says so.

    Args:
        request: what is asked for.
        host: the computer.
        choose: what ``auto`` takes there.
        checks: group to checks.
    """
    facts = collect(request, host, choose)
    lines: List[Line] = []
    for name, error in facts.troubles:
        lines.append(_broken("place", name, error))
    for group, members in checks:
        for check in members:
            try:
                # One at a time: what was found before an error stays.
                for finding in check(facts):
                    lines.append(Line(group, finding.state(facts.wanted), finding))
            except Exception as error:
                name = check.__name__.replace("check_", "").replace("_", " ")
                lines.append(_broken(group, name, f"{type(error).__name__}: {error}"))
    return Report(facts.wanted, facts.wanted_reason, tuple(lines))


def _broken(group: str, name: str, error: str) -> Line:
    finding = Finding(
        name,
        False,
        f"this check itself failed: {error}",
        "deepfake-fpga doctor --json, and report what it says",
    )
    return Line(group, State.FAIL, finding)
