"""The pace of the card: published frame rates come out, and the queue neither leaks nor drifts."""

from __future__ import annotations

from pathlib import Path
from typing import Dict, List

import numpy as np
import pytest

from deepfake_fpga.compile.targets import TARGETS, Target, target_by_name
from deepfake_fpga.compile.workload import set_workloads
from deepfake_fpga.compile.xir.attributes import int32, uint64
from deepfake_fpga.compile.xir.graph import Graph
from deepfake_fpga.errors import DeviceError, UsageError
from deepfake_fpga.inference.artifact import artifact_of, pace_target
from deepfake_fpga.inference.devices.base import Batch, Device, TensorInfo
from deepfake_fpga.inference.devices.handmade import GraphBuilder, uynet
from deepfake_fpga.inference.devices.pace import PaceClock, batch_seconds, ceiling
from deepfake_fpga.inference.devices.paced import PacedDevice
from deepfake_fpga.inference.session import Session


def _target(variant: str) -> Target:
    target = target_by_name(variant)
    assert target is not None
    return target


@pytest.fixture(scope="module")
def full_width() -> Graph:
    """U-YNet as compiled: the kernel rows of the first layer are packed into its channels."""
    graph = uynet(64)
    graph.op("inc_0").attrs["channel_augmentation"] = int32(1)
    set_workloads(graph)
    return graph


def test_uynet_runs_at_its_published_rate(full_width: Graph) -> None:
    subgraph = full_width.subgraphs("DPU")[0]
    assert ceiling(full_width, subgraph, _target("8pe_normal")) == pytest.approx(316.8, rel=1e-6)
    # 5001 pictures in 15.8 s
    batches = -(-5001 // 8)
    seconds = batches * batch_seconds(full_width, subgraph, _target("8pe_normal"))
    assert seconds == pytest.approx(15.8, abs=0.05)


def test_other_builds_are_slower_as_the_vendors_unet_is(full_width: Graph) -> None:
    subgraph = full_width.subgraphs("DPU")[0]
    rates = {t.variant: ceiling(full_width, subgraph, t) for t in TARGETS}
    assert rates["8pe"] == rates["8pe_normal"]
    assert rates["8pe_normal"] > rates["6pe_dwc"] > rates["6pe_misc"] > rates["4pe_miscdwc"]
    assert rates["4pe_miscdwc"] == pytest.approx(316.8 * 128.6 / 247.9)
    for target in TARGETS:
        period = batch_seconds(full_width, subgraph, target)
        assert target.engines / period == pytest.approx(rates[target.variant])


def test_the_number_in_the_file_counts_and_is_counted_where_it_is_missing() -> None:
    graph = uynet(8, 112)
    subgraph = graph.subgraphs("DPU")[0]
    counted = ceiling(graph, subgraph, _target("8pe_normal"))
    set_workloads(graph)
    assert ceiling(graph, subgraph, _target("8pe_normal")) == counted
    subgraph.attrs["workload_on_arch"] = uint64(subgraph.get("workload_on_arch") * 2)
    assert ceiling(graph, subgraph, _target("8pe_normal")) == pytest.approx(counted / 2)


def test_a_tiny_model_gets_no_more_than_the_fastest_published() -> None:
    build = GraphBuilder()
    image = build.input((1, 8, 8, 3), 5)
    weights = np.ones((4, 1, 1, 3), np.int8)
    build.output(build.convolution("conv", image, weights, None, (5, 5, 5), (1, 8, 8, 4)))
    graph = build.finish()
    assert ceiling(graph, graph.subgraphs("DPU")[0], _target("8pe_normal")) == 4941.7


class _Time:
    """A clock that only sleeping moves, each sleep longer than asked for."""

    def __init__(self, late: float = 0.0) -> None:
        self.value, self.late = 100.0, late

    def now(self) -> float:
        return self.value

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.value += seconds + self.late


def test_batches_are_served_one_after_another() -> None:
    time = _Time()
    clock = PaceClock(time.now, time.sleep)
    assert [clock.reserve(0.5) for _ in range(3)] == [100.5, 101.0, 101.5]
    clock.wait_until(101.5)
    assert time.value == 101.5
    time.value = 103.0
    assert clock.reserve(0.5) == 103.5, "an idle card owes nothing"
    clock.wait_until(100.0)
    assert time.value == 103.0


def test_batches_of_two_models_share_the_card() -> None:
    time = _Time()
    clock = PaceClock(time.now, time.sleep)
    assert [clock.reserve(s) for s in (0.25, 1.0, 0.25)] == [100.25, 101.25, 101.5]


def test_late_sleeps_do_not_add_up_while_batches_are_waiting() -> None:
    time = _Time(late=0.003)
    clock = PaceClock(time.now, time.sleep)
    done: List[float] = [clock.reserve(0.01) for _ in range(2)]
    for _ in range(500):
        clock.wait_until(done.pop(0))
        done.append(clock.reserve(0.01))
    clock.wait_until(done[0])
    assert time.value - 100.0 == pytest.approx(501 * 0.01, abs=0.004)


class _Counting(Device):
    """Answers at once, with the number of the batch."""

    name = "counting"

    def __init__(self) -> None:
        self.inputs = self.outputs = (TensorInfo("x", (4, 1), 0),)
        self.notes = ("made for a test",)
        self.given = 0
        self.closed = False

    def submit(self, batch: Batch) -> int:
        self.given += 1
        return self.given

    def wait(self, ticket: int) -> Dict[str, np.ndarray]:
        if ticket == 3:
            raise DeviceError("the third fails")
        return {"x": np.full((4, 1), ticket, np.int8)}

    def close(self) -> None:
        self.closed = True


def test_a_paced_device_gives_the_same_answers_and_no_sooner_than_the_card() -> None:
    time = _Time()
    inner = _Counting()
    device = PacedDevice(inner, PaceClock(time.now, time.sleep), 0.5)
    tickets = [device.submit({}) for _ in range(4)]
    begun = time.now()
    assert [int(device.wait(ticket)["x"][0, 0]) for ticket in tickets[:2]] == [1, 2]
    assert time.now() - begun == pytest.approx(1.0)
    with pytest.raises(DeviceError, match="the third fails"):
        device.wait(tickets[2])
    with pytest.raises(DeviceError, match="no batch under ticket 1"):
        device.wait(tickets[0])
    assert device.answer(tickets[3]).device == "counting"
    # The failed batch held the card up all the same.
    assert time.now() - begun == pytest.approx(2.0)
    assert "500.00 ms for a batch of 4" in device.notes[-1]
    device.close()
    assert inner.closed


def test_a_session_is_held_to_the_pace_of_the_models_own_build() -> None:
    artifact = artifact_of(uynet(4, 32), Path("handmade.xmodel"))
    target = pace_target(artifact)
    assert target.dpu_name == artifact.target
    images = np.zeros((8, 32, 32, 3), np.uint8)
    with Session(artifact, "null", pace=target) as session, Session(artifact, "null") as free:
        assert np.array_equal(session.run(images).logits, free.run(images).logits)
        assert "paced like the card" in session.reason
        assert "paced" not in free.reason


def test_a_device_with_a_pace_of_its_own_is_given_no_other() -> None:
    artifact = artifact_of(uynet(4, 32), Path("handmade.xmodel"))
    with pytest.raises(UsageError, match="keeps its own pace"):
        Session(artifact, "float", pace=pace_target(artifact))
