"""Reports of the simulated card in the forms of ``xbutil examine`` and ``xbmgmt examine``."""

from __future__ import annotations

import time
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

from .card_profile import CardProfile

RULE = "-" * 56
_HASH = "43926231f7183688add2dccfd391b36a1f000bea"


def version_lines(card: CardProfile) -> List[str]:
    """What ``--version`` prints, and the section XRT of the host report."""
    lines = [
        ("Version", card.xrt),
        ("Branch", card.host.shell.tools),
        ("Hash", _HASH),
        ("Hash Date", "2022-10-08 09:51:53"),
        ("XOCL", f"{card.xrt}, {_HASH}" if card.bound else "unknown, unknown"),
        ("XCLMGMT", f"{card.xrt}, {_HASH}" if card.bound else "unknown, unknown"),
    ]
    return [f"  {name:<20} : {value}" for name, value in lines]


def host_report(card: CardProfile, management: bool = False) -> str:
    """System, versions and "Devices present", as a table from XRT 2.13 on."""
    lines = ["System Configuration", f"  {'OS Name':<20} : Linux", ""]
    lines += ["XRT", *version_lines(card), "", "Devices present"]
    if not card.listed:
        return "\n".join([*lines, "  0 devices found", ""])
    bdf = card.management_bdf if management else card.user_bdf
    instance = "mgmt(inst=2816)" if management else "user(inst=128)"
    if card.host.xrt in ("2.11", "2.12"):
        return "\n".join([*lines, f"  [{bdf}] : {card.shell.name} {instance}", ""])
    # A card that does not answer has no name any more.
    shell = "n/a" if card.dead else card.shell.name
    uuid = "n/a" if card.dead else card.uuid
    row = (f"[{bdf}]", ":", shell, uuid, instance, "No" if card.dead else "Yes")
    head = ("BDF", ":", "Shell", "Platform UUID", "Device ID", "Device Ready*")
    widths = [max(len(a), len(b)) for a, b in zip(head, row)]
    lines += [
        "  ".join(w.ljust(n) for w, n in zip(cells, widths)).rstrip() for cells in (head, row)
    ]
    lines += [
        "",
        "* Devices that are not ready will have reduced functionality when using XRT tools",
    ]
    return "\n".join([*lines, ""])


def thermal_report(card: CardProfile) -> str:
    """Present temperatures."""
    lines = ["Thermals"]
    present = [(label, value) for _, label, value in card.temperatures() if value is not None]
    lines += [f"  {label:<20} : {value:.0f} C" for label, value in present]
    return "\n".join(lines if present else [*lines, "  No temperature sensors are present"])


def electrical_report(card: CardProfile) -> str:
    """Power and rails; power that is not told is N/A, NA on data-driven shells."""
    absent = "NA" if card.data_driven else "N/A"
    lines = [
        "Electrical",
        f"  {'Max Power':<20} : {number(card.max_watts, 0, absent)} Watts",
        f"  {'Power':<20} : {number(card.watts, 6, absent)} Watts",
        f"  {'Power Warning':<20} : {word(card.power_warning)}",
        "",
        f"  {'Power Rails':<20} : Voltage   Current",
    ]
    for rail in card.rails():
        values = [f"{rail.volts:6.3f} V"] if rail.volts is not None else []
        values += [f"{rail.amps:6.3f} A"] if rail.amps is not None else []
        lines.append(f"  {rail.label:<20} : {', '.join(values)}")
    return "\n".join(lines)


def platform_report(card: CardProfile) -> str:
    """Shell, satellite controller, memory and clocks, as xbutil tells them."""
    lines = [
        "Platform",
        f"  {'XSA Name':<22} : {card.shell.name}",
        f"  {'Platform UUID':<22} : {card.uuid}",
        f"  {'FPGA Name':<22} : ",
        f"  {'JTAG ID Code':<22} : 0x0",
        f"  {'DDR Size':<22} : 12 GB",
        f"  {'DDR Count':<22} : 1",
        f"  {'Mig Calibrated':<22} : true",
        f"  {'P2P Status':<22} : not supported",
        "",
        "Clocks",
        f"  {'DATA_CLK (Data)':<22} : 300 MHz",
    ]
    return "\n".join(lines)


def management_report(card: CardProfile) -> str:
    """Flash and partitions, as xbmgmt tells them."""
    new = card.data_driven

    def field(name: str, value: str) -> str:
        return f"  {name:<20} : {value}"

    partition = [
        field("Platform", card.shell.name),
        field("SC Version", card.shell.sc_version),
        field("Platform UUID", card.uuid),
    ]
    lines = [
        "Flash properties",
        field("Type", "ospi_xgq" if new else "ospi_versal"),
        field("Serial Number", "N/A"),
        "",
        "Device properties",
        field("Type", "vck5000"),
        field("Name", "N/A" if new else "VCK5000-P"),
        field("Config Mode", "0" if new else "8"),
        field("Max Power", "N/A" if new else "300W"),
        "",
        "Flashable partitions running on FPGA",
        *partition,
        field("Interface UUID", "E221A0FF-8695-D5EB-8725-FC65147F90C3"),
        "",
        "Flashable partitions installed in system",
        *partition,
        "",
    ]
    if new:
        lines += ["Bootable Partitions:", field("Default", "ACTIVE"), ""]
    return "\n".join(lines)


