"""Is the card well: temperature, power and alarms against limits, each limit with its reason.

The sensors come from ``xbutil``: its JSON where it writes any, else its text, else the legacy
``dump``. A value that is "N/A" stays ``None`` and is said.
"""

from __future__ import annotations

import dataclasses
import json
import re
import time
from dataclasses import dataclass
from typing import List, Optional, Sequence, Tuple

from ..errors import DeviceError, FormatError, UsageError
from .examine import DeviceReport, Place, Rail, Sensor, parse_dump, parse_examine
from .examine_text import BDF, full_bdf, parse_sensor_text
from .tools import ToolOutput, run_for_json, run_tool

SENSOR_REPORTS = ("thermal", "electrical")


@dataclass(frozen=True)
class Limit:
    """One limit: its value (Celsius or watts), and why it is that."""

    value: float
    reason: str


@dataclass(frozen=True)
class Limits:
    """The limits of the VCK5000; those the card acts on itself are facts, the others our margin.

    Attributes:
        warn_celsius, alarm_celsius: of the FPGA; reported from here on.
        stop_celsius: of the FPGA; work is stopped.
        clock_off_celsius, card_off_celsius: of the FPGA; what the card does by itself.
        regulator_warn_celsius, regulator_stop_celsius: of the core's voltage regulator.
        power_watts, electrical_watts: of the whole board.
        slot_watts, aux_watts: of the 12 V supplies.
    """

    warn_celsius: Limit = Limit(85.0, "3 below the card's own warning")
    alarm_celsius: Limit = Limit(88.0, "the card's own warning")
    stop_celsius: Limit = Limit(95.0, "5 below the card's clock shutdown")
    clock_off_celsius: Limit = Limit(100.0, "the card stops its clocks")
    card_off_celsius: Limit = Limit(107.0, "the card switches itself off")
    regulator_warn_celsius: Limit = Limit(100.0, "the regulator's own warning")
    regulator_stop_celsius: Limit = Limit(110.0, "the card stops its clocks (off at 125)")
    power_watts: Limit = Limit(225.0, "what the board is made for in operation")
    electrical_watts: Limit = Limit(300.0, "the board's electrical maximum")
    slot_watts: Limit = Limit(69.0, "above it for 1 s the card stops its clocks")
    aux_watts: Limit = Limit(231.0, "above it for 1 s the card stops its clocks")


LIMITS = Limits()


@dataclass(frozen=True)
class CardHealth:
    """One reading of one card.

    Attributes:
        bdf: PCI address of the user function; empty where the tool does not tell.
        shell: running on the card, empty where not told.
        celsius: the hottest FPGA sensor present; ``None`` where none was read.
        power_watts: of the board; ``None`` where the tool gives none.
        max_watts: the tool's own maximum.
        power_warning: the tool's own alarm; ``None`` where not told.
        sensors: all temperatures, absent ones with ``None``.
        rails: all supply rails.
        warnings: limits passed, stops first, one sentence each.
        stops: those of the warnings that mean: do not go on.
        notes: what was not read, and what was chosen.
        evidence: where the figures come from.
    """

    bdf: str
    shell: str
    celsius: Optional[float]
    power_watts: Optional[float]
    max_watts: Optional[float]
    power_warning: Optional[bool]
    sensors: Tuple[Sensor, ...]
    rails: Tuple[Rail, ...]
    warnings: Tuple[str, ...]
    stops: Tuple[str, ...]
    notes: Tuple[str, ...]
    evidence: str


def read_health(
    bdf: Optional[str] = None, timeout: float = 20.0, limits: Limits = LIMITS
) -> CardHealth:
    """Reads the sensors of a card once.

    Args:
        bdf: PCI address of either function of the card, with or without the domain. Without it
            the only card is read; of several the hottest, which is said in ``notes``.
        timeout: seconds for all programs together; one that hangs is killed.
        limits: to judge by.

    Raises:
        UsageError: ``bdf`` is no PCI address.
        MissingError: ``xbutil`` is not there.
        DeviceError: there is no card, not this one, it is not ready, or it does not answer.
    """
    found = read_all_health(bdf, timeout, limits)
    if len(found) == 1:
        return found[0]
    hottest = max(found, key=lambda h: (bool(h.stops), -300.0 if h.celsius is None else h.celsius))
    note = f"{hottest.bdf} is the hottest of {len(found)} cards, none was named"
    return _with_note(hottest, note)


