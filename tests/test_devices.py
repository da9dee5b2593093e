"""Every device against the recorded quantizer codes, against integers, and against each other."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Callable, Dict, List, Sequence, Tuple

import numpy as np
import pytest

from deepfake_fpga.compile.compiler import compile_graph
from deepfake_fpga.compile.targets import target_by_name
from deepfake_fpga.compile.xir.graph import Graph
from deepfake_fpga.compile.xir.xmodel import read_xmodel
from deepfake_fpga.errors import DeviceError, MissingError, UnsupportedError
from deepfake_fpga.inference.cpu_operators import float2fix, sigmoid
from deepfake_fpga.inference.devices import GRAPH_DEVICES, choose_device, open_device
from deepfake_fpga.inference.devices.base import Device
from deepfake_fpga.inference.devices.handmade import GraphBuilder, uynet
from deepfake_fpga.inference.devices.null import NullDevice
from deepfake_fpga.inference.devices.onnx_graph import MAX_CUT
from deepfake_fpga.inference.devices.reference import ReferenceDevice
from deepfake_fpga.inference.devices.sim import SimDevice
from deepfake_fpga.preprocessing import Preprocessing, quantization_table

Open = Callable[[Graph, int, Sequence[str]], Device]


def _reference(graph: Graph, batch: int, taps: Sequence[str] = ()) -> Device:
    return ReferenceDevice(graph, graph.subgraphs("DPU")[0], batch, taps)


def _sim(graph: Graph, batch: int, taps: Sequence[str] = ()) -> Device:
    return SimDevice(graph, graph.subgraphs("DPU")[0], batch, 1, taps)


def _sim_unsigned(graph: Graph, batch: int, taps: Sequence[str] = ()) -> Device:
    return SimDevice(graph, graph.subgraphs("DPU")[0], batch, 1, taps, signed_weights=False)


EXACT: Dict[str, Open] = {
    "reference": _reference,
    "sim": _sim,
    "sim-unsigned": _sim_unsigned,
}


@pytest.fixture(params=sorted(EXACT))
def exact(request: pytest.FixtureRequest) -> Open:
    """Opens the first DPU subgraph of a graph on each device that computes exact integers."""
    return EXACT[request.param]


@pytest.fixture(params=["sim", "sim-unsigned"])
def sim(request: pytest.FixtureRequest) -> Open:
    return EXACT[request.param]


def run(open_: Open, graph: Graph, inputs: Dict[str, np.ndarray], taps: Sequence[str] = ()):
    batch = len(next(iter(inputs.values())))
    with open_(graph, batch, taps) as device:
        return device.wait(device.submit(inputs))


# -- the recorded cases -------------------------------------------------------------------------

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


class Case:
    """A recorded network, compiled by us, with the codes the genuine quantizer gave."""

    def __init__(self, folder: Path) -> None:
        quantized = read_xmodel(next((folder / "quantize_result").glob("*_int.xmodel")))
        target = target_by_name("8pe_normal")
        assert target is not None
        self.graph = compile_graph(quantized, target)
        self.codes = dict(np.load(folder / "inter_img0_int8.npz"))
        self.index = json.loads((folder / "inter_index.json").read_text(encoding="utf-8"))
        self.outputs = dict(np.load(folder / "quant_outputs.npz"))
        data_op = next(op for op in self.graph.ops.values() if op.type == "data-fix")
        fix_point = data_op.tensor.fix_point
        assert fix_point is not None
        if (folder / "test_u8.npz").is_file():
            images = np.load(folder / "test_u8.npz")["images"]
            inputs = quantization_table(fix_point, Preprocessing())[images]
        else:
            values = np.load(folder / "test_inputs.npz")["x"]
            inputs = float2fix(values.transpose(0, 2, 3, 1), fix_point)
        self.input = {data_op.tensor.name: inputs}

    def tensors(self) -> Dict[str, str]:
        """Recorded node to the tensor of the compiled graph that carries it."""
        carriers: Dict[str, str] = {}
        for op in self.graph.ops.values():
            if op.type in ("const-fix", "data-fix", "upload") or op.tensor.fix_point is None:
                continue
            plain = re.sub(r"_fix(\(MoveReshape\))?(_download_0)?$", "", op.tensor.name)
            carriers.setdefault(plain, op.tensor.name)
        found = {}
        for record in self.index:
            scope = re.sub(r"::|[/\[\].]", "_", record["scope"].replace("::", "__"))
            if scope in carriers and record["node"] in self.codes:
                found[record["node"]] = carriers[scope]
        return found


@pytest.fixture(scope="module")
def recorded(shared: Path) -> Callable[[str], Case]:
    cases: Dict[str, Case] = {}

    def load(name: str) -> Case:
        if name not in cases:
            cases[name] = Case(shared / "golden" / name)
        return cases[name]

    return load


def nhwc(codes: np.ndarray) -> np.ndarray:
    return codes.transpose(0, 2, 3, 1) if codes.ndim == 4 else codes


@pytest.mark.parametrize("name", CASES)
def test_every_recorded_node_is_reproduced(
    recorded: Callable[[str], Case], exact: Open, name: str
) -> None:
    case = recorded(name)
    carriers = case.tensors()
    inputs = {key: value[:1] for key, value in case.input.items()}
    # The network's input is recorded as a node too; the rest are tensors of the subgraph.
    missing = set(case.codes) - set(carriers) - {case.index[0]["node"]}
    assert not missing
    assert np.array_equal(next(iter(inputs.values())), nhwc(case.codes[case.index[0]["node"]]))
    results = run(exact, case.graph, inputs, list(carriers.values()))
    for node, tensor in carriers.items():
        expected = nhwc(case.codes[node])
        assert np.array_equal(results[tensor].reshape(expected.shape), expected), node


@pytest.mark.parametrize("name", CASES)
def test_recorded_outputs_of_every_image_are_reproduced(
    recorded: Callable[[str], Case], exact: Open, name: str
) -> None:
    case = recorded(name)
    results = run(exact, case.graph, case.input)
    compared = 0
    for values in case.outputs.values():
        expected = nhwc(values)
        for op in case.graph.ops.values():
            if op.type != "download" or op.tensor.dims[1:] != expected.shape[1:]:
                continue
            real = results[op.tensor.name].astype(np.float32) * np.float32(
                2.0 ** -(op.tensor.fix_point or 0)
            )
            if "sigmoid" in {reader.type for reader in case.graph.ops.values()} and real.ndim == 2:
                assert np.abs(sigmoid(real) - expected).max() <= 1e-6
            else:
                assert np.array_equal(real, expected)
            compared += 1
    assert compared == len(case.outputs)


@pytest.mark.parametrize("name", ["micro_c_convt_concat", "micro_d_pool_linear_sigmoid"])
def test_a_flipped_weight_byte_is_noticed(
    recorded: Callable[[str], Case], exact: Open, name: str
) -> None:
    case = recorded(name)
    subgraph = case.graph.subgraphs("DPU")[0]
    attr = subgraph.attrs["reg_id_to_parameter_value"]
    blob = attr.value["REG_0"]
    place = next(at for at, byte in enumerate(blob) if byte)
    inputs = {key: value[:1] for key, value in case.input.items()}
    carriers = case.tensors()
    try:
        attr.value["REG_0"] = blob[:place] + bytes([blob[place] ^ 0x40]) + blob[place + 1 :]
        results = run(exact, case.graph, inputs, list(carriers.values()))
    finally:
        attr.value["REG_0"] = blob
    assert any(
        not np.array_equal(results[tensor].reshape(-1), nhwc(case.codes[node]).reshape(-1))
        for node, tensor in carriers.items()
    )
