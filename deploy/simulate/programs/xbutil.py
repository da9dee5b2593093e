"""``xbutil`` of a simulated host: the forms of XRT 2.11 (legacy), 2.12 and 2.14.

``__drop_in__``: reports, validation, reset and program; what it prints has the shapes of recorded
output, the wording of refusals is our own.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Callable, Dict, List, Optional, Sequence

from ..card_profile import CardProfile, current_profile
from ..card_state import CardState
from ..options import active_options
from ..xrt_arguments import Options, Refused, check_device, parse
from ..xrt_legacy import dump_text, query_text, scan_text, version_text
from ..xrt_reports import REPORTS, device_header, document, host_report, version_lines
from ..xrt_validation import legacy_validate_text, validate_text

_DEVICE = {"-d": ("device", 1), "--device": ("device", 1)}
_COMMON = {"--verbose": ("verbose", 0), "--batch": ("batch", 0), "--force": ("force", 0)}
_EXAMINE = {
    **_DEVICE,
    **_COMMON,
    "-r": ("report", -1),
    "--report": ("report", -1),
    "-f": ("format", 1),
    "--format": ("format", 1),
    "-o": ("output", 1),
    "--output": ("output", 1),
}
_RUN = {**_DEVICE, **_COMMON, "-r": ("run", -1), "--run": ("run", -1)}
_RESET = {**_DEVICE, **_COMMON, "-t": ("type", 1), "--type": ("type", 1)}
_PROGRAM = {**_DEVICE, **_COMMON, "-u": ("user", 1), "--user": ("user", 1)}
_LEGACY_PROGRAM = {**_DEVICE, "-p": ("user", 1)}
_FORMATS = ("JSON", "JSON-2020.2")
_USAGE = """\
USAGE: xbutil [--help] [--version] COMMAND [OPTIONS]

COMMANDS: examine, program, reset, validate"""
_LEGACY_USAGE = """\
Usage: xbutil COMMAND [OPTIONS]

