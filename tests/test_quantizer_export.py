"""The quantized model in XIR: layouts of parameters and operators no recorded case holds."""

from __future__ import annotations

from typing import Dict, List

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402

from deepfake_fpga.compile.xir.graph import Graph, Op  # noqa: E402
from deepfake_fpga.errors import UnsupportedError  # noqa: E402
from deepfake_fpga.quantize.quantized import QuantizedModel  # noqa: E402
from deepfake_fpga.quantize.quantizer import Quantizer  # noqa: E402

pytestmark = pytest.mark.torch


def quantized(model: nn.Module, *shape: int) -> QuantizedModel:
    torch.manual_seed(4)
    images = torch.rand(8, *shape) - 0.4
    quantizer = Quantizer(model.eval(), images[:2])
    return quantizer.quantized(quantizer.calibrate([images]))


def ops(graph: Graph, kind: str) -> List[Op]:
    return [op for op in graph.ops.values() if op.type == kind]


def constant(graph: Graph, fix_name: str) -> np.ndarray:
    """The values behind a parameter's fix operator."""
    (name,) = graph.op(fix_name).inputs["input"]
    op = graph.op(name)
    return np.frombuffer(op.get("data"), "<f4").reshape(op.get("shape"))


def test_linear_after_a_map_reads_it_as_nhwc() -> None:
    model = quantized(nn.Sequential(nn.Conv2d(3, 4, 1), nn.Flatten(), nn.Linear(24, 5)), 3, 2, 3)
    graph = model.to_xir()
    (matmul,) = ops(graph, "matmul")
    weights = constant(graph, matmul.inputs["input"][1])
    ours = model.parameters()["Sequential::2.weight"]
    x = np.random.default_rng(0).integers(-8, 8, (4, 2, 3)).astype(np.float32)
    assert np.array_equal(weights @ x.transpose(1, 2, 0).reshape(-1), ours @ x.reshape(-1))
    assert not np.array_equal(weights, ours)
    (reshape,) = ops(graph, "reshape")
    assert reshape.tensor.dims == (1, 24)
    assert matmul.inputs["input"][0] == reshape.name


def test_flattened_map_for_anything_else_is_put_in_the_models_order() -> None:
    model = quantized(nn.Sequential(nn.Conv2d(3, 4, 1), nn.Flatten()), 3, 2, 3)
    graph = model.to_xir()
    (reshape,) = ops(graph, "reshape")
    transpose = graph.op(reshape.inputs["input"][0])
    assert transpose.name == "Sequential__Sequential_Conv2d_0__ret_1_sink_transpose_0"
    assert transpose.get("order") == (0, 3, 1, 2)
    assert transpose.tensor.dims == (1, 4, 2, 3)
    assert reshape.tensor.dims == (1, 24)


def test_depthwise_layouts() -> None:
    layers = nn.Sequential(
        nn.Conv2d(3, 6, (3, 2), groups=3), nn.ConvTranspose2d(6, 6, (2, 3), groups=6)
    )
    model = quantized(layers, 3, 8, 8)
    graph = model.to_xir()
    (conv,), (up,) = ops(graph, "depthwise-conv2d"), ops(graph, "transposed-depthwise-conv2d")
    ours = model.parameters()
    weights = constant(graph, conv.inputs["weights"][0])
    theirs = ours["Sequential::0.weight"]
    assert weights.shape == (2, 3, 2, 3)
    assert all(
        weights[m, h, w, c] == theirs[c * 2 + m, 0, h, w] for m, h, w, c in np.ndindex(2, 3, 2, 3)
    )
    assert conv.get("kernel") == (2, 3)
    weights = constant(graph, up.inputs["weights"][0])
    theirs = ours["Sequential::1.weight"]
    assert weights.shape == (1, 2, 3, 6)
    assert all(weights[0, h, w, c] == theirs[c, 0, 1 - h, 2 - w] for h, w, c in np.ndindex(2, 3, 6))


