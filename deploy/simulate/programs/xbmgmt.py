"""``xbmgmt`` of a simulated host: platform reports, flash scan, program, reset.

``__drop_in__``: it changes no flash; ``program --base`` says that the shell is up to date.
"""

from __future__ import annotations

import sys
from typing import List, Sequence

from ..card_profile import CardProfile, current_profile
from ..card_state import CardState
from ..options import active_options
from ..xrt_arguments import Refused, check_device, parse
from ..xrt_legacy import flash_scan_text, version_text
from ..xrt_reports import device_header, host_report, management_report, version_lines

_DEVICE = {"-d": ("device", 1), "--device": ("device", 1)}
_COMMON = {"--verbose": ("verbose", 0), "--batch": ("batch", 0), "--force": ("force", 0)}
_EXAMINE = {**_DEVICE, **_COMMON, "-r": ("report", -1), "--report": ("report", -1)}
_PROGRAM = {
    **_DEVICE,
    **_COMMON,
    "-b": ("base", 0),
    "--base": ("base", 0),
    "--image": ("image", 1),
}
_FLASH = {
    **_DEVICE,
    "--scan": ("scan", 0),
    "--update": ("update", 0),
    "--shell": ("shell", 1),
    "--legacy": ("legacy", 0),
    "--card": ("device", 1),
}
_USAGE = """\
USAGE: xbmgmt [--help] [--version] COMMAND [OPTIONS]

COMMANDS: examine, flash, program, reset"""


def main(argv: Sequence[str]) -> int:
    """Runs one command; 0 or 1, and 1 also for words it does not know."""
    words = list(argv)
    card = current_profile()
    legacy = card.legacy
    if card.host.xrt in ("2.11", "2.12") and words and words[0] in ("--new", "--legacy"):
        legacy = words.pop(0) == "--legacy"
    try:
        return _command(words, card, legacy)
    except Refused as refused:
        print(f"{refused}\n\n{_USAGE}", file=sys.stderr)
        return 1


def _command(words: List[str], card: CardProfile, legacy: bool) -> int:
    if words in (["--version"], ["version"]):
        lines = [line.strip() for line in version_lines(card)]
        print(version_text(card) if legacy else "\n".join(lines))
        return 0
    if not words or words[0] in ("--help", "-h", "help"):
        print(_USAGE)
        return 0
    command, rest = words[0], words[1:]
    if command == "flash" and (legacy or card.host.xrt == "2.12"):
        return _flash(rest, card)
    if legacy or command not in ("examine", "program", "reset"):
        raise Refused(f"ERROR: Unknown command: '{command}'")
    if command == "examine":
        return _examine(rest, card)
    options = parse(rest, _PROGRAM if command == "program" else {**_DEVICE, **_COMMON})
    if "device" not in options:
        raise Refused("ERROR: Please specify a single device using --device option")
    check_device(options, 0, card.listed)
    if command == "reset":
        CardState(active_options().state).reset()
        print(f"Successfully reset Device[{card.management_bdf}]")
    elif "base" not in options:
        raise Refused("ERROR: Nothing to program, try --base")
    else:
        print(f"Device is up-to-date: {card.shell.name}. No flashing was done.")
    return 0


def _examine(words: List[str], card: CardProfile) -> int:
    options = parse(words, _EXAMINE)
    reports = options.get("report", ["platform"] if "device" in options else ["host"])
    for name in reports:
        if name not in ("platform", "host", "all"):
            raise Refused(f"ERROR: No report generator found for report: '{name}'")
    check_device(options, 0, card.listed)
    if "host" in reports or "all" in reports:
        print(host_report(card, management=True))
    if "platform" in reports or "all" in reports:
        if not card.listed:
            raise Refused("ERROR: No devices found")
        if card.dead:
            raise Refused(f"ERROR: Device {card.management_bdf} does not answer")
        print(device_header(card.management_bdf, card))
        print(management_report(card))
    return 0


def _flash(words: List[str], card: CardProfile) -> int:
    options = parse(words, _FLASH)
    check_device(options, 0, card.listed)
    if not card.listed:
        raise Refused("ERROR: No card found")
    if "scan" in options:
        print(flash_scan_text(card), end="")
        return 0
    if "update" in options:
        print(f"Card [{card.management_bdf}]: the shell {card.shell.name} is up to date")
        return 0
    raise Refused("ERROR: flash wants --scan or --update")