Commands: dump, list, program, query, reset, scan, validate, version"""


def main(argv: Sequence[str]) -> int:
    """Runs one command; 0 or 1, and 1 also for words it does not know."""
    words = list(argv)
    card = current_profile()
    legacy = card.legacy
    # The later tools know neither word.
    if card.host.xrt in ("2.11", "2.12") and words and words[0] in ("--new", "--legacy"):
        legacy = words.pop(0) == "--legacy"
    try:
        return _legacy(words, card) if legacy else _current(words, card)
    except Refused as refused:
        print(f"{refused}\n\n{_LEGACY_USAGE if legacy else _USAGE}", file=sys.stderr)
        return 1


def _current(words: List[str], card: CardProfile) -> int:
    if words == ["--version"]:
        print("\n".join(line.strip() for line in version_lines(card)))
        return 0
    if not words or words[0] in ("--help", "-h"):
        print(_USAGE)
        return 0
    commands: Dict[str, Callable[[List[str], CardProfile], int]] = {
        "examine": _examine,
        "validate": _validate,
        "reset": _reset,
        "program": _program,
    }
    if words[0] not in commands:
        raise Refused(f"ERROR: Unknown command: '{words[0]}'")
    return commands[words[0]](words[1:], card)


def _examine(words: List[str], card: CardProfile) -> int:
    options = parse(words, _EXAMINE)
    reports = options.get("report", [])
    for name in reports:
        if name not in REPORTS and name not in ("host", "all"):
            raise Refused(f"ERROR: No report generator found for report: '{name}'")
    output = _output_file(options)
    check_device(options, 1, card.listed)
    if not reports:
        reports = ["platform"] if "device" in options else ["host"]
    if "all" in reports:
        reports = ["host", *REPORTS]
    of_device = [name for name in REPORTS if name in reports]
    if of_device and not card.listed:
        raise Refused("ERROR: No devices found")
    if of_device and card.dead:
        raise Refused(f"ERROR: Device {card.user_bdf} is not ready, it does not answer")
    if "host" in reports:
        print(host_report(card))
    if of_device:
        print(device_header(card.user_bdf, card))
        for name in of_device:
            print(REPORTS[name](card) + "\n")
    if output is not None:
        text = json.dumps(document(card, reports), indent=4) + "\n"
        output.write_text(text, encoding="utf-8")
        print(f"Successfully wrote the {options['format'][0]} file: {output}")
    return 0


def _output_file(options: Options) -> Optional[Path]:
    if "format" not in options and "output" not in options:
        return None
    if options.get("format", [""])[0] not in _FORMATS:
        raise Refused(f"ERROR: Unknown output format, it is one of {', '.join(_FORMATS)}")
    if "output" not in options:
        raise Refused("ERROR: An output format needs an output file (-o)")
    file = Path(options["output"][0])
    if file.exists() and "force" not in options:
        raise Refused(f"ERROR: The output file '{file}' already exists. Remove it or use '--force'")
    return file


def _validate(words: List[str], card: CardProfile) -> int:
    options = parse(words, _RUN)
    tests = [test.lower() for test in options.get("run", ["all"])]
    for test in tests:
        if test not in ("all", "quick"):
            raise Refused(f"ERROR: No test found for '{test}' (all, quick)")
    check_device(options, 1, card.listed)
    if not card.listed:
        raise Refused("ERROR: No devices found")
    text, passed = validate_text(card, "quick" in tests, "verbose" in options)
    print(text)
    return 0 if passed else 1


def _reset(words: List[str], card: CardProfile) -> int:
    options = parse(words, _RESET)
    _need_device(options, card)
    print(f"Performing 'HOT Reset' on '{card.user_bdf}'")
    if "force" not in options:
        print("Are you sure you wish to proceed? [Y/n]: ", end="", flush=True)
        answer = sys.stdin.readline()
        # No answer at all (no terminal) is no consent.
        if not answer or answer.strip().lower() not in ("", "y", "yes"):
            print("\nAction canceled.")
            return 1
    state = active_options().state
    CardState(state).reset()
    print(f"Successfully reset Device[{card.user_bdf}]")
    return 0


def _program(words: List[str], card: CardProfile) -> int:
    options = parse(words, _PROGRAM)
    _need_device(options, card)
    return _load(options, card)


def _need_device(options: Options, card: CardProfile) -> None:
    if "device" not in options:
        raise Refused("ERROR: Please specify a single device using --device option")
    check_device(options, 1, card.listed)


def _load(options: Options, card: CardProfile) -> int:
    if "user" not in options:
        raise Refused("ERROR: No xclbin was named")
    file = Path(options["user"][0])
    if not file.is_file():
        raise Refused(f"ERROR: Unable to open the xclbin file '{file}'")
    with file.open("rb") as stream:
        if stream.read(7) != b"xclbin2":
            raise Refused(f"ERROR: '{file}' is not an xclbin")
    if card.dead:
        raise Refused(f"ERROR: Device {card.user_bdf} is not ready, it does not answer")
    print("INFO: xbutil program succeeded.")
    return 0


def _legacy(words: List[str], card: CardProfile) -> int:
    if not words or words[0] in ("help", "--help", "-h"):
        print(_LEGACY_USAGE)
        return 0
    command, rest = words[0], words[1:]
    if command in ("version", "--version"):
        print(version_text(card), end="")
        return 0
    if command not in ("scan", "list", "query", "dump", "validate", "reset", "program"):
        raise Refused(f"ERROR: Unable to parse command '{command}'")
    known = {"scan": {}, "list": {}, "reset": {**_DEVICE, "-y": ("force", 0)}}.get(command, _DEVICE)
    options = parse(rest, _LEGACY_PROGRAM if command == "program" else known)
    if not card.listed:
        print("INFO: Found total 0 card(s), 0 are usable", file=sys.stderr)
        return 1
    check_device(options, 1, card.listed)
    if command in ("scan", "list"):
        print(scan_text(card), end="")
        return 0
    if command == "validate":
        text, passed = legacy_validate_text(card)
        print(text, end="")
        return 0 if passed else 1
    if command == "program":
        return _load(options, card)
    if command == "reset":
        if "force" not in options:
            raise Refused("ERROR: reset needs -y where there is no terminal")
        CardState(active_options().state).reset()
        print("INFO: xbutil reset succeeded.")
        return 0
    if card.dead:
        print("ERROR: Card index 0 is not ready", file=sys.stderr)
        return 1
    print(dump_text(card) if command == "dump" else query_text(card), end="")
    return 0
