"""``lspci`` of a simulated host, on which only the card is of interest.

``__drop_in__``: it knows the options that are used to look for a card (-v, -n, -nn, -k, -D,
-d, -s) and lists no other device.
"""

from __future__ import annotations

import getopt
import sys
from typing import List, Sequence

from ..card_profile import SLOT, CardProfile, current_profile

_MEMORY = (
    ("e0000000 (64-bit, prefetchable) [size=128M]", "e8000000 (64-bit, prefetchable) [size=128K]"),
    ("e8020000 (64-bit, prefetchable) [size=64K]", "d0000000 (64-bit, prefetchable) [size=256M]"),
)
_DRIVERS = ("xclmgmt", "xocl")


def main(argv: Sequence[str]) -> int:
    """Lists the card's functions; status 1 for options it does not know."""
    try:
        options, rest = getopt.getopt(list(argv), "vnkDd:s:")
    except getopt.GetoptError as error:
        print(f"lspci: {error}\nUsage: lspci [<switches>]", file=sys.stderr)
        return 1
    if rest:
        print("Usage: lspci [<switches>]", file=sys.stderr)
        return 1
    names = [name for name, _ in options]
    values = dict(options)
    vendor, _, device = values.get("-d", "").lower().partition(":")
    card = current_profile()
    if not card.present or vendor not in ("", "10ee"):
        return 0
    for function in (0, 1):
        if device not in ("", "*", card.devices[function]):
            continue
        if values.get("-s") not in (None, f"{SLOT}.{function}", f"{SLOT[5:]}.{function}"):
            continue
        lines = _function(card, function, "-D" in names, names.count("-n"))
        print("\n".join(lines if "-v" in names or "-k" in names else lines[:1]))
        if "-v" in names:
            print()
    return 0


def _function(card: CardProfile, function: int, domain: bool, numbers: int) -> List[str]:
    from ....board.releases import Silicon

    es1 = card.silicon is Silicon.ES1
    name, number = ("Processing accelerators", "1200") if es1 else ("Memory controller", "0580")
    device = card.devices[function]
    words = {
        0: f"{name}: Xilinx Corporation Device {device}",
        1: f"{number}: 10ee:{device}",
        2: f"{name} [{number}]: Xilinx Corporation Device [10ee:{device}]",
    }[min(numbers, 2)]
    address = f"{SLOT}.{function}" if domain else f"{SLOT[5:]}.{function}"
    if card.dead:
        lines = [f"{address} {words} (rev ff)", "\t!!! Unknown header type 7f"]
    else:
        lines = [
            f"{address} {words}",
            "\tSubsystem: Xilinx Corporation Device 000e",
            "\tPhysical Slot: 0-10",
            "\tFlags: bus master, fast devsel, latency 0",
        ]
        lines += [f"\tMemory at {memory}" for memory in _MEMORY[function]]
    if card.bound:
        lines.append(f"\tKernel driver in use: {_DRIVERS[function]}")
        lines.append(f"\tKernel modules: {_DRIVERS[function]}")
    return lines
