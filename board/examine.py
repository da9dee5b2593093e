"""What ``xbutil examine`` says in JSON, and the legacy ``xbutil dump``: sensors, rails, platform.

In the JSON every scalar may be a string. A value counts only where ``is_present`` does not deny it
and it is a number: "N/A", "NA", an empty string, a missing key and the 0 that stands beside
``is_present: false`` all become ``None``, and ``unread`` says so.
"""

from __future__ import annotations

import dataclasses
import enum
import re
from dataclasses import dataclass
from typing import Any, Dict, Iterator, List, Optional, Sequence, Tuple

from ..errors import FormatError

_LOWEST, _HIGHEST = -60.0, 200.0
"""Celsius beyond which a number is a placeholder, not a temperature."""


class Place(enum.Enum):
    """Where a temperature is taken; each place has its own limits."""

    FPGA = "fpga"
    REGULATOR = "regulator"
    OTHER = "other"


@dataclass(frozen=True)
class Sensor:
    """One temperature.

    Attributes:
        name: the tool's identifier; on data-driven shells (gen4x8) the same as the label.
        label: for people.
        celsius: ``None`` where the sensor is absent or not read.
    """

    name: str
    label: str
    celsius: Optional[float]

    @property
    def place(self) -> Place:
        """Where it is, from its name and label."""
        words = f"{self.name} {self.label}".lower()
        if re.search(r"vcc|regulator|\bvr\b", words):
            return Place.REGULATOR
        if re.search(r"fpga|acap|versal|\bdevice\b|\bdie\b", words):
            return Place.FPGA
        return Place.OTHER


@dataclass(frozen=True)
class Rail:
    """One supply rail.

    Attributes:
        volts, amps, watts: ``None`` where absent; ``watts`` only where the tool gives it.
    """

    name: str
    label: str
    volts: Optional[float]
    amps: Optional[float]
    watts: Optional[float] = None

    @property
    def load(self) -> Optional[float]:
        """Watts, from volts and amperes where the tool gives none."""
        if self.watts is not None:
            return self.watts
        if self.volts is None or self.amps is None:
            return None
        return self.volts * self.amps


@dataclass(frozen=True)
class Platform:
    """What a running card says of itself.

    Attributes:
        shell: name of the platform, empty where not told.
        sc_version: of the satellite controller; ``sc_expected`` is what the shell wants.
        ddr_bytes: memory on the card.
        clocks: name to MHz.
    """

    shell: str = ""
    sc_version: str = ""
    sc_expected: str = ""
    ddr_bytes: Optional[int] = None
    clocks: Tuple[Tuple[str, float], ...] = ()


@dataclass(frozen=True)
class DeviceReport:
    """One card as a tool reports it.

    Attributes:
        bdf: of the function asked; empty in the legacy dump.
        sensors: in the tool's order, absent ones included.
        rails: likewise.
        power_watts: of the board.
        max_watts: what the tool calls the maximum.
        power_warning: the tool's own alarm; ``None`` where not told.
        platform: facts of the shell.
        unread: what was not there, one phrase each.
    """

    bdf: str = ""
    sensors: Tuple[Sensor, ...] = ()
    rails: Tuple[Rail, ...] = ()
    power_watts: Optional[float] = None
    max_watts: Optional[float] = None
    power_warning: Optional[bool] = None
    platform: Platform = Platform()
    unread: Tuple[str, ...] = ()

    @property
    def empty(self) -> bool:
        """Whether there is not a single reading."""
        read = [s.celsius for s in self.sensors] + [self.power_watts]
        read += [r.volts for r in self.rails] + [r.amps for r in self.rails]
        return all(value is None for value in read)


def parse_examine(content: Any) -> Tuple[DeviceReport, ...]:
    """Reads the JSON of ``xbutil examine`` (releases 2.11 to 2.14 of XRT), already decoded.

    Raises:
        FormatError: it has no list of devices.
    """
    devices = content.get("devices") if isinstance(content, dict) else None
    if isinstance(devices, str) and not devices.strip():  # an empty list, as the tool writes it
        devices = []
    if not isinstance(devices, list):
        raise FormatError(
            "The JSON of xbutil has no list of devices",
            f"its keys are {', '.join(sorted(map(str, content))[:8])}"
            if isinstance(content, dict)
            else f"it is {content!r}"[:120],
            "run xbutil examine -r thermal electrical by hand",
        )
    return tuple(_device(device) for device in devices if isinstance(device, dict))


def parse_dump(content: Any) -> DeviceReport:
    """Reads the JSON of the legacy ``xbutil dump``: mV and mA become volts and amperes.

    The dump has no flag for absent sensors and writes 0 for them, so 0 is no reading here.

    Raises:
        FormatError: it has no ``board``.
    """
    board = content.get("board") if isinstance(content, dict) else None
    if not isinstance(board, dict):
        raise FormatError(
            "The JSON of xbutil dump has no board", repr(content)[:120], "xbutil dump"
        )
    physical = _child(board, "physical")
    sensors = tuple(
        Sensor(name, name.replace("_", " "), _nonzero(celsius(value)))
        for name, value in _leaves(_child(physical, "thermal"))
        # Fan readings are here too, and the fan controller's own limit.
        if not name.startswith(("fan", "tcrit"))
    )
    rails: List[Rail] = []
    warning: Optional[bool] = None
    for name, record in _child(physical, "electrical").items():
        if not isinstance(record, dict):
            continue
        volts, amps = number(record.get("voltage")), number(record.get("current"))
        if name == "power_warn":
            warning = None if amps is None else amps != 0
            continue
        rails.append(
            Rail(
                name,
                name.replace("_", " "),
                None if not volts else volts / 1000,
                None if not amps else amps / 1000,
            )
        )
    info = _child(board, "info")
    report = DeviceReport(
        sensors=sensors,
        rails=tuple(rails),
        power_watts=_nonzero(number(physical.get("power"))),
        power_warning=warning,
        platform=Platform(
            shell=text(info.get("dsa_name")),
            sc_version=text(info.get("sc_version")),
        ),
    )
    return _with_unread(report, {"power": physical.get("power")})


