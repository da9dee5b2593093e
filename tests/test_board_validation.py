"""The tests of the card are judged by what the tool prints, hung or not, lying status or not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from deepfake_fpga.board.validation import TestState, parse_validation, run_validation
from deepfake_fpga.errors import MissingError

from .programs import put_program

PASSING = """\
Validate Device           : [0000:17:00.1]
    Platform              : xilinx_vck5000_gen4x8_qdma_base_2
-------------------------------------------------------------------------------
Test 1 [0000:17:00.1]     : pcie-link
    Test Status           : [PASSED]
"""


@pytest.fixture
def bin_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}/usr/bin{os.pathsep}/bin")
    return folder


def test_new_tests_and_new_words_are_tolerated() -> None:
    text = PASSING + (
        "Test 2 [0000:17:00.1]     : hyper-warp\n"
        "    Xclbin                : /opt/warp.xclbin\n"
        "    Testcase              : /opt/warp.exe\n"
        "    Details               : Warp 9\n"
        "                            and a half\n"
        "    Test Status           : [NOT SUPPORTED]\n"
        "Test 3 [0000:17:00.1]     : last\n"
        "    Test Status           : [passed with warnings]\n"
    )
    found = parse_validation(text)
    assert [t.state for t in found.tests] == [
        TestState.PASSED,
        TestState.UNKNOWN,
        TestState.WARNED,
    ]
    assert found.tests[1].said == "NOT SUPPORTED"
    assert found.tests[1].details == ("Warp 9", "and a half")
    assert found.reasons == ("hyper-warp: UNKNOWN",)


def test_colours_and_progress_do_not_count() -> None:
    text = PASSING.replace("[PASSED]", "\x1b[1m\x1b[32m[PASSED]\x1b[0m").replace("\n", "\r\n")
    assert parse_validation(text).tests[0].state is TestState.PASSED


def test_errors_are_kept() -> None:
    text = PASSING.replace("[PASSED]", "[FAILED]").replace(
        "    Test Status", "    Error(s)              : Link is down\n    Test Status"
    )
    found = parse_validation(text)
    assert found.tests[0].warnings == ("Link is down",)
    assert not found.passed


@pytest.mark.parametrize("text", ["", "nonsense\n", "Starting validation for 0 devices\n"])
def test_no_test_is_no_pass(text: str) -> None:
    found = parse_validation(text)
    assert not found.passed
    assert found.reasons == ("no test was run",)


def test_only_skipped_is_no_pass() -> None:
    found = parse_validation(PASSING.replace("PASSED", "SKIPPED"))
    assert found.reasons == ("no test passed",)


def test_the_tools_own_verdict_counts() -> None:
    found = parse_validation(PASSING + "Validation failed. Please run with '--verbose'\n")
    assert found.declared_failed
    assert not found.passed
    assert parse_validation(PASSING + "Validation completed.\n").passed


@pytest.mark.parametrize(
    ("line", "state"),
    [
        ("INFO: == PCIE link check PASSED", TestState.PASSED),
        ("WARN: == PCIE link check PASSED with warning", TestState.WARNED),
        ("ERROR: == PCIE link check FAILED", TestState.FAILED),
        ("INFO: == PCIE link check SKIPPED", TestState.SKIPPED),
        ("INFO: == Starting DMA test:", TestState.UNFINISHED),
        ("INFO: == PCIE link check EXPLODED", TestState.UNKNOWN),
    ],
)
def test_legacy_states(line: str, state: TestState) -> None:
    found = parse_validation(f"INFO: == Starting PCIE link check:\nsome words\n{line}\n")
    assert found.tests[0].name == "PCIE link check"
    assert found.tests[0].state is state
    assert found.tests[0].details == ("some words",)


def test_the_status_does_not_count(bin_folder: Path, tmp_path: Path) -> None:
    good = tmp_path / "good.txt"
    good.write_text(PASSING)
    put_program(bin_folder, "xbutil", f"cat {good}; exit 1")
    found = run_validation()
    assert found.passed
    assert found.ending == "`xbutil validate` ended with status 1"
    put_program(bin_folder, "xbutil", f"sed s/PASSED/FAILED/ {good}; exit 0")
    assert run_validation().reasons == ("pcie-link: FAILED",)


def test_a_hung_tool_is_killed_and_its_test_named(bin_folder: Path, tmp_path: Path) -> None:
    begun = tmp_path / "begun.txt"
    begun.write_text(PASSING + "Test 2 [0000:17:00.1]     : dma\n")
    put_program(bin_folder, "xbutil", f"cat {begun}; sleep 600")
    found = run_validation(timeout=1.0)
    assert found.timed_out
    assert [t.state for t in found.tests] == [TestState.PASSED, TestState.UNFINISHED]
    assert found.reasons[0] == "dma: UNFINISHED"
    assert "was killed" in found.reasons[1]


def test_the_words_typed(bin_folder: Path) -> None:
    put_program(bin_folder, "xbutil", 'echo "Test 1 [x] : $*"')
    assert run_validation().tests[0].name == "validate"
    assert run_validation("0b:00.0").tests[0].name == "validate -d 0000:0b:00.1"
    assert run_validation("0000:0b:00.1", quick=True).tests[0].name == (
        "validate -d 0000:0b:00.1 -r quick"
    )


def test_quick_on_a_tool_that_cannot_choose(bin_folder: Path, tmp_path: Path) -> None:
    good = tmp_path / "good.txt"
    good.write_text(PASSING)
    refuse = 'for word in "$@"; do [ "$word" = -r ] && echo "ERROR: -r" >&2 && exit 1; done'
    put_program(bin_folder, "xbutil", f"{refuse}\ncat {good}")
    assert run_validation(quick=True).passed


def test_what_the_tool_said_instead_of_testing(bin_folder: Path) -> None:
    put_program(bin_folder, "xbutil", "echo 'ERROR: No devices found' >&2; exit 1")
    found = run_validation()
    assert found.remarks == ("ERROR: No devices found",)
    assert not found.passed


def test_no_tool(bin_folder: Path) -> None:
    with pytest.raises(MissingError):
        run_validation()
