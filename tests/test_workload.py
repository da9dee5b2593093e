"""Workloads against the numbers the vendor's compiler wrote into genuine models."""

from __future__ import annotations

from pathlib import Path

import pytest

from deepfake_fpga.compile.workload import set_workloads, workload
from deepfake_fpga.compile.xir.attributes import int32s
from deepfake_fpga.compile.xir.graph import Graph, Op, int8_tensor
from deepfake_fpga.compile.xir.xmodel import read_xmodel

GENUINE = [
    ("vck5000_8pe_pointpillars_v2.5", 24),
    ("vck5000_8pe_pointpillars_v2.0", 24),
    ("vck5000_6pedwc_pointpillars_v2.5", 24),
    ("vck5000_8pe_tf2mnist_v2.5", 6),
]


@pytest.mark.parametrize(("name", "count"), GENUINE)
def test_every_operator_of_a_genuine_model(shared: Path, name: str, count: int) -> None:
    graph = read_xmodel(shared / "xmodels" / f"{name}.xmodel")
    recorded = {
        op.name: (op.get("workload"), op.get("workload_on_arch"))
        for op in graph.ops.values()
        if op.get("workload") is not None
    }
    assert len(recorded) == count
    assert {n: workload(graph, graph.ops[n]) for n in recorded} == recorded
    silent = [op for op in graph.ops.values() if op.name not in recorded]
    assert all(workload(graph, op) is None for op in silent)


@pytest.mark.parametrize(("name", "count"), GENUINE)
def test_sums_up_the_tree_of_a_genuine_model(shared: Path, name: str, count: int) -> None:
    del count
    graph = read_xmodel(shared / "xmodels" / f"{name}.xmodel")
    keys = ("workload", "workload_on_arch")
    recorded = [[node.attrs.pop(key).value for key in keys] for _, node in graph.root.walk()]
    set_workloads(graph)
    assert [[node.get(key) for key in keys] for _, node in graph.root.walk()] == recorded


def test_kinds_no_sample_shows() -> None:
    graph = Graph("g")
    for name in ("a", "b"):
        graph.add(Op(name, "data-fix", int8_tensor(name, (1, 5, 6, 70), 4)))
    graph.add(Op("w", "const-fix", int8_tensor("w", (1, 3, 3, 70), 4)))
    tensor = int8_tensor("t", (1, 5, 6, 70), 4)
    add = graph.add(Op("add", "eltwise-fix", tensor, {}, {"input": ("a", "b")}))
    assert workload(graph, add) == (5 * 6 * 70, 5 * 6 * 128)
    attrs = {"kernel": int32s((3, 3)), "stride": int32s((1, 1))}
    inputs = {"input": ("a",), "weights": ("w",)}
    depthwise = graph.add(Op("dw", "depthwise-conv2d-fix", tensor, attrs, inputs))
    assert workload(graph, depthwise) == (5 * 6 * 70 * 18, 5 * 6 * 128 * 18)
