"""A card that fails: every batch is answered once and right, or the error says what happened."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Dict, List

import numpy as np
import pytest

from deepfake_fpga.errors import DeviceError
from deepfake_fpga.inference.devices.base import Device
from deepfake_fpga.inference.devices.card_failures import KNOWN, explain
from deepfake_fpga.inference.devices.card_process import signal_name

from .cards import batch_of_sums, card_options, right
from .fake_vendor import fake_vendor, jobs_begun, released
from .test_card_device import assert_answers, opened

SHORT = 1.0
"""Seconds after which a card counts as hung; the small nets take milliseconds."""


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Logs of cards that failed are kept in the temporary folder."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))


def mishaps(device: Device) -> List[str]:
    """What happened, without the one that says there is no xbutil to read the temperature."""
    return [line for line in device.incidents() if "temperature" not in line]


def answer_until_error(device: Device, most: int = 1000) -> DeviceError:
    """Feeds batches, three under way, until the device fails; all answers before it are right."""
    tickets: Dict[int, int] = {}
    try:
        for number in range(most):
            tickets[number] = device.submit(batch_of_sums(number))
            if number >= 2:
                done = number - 2
                answer = device.wait(tickets[done])
                for name, array in right(batch_of_sums(done)).items():
                    assert np.array_equal(answer[name], array)
    except DeviceError as error:
        return error
    raise AssertionError("the device never failed")


# -- the drop-in modules at their most hostile --------------------------------------------------


def test_a_job_with_an_error_status_is_run_again(tmp_path: Path) -> None:
    with opened(tmp_path, fail_jobs=(2, 5)) as device:
        assert_answers(device, list(range(8)))
        incidents = mishaps(device)
    assert len(incidents) == 2
    assert all("status -1" in line for line in incidents)


def test_a_job_that_fails_twice_is_an_error_and_the_others_are_answered(tmp_path: Path) -> None:
    with opened(tmp_path, fail_jobs=(2, 3)) as device:
        assert_answers(device, [0])
        ticket = device.submit(batch_of_sums(1))
        with pytest.raises(DeviceError, match="an error, twice") as error:
            device.wait(ticket)
        assert "status -1" in error.value.evidence
        assert "--fallback" in error.value.next_step
        assert_answers(device, [2, 3])


@pytest.mark.parametrize("after", [0, 1, 6])
def test_jobs_of_a_crashed_child_are_run_again(tmp_path: Path, after: int) -> None:
    with opened(tmp_path, crashes_after=after) as device:
        assert_answers(device, list(range(10)))
        (incident,) = mishaps(device)
    log = Path(incident.rpartition("log ")[2].partition(")")[0])
    assert "VART_DPU_EXEC_ERROR" in log.read_text(encoding="utf-8")
    assert "SIGABRT (status 134 in a shell)" in incident
    assert "VART_DPU_EXEC_ERROR" in incident
    assert "jobs run again" in incident


def test_everything_at_once(tmp_path: Path) -> None:
    hostile = {"shuffle": True, "delay": 0.02, "fail_jobs": (3, 9, 14), "strict_buffers": True}
    with opened(tmp_path, crashes_after=6, **hostile) as device:
        assert_answers(device, list(range(16)))
        assert len(mishaps(device)) >= 3


def test_a_dead_card_is_an_error_with_the_last_words(tmp_path: Path) -> None:
    with opened(tmp_path, dies_after=4) as device:
        error = answer_until_error(device)
        with pytest.raises(DeviceError, match="ended while it computed"):
            device.submit(batch_of_sums(0))
    assert "could not be opened again" in error.cause
    assert "VART_DPU_TIMEOUT_ERROR" in error.evidence
    assert "SIGABRT" in error.evidence
    log = Path(error.evidence.rpartition("log ")[2])
    assert "[UNILOG][FATAL]" in log.read_text(encoding="utf-8")


def test_a_hung_card_is_an_error_within_its_time(tmp_path: Path) -> None:
    with opened(tmp_path, hangs_after=3, timeout=SHORT) as device:
        error = answer_until_error(device)
    assert f"no answer for {SHORT:g} seconds" in error.cause
    assert "xbutil" in error.next_step


def test_a_hot_card_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The temperature is read by this process, with the programs of the simulated host.
    for name, value in card_options(tmp_path, hot_after=5).environment.items():
        monkeypatch.setenv(name, value)
    with opened(tmp_path, watch_seconds=0.1, hot_after=5) as device:
        error = answer_until_error(device, 100000)
    assert "over a limit" in error.cause
    assert "the FPGA is at 1" in error.evidence
    assert "xbutil examine" in error.evidence


@pytest.mark.parametrize("release", ["2.5", "3.0"])
def test_a_model_for_another_build_is_explained(tmp_path: Path, release: str) -> None:
    """The xclbin's name does not tell, so the runtime is the first to notice."""
    xclbin = tmp_path / "somebody" / "own.xclbin"
    xclbin.parent.mkdir()
    xclbin.write_bytes(b"xclbin2")
    environment = {"XLNX_VART_FIRMWARE": str(xclbin)}
    with pytest.raises(DeviceError, match="while it opened the model") as error, opened(
        tmp_path, environment=environment, variant="6pe_dwc", release=release
    ):
        pass
    assert "VART_VERSION_MISMATCH_ERROR" in error.value.evidence
    assert "another build of the DPU" in error.value.evidence
    assert "compile -a" in error.value.next_step


