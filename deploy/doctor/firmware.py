"""Checks of what the runtime reads from the environment: xclbin, XRT, XRM."""

from __future__ import annotations

from pathlib import Path
from typing import Iterator, List, Optional, Tuple

from ...board.releases import OVERLAYS
from ...inference.devices.preflight import build_of, firmware_files
from .facts import Facts, Place
from .findings import Finding, Purpose, needs

VARIABLE = "XLNX_VART_FIRMWARE"
DEFAULT_VARIANT = "8pe_normal"
_CARD = needs(Purpose.CARD)


def variant_wanted(facts: Facts) -> Tuple[str, str]:
    """The DPU variant to prepare for, and why."""
    for xclbin in _xclbins(facts):
        build = build_of(xclbin)
        if build is not None:
            return build.variant, f"{VARIABLE} is of {build.variant}"
    return DEFAULT_VARIANT, f"no xclbin tells the variant, {DEFAULT_VARIANT} is the usual one"


def _xclbins(facts: Facts) -> List[Path]:
    value = facts.host.env.get(VARIABLE, "")
    return firmware_files(str(facts.host.at(value))) if value else []


def setup_folder(facts: Facts) -> str:
    """Folder of the vendor's set-up scripts, in the Vitis-AI folder of the release."""
    return facts.release.setup_folder if facts.release else "board_setup/vck5000"


def setup_command(facts: Facts, variant: Optional[str] = None) -> str:
    """The vendor's set-up script with the right argument."""
    if facts.release is None:
        return "source board_setup/vck5000/setup.sh DPUCVDX8H_8pe_normal"
    known = [setup.variant for setup in facts.release.setups]
    setup = facts.release.setup(variant if variant in known else None)
    return f"source /vitis_ai_home/{facts.release.setup_folder}/setup.sh {setup.argument}".rstrip()


def check_firmware(facts: Facts) -> Iterator[Finding]:
    """Whether ``XLNX_VART_FIRMWARE`` is right by itself, for ``XCLBIN_PATH`` and for the card."""
    value = facts.host.env.get(VARIABLE, "")
    if not facts.inside:
        yield from _overlays(facts)
        if not value:
            yield Finding(VARIABLE, None, "not set; it is set inside the container")
            return
    fix = setup_command(facts)
    if not value:
        yield Finding(
            VARIABLE,
            False,
            "not set: setup.sh was not sourced, or found no card or did not know its argument"
            " (it says so among other lines and ends with status 0 all the same)",
            f"{fix}; echo ${VARIABLE}",
            _CARD,
        )
        return
    files = _xclbins(facts)
    if not files:
        folder = facts.host.is_dir(value)
        what = "a folder without an xclbin" if folder else "not there"
        yield Finding(
            VARIABLE,
            False,
            f"{value} is {what} (setup.sh does not look)",
            f"ls {OVERLAYS}/*",
            _CARD,
        )
        return
    yield Finding(VARIABLE, True, value)
    builds = {build.variant for build in map(build_of, files) if build is not None}
    if len(builds) > 1:
        seen = f"{value} holds xclbins of {', '.join(sorted(builds))}: which is taken is left open"
        yield Finding("variant", False, seen, fix, frozenset())
    elif builds:
        yield Finding("variant", True, builds.pop())
    else:
        seen = f"the name {files[0].name} does not tell the DPU variant"
        yield Finding("variant", None, seen)
    yield from _shell(facts, [file.name for file in files])
    path = facts.host.env.get("XCLBIN_PATH", "")
    holder = value if facts.host.is_dir(value) else value.rpartition("/")[0]
    if path and path.rstrip("/") != holder.rstrip("/"):
        seen = f"{path} is not the folder of {VARIABLE}: one of the two is of an earlier setup.sh"
        yield Finding("XCLBIN_PATH", False, seen, fix)


def _shell(facts: Facts, names: List[str]) -> Iterator[Finding]:
    """An xclbin carries the name of the shell it is for."""
    running = facts.search.cards[0].shell if facts.search.cards else ""
    written = [name for name in names if "xilinx_vck5000" in name]
    if not running or not written:
        return
    wanted = written[0][written[0].index("xilinx_vck5000") :].rpartition(".")[0]
    if any(running in name for name in written):
        yield Finding("xclbin's shell", True, f"{wanted}, as the card runs")
        return
    yield Finding(
        "xclbin's shell",
        False,
        f"{wanted}, the card runs {running}: loading it would end with err=-22",
        "deepfake-fpga session --release auto  # xclbins and image of the card's shell",
        _CARD,
    )


def _overlays(facts: Facts) -> Iterator[Finding]:
    """On a host: the xclbins that the container will be given."""
    if not facts.card_matters or facts.place is not Place.HOST:
        return
    found = facts.host.glob(OVERLAYS, "*/*.xclbin")
    if found:
        count = len(found)
        yield Finding("xclbins", True, f"{count} in {OVERLAYS}")
        return
    fix = f"cd Vitis-AI/{setup_folder(facts)} && source ./install.sh"
    yield Finding("xclbins", False, f"none in {OVERLAYS}", fix, _CARD)


def check_xrt(facts: Facts) -> Iterator[Finding]:
    """XRT's set-up and XRM's daemon."""
    if not facts.card_matters or facts.place is Place.SIMULATED:
        yield Finding("XILINX_XRT", None, "only a card needs XRT")
        return
    value = facts.host.env.get("XILINX_XRT", "")
    if value and facts.host.is_dir(value):
        yield Finding("XILINX_XRT", True, value)
    else:
        seen = f"{value} is not there" if value else "not set"
        if not value and facts.host.is_dir("/opt/xilinx/xrt"):
            seen += ", though /opt/xilinx/xrt is there"
        needed = _CARD if facts.inside else frozenset()
        yield Finding("XILINX_XRT", False, seen, "source /opt/xilinx/xrt/setup.sh", needed)
    if facts.inside or facts.place is not Place.HOST:
        return  # the daemon is the host's
    if facts.host.env.get("RTE_ACQUIRE_DEVICE_UNMANAGED") == "1":
        yield Finding("xrmd", None, "RTE_ACQUIRE_DEVICE_UNMANAGED=1: the runtime does without XRM")
        return
    running = any(
        facts.host.read(f"{process}/comm").strip() == "xrmd"
        for process in facts.host.glob("/proc", "[0-9]*")
    )
    yield Finding(
        "xrmd",
        running,
        "runs"
        if running
        else "XRM's daemon does not run: runners would end with VART_XRM_CONNECT_ERROR",
        "sudo systemctl restart xrmd",
        _CARD,
    )
