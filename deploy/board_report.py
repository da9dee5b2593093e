"""What the ``board`` commands show: cards, their health and their tests, as text and as records."""

from __future__ import annotations

import dataclasses
from typing import Any, Dict, List, Optional, Sequence, Tuple

from ..board.cards import Card, CardSearch
from ..board.health import CardHealth
from ..board.releases import CardRelease, Problem, known_releases, matrix, problems, releases_for
from ..board.validation import TestState, Validation

_FACTS = (
    ("shell", "shell"),
    ("uuid", "platform UUID"),
    ("sc_version", "satellite controller"),
    ("xrt", "XRT"),
)
_WIDTH = 22


def cards_text(
    search: CardSearch, cards: Sequence[Card], release: Optional[CardRelease] = None
) -> str:
    """The cards, each fact with its source, and the releases they go with."""
    lines: List[str] = []
    for card in cards:
        silicon = f"{card.silicon.value} silicon" if card.silicon else "silicon not known"
        lines.append(f"VCK5000 at {card.slot}, {silicon} ({card.evidence.get('silicon', '')})")
        for role, bdf, driver in (
            ("management function", card.management_bdf, card.management_driver),
            ("user function", card.user_bdf, card.user_driver),
        ):
            if bdf:
                lines.append(_field(role, f"{bdf}, driver {driver or 'not bound'}"))
        for name, label in _FACTS:
            value = getattr(card, name)
            source = card.evidence.get(name, "")
            lines.append(_field(label, f"{value} ({source})" if value else "not told"))
        ready = {True: "yes", False: "no", None: "not told"}[card.ready]
        source = card.evidence.get("ready", "")
        lines.append(_field("ready", f"{ready} ({source})" if source else ready))
        fitting = ", ".join(r.name for r in releases_for(card.installed)) or "none"
        lines.append(_field("goes with Vitis AI", fitting))
        lines += [f"  ! {note}" for note in card.notes]
        if release is not None:
            found = problems(card.installed, release)
            lines += [f"  ! for Vitis AI {release.name}: {problem}" for problem in found]
            if not found:
                lines.append(f"  nothing speaks against Vitis AI {release.name}")
    for other in search.others:
        lines.append(f"{other.bdf} is {other.other_card} (10ee:{other.device})")
    lines += [f"note: {note}" for note in search.notes]
    return "\n".join(lines) + "\n"


def cards_record(
    search: CardSearch, cards: Sequence[Card], release: Optional[CardRelease] = None
) -> Dict[str, Any]:
    """The same for ``--json``."""
    record: Dict[str, Any] = {
        "cards": [_card_record(card, release) for card in cards],
        "others": [dataclasses.asdict(other) for other in search.others],
        "versions": dataclasses.asdict(search.versions),
        "notes": list(search.notes),
        "evidence": search.evidence,
    }
    return record


def releases_text() -> str:
    """The version matrix as a table."""
    rows = matrix()
    columns = list(rows[0])
    widths = {c: max(len(c), *(len(row[c]) for row in rows)) for c in columns}
    lines = ["  ".join(c.ljust(widths[c]) for c in columns).rstrip()]
    lines += ["  ".join(row[c].ljust(widths[c]) for c in columns).rstrip() for row in rows]
    return "\n".join(lines) + "\n"


def releases_record() -> List[Dict[str, Any]]:
    """The same with every variant's set-up, for ``--json``."""
    records = []
    for release in known_releases():
        record = dataclasses.asdict(release)
        record["silicon"] = release.silicon.value
        for setup, entry in zip(release.setups, record["setups"]):
            entry["xclbin"] = release.xclbin(setup.variant)
        records.append(record)
    return records


