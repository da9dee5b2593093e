"""Which VCK5000 cards this host has: PCI functions, drivers, shell, versions, readiness.

Three sources are put together: the PCI bus (is there a card, has it drivers), ``xbutil`` (does XRT
see it, is it ready) and ``xbmgmt`` (which shell runs, which is installed). A source that is missing
or refuses leaves its facts empty and says so; every fact names where it is from.
"""

from __future__ import annotations

import platform
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

from ..errors import DeviceError, FormatError, MissingError
from .examine import parse_examine
from .examine_text import (
    ListedDevice,
    ManagementReport,
    Versions,
    full_bdf,
    parse_devices,
    parse_management,
    parse_versions,
)
from .lspci import ARGUMENTS, DRIVERS, SYSFS, PciFunction, Role, parse_lspci, read_sysfs
from .releases import Installed, Silicon
from .tools import run_for_json, run_tool


@dataclass(frozen=True)
class Card:
    """One VCK5000.

    Attributes:
        slot: PCI address without the function.
        management_bdf, user_bdf: its two functions, empty where not seen.
        silicon: make of the card; ``None`` where not told.
        shell: running on the card, empty where not told.
        uuid: of that shell.
        installed_shells: on the host, ready to be flashed or already running.
        management_driver, user_driver: kernel drivers in use, empty for none.
        sc_version, sc_expected: of the satellite controller.
        xrt: version of XRT on the host, empty where there is none.
        ready: whether it can be worked with; ``None`` where nothing tells.
        evidence: name of an attribute to where it is from.
        notes: what is wrong or unusual, with what to do.
    """

    slot: str
    management_bdf: str = ""
    user_bdf: str = ""
    silicon: Optional[Silicon] = None
    shell: str = ""
    uuid: str = ""
    installed_shells: Tuple[str, ...] = ()
    management_driver: str = ""
    user_driver: str = ""
    sc_version: str = ""
    sc_expected: str = ""
    xrt: str = ""
    ready: Optional[bool] = None
    evidence: Dict[str, str] = field(default_factory=dict)
    notes: Tuple[str, ...] = ()

    @property
    def installed(self) -> Installed:
        """What of it is compared with a release."""
        return Installed(self.silicon, self.shell, self.xrt, sc_version=self.sc_version)


@dataclass(frozen=True)
class CardSearch:
    """What was found.

    Attributes:
        cards: by address.
        others: cards of the vendor that are none of ours.
        versions: of XRT and its drivers.
        notes: sources that were missing or refused.
        evidence: where the cards are from.
    """

    cards: Tuple[Card, ...]
    others: Tuple[PciFunction, ...] = ()
    versions: Versions = field(default_factory=Versions)
    notes: Tuple[str, ...] = ()
    evidence: str = ""

    def card(self, bdf: Optional[str] = None) -> Card:
        """The card at an address of either function, or the only one.

        Raises:
            DeviceError: there is none, or several and none was named.
        """
        if not self.cards:
            raise DeviceError(
                "There is no VCK5000 in this host",
                self.absence,
                "check its seat and power: lspci -nn -d 10ee:",
            )
        if bdf is None:
            if len(self.cards) == 1:
                return self.cards[0]
            raise DeviceError(
                f"There are {len(self.cards)} cards and none was named",
                ", ".join(card.user_bdf or card.slot for card in self.cards),
                f"add --device {self.cards[0].user_bdf}",
            )
        slot = full_bdf(bdf).rpartition(".")[0]
        for card in self.cards:
            if card.slot == slot:
                return card
        raise DeviceError(
            f"There is no VCK5000 at {bdf}",
            ", ".join(card.user_bdf or card.slot for card in self.cards),
            "deepfake-fpga board info",
        )

    @property
    def absence(self) -> str:
        """What was seen instead of a card, in words."""
        seen = [f"{self.evidence} shows none" if self.evidence else "nothing could be asked"]
        seen += [f"{f.bdf} is {f.other_card} (10ee:{f.device})" for f in self.others]
        return "; ".join([*seen, *self.notes])