def test_a_card_that_is_not_there_is_explained(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="while it opened") as error, opened(
        tmp_path, card="absent"
    ):
        pass
    assert "XRT sees no card" in error.value.evidence
    assert "xbutil examine" in error.value.next_step


# -- other libraries that fail ------------------------------------------------------------------


def fake(folder: Path, fault: str = "", **options: Any) -> Any:
    variables = fake_vendor(folder / "fake", fault, **options.pop("variables", {}))
    return opened(folder / "host", environment=variables, **options)


def test_noise_on_standard_output_and_tensors_in_another_order(tmp_path: Path) -> None:
    with fake(tmp_path) as device:
        assert_answers(device, list(range(10)))
    assert jobs_begun(tmp_path / "fake") == 10


def test_the_runner_is_let_go_before_the_subgraph_and_the_graph(tmp_path: Path) -> None:
    """They do not keep each other alive, so another order is a crash."""
    with fake(tmp_path) as device:
        assert_answers(device, [0])
        assert released(tmp_path / "fake") == ""
    assert released(tmp_path / "fake") == "runner subgraph graph"


def test_all_is_let_go_after_an_exception_too(tmp_path: Path) -> None:
    with fake(tmp_path, "execute raises") as device:
        assert_answers(device, list(range(6)))
        assert released(tmp_path / "fake") == "runner subgraph graph"
    assert released(tmp_path / "fake") == "runner subgraph graph runner subgraph graph"


@pytest.mark.parametrize("engines", [4, 6, 12])
def test_a_card_with_other_engines(tmp_path: Path, engines: int) -> None:
    with fake(tmp_path, variables={"FAKE_ENGINES": str(engines)}, batch=8) as device:
        assert any(f"{engines} pictures at once" in note for note in device.notes)
        assert_answers(device, list(range(4)))


def test_a_segmentation_fault_is_survived(tmp_path: Path) -> None:
    with fake(tmp_path, "execute segfault") as device:
        assert_answers(device, list(range(6)))
        assert "SIGSEGV (status 139 in a shell)" in mishaps(device)[0]


def test_an_exception_of_the_library_is_survived(tmp_path: Path) -> None:
    with fake(tmp_path, "execute raises") as device:
        assert_answers(device, list(range(6)))
        assert "Could not acquire CU" in mishaps(device)[0]


