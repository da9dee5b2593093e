"""What ``xbutil`` and ``xbmgmt`` say as text: sensors, devices present, versions, partitions.

Indentation and column widths differ between releases (and are lost in documents), so sections are
known by their titles and fields by their labels.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Dict, List, Optional, Tuple

from .examine import (
    DeviceReport,
    Platform,
    Rail,
    Sensor,
    celsius,
    flag,
    number,
    summarize_unread,
    text,
)

BDF = r"(?:[0-9a-fA-F]{4}:)?[0-9a-fA-F]{2}:[0-9a-fA-F]{2}\.[0-7]"
_UUID = r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}"
_HEADER = re.compile(rf"^\s*\d+/\d+\s+\[({BDF})\]\s*:\s*(\S+)", re.MULTILINE)
_FIELD = re.compile(r"^\s*([^:\[\]]*?\S)\s*:(?:\s+(.*?))?\s*$")
_INSTANCE = re.compile(r"\b(user|mgmt)\(inst=([^)]*)\)")


@dataclass(frozen=True)
class ListedDevice:
    """One line of "Devices present" or of the legacy scan.

    Attributes:
        bdf: PCI address with its domain.
        shell: empty for ``n/a``.
        uuid: of the platform; empty where not told.
        management: whether the management function is listed, else the user function.
        ready: ``None`` where the form has no such column.
    """

    bdf: str
    shell: str
    uuid: str
    management: bool
    ready: Optional[bool]


@dataclass(frozen=True)
class Versions:
    """Versions of XRT and its drivers, empty where not told."""

    xrt: str = ""
    xocl: str = ""
    xclmgmt: str = ""


@dataclass(frozen=True)
class Partition:
    """A shell, running or installed."""

    shell: str
    sc_version: str = ""
    uuid: str = ""


@dataclass(frozen=True)
class ManagementReport:
    """One card as ``xbmgmt`` reports it.

    Attributes:
        bdf: of the management function.
        card_type: ``vck5000``, ``vck5000-es1``.
        flash_type: ``ospi_versal``, ``ospi_xgq``, lower case.
        name: of the board, empty for N/A.
        max_watts: electrical maximum.
        running: on the card; ``None`` where not told.
        installed: on the host.
        bootable: slot to state.
    """

    bdf: str
    card_type: str = ""
    flash_type: str = ""
    name: str = ""
    max_watts: Optional[float] = None
    running: Optional[Partition] = None
    installed: Tuple[Partition, ...] = ()
    bootable: Tuple[Tuple[str, str], ...] = ()


def full_bdf(address: str) -> str:
    """A PCI address in lower case with its domain, which lspci leaves out when it is 0000."""
    address = address.strip().strip("[]").lower()
    return address if address.count(":") == 2 else f"0000:{address}"


def parse_sensor_text(said: str) -> Tuple[DeviceReport, ...]:
    """Reads ``xbutil examine -r thermal electrical``: one record per device header.

    Text lists only the sensors that are present.
    """
    return tuple(
        _sensors(full_bdf(bdf), shell, block) for bdf, shell, block in _device_blocks(said)
    )


def parse_devices(said: str) -> Tuple[ListedDevice, ...]:
    """Reads "Devices present" (old lines, the table, newer tables with bars) and ``scan``."""
    found = []
    line_form = re.compile(rf"^[\s|*]*(?:\[\d+\]\s*)?\[?({BDF})\]?[\s|]*:?[\s|]*(.*)$")
    for line in said.splitlines():
        match = line_form.match(line)
        instance = _INSTANCE.search(line)
        if match is None or instance is None:
            continue
        rest = match.group(2)[: match.group(2).find(instance.group(0))]
        words = rest.replace("|", " ").split()
        shell = re.sub(r"\(ID=.*\)$", "", words[0]) if words else ""
        uuid = re.search(_UUID, rest)
        after = line[line.find(instance.group(0)) + len(instance.group(0)) :]
        ready = flag(after.replace("|", " ").strip())
        if line.lstrip().startswith("*"):  # how the legacy scan marks one that is not ready
            ready = False
        found.append(
            ListedDevice(
                full_bdf(match.group(1)),
                text(shell),
                uuid.group(0).upper() if uuid else "",
                instance.group(1) == "mgmt",
                ready,
            )
        )
    return tuple(found)


def parse_versions(said: str) -> Versions:
    """Reads the versions of ``xbutil examine``, ``xbutil --version`` and the legacy ``version``."""

    def first(pattern: str) -> str:
        match = re.search(pattern + r"\s*:\s*(\d+(?:\.\d+)+)", said, re.MULTILINE | re.IGNORECASE)
        return match.group(1) if match else ""

    return Versions(
        xrt=first(r"^\s*(?:XRT Build )?Version"),
        xocl=first(r"^\s*xocl"),
        xclmgmt=first(r"^\s*xclmgmt"),
    )


def parse_management(said: str) -> Tuple[ManagementReport, ...]:
    """Reads ``xbmgmt examine -r platform`` or the legacy ``xbmgmt flash --scan``."""
    if re.search(rf"^\s*Card \[{BDF}\]", said, re.MULTILINE):
        return _flash_scan(said)
    return tuple(_management(full_bdf(bdf), block) for bdf, _, block in _device_blocks(said))


def _device_blocks(said: str) -> List[Tuple[str, str, str]]:
    """Address, shell and the text up to the next header, of each device."""
    headers = list(_HEADER.finditer(said))
    ends = [header.start() for header in headers[1:]] + [len(said)]
    # In a transcript the next command follows the last block.
    return [
        (header.group(1), header.group(2), re.split(r"(?m)^\$ ", said[header.end() : end])[0])
        for header, end in zip(headers, ends)
    ]


def _sensors(bdf: str, shell: str, block: str) -> DeviceReport:
    section = ""
    sensors: List[Sensor] = []
    rails: List[Rail] = []
    fields: Dict[str, str] = {}
    for line in block.splitlines():
        title = line.strip().lower()
        if title in ("thermals", "electrical"):
            section = title
            continue
        match = _FIELD.match(line)
        if match is None:
            # A blank line ends the lists; the one before the rails stands within a section.
            section = section if section == "electrical" and not title else ""
            continue
        label, value = match.group(1), match.group(2) or ""
        if label.lower() == "power rails":
            section = "rails"
        elif section == "thermals":
            sensors.append(Sensor(label, label, celsius(value)))
        elif section == "electrical":
            fields[label.lower()] = value
        elif section == "rails":
            rails.append(Rail(label, label, _unit(value, "V"), _unit(value, "A")))
    power = number(fields.get("power"))
    return DeviceReport(
        bdf=bdf,
        sensors=tuple(sensors),
        rails=tuple(rails),
        power_watts=power,
        max_watts=number(fields.get("max power")),
        power_warning=flag(fields.get("power warning")),
        platform=Platform(shell=text(shell)),
        unread=summarize_unread(sensors, power, fields.get("power")),
    )


def _unit(value: str, unit: str) -> Optional[float]:
    match = re.search(rf"([-+]?\d+(?:\.\d+)?)\s*{unit}\b", value)
    return float(match.group(1)) if match else None


def _management(bdf: str, block: str) -> ManagementReport:
    section = ""
    single: Dict[Tuple[str, str], str] = {}
    partitions: Dict[str, List[Dict[str, str]]] = {"running": [], "installed": []}
    bootable: List[Tuple[str, str]] = []
    for line in block.splitlines():
        title = line.strip().rstrip(":").lower()
        known = _section(title)
        if known:
            section = known
            continue
        match = _FIELD.match(line)
        if match is None:
            continue
        label, value = match.group(1).lower(), match.group(2) or ""
        if section in partitions:
            if label == "platform":
                partitions[section].append({})
            if partitions[section]:
                partitions[section][-1][label] = value
        elif section == "bootable":
            bootable.append((match.group(1), value))
        else:
            single[section, label] = value
    running = [_partition(record) for record in partitions["running"]]
    return ManagementReport(
        bdf=bdf,
        card_type=text(single.get(("device", "type"))),
        flash_type=text(single.get(("flash", "type"))).lower(),
        name=text(single.get(("device", "name"))),
        max_watts=number(re.sub(r"W$", "", single.get(("device", "max power"), ""))),
        running=running[0] if running else None,
        installed=tuple(_partition(record) for record in partitions["installed"]),
        bootable=tuple(bootable),
    )


def _section(title: str) -> str:
    if title == "flash properties":
        return "flash"
    if title == "device properties":
        return "device"
    if title.startswith("flashable partition"):
        return "running" if "running" in title else "installed"
    return "bootable" if title.startswith("bootable partition") else ""


def _partition(record: Dict[str, str]) -> Partition:
    uuid = text(record.get("platform uuid")) or text(record.get("platform id"))
    return Partition(text(record.get("platform")), text(record.get("sc version")), uuid)


def _flash_scan(said: str) -> Tuple[ManagementReport, ...]:
    reports = []
    for block in re.split(r"(?m)^(?=\s*Card \[)", said):
        header = re.match(rf"\s*Card \[({BDF})\]", block)
        if header is None:
            continue
        fields: Dict[str, str] = {}
        partitions: Dict[str, List[Partition]] = {"running": [], "installed": []}
        section = ""
        for line in block.splitlines()[1:]:
            section = _section(line.strip().rstrip(":").lower()) or section
            entry = re.match(r"\s*([\w-]+),\[ID=([^\]]*)\](?:,\[SC=([^\]]*)\])?", line)
            if entry and section in partitions:
                partitions[section].append(
                    Partition(entry.group(1), entry.group(3) or "", entry.group(2))
                )
                continue
            match = _FIELD.match(line)
            if match:
                fields[match.group(1).lower()] = match.group(2) or ""
        reports.append(
            ManagementReport(
                bdf=full_bdf(header.group(1)),
                card_type=text(fields.get("card type")),
                flash_type=text(fields.get("flash type")).lower(),
                running=partitions["running"][0] if partitions["running"] else None,
                installed=tuple(partitions["installed"]),
            )
        )
    return tuple(reports)
