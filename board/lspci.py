"""The VCK5000 on the PCI bus: functions by vendor and device number, from lspci or from sysfs.

The words lspci prints for class and device depend on its database, so only the numbers count. The
card has two functions, management (.0) and user (.1), each with a driver of its own.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, List, Optional, Tuple

from .examine_text import BDF, full_bdf
from .releases import Silicon

VENDOR = "10ee"
SYSFS = Path("/sys/bus/pci/devices")
ARGUMENTS = ("-D", "-nn", "-v", "-d", f"{VENDOR}:")
"""For lspci: domains, numbers beside the words, drivers, one vendor."""


class Role(enum.Enum):
    """What a function of the card is for, and so which driver and tool it belongs to."""

    MANAGEMENT = "management"
    USER = "user"


DEVICES: Dict[str, Tuple[Silicon, Role]] = {
    "5044": (Silicon.ES1, Role.MANAGEMENT),
    "5045": (Silicon.ES1, Role.USER),
    "5048": (Silicon.PRODUCTION, Role.MANAGEMENT),
    "5049": (Silicon.PRODUCTION, Role.USER),
}
"""Device number to make of the card and role of the function."""

DRIVERS = {Role.MANAGEMENT: "xclmgmt", Role.USER: "xocl"}
"""Kernel driver of each function, both from the XRT package."""

_HEADER = re.compile(rf"^\s*({BDF})\s+(\S.*?):\s+(\S.*)$")


@dataclass(frozen=True)
class PciFunction:
    """One function of the vendor's on the bus, a VCK5000's or another card's.

    Attributes:
        bdf: address with its domain, lower case.
        device: number in four lower-case digits; empty where lspci named it instead.
        driver: in use; empty for none.
        modules: drivers that could be used.
        text: what follows the class in lspci's line.
    """

    bdf: str
    device: str
    driver: str = ""
    modules: Tuple[str, ...] = ()
    text: str = ""

    @property
    def silicon(self) -> Optional[Silicon]:
        """Make of the VCK5000; ``None`` for another card."""
        return DEVICES[self.device][0] if self.device in DEVICES else None

    @property
    def role(self) -> Optional[Role]:
        """What the function is for; ``None`` for another card."""
        return DEVICES[self.device][1] if self.device in DEVICES else None

    @property
    def slot(self) -> str:
        """The address without the function, which both functions of a card share."""
        return self.bdf.rpartition(".")[0]

    @property
    def off_the_bus(self) -> bool:
        """Whether reads from it give only ones, as from a card that has died or been unplugged."""
        return "(rev ff)" in self.text

    @property
    def other_card(self) -> str:
        """What card it is instead of a VCK5000; empty for a VCK5000."""
        if self.device in DEVICES:
            return ""
        if self.device in ("5078", "5079"):
            return "a V65"
        if self.device in ("5094", "5095"):
            return "a V70"
        if re.match(r"^50[0-2][0-9a-f]$", self.device):
            return "an Alveo U card"
        return "another device of the vendor"


def parse_lspci(said: str) -> Tuple[PciFunction, ...]:
    """Reads ``lspci -v``, with or without ``-n``, ``-nn`` and ``-D``, also from a document.

    Returns:
        All functions of vendor 10ee; other vendors and surrounding words are passed over.
    """
    found: List[PciFunction] = []
    header: Optional[PciFunction] = None
    fields: Dict[str, str] = {}

    def close() -> None:
        if header is not None:
            modules = tuple(re.split(r"[,\s]+", fields.get("kernel modules", "").strip()))
            found.append(
                PciFunction(
                    header.bdf,
                    header.device,
                    fields.get("kernel driver in use", "").strip(),
                    modules if modules != ("",) else (),
                    header.text,
                )
            )
        fields.clear()

    for line in said.splitlines():
        match = _HEADER.match(line)
        if match:
            close()
            header = _function(match.group(1), match.group(3))
        elif not line.strip():
            close()
            header = None
        elif header is not None:
            key, _, value = line.strip().partition(":")
            fields.setdefault(key.lower(), value)
    close()
    return tuple(found)


def read_sysfs(root: Path = SYSFS) -> Tuple[PciFunction, ...]:
    """The same from the kernel's own list, for hosts and containers without lspci.

    Args:
        root: folder with one entry per PCI function.
    """
    found = []
    for entry in sorted(root.iterdir()) if root.is_dir() else ():
        if _hexadecimal(entry / "vendor") != VENDOR:
            continue
        driver = entry / "driver"
        found.append(
            PciFunction(
                full_bdf(entry.name),
                _hexadecimal(entry / "device"),
                # A link to the driver's folder; there is none without a driver.
                driver.resolve().name if driver.exists() else "",
            )
        )
    return tuple(found)


def _function(bdf: str, after: str) -> Optional[PciFunction]:
    """The function a header line describes, ``None`` for another vendor's."""
    numbers = re.search(r"(?:^|\[)([0-9a-fA-F]{4}):([0-9a-fA-F]{4})(?:\]|\s|$)", after)
    if numbers:
        if numbers.group(1).lower() != VENDOR:
            return None
        return PciFunction(full_bdf(bdf), numbers.group(2).lower(), text=after)
    if "xilinx" not in after.lower():
        return None
    device = re.search(r"\bDevice ([0-9a-fA-F]{4})\b", after)
    return PciFunction(full_bdf(bdf), device.group(1).lower() if device else "", text=after)


def _hexadecimal(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii", errors="replace").strip().lower().replace("0x", "")
    except OSError:
        return ""
