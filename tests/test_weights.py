"""The parameter blob against genuine compiled models and their quantized source."""

from __future__ import annotations

from pathlib import Path
from typing import Dict

import numpy as np
import pytest

from deepfake_fpga.compile.weights import (
    bias_bytes,
    constant_arrays,
    is_simulated,
    pack_bias,
    pack_weights,
    unpack_bias,
    unpack_weights,
    weight_bytes,
)
from deepfake_fpga.compile.xir.attributes import blob, map_bytes
from deepfake_fpga.compile.xir.xmodel import read_xmodel
from deepfake_fpga.errors import FormatError, UnsupportedError


def quantized_codes(path: Path) -> Dict[str, np.ndarray]:
    """Code of every constant of a quantizer's file, by the constant's name."""
    graph = read_xmodel(path)
    codes = {}
    for op in graph.ops.values():
        if op.type == "const" and f"{op.name}_fix" in graph.ops:
            values = np.frombuffer(op.get("data"), np.float32).reshape(op.tensor.dims)
            scaled = values.astype(float) * 2.0 ** graph.ops[f"{op.name}_fix"].get("fix_point")
            codes[op.name] = np.clip(np.floor(scaled + 0.5), -128, 127).astype(np.int8)
    return codes


@pytest.mark.parametrize(
    "name",
    [
        "vck5000_8pe_pointpillars_v2.5",
        "vck5000_8pe_pointpillars_v2.0",
        "vck5000_6pedwc_pointpillars_v2.5",
        "zcu102_pointpillars_v2.5",
    ],
)
def test_constants_of_genuine_models_are_the_quantizers(shared: Path, name: str) -> None:
    codes = quantized_codes(shared / "xmodels" / "quantized_voxelnet.xmodel")
    found = constant_arrays(read_xmodel(shared / "xmodels" / f"{name}.xmodel"))
    assert len(codes) == len(found) == 46
    for key, array in found.items():
        # Release 2.0 keeps the constant's name, later ones append "_new".
        expected = codes[key[:-4] if key.endswith("_new") else key]
        assert array.dtype == np.int8
        assert np.array_equal(array, expected), key


def test_genuine_blob_is_packed_to_the_byte(shared: Path) -> None:
    path = shared / "xmodels" / "vck5000_8pe_pointpillars_v2.5.xmodel"
    graph = read_xmodel(path)
    arrays = constant_arrays(graph)
    for subgraph in graph.subgraphs("DPU"):
        genuine = subgraph.get("reg_id_to_parameter_value")["REG_0"]
        ours = bytearray(len(genuine))
        for name in subgraph.all_ops():
            op = graph.ops[name]
            if op.type == "const-fix":
                pack = pack_bias if arrays[name].ndim == 1 else pack_weights
                start = op.tensor.get("ddr_addr")
                data = pack(arrays[name])
                ours[start : start + len(data)] = data
        assert bytes(ours) == genuine


def test_a_flipped_byte_of_the_blob_changes_one_weight(shared: Path) -> None:
    graph = read_xmodel(shared / "xmodels" / "vck5000_8pe_pointpillars_v2.5.xmodel")
    before = constant_arrays(graph)
    subgraph = graph.subgraphs("DPU")[0]
    data = bytearray(subgraph.get("reg_id_to_parameter_value")["REG_0"])
    data[0] ^= 1
    subgraph.attrs["reg_id_to_parameter_value"] = map_bytes({"REG_0": bytes(data)})
    after = constant_arrays(graph)
    assert sum(int((before[k] != after[k]).sum()) for k in before) == 1


def test_augmented_first_layer_fills_the_places_its_kernel_has(shared: Path) -> None:
    graph = read_xmodel(shared / "xmodels" / "vck5000_8pe_tf2mnist_v2.5.xmodel")
    data = graph.subgraphs("DPU")[0].get("reg_id_to_parameter_value")["REG_0"][:57344]
    weights = constant_arrays(graph, inferred=True)["quant_conv2d_weights_new"]
    assert weights.shape == (32, 7, 7, 1)
    assert len(data) == weight_bytes(weights.shape, augmented=True)
    # Nothing of the layer stands outside the places we read.
    assert np.count_nonzero(weights) == np.count_nonzero(np.frombuffer(data, np.int8))
    assert pack_weights(weights, augmented=True) == data


@pytest.mark.parametrize(
    ("shape", "augmented"),
    [
        ((1, 1, 1, 1), False),
        ((42, 1, 1, 192), False),
        ((130, 3, 3, 65), False),
        ((256, 2, 3, 128), False),
        ((8, 3, 3, 3), True),
        ((70, 5, 3, 4), True),
    ],
)
def test_weights_survive_packing(shape: tuple, augmented: bool) -> None:
    random = np.random.default_rng(7)
    weights = random.integers(1, 128, shape).astype(np.int8)
    block = pack_weights(weights, augmented)
    assert len(block) == weight_bytes(shape, augmented)
    assert np.count_nonzero(np.frombuffer(block, np.int8)) == weights.size
    assert np.array_equal(unpack_weights(block, shape, augmented), weights)


@pytest.mark.parametrize("count", [1, 18, 64, 65, 1024])
def test_biases_survive_packing(count: int) -> None:
    bias = np.random.default_rng(count).integers(1, 128, count).astype(np.int8)
    block = pack_bias(bias)
    assert len(block) == bias_bytes(count)
    assert np.array_equal(unpack_bias(block, count), bias)


def test_other_dpus_and_lost_constants_are_named(shared: Path) -> None:
    with pytest.raises(UnsupportedError, match="DPUCVDX8G"):
        constant_arrays(read_xmodel(shared / "xmodels" / "vck190_densebox_v1.4.1.xmodel"))
    graph = read_xmodel(shared / "xmodels" / "vck5000_8pe_tf2mnist_v2.5.xmodel")
    assert not is_simulated(graph)
    constant = graph.ops["quant_dense_bias_new"]
    constant.attrs["data"] = blob(b"123")
    with pytest.raises(FormatError, match="3 bytes for 10 values"):
        constant_arrays(graph, inferred=True)
    constant.attrs["data"] = blob(b"")
    graph.subgraphs("DPU")[1].attrs["reg_id_to_parameter_value"] = map_bytes({"REG_0": b"12"})
    with pytest.raises(FormatError, match="beyond"):
        constant_arrays(graph, inferred=True)
