"""From modules to the quantizer's graph: numbering, scopes, meaning kept, clear refusals."""

from __future__ import annotations

from typing import Any, Dict, NamedTuple, Optional

import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from deepfake_fpga.errors import UnsupportedError, UsageError  # noqa: E402
from deepfake_fpga.quantize import graph as g  # noqa: E402
from deepfake_fpga.quantize.execution import float_tensors, run, tensors_of  # noqa: E402
from deepfake_fpga.quantize.graph import Node, QuantizerGraph, substitute  # noqa: E402
from deepfake_fpga.quantize.model import UYNet  # noqa: E402
from deepfake_fpga.quantize.trace import trace  # noqa: E402

pytestmark = [pytest.mark.torch, pytest.mark.usefixtures("one_thread")]


def evaluate(graph: QuantizerGraph, *inputs: Tensor) -> Any:
    """What the traced graph computes, in the model's structure."""
    tensors = float_tensors(graph)

    def keep(node: Node, raw: Tensor, operands: object) -> Tensor:
        return raw

    with torch.no_grad():
        values = run(graph, inputs, lambda node: tensors_of(node, tensors), keep)
    return substitute(graph.outputs, values)


def same(model: nn.Module, *inputs: Tensor) -> QuantizerGraph:
    """Traces with the inputs, and checks the meaning with another batch size."""
    model.eval()
    graph = trace(model, [x[:1] for x in inputs])
    with torch.no_grad():
        torch.testing.assert_close(evaluate(graph, *inputs), model(*(x.clone() for x in inputs)))
    return graph


@pytest.mark.parametrize("bilinear", [False, True])
def test_uynet(bilinear: bool) -> None:
    torch.manual_seed(0)
    graph = same(UYNet(width=4, bilinear=bilinear), torch.rand(2, 3, 224, 224))
    sampler = g.RESIZE if bilinear else g.CONV_TRANSPOSE2D
    assert sum(node.op == sampler for node in graph.nodes) == 4


def test_scopes_and_names() -> None:
    graph = trace(UYNet(width=4), [torch.zeros(1, 3, 224, 224)])
    first, second = graph.nodes[:2]
    assert graph.debug_name(first) == "UYNet::input_0"
    assert second.scope == "UYNet/DoubleConv[inc]/Sequential[double_conv]/Conv2d[0]"
    assert graph.node_name(second) == "UYNet::nndct_conv2d_1"
    assert list(second.params.values()) == [
        "UYNet::inc.double_conv.0.weight",
        "UYNet::inc.double_conv.0.bias",
    ]


def test_training_flags_are_restored() -> None:
    model = UYNet(width=4)
    model.train()
    model.inc.eval()
    trace(model, [torch.zeros(1, 3, 224, 224)])
    assert model.training
    assert not model.inc.double_conv[1].training
    assert model.down1.maxpool_conv[1].double_conv[1].training


