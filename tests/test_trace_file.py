"""The trace of a run: what every thread did, as a file that Chrome and Perfetto read."""

from __future__ import annotations

import json
import threading
from collections import defaultdict
from pathlib import Path
from typing import Any, Dict, List, Tuple

import cv2
import numpy as np
import pytest

from deepfake_fpga.compile.xir.xmodel import write_xmodel
from deepfake_fpga.deploy.cli import main
from deepfake_fpga.errors import ToolkitError
from deepfake_fpga.inference.artifact import artifact_of
from deepfake_fpga.inference.devices.handmade import uynet
from deepfake_fpga.inference.pipeline import run_pipeline
from deepfake_fpga.inference.run import RunOptions, run
from deepfake_fpga.inference.session import Session
from deepfake_fpga.inference.trace import Trace

from .fakes import SIZE, FakeSession, ListSink, PaintedSource

FRAMES = 43

Event = Dict[str, Any]


def spans(record: Dict[str, Any], name: str = "") -> List[Event]:
    return [e for e in record["traceEvents"] if e["ph"] == "X" and name in ("", e["name"])]


def threads(record: Dict[str, Any]) -> Dict[int, str]:
    return {
        e["tid"]: e["args"]["name"]
        for e in record["traceEvents"]
        if e["ph"] == "M" and e["name"] == "thread_name"
    }


def assert_nested(record: Dict[str, Any]) -> None:
    """Two spans of a thread lie one within the other or one after the other."""
    by_thread: Dict[int, List[Tuple[float, float]]] = defaultdict(list)
    for event in spans(record):
        assert event["dur"] >= 0
        by_thread[event["tid"]].append((event["ts"], event["ts"] + event["dur"]))
    for found in by_thread.values():
        ends: List[float] = []
        for start, end in found:  # in the order of the file
            while ends and ends[-1] <= start + 0.002:  # times are rounded to a nanosecond
                ends.pop()
            assert not ends or end <= ends[-1] + 0.002
            ends.append(end)


@pytest.fixture(scope="module")
def traced() -> Dict[str, Any]:
    trace, sink = Trace(), ListSink()
    source = PaintedSource(FRAMES, broken={5})
    run_pipeline([source], FakeSession().as_session(), [sink], threads=3, trace=trace)
    record: Dict[str, Any] = json.loads(json.dumps(trace.to_json()))
    return record


def test_every_frame_is_in_the_trace(traced: Dict[str, Any]) -> None:
    every = list(range(FRAMES))
    assert sorted(e["args"]["frame"] for e in spans(traced, "decode")) == every
    assert sorted(e["args"]["frame"] for e in spans(traced, "pre")) == [n for n in every if n != 5]
    assert sum(e["args"]["images"] for e in spans(traced, "submit")) == FRAMES - 1
    assert sum(e["args"]["frames"] for e in spans(traced, "device wait")) == FRAMES
    assert sum(e["args"]["frames"] for e in spans(traced, "write")) == FRAMES


def test_spans_nest_and_stand_on_named_threads(traced: Dict[str, Any]) -> None:
    assert_nested(traced)
    names = threads(traced)
    where: Dict[str, set] = defaultdict(set)
    for event in spans(traced):
        where[event["name"]].add(names[event["tid"]].partition("-")[0])
    assert where["read"] == {"read"}
    assert where["decode"] == where["pre"] == {"worker"}
    assert where["submit"] == {"feed"}
    assert where["device wait"] == where["post"] == {"collect"}
    assert where["write"] == {"write"}


