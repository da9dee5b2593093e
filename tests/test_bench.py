"""The bench: what it measures and compares, with clocks and devices whose answers are known."""

from __future__ import annotations

import json
import sys
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Sequence

import numpy as np
import pytest

from deepfake_fpga.board.health import CardHealth
from deepfake_fpga.deploy.bench import baseline, child, goal_runs
from deepfake_fpga.deploy.bench.agreement import agreements, joined
from deepfake_fpga.deploy.bench.chart import LABEL, chart
from deepfake_fpga.deploy.bench.contenders import Contender, Subject, contenders
from deepfake_fpga.deploy.bench.devices import bench
from deepfake_fpga.deploy.bench.goals import GOALS, GoalReport, Measured, goals_text
from deepfake_fpga.deploy.bench.machine import Machine, busy_note, peak_bytes, this_machine
from deepfake_fpga.deploy.bench.material import Head, compiled, make_model, make_pictures
from deepfake_fpga.deploy.bench.power import PowerMeter
from deepfake_fpga.deploy.bench.published import PUBLISHED
from deepfake_fpga.deploy.bench.record import Bench, DeviceResult, Latency, read_record
from deepfake_fpga.deploy.bench.rounds import Series, in_turn, percentile, ratio, told
from deepfake_fpga.deploy.bench.runner import Settings
from deepfake_fpga.deploy.bench.table import bench_text
from deepfake_fpga.deploy.cli import main
from deepfake_fpga.errors import (
    DataError,
    DeviceError,
    FormatError,
    MismatchError,
    MissingError,
    UsageError,
    WorkError,
)
from deepfake_fpga.inference.artifact import Artifact, artifact_of
from deepfake_fpga.inference.devices.handmade import uynet
from deepfake_fpga.inference.session import Prediction, Session
from deepfake_fpga.inference.sources import Source

from .fakes import SIZE, PaintedSource

MACHINE = Machine("A Processor (R) 9", 2, "avx512_vnni", "Linux x86_64")