class Functional(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        x = torch.sigmoid(x) * x + torch.tanh(x)
        x = F.interpolate(x, scale_factor=2, mode="nearest")
        x = F.avg_pool2d(x, 2)
        x = F.adaptive_avg_pool2d(x, 1)
        x = F.dropout(x, 0.5, self.training)
        return x.view(x.size(0), -1)


def test_functions_and_methods() -> None:
    graph = same(Functional(), torch.randn(3, 4, 4, 4))
    assert [node.op for node in graph.nodes] == [
        g.INPUT, g.SIGMOID, g.MUL, g.TANH, g.ADD, g.RESIZE, g.AVGPOOL, g.ADAPTIVE_AVGPOOL,
        g.SHAPE, g.RESHAPE,
    ]  # fmt: skip


class InPlace(nn.Module):
    """Later readers of an overwritten tensor see the new values."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        self.relu(y)
        z = y.mul(y)
        z += y
        return z


def test_in_place_operators() -> None:
    torch.manual_seed(1)
    graph = same(InPlace(), torch.randn(2, 3, 4, 4))
    assert [node.op for node in graph.nodes] == [g.INPUT, g.CONV2D, g.RELU, g.MUL, g.ADD]


class Pair(NamedTuple):
    low: Tensor
    rest: Dict[str, Tensor]


class Structured(nn.Module):
    def forward(self, x: Tensor, y: Tensor, mask: Optional[Tensor] = None) -> Pair:
        if mask is not None:
            x = x * mask
        return Pair(F.relu(x - y), {"sum": x + y, "input": x})


def test_structure_of_inputs_and_outputs() -> None:
    x, y = torch.randn(2, 3), torch.randn(2, 3)
    graph = same(Structured(), x, y)
    result = evaluate(graph, x, y)
    assert isinstance(result, Pair)
    assert list(result.rest) == ["sum", "input"]
    assert torch.equal(result.rest["input"], x)


class Custom(nn.Conv2d):
    """A convolution with its own forward is followed into it."""

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(F.conv2d(x, self.weight, self.bias, padding="same"))


def test_functional_convolution() -> None:
    graph = same(nn.Sequential(Custom(3, 4, 3)), torch.randn(2, 3, 6, 6))
    assert [node.op for node in graph.nodes] == [g.INPUT, g.CONV2D, g.RELU]
    assert list(graph.params) == ["Sequential::0.weight", "Sequential::0.bias"]


def test_dropout_and_identity_leave_no_node() -> None:
    model = nn.Sequential(nn.Identity(), nn.ReLU(), nn.Dropout(0.5))
    graph = same(model, torch.randn(2, 3, 4, 4))
    assert [node.op for node in graph.nodes] == [g.INPUT, g.RELU]


@pytest.mark.parametrize(("replace", "op"), [(True, g.RELU), (False, g.RELU6)])
def test_relu6_modules(replace: bool, op: str) -> None:
    graph = trace(nn.Sequential(nn.ReLU6()), [torch.zeros(1, 3)], replace)
    assert [node.op for node in graph.nodes] == [g.INPUT, op]
    assert len(graph.notes) == replace


def test_leaky_slope_of_the_dpu_is_said() -> None:
    graph = trace(nn.Sequential(nn.LeakyReLU(0.1)), [torch.zeros(1, 3)])
    assert "0.1015625 takes the place of 0.1" in graph.notes[0]
    assert trace(nn.Sequential(nn.LeakyReLU(26 / 256)), [torch.zeros(1, 3)]).notes == []


class Shared(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(F.relu(self.conv(x)))
        return out


def test_a_convolution_used_twice_gets_its_own_parameters() -> None:
    graph = same(Shared(), torch.randn(2, 3, 6, 6))
    first, second = [node.params["weight"] for node in graph.nodes if node.op == g.CONV2D]
    assert first == "Shared::conv.weight"
    assert second.startswith(first + ".")


def test_depthwise_is_recognised() -> None:
    model = nn.Sequential(nn.Conv2d(4, 8, 3, groups=4), nn.ConvTranspose2d(8, 8, 2, groups=8))
    graph = same(model, torch.randn(2, 4, 6, 6))
    assert [n.op for n in graph.nodes[1:]] == [g.DEPTHWISE_CONV2D, g.DEPTHWISE_CONV_TRANSPOSE2D]


class Branch(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:  # the line to be named
            return x
        return -x


def test_control_flow_names_the_line() -> None:
    with pytest.raises(UnsupportedError) as caught:
        trace(Branch(), [torch.zeros(1, 3)])
    assert "test_trace.py" in caught.value.evidence
    assert "if x.sum() > 0" in caught.value.evidence


class Cumulative(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.cumsum(F.relu(x), 1)


def test_unknown_operator_stays_float_and_says_so() -> None:
    x = torch.randn(2, 3)
    graph = same(Cumulative(), x)
    assert [graph.node_name(node) for node in graph.nodes] == [
        "Cumulative::nndct_input_0", "Cumulative::nndct_relu_1", "Cumulative::aten_cumsum_2",
    ]  # fmt: skip
    assert len(graph.notes) == 1
    assert "aten::cumsum" in graph.notes[0]
    assert "cut there" in graph.notes[0]


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        (nn.Conv2d(3, 3, 3, padding=1, padding_mode="reflect"), "padding mode"),
        (nn.MaxPool2d(2, dilation=2), "dilated"),
        (nn.BatchNorm2d(3, track_running_stats=False), "running statistics"),
        (nn.LSTM(8, 8), "table of operators"),
        (nn.GroupNorm(1, 3), "not known here"),
    ],
)
def test_known_operators_outside_their_limits(module: nn.Module, reason: str) -> None:
    shape = (1, 8, 8) if isinstance(module, nn.LSTM) else (1, 3, 8, 8)
    with pytest.raises(UnsupportedError, match=reason):
        trace(nn.Sequential(module), [torch.zeros(*shape)])


def test_wrong_number_of_examples() -> None:
    with pytest.raises(UsageError, match="takes 2 to 3"):
        trace(Structured(), [torch.zeros(1, 3)])


def test_example_that_does_not_fit() -> None:
    with pytest.raises(UsageError, match="channels"):
        trace(nn.Sequential(nn.Conv2d(3, 4, 3)), [torch.zeros(1, 5, 8, 8)])


def test_other_precisions_are_refused() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3)).double()
    with pytest.raises(UnsupportedError, match="float64"):
        trace(model, [torch.zeros(1, 3, 8, 8, dtype=torch.float64)])


class Nothing(nn.Module):
    def forward(self, x: Tensor) -> Any:
        return x, 3


def test_result_that_is_no_tensor() -> None:
    with pytest.raises(UnsupportedError, match="neither a tensor"):
        trace(Nothing(), [torch.zeros(1, 3)])


class Shapes(nn.Module):
    """Sizes steer the forward; the vendor's tracer follows them too."""

    def forward(self, x: Tensor) -> Tensor:
        assert x.shape[1] == 4
        if x.dim() == 4 and x.size(-1) > 2:
            x = F.relu(x)
        for _ in range(x.shape[1] // 2):
            x = torch.tanh(x)
        n, c, h, w = x.shape
        mixed = x.view(n, 2, c // 2, h, w).transpose(1, 2).contiguous()
        return mixed.view(n, c, h, w)


def test_sizes_may_steer_the_forward() -> None:
    graph = same(Shapes(), torch.randn(3, 4, 3, 5))
    assert [node.op for node in graph.nodes if node.op != g.SHAPE] == [
        g.INPUT, g.RELU, g.TANH, g.TANH, g.RESHAPE, g.TRANSPOSE, g.CONTIGUOUS, g.RESHAPE,
    ]  # fmt: skip


class Reads(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * x.mean().item()  # the line to be named


def test_values_taken_out_name_the_line() -> None:
    with pytest.raises(UnsupportedError) as caught:
        trace(Reads(), [torch.zeros(1, 3)])
    assert "x.mean().item()" in caught.value.evidence


class Nested(nn.Module):
    def forward(self, batch: Dict[str, Any], more: Any, scale: float = 2.0) -> Any:
        first, (second, third) = batch["image"], more
        return {"a": [first + second, (third,)], "b": first * scale}


def test_nested_arguments_and_results() -> None:
    x, y, z = (torch.randn(2, 3) for _ in range(3))
    graph = trace(Nested(), [{"image": x[:1]}, (y[:1], z[:1])])
    assert [node.scope for node in graph.inputs] == ["input_0", "input_1", "input_2"]
    result = evaluate(graph, x, y, z)
    assert torch.equal(result["a"][0], x + y)
    assert torch.equal(result["a"][1][0], z)
    assert torch.equal(result["b"], x * 2)


class Excited(nn.Module):
    """Squeeze and excitation as it is usually written, with the sizes unpacked."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(4, 2), nn.Linear(2, 4)

    def forward(self, x: Tensor) -> Tensor:
        b, c, _, _ = x.size()
        y = F.adaptive_avg_pool2d(x, 1).view(b, c)
        y = torch.sigmoid(self.fc2(F.relu(self.fc1(y)))).view(b, c, 1, 1)
        return x * y.expand_as(x)


def test_only_sizes_that_are_used_count() -> None:
    graph = same(Excited(), torch.randn(2, 4, 4, 4))
    names = [graph.node_name(node).split("nndct_")[1] for node in graph.nodes]
    assert names == [
        "input_0", "shape_1", "shape_2", "adaptive_avg_pool2d_3", "reshape_4", "dense_5", "relu_6",
        "dense_7", "sigmoid_8", "reshape_9", "expand_as_10", "elemwise_mul_11",
    ]  # fmt: skip


def test_results_in_pieces() -> None:
    graph = same(Pieces(), torch.randn(3, 4, 2, 2))
    assert len({node.index for node in graph.nodes if node.op == g.CHUNK}) == 1


class Pieces(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        a, b = torch.chunk(x, 2, dim=1)
        c = x[:, :, :1].expand(-1, -1, 2, -1)
        return torch.cat([b, a, c, x[..., 1:].repeat(1, 1, 1, 2)], 1)


class Numbers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("middle", torch.tensor([0.5, -1.0, 2.0]).reshape(1, 3, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        y = (x - self.middle) / 2
        y = torch.add(1 - y, x, alpha=3) + 2 / (torch.abs(x) + 1)
        return -(y**2)


def test_numbers_and_buffers_as_operands() -> None:
    graph = same(Numbers(), torch.randn(2, 3, 4, 4))
    assert [node.op for node in graph.nodes[:5]] == [g.CONST] * 5
    assert {node.op for node in graph.nodes if node.custom} == {
        "aten::abs", "aten::reciprocal", "aten::neg", "aten::pow",
    }  # fmt: skip


class Resampled(nn.Module):
    def forward(self, x: Tensor) -> Any:
        up = F.interpolate(x, size=(8, 10), mode="bilinear", align_corners=True)
        down = F.interpolate(x, scale_factor=0.5, mode="nearest")
        return up, down, F.interpolate(x, size=[2, 5], mode="area"), F.pixel_shuffle(x, 2)


def test_resampling() -> None:
    graph = same(Resampled(), torch.randn(2, 4, 4, 10))
    assert [node.op for node in graph.nodes[1:]] == [
        g.RESIZE, g.RESIZE, g.ADAPTIVE_AVGPOOL, g.PIXEL_SHUFFLE,
    ]  # fmt: skip


def test_nothing_is_left_on_the_model() -> None:
    model = Tensors()
    before = set(vars(model))
    same(model, torch.randn(2, 3))
    assert set(vars(model)) == before


class Tensors(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + torch.full((1, 3), 0.25)


class Arithmetic(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        n, channels = x.shape[0], x.shape[1]
        y = x.view(n, channels * x.size(2), -1)
        return y + torch.zeros(y.shape[1:])


def test_sizes_keep_their_nodes_through_arithmetic() -> None:
    graph = same(Arithmetic(), torch.randn(2, 3, 4, 5))
    assert [node.op for node in graph.nodes] == [
        g.CONST, g.INPUT, g.SHAPE, g.SHAPE, g.SHAPE, g.RESHAPE, g.ADD,
    ]  # fmt: skip
    assert [node.attrs["dim"] for node in graph.nodes[2:5]] == [0, 1, 2]
    assert graph.nodes[5].inputs == graph.nodes[1:5]