def read_all_health(
    bdf: Optional[str] = None, timeout: float = 20.0, limits: Limits = LIMITS
) -> Tuple[CardHealth, ...]:
    """Reads the sensors of all cards, or of the one named; at least one record.

    Args and errors as ``read_health``.
    """
    wanted = None if bdf is None else user_function(bdf)
    notes: Tuple[str, ...] = ()
    if wanted is not None and bdf is not None and full_bdf(bdf) != wanted:
        notes = (f"{bdf} is the management function, {wanted} was read",)
    reports, evidence = _read_reports(wanted, timeout)
    return tuple(judge(report, limits, evidence, notes) for report in reports)


def user_function(bdf: str) -> str:
    """The address that ``xbutil`` wants (function 1), from either function's address.

    Raises:
        UsageError: it is no PCI address.
    """
    if re.match(rf"^{BDF}$", bdf.strip()) is None:
        raise UsageError(
            f"{bdf!r} is no PCI address",
            "one looks like 0000:0b:00.1",
            "deepfake-fpga board info",
        )
    return full_bdf(bdf).rpartition(".")[0] + ".1"


def judge(
    report: DeviceReport, limits: Limits = LIMITS, evidence: str = "", notes: Sequence[str] = ()
) -> CardHealth:
    """Holds a card's readings against the limits."""
    fpga = [s for s in report.sensors if s.place is Place.FPGA]
    read = [s for s in fpga if s.celsius is not None]
    said = [*notes, *report.unread]
    if not read:
        said.append("no temperature of the FPGA was read")
    hottest = max((s.celsius for s in read if s.celsius is not None), default=None)
    stops: List[str] = []
    warnings: List[str] = []
    if hottest is not None:
        _judge_fpga(hottest, limits, stops, warnings)
    for sensor in report.sensors:
        if sensor.place is Place.REGULATOR and sensor.celsius is not None:
            if sensor.celsius >= limits.regulator_stop_celsius.value:
                stops.append(_over(sensor.label, sensor.celsius, limits.regulator_stop_celsius))
            elif sensor.celsius >= limits.regulator_warn_celsius.value:
                warnings.append(_over(sensor.label, sensor.celsius, limits.regulator_warn_celsius))
    _judge_power(report, limits, stops, warnings)
    return CardHealth(
        bdf=report.bdf,
        shell=report.platform.shell,
        celsius=hottest,
        power_watts=report.power_watts,
        max_watts=report.max_watts,
        power_warning=report.power_warning,
        sensors=report.sensors,
        rails=report.rails,
        warnings=(*stops, *warnings),
        stops=tuple(stops),
        notes=tuple(said),
        evidence=evidence,
    )


def _judge_fpga(value: float, limits: Limits, stops: List[str], warnings: List[str]) -> None:
    for limit in (limits.card_off_celsius, limits.clock_off_celsius, limits.stop_celsius):
        if value >= limit.value:
            stops.append(_over("the FPGA", value, limit))
            return
    for limit in (limits.alarm_celsius, limits.warn_celsius):
        if value >= limit.value:
            warnings.append(_over("the FPGA", value, limit))
            return


def _judge_power(
    report: DeviceReport, limits: Limits, stops: List[str], warnings: List[str]
) -> None:
    if report.power_warning:
        warnings.append("the card's own power warning is on")
    if report.power_watts is not None:
        if report.power_watts > limits.electrical_watts.value:
            stops.append(_over("the board", report.power_watts, limits.electrical_watts, "W"))
        elif report.power_watts > limits.power_watts.value:
            warnings.append(_over("the board", report.power_watts, limits.power_watts, "W"))
    for rail in report.rails:
        words = f"{rail.name} {rail.label}".lower()
        if rail.load is None or "12" not in words:
            continue
        limit = limits.aux_watts if "aux" in words else limits.slot_watts
        if ("aux" in words or "pex" in words or "pci" in words) and rail.load > limit.value:
            stops.append(_over(f"the supply {rail.label}", rail.load, limit, "W"))


