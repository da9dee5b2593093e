"""Every device against the recorded quantizer codes, against integers, and against each other."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any, Callable, Dict, List, Sequence, Tuple

import numpy as np
import pytest

from deepfake_fpga.compile.compiler import compile_graph
from deepfake_fpga.compile.targets import target_by_name
from deepfake_fpga.compile.weights import constant_arrays
from deepfake_fpga.compile.xir.graph import Graph
from deepfake_fpga.compile.xir.xmodel import read_xmodel
from deepfake_fpga.errors import DeviceError, MissingError, UnsupportedError
from deepfake_fpga.inference.cpu_operators import float2fix, sigmoid
from deepfake_fpga.inference.devices import GRAPH_DEVICES, choose_device, open_device, sim_available
from deepfake_fpga.inference.devices import sim as sim_module
from deepfake_fpga.inference.devices.base import Device
from deepfake_fpga.inference.devices.card import open_card
from deepfake_fpga.inference.devices.handmade import GraphBuilder, uynet
from deepfake_fpga.inference.devices.null import NullDevice
from deepfake_fpga.inference.devices.onnx_graph import MAX_CUT
from deepfake_fpga.inference.devices.operators import convolution_fix_points
from deepfake_fpga.inference.devices.recording import Recorder, Recording
from deepfake_fpga.inference.devices.reference import ReferenceDevice
from deepfake_fpga.inference.devices.sim import SimDevice
from deepfake_fpga.preprocessing import Preprocessing, quantization_table

from .cards import card_options, for_card
from .needs import needs_sim

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


@pytest.fixture(params=[*sorted(EXACT), "card"])
def exact_outputs(request: pytest.FixtureRequest, tmp_path: Path) -> Open:
    """The same and the card, which returns no tensors from inside a subgraph."""
    if request.param != "card":
        return EXACT[request.param]

    def open_on_card(graph: Graph, batch: int, taps: Sequence[str] = ()) -> Device:
        parts, options = graph.subgraphs("DPU")[:1], card_options(tmp_path, device="sim")
        return open_card(graph, parts, batch=batch, taps=taps, options=options)[0]

    return open_on_card


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
    recorded: Callable[[str], Case], exact_outputs: Open, name: str
) -> None:
    case = recorded(name)
    results = run(exact_outputs, case.graph, case.input)
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


# -- the simulated card against the integer rules -----------------------------------------------


def assert_same(
    sim: Open, graph: Graph, inputs: Dict[str, np.ndarray], rule_steps: int = 0
) -> None:
    taps = [
        op.tensor.name
        for op in graph.ops.values()
        if op.type != "const-fix" and op.get("device") != "USER" and op.type != "data-fix"
        if op.tensor.fix_point is not None
    ]
    expected = run(_reference, graph, inputs, taps)
    batch = len(next(iter(inputs.values())))
    with sim(graph, batch, taps) as device:
        assert isinstance(device, SimDevice)
        assert device.engine_reason.count("(") == rule_steps, device.engine_reason
        got = device.wait(device.submit(inputs))
    assert set(got) == set(expected)
    for name, array in expected.items():
        assert got[name].dtype == np.int8
        assert np.array_equal(got[name], array), name


def random_codes(random: np.random.Generator, shape: Sequence[int]) -> np.ndarray:
    codes = random.integers(-128, 128, shape)
    extreme = random.random(shape) < 0.2
    return np.where(extreme, np.where(codes < 0, -128, 127), codes).astype(np.int8)


@pytest.mark.parametrize("seed", range(24))
def test_random_convolutions(sim: Open, seed: int) -> None:
    random = np.random.default_rng(seed)
    kind = (
        "conv2d-fix",
        "depthwise-conv2d-fix",
        "transposed-conv2d-fix",
        "transposed-depthwise-conv2d-fix",
    )[seed % 4]
    depthwise, transposed = "depthwise" in kind, "transposed" in kind
    channels = int(random.choice([1, 3, 8, 33]))
    outputs = channels if depthwise else int(random.choice([1, 2, 7, 32]))
    kh, kw = (int(v) for v in random.integers(1, 5, 2))
    sy, sx = (int(v) for v in random.integers(1, 4, 2))
    if transposed and seed % 8 >= 4:
        kh, kw = sy, sx
    dy, dx = (1, 1) if transposed else tuple(int(v) for v in random.integers(1, 3, 2))
    top, bottom = (int(random.integers(0, kh)) for _ in range(2))
    left, right = (int(random.integers(0, kw)) for _ in range(2))
    if transposed and seed % 8 >= 4:
        top = bottom = left = right = 0
    h, w = (int(v) for v in random.integers(9, 14, 2))
    if transposed:
        oh, ow = (h - 1) * sy + kh - top - bottom, (w - 1) * sx + kw - left - right
    else:
        oh = (h + top + bottom - (kh - 1) * dy - 1) // sy + 1
        ow = (w + left + right - (kw - 1) * dx - 1) // sx + 1
    cut = int(random.integers(0, MAX_CUT + 1))
    # Negative fix points and biases finer and coarser than the accumulator.
    fi, fo = int(random.integers(-4, 8)), int(random.integers(-4, 8))
    fw = cut - fi + fo
    fb = fi + fw - int(random.integers(-8, 8))
    weights = random_codes(random, (1 if depthwise else outputs, kh, kw, channels))
    bias = random_codes(random, (outputs,)) if seed % 3 else None
    build = GraphBuilder()
    source = build.input((1, h, w, channels), fi)
    build.output(
        build.convolution(
            "conv",
            source,
            weights,
            bias,
            (fw, fb, fo),
            (1, oh, ow, outputs),
            kind,
            stride=(sx, sy),
            dilation=(dx, dy),
            pad=(left, right, top, bottom),
            nonlinear=("NONE", "RELU", "RELU6", "PRELU")[seed % 5 % 4],
        )
    )
    graph = build.finish()
    assert_same(sim, graph, {"image_fix": random_codes(random, (2, h, w, channels))})


@pytest.mark.parametrize("cut", [*range(MAX_CUT + 1), MAX_CUT + 1, 16])
def test_every_tie_and_its_neighbours(exact: Open, cut: int) -> None:
    # Every boundary between two codes, one accumulator below it, on it, and above it.
    boundaries = np.arange(-129, 129) * 2 + 1
    sums = (boundaries[:, None] * (1 << cut) // 2 + np.array([-1, 0, 1])).reshape(-1)
    full = 127 * 127
    columns = int(np.abs(sums).max() // full) + 1
    rest = np.abs(sums) % full
    x = np.zeros((1, 1, len(sums), columns + 2), np.int64)
    for column in range(columns):
        x[0, 0, :, column] = np.where(np.abs(sums) // full > column, 127, 0)
    x[0, 0, :, columns], x[0, 0, :, columns + 1] = rest // 127, rest % 127
    x *= np.sign(sums)[None, None, :, None]
    weights = np.full((1, 1, 1, columns + 2), 127, np.int8)
    weights[..., -1] = 1
    build = GraphBuilder()
    source = build.input((1, 1, len(sums), columns + 2), 0)
    dims = (1, 1, len(sums), 1)
    build.output(build.convolution("conv", source, weights, None, (cut, 0, 0), dims))
    graph = build.finish()
    result = run(exact, graph, {"image_fix": x.astype(np.int8)})["conv_download_0_fix"]
    expected = np.clip(np.floor(sums / 2.0**cut + 0.5), -128, 127)
    assert np.array_equal(result.reshape(-1), expected)


def test_convolutions_that_drop_too_much_run_by_their_rule(sim: Open) -> None:
    random = np.random.default_rng(5)
    build = GraphBuilder()
    source = build.input((1, 6, 6, 16), 8)
    for name, fo, nonlinear in (("deep", 0, "NONE"), ("leaky", 5, "LEAKYRELU")):
        weights = random_codes(random, (4, 3, 3, 16))
        bias = random_codes(random, (4,))
        source = build.convolution(
            name,
            source,
            weights,
            bias,
            (8, 9, fo),
            (1, 6, 6, 4),
            pad=(1, 1, 1, 1),
            nonlinear=nonlinear,
        )
        if name == "deep":
            source = build.convolution(
                "between",
                source,
                random_codes(random, (16, 1, 1, 4)),
                None,
                (8, 0, 1),
                (1, 6, 6, 16),
            )
    build.output(source)
    graph = build.finish()
    assert_same(sim, graph, {"image_fix": random_codes(random, (2, 6, 6, 16))}, rule_steps=2)


@pytest.mark.parametrize("shift", range(-5, 10))
def test_every_code_at_another_fix_point(exact: Open, shift: int) -> None:
    codes = np.arange(-128, 128).astype(np.int8).reshape(1, 16, 16, 1)
    build = GraphBuilder()
    source = build.input((1, 16, 16, 1), 3)
    for nonlinear in ("NONE", "RELU"):
        name = f"to_{nonlinear}"
        build.output(
            build.add(
                name,
                "eltwise-fix",
                (1, 16, 16, 1),
                3 - shift,
                [source],
                type="ADD",
                nonlinear=nonlinear,
            )
        )
    results = run(exact, build.finish(), {"image_fix": codes})
    values = codes.astype(np.float64)
    for nonlinear, lowest in (("NONE", -128), ("RELU", 0)):
        expected = np.clip(np.floor(values * 2.0**-shift + 0.5), lowest, 127)
        assert np.array_equal(results[f"to_{nonlinear}_download_0_fix"], expected)


@pytest.mark.parametrize("seed", range(12))
def test_random_pools(sim: Open, seed: int) -> None:
    random = np.random.default_rng(100 + seed)
    kernel = [(1, 1), (2, 2), (3, 3), (2, 3), (5, 5), (7, 7)][seed % 6]
    stride = tuple(int(v) for v in random.integers(1, 4, 2))
    pads = [
        int(random.integers(0, (k + 1) // 2 + (k > 1))) for k in (kernel[1],) * 2 + (kernel[0],) * 2
    ]
    pads = [min(p, k - 1) for p, k in zip(pads, (kernel[1], kernel[1], kernel[0], kernel[0]))]
    h = w = 14
    oh = (h + pads[2] + pads[3] - kernel[0]) // stride[0] + 1
    ow = (w + pads[0] + pads[1] - kernel[1]) // stride[1] + 1
    fi = int(random.integers(-2, 7))
    build = GraphBuilder()
    source = build.input((1, h, w, 5), fi)
    for kind in ("MAX", "AVG"):
        build.output(
            build.add(
                kind.lower(),
                "pool-fix",
                (1, oh, ow, 5),
                fi + int(random.integers(-2, 3)),
                [source],
                kernel=kernel[::-1],
                stride=stride[::-1],
                pad=pads,
                type=kind,
            )
        )
    graph = build.finish()
    assert_same(sim, graph, {"image_fix": random_codes(random, (2, h, w, 5))})


@pytest.mark.parametrize(
    ("fix_points", "fo", "rule_steps"),
    [
        ((5, 5), 5, 0),
        ((5, 3), 4, 0),
        ((-2, 4), 0, 0),
        ((0, 6), 7, 0),
        ((4, 5, 6), 3, 0),
        ((9, 1), 2, 1),
    ],
)
def test_sums_of_tensors(sim: Open, fix_points: Tuple[int, ...], fo: int, rule_steps: int) -> None:
    random = np.random.default_rng(7)
    build = GraphBuilder()
    sources = [build.input((1, 4, 6, 9), f, f"x{i}") for i, f in enumerate(fix_points)]
    for nonlinear in ("NONE", "RELU"):
        build.output(
            build.add(
                f"sum_{nonlinear}",
                "eltwise-fix",
                (1, 4, 6, 9),
                fo,
                sources,
                type="ADD",
                nonlinear=nonlinear,
            )
        )
    inputs = {f"x{i}_fix": random_codes(random, (3, 4, 6, 9)) for i in range(len(fix_points))}
    assert_same(sim, build.finish(), inputs, rule_steps * 2)


def test_moving_data(sim: Open) -> None:
    random = np.random.default_rng(8)
    build = GraphBuilder()
    x = build.input((1, 6, 4, 3), 4, "x")
    y = build.input((1, 6, 4, 5), 4, "y")
    joined = build.add("joined", "concat-fix", (1, 6, 4, 8), 4, [x, y], axis=3)
    up = build.add(
        "up", "upsample-fix", (1, 12, 8, 8), 3, [joined], mode="NEAREST", scale=(2.0, 2.0)
    )
    down = build.add(
        "down", "downsample-fix", (1, 4, 4, 8), 3, [up], mode="NEAREST", scale=(2.0, 3.0)
    )
    zeros = [0, 0, 1, 2, 0, 3, 0, 0]
    for mode in ("CONSTANT", "SYMMETRIC"):
        build.output(build.add(mode, "pad-fix", (1, 7, 7, 8), 3, [down], paddings=zeros, mode=mode))
    smooth = build.add(
        "smooth",
        "upsample-fix",
        (1, 8, 8, 8),
        4,
        [down],
        mode="BILINEAR",
        scale=(2.0, 2.0),
        half_pixel_centers=True,
    )
    gate = build.add(
        "gate", "hard-sigmoid-fix", (1, 8, 8, 8), 7, [smooth], hsigmoid_in=4, shift_hsigmoid=11
    )
    product = build.add("product", "eltwise-fix", (1, 8, 8, 8), 4, [smooth, gate], type="MUL")
    build.output(build.add("flat", "reshape-fix", (1, 512), 4, [product], shape=(1, 512)))
    inputs = {
        "x_fix": random_codes(random, (2, 6, 4, 3)),
        "y_fix": random_codes(random, (2, 6, 4, 5)),
    }
    assert_same(sim, build.finish(), inputs, rule_steps=3)


def test_slot_k_is_what_a_single_run_gives(exact: Open) -> None:
    graph = uynet(4, size=112)
    codes = np.random.default_rng(3).integers(0, 33, (3, 112, 112, 3)).astype(np.int8)
    together = run(exact, graph, {"image_fix": codes})
    for slot in (0, 2):
        alone = run(exact, graph, {"image_fix": codes[slot : slot + 1]})
        for name, array in alone.items():
            assert np.array_equal(array[0], together[name][slot])
    assert all(array.any() for array in together.values())


def test_the_genuine_zcu102_model_runs(shared: Path, exact: Open) -> None:
    graph = read_xmodel(shared / "xmodels" / "zcu102_pointpillars_v2.5.xmodel")
    quantized = read_xmodel(shared / "xmodels" / "quantized_voxelnet.xmodel")
    # Its first DPU subgraph: one 1x1 convolution and a 100x1 pool, on a slice of the declared
    # 12,000 pillars, against the quantizer's float graph of the same layer.
    subgraph = graph.subgraphs("DPU")[0]
    for op in graph.ops.values():
        if op.type != "const-fix" and op.tensor.dims[1:2] == (12000,):
            op.tensor.dims = (1, 24, *op.tensor.dims[2:])
    conv = next(graph.op(n) for n in subgraph.all_ops() if graph.op(n).type == "conv2d-fix")
    x = np.random.default_rng(0).integers(-128, 128, (1, 24, 100, 4)).astype(np.int8)
    with exact(graph, 1, [conv.tensor.name]) as device:
        results = device.wait(device.submit({device.inputs[0].name: x}))
    source = next(op for op in quantized.ops.values() if op.type == "conv2d")
    constants = {}
    for arg in ("weights", "bias"):
        fix = quantized.input_ops(source, arg)[0]
        const = quantized.input_ops(fix)[0]
        values = np.frombuffer(const.get("data"), "<f4").reshape(const.tensor.dims)
        constants[arg] = np.floor(values * 2.0 ** fix.get("fix_point") + 0.5) / 2.0 ** fix.get(
            "fix_point"
        )
    fi, fo = device.inputs[0].fix_point, conv.tensor.fix_point
    assert fi is not None
    assert fo is not None
    real = x / 2.0**fi @ constants["weights"].reshape(-1, 4).T + constants["bias"]
    expected = np.clip(np.floor(np.maximum(real, 0) * 2.0**fo + 0.5), -128, 127)
    assert np.array_equal(results[conv.tensor.name], expected)
    pooled = next(array for name, array in results.items() if name != conv.tensor.name)
    assert np.array_equal(pooled[:, :, 0], expected.max(axis=2))


def crop(graph: Graph, rows: int, columns: int) -> Graph:
    """The genuine detection head on a smaller picture: every side divided, constants untouched."""
    for op in graph.ops.values():
        dims = op.tensor.dims
        picture = op.type not in ("const-fix", "const") and len(dims) == 4
        if picture and dims[1] % rows == 0 and dims[2] % columns == 0:
            op.tensor.dims = (1, dims[1] // rows, dims[2] // columns, dims[3])
    return graph


def test_one_network_compiled_for_three_targets_gives_one_answer(shared: Path) -> None:
    answers: List[List[np.ndarray]] = []
    for name in ("zcu102", "vck5000_8pe", "vck5000_6pedwc"):
        graph = crop(read_xmodel(shared / "xmodels" / f"{name}_pointpillars_v2.5.xmodel"), 31, 27)
        subgraph = max(graph.subgraphs("DPU"), key=lambda child: len(child.all_ops()))
        x: Dict[str, np.ndarray] = {}
        for make in (ReferenceDevice, SimDevice):
            with make(graph, subgraph, 2) as device:
                (info,) = device.inputs
                assert info.shape == (2, 16, 16, 64)
                x[info.name] = np.random.default_rng(4).integers(0, 128, info.shape).astype(np.int8)
                results = device.wait(device.submit(x))
                answers.append([results[name] for name in sorted(results)])
    assert len(answers) == 6
    assert len(answers[0]) == 3
    for answer in answers:
        for one, other in zip(answer, answers[0]):
            assert one.any()
            assert np.array_equal(one, other)


def test_a_hard_sigmoid_inside_a_genuine_convolution(shared: Path) -> None:
    graph = read_xmodel(shared / "xmodels" / "vck5000_8pe_tf2mnist_v2.5.xmodel")
    op = next(op for op in graph.ops.values() if op.get("nonlinear") == "HSIGMOID")
    subgraph = next(child for child in graph.subgraphs("DPU") if op.name in child.all_ops())
    fi, fw, fb, fo = convolution_fix_points(graph, op)
    # What the compiler wrote is how the attribute was read: the cut leads to hsigmoid_in.
    assert fi + fw - op.get("shift_cut") == op.get("hsigmoid_in")
    assert fi + fw - fb == op.get("shift_bias")
    constants = constant_arrays(graph, inferred=True)
    weights = constants[op.inputs["weights"][0]].astype(float) / 2.0**fw
    bias = constants[op.inputs["bias"][0]].astype(float) / 2.0**fb
    results = []
    for make in (ReferenceDevice, SimDevice):
        with make(graph, subgraph, 1, taps=[op.tensor.name]) as device:
            (info,) = device.inputs
            x = np.random.default_rng(6).integers(-9, 10, info.shape).astype(np.int8)
            results.append(device.wait(device.submit({info.name: x}))[op.tensor.name])
    assert np.array_equal(*results)
    real = np.einsum("ohwi,nhwi->no", weights, x / 2.0**fi) + bias
    expected = np.clip(real / 6 + 0.5, 0, 1) * 2.0**fo
    # One rounding to 2^-hsigmoid_in inside, one at the end, saturation at 127.
    distance = np.abs(results[0].reshape(-1) - np.minimum(expected, 127).reshape(-1))
    assert distance.max() <= 2.0 ** (fo - op.get("hsigmoid_in") - 1) / 6 + 1
    assert len(np.unique(results[0])) > 3


@pytest.mark.parametrize("broken", [(), (True,), (True, False)])
def test_weights_are_carried_as_the_processor_is_exact(
    monkeypatch: pytest.MonkeyPatch, broken: Tuple[bool, ...]
) -> None:
    class Saturating(SimDevice):
        """Stands for a processor on which the forms in ``broken`` lose sums."""

        def __init__(self, *args: Any, signed_weights: bool) -> None:
            super().__init__(*args, signed_weights=signed_weights)
            self.broken = signed_weights in broken

        def compute(self, batch: Any) -> Dict[str, np.ndarray]:
            outputs = super().compute(batch)
            if self.broken:
                outputs["dense_download_0_fix"] = outputs["dense_download_0_fix"] // 2
            return outputs

    monkeypatch.setattr(sim_module, "SimDevice", Saturating)
    if len(broken) == 2:
        with pytest.raises(DeviceError, match="dense_download_0_fix"):
            sim_module.weight_form.__wrapped__()
        return
    signed, reason = sim_module.weight_form.__wrapped__()
    assert signed is (True not in broken)
    assert ("saturate" in reason) is (True in broken)


# -- the interface ------------------------------------------------------------------------------


def small_graph() -> Graph:
    build = GraphBuilder()
    weights = np.ones((2, 1, 1, 3), np.int8)
    source = build.input((1, 4, 4, 3), 4)
    build.output(build.convolution("conv", source, weights, None, (0, 0, 4), (1, 4, 4, 2)))
    return build.finish()


@pytest.fixture(params=[*GRAPH_DEVICES, "replay", "card"])
def device(request: pytest.FixtureRequest, tmp_path: Path):
    graph = small_graph()
    subgraph = graph.subgraphs("DPU")[0]
    if request.param == "card":
        options = card_options(tmp_path)
        with open_card(for_card(graph), [subgraph], batch=2, options=options)[0] as opened:
            yield opened
        return
    if request.param != "replay":
        with open_device(request.param, graph, subgraph, batch=2) as opened:
            yield opened
        return
    recorder = Recorder(tmp_path / "run.rec", "small", "0", "reference", "")
    with recorder.wrap(ReferenceDevice(graph, subgraph, 2), subgraph.name) as recorded:
        for value in (1, 2, 3):
            recorder.batch(2)
            recorded.wait(recorded.submit({"image_fix": np.full((2, 4, 4, 3), value, np.int8)}))
    recorder.close(complete=True)
    with Recording(tmp_path / "run.rec") as played, open_device(
        "replay", graph, subgraph, batch=2, recording=played
    ) as opened:
        yield opened


def test_tensors_are_described_at_the_device_batch(device: Device) -> None:
    assert [(i.name, i.shape, i.fix_point) for i in device.inputs] == [
        ("image_fix", (2, 4, 4, 3), 4)
    ]
    assert [(i.name, i.shape, i.fix_point) for i in device.outputs] == [
        ("conv_download_0_fix", (2, 4, 4, 2), 4)
    ]
    assert device.batch == 2


def test_several_batches_are_under_way_and_taken_in_any_order(device: Device) -> None:
    batches = [np.full((2, 4, 4, 3), value, np.int8) for value in (1, 2, 3)]
    tickets = [device.submit({"image_fix": batch}) for batch in batches]
    results = {ticket: device.wait(ticket) for ticket in reversed(tickets)}
    for value, ticket in enumerate(tickets, 1):
        expected = 0 if device.name == "null" else 3 * value
        assert (results[ticket]["conv_download_0_fix"] == expected).all()
    with pytest.raises(DeviceError, match="no batch under ticket"):
        device.wait(tickets[0])


@pytest.mark.parametrize(
    ("batch", "words"),
    [
        ({"other": np.zeros((2, 4, 4, 3), np.int8)}, "wrong input tensors"),
        ({"image_fix": np.zeros((1, 4, 4, 3), np.int8)}, "wrong form"),
        ({"image_fix": np.zeros((2, 4, 4, 3), np.uint8)}, "wrong form"),
    ],
)
def test_a_wrong_batch_is_refused(device: Device, batch: Dict[str, np.ndarray], words: str) -> None:
    with pytest.raises(DeviceError, match=words):
        device.submit(batch)


def test_a_closed_device_is_closed(device: Device) -> None:
    device.close()
    device.close()
    with pytest.raises(DeviceError, match="closed"):
        device.submit({"image_fix": np.zeros((2, 4, 4, 3), np.int8)})


def test_zeros_of_the_null_device_cannot_be_changed() -> None:
    graph = small_graph()
    device = NullDevice(graph, graph.subgraphs("DPU")[0], 2)
    result = device.wait(device.submit({"image_fix": np.zeros((2, 4, 4, 3), np.int8)}))
    with pytest.raises(ValueError, match="read-only"):
        result["conv_download_0_fix"][0] = 1


def test_an_unknown_operator_is_refused(exact: Open) -> None:
    build = GraphBuilder()
    build.output(
        build.add("odd", "correlation-fix", (1, 2, 2, 1), 0, [build.input((1, 2, 2, 1), 0)])
    )
    with pytest.raises(UnsupportedError, match="correlation-fix"):
        exact(build.finish(), 1, ())


def test_a_copy_between_fix_points_is_refused(exact: Open) -> None:
    build = GraphBuilder()
    x, y = build.input((1, 2, 2, 1), 3, "x"), build.input((1, 2, 2, 1), 4, "y")
    build.output(build.add("joined", "concat-fix", (1, 2, 2, 2), 4, [x, y], axis=3))
    zeros = np.zeros((1, 2, 2, 1), np.int8)
    with pytest.raises(UnsupportedError, match="change the fix point"):
        run(exact, build.finish(), {"x_fix": zeros, "y_fix": zeros})


def test_a_tap_that_is_not_there_is_refused(exact: Open) -> None:
    with pytest.raises(UnsupportedError, match="nowhere"):
        exact(small_graph(), 1, ["nowhere"])


@needs_sim
def test_auto_takes_the_simulated_card_and_says_what_is_missing() -> None:
    name, reason = choose_device("auto")
    assert name == "sim"
    assert "vart" in reason
    assert "XLNX_VART_FIRMWARE" in reason


@needs_sim
@pytest.mark.parametrize("missing", ["onnx", "onnxruntime"])
def test_auto_without_onnx_takes_the_reference(
    missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    available, said = sim_available()
    assert not available
    assert f"pip install {missing}" in said
    name, reason = choose_device("auto")
    assert name == "reference"
    assert said in reason
    assert "slow" in reason


def test_the_card_is_refused_with_what_was_looked_for() -> None:
    graph = small_graph()
    with pytest.raises(DeviceError, match=r"vart.*XLNX_VART_FIRMWARE.*dev/dri") as error:
        open_device("card", graph, graph.subgraphs("DPU")[0], batch=2)
    assert "--device sim" in error.value.next_step


def test_an_unknown_device_is_refused() -> None:
    with pytest.raises(MissingError, match="turbo"):
        choose_device("turbo")


def test_a_device_asked_for_is_taken() -> None:
    names: List[str] = [choose_device(name)[0] for name in GRAPH_DEVICES]
    assert names == list(GRAPH_DEVICES)
