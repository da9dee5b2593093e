"""The quantizer's xmodel executed without torch, against the genuine quantizer's recorded codes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Dict

import numpy as np
import pytest

from deepfake_fpga.compile.xir.attributes import blob, int32
from deepfake_fpga.compile.xir.graph import Graph
from deepfake_fpga.compile.xir.xmodel import read_xmodel
from deepfake_fpga.errors import FormatError, UnsupportedError
from deepfake_fpga.inference.quantized_graph import QuantizedGraph

CASES = (
    "micro_a_conv_bn_relu",
    "micro_b_conv_bias",
    "micro_c_convt_concat",
    "micro_d_pool_linear_sigmoid",
    "micro_e_resadd_avgpool7",
    "micro_e2_resadd_avgpool2",
    "micro_f_cle",
    "uynet_w8",
)
OLDER = tuple(
    f"release_{release}/{case}"
    for release in ("1.4.1", "2.0", "2.5")
    for case in ("micro_c_convt_concat", "micro_d_pool_linear_sigmoid", "uynet_w8")
    # The quantized U-YNet of release 2.5 is not recorded.
    if (release, case) != ("2.5", "uynet_w8")
)


def load(shared: Path, case: str) -> Graph:
    return read_xmodel(next((shared / "golden" / case).rglob("*_int.xmodel")))


def pictures(folder: Path) -> np.ndarray:
    """The recorded test inputs, float32 NHWC."""
    if (folder / "test_inputs.npz").is_file():
        return np.load(folder / "test_inputs.npz")["x"].transpose(0, 2, 3, 1)
    return np.load(folder / "test_u8.npz")["images"].astype(np.float32) / np.float32(255)


def data_op(graph: Graph) -> str:
    return next(op.name for op in graph.ops.values() if op.type == "data")


def nhwc(array: np.ndarray) -> np.ndarray:
    return array.transpose(0, 2, 3, 1) if array.ndim == 4 else array


def recorded(folder: Path) -> Dict[str, np.ndarray]:
    """The recorded codes of every node, NHWC, by the name of its fix."""
    scopes = {n["node"]: n["scope"] for n in json.loads((folder / "inter_index.json").read_text())}
    with np.load(folder / "inter_img0_int8.npz") as arrays:
        return {
            re.sub("[^0-9A-Za-z]", "_", scopes[name]) + "_fix": nhwc(arrays[name])
            for name in arrays.files
        }


@pytest.mark.parametrize("case", CASES)
def test_every_recorded_node_is_reproduced(shared: Path, case: str) -> None:
    folder = shared / "golden" / case
    graph = load(shared, case)
    model = QuantizedGraph(graph)
    found = model.run({data_op(graph): pictures(folder)[:1]})
    expected = recorded(folder)
    assert set(expected) == set(found) == set(model.fix_points)
    for name, codes in expected.items():
        assert found[name].dtype == np.int8
        assert np.array_equal(found[name], codes), name


@pytest.mark.parametrize("case", [*CASES, *OLDER])
def test_recorded_outputs_are_reproduced(shared: Path, case: str) -> None:
    folder = shared / "golden" / case
    source = "uynet_w8" if "uynet" in case else case.rpartition("/")[2]
    inputs = pictures(shared / "golden" / source)[:2]
    graph = load(shared, case)
    model = QuantizedGraph(graph)
    tails = [op.name for op in graph.tail_ops() if op.type not in ("const", "stack")]
    found = model.run({data_op(graph): inputs}, [n for n in tails if n not in model.fix_points])
    outputs = [
        found[name].astype(np.float64) * 2.0 ** -model.fix_points.get(name, 0) for name in tails
    ]
    with np.load(folder / "quant_outputs.npz") as arrays:
        expected = [nhwc(arrays[name])[:2] for name in arrays.files]
    assert len(outputs) == len(expected)
    for values in expected:
        (mine,) = [array for array in outputs if array.shape == values.shape]
        # A sigmoid at the end is float; all else is exact.
        tolerance = 1e-6 if values.ndim == 2 else 0
        assert np.abs(mine - values).max() <= tolerance


def test_a_flipped_byte_of_a_constant_is_seen(shared: Path) -> None:
    folder = shared / "golden" / CASES[0]
    graph = load(shared, CASES[0])
    op = next(op for op in graph.ops.values() if op.type == "const" and op.tensor.elements > 8)
    data = bytearray(op.get("data"))
    data[3] ^= 0x80  # the sign of the first weight
    op.attrs["data"] = blob(bytes(data))
    found = QuantizedGraph(graph).run({data_op(graph): pictures(folder)[:1]})
    assert any(not np.array_equal(found[n], codes) for n, codes in recorded(folder).items())


def test_it_can_be_entered_at_any_fix(shared: Path) -> None:
    graph = load(shared, "uynet_w8")
    model = QuantizedGraph(graph)
    codes = recorded(shared / "golden" / "uynet_w8")
    middle = list(model.fix_points)[8]
    found = model.run({middle: codes[middle]})
    assert set(found) < set(codes)
    for name, array in found.items():
        assert np.array_equal(array, codes[name]), name
    tail = next(op.name for op in graph.tail_ops() if op.type == "sigmoid")
    mask = next(name for name in model.fix_points if "outc" in name)
    with pytest.raises(UnsupportedError, match="cannot be computed from what is given") as error:
        model.run({mask: codes[mask]}, [tail])
    assert "is not given" in error.value.evidence


def test_a_graph_that_cannot_be_executed_is_refused_by_name(shared: Path) -> None:
    with pytest.raises(UnsupportedError, match="is compiled"):
        QuantizedGraph(read_xmodel(shared / "xmodels" / "zcu102_pointpillars_v2.5.xmodel"))
    graph = load(shared, CASES[0])
    name = next(op.name for op in graph.ops.values() if op.type == "const")
    graph.ops[name].attrs["data"] = blob(b"")
    with pytest.raises(FormatError, match=re.escape(f"{name!r} are missing")):
        QuantizedGraph(graph)
    graph = load(shared, CASES[0])
    fix = next(op for op in graph.ops.values() if op.type == "fix")
    fix.attrs["fix_point"] = int32(400)
    with pytest.raises(FormatError, match=re.escape(f"tensor {fix.name!r}) is impossible")):
        QuantizedGraph(graph)


def test_what_has_no_rule_stops_only_what_needs_it(shared: Path) -> None:
    graph = read_xmodel(shared / "xmodels" / "quantized_voxelnet.xmodel")
    model = QuantizedGraph(graph)
    tail = next(op.name for op in graph.tail_ops() if op.type == "fix")
    with pytest.raises(UnsupportedError, match="cannot be computed") as error:
        model.run({"VoxelNet__input_1": np.zeros((1, 12000, 4), np.float32)}, [tail])
    assert "PPScatterV2" in error.value.evidence or "not given" in error.value.evidence