def parse_rail(record: Dict[str, Any]) -> Rail:
    """One entry of ``power_rails``, of either kind of shell."""
    return Rail(
        text(record.get("id")),
        text(record.get("description")) or text(record.get("id")),
        _measured(record.get("voltage"), "volts"),
        _measured(record.get("current"), "amps"),
        _measured(record.get("power"), "watts"),
    )


def number(value: Any) -> Optional[float]:
    """The number in a scalar of the tools, ``None`` for "N/A", "NA", "" and what is no number."""
    if isinstance(value, bool):
        return None
    if isinstance(value, (int, float)):
        return float(value)
    found = re.match(r"\s*([-+]?\d+(?:\.\d+)?)(?:\s|$)", value) if isinstance(value, str) else None
    return float(found.group(1)) if found else None


def celsius(value: Any) -> Optional[float]:
    """A temperature, ``None`` also for placeholders that no card survives (65535)."""
    found = number(value)
    return found if found is not None and _LOWEST <= found <= _HIGHEST else None


def flag(value: Any) -> Optional[bool]:
    """The boolean in a scalar of the tools, ``None`` where it is neither."""
    if isinstance(value, bool):
        return value
    word = value.strip().lower() if isinstance(value, str) else ""
    return {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}.get(word)


def text(value: Any) -> str:
    """A scalar of the tools as text; empty for "N/A" and the like."""
    found = str(value).strip() if isinstance(value, (str, int, float)) else ""
    return "" if found.upper() in ("N/A", "NA", "0X0") else found


def summarize_unread(
    sensors: Sequence[Sensor], power: Optional[float], said: Any
) -> Tuple[str, ...]:
    """What was not read, one phrase each: sensors by name, the power with what stood there."""
    phrases = []
    absent = [sensor.label for sensor in sensors if sensor.celsius is None]
    if absent:
        phrases.append(f"no reading of {', '.join(absent)}")
    if not sensors:
        phrases.append("no temperature sensors listed")
    if power is None:
        phrases.append(f"power is {said!r}" if said not in (None, "") else "power is not reported")
    return tuple(phrases)


def _device(record: Dict[str, Any]) -> DeviceReport:
    sensors = tuple(
        Sensor(
            text(entry.get("location_id")),
            text(entry.get("description")) or text(entry.get("location_id")),
            None if flag(entry.get("is_present")) is False else celsius(entry.get("temp_C")),
        )
        for entry in _entries(record, "thermals")
    )
    electrical = _child(record, "electrical")
    report = DeviceReport(
        bdf=text(record.get("device_id")),
        sensors=sensors,
        rails=tuple(parse_rail(entry) for entry in _entries(electrical, "power_rails")),
        power_watts=number(electrical.get("power_consumption_watts")),
        max_watts=number(electrical.get("power_consumption_max_watts")),
        power_warning=flag(electrical.get("power_consumption_warning")),
        platform=_platform(record),
    )
    return _with_unread(report, {"power": electrical.get("power_consumption_watts")})


def _with_unread(report: DeviceReport, said: Dict[str, Any]) -> DeviceReport:
    unread = summarize_unread(report.sensors, report.power_watts, said.get("power"))
    return dataclasses.replace(report, unread=unread)


def _platform(record: Dict[str, Any]) -> Platform:
    entries = _entries(record, "platforms")
    if not entries:
        return Platform()
    first = entries[0]
    controller = _child(_child(first, "controller"), "satellite_controller")
    size = text(_child(first, "off_chip_board_info").get("ddr_size_bytes"))
    clocks = []
    for entry in _entries(first, "clocks"):
        mhz = number(entry.get("freq_mhz"))
        if mhz is not None:
            clocks.append((text(entry.get("id")) or text(entry.get("description")), mhz))
    return Platform(
        shell=text(_child(first, "static_region").get("vbnv")),
        sc_version=text(controller.get("version")),
        sc_expected=text(controller.get("expected_version")),
        ddr_bytes=int(size, 0) if re.match(r"^(0[xX][0-9a-fA-F]+|[1-9]\d*)$", size) else None,
        clocks=tuple(clocks),
    )


def _measured(record: Any, key: str) -> Optional[float]:
    if not isinstance(record, dict) or flag(record.get("is_present")) is False:
        return None
    return number(record.get(key))


def _nonzero(value: Optional[float]) -> Optional[float]:
    return value or None


def _child(record: Any, key: str) -> Dict[str, Any]:
    found = record.get(key) if isinstance(record, dict) else None
    return found if isinstance(found, dict) else {}


def _entries(record: Any, key: str) -> List[Dict[str, Any]]:
    found = record.get(key) if isinstance(record, dict) else None
    return [e for e in found if isinstance(e, dict)] if isinstance(found, list) else []


def _leaves(record: Dict[str, Any], prefix: str = "") -> Iterator[Tuple[str, Any]]:
    for key, value in record.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}_")
        else:
            yield f"{prefix}{key}", value
