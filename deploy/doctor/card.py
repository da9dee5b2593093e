"""Checks of the card itself: on the bus, its drivers, its shell, its nodes, its health."""

from __future__ import annotations

import os
from typing import Iterator, List

from ...board.cards import Card
from ...errors import ToolkitError
from ..simulate.options import active_options
from .facts import Facts, Place
from .findings import Finding, Purpose, needs

_CARD = needs(Purpose.CARD)
_BUS = "sudo lspci -vd 10ee:"


def check_card(facts: Facts) -> Iterator[Finding]:
    """Which cards there are, and what is wrong with them."""
    search = facts.search
    if facts.place is Place.SIMULATED and not search.cards:
        absent = active_options(facts.host.env).card == "absent"
        seen = "the simulated host has no card" if absent else "the card is simulated"
        yield Finding("card", False if absent else None, seen, "simulate --card production", _CARD)
        return
    if not search.cards:
        seen = "no VCK5000"
        seen += "".join(f"; {f.bdf} is {f.other_card} (10ee:{f.device})" for f in search.others)
        wanted = Purpose.CARD in facts.wanted
        notes = f" ({'; '.join(search.notes)})" if wanted and search.notes else ""
        good = None if not wanted and not search.others else False
        yield Finding("card", good, seen + notes, _BUS, _CARD)
        return
    for card in search.cards:
        yield from _card(card)
    if len(search.cards) > 1:
        addresses = ", ".join(card.user_bdf or card.slot for card in search.cards)
        yield Finding("cards", True, f"{len(search.cards)}: {addresses}")


def _card(card: Card) -> Iterator[Finding]:
    make = card.silicon.value if card.silicon else "make unknown"
    shell = card.shell or "shell unknown"
    seen = f"{card.user_bdf or card.slot}, {make}, {shell}"
    yield Finding("card", True, seen)
    if card.ready is False or card.notes:
        seen = "; ".join(card.notes) or "XRT calls it not ready"
        fix = "deepfake-fpga board info"
        if not (card.user_driver and card.management_driver) and "driver" in seen:
            fix = "dkms status; sudo modprobe xclmgmt && sudo modprobe xocl"
        # Notes on a card that is ready are for the owner to weigh.
        needed = _CARD if card.ready is False else frozenset()
        yield Finding("card's state", False, seen, fix, needed)
    elif card.ready:
        yield Finding("card's state", True, "ready")
    else:
        yield Finding(
            "card's state",
            None,
            "nothing here tells: xbutil is not there",
            "source /opt/xilinx/xrt/setup.sh",
        )


def check_nodes(facts: Facts) -> Iterator[Finding]:
    """The device nodes through which the card is used."""
    if facts.drop_in or not facts.card_matters or facts.place is Place.SIMULATED:
        yield Finding("device nodes", None, "only a card has them")
        return
    management, render = facts.host.device_nodes()
    ours = [node for node in render if _is_ours(facts, node)]
    inside = facts.place in (Place.VITIS, Place.CONTAINER)
    again = "deepfake-fpga session  # starts the container with them"
    yield Finding(
        "/dev/dri/renderD*",
        bool(ours),
        ", ".join(ours)
        or (f"only another card's: {', '.join(render)}" if render else "none: docker would say"
            " 'error gathering device information', the runtime 'No devices available'"),
        again if inside else "sudo modprobe xocl  # a cold restart if none appears",
        _CARD,
    )  # fmt: skip
    yield Finding(
        "/dev/xclmgmt*",
        bool(management),
        ", ".join(management) or "none",
        again if inside else "sudo modprobe xclmgmt  # a cold restart if none appears",
        frozenset() if inside else _CARD,
    )
    closed = [node for node in ours if not _usable(facts, node)]
    if closed:
        yield Finding(
            "permission",
            False,
            f"{facts.host.user[0]} may not use {', '.join(closed)}",
            "sudo usermod -aG render $USER && newgrp render",
            _CARD,
        )


def _is_ours(facts: Facts, node: str) -> bool:
    """A render node may be a graphics card's; the kernel tells, where it does at all."""
    vendor = facts.host.read(f"/sys/class/drm/{node.rpartition('/')[2]}/device/vendor").strip()
    return vendor in ("", "0x10ee")


def _usable(facts: Facts, node: str) -> bool:
    return os.access(str(facts.host.at(node)), os.R_OK | os.W_OK)


def check_health(facts: Facts) -> Iterator[Finding]:
    """Temperature and power of each card, where they can be read."""
    if not facts.search.cards:
        yield Finding("health", None, "no card to ask")
        return
    for card in facts.search.cards:
        if card.ready is False or not card.user_bdf:
            yield Finding("health", None, f"{card.slot} cannot be asked before it is ready")
            continue
        try:
            health = facts.host.health(card.user_bdf)
        except ToolkitError as error:
            seen = f"{error.cause}: {error.evidence}" if error.evidence else error.cause
            yield Finding("health", False, seen, error.next_step or "xbutil examine")
            continue
        read: List[str] = []
        read += [f"{health.celsius:.0f} °C"] if health.celsius is not None else []
        read += [f"{health.power_watts:.1f} W"] if health.power_watts is not None else []
        seen = ", ".join(read) or "; ".join(health.notes) or "nothing was read"
        if health.warnings:
            yield Finding(
                "health",
                False,
                f"{seen}: {'; '.join(health.warnings)}",
                "deepfake-fpga board watch  # and check the airflow through the card",
                _CARD if health.stops else frozenset(),
            )
        else:
            yield Finding("health", bool(read) or None, seen)
