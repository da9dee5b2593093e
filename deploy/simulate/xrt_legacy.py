"""What ``xbutil`` and ``xbmgmt`` printed up to XRT 2.11: scan, query, dump, flash scan."""

from __future__ import annotations

import json
from typing import Any, Dict, List, Optional

from .card_profile import CardProfile

_LEGACY_NAMES = {
    "pcb_top_front": "top_front",
    "pcb_top_rear": "top_rear",
    "pcb_bottom_front": "btm_front",
}
_RULE = "~" * 64


def version_text(card: CardProfile) -> str:
    """The legacy command ``version``."""
    return (
        f"XRT Build Version: {card.xrt}\n"
        f"     Build Branch: {card.host.shell.tools}\n"
        f"XOCL: {card.xrt}\nXCLMGMT: {card.xrt}\n"
    )


def scan_text(card: CardProfile) -> str:
    """The legacy commands ``scan`` and ``list``; a star marks a card that is not ready."""
    usable = 0 if card.dead else 1
    star = "*" if card.dead else ""
    line = f"{star}[0] {card.user_bdf} {card.shell.name}(ID={card.uuid}) user(inst=128)"
    text = f"INFO: Found total 1 card(s), {usable} are usable\n{_RULE}\n{line}\n"
    if card.dead:
        text += "WARNING: card(s) marked by '*' are not ready.\n"
    return text


def dump(card: CardProfile) -> Dict[str, Any]:
    """The legacy command ``dump``: strings, mV and mA, 0 for what is absent."""
    thermal: Dict[str, Any] = {"pcb": {}}
    for name, _, value in card.temperatures():
        said = f"{value or 0:.0f}"
        if name in _LEGACY_NAMES:
            thermal["pcb"][_LEGACY_NAMES[name]] = said
        elif name.lower() in ("fpga0", "fpga"):
            thermal["fpga_temp"] = said
    thermal.update(tcrit_temp="0", fan_presence="P", fan_speed="0", vccint_temp="0", hbm_temp="0")
    thermal["cage"] = {f"temp{i}": "0" for i in range(4)}
    electrical = {
        rail.name.lower().replace(" ", "_"): {
            "voltage": _milli(rail.volts),
            "current": _milli(rail.amps),
        }
        for rail in card.rails()
    }
    electrical["power_warn"] = {"current": "1" if card.power_warning else "0"}
    return {
        "board": {
            "info": {
                "dsa_name": card.shell.name,
                "sc_version": card.shell.sc_version,
                "mig_calibrated": "true",
            },
            "physical": {
                "thermal": thermal,
                "electrical": electrical,
                "power": "N/A" if card.watts is None else f"{card.watts:.0f}",
            },
        }
    }


def dump_text(card: CardProfile) -> str:
    """``dump`` as printed."""
    return json.dumps(dump(card), indent=4) + "\n"


def query_text(card: CardProfile) -> str:
    """The legacy command ``query``: tables of 16 columns."""
    board = dump(card)["board"]
    physical = board["physical"]
    pcb = physical["thermal"]["pcb"]
    electrical = physical["electrical"]

    def row(*cells: str) -> str:
        return "".join(f"{cell:<16}" for cell in cells).rstrip()

    lines: List[str] = [
        _RULE,
        row("Shell", "", "", "SC Version"),
        f"{card.shell.name:<48}{card.shell.sc_version}",
        _RULE,
        "Temperature(C)",
        row("PCB TOP FRONT", "PCB TOP REAR", "PCB BTM FRONT"),
        row(*(pcb.get(key, "N/A") for key in ("top_front", "top_rear", "btm_front"))),
        row("FPGA TEMP", "TCRIT Temp", "FAN Presence", "FAN Speed(RPM)"),
        row(physical["thermal"].get("fpga_temp", "N/A"), "N/A", "P", "N/A"),
        _RULE,
        "Electrical(mV|mA)",
        row("12V PEX", "12V AUX", "12V PEX Current", "12V AUX Current"),
        row(
            electrical["12v_pex"]["voltage"],
            electrical["12v_aux"]["voltage"],
            electrical["12v_pex"]["current"],
            electrical["12v_aux"]["current"],
        ),
        _RULE,
        "Card Power(W)",
        physical["power"],
        "",
    ]
    return "\n".join(lines)


def flash_scan_text(card: CardProfile) -> str:
    """``xbmgmt flash --scan``."""
    partition = f"        {card.shell.name},[ID={card.uuid}],[SC={card.shell.sc_version}]"
    kind = "vck5000-es1" if "-es1" in card.shell.name else "vck5000"
    return "\n".join(
        [
            f"Card [{card.management_bdf}]",
            f"    Card type:\t\t{kind}",
            "    Flash type:\t\tOSPI_VERSAL",
            "    Flashable partition running on FPGA:",
            partition,
            "    Flashable partitions installed in system:",
            partition,
            "",
        ]
    )


def _milli(value: Optional[float]) -> str:
    return "0" if value is None else f"{value * 1000:.0f}"
