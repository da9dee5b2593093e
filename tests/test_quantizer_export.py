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


def test_output_padding_has_no_counterpart() -> None:
    model = quantized(nn.Sequential(nn.ConvTranspose2d(3, 3, 3, 2, output_padding=1)), 3, 4, 4)
    with pytest.raises(UnsupportedError, match="output padding"):
        model.to_xir()


def test_batch_is_one_whatever_was_traced() -> None:
    graph = quantized(nn.Sequential(nn.ReLU()), 3, 4, 5).to_xir()
    assert [op.tensor.dims for op in ops(graph, "data")] == [(1, 4, 5, 3)]