def test_a_status_of_execute_async_is_retried(tmp_path: Path) -> None:
    with fake(tmp_path, "execute status") as device:
        assert_answers(device, list(range(6)))
        assert "status -7" in mishaps(device)[0]


def test_a_wait_that_hangs_with_the_lock_held_is_killed(tmp_path: Path) -> None:
    with fake(tmp_path, "wait hangs", timeout=SHORT) as device:
        assert_answers(device, list(range(6)))
        assert "hangs" in mishaps(device)[0]


def test_a_batch_that_ends_every_child_is_found(tmp_path: Path) -> None:
    with fake(tmp_path, "poison") as device:
        tickets = [device.submit(batch_of_sums(n)) for n in range(3)]
        poison = device.submit({"image_fix": np.full((8, 4, 4, 3), 99, np.int8)})
        for number, ticket in enumerate(tickets):
            answer = device.wait(ticket)
            assert np.array_equal(
                answer["conv_download_0_fix"], right(batch_of_sums(number))["conv_download_0_fix"]
            )
        with pytest.raises(DeviceError, match="ended while it computed"):
            device.wait(poison)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("deserialize segfault", "SIGSEGV"),
        ("create_runner throws", "compiled by another release"),
        ("create_runner raises", "compute unit is taken"),
    ],
)
def test_a_failure_while_opening_is_explained(tmp_path: Path, fault: str, words: str) -> None:
    with pytest.raises(DeviceError) as error, fake(tmp_path, fault):
        pass
    assert words in error.value.evidence
    assert error.value.next_step


def test_opening_has_a_time_limit(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="no answer for 1 seconds"), fake(
        tmp_path, "create_runner hangs", open_seconds=1.0
    ):
        pass


def test_modules_that_are_something_else_are_named(tmp_path: Path) -> None:
    (tmp_path / "wrong").mkdir()
    (tmp_path / "wrong" / "xir.py").write_text("", encoding="utf-8")
    (tmp_path / "wrong" / "vart.py").write_text("", encoding="utf-8")
    environment = {"PYTHONPATH": str(tmp_path / "wrong")}
    with pytest.raises(DeviceError, match="xir and vart") as error, opened(
        tmp_path / "host", environment=environment
    ):
        pass
    assert "AttributeError" in error.value.evidence
    assert sys.executable in error.value.evidence


# -- words --------------------------------------------------------------------------------------


def test_the_recorded_failures_are_known(shared: Path) -> None:
    lines = (shared / "samples" / "runtime_failures.txt").read_text(encoding="utf-8").splitlines()
    cut = next(at for at, line in enumerate(lines) if line.startswith("# old"))
    first = explain(lines[:cut])
    assert first.line.startswith("[UNILOG][FATAL][TARGET_FACTORY_UNREGISTERED_TARGET]")
    assert "ES1" in first.explanation
    second = explain(lines[cut:])
    assert second.line == "Error: Could not acquire CU"
    assert "taken" in second.explanation
    assert second.next_step


def test_every_explanation_has_a_next_step_and_fits_its_own_words() -> None:
    for pattern, explanation, next_step in KNOWN:
        words: List[str] = pattern.split("|")
        assert explanation
        assert next_step
        assert explain([f"F0616 03:34:07.241921 2 x.cpp:1] [UNILOG][FATAL][{words[0]}][d] t"]).line


def test_an_unknown_fatal_line_is_kept_as_it_is() -> None:
    failure = explain(["noise", "F0101 00:00:00.1 7 a.cpp:3] Check failed: x > 0", "*** stack ***"])
    assert failure.line == "Check failed: x > 0"
    assert failure.explanation == ""
    assert "left no message" in explain([]).words


@pytest.mark.parametrize(
    ("status", "words"),
    [(3, "status 3"), (-6, "SIGABRT (status 134"), (-11, "SIGSEGV (status 139"), (None, "driver")],
)
def test_statuses_have_names(status: Any, words: str) -> None:
    assert words in signal_name(status)
