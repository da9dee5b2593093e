"""Which card, shell, XRT, XRM and container each Vitis AI release goes with.

The vendor says it in many places and for one release at a time; here it is one table. A card that
does not match its container fails late and with other words, so ``problems`` compares first.
Platform UUIDs are no part of it: several builds of one shell are in the field.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass
from typing import Dict, Optional, Tuple

from ..errors import UsageError

OVERLAYS = "/opt/xilinx/overlaybins/DPUCVDX8H"
"""Folder of the DPU's xclbins, one folder per variant in it."""

_CLOCK = "350M"


class Silicon(enum.Enum):
    """The two makes of the card; a model or an image for one does not run on the other."""

    ES1 = "es1"
    PRODUCTION = "production"


@dataclass(frozen=True)
class Shell:
    """One platform of the card.

    Attributes:
        name: as xbutil prints it.
        tools: release of the Xilinx tools it came with.
        xrt: major and minor version of XRT it needs.
        xrt_build: full version it was published with, as far as known.
        sc_version: of the satellite controller.
    """

    name: str
    tools: str
    xrt: str
    xrt_build: str
    sc_version: str


SHELLS: Tuple[Shell, ...] = (
    Shell("xilinx_vck5000-es1_gen3x16_base_2", "2021.1", "2.11", "2.11.648", "4.4.6"),
    Shell("xilinx_vck5000_gen3x16_xdma_base_1", "2021.2", "2.12", "2.12.427", "4.4.12"),
    Shell("xilinx_vck5000_gen4x8_xdma_base_2", "2022.1", "2.13", "2.13.466", "4.4.33"),
    Shell("xilinx_vck5000_gen4x8_qdma_base_2", "2022.2", "2.14", "2.14.354", "4.4.35"),
)
"""Every published shell, oldest first; the second to last belongs to no Vitis AI release."""


@dataclass(frozen=True)
class Setup:
    """How one DPU variant is chosen inside the container.

    Attributes:
        variant: our name of it (``8pe_normal``).
        argument: of the vendor's ``setup.sh``; empty for none.
        folder: of its xclbin, below ``OVERLAYS``.
        build: in the xclbin's file name.
    """

    variant: str
    argument: str
    folder: str
    build: str


@dataclass(frozen=True)
class CardRelease:
    """One Vitis AI release that knows the card.

    Attributes:
        name: ``2.5``.
        silicon: of the cards it supports.
        shell: it was built for.
        xrt_package, xrm_package: versions inside the image; the host's must match.
        images: names under which the container image is in use, the one to pull first.
        image_note: what is uncertain about the tag, or empty.
        setup_folder: of ``setup.sh``, below the vendor's repository.
        setups: one per DPU variant, the default first.
        python: of the environment with the vendor's modules.
    """

    name: str
    silicon: Silicon
    shell: Shell
    xrt_package: str
    xrm_package: str
    images: Tuple[str, ...]
    image_note: str
    setup_folder: str
    setups: Tuple[Setup, ...]
    python: str

    @property
    def xrt(self) -> str:
        """Major and minor version of XRT."""
        return self.shell.xrt

    @property
    def xrm(self) -> str:
        """Major and minor version of XRM."""
        return ".".join(self.xrm_package.split(".")[1:3])

    def setup(self, variant: Optional[str] = None) -> Setup:
        """The set-up of a variant (``None``: the default one).

        Raises:
            UsageError: this release has no such variant.
        """
        if variant is None:
            return self.setups[0]
        for setup in self.setups:
            if setup.variant == variant:
                return setup
        raise UsageError(
            f"Vitis AI {self.name} has no DPU variant {variant!r} for the VCK5000",
            f"it has {', '.join(s.variant for s in self.setups)}",
        )

    def xclbin(self, variant: Optional[str] = None) -> str:
        """Path of a variant's xclbin in the container.

        Recorded for 8pe_normal of 3.0; the others follow its form, so a check should look for
        ``*.xclbin`` in the folder when the path is not there.
        """
        setup = self.setup(variant)
        name = f"dpu_DPUCVDX8H_{setup.build}_{_CLOCK}_{self.shell.name}.xclbin"
        return f"{OVERLAYS}/{setup.folder}/{name}"