def _over(what: str, value: float, limit: Limit, unit: str = "°C") -> str:
    return f"{what} is at {value:g} {unit}, the limit is {limit.value:g} {unit} ({limit.reason})"


def _with_note(health: CardHealth, note: str) -> CardHealth:
    return dataclasses.replace(health, notes=(note, *health.notes))


def _read_reports(bdf: Optional[str], timeout: float) -> Tuple[Tuple[DeviceReport, ...], str]:
    """The reports of the card named or of all VCK5000, at least one, and where they are from."""
    end = time.monotonic() + timeout
    device = [] if bdf is None else ["-d", bdf]
    content, output = run_for_json("xbutil", ["examine", *device, "-r", *SENSOR_REPORTS], timeout)
    if output.timed_out:
        output.require()
    reports: Tuple[DeviceReport, ...] = ()
    evidence = f"the JSON of `{output.line}`"
    if content is not None:
        try:
            reports = parse_examine(content)
        except FormatError:
            content = None
    if content is None:
        reports, evidence = parse_sensor_text(output.text), f"the text of `{output.line}`"
    if not reports:
        reports, evidence = _legacy(bdf, max(1.0, end - time.monotonic()), output)
    reports = _chosen(bdf, reports, output)
    if all(report.empty for report in reports):
        name = bdf or reports[0].bdf
        raise DeviceError(
            f"The card {name} gives no sensor reading" if name else "The card gives no reading",
            output.last_words or evidence,
            "deepfake-fpga board info",
        )
    return reports, evidence


def _legacy(
    bdf: Optional[str], timeout: float, before: ToolOutput
) -> Tuple[Tuple[DeviceReport, ...], str]:
    """The dump of XRT up to 2.11, which knows no ``examine``."""
    output = run_tool("xbutil", ["dump"] if bdf is None else ["dump", "-d", bdf], timeout)
    try:
        report = parse_dump(json.loads(output.text))
    except (ValueError, FormatError):
        words = [f"{o.command[1]}: {o.last_words}" for o in (before, output) if o.last_words]
        said = "; ".join(words) or "neither examine nor dump gave a report"
        raise DeviceError(
            f"xbutil gives no report of {'a card' if bdf is None else bdf}",
            said,
            "deepfake-fpga board info",
        ) from None
    return (dataclasses.replace(report, bdf=bdf or ""),), f"the JSON of `{output.line}`"


def _with_shell(report: DeviceReport, shell: str) -> DeviceReport:
    return dataclasses.replace(report, platform=dataclasses.replace(report.platform, shell=shell))


def _chosen(
    bdf: Optional[str], reports: Tuple[DeviceReport, ...], output: ToolOutput
) -> Tuple[DeviceReport, ...]:
    """Only the card named, or only the VCK5000 among cards of other kinds."""
    # Without the platform report only the text printed beside the JSON names the shells.
    shells = {report.bdf: report.platform.shell for report in parse_sensor_text(output.text)}
    reports = tuple(
        report if report.platform.shell else _with_shell(report, shells.get(report.bdf, ""))
        for report in reports
    )
    if bdf is not None:
        same = tuple(r for r in reports if not r.bdf or full_bdf(r.bdf) == bdf)
        if not same:
            raise DeviceError(
                f"xbutil reports no card {bdf}",
                f"it lists {', '.join(r.bdf for r in reports)}",
                "deepfake-fpga board info",
            )
        return same

    def foreign(report: DeviceReport) -> bool:
        return bool(report.platform.shell) and "vck5000" not in report.platform.shell

    own = tuple(report for report in reports if not foreign(report))
    if not own:
        raise DeviceError(
            "xbutil reports no VCK5000",
            ", ".join(f"{r.bdf} is {r.platform.shell}" for r in reports),
            "deepfake-fpga board info",
        )
    return own
