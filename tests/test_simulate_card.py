"""Jobs of the simulated card, and a card that misbehaves on request."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any, List

import numpy as np
import pytest

from deepfake_fpga.compile.targets import target_by_name
from deepfake_fpga.deploy.simulate import card, card_state
from deepfake_fpga.deploy.simulate.card_state import CardState
from deepfake_fpga.deploy.simulate.job_engine import JobEngine
from deepfake_fpga.deploy.simulate.options import SimulateOptions
from deepfake_fpga.inference.devices.base import TensorInfo
from deepfake_fpga.inference.devices.pace import PaceClock, batch_seconds
from deepfake_fpga.inference.devices.reference import ReferenceDevice

from . import simulated_card
from .simulated_card import (
    MAIN,
    aborts,
    expected,
    opened,
    outputs_of,
    pictures,
    run,
    tiny,
)

host, vart, options = simulated_card.host, simulated_card.vart, simulated_card.options
subgraph, runner = simulated_card.subgraph, simulated_card.runner


# -- jobs ---------------------------------------------------------------------------------------


def test_jobs_are_pairs_whose_numbers_go_round(runner: Any) -> None:
    outputs = outputs_of(runner)
    jobs = [runner.execute_async([pictures()], outputs) for _ in range(3)]
    numbers = [job[0] for job in jobs]
    assert all(isinstance(job, tuple) and job[1] == 0 for job in jobs)
    assert numbers == [(numbers[0] + k) % 10000 for k in range(3)]
    assert [runner.wait(job) for job in reversed(jobs)] == [0, 0, 0]


def test_ten_thousand_numbers_are_reused_in_turn() -> None:
    engine = JobEngine(workers=2)
    first = []
    for turn in range(10003):
        number = engine.submit(lambda: 0)
        assert engine.wait(number) == 0
        if turn in (0, 1, 9999, 10000, 10001):
            first.append(number)
    assert first == [0, 1, 9999, 0, 1]


def test_jobs_that_nobody_waits_for_use_the_numbers_up() -> None:
    engine = JobEngine(workers=1)
    assert [engine.submit(None) for _ in range(10000)] == list(range(10000))
    with aborts("", "10000 jobs were not waited for"):
        engine.submit(None)


def test_wait_takes_the_pair(runner: Any) -> None:
    job = runner.execute_async([pictures()], outputs_of(runner))
    for wrong in (job[0], None, "ab", (1,), (1, 2, 3), (1.5, 0), (-1, 0), (0, None)):
        with pytest.raises(TypeError, match="wait"):
            runner.wait(wrong)
    assert runner.wait(list(job)) == 0
    assert runner.wait(job) == 0
    assert runner.wait((9876, 0)) == 0


def test_several_jobs_are_in_flight_and_answer_in_any_order(runner: Any) -> None:
    given = [pictures(seed=k) for k in range(6)]
    outputs = [outputs_of(runner) for _ in given]
    jobs = [runner.execute_async([codes], out) for codes, out in zip(given, outputs)]
    for k in (3, 0, 5, 1, 4, 2):
        assert runner.wait(jobs[k]) == 0
        np.testing.assert_array_equal(outputs[k][0], expected(given[k])[MAIN])


def test_any_runner_of_the_process_can_wait(vart: Any, subgraph: Any, runner: Any) -> None:
    other = vart.Runner.create_runner(subgraph, "run")
    outputs = outputs_of(runner)
    job = runner.execute_async([pictures()], outputs)
    assert other.wait(job) == 0
    np.testing.assert_array_equal(outputs[0], expected(pictures())[MAIN])


def test_many_threads_lose_and_double_nothing(vart: Any, subgraph: Any, options: Any) -> None:
    options(shuffle=True, delay=0.002, seed=1)
    per_thread = 12
    wrong: List[str] = []
    answered: List[int] = []
    truth = {k: expected(pictures(seed=k)) for k in range(8 * per_thread)}

    def work(first: int) -> None:
        runner = vart.Runner.create_runner(subgraph, "run")
        names = [t.name for t in runner.get_output_tensors()]
        waiting = []
        for k in range(first, first + per_thread):
            outputs = outputs_of(runner)
            waiting.append((k, runner.execute_async([pictures(seed=k)], outputs), outputs))
            if len(waiting) == 3:
                finish(runner, names, waiting.pop(0))
        for job in waiting:
            finish(runner, names, job)

    def finish(runner: Any, names: List[str], job: Any) -> None:
        k, pair, outputs = job
        if runner.wait(pair) != 0:
            wrong.append(f"{k} failed")
        for name, got in zip(names, outputs):
            if not np.array_equal(got, truth[k][name]):
                wrong.append(f"{k} {name}")
        answered.append(k)

    threads = [threading.Thread(target=work, args=(n * per_thread,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert sorted(answered) == list(range(8 * per_thread))
    assert CardState().jobs == 8 * per_thread


def test_runners_of_one_subgraph_share_the_card(
    vart: Any, subgraph: Any, options: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    opens: List[str] = []
    original = card.open_device

    def counting(kind: str, *args: Any, **kwargs: Any) -> Any:
        opens.append(kind)
        return original(kind, *args, **kwargs)

    monkeypatch.setattr(card, "open_device", counting)
    runners = [vart.Runner.create_runner(subgraph, "run") for _ in range(12)]
    assert opens == ["reference"]
    outputs = outputs_of(runners[0])
    job = runners[0].execute_async([pictures()], outputs)
    del runners
    vart.Runner.create_runner(subgraph, "run").wait(job)
    np.testing.assert_array_equal(outputs[0], expected(pictures())[MAIN])


def test_a_job_outlives_its_runner(
    vart: Any, subgraph: Any, options: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    go = threading.Event()
    original = ReferenceDevice.compute

    def held(self: ReferenceDevice, batch: Any) -> Any:
        go.wait(10)
        return original(self, batch)

    monkeypatch.setattr(ReferenceDevice, "compute", held)
    runner = vart.Runner.create_runner(subgraph, "run")
    outputs = [outputs_of(runner) for _ in range(3)]
    jobs = [runner.execute_async([pictures()], out) for out in outputs]
    del runner
    gc.collect()
    go.set()
    assert [card.wait_for(number) for number, _ in jobs] == [0, 0, 0]
    for main, _ in outputs:
        np.testing.assert_array_equal(main, expected(pictures())[MAIN])


def test_a_runner_keeps_its_graph_alive(vart: Any, options: Any, tmp_path: Path) -> None:
    runner = vart.Runner.create_runner(opened(tiny(), tmp_path), "run")
    outputs = outputs_of(runner)
    assert run(runner, [pictures()], outputs) == 0
    np.testing.assert_array_equal(outputs[0], expected(pictures())[MAIN])


# -- a card that misbehaves ---------------------------------------------------------------------


def test_failing_jobs_say_so_and_leave_their_outputs(
    vart: Any, subgraph: Any, options: Any
) -> None:
    options(fail_jobs=(2, 4))
    runner = vart.Runner.create_runner(subgraph, "run")
    statuses, outputs = [], []
    for _ in range(5):
        outputs.append(outputs_of(runner))
        pair = runner.execute_async([pictures()], outputs[-1])
        assert pair[1] == 0
        statuses.append(runner.wait(pair))
    assert [status != 0 for status in statuses] == [False, True, False, True, False]
    for k, (main, _) in enumerate(outputs):
        if statuses[k]:
            assert set(main.reshape(-1)) == {77}
        else:
            np.testing.assert_array_equal(main, expected(pictures())[MAIN])


def test_refused_buffers_are_no_jobs(vart: Any, subgraph: Any, options: Any) -> None:
    options(fail_jobs=(1,))
    runner = vart.Runner.create_runner(subgraph, "run")
    with aborts("VART_TENSOR_BUFFER_INVALID"):
        runner.execute_async([np.zeros(3, np.int8)], outputs_of(runner))
    assert CardState().jobs == 0
    assert run(runner, [pictures()], outputs_of(runner)) != 0


def test_a_card_that_dies_stays_dead(
    vart: Any, subgraph: Any, options: Any, tmp_path: Path
) -> None:
    state = str(tmp_path / "state")
    options(dies_after=2, state=state)
    runner = vart.Runner.create_runner(subgraph, "run")
    outputs = outputs_of(runner)
    for _ in range(2):
        assert run(runner, [pictures()], outputs) == 0
    np.testing.assert_array_equal(outputs[0], expected(pictures())[MAIN])
    for _ in range(2):
        with aborts("VART_DPU_TIMEOUT_ERROR", "DPU timeout"):
            runner.execute_async([pictures()], outputs)
    assert CardState(state).dead
    with aborts("VART_XRT_DEVICE_AVAILABLE_ERROR"):
        vart.Runner.create_runner(subgraph, "run")
    options(state=state)
    with aborts("VART_XRT_DEVICE_AVAILABLE_ERROR"):
        vart.Runner.create_runner(subgraph, "run")
    CardState(state).reset()
    assert vart.Runner.create_runner(subgraph, "run")


def test_a_crash_happens_once_and_the_card_lives(
    vart: Any, subgraph: Any, options: Any, tmp_path: Path
) -> None:
    options(crashes_after=1, state=str(tmp_path / "state"))
    runner = vart.Runner.create_runner(subgraph, "run")
    assert run(runner, [pictures()], outputs_of(runner)) == 0
    with aborts("VART_DPU_EXEC_ERROR"):
        runner.execute_async([pictures()], outputs_of(runner))
    again = vart.Runner.create_runner(subgraph, "run")
    outputs = outputs_of(again)
    for _ in range(3):
        assert run(again, [pictures()], outputs) == 0
    np.testing.assert_array_equal(outputs[0], expected(pictures())[MAIN])


def test_a_hanging_job_is_never_done(vart: Any, subgraph: Any, options: Any) -> None:
    options(hangs_after=1)
    runner = vart.Runner.create_runner(subgraph, "run")
    assert run(runner, [pictures()], outputs_of(runner)) == 0
    outputs = outputs_of(runner)
    pair = runner.execute_async([pictures()], outputs)
    thread = threading.Thread(target=runner.wait, args=(pair,), daemon=True)
    thread.start()
    thread.join(0.2)
    assert thread.is_alive()
    assert set(outputs[0].reshape(-1)) == {77}


def test_a_hot_card_still_answers(vart: Any, subgraph: Any, options: Any) -> None:
    options(hot_after=2)
    runner = vart.Runner.create_runner(subgraph, "run")
    readings = [CardState().celsius()]
    for _ in range(3):
        assert run(runner, [pictures()], outputs_of(runner)) == 0
        readings.append(CardState().celsius())
    assert [reading > 88 for reading in readings] == [False, False, True, True]


def test_delays_are_within_bounds_and_repeat_with_the_seed(
    vart: Any, subgraph: Any, options: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: List[float] = []
    monkeypatch.setattr(card, "time", SimpleNamespace(sleep=slept.append))
    runs = []
    for _ in range(2):
        card_state.forget()
        options(delay=0.5, seed=9)
        runner = vart.Runner.create_runner(subgraph, "run")
        for _ in range(6):
            assert run(runner, [pictures()], outputs_of(runner)) == 0
        runs.append(slept[:])
        slept.clear()
    assert runs[0] == runs[1]
    assert len(set(runs[0])) == 6
    assert all(0 <= seconds <= 0.5 for seconds in runs[0])


def test_the_pace_is_kept_by_one_clock_for_all_runners(
    vart: Any, subgraph: Any, options: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    reserved: List[float] = []
    reached: List[float] = []

    class Clock(PaceClock):
        def reserve(self, seconds: float) -> float:
            reserved.append(seconds)
            return 1.0 + len(reserved)

        def wait_until(self, done: float) -> None:
            reached.append(done)

    monkeypatch.setattr(card, "_clock", Clock())
    options(pace="vck5000")
    runners = [vart.Runner.create_runner(subgraph, "run") for _ in range(2)]
    for runner in runners * 2:
        assert run(runner, [pictures()], outputs_of(runner)) == 0
    graph = tiny()
    target = target_by_name("8pe_normal")
    assert target is not None
    assert reserved == [batch_seconds(graph, graph.subgraphs("DPU")[0], target)] * 4
    assert reached == [2.0, 3.0, 4.0, 5.0]
    options()
    run(vart.Runner.create_runner(subgraph, "run"), [pictures()], outputs_of(runner))
    assert len(reserved) == 4


def test_an_error_behind_the_card_is_an_abort_of_wait(
    vart: Any, runner: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: Any, batch: Any) -> Any:
        raise MemoryError("no room")

    monkeypatch.setattr(ReferenceDevice, "compute", fail)
    pair = runner.execute_async([pictures()], outputs_of(runner))
    with aborts("VART_DPU_EXEC_ERROR", "no room"):
        runner.wait(pair)


SCRIPT = """
import sys
from deepfake_fpga.deploy import simulate
simulate.install()
import numpy, vart, xir
graph = xir.Graph.deserialize(sys.argv[1])
children = graph.get_root_subgraph().toposort_child_subgraph()
dpu = [c for c in children if c.has_attr("device") and c.get_attr("device") == "DPU"][0]
runner = vart.Runner.create_runner(dpu, "run")
inputs = [numpy.zeros(tuple(t.dims), numpy.int8) for t in runner.get_input_tensors()]
outputs = [numpy.zeros(tuple(t.dims), numpy.int8) for t in runner.get_output_tensors()]
for _ in range(int(sys.argv[2])):
    print(runner.wait(runner.execute_async(inputs, outputs)), flush=True)
