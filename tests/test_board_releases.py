"""The version matrix, and what it says of hosts that do not match."""

from __future__ import annotations

from typing import List

import pytest

from deepfake_fpga.board.releases import (
    SHELLS,
    CardRelease,
    Installed,
    Silicon,
    known_releases,
    matrix,
    problems,
    release_named,
    releases_for,
    shell_named,
)
from deepfake_fpga.compile.targets import TARGETS, target_by_name
from deepfake_fpga.errors import UsageError

RELEASES = {release.name: release for release in known_releases()}
HOST_30 = Installed(
    Silicon.PRODUCTION,
    "xilinx_vck5000_gen4x8_qdma_base_2",
    "2.14.354",
    "1.5.212",
    "4.4.35",
    "3.7.12",
)
HOST_25 = Installed(
    Silicon.PRODUCTION,
    "xilinx_vck5000_gen3x16_xdma_base_1",
    "2.12.427",
    "1.3.29",
    "4.4.12",
    "3.7.12",
)


def whats(installed: Installed, release: CardRelease) -> List[str]:
    return [problem.what for problem in problems(installed, release)]


def test_which_releases_there_are() -> None:
    assert list(RELEASES) == ["1.4.1", "2.0", "2.5", "3.0"]
    assert {r.name for r in RELEASES.values() if r.silicon is Silicon.ES1} == {"1.4.1"}
    assert [row["release"] for row in matrix()] == list(RELEASES)


@pytest.mark.parametrize("release", RELEASES.values(), ids=list(RELEASES))
def test_the_variants_are_the_compilers(release: CardRelease) -> None:
    wanted = {target.variant for target in TARGETS if release.name in target.released}
    assert {setup.variant for setup in release.setups} == wanted
    for setup in release.setups:
        target = target_by_name(setup.variant)
        assert target is not None
        assert setup.build[0] == str(target.engines)


def test_the_recorded_xclbin() -> None:
    assert RELEASES["3.0"].xclbin() == (
        "/opt/xilinx/overlaybins/DPUCVDX8H/8PE/"
        "dpu_DPUCVDX8H_8PE_350M_xilinx_vck5000_gen4x8_qdma_base_2.xclbin"
    )
    assert RELEASES["2.0"].setup("6pe_dwc").argument == "DPUCVDX8H-DWC"
    assert RELEASES["3.0"].setup("6pe_misc").argument == "DPUCVDX8H_6pe_misc"
    assert RELEASES["1.4.1"].setup().argument == ""
    with pytest.raises(UsageError, match="no DPU variant"):
        RELEASES["2.0"].setup("4pe_miscdwc")


def test_versions_agree_within_a_release() -> None:
    for release in RELEASES.values():
        assert release.xrt_package.endswith(release.shell.xrt_build)
        assert release.shell.xrt_build.startswith(release.xrt + ".")
    assert [release.xrm for release in RELEASES.values()] == ["1.2", "1.3", "1.3", "1.5"]


@pytest.mark.parametrize(
    ("words", "name"),
    [
        ("2.5", "2.5"),
        ("2.5.0", "2.5"),
        ("v3.0", "3.0"),
        ("3.0.0.001", "3.0"),
        ("1.4.1.978", "1.4.1"),
    ],
)
def test_names_are_understood(words: str, name: str) -> None:
    assert release_named(words).name == name


@pytest.mark.parametrize("words", ["3.5", "3.5.0.001"])
def test_the_release_that_dropped_the_card(words: str) -> None:
    with pytest.raises(UsageError, match="does not support the VCK5000 any more"):
        release_named(words)


@pytest.mark.parametrize("words", ["", "3", "1.4", "30", "2.50", "1.3"])
def test_releases_that_there_are_not(words: str) -> None:
    with pytest.raises(UsageError, match="There is no Vitis AI release"):
        release_named(words)


def test_a_host_that_fits() -> None:
    assert problems(HOST_30, RELEASES["3.0"]) == ()
    assert problems(HOST_25, RELEASES["2.5"]) == ()
    assert [r.name for r in releases_for(HOST_30)] == ["3.0"]
    host = Installed(Silicon.PRODUCTION, HOST_25.shell, "202120.2.12.427")
    assert [r.name for r in releases_for(host)] == ["2.5", "2.0"]


def test_what_is_not_known_is_no_problem() -> None:
    for release in RELEASES.values():
        assert problems(Installed(), release) == ()


def test_each_thing_that_is_wrong_is_named() -> None:
    assert whats(HOST_25, RELEASES["3.0"]) == ["shell", "XRT", "XRM"]
    assert whats(HOST_30, RELEASES["2.5"]) == ["shell", "XRT", "XRM"]
    assert whats(HOST_25, RELEASES["2.0"]) == ["Python"]
    old = Installed(Silicon.PRODUCTION, HOST_30.shell, sc_version="4.4.9")
    assert whats(old, RELEASES["3.0"]) == ["satellite controller"]
    newer = Installed(Silicon.PRODUCTION, HOST_30.shell, sc_version="4.4.40")
    assert whats(newer, RELEASES["3.0"]) == []


def test_silicon_stands_before_everything() -> None:
    """A shell cannot be the fault of a card that the release does not know."""
    es1 = Installed(Silicon.ES1, SHELLS[0].name)
    (problem,) = problems(es1, RELEASES["3.0"])
    assert (problem.what, problem.found, problem.wanted) == ("silicon", "es1", "production")
    assert "1.4.1" in problem.fix
    (problem,) = problems(Installed(Silicon.PRODUCTION), RELEASES["1.4.1"])
    assert "2.0 or 2.5 or 3.0" in problem.fix


def test_the_way_to_another_shell() -> None:
    up = problems(Installed(shell=HOST_25.shell), RELEASES["3.0"])[0]
    assert "migrate.sh" in up.fix
    assert "one way" in up.fix
    down = problems(Installed(shell=HOST_30.shell), RELEASES["2.5"])[0]
    assert "no way back" in down.fix
    assert "3.0" in down.fix
    between = problems(Installed(shell=SHELLS[2].name), RELEASES["3.0"])[0]
    assert between.fix.startswith("xbmgmt program --base")
    assert str(between).startswith(f"shell is {SHELLS[2].name}, wanted {SHELLS[3].name}: ")


def test_versions_are_compared_as_versions() -> None:
    assert whats(Installed(xrt="2.1"), RELEASES["3.0"]) == ["XRT"]
    assert whats(Installed(xrt="2.140.1"), RELEASES["3.0"]) == ["XRT"]
    assert whats(Installed(xrt="2.14"), RELEASES["3.0"]) == []
    assert whats(Installed(xrm="202220.1.5.212"), RELEASES["3.0"]) == []


def test_shells_by_name() -> None:
    found = shell_named("xilinx_vck5000_gen4x8_xdma_base_2")
    assert found is not None
    assert (found.xrt, found.sc_version) == ("2.13", "4.4.33")
    assert shell_named("xilinx_vck5000") is None