class Acts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1, bias=False)
        self.hs = nn.Hardswish()
        self.gate = nn.Hardsigmoid()
        self.up = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)
        self.leaky = nn.LeakyReLU(26 / 256)
        self.pool = nn.AdaptiveAvgPool2d(1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.hs(self.conv(x))
        x = self.up(x * self.gate(x))
        out: Tensor = self.pool(self.leaky(x))
        return out


def test_operators_made_of_several() -> None:
    graph = quantized(Acts(), 3, 7, 7).to_xir()
    kinds: Dict[str, int] = {}
    for op in graph.ops.values():
        kinds[op.type] = kinds.get(op.type, 0) + 1
    # Two hard sigmoids and the average are multiplied by a constant, hard swish and the gate by x.
    assert kinds["mul"] == 5
    assert kinds["hard-sigmoid"] == 2
    (pool,) = ops(graph, "avgpool2d")
    assert pool.get("global") is True
    assert pool.get("kernel") == (14, 14)
    (resize,) = ops(graph, "resize")
    assert resize.get("half_pixel_centers") is True
    assert resize.get("scale") == (2.0, 2.0)
    assert resize.tensor.dims == (1, 14, 14, 3)
    (conv,) = ops(graph, "conv2d")
    assert conv.get("bias_term") is False
    assert "bias" not in conv.inputs
    inner = graph.op("Acts::Acts/Hardswish[hs]/ret.2_mul_fix")
    assert inner.get("fix_point") == 7
    (leaky,) = ops(graph, "leaky-relu")
    assert leaky.get("alpha") == 0.1015625


class Tokens(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)
        self.fc = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.fc(self.conv(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        out: Tensor = self.conv(y[:, :3]) + x.mean(1, keepdim=True)
        return out


def test_the_models_own_order_of_axes() -> None:
    graph = quantized(Tokens(), 3, 5, 6).to_xir()
    # A permutation to NHWC is what stands there already; the way back meets the DPU's order again.
    (matmul,) = ops(graph, "matmul")
    assert matmul.inputs["input"][0] == "Tokens__Tokens_Conv2d_conv__ret_1_fix"
    assert matmul.tensor.dims == (1, 5, 6, 4)
    first, second = ops(graph, "transpose")
    assert (first.get("order"), first.tensor.dims) == ((0, 3, 1, 2), (1, 4, 5, 6))
    assert (second.get("order"), second.tensor.dims) == ((0, 2, 3, 1), (1, 5, 6, 4))
    assert second.name == "Tokens__Tokens_ret_4_swim_transpose_0"
    (cut,) = ops(graph, "strided_slice")
    assert (cut.get("begin"), cut.get("end")) == ((0, 0, 0, 0), (1, 5, 6, 3))
    assert (cut.get("begin_mask"), cut.get("shrink_axis_mask")) == (0b0111, 0)
    (mean,) = ops(graph, "reduction_mean")
    assert (mean.get("axis"), mean.get("keep_dims")) == ((3,), True)
    # Three channels are no power of two.
    assert mean.name.endswith("_i0")


class Swished(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.b(torch.nn.functional.silu(self.a(x)))
        return out


def test_operator_the_dpu_lacks_sees_the_models_order() -> None:
    graph = quantized(Swished(), 3, 5, 6).to_xir()
    (silu,) = ops(graph, "aten::silu")
    assert silu.tensor.dims == (1, 4, 5, 6)
    assert silu.get("shape") == (1, 4, 5, 6)
    assert silu.get("data_type") == "FLOAT32"
    assert silu.inputs["input"] == ("Swished__Swished_Conv2d_a__ret_1_sink_transpose_0",)
    swim = graph.op("Swished__Swished_ret_2_swim_transpose_0")
    assert swim.inputs["input"] == ("Swished__Swished_ret_2_fix",)
    assert ops(graph, "conv2d")[1].inputs["input"] == (swim.name,)


class Operands(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.tensor([1.0, 2.0, 3.0]).reshape(3, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return (1 - x) * 0.5 + self.shift


def test_constants_have_the_shape_of_the_other_operand() -> None:
    graph = quantized(Operands(), 3, 2, 4).to_xir()
    (sub,) = ops(graph, "sub")
    number, data = sub.inputs["input"]
    assert data == "Operands__input_0_fix"
    assert np.array_equal(constant(graph, number), np.ones((1, 2, 4, 3)))
    (total,) = ops(graph, "add")
    shift = constant(graph, total.inputs["input"][1])
    assert np.array_equal(shift, np.broadcast_to([1.0, 2.0, 3.0], (1, 2, 4, 3)))
    assert graph.op(total.inputs["input"][1]).get("fix_point") == 5


class Borders(nn.Module):
    def __init__(self, *padding: int) -> None:
        super().__init__()
        self.padding = padding
        self.conv = nn.Conv2d(3, 2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(torch.nn.functional.pad(x, self.padding))
        return out


def test_even_padding_goes_into_the_convolution() -> None:
    graph = quantized(Borders(2, 2, 1, 1), 3, 5, 6).to_xir()
    (conv,) = ops(graph, "conv2d")
    assert conv.get("pad") == (3, 3, 2, 2)
    assert conv.inputs["input"] == ("Borders__input_0_fix",)
    assert not ops(graph, "pad")


def test_uneven_padding_stands_by_itself() -> None:
    graph = quantized(Borders(0, 2, 1, 1), 3, 5, 6).to_xir()
    (pad,) = ops(graph, "pad")
    assert pad.get("paddings") == (0, 0, 1, 1, 0, 2, 0, 0)
    assert pad.get("mode") == "CONSTANT"
    assert set(pad.get("constant_values")) == {0.0}
    assert ops(graph, "conv2d")[0].get("pad") == (1, 1, 1, 1)


class Joined(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([torch.nn.functional.hardswish(x), x], 1)


def test_hard_swish_in_a_concat_has_the_concats_position() -> None:
    model = quantized(Joined(), 3, 4, 4)
    graph = model.to_xir()
    (concat,) = ops(graph, "concat")
    fix = graph.op(concat.inputs["input"][0])
    assert fix.type == "fix"
    assert fix.get("fix_point") == model.positions["Joined::nndct_concat_2"]


class Pieces(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        a, b = x.chunk(2, 1)
        return a * b


def test_several_results_are_refused_as_the_vendor_does() -> None:
    with pytest.raises(UnsupportedError, match="several results"):
        quantized(Pieces(), 4, 4, 4).to_xir()


def test_output_padding_has_no_counterpart() -> None:
    model = quantized(nn.Sequential(nn.ConvTranspose2d(3, 3, 3, 2, output_padding=1)), 3, 4, 4)
    with pytest.raises(UnsupportedError, match="output padding"):
        model.to_xir()


def test_batch_is_one_whatever_was_traced() -> None:
    graph = quantized(nn.Sequential(nn.ReLU()), 3, 4, 5).to_xir()
    assert [op.tensor.dims for op in ops(graph, "data")] == [(1, 4, 5, 3)]
