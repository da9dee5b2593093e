"""Small quantized graphs made by hand: what becomes of each, and that it computes the same."""

from __future__ import annotations

from typing import Any, Dict, List, Optional, Sequence, Tuple

import numpy as np
import pytest

from deepfake_fpga.compile.compiler import compile_graph
from deepfake_fpga.compile.limits import reason_for_cpu
from deepfake_fpga.compile.lowering import lower
from deepfake_fpga.compile.matching import average_factor
from deepfake_fpga.compile.preparation import fix_attrs
from deepfake_fpga.compile.targets import Target, target_by_name
from deepfake_fpga.compile.weights import constant_arrays
from deepfake_fpga.compile.xir.attributes import (
    Attr,
    blob,
    boolean,
    float32,
    floats,
    int32,
    int32s,
    string,
    strings,
)
from deepfake_fpga.compile.xir.graph import Graph, Op, float32_tensor
from deepfake_fpga.errors import FormatError
from deepfake_fpga.inference.devices.reference import ReferenceDevice

RANDOM = np.random.default_rng(20)
Codes = Dict[str, np.ndarray]


def target(name: str = "VCK50008PE") -> Target:
    found = target_by_name(name)
    assert found is not None
    return found


class Quantized:
    """Writes graphs as the quantizer does: float operators with ``fix`` between them."""

    def __init__(self) -> None:
        self.graph = Graph("Net")
        self.codes: Codes = {}

    def add(self, name: str, kind: str, dims: Sequence[int], *sources: str, **attrs: Attr) -> str:
        inputs = {"input": tuple(sources)} if sources else {}
        self.graph.add(Op(name, kind, float32_tensor(name, dims), attrs, inputs))
        return name

    def fix(self, source: str, fix_point: int) -> str:
        dims = self.graph.ops[source].tensor.dims
        return self.add(f"{source}_fix", "fix", dims, source, **fix_attrs(fix_point))

    def image(self, name: str, dims: Sequence[int], fix_point: int) -> str:
        attrs = {"shape": int32s(dims), "data_type": string("FLOAT32")}
        return self.fix(self.add(name, "data", dims, **attrs), fix_point)

    def constant(self, name: str, codes: np.ndarray, fix_point: int) -> str:
        values = (codes * 2.0**-fix_point).astype("<f4")
        attrs = {
            "shape": int32s(codes.shape),
            "data_type": string("float32"),
            "data": blob(values.tobytes()),
        }
        self.codes[name] = codes
        return self.fix(self.add(name, "const", codes.shape, **attrs), fix_point)

    def random(self, name: str, shape: Sequence[int], fix_point: int) -> str:
        return self.constant(name, RANDOM.integers(-128, 128, shape).astype(np.int8), fix_point)

    def conv(
        self,
        name: str,
        source: str,
        outputs: int,
        kernel: int = 1,
        stride: int = 1,
        pad: int = 0,
        kind: str = "conv2d",
    ) -> str:
        _, height, width, channels = self.graph.ops[source].tensor.dims
        dims = tuple((s + 2 * pad - kernel) // stride + 1 for s in (height, width))
        if kind == "transposed-conv2d":
            dims = ((height - 1) * stride + kernel, (width - 1) * stride + kernel)
        weights = self.random(f"{name}_weight", (outputs, kernel, kernel, channels), 7)
        bias = self.random(f"{name}_bias", (outputs,), 9)
        attrs = {
            "kernel": int32s((kernel, kernel)),
            "stride": int32s((stride, stride)),
            "dilation": int32s((1, 1)),
            "pad": int32s((pad, pad, pad, pad)),
            "pad_mode": string("FLOOR"),
        }
        tensor = float32_tensor(name, (1, *dims, outputs))
        inputs = {"input": (source,), "weights": (weights,), "bias": (bias,)}
        self.graph.add(Op(name, kind, tensor, attrs, inputs))
        return name

    def dense(self, name: str, source: str, outputs: int) -> str:
        weights = self.random(f"{name}_weight", (outputs, self.dims(source)[1]), 6)
        bias = self.random(f"{name}_bias", (outputs,), 8)
        attrs = {"transpose_a": boolean(False), "transpose_b": boolean(True)}
        inputs = {"input": (source, weights), "bias": (bias,)}
        self.graph.add(Op(name, "matmul", float32_tensor(name, (1, outputs)), attrs, inputs))
        return name

    def dims(self, name: str) -> Tuple[int, ...]:
        return self.graph.ops[name].tensor.dims


def run(graph: Graph, codes: Optional[np.ndarray] = None) -> Codes:
    """Codes of every tensor of the one DPU subgraph; the input is random where not given."""
    (subgraph,) = graph.subgraphs("DPU")
    names = [n for n in subgraph.all_ops() if graph.ops[n].type != "const-fix"]
    device = ReferenceDevice(graph, subgraph, 1, [graph.ops[n].tensor.name for n in names])
    info = device.inputs[0]
    if codes is None:
        codes = RANDOM.integers(-128, 128, info.shape).astype(np.int8)
    return device.compute({info.name: codes})


def round_to(values: np.ndarray, shift: int) -> np.ndarray:
    """``R(values, shift)`` of the arithmetic, in float64."""
    return np.clip(np.floor(values * 2.0**-shift + 0.5), -128, 127).astype(np.int8)


def kinds(graph: Graph, device: str) -> List[str]:
    return [op.type for op in graph.ops.values() if op.get("device") == device]


def pool_attrs(kernel: int, stride: int, **more: Attr) -> Dict[str, Attr]:
    return {
        "kernel": int32s((kernel, kernel)),
        "stride": int32s((stride, stride)),
        "pad": int32s((0, 0, 0, 0)),
        "pad_mode": string("FLOOR"),
        "global": boolean(False),
        **more,
    }


@pytest.mark.parametrize(
    ("kind", "attrs", "nonlinear"),
    [
        ("relu", {}, "RELU"),
        ("relu6", {}, "RELU6"),
        ("leaky-relu", {"alpha": float32(0.1015625)}, "LEAKYRELU"),
    ],
)
def test_an_activation_is_fused(kind: str, attrs: Dict[str, Attr], nonlinear: str) -> None:
    net = Quantized()
    conv = net.conv("conv", net.image("x", (1, 6, 6, 4), 5), 8, 3, pad=1)
    net.fix(net.add("act", kind, net.dims(conv), conv, **attrs), 4)
    graph = compile_graph(net.graph, target())
    op = graph.ops["conv"]
    assert op.type == "conv2d-fix"
    assert op.get("nonlinear") == nonlinear
    assert op.tensor.name == "act_fix_download_0"
    assert op.tensor.fix_point == 4
    assert graph.get("return_ops") == ("act_fix",)
    assert [c.device for c in graph.root.children] == ["USER", "DPU", "CPU"]


def test_another_slope_stays_a_float_operator() -> None:
    net = Quantized()
    conv = net.fix(net.conv("conv", net.image("x", (1, 6, 6, 4), 5), 8), 4)
    net.fix(net.add("act", "leaky-relu", net.dims(conv), conv, alpha=float32(0.2)), 4)
    graph = compile_graph(net.graph, target())
    assert kinds(graph, "CPU") == ["fix2float", "leaky-relu", "fix"]


def test_a_constant_off_its_grid_is_refused() -> None:
    net = Quantized()
    net.fix(net.conv("conv", net.image("x", (1, 4, 4, 2), 5), 3), 4)
    weight = net.graph.ops["conv_weight"]
    values = np.frombuffer(weight.get("data"), np.float32).copy()
    values[2] += 1e-3
    weight.attrs["data"] = blob(values.tobytes())
    with pytest.raises(FormatError, match="'conv_weight' is not on the grid"):
        lower(net.graph, target())


def test_a_batch_and_a_missing_output_are_refused() -> None:
    net = Quantized()
    net.fix(net.conv("conv", net.image("x", (2, 4, 4, 2), 5), 3), 4)
    with pytest.raises(FormatError, match="batch of 2"):
        lower(net.graph, target())
    net = Quantized()
    net.fix(net.conv("conv", net.image("x", (1, 4, 4, 2), 5), 3), 4)
    net.graph.attrs["return_ops"] = strings(["gone"])
    with pytest.raises(FormatError, match="gone"):
        lower(net.graph, target())


def test_padding_that_no_window_reaches_is_dropped() -> None:
    net = Quantized()
    source = net.image("x", (1, 8, 8, 2), 5)
    for name, stride, expected in (("even", 2, (1, 0, 1, 0)), ("dense", 1, (1, 1, 1, 1))):
        net.fix(net.conv(name, source, 3, 3, stride, 1), 4)
        assert lower(net.graph, target()).graph.ops[name].get("pad") == expected


@pytest.mark.parametrize("fix_point", [3, 4, 6])
def test_a_skip_with_its_own_fix_point_is_rescaled_for_the_concatenation(fix_point: int) -> None:
    """The quantizer rounds it twice: to its own grid, then to the concatenation's."""
    net = Quantized()
    skip = net.fix(net.conv("skip", net.image("x", (1, 8, 8, 3), 5), 4, 3, pad=1), 4)
    pool = net.add("pool", "maxpool2d", (1, 4, 4, 4), skip, **pool_attrs(2, 2))
    up = net.conv("up", net.fix(pool, 4), 4, 2, 2, kind="transposed-conv2d")
    net.fix(net.add("cat", "concat", (1, 8, 8, 8), skip, up, axis=int32(3)), fix_point)
    graph = compile_graph(net.graph, target())
    rescaled = "skip_fix_inserted_fix_0"
    direct = "up_inserted_fix_0" if fix_point == 4 else "up_inserted_fix_1"
    assert (rescaled in graph.ops) is (fix_point != 4)
    assert graph.ops["up"].tensor.name == direct
    assert graph.ops["up"].tensor.fix_point == fix_point
    found = run(graph)
    cat = found["cat_fix_download_0"]
    assert np.array_equal(cat[..., :4], round_to(found["skip_fix"].astype(float), 4 - fix_point))
    assert np.array_equal(cat[..., 4:], found[direct])
    # Placement: the operands are written into the concatenation's buffer.
    whole, part = graph.ops["cat"].tensor, graph.ops["up"].tensor
    assert part.get("stride") == whole.get("stride")
    assert part.get("ddr_addr") == whole.get("ddr_addr") + 4
    assert part.get("reg_id") == whole.get("reg_id")


def test_operands_that_cannot_be_placed_are_copied() -> None:
    """The model's input, one that stands in two concatenations, one that is given twice."""
    net = Quantized()
    image = net.image("x", (1, 4, 4, 3), 5)
    conv = net.fix(net.conv("conv", image, 3), 5)
    first = net.fix(net.add("a", "concat", (1, 4, 4, 6), image, conv, axis=int32(3)), 5)
    second = net.fix(net.add("b", "concat", (1, 4, 4, 9), conv, conv, image, axis=int32(3)), 5)
    net.fix(net.conv("end", first, 2), 5)
    net.fix(net.conv("tail", second, 2), 5)
    graph = compile_graph(net.graph, target())
    found = run(graph)
    x, y = found["x_fix_upload_0"], found["conv_fix"]
    assert np.array_equal(found["a_fix"], np.concatenate([x, y], 3))
    assert np.array_equal(found["b_fix"], np.concatenate([y, y, x], 3))
    for name in ("a", "b"):
        concat = graph.ops[name]
        addresses = []
        for operand in graph.input_ops(concat):
            assert operand.tensor.get("stride") == concat.tensor.get("stride")
            addresses.append(operand.tensor.get("ddr_addr") - concat.tensor.get("ddr_addr"))
        assert addresses == list(range(0, 3 * len(addresses), 3))


def test_nested_concatenations_share_one_buffer() -> None:
    net = Quantized()
    image = net.image("x", (1, 4, 4, 3), 5)
    parts = [net.conv(name, image, 2) for name in ("p", "q", "r")]
    inner = net.add("inner", "concat", (1, 4, 4, 4), *parts[:2], axis=int32(3))
    net.fix(net.add("outer", "concat", (1, 4, 4, 6), inner, parts[2], axis=int32(3)), 3)
    graph = compile_graph(net.graph, target())
    names = ("outer", "inner", "p", "q", "r")
    assert [graph.ops[n].tensor.get("ddr_addr") for n in names] == [0, 0, 0, 2, 4]
    assert {graph.ops[n].tensor.fix_point for n in names} == {3}
    found = run(graph)
    parts_found = [found[graph.ops[n].tensor.name] for n in ("p", "q", "r")]
    assert np.array_equal(found["outer_fix_download_0"], np.concatenate(parts_found, 3))


@pytest.mark.parametrize("channels_first", [False, True])
def test_a_dense_layer_on_a_map_is_a_convolution_over_all_of_it(channels_first: bool) -> None:
    net = Quantized()
    source = net.fix(net.conv("conv", net.image("x", (1, 2, 3, 5), 5), 5), 4)
    if channels_first:
        turned = net.add("t", "transpose", (1, 5, 2, 3), source, order=int32s((0, 3, 1, 2)))
        attrs: Dict[str, Attr] = {"start_axis": int32(1), "end_axis": int32(3)}
        flat = net.add("flat", "flatten", (1, 30), turned, **attrs)
    else:
        flat = net.add("flat", "reshape", (1, 30), source, shape=int32s((1, 30)))
    hidden = net.dense("one", flat, 7)
    hidden = net.fix(net.add("relu", "relu", (1, 7), hidden), 2)
    net.add("end", "sigmoid", (1, 3), net.fix(net.dense("two", hidden, 3), 1))
    graph = compile_graph(net.graph, target())
    first = graph.ops["one(TransferMatMulToConv2d)"]
    assert first.get("kernel") == (3, 2)
    assert kinds(graph, "CPU") == ["fix2float", "sigmoid"]
    found = run(graph)
    x = found["conv_fix"].astype(np.int64)
    row = (x.transpose(0, 3, 1, 2) if channels_first else x).reshape(1, 30)
    w1, b1 = net.codes["one_weight"].astype(np.int64), net.codes["one_bias"].astype(np.int64)
    expected = round_to(np.maximum(row @ w1.T + b1 * 2.0**2, 0), 4 + 6 - 2)
    assert np.array_equal(found["relu_fix(MoveReshape)"].reshape(1, 7), expected)
    w2, b2 = net.codes["two_weight"].astype(np.int64), net.codes["two_bias"].astype(np.int64)
    last = round_to(expected.astype(np.int64) @ w2.T + b2 * 1.0, 2 + 6 - 1)
    assert np.array_equal(found["two_fix"], last)


def test_a_dense_layer_on_a_row_is_a_convolution_on_one_pixel() -> None:
    net = Quantized()
    net.fix(net.dense("d", net.image("x", (1, 12), 4), 3), 3)
    graph = compile_graph(net.graph, target())
    found = run(graph)
    x = found["x_fix_upload_0"].astype(np.int64)
    total = x @ net.codes["d_weight"].astype(np.int64).T + net.codes["d_bias"] * 2.0**2
    assert np.array_equal(found["d_fix_download_0"], round_to(total, 4 + 6 - 3))


def test_relu_and_addition_by_themselves() -> None:
    net = Quantized()
    x = net.image("x", (1, 3, 3, 4), 5)
    relu = net.fix(net.add("relu", "relu", (1, 3, 3, 4), x), 3)
    added = net.add("sum", "add", (1, 3, 3, 4), relu, x)
    net.fix(added, 2)
    graph = compile_graph(net.graph, target())
    found = run(graph)
    x_codes = found["x_fix_upload_0"].astype(float)
    assert np.array_equal(found["relu_fix"], round_to(np.maximum(x_codes, 0), 5 - 3))
    total = found["relu_fix"] * 2.0**2 + x_codes
    assert np.array_equal(found["sum_fix_download_0"], round_to(total, 5 - 2))
    assert kinds(graph, "CPU") == ["fix2float"]


@pytest.mark.parametrize(("kernel", "exact"), [(2, True), (3, True), (7, True), (3, False)])
def test_an_average_is_the_dpus_only_with_the_dpus_factor(kernel: int, exact: bool) -> None:
    net = Quantized()
    x = net.fix(net.conv("conv", net.image("x", (1, 14, 14, 3), 5), 4), 5)
    size = (14 - kernel) // kernel + 1
    attrs = pool_attrs(kernel, kernel, count_include_pad=boolean(True))
    pool = net.add("pool_i0", "avgpool2d", (1, size, size, 4), x, **attrs)
    numerator, shift = average_factor(kernel, kernel)
    factor = np.float32(numerator * kernel * kernel / 2.0**shift if exact else 1.0)
    net.graph.add(Op("f", "const", float32_tensor("f", (1,)), {"data": blob(factor.tobytes())}))
    net.fix(net.add("pool", "mul", (1, size, size, 4), pool, "f"), 6)
    graph = compile_graph(net.graph, target())
    assert ("pool-fix" in kinds(graph, "DPU")) is exact
    if not exact:
        on_cpu = sorted(kinds(graph, "CPU"))
        assert on_cpu == ["avgpool2d", "const", "fix", "fix2float", "mul"]
        return
    assert graph.ops["pool"].get("type") == "AVG"
    found = run(graph)
    windows = found["conv_fix"][:, : size * kernel, : size * kernel].astype(np.int64)
    sums = windows.reshape(1, size, kernel, size, kernel, 4).sum((2, 4))
    assert np.array_equal(found["pool_fix_download_0"], round_to(numerator * sums, shift - 1))


def test_factors_of_averages() -> None:
    """Values of the recorded table, and the nearest fractions otherwise."""
    expected = {
        (1, 1): (1, 0),
        (2, 2): (1, 2),
        (3, 3): (7, 6),
        (4, 4): (1, 4),
        (5, 5): (10, 8),
        (6, 6): (7, 8),
        (7, 7): (21, 10),
        (8, 8): (1, 6),
        (14, 14): (21, 12),
    }
    assert {kernel: average_factor(*kernel) for kernel in expected} == expected
    for height in range(1, 17):
        numerator, shift = average_factor(height, 11)
        assert abs(numerator / 2**shift - 1 / (11 * height)) <= 2.0 ** -(shift + 1)


def test_an_unknown_operator_divides_the_network() -> None:
    net = Quantized()
    x = net.fix(net.conv("a", net.image("x", (1, 4, 4, 3), 5), 4), 5)
    odd = net.fix(net.add("odd", "Mystery", (1, 4, 4, 4), x, k=int32(3)), 3)
    joined = net.fix(net.add("sum", "add", (1, 4, 4, 4), x, odd), 4)
    net.fix(net.conv("b", joined, 2), 4)
    lines: List[str] = []
    graph = compile_graph(net.graph, target(), lines.append)
    assert [c.device for c in graph.root.children] == ["USER", "DPU", "CPU", "DPU", "CPU"]
    assert kinds(graph, "CPU") == ["fix2float", "Mystery", "float2fix", "fix2float"]
    assert graph.ops["odd"].get("k") == 3
    assert graph.ops["odd_fix"].tensor.fix_point == 3
    assert lines == [
        "[UNILOG][WARNING] xir::Op{name = odd, type = Mystery} has been assigned to CPU:"
        ' [operator "Mystery" is not in the DPU\'s instruction set].'
    ]
    first, second = graph.subgraphs("DPU")
    assert [op.name for op in graph.boundary(first)[1]] == ["a_download_0"]
    assert [op.name for op in graph.boundary(second)[0]] == ["a_download_0", "odd_fix"]
    # The value goes down once and is read by both the CPU and the second part.
    assert graph.ops["sum"].inputs["input"] == ("a_download_0_upload_0", "odd_fix_upload_0")


def test_a_float_operator_without_fix_before_a_concatenation() -> None:
    net = Quantized()
    x = net.fix(net.conv("a", net.image("x", (1, 4, 4, 3), 5), 4), 5)
    scale = floats((2.0, 2.0))
    big = net.add("up", "resize", (1, 8, 8, 4), x, mode=string("NEAREST"), scale=scale)
    other = net.conv("t", x, 4, 2, 2, kind="transposed-conv2d")
    net.fix(
        net.conv(
            "end", net.fix(net.add("cat", "concat", (1, 8, 8, 8), big, other, axis=int32(3)), 4), 2
        ),
        4,
    )
    graph = compile_graph(net.graph, target())
    assert graph.ops["up_inserted_fix_0"].type == "float2fix"
    assert graph.ops["cat"].get("device") == "DPU"
    assert len(graph.subgraphs("DPU")) == 2


def test_an_output_inside_the_network_is_delivered_too() -> None:
    net = Quantized()
    middle = net.fix(net.conv("a", net.image("x", (1, 4, 4, 3), 5), 4), 5)
    end = net.fix(net.conv("b", middle, 2), 4)
    net.graph.attrs["return_ops"] = strings([end, middle])
    graph = compile_graph(net.graph, target())
    assert graph.get("return_ops") == ("b_fix", "a_fix")
    (subgraph,) = graph.subgraphs("DPU")
    assert {op.tensor.name for op in graph.boundary(subgraph)[1]} == {"a_fix", "b_fix"}
    assert {"a_fix_", "b_fix_"} <= set(graph.ops)


def test_weights_read_by_two_layers_are_stored_for_each() -> None:
    net = Quantized()
    x = net.image("x", (1, 4, 4, 3), 5)
    a = net.fix(net.conv("a", x, 3), 5)
    op = net.graph.ops["a"]
    inputs = {**op.inputs, "input": (a,)}
    net.graph.add(Op("b", "conv2d", float32_tensor("b", op.tensor.dims), dict(op.attrs), inputs))
    net.fix("b", 5)
    arrays = constant_arrays(compile_graph(net.graph, target()))
    assert set(arrays) == {"a_weight_new", "a_bias_new", "a_weight_new_1", "a_bias_new_1"}
    assert np.array_equal(arrays["a_weight_new"], net.codes["a_weight"])
    assert np.array_equal(arrays["a_weight_new_1"], net.codes["a_weight"])


def test_fixed_operators_beyond_the_limits_keep_their_constants_beside_them() -> None:
    net = Quantized()
    x = net.fix(net.conv("wide", net.image("x", (1, 20, 20, 3), 5), 4, 17), 5)
    net.fix(net.conv("b", x, 2), 4)
    graph = compile_graph(net.graph, target())
    wide = graph.ops["wide"]
    assert (wide.type, wide.get("device")) == ("conv2d-fix", "CPU")
    assert wide.get("cpu_reason") == 'DPU only supports "kernel_width"(17) in range [1, 16]'
    assert len(graph.ops["wide_weight_new"].get("data")) == 4 * 17 * 17 * 3
    assert np.array_equal(constant_arrays(graph)["wide_weight_new"], net.codes["wide_weight"])


def limit(name: str, kind: str, **attrs: Any) -> Optional[str]:
    """The reason for one operator with an input of 1x32x32xC and weights [O, kh, kw, C]."""
    channels, outputs = attrs.pop("channels", 64), attrs.pop("outputs", 64)
    typed: Dict[str, Attr] = {
        key: string(value)
        if isinstance(value, str)
        else int32(value)
        if isinstance(value, int)
        else int32s(value)
        for key, value in attrs.items()
    }
    kernel = attrs.get("kernel", (1, 1))
    graph = Graph("g")
    graph.add(Op("x", "data-fix", float32_tensor("x", (1, 32, 32, channels))))
    shape = (outputs, kernel[1], kernel[0], channels)
    graph.add(Op("w", "const-fix", float32_tensor("w", shape)))
    inputs = {"input": ("x",), "weights": ("w",)} if "conv" in kind else {"input": ("x",)}
    op = graph.add(Op("op", kind, float32_tensor("op", (1, 32, 32, outputs)), typed, inputs))
    return reason_for_cpu(graph, op, target(name), {"x": "CPU"})


CONV: Dict[str, Any] = {"kernel": (3, 3), "stride": (1, 1), "dilation": (1, 1)}


@pytest.mark.parametrize(
    ("name", "kind", "attrs", "reason"),
    [
        ("VCK50008PE", "conv2d-fix", {**CONV, "pad": (1, 1, 1, 1), "nonlinear": "RELU"}, None),
        (
            "VCK50008PE",
            "conv2d-fix",
            {**CONV, "kernel": (1, 1), "pad": (1, 1, 1, 1)},
            '"pad_left"(1) less than "kernel_width"(1)',
        ),
        (
            "VCK50008PE",
            "conv2d-fix",
            {**CONV, "pad": (0, 0, 0, 5), "dilation": (2, 2)},
            '"pad_bottom"(5) less than "dilated_kernel_height"(5)',
        ),
        ("VCK50008PE", "conv2d-fix", {**CONV, "stride": (5, 1)}, '"stride_width"(5) in range'),
        ("VCK50008PE", "conv2d-fix", {**CONV, "channels": 28 * 64}, None),
        ("VCK50008PE", "conv2d-fix", {**CONV, "channels": 28 * 64 + 1}, "(261) no more than"),
        ("VCK50004PE", "conv2d-fix", {**CONV, "channels": 28 * 64 + 1}, None),
        ("VCK50008PE", "conv2d-fix", {**CONV, "outputs": 16385}, '"output_channel"(16385)'),
        ("VCK5000", "conv2d-fix", {**CONV, "nonlinear": "RELU6"}, '"nonlinear"(RELU6) among'),
        ("VCK50008PE", "conv2d-fix", {**CONV, "nonlinear": "RELU6"}, None),
        ("VCK50008PE", "depthwise-conv2d-fix", CONV, "is not in the DPU's instruction set"),
        ("VCK50006PEDWC", "depthwise-conv2d-fix", {**CONV, "nonlinear": "RELU6"}, None),
        ("VCK50006PEDWC", "depthwise-conv2d-fix", {**CONV, "kernel": (9, 3)}, "range [1, 8]"),
        ("VCK50006PEMISC", "depthwise-conv2d-fix", CONV, "instruction set"),
        ("VCK50008PE", "transposed-conv2d-fix", {**CONV, "stride": (16, 16)}, None),
        ("VCK50008PE", "transposed-conv2d-fix", {**CONV, "kernel": (17, 3)}, "range [1, 16]"),
        ("VCK50008PE", "pool-fix", {"kernel": (7, 7), "stride": (7, 7), "type": "MAX"}, None),
        ("VCK50008PE", "pool-fix", {"kernel": (5, 5), "stride": (1, 1)}, "(5) among 1, 2, 3, 7"),
        ("VCK50006PEDWC", "pool-fix", {"kernel": (5, 5), "stride": (1, 1)}, None),
        ("VCK50006PEDWC", "pool-fix", {"kernel": (5, 4), "stride": (1, 1)}, "equal to"),
        ("VCK50004PE", "pool-fix", {"kernel": (100, 1), "stride": (1, 1)}, None),
        ("VCK50004PE", "pool-fix", {"kernel": (129, 1), "stride": (1, 1)}, "among 1 to 128"),
        ("VCK50008PE", "pool-fix", {"kernel": (3, 3), "stride": (9, 9)}, '"stride_width"(9)'),
        ("VCK50008PE", "eltwise-fix", {"type": "ADD", "nonlinear": "RELU"}, None),
        ("VCK50008PE", "eltwise-fix", {"type": "MUL"}, '"type"(MUL) among ADD'),
        ("VCK50006PEMISC", "eltwise-fix", {"type": "MUL"}, None),
        ("VCK50008PE", "concat-fix", {"axis": 3}, None),
        ("VCK50008PE", "concat-fix", {"axis": 1}, '"axis"(1) equal to 3'),
        ("VCK50008PE", "softmax", {"axis": 3}, 'operator "softmax" is not in the DPU\'s'),
    ],
)
def test_limits(name: str, kind: str, attrs: Dict[str, Any], reason: Optional[str]) -> None:
    found = limit(name, kind, **attrs)
    if reason is None:
        assert found is None
    else:
        assert found is not None
        assert reason in found
