"""How the simulated ``xbutil`` and ``xbmgmt`` read their words, and what they refuse."""

from __future__ import annotations

from typing import Dict, List, Mapping, Sequence, Tuple

from .card_profile import SLOT


class Refused(Exception):  # noqa: N818 - what the program says before it ends
    """The program ends with status 1 and these words."""


Options = Dict[str, List[str]]
"""Long name of each option given, with its values."""


def parse(words: Sequence[str], known: Mapping[str, Tuple[str, int]]) -> Options:
    """Sorts words into options.

    Args:
        words: after the command.
        known: spelling to (long name, values): -1 for one or more, up to the next option.

    Raises:
        Refused: a word that is no option, or a value that is missing.
    """
    options: Options = {}
    rest = list(words)
    while rest:
        spelling, _, attached = rest.pop(0).partition("=")
        if spelling not in known:
            raise Refused(f"ERROR: Unrecognized arguments:\n  {spelling}")
        name, count = known[spelling]
        values = options.setdefault(name, [])
        if attached:
            rest.insert(0, attached)
        if count == 0:
            continue
        taken = 0
        while rest and not rest[0].startswith("-") and (count < 0 or taken < count):
            values.append(rest.pop(0))
            taken += 1
        if taken == 0:
            raise Refused(f"ERROR: the required argument for option '{spelling}' is missing")
    return options


def check_device(options: Options, function: int, listed: bool) -> None:
    """Refuses a device that is not the function this program is for.

    Raises:
        Refused: there is no such device.
    """
    for word in options.get("device", []):
        if not listed:
            raise Refused(f"ERROR: No devices found. Specified device BDF: '{word}'")
        address = word.lower() if word.count(":") == 2 else f"0000:{word.lower()}"
        if word.isdigit():
            address = f"{SLOT}.{function}" if int(word) == 0 else word
        if address == f"{SLOT}.{1 - function}":
            raise Refused(
                f"ERROR: Specified device BDF '{word}' is a {_NAMES[1 - function]} function, "
                f"this program wants the {_NAMES[function]} function"
            )
        if address != f"{SLOT}.{function}":
            raise Refused(f"ERROR: Specified device BDF '{word}' not found")


_NAMES = ("management", "user")