class Time:
    """A clock that moves only when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class TimedSession(Session):
    """A real session whose answers are changed and take a known time."""

    def __init__(
        self,
        artifact: Artifact,
        device: str,
        time: Time,
        seconds: float,
        change: Callable[[Prediction], Prediction] = lambda answer: answer,
    ) -> None:
        super().__init__(artifact, device)
        self.time, self.each, self.change = time, seconds, change

    def result(self, ticket: int) -> Prediction:
        self.time.now += self.each
        return self.change(super().result(ticket))


@dataclass(frozen=True)
class Fake(Contender):
    opens: Optional[Callable[[Artifact], Session]] = None

    def open(
        self, artifact: Artifact, batch: Optional[int] = None, threads: Optional[int] = None
    ) -> Session:
        assert self.opens is not None
        return self.opens(artifact if batch is None else replace(artifact, batch=batch))


@pytest.fixture(scope="module")
def artifact() -> Artifact:
    return artifact_of(uynet(2, SIZE), Path("handmade.xmodel"))


def fake(
    name: str, time: Time, seconds: float, layout: str = "", device: str = "reference", **more: Any
) -> Fake:
    return Fake(name, layout, opens=lambda one: TimedSession(one, device, time, seconds, **more))


def measured(
    chosen: Sequence[Contender],
    artifact: Artifact,
    time: Time,
    sources: Callable[[], Sequence[Source]] = lambda: [PaintedSource(24)],
    **settings: Any,
) -> Bench:
    wanted = {"rounds": 3, "threads": 1, "seconds": 0.01, "frames": 16, "memory": False, **settings}
    return bench(
        chosen,
        Subject(Path("handmade.xmodel")),
        artifact,
        sources,
        "painted",
        Settings(**wanted),
        clock=time,
    )


def flipped(answer: Prediction) -> Prediction:
    logits = answer.logits.copy()
    logits[0, 0, 0, 0] ^= 1
    return replace(answer, logits=logits)


# ---------------------------------------------------------------- rounds


def test_everything_is_measured_once_per_round_and_nobody_always_second() -> None:
    time, order = Time(), []  # type: Time, List[str]

    def work(name: str, seconds: float) -> Callable[[], None]:
        def go() -> None:
            order.append(name)
            time.now += seconds * len(order)

        return go

    found = in_turn({"a": work("a", 1), "b": work("b", 2)}, 3, time, lambda: 0.5 * time.now)
    assert "".join(order) == "abbaab"
    assert found["a"].values == (1, 4, 5)
    assert found["b"].values == (4, 6, 12)
    assert found["b"].busy == (2, 3, 6)
    assert (found["a"].median, found["b"].median, found["b"].busy_median) == (4, 6, 3)
    assert ratio(found["b"], found["a"]).values == (4, 1.5, 2.4)


@pytest.mark.parametrize("share", [0, 10, 50, 90, 99, 100])
@pytest.mark.parametrize("count", [1, 2, 5, 101])
def test_percentiles_are_those_of_numpy(share: float, count: int) -> None:
    values = list(np.random.default_rng(count).random(count))
    assert percentile(values, share) == pytest.approx(float(np.percentile(values, share)))


def test_the_spread_is_that_of_the_middle_half() -> None:
    assert Series((10.0, 10.0, 10.0, 10.0, 99.0)).spread == 0
    assert Series((8.0, 9.0, 10.0, 11.0, 12.0)).spread == pytest.approx(0.2)
    assert Series((5.0,)).spread == 0


def test_every_work_says_its_name_first() -> None:
    said: List[str] = []
    works = told({"a": lambda: said.append("done")}, said.append)
    works["a"]()
    assert said == ["a", "done"]


# ---------------------------------------------------------------- devices


def test_rates_and_latencies_are_what_the_clock_says(artifact: Artifact) -> None:
    time = Time()
    found = measured([fake("sim", time, 0.5, device="null")], artifact, time, batches=(1, 4))
    device = found.devices[0]
    assert device.batch == 8
    assert device.images.values == pytest.approx([16.0] * 3)
    assert device.end_to_end.values == pytest.approx([16.0] * 3)
    assert (device.latency.p50, device.latency.p99) == pytest.approx((500.0, 500.0))
    assert device.latency.batches == 9
    assert {n: one.median for n, one in device.batch_sweep.items()} == pytest.approx({1: 2, 4: 8})
    assert device.thread_sweep == {}
    assert device.device_only is None
    assert device.spread == pytest.approx(0)


def test_the_faster_layout_counts_and_the_other_is_kept(artifact: Artifact) -> None:
    time = Time()
    chosen = [
        fake("float", time, 0.4, "channels-last"),
        fake("float", time, 0.2, "contiguous"),
        fake("sim", time, 0.1),
    ]
    found = measured(chosen, artifact, time)
    assert [device.label for device in found.devices] == ["float (contiguous)", "sim"]
    assert found.devices[0].others["channels-last"].median == pytest.approx(20)
    assert "contiguous counts, it is faster than channels-last" in bench_text(found)


def test_a_device_that_answers_wrongly_is_found(artifact: Artifact) -> None:
    time = Time()
    chosen = [
        fake("sim", time, 0.1),
        fake("reference", time, 0.1, change=flipped),
        fake("null", time, 0.1, device="null"),
    ]
    found = measured(chosen, artifact, time, sample=2)
    sim, reference, null = found.agreements
    assert "compared with it" in sim.note
    assert (reference.equal, reference.failed, reference.with_name) == (False, True, "sim")
    assert reference.images == 2
    assert reference.different == pytest.approx(1 / (2 * SIZE * SIZE * 2))
    assert null.equal is None
    assert [one.name for one in found.failures] == ["reference"]
    assert "reference: WRONG, must be equal" in bench_text(found)


def test_devices_that_agree_are_said_to(artifact: Artifact) -> None:
    time = Time()
    chosen = [fake("sim", time, 0.1), fake("reference", time, 0.1)]
    found = measured(chosen, artifact, time)
    assert not found.failures
    assert found.agreements[1].equal
    assert "equal to sim in every code of 1 image" in bench_text(found)


def test_a_card_that_is_a_drop_in_is_called_simulated(
    artifact: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    from deepfake_fpga.board.vendor import State, VendorTool
    from deepfake_fpga.deploy.bench import devices, runner

    time = Time()
    for state, label in ((State.SIMULATED, "card (simulated)"), (State.GENUINE, "card")):
        tool = VendorTool("vart", state, None, "", "")
        monkeypatch.setattr(devices, "find_package", lambda name, tool=tool: tool)
        monkeypatch.setattr(runner, "PowerMeter", lambda: PowerMeter(no_power, 0.001))
        found = measured([fake("card", time, 0.1), fake("null", time, 0.1)], artifact, time)
        assert [device.label for device in found.devices] == [label, "null"]
        assert any("is simulated" in note for note in found.notes) is (label != "card")
        assert any("no sensor here" in note for note in found.notes)


def no_power() -> CardHealth:
    raise DeviceError("no sensor here")


def answer(logits: Sequence[float], real: Sequence[float], scale: float = 1.0) -> Prediction:
    codes = np.array(logits).reshape(len(real), 1, -1, 2)
    mask = np.argmax(codes, -1).astype(np.uint8)
    return Prediction(mask, np.array(real, np.float32), codes, "x", scale)


def test_other_numbers_are_no_failure_where_they_need_not_be_equal() -> None:
    answers = {
        "float channels-last": answer([1.0, 2.1, 4.0, 3.0], [0.6, 0.7]),
        "quantized": answer([1.0, 2.0, 3.0, 4.0], [0.4, 0.7]),
        "sim": answer([2, 4, 6, 8], [0.4, 0.7], scale=0.5),
    }
    names = {"float channels-last": "float", "quantized": "quantized", "sim": "sim"}
    exact = {one.name: one for one in agreements(answers, names)}
    assert exact["quantized"].equal
    off = exact["float channels-last"]
    assert (off.equal, off.failed, off.flips) == (False, False, 1)
    assert off.different == 0.75
    assert off.mask_pixels == 0.5
    assert off.probability == pytest.approx(0.2)


def test_networks_with_other_parameters_are_not_compared() -> None:
    answers = {"float contiguous": answer([0, 1], [0.5]), "sim": answer([5, 1], [0.1])}
    names = {"float contiguous": "float", "sim": "sim"}
    found = agreements(answers, names, strangers=["float contiguous"])
    assert found[0].equal is None
    assert "other random parameters" in found[0].note


def test_answers_to_several_batches_are_joined_in_order() -> None:
    whole = joined([answer([1, 2], [0.1]), answer([3, 4, 5, 6], [0.2, 0.3])])
    assert whole.logits.reshape(-1).tolist() == [1, 2, 3, 4, 5, 6]
    assert whole.real.tolist() == pytest.approx([0.1, 0.2, 0.3])


def test_frames_that_cannot_be_decoded_are_refused(artifact: Artifact) -> None:
    time = Time()
    with pytest.raises(DataError, match="no frame to measure with"):
        measured(
            [fake("sim", time, 0.1)], artifact, time, lambda: [PaintedSource(3, broken={0, 1, 2})]
        )


def test_loading_is_measured_cold_and_cached_for_sim_alone(artifact: Artifact) -> None:
    time, tasks = Time(), []  # type: Time, List[Tuple[str, Optional[Path]]]

    def measure(task: Dict[str, Any], cache: Optional[Path] = None) -> Dict[str, Any]:
        tasks.append((task["name"], cache))
        if task["name"] == "null":
            raise WorkError("it broke")
        return {"load_seconds": 2.0 / len(tasks), "peak_bytes": 2**20}

    found = bench(
        [fake("sim", time, 0.1), fake("null", time, 0.1, device="null")],
        Subject(Path("handmade.xmodel")),
        artifact,
        lambda: [PaintedSource(8)],
        "painted",
        Settings(rounds=1, threads=1, seconds=0.01, frames=8),
        clock=time,
        measure=measure,
    )
    assert [name for name, _ in tasks] == ["sim", "sim", "null"]
    assert tasks[0][1] == tasks[1][1]
    sim, null = found.devices
    assert sim.memory["load_seconds"] == 2.0
    assert sim.memory["cached_load_seconds"] == 1.0
    assert "it broke" in null.memory["error"]


def test_unknown_devices_and_devices_that_lack_something_are_refused(artifact: Artifact) -> None:
    subject = Subject(Path("handmade.xmodel"))
    with pytest.raises(UsageError, match="no device 'gpu'"):
        contenders(["gpu"], subject, artifact)
    with pytest.raises(MissingError):
        contenders(["float"], subject, artifact)
    chosen, left_out = contenders([], subject, artifact)
    assert {"reference", "null"} <= {one.name for one in chosen}
    assert {"float", "quantized", "card"} <= set(left_out)
    assert "--quantized" in left_out["quantized"]


def test_the_head_of_a_source_is_its_first_frames() -> None:
    head = Head(PaintedSource(30), 7)
    assert head.length == 7
    assert [frame.index for frame in head] == list(range(7))
    assert Head(PaintedSource(3), 7).length == 3


# ---------------------------------------------------------------- machine, power, child


def test_a_kind_of_machine_is_a_name_for_files(tmp_path: Path) -> None:
    assert MACHINE.kind == "a-processor-r-9-2-cores-avx512-vnni"
    assert Machine.from_json(json.loads(json.dumps(MACHINE.to_json()))) == MACHINE
    info = tmp_path / "cpuinfo"
    info.write_text("model name\t: Some CPU\nflags\t\t: sse avx2 avx512_vnni\n", encoding="ascii")
    assert this_machine(info).processor == "Some CPU"
    assert this_machine(info).instructions == "avx512_vnni"
    assert this_machine(tmp_path / "none").processor


def test_a_busy_machine_is_named() -> None:
    assert busy_note(0.3, 2) == ""
    assert busy_note(None, 2) == ""
    assert "load 3.00 on 2 cores" in busy_note(3.0, 2)


def test_peak_memory_is_the_kernels_own_mark(tmp_path: Path) -> None:
    status = tmp_path / "status"
    status.write_text("Name:\tx\nVmHWM:\t   12345 kB\nVmRSS:\t 99 kB\n", encoding="ascii")
    assert peak_bytes(status) == (12345 * 1024, "VmHWM")
    assert peak_bytes(tmp_path / "none")[0] > 2**20


def test_the_boards_power_is_averaged_until_it_cannot_be_read() -> None:
    watts = iter([30.0, 50.0, None])

    def read() -> CardHealth:
        value = next(watts, "end")
        if value == "end":
            raise DeviceError("the card has gone")
        return CardHealth(
            "",
            "",
            None,
            value,
            None,
            None,
            (),
            (),
            (),
            (),
            (),
            "",  # type: ignore[arg-type]
        )

    with PowerMeter(read, interval=0.001) as meter:
        meter._thread.join(10)
    assert meter.watts == [30.0, 50.0]
    assert meter.mean == 40.0
    assert "the card has gone" in meter.reason


def test_a_child_process_measures_loading_and_memory(tmp_path: Path) -> None:
    model = make_model(tmp_path / "model.xmodel", 2, 112)
    task = {
        "task": "device",
        "subject": Subject(model, width=2).to_json(),
        "name": "reference",
        "batch": 1,
        "threads": 1,
        "batches": 1,
    }
    found = child.measure(task)
    assert 0 < found["base_bytes"] <= found["peak_bytes"]
    assert found["load_seconds"] > 0


def test_a_child_process_that_fails_says_why(tmp_path: Path) -> None:
    task = {"task": "video", "model": str(tmp_path / "none.xmodel"), "clip": "", "output": ""}
    with pytest.raises(WorkError, match="no compiled model"):
        child.measure(task)


# ---------------------------------------------------------------- record, table, chart, baseline


def result(name: str, rate: float, layout: str = "", spread: float = 0.0) -> DeviceResult:
    values = Series((rate * (1 - spread), rate, rate * (1 + spread)))
    return DeviceResult(name, layout, "", 8, values, None, values, Latency(1.0, 2.0, 3.0, 9))


def example(**rates: float) -> Bench:
    found = rates or {"float": 10.0, "sim": 50.0, "null": 9000.0}
    return Bench(
        MACHINE,
        "YNET.xmodel",
        "ab" * 32,
        "painted",
        Settings(threads=2).to_json(),
        [
            result(name, rate, "channels-last" if name == "float" else "")
            for name, rate in found.items()
        ],
        {"card": "no card"},
        [],
        ["a note"],
        {},
    )


def test_the_record_is_json_and_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "bench.json"
    path.write_text(json.dumps(example().to_json(), allow_nan=False), encoding="utf-8")
    record = read_record(path)
    assert [device["name"] for device in record["devices"]] == ["float", "sim", "null"]
    for device in record["devices"]:
        assert {"images_per_second", "latency_ms", "end_to_end", "process"} <= set(device)
    assert record["machine"]["kind"] == MACHINE.kind
    assert len(record["published_not_measured"]) == len(PUBLISHED)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "cannot be read"),
        ("[]", "no record of a bench run"),
        ('{"kind": "deepfake-fpga bench", "schema": 99}', "another version"),
    ],
)
def test_a_file_that_is_no_record_is_refused(tmp_path: Path, content: str, words: str) -> None:
    path = tmp_path / "bench.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(FormatError, match=words):
        read_record(path)
    with pytest.raises(MissingError):
        read_record(tmp_path / "none.json")


def test_a_device_slower_than_the_baseline_allows_is_worse() -> None:
    before = example(sim=100.0, null=5000.0, reference=2.0).to_json()
    now = example(sim=84.0, null=4600.0, float=11.0)
    found = {one.device: one for one in baseline.compare(now, before, 0.15)}
    assert found["sim"].ratio == pytest.approx(0.84)
    assert found["sim"].worse
    assert not found["null"].worse
    assert (found["reference"].now, found["reference"].worse) == (None, True)
    assert (found["float"].before, found["float"].worse) == (None, False)
    assert not any(one.worse for one in baseline.compare(now, before, 0.2, wanted=False))
    assert "WORSE" in bench_text(now, list(found.values()))


def test_of_null_the_host_around_it_is_compared() -> None:
    before, now = example().to_json(), example()
    null = next(device for device in now.devices if device.name == "null")
    null.images = Series((1.0, 1.0, 1.0))
    assert not any(one.worse for one in baseline.compare(now, before, 0.1))
    null.end_to_end = Series((1.0, 1.0, 1.0))
    assert [one.device for one in baseline.compare(now, before, 0.1) if one.worse] == ["null"]


def test_a_baseline_of_something_else_is_refused() -> None:
    now = example()
    other = {**now.to_json(), "machine": replace(MACHINE, cores=64).to_json()}
    with pytest.raises(MismatchError, match="another kind of machine"):
        baseline.compare(now, other, 0.1)
    assert not any(one.worse for one in baseline.compare(now, other, 0.1, any_machine=True))
    with pytest.raises(MismatchError, match="another model"):
        baseline.compare(now, {**now.to_json(), "model": {"sha256": "cd"}}, 0.1)
    settings = {**now.to_json()["settings"], "threads": 7}
    with pytest.raises(MismatchError, match="--threads 7"):
        baseline.compare(now, {**now.to_json(), "settings": settings}, 0.1)
    with pytest.raises(FormatError, match="lacks a field"):
        baseline.compare(now, {"machine": {}}, 0.1)


def test_a_baseline_is_kept_by_the_kind_of_machine(tmp_path: Path) -> None:
    path = baseline.save(replace(example(), model="/a/b/YNET.xmodel", frames="/c/d"), tmp_path)
    text = path.read_text(encoding="utf-8")
    assert "/a/b" not in text
    assert "/c/d" not in text
    assert "no card" not in text
    assert path == tmp_path / "baselines" / f"{MACHINE.kind}.json"
    assert not any(one.worse for one in baseline.compare(example(), read_record(path), 0.0))
    with pytest.raises(MissingError, match="no folder for baselines"):
        baseline.save(example(), tmp_path / "none")


def test_the_chart_is_xml_with_every_device_and_marks_what_is_published() -> None:
    bench = example(**{"float": 10.0, "sim": 50.0, "<odd> & name": 3.0, "null": 9000.0})
    root = ElementTree.fromstring(chart(bench))
    space = "{http://www.w3.org/2000/svg}"
    words = [one.text for one in root.iter(f"{space}text")]
    for name in ("float (channels-last)", "sim", "<odd> & name", "null", LABEL, "9000"):
        assert name in words
    bars = [one for one in root.iter(f"{space}rect") if one.get("class")]
    kinds = [one.get("class") for one in bars]
    assert kinds == ["measured"] * 4 + ["published"] * len(PUBLISHED)
    widths = [float(one.get("width", "")) for one in bars]
    assert widths[1] / widths[0] == pytest.approx(5, rel=0.02)
    assert widths[3] == max(widths)  # cut, so that the others can be seen
    assert widths[4] == pytest.approx(widths[3])
    dashes = {one.get("stroke-dasharray") for one in bars[4:]}
    assert None not in dashes
    assert all(one.get("fill") == "none" for one in bars[4:])


def test_nothing_in_the_chart_lies_outside_it() -> None:
    bench = example()
    bench.devices = [result("sim", 500.0, spread=3.0), result("null", 9000.0, spread=3.0)]
    root = ElementTree.fromstring(chart(bench))
    width = float(root.get("width", ""))
    for one in root.iter():
        for name in ("x", "x1", "x2"):
            assert 0 <= float(one.get(name, "0")) <= width - 40 or one.get(name) is None


def test_the_table_names_what_is_left_out_and_what_is_published() -> None:
    text = bench_text(example())
    assert "card is left out: no card" in text
    assert "note: a note" in text
    before, _, after = text.partition("published, not measured here:")
    assert "316.8" in after
    assert "316.8" not in before


def test_a_spread_above_ten_percent_is_said(artifact: Artifact) -> None:
    time = Time()
    found = measured([fake("sim", time, 0.1, device="null")], artifact, time)
    assert not [note for note in found.notes if "more than 10 %" in note]
    paces = iter(range(1, 1000))

    def slower(answer: Prediction) -> Prediction:
        time.now += 0.05 * next(paces)
        return answer

    found = measured([fake("sim", time, 0.1, device="null", change=slower)], artifact, time)
    assert [note for note in found.notes if "more than 10 %" in note and "sim" in note]


# ---------------------------------------------------------------- goals

NAMED = {
    "sim-over-float": (4.0, True),
    "sim-over-plain": (0.95, True),
    "sim-over-quantized": (9.0, True),
    "batch-1": (1.15, False),
    "load-cold": (1.5, False),
    "load-cached": (1.5, False),
    "memory": (1.5, False),
    "reference": (5.0, False),
    "images": (1200.0, True),
    "video-720p": (0.7, True),
    "video-256": (0.7, True),
    "overlay-720p": (0.7, True),
    "overlay-256": (0.7, True),
    "paced-4": (0.97, True),
    "paced-8": (0.97, True),
    "flat-memory": (1.1, False),
}


def report(**values: float) -> GoalReport:
    found = {key: Measured(key, value) for key, value in values.items()}
    return GoalReport(MACHINE, False, {}, found)


def test_every_goal_has_its_limit_and_its_direction() -> None:
    assert {goal.key: (goal.limit, goal.least) for goal in GOALS} == NAMED
    for goal in GOALS:
        assert goal.reached_by(goal.limit)
        assert goal.reached_by(2 * goal.limit) is goal.least
        assert goal.reached_by(goal.limit / 2) is not goal.least


def test_the_table_of_goals_has_every_row_whatever_was_measured() -> None:
    found = report(reference=6.0, memory=1.2)
    text = goals_text(found)
    for goal in GOALS:
        line = next(line for line in text.splitlines() if line.startswith(goal.text))
        expected = {"reference": "NO", "memory": "yes"}.get(goal.key, "not measured")
        assert line.endswith(expected)
    assert [goal.key for goal in found.missed] == ["reference"]
    rows = json.loads(json.dumps(found.to_json(), allow_nan=False))["goals"]
    assert [row["key"] for row in rows] == list(NAMED)
    assert {row["key"]: row["reached"] for row in rows}["memory"] is True


def test_what_cannot_be_measured_here_stays_in_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> List[Measured]:
        raise MissingError("no such thing here")

    for name in ("load_goals", "engine_goals", "reference_goal"):
        monkeypatch.setattr(goal_runs, name, fail)
    scale = replace(goal_runs.QUICK, width=2)
    found = goal_runs.measure_goals(scale, True, sections=("engine",))
    assert all(one.value is None for _, one, _ in found.rows())
    assert any("no such thing here" in note for note in found.notes)
    assert "quick" in goals_text(found)


@pytest.mark.torch
@pytest.mark.slow
def test_every_goal_is_measured(tmp_path: Path) -> None:
    for name in ("torch", "onnxruntime", "av"):
        pytest.importorskip(name)
    scale = goal_runs.Scale(
        rounds=1,
        width=2,
        reference_width=2,
        batch=2,
        threads=1,
        images=8,
        small_frames=8,
        large_frames=2,
        paced_images=16,
        long_frames=12,
        short_frames=6,
    )
    said: List[str] = []
    found = goal_runs.measure_goals(scale, True, step=said.append)
    assert found.notes == [note for note in found.notes if "other work" in note]
    assert {key for key, one in found.measured.items() if one.value} == set(NAMED)
    assert said


# ---------------------------------------------------------------- the command


def run_command(*words: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["bench", *words])
    return int(ended.value.code or 0)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return make_model(tmp_path / "model" / "YNET.xmodel", 2, 112)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    return make_pictures(tmp_path / "pictures", 9)


def test_the_command_writes_record_and_chart(
    tmp_path: Path,
    model: Path,
    pictures: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(baseline, "FOLDER", tmp_path)
    monkeypatch.setattr(baseline.save, "__defaults__", (tmp_path,))
    common = ["--model", str(model), "--images", str(pictures), "--devices", "reference,null"]
    common += ["--rounds", "1", "--quick", "-t", "1"]
    out = tmp_path / "out"
    assert run_command(*common, "-o", str(out), "--save-baseline") == 0
    printed = capsys.readouterr().out
    record = json.loads((out / "bench.json").read_text(encoding="utf-8"))
    assert [device["name"] for device in record["devices"]] == ["reference", "null"]
    assert record["devices"][0]["process"]["peak_bytes"] > 2**20
    ElementTree.parse(str(out / "chart.svg"))
    saved = list((tmp_path / "baselines").iterdir())
    assert len(saved) == 1
    assert str(saved[0]) in printed
    assert str(tmp_path) not in saved[0].read_text(encoding="utf-8")

    # A baseline that was a thousand times faster.
    for device in record["devices"]:
        device["images_per_second"]["median"] *= 1000
        device["end_to_end"]["median"] *= 1000
    fast = tmp_path / "fast.json"
    fast.write_text(json.dumps(record), encoding="utf-8")
    assert run_command(*common, "--baseline", str(fast), "--json") == 1
    printed, said = capsys.readouterr()
    assert all(change["worse"] for change in json.loads(printed)["baseline"])
    assert "Error: reference is at" in said


def test_a_wrong_device_ends_the_command_with_one(
    model: Path, pictures: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from deepfake_fpga.deploy.bench import contenders as module

    time = Time()
    chosen = [fake("sim", time, 0.1), fake("reference", time, 0.1, change=flipped)]
    monkeypatch.setattr(module, "contenders", lambda *_: (chosen, {}))
    monkeypatch.setattr(child, "measure", lambda *_: {"load_seconds": 1.0})
    words = ["--model", str(model), "--images", str(pictures), "--rounds", "1", "--quick"]
    assert run_command(*words) == 1
    assert "reference and sim differ" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--threads", "0"], "from 1"),
        (["--batches", "1,x"], "from 1"),
        (["--goals", "--devices", "sim"], "its own models"),
        (["--width", "4", "--model", "x.xmodel"], "model of its own"),
        (["--devices", "gpu"], "no device 'gpu'"),
        (["--baseline", "none.json"], "does not exist"),
        (["--images", "no-such-folder"], "no-such-folder"),
    ],
)
def test_wrong_use_is_told(words: List[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(*words) == 2
    assert said in capsys.readouterr().err


def test_goals_that_are_missed_end_the_command_with_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    scales: List[goal_runs.Scale] = []

    def measure(value: float) -> Callable[..., GoalReport]:
        def give(scale: goal_runs.Scale, *_: Any, **__: Any) -> GoalReport:
            scales.append(scale)
            return report(reference=value)

        return give

    monkeypatch.setattr(goal_runs, "measure_goals", measure(4.0))
    assert run_command("--goals", "--quick", "--rounds", "2", "-o", str(tmp_path)) == 0
    assert json.loads((tmp_path / "goals.json").read_text(encoding="utf-8"))["goals"]
    assert scales[-1] == replace(goal_runs.QUICK, rounds=2)
    monkeypatch.setattr(goal_runs, "measure_goals", measure(6.0))
    assert run_command("--goals", "--json") == 1
    assert scales[-1] == goal_runs.Scale()
    printed = capsys.readouterr().out
    assert json.loads(printed[printed.rindex('{\n  "schema"') :])["goals"]


def test_a_person_watching_sees_what_is_measured(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def measure(scale: goal_runs.Scale, *_: Any, **more: Any) -> GoalReport:
        more["step"]("warm sim up")
        return report()

    monkeypatch.setattr(goal_runs, "measure_goals", measure)
    assert run_command("--goals") == 0
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert run_command("--goals") == 0
    shown = capsys.readouterr().err
    assert "goals 0:00 warm sim up" in shown
    assert shown.endswith("\r\x1b[K")


def test_the_bench_imports_no_torch() -> None:
    import subprocess

    text = (
        "import sys\n"
        "from deepfake_fpga.deploy.bench import child, devices, goal_runs, chart, baseline\n"
        "from deepfake_fpga.deploy.commands import bench\n"
        "print([name for name in ('torch', 'cv2', 'onnxruntime', 'av') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", text], stdout=subprocess.PIPE, check=True)
    assert done.stdout.strip() == b"[]"


def test_the_models_made_here_carry_the_workloads_of_the_compiler() -> None:
    graph = compiled(2, 112)
    assert int(graph.subgraphs("DPU")[0].get("workload_on_arch")) > 0