def find_cards(timeout: float = 20.0, sysfs: Path = SYSFS) -> CardSearch:
    """Looks for all cards; a host without any, or without tools, is a result, not an error.

    Args:
        timeout: seconds for each program asked; one that hangs is killed and not asked again.
        sysfs: the kernel's list of PCI functions, where there is no lspci.
    """
    functions, evidence, notes = _functions(timeout, sysfs)
    cards = {
        function.slot: Card(function.slot) for function in functions if function.silicon is not None
    }
    for function in functions:
        if function.slot in cards:
            cards[function.slot] = _with_function(cards[function.slot], function, evidence)
    others = tuple(f for f in functions if f.slot not in cards)

    listed, versions, source, said = _listed(timeout)
    notes += [*said, *_unlike(versions)]
    for device in listed:
        slot = device.bdf.rpartition(".")[0]
        if slot not in cards and "vck5000" in device.shell:
            cards[slot] = Card(slot, evidence={"slot": source})
        if slot in cards:
            cards[slot] = _with_listed(cards[slot], device, source)
    if versions.xrt:
        said_by = source or "xbutil"
        cards = {s: _changed(card, {"xrt": versions.xrt}, said_by) for s, card in cards.items()}
    if source:
        cards = {
            slot: _with_platform(card, timeout, "scan" in source) if card.shell else card
            for slot, card in cards.items()
        }
    managed, manager, said = _managed(timeout) if cards else ((), "", [])
    notes += said
    for report in managed:
        slot = report.bdf.rpartition(".")[0]
        if slot in cards:
            cards[slot] = _with_management(cards[slot], report, manager)
    finished = tuple(_judged(cards[slot], bool(source)) for slot in sorted(cards))
    return CardSearch(finished, others, versions, tuple(notes), evidence)


def _functions(timeout: float, sysfs: Path) -> Tuple[Tuple[PciFunction, ...], str, List[str]]:
    """The vendor's functions on the bus, their source, and why not the other source."""
    try:
        output = run_tool("lspci", ARGUMENTS, timeout).require()
    except (MissingError, DeviceError) as error:
        return read_sysfs(sysfs), str(sysfs), [f"lspci was not used: {error.cause}"]
    return parse_lspci(output.text), f"`{output.line}`", []


def _listed(timeout: float) -> Tuple[Tuple[ListedDevice, ...], Versions, str, List[str]]:
    """Devices and versions as xbutil tells them; the source is empty where it could not."""
    try:
        output = run_tool("xbutil", ["examine"], timeout)
        if output.timed_out:
            output.require()
        devices, versions = parse_devices(output.text), parse_versions(output.text)
        if output.status != 0 and not devices:  # XRT up to 2.11 knows no examine
            scan = run_tool("xbutil", ["scan"], timeout)
            versions = parse_versions(scan.text)
            if not versions.xrt:
                versions = parse_versions(run_tool("xbutil", ["version"], timeout).text)
            if "card" in scan.text + scan.errors:
                output, devices = scan, parse_devices(scan.text)
    except (MissingError, DeviceError) as error:
        return (), Versions(), "", [f"{error.cause} (next: {error.next_step})"]
    if output.status != 0 and not devices:
        return (), versions, "", [f"{output.ending}: {output.last_words or 'no words'}"]
    return devices, versions, f"`{output.line}`", []


def _unlike(versions: Versions) -> List[str]:
    """Drivers of another version than XRT, as in a container on a host of another release."""
    pairs = (("xocl", versions.xocl), ("xclmgmt", versions.xclmgmt))
    other = [f"{name} {version}" for name, version in pairs if version not in ("", versions.xrt)]
    if not other or not versions.xrt:
        return []
    return [f"XRT is {versions.xrt}, the host's drivers are not: {', '.join(other)}"]


def _managed(timeout: float) -> Tuple[Tuple[ManagementReport, ...], str, List[str]]:
    """All cards as xbmgmt tells them, and by which command."""
    try:
        output = run_tool("xbmgmt", ["examine", "-r", "platform"], timeout)
        if output.timed_out:
            output.require()
        reports = parse_management(output.text)
        if not reports:
            legacy = run_tool("xbmgmt", ["flash", "--scan"], timeout)
            reports = parse_management(legacy.text)
            output = legacy if reports else output
    except (MissingError, DeviceError) as error:
        return (), "", [f"{error.cause} (next: {error.next_step})"]
    if reports:
        return reports, f"`{output.line}`", []
    why = output.last_words or "it printed nothing"
    if "no device" not in why.lower():
        why += " (it may need root: sudo xbmgmt examine -r platform)"
    return (), "", [f"xbmgmt told nothing: {why}"]


def _with_function(card: Card, function: PciFunction, source: str) -> Card:
    evidence = {
        **card.evidence,
        "silicon": f"10ee:{function.device} in {source}",
    }
    if function.off_the_bus:
        evidence["ready"] = f"{function.bdf} reads as ff in {source}"
        gone = f"{function.bdf} has fallen off the bus: cold restart"
        card = replace(card, ready=False, notes=(*card.notes, gone))
    if function.role is Role.MANAGEMENT:
        evidence["management_driver"] = evidence["management_bdf"] = source
        return replace(
            card,
            silicon=function.silicon,
            management_bdf=function.bdf,
            management_driver=function.driver,
            evidence=evidence,
        )
    evidence["user_driver"] = evidence["user_bdf"] = source
    return replace(
        card,
        silicon=function.silicon,
        user_bdf=function.bdf,
        user_driver=function.driver,
        evidence=evidence,
    )