_FOUR = (
    Setup("8pe_normal", "DPUCVDX8H_8pe_normal", "8PE", "8PE"),
    Setup("6pe_dwc", "DPUCVDX8H_6pe_dwc", "6PE_aieDWC", "6PE_aieDWC"),
    Setup("6pe_misc", "DPUCVDX8H_6pe_misc", "6PE_aieMISC", "6PE_aieMISC"),
    Setup("4pe_miscdwc", "DPUCVDX8H_4pe_miscdwc", "4PE", "4PE"),
)

_RELEASES: Tuple[CardRelease, ...] = (
    CardRelease(
        name="1.4.1",
        silicon=Silicon.ES1,
        shell=SHELLS[0],
        xrt_package="202110.2.11.648",
        xrm_package="202110.1.2.1539",
        images=("xilinx/vitis-ai-cpu:1.4.1.978",),
        image_note="",
        setup_folder="setup/vck5000",
        setups=(Setup("8pe", "", "8pe", "8PE"),),
        python="3.6",
    ),
    CardRelease(
        name="2.0",
        silicon=Silicon.PRODUCTION,
        shell=SHELLS[1],
        xrt_package="202120.2.12.427",
        xrm_package="202120.1.3.29",
        images=("xilinx/vitis-ai-cpu:2.0.0.1103",),
        image_note="pull it: the Dockerfile of 2.0 installs runtime packages of 1.4.1",
        setup_folder="setup/vck5000",
        setups=(
            Setup("8pe_normal", "DPUCVDX8H", "8pe", "8PE"),
            Setup("6pe_dwc", "DPUCVDX8H-DWC", "6pedwc", "6PE_aieDWC"),
        ),
        python="3.6",
    ),
    CardRelease(
        name="2.5",
        silicon=Silicon.PRODUCTION,
        shell=SHELLS[1],
        xrt_package="202120.2.12.427",
        xrm_package="202120.1.3.29",
        images=(
            "xilinx/vitis-ai-cpu:2.5",
            "xilinx/vitis-ai-cpu:2.5.0",
            "xilinx/vitis-ai-cpu:2.5.0.1260",
        ),
        image_note="",
        setup_folder="setup/vck5000",
        setups=_FOUR,
        python="3.7",
    ),
    CardRelease(
        name="3.0",
        silicon=Silicon.PRODUCTION,
        shell=SHELLS[3],
        xrt_package="202220.2.14.354",
        xrm_package="202220.1.5.212",
        images=("xilinx/vitis-ai-pytorch-cpu:ubuntu2004-3.0.0.106",),
        image_note="not the tag latest: that is 3.5 by now, which has dropped the card",
        setup_folder="board_setup/vck5000",
        setups=_FOUR,
        python="3.7",
    ),
)

_DROPPED = ("3.5",)
"""Releases that dropped the card."""


@dataclass(frozen=True)
class Installed:
    """What is on a host or in a container; ``None`` and empty mean not known, not checked.

    Attributes:
        silicon: of the card.
        shell: running on the card.
        xrt, xrm, sc_version: versions, full or shortened.
        python: of the interpreter that imports the vendor's modules.
    """

    silicon: Optional[Silicon] = None
    shell: str = ""
    xrt: str = ""
    xrm: str = ""
    sc_version: str = ""
    python: str = ""


@dataclass(frozen=True)
class Problem:
    """One thing that does not go with a release.

    Attributes:
        what: ``silicon``, ``shell``, ``XRT``, ``XRM``, ``satellite controller``, ``Python``.
        found: what is there.
        wanted: what the release needs.
        fix: what to do, a command where there is one.
    """

    what: str
    found: str
    wanted: str
    fix: str

    def __str__(self) -> str:
        return f"{self.what} is {self.found}, wanted {self.wanted}: {self.fix}"


def known_releases() -> Tuple[CardRelease, ...]:
    """The releases that support the card, oldest first."""
    return _RELEASES


def release_named(name: str) -> CardRelease:
    """The release called ``name``; a longer version such as ``2.5.0.1260`` is understood.

    Raises:
        UsageError: there is none, or it dropped the card.
    """
    wanted = name.strip().lstrip("vV")
    for release in _RELEASES:
        if _begins(wanted, release.name):
            return release
    known = ", ".join(release.name for release in _RELEASES)
    if any(_begins(wanted, dropped) for dropped in _DROPPED):
        raise UsageError(
            f"Vitis AI {name} does not support the VCK5000 any more",
            f"releases that do: {known}",
            f"use the image of 3.0: {_RELEASES[-1].images[0]}",
        )
    raise UsageError(f"There is no Vitis AI release {name!r} for the VCK5000", f"known: {known}")