"""


def test_processes_share_a_card_and_its_abort_ends_the_process(
    subgraph: Any, options: Any, tmp_path: Path
) -> None:
    options(dies_after=3, aborts="process", state=str(tmp_path / "state"))

    def script(jobs: int) -> Any:
        return subprocess.run(
            [sys.executable, "-c", SCRIPT, str(tmp_path / "model.xmodel"), str(jobs)],
            capture_output=True,
            text=True,
        )

    first = script(2)
    assert (first.returncode, first.stdout.split()) == (0, ["0", "0"]), first.stderr
    second = script(4)
    assert (second.returncode, second.stdout.split()) == (-6, ["0"])
    assert "[UNILOG][FATAL][VART_DPU_TIMEOUT_ERROR][DPU timeout]" in second.stderr
    third = script(1)
    assert third.returncode == -6
    assert "[VART_XRT_DEVICE_AVAILABLE_ERROR][No devices available]" in third.stderr


def test_the_order_of_tensors_is_the_releases() -> None:
    """By name from 3.5 on; before, the mask first, which published programs count on."""
    mask, verdict = TensorInfo("out_mask", (8, 4, 4, 2), 3), TensorInfo("linear", (8, 1), 4)
    for given in ([mask, verdict], [verdict, mask]):
        assert card._listed(given, SimulateOptions(release="3.5")) == [verdict, mask]
        assert card._listed(given, SimulateOptions(release="3.0")) == [mask, verdict]
