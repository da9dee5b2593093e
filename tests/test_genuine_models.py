"""Files of the vendor's compiler executed, against the quantized file they were compiled from."""

from __future__ import annotations

from pathlib import Path
from typing import Dict, Iterator, Tuple

import numpy as np
import pytest

from deepfake_fpga.compile.compiler import compile_graph
from deepfake_fpga.compile.constants import place_constants
from deepfake_fpga.compile.targets import target_by_name
from deepfake_fpga.compile.weights import constant_arrays
from deepfake_fpga.compile.xir.attributes import blob, int32, map_bytes, map_string
from deepfake_fpga.compile.xir.graph import Graph, Subgraph
from deepfake_fpga.compile.xir.xmodel import read_xmodel, write_xmodel
from deepfake_fpga.errors import MismatchError, UnsupportedError
from deepfake_fpga.inference.artifact import load_artifact
from deepfake_fpga.inference.devices import open_device
from deepfake_fpga.inference.quantized_graph import QuantizedGraph, Values
from deepfake_fpga.inference.session import Session

COMPILED = (
    "vck5000_8pe_pointpillars_v2.5",
    "vck5000_8pe_pointpillars_v2.0",
    "vck5000_6pedwc_pointpillars_v2.5",
    "zcu102_pointpillars_v2.5",
)
# The network is convolutions all through, so on a part of the plane it is the same network.
_LESS = {12000: 120, 496: 64, 248: 32, 124: 16, 62: 8, 432: 48, 216: 24, 108: 12, 54: 6}


def shrink(graph: Graph) -> Graph:
    """The same network on a smaller plane."""
    for op in graph.ops.values():
        dims = op.tensor.dims
        if len(dims) == 4 and dims[0] == 1:
            op.tensor.dims = (1, *(_LESS.get(d, d) for d in dims[1:3]), dims[3])
    return graph


def part(graph: Graph, which: int) -> Subgraph:
    """The pillar network (0) or the detector (1)."""
    return graph.subgraphs("DPU")[which]


def feeds(model: QuantizedGraph, name: str, fix_point: int, codes: np.ndarray) -> Values:
    """The input of a DPU subgraph under its name in the quantized graph."""
    if name in model.graph.ops:
        return {name: codes}
    # The compiler turned a float tensor behind a custom operator into codes.
    return {name[: -len("_fix")]: codes.astype(np.float32) * np.float32(2.0**-fix_point)}