def shell_named(name: str) -> Optional[Shell]:
    """What is known of a shell, ``None`` for one never published."""
    return {shell.name: shell for shell in SHELLS}.get(name)


def releases_for(installed: Installed) -> Tuple[CardRelease, ...]:
    """The releases that what is installed fits, newest first."""
    return tuple(r for r in reversed(_RELEASES) if not problems(installed, r))


def problems(installed: Installed, release: CardRelease) -> Tuple[Problem, ...]:
    """What does not go with a release; what is not known is not a problem."""
    found = []
    if installed.silicon not in (None, release.silicon):
        assert installed.silicon is not None
        others = [r.name for r in _RELEASES if r.silicon is installed.silicon]
        found.append(
            Problem(
                "silicon",
                installed.silicon.value,
                release.silicon.value,
                f"this card needs Vitis AI {' or '.join(others)}",
            )
        )
    elif installed.shell and installed.shell != release.shell.name:
        found.append(
            Problem("shell", installed.shell, release.shell.name, _flash(installed, release))
        )
    if installed.xrt and not _same(installed.xrt, release.xrt):
        fix = f"install xrt_{release.xrt_package} on the host and in the container"
        found.append(Problem("XRT", installed.xrt, f"{release.xrt}.x", fix))
    if installed.xrm and not _same(installed.xrm, release.xrm):
        fix = f"install xrm_{release.xrm_package} on the host and restart xrmd"
        found.append(Problem("XRM", installed.xrm, f"{release.xrm}.x", fix))
    if installed.python and not _same(installed.python, release.python):
        fix = "conda activate vitis-ai-pytorch inside the container"
        found.append(Problem("Python", installed.python, release.python, fix))
    shell = shell_named(installed.shell)
    if shell and 0 < _order(installed.sc_version) < _order(shell.sc_version):
        wanted = f"{shell.sc_version} or newer"
        fix = "xbmgmt program --base, then a cold restart"
        found.append(Problem("satellite controller", installed.sc_version, wanted, fix))
    return tuple(found)


def matrix() -> Tuple[Dict[str, str], ...]:
    """The version matrix as rows of text, for tables."""
    return tuple(
        {
            "release": release.name,
            "silicon": release.silicon.value,
            "shell": release.shell.name,
            "XRT": release.xrt_package,
            "XRM": release.xrm_package,
            "image": release.images[0],
            "Python": release.python,
            "variants": ", ".join(setup.variant for setup in release.setups),
        }
        for release in _RELEASES
    )


def _flash(installed: Installed, release: CardRelease) -> str:
    if installed.shell.startswith("xilinx_vck5000_gen3x16") and "gen4x8" in release.shell.name:
        return (
            "migrate the flash to gen4x8 (one way, a cold restart after each step): "
            "/opt/xilinx/firmware/vck5000/gen4x8-xdma/base/migration/migrate.sh, then "
            "xbmgmt program --base"
        )
    if "gen4x8" in installed.shell and "gen3x16" in release.shell.name:
        newer = [r.name for r in _RELEASES if "gen4x8" in r.shell.name]
        return f"there is no way back to gen3x16: use Vitis AI {' or '.join(newer)}"
    if release.name == "1.4.1":
        return "xbmgmt flash --update, then a cold restart"
    if release.name == "2.0":
        return f"xbmgmt flash --legacy --update --shell {release.shell.name}, then a cold restart"
    return "xbmgmt program --base, then a cold restart"


def _same(found: str, wanted: str) -> bool:
    """Whether a version, full or shortened, with or without the tools' number, is ``wanted``."""
    return _begins(re.sub(r"^20\d{4}\.", "", found), wanted)


def _begins(version: str, start: str) -> bool:
    return version == start or version.startswith(start + ".")


def _order(version: str) -> int:
    """A number that grows with the version, 0 where there is none."""
    numbers = [int(n) for n in re.findall(r"\d+", version)[:3]]
    return sum(n * 1000 ** (2 - i) for i, n in enumerate(numbers))