def test_batches_under_way_begin_and_end_once(traced: Dict[str, Any]) -> None:
    begun = {e["id"]: e["ts"] for e in traced["traceEvents"] if e["ph"] == "b"}
    ended = {e["id"]: e["ts"] for e in traced["traceEvents"] if e["ph"] == "e"}
    assert len(begun) == -(-(FRAMES - 1) // 8)
    assert begun.keys() == ended.keys()
    assert all(begun[number] <= ended[number] for number in begun)


def test_the_depths_of_the_queues_are_counted(traced: Dict[str, Any]) -> None:
    counters = [e for e in traced["traceEvents"] if e["ph"] == "C"]
    assert counters
    for event in counters:
        assert event["name"] == "queues"
        assert set(event["args"]) == {"prepared", "submitted", "rendered"}
        assert all(value >= 0 for value in event["args"].values())


def test_the_outer_of_two_spans_that_begin_together_comes_first() -> None:
    trace = Trace(lambda: 0.0)
    trace.span("inner", 1.0, 2.0)
    trace.span("outer", 1.0, 3.0)
    assert [e["name"] for e in spans(trace.to_json())] == ["outer", "inner"]
    assert spans(trace.to_json())[0]["ts"] == 1e6
    assert_nested(trace.to_json())


def test_a_thread_that_got_the_identifier_of_another_has_its_own_name() -> None:
    trace = Trace()
    for name in ("first", "second", "third"):
        thread = threading.Thread(target=lambda: trace.span("work", 0.0, 1.0), name=name)
        thread.start()
        thread.join()
    record = trace.to_json()
    names = threads(record)
    assert [names[e["tid"]] for e in spans(record)] == ["first", "second", "third"]


def test_more_events_than_are_kept_are_counted() -> None:
    trace = Trace(limit=3)
    for number in range(5):
        trace.span("work", number, number + 1)
    record = trace.to_json()
    assert len(spans(record)) == 3
    assert record["otherData"] == {"events_left_out": 2}


def test_a_run_writes_its_trace_with_the_devices_own_time(tmp_path: Path) -> None:
    artifact = artifact_of(uynet(2, SIZE), Path("handmade.xmodel"))
    with Session(artifact, "reference") as session:
        options = RunOptions(threads=2, pictures=False, trace=tmp_path / "trace.json")
        run([PaintedSource(10)], session, tmp_path / "out", options)
    record = json.loads((tmp_path / "trace.json").read_text(encoding="utf-8"))
    busy = spans(record, "device")
    assert len(busy) == 2
    assert {threads(record)[e["tid"]] for e in busy} == {"device-reference"}
    assert sum(e["dur"] for e in busy) == pytest.approx(1e6 * session.timings.device, rel=0.01)
    assert_nested(record)


def test_a_run_that_fails_leaves_the_trace_of_what_was_done(tmp_path: Path) -> None:
    source = PaintedSource(400)

    def fail(number: int) -> None:
        if number == 300:
            raise OSError("the folder has gone")

    source.before = fail
    artifact = artifact_of(uynet(2, SIZE), Path("handmade.xmodel"))
    options = RunOptions(threads=2, pictures=False, trace=tmp_path / "trace.json")
    failing = pytest.raises(ToolkitError, match="folder has gone")
    with Session(artifact, "null") as session, failing:
        run([source], session, tmp_path / "out", options)
    record = json.loads((tmp_path / "trace.json").read_text(encoding="utf-8"))
    found = {e["args"]["frame"] for e in spans(record, "decode")}
    assert found
    assert max(found) < 300
    assert [path.name for path in tmp_path.iterdir() if ".part" in path.name] == []


def test_the_command_writes_a_trace_and_keeps_a_pace(tmp_path: Path) -> None:
    model = tmp_path / "YNET.xmodel"
    write_xmodel(uynet(2, 112), model)
    for number in range(3):
        picture = np.full((32, 32, 3), number, np.uint8)
        assert cv2.imwrite(str(tmp_path / f"{number}.png"), picture)
    words = ["run", "--images", str(tmp_path), "-o", str(tmp_path / "out"), "--model", str(model)]
    words += ["--device", "null", "--no-overlay", "--trace", str(tmp_path / "trace.json")]
    with pytest.raises(SystemExit) as ended:
        main([*words, "--pace", "vck5000"])
    assert ended.value.code == 0
    record = json.loads((tmp_path / "trace.json").read_text(encoding="utf-8"))
    assert len(spans(record, "decode")) == 3
    summary = json.loads((tmp_path / "out" / "summary.json").read_text(encoding="utf-8"))
    assert "paced like the card" in json.dumps(summary)


def test_without_a_trace_nothing_is_noted() -> None:
    sink = ListSink()
    meter = run_pipeline([PaintedSource(9)], FakeSession().as_session(), [sink])
    assert meter.done == 9
    assert np.isfinite(sum(meter.seconds.values()))