def random_codes(shape: Tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(3).integers(-128, 128, shape).astype(np.int8)


def shared_tensors(graph: Graph, subgraph: Subgraph, model: QuantizedGraph) -> Iterator[str]:
    for name in subgraph.all_ops():
        tensor = graph.ops[name].tensor.name
        if tensor in model.fix_points and graph.ops[name].type != "const-fix":
            yield tensor


def execute(graph: Graph, which: int, device: str, model: QuantizedGraph) -> Tuple[Values, Values]:
    """All tensors that both files have: by the compiled one, by the quantized one."""
    subgraph = part(graph, which)
    taps = list(shared_tensors(graph, subgraph, model))
    with open_device(device, graph, subgraph, batch=1, threads=1, taps=taps) as opened:
        (info,) = opened.inputs
        assert info.fix_point is not None
        codes = random_codes(info.shape)
        found = opened.wait(opened.submit({info.name: codes}))
    return found, model.run(feeds(model, info.name, info.fix_point, codes))


@pytest.mark.parametrize("name", COMPILED)
@pytest.mark.parametrize("device", ["sim", "reference"])
@pytest.mark.parametrize("which", [0, 1])
def test_compiled_file_equals_the_quantized_file(
    shared: Path, name: str, device: str, which: int
) -> None:
    model = QuantizedGraph(shrink(read_xmodel(shared / "xmodels" / "quantized_voxelnet.xmodel")))
    graph = shrink(read_xmodel(shared / "xmodels" / f"{name}.xmodel"))
    found, expected = execute(graph, which, device, model)
    assert len(found) >= (20 if which else 1)
    for tensor, codes in found.items():
        assert len(np.unique(codes)) > 16
        assert np.array_equal(codes, expected[tensor]), tensor


def test_compiled_file_equals_the_quantized_file_at_full_size(shared: Path) -> None:
    model = QuantizedGraph(read_xmodel(shared / "xmodels" / "quantized_voxelnet.xmodel"))
    results: Dict[str, Values] = {}
    for name in COMPILED:
        graph = read_xmodel(shared / "xmodels" / f"{name}.xmodel")
        with open_device("sim", graph, part(graph, 1), batch=1, threads=1) as opened:
            (info,) = opened.inputs
            codes = random_codes(info.shape)
            results[name] = opened.wait(opened.submit({info.name: codes}))
    expected = model.run(feeds(model, info.name, info.fix_point or 0, codes))
    for name, found in results.items():
        assert len(found) == 3
        for tensor, array in found.items():
            assert np.array_equal(array, expected[tensor]), (name, tensor)


@pytest.mark.parametrize("name", [COMPILED[0], COMPILED[3]])
def test_a_flipped_byte_of_the_blob_is_seen(shared: Path, name: str) -> None:
    model = QuantizedGraph(shrink(read_xmodel(shared / "xmodels" / "quantized_voxelnet.xmodel")))
    graph = shrink(read_xmodel(shared / "xmodels" / f"{name}.xmodel"))
    subgraph = part(graph, 1)
    data = bytearray(subgraph.get("reg_id_to_parameter_value")["REG_0"])
    data[next(at for at, byte in enumerate(data) if byte)] ^= 0x40
    subgraph.attrs["reg_id_to_parameter_value"] = map_bytes({"REG_0": bytes(data)})
    found, expected = execute(graph, 1, "sim", model)
    assert any(not np.array_equal(codes, expected[t]) for t, codes in found.items())


@pytest.mark.parametrize("name", COMPILED)
def test_constants_by_name_are_those_in_the_blob(shared: Path, name: str) -> None:
    quantized = read_xmodel(shared / "xmodels" / "quantized_voxelnet.xmodel")
    graph = read_xmodel(shared / "xmodels" / f"{name}.xmodel")
    decoded = constant_arrays(graph)
    for subgraph in graph.subgraphs("DPU"):
        del subgraph.attrs["reg_id_to_parameter_value"]
    assert place_constants(graph, quantized) == 46
    placed = constant_arrays(graph)
    assert set(placed) == set(decoded)
    for key, array in placed.items():
        assert np.array_equal(array, decoded[key]), key


# -- layouts that no sample shows -----------------------------------------------------------------


def vendors(shared: Path, case: str) -> Tuple[Graph, Graph]:
    """A recorded network compiled by us under the vendor's stamp, and its quantized graph."""
    quantized = read_xmodel(next((shared / "golden" / case).rglob("*_int.xmodel")))
    target = target_by_name("8pe_normal")
    assert target is not None
    graph = compile_graph(quantized, target)
    graph.attrs["libs_info"] = map_string({"xcompiler.3.0.0": "0123"})
    return graph, quantized


def test_an_unproven_layout_is_refused_and_taken_by_name(shared: Path) -> None:
    graph, quantized = vendors(shared, "uynet_w8")
    subgraph = part(graph, 0)
    for device in ("sim", "reference"):
        with pytest.raises(UnsupportedError, match="not established") as error:
            open_device(device, graph, subgraph, batch=1)
        assert "UYNet__inc_double_conv_0_weight_fix" in error.value.evidence
        assert "channel_augmentation" in error.value.evidence
        assert "--weights" in error.value.next_step
    place_constants(graph, quantized)
    target = target_by_name("8pe_normal")
    assert target is not None
    ours = compile_graph(quantized, target)
    images = random_codes((1, 224, 224, 3))
    outputs = []
    for compiled in (graph, ours):
        with open_device("sim", compiled, part(compiled, 0), batch=1, threads=1) as opened:
            outputs.append(opened.wait(opened.submit({opened.inputs[0].name: images})))
    for name, codes in outputs[0].items():
        assert np.array_equal(codes, outputs[1][name])


def test_a_session_takes_the_weights_from_the_quantized_file(shared: Path, tmp_path: Path) -> None:
    graph, _ = vendors(shared, "uynet_w8")
    path = tmp_path / "YNET.xmodel"
    write_xmodel(graph, path)
    with pytest.raises(UnsupportedError, match="not established"):
        Session(load_artifact(path), "sim", threads=1)
    golden = shared / "golden" / "uynet_w8"
    weights = golden / "quantize_result" / "UYNet_int.xmodel"
    images = np.load(golden / "test_u8.npz")["images"][:2]
    with Session(load_artifact(path, weights), "sim", threads=1) as session:
        prediction = session.run(images)
    recorded = np.load(golden / "quant_outputs.npz")
    assert np.array_equal(prediction.mask, np.argmax(recorded["logits"][:2], axis=1))
    assert np.abs(prediction.real - recorded["cls"][:2, 0]).max() <= 1e-6


def test_tensorflow_sample_is_refused_where_its_layout_is_unknown(shared: Path) -> None:
    graph = read_xmodel(shared / "xmodels" / "vck5000_8pe_tf2mnist_v2.5.xmodel")
    with pytest.raises(UnsupportedError, match="not established"):
        open_device("sim", graph, part(graph, 0), batch=1)
    # Its second part has nothing unknown.
    open_device("sim", graph, part(graph, 1), batch=1).close()


def test_constants_of_another_model_are_refused_by_name(shared: Path) -> None:
    graph, quantized = vendors(shared, "uynet_w8")
    voxelnet = read_xmodel(shared / "xmodels" / "quantized_voxelnet.xmodel")
    with pytest.raises(MismatchError, match="no constant 'UYNet__"):
        place_constants(graph, voxelnet)
    fix = next(op for op in quantized.ops.values() if op.name.endswith("outc_conv_bias_fix"))
    fix.attrs["fix_point"] = int32(fix.get("fix_point") + 1)
    constant = quantized.ops[fix.inputs["input"][0]]
    zeros = bytes(len(constant.get("data")))
    constant.attrs["data"] = blob(zeros)
    with pytest.raises(MismatchError, match="outc_conv_bias_fix' has another fix point"):
        place_constants(graph, quantized)
    assert not any(op.get("data") for op in graph.ops.values() if op.type == "const-fix")