def device_json(card: CardProfile, reports: Sequence[str]) -> Dict[str, Any]:
    """The card's entry in the JSON; every scalar is a string, as the genuine tool writes it."""
    record: Dict[str, Any] = {"interface_type": "pcie", "device_id": card.user_bdf}
    if "thermal" in reports:
        record["thermals"] = [
            {
                "location_id": name,
                "description": label,
                "temp_C": number(value, 0, "NA" if card.data_driven else "0"),
                "is_present": word(value is not None),
            }
            for name, label, value in card.temperatures()
        ]
    if "electrical" in reports:
        record["electrical"] = _electrical_json(card)
    if "platform" in reports:
        record["platforms"] = [_platform_json(card)]
    return record


def document(card: CardProfile, reports: Sequence[str]) -> Dict[str, Any]:
    """The whole JSON."""
    content: Dict[str, Any] = {
        "schema_version": {
            "schema": "JSON",
            "creation_date": time.strftime("%a %b %e %H:%M:%S %Y GMT", time.gmtime()),
        }
    }
    if "host" in reports:
        content["system"] = {"host": _host_json(card)}
    if card.listed and any(report != "host" for report in reports):
        content["devices"] = [device_json(card, reports)]
    else:
        content["devices"] = ""  # an empty list of the genuine tool's library
    return content


def device_header(bdf: str, card: CardProfile) -> str:
    """What stands above the reports of one device."""
    return f"\n{RULE}\n1/1 [{bdf}] : {card.shell.name}\n{RULE}"


REPORTS: Dict[str, Callable[[CardProfile], str]] = {
    "thermal": thermal_report,
    "electrical": electrical_report,
    "platform": platform_report,
    "aie": lambda card: "Aie\n  AIE metadata was not found",
    "dynamic-regions": lambda card: "Xclbin UUID\n  00000000-0000-0000-0000-000000000000",
    "error": lambda card: "Asynchronous Errors\n  No errors detected",
    "firewall": lambda card: "Firewall\n  Level 0 : 0x0 (GOOD)",
    "mailbox": lambda card: "Mailbox\n  Total bytes received : 0 Bytes",
    "mechanical": lambda card: (
        "Mechanical\n  Fans\n    FPGA Fan 1\n      Critical Trigger Temp : N/A"
    ),
    "memory": lambda card: "Memory\n  Memory Topology : not loaded",
    "pcie-info": lambda card: "Pcie Info\n  Vendor : 0x10ee",
}
"""Reports of one device by name."""


def word(value: bool) -> str:
    """A boolean as the tools write it."""
    return "true" if value else "false"


def number(value: Optional[float], digits: int, absent: str) -> str:
    """A number as the tools write it, or the word for none."""
    return absent if value is None else f"{value:.{digits}f}"


def _electrical_json(card: CardProfile) -> Dict[str, Any]:
    absent = "NA" if card.data_driven else "N/A"
    rails = []
    for rail in card.rails():
        volts, amps = _quantity("volts", rail.volts), _quantity("amps", rail.amps)
        entry: Dict[str, Any] = {"id": rail.name, "description": rail.label}
        if card.data_driven:
            # These shells also tell extremes, and power apart; absent values may lack the keys.
            for record, key in ((volts, "volts"), (amps, "amps")):
                for more in ("max", "average"):
                    if key in record:
                        record[more] = record[key]
            entry.update(current=amps, voltage=volts, power={"is_present": "false"})
        else:
            entry.update(voltage=volts, current=amps)
        rails.append(entry)
    return {
        "power_rails": rails,
        "power_consumption_max_watts": number(card.max_watts, 0, absent),
        "power_consumption_watts": number(card.watts, 6, absent),
        "power_consumption_warning": word(card.power_warning),
    }


def _quantity(key: str, value: Optional[float]) -> Dict[str, str]:
    return {key: number(value, 3, "0.000"), "is_present": word(value is not None)}


def _platform_json(card: CardProfile) -> Dict[str, Any]:
    controller = {"version": card.shell.sc_version, "expected_version": card.shell.sc_version}
    return {
        "static_region": {"vbnv": card.shell.name, "jtag_idcode": "0x0", "fpga_name": ""},
        "off_chip_board_info": {"ddr_size_bytes": "0x300000000", "ddr_count": "1"},
        "status": {"mig_calibrated": "true", "p2p_status": "not supported"},
        "controller": {
            "satellite_controller": controller,
            "card_mgmt_controller": {"version": "", "serial_number": "", "oem_id": ""},
        },
        "clocks": [{"id": "DATA_CLK", "description": "Data", "freq_mhz": "300"}],
        "macs": [{"address": "00:0A:35:00:00:00"}],
    }


def _host_json(card: CardProfile) -> Dict[str, Any]:
    drivers: Tuple[str, ...] = ("xocl", "xclmgmt") if card.bound else ()
    return {
        "os": {"sysname": "Linux"},
        "xrt": {
            "version": card.xrt,
            "branch": card.host.shell.tools,
            "hash": _HASH,
            "drivers": [{"name": name, "version": card.xrt, "hash": _HASH} for name in drivers],
        },
        "devices": [
            {
                "bdf": card.user_bdf,
                "vbnv": card.shell.name,
                "id": card.uuid,
                "instance": "user(inst=128)",
                "is_ready": word(not card.dead),
            }
        ]
        if card.listed
        else "",
    }
