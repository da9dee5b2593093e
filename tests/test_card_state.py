"""The simulated card's shared state: numbers given once, marks seen by all, a climbing heat."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path
from typing import Iterator, List

import pytest

from deepfake_fpga.deploy.simulate import card_state
from deepfake_fpga.deploy.simulate.card_state import CardState
from deepfake_fpga.deploy.simulate.options import SimulateOptions


@pytest.fixture(params=["folder", "process"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A state of its own: of a folder, and of this process."""
    card_state.forget()
    yield str(tmp_path / "state") if request.param == "folder" else ""
    card_state.forget()


def test_numbers_of_jobs_start_at_one_and_are_seen_by_other_objects(folder: str) -> None:
    assert CardState(folder).jobs == 0
    assert [CardState(folder).next_job() for _ in range(3)] == [1, 2, 3]
    assert CardState(folder).jobs == 3


def test_threads_get_every_number_once(folder: str) -> None:
    taken: List[List[int]] = [[] for _ in range(8)]

    def work(mine: List[int]) -> None:
        state = CardState(folder)
        mine.extend(state.next_job() for _ in range(200))

    threads = [threading.Thread(target=work, args=(mine,)) for mine in taken]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(number for mine in taken for number in mine) == list(range(1, 1601))


def test_processes_get_every_number_once(tmp_path: Path) -> None:
    code = (
        "from deepfake_fpga.deploy.simulate.card_state import CardState\n"
        f"state = CardState({str(tmp_path)!r})\n"
        "print(*[state.next_job() for _ in range(500)])\n"
    )
    children = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    numbers = [int(word) for child in children for word in child.communicate()[0].split()]
    assert [child.returncode for child in children] == [0, 0, 0]
    assert sorted(numbers) == list(range(1, 1501))
    assert CardState(tmp_path).jobs == 1500


def test_death_is_known_to_all_and_ends_with_a_reset(folder: str) -> None:
    other = CardState(folder)
    assert not other.dead
    CardState(folder).mark_dead()
    CardState(folder).mark_dead()
    assert other.dead
    other.next_job()
    CardState(folder).reset()
    assert not other.dead
    assert other.jobs == 0
    CardState(folder).reset()


def test_one_crash_is_given_out_once(folder: str) -> None:
    assert not CardState(folder).crashed_once
    claims = [CardState(folder).claim_crash() for _ in range(4)]
    assert claims == [True, False, False, False]
    assert CardState(folder).crashed_once
    CardState(folder).reset()
    assert CardState(folder).crashed_once


def test_a_healthy_card_warms_up_and_stays_below_the_warning(folder: str) -> None:
    state = CardState(folder)
    readings = [state.celsius()]
    for _ in range(100):
        state.next_job()
        readings.append(state.celsius())
    assert readings == sorted(readings)
    assert readings[0] < readings[1] < readings[-1] < 85


@pytest.mark.parametrize("hot_after", [0, 1, 5])
def test_a_hot_card_is_over_the_limit_after_its_jobs_and_not_before(
    folder: str, hot_after: int
) -> None:
    state = CardState(folder, SimulateOptions(hot_after=hot_after))
    for _ in range(hot_after):
        assert state.celsius() < 85
        state.next_job()
    assert state.celsius() >= 95
    for _ in range(50):
        state.next_job()
    assert 95 <= state.celsius() < 107


def test_the_options_in_force_are_asked_where_none_are_given(
    folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = CardState(folder)
    cool = state.celsius()
    for name, value in SimulateOptions(hot_after=0).to_environment().items():
        monkeypatch.setenv(name, value)
    assert cool < 85 < 95 <= state.celsius()