def _with_listed(card: Card, device: ListedDevice, source: str) -> Card:
    changes: Dict[str, Any] = {}
    if device.shell and not card.shell:
        changes["shell"] = device.shell
    if device.uuid:
        changes["uuid"] = device.uuid
    if not device.management and device.ready is not None and card.ready is None:
        changes["ready"] = device.ready
    if not device.management and not card.user_bdf:
        changes["user_bdf"] = device.bdf
    if card.silicon is None and device.shell:
        es1 = "-es1" in device.shell
        changes["silicon"] = Silicon.ES1 if es1 else Silicon.PRODUCTION
    return _changed(card, changes, source)


def _with_platform(card: Card, timeout: float, legacy: bool) -> Card:
    """Adds what the user function tells of the platform, which needs no root."""
    if not card.user_bdf:
        return card
    try:
        content, output = run_for_json(
            "xbutil", ["examine", "-d", card.user_bdf, "-r", "platform"], timeout
        )
        reports = parse_examine(content) if content is not None else ()
    except (MissingError, DeviceError, FormatError):
        return card
    source = f"`{output.line}`"
    if not reports and (legacy or output.status == 0):
        return card
    if not reports:
        notes = (*card.notes, f"it does not answer: {output.last_words or output.ending}")
        return _changed(card, {"ready": False, "notes": notes}, source)
    told = reports[0].platform
    found = {
        "shell": told.shell,
        "sc_version": told.sc_version,
        "sc_expected": told.sc_expected,
    }
    return _changed(card, {name: value for name, value in found.items() if value}, source)


def _with_management(card: Card, report: ManagementReport, source: str) -> Card:
    changes: Dict[str, Any] = {"installed_shells": tuple(p.shell for p in report.installed)}
    if not card.management_bdf:
        changes["management_bdf"] = report.bdf
    if report.running is not None:
        if report.running.shell:
            changes["shell"] = report.running.shell
        if report.running.sc_version:
            changes["sc_version"] = report.running.sc_version
        if report.running.uuid and not card.uuid:
            changes["uuid"] = report.running.uuid
    return _changed(card, changes, source)


def _changed(card: Card, changes: Dict[str, Any], source: str) -> Card:
    evidence = {**card.evidence, **dict.fromkeys(changes, source)}
    return replace(card, evidence=evidence, **changes)


def _judged(card: Card, asked: bool) -> Card:
    """Adds the notes, and whether the card is ready where no tool says it.

    ``asked`` is whether XRT's tools answered.
    """
    notes = list(card.notes)
    unbound = [
        f"{bdf} has no driver ({driver})"
        for bdf, found, driver in (
            (card.management_bdf, card.management_driver, DRIVERS[Role.MANAGEMENT]),
            (card.user_bdf, card.user_driver, DRIVERS[Role.USER]),
        )
        # Only the PCI bus tells of drivers.
        if bdf and not found and "silicon" in card.evidence and "10ee:" in card.evidence["silicon"]
    ]
    if unbound:
        notes.append(
            f"{', '.join(unbound)}: XRT is not installed, or its modules were not built for the "
            f"kernel {platform.release()} (see: dkms status; those of XRT 2.11 and 2.12 fail from "
            "5.11 on)"
        )
    golden = bool(card.shell) and not card.shell.rpartition("_")[2].isdigit()
    if golden:
        notes.append(f"{card.shell} is the factory image, flash a shell: xbmgmt program --base")
    if card.installed_shells and card.shell and card.shell not in card.installed_shells:
        notes.append(
            f"{card.shell} runs, {', '.join(card.installed_shells)} is installed: "
            "xbmgmt program --base, then a cold restart"
        )
    es1 = "-es1" in card.shell
    if card.shell and card.silicon is not None and es1 != (card.silicon is Silicon.ES1):
        notes.append(f"the shell {card.shell} is not for {card.silicon.value} silicon")
    if card.sc_expected and card.sc_version and card.sc_expected != card.sc_version:
        notes.append(
            f"the satellite controller is {card.sc_version}, the shell wants {card.sc_expected}"
        )
    ready, evidence = card.ready, dict(card.evidence)
    if ready is None and unbound:
        ready, evidence["ready"] = False, "no driver is bound"
    elif ready is None and asked and not card.shell:
        ready, evidence["ready"] = False, "xbutil does not list it"
    elif ready is None and golden:
        ready, evidence["ready"] = False, "it runs the factory image"
    elif ready is None and asked:
        ready, evidence["ready"] = True, "xbutil lists it with its shell, and says no more"
    if ready is False and not notes:
        notes.append("XRT calls it not ready: xbutil reset, then a cold restart if that is no help")
    return replace(card, ready=ready, evidence=evidence, notes=tuple(notes))