def health_text(healths: Sequence[CardHealth]) -> str:
    """All readings of the cards, what passes a limit, and what was not read."""
    lines: List[str] = []
    for health in healths:
        lines.append(f"VCK5000 at {health.bdf or 'an address not told'} {health.shell}".rstrip())
        for sensor in health.sensors:
            lines.append(_field(sensor.label, _with_unit(sensor.celsius, "°C", 0)))
        power = _with_unit(health.power_watts, "W", 1)
        if health.max_watts is not None:
            power += f" of {health.max_watts:g}"
        lines.append(_field("board power", power))
        alarm = {True: "ON", False: "off", None: "not told"}[health.power_warning]
        lines.append(_field("power warning", alarm))
        for rail in health.rails:
            values = [_with_unit(rail.volts, "V", 3)] if rail.volts is not None else []
            values += [_with_unit(rail.amps, "A", 3)] if rail.amps is not None else []
            lines.append(_field(rail.label, ", ".join(values) or "not read"))
        lines += [f"  STOP: {stop}" for stop in health.stops]
        lines += [f"  warning: {text}" for text in health.warnings if text not in health.stops]
        lines += [f"  note: {note}" for note in health.notes]
        lines.append(f"  {verdict(health)} ({health.evidence})")
    return "\n".join(lines) + "\n"


def health_record(health: CardHealth) -> Dict[str, Any]:
    """One reading for ``--json``."""
    record = dataclasses.asdict(health)
    record["verdict"] = verdict(health)
    return record


def verdict(health: CardHealth) -> str:
    """One phrase; without a temperature nothing is called good."""
    if health.stops:
        return "over a limit at which work stops"
    if health.warnings:
        return "over a warning limit"
    if health.celsius is None:
        return "no limit passed, but the FPGA's temperature is not known"
    return "within all limits"


def watch_line(health: CardHealth) -> Tuple[str, str, str, str]:
    """Cells of the live table: address, temperature, power, verdict."""
    return (
        health.bdf or "-",
        _with_unit(health.celsius, "°C", 0),
        _with_unit(health.power_watts, "W", 1),
        "; ".join(health.warnings) or verdict(health),
    )


def validation_text(validation: Validation) -> str:
    """Every test with its state, what it measured, and the verdict."""
    lines = []
    if validation.shell:
        lines.append(f"{validation.shell}, satellite controller {validation.sc_version or '?'}")
    lines += [f"  remark: {remark}" for remark in validation.remarks]
    width = max([len(test.name) for test in validation.tests], default=0)
    for test in validation.tests:
        state = test.state.value
        if test.state is TestState.UNKNOWN:
            state += f" ({test.said})"
        lines.append(f"  {test.name:<{width}}  {state}")
        lines += [f"  {'':<{width}}    {line}" for line in (*test.details, *test.warnings)]
    lines.append(validation_verdict(validation))
    return "\n".join(lines) + "\n"


def validation_verdict(validation: Validation) -> str:
    """One sentence."""
    if not validation.passed:
        return f"not passed: {'; '.join(validation.reasons)}"
    counts = [
        f"{validation.count(state)} {words}"
        for state, words in (
            (TestState.PASSED, "passed"),
            (TestState.WARNED, "passed with warnings"),
            (TestState.SKIPPED, "skipped"),
        )
        if validation.count(state)
    ]
    return f"passed: {', '.join(counts)}"


def validation_record(validation: Validation) -> Dict[str, Any]:
    """The same for ``--json``."""
    record = dataclasses.asdict(validation)
    for test, entry in zip(validation.tests, record["tests"]):
        entry["state"] = test.state.value
    return {"passed": validation.passed, "reasons": list(validation.reasons), **record}


def _card_record(card: Card, release: Optional[CardRelease]) -> Dict[str, Any]:
    record = dataclasses.asdict(card)
    record["silicon"] = card.silicon.value if card.silicon else None
    record["releases"] = [r.name for r in releases_for(card.installed)]
    if release is not None:
        found: Tuple[Problem, ...] = problems(card.installed, release)
        record["problems"] = [dataclasses.asdict(problem) for problem in found]
    return record


def _field(name: str, value: str) -> str:
    return f"  {name:<{_WIDTH}} {value}"


def _with_unit(value: Optional[float], unit: str, digits: int) -> str:
    return "not read" if value is None else f"{value:.{digits}f} {unit}"
