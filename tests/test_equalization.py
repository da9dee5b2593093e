"""Batch-norm folding and weight equalization: worked examples, and the float network unchanged."""

from __future__ import annotations

from typing import List, Tuple

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402

from deepfake_fpga.errors import UnsupportedError  # noqa: E402
from deepfake_fpga.quantize.equalization import chains, equalize, pair_scale  # noqa: E402
from deepfake_fpga.quantize.execution import float_tensors, run, tensors_of  # noqa: E402
from deepfake_fpga.quantize.folding import fold_batch_norms  # noqa: E402
from deepfake_fpga.quantize.graph import BATCH_NORM, Node, QuantizerGraph  # noqa: E402
from deepfake_fpga.quantize.model import UYNet  # noqa: E402
from deepfake_fpga.quantize.trace import trace  # noqa: E402

pytestmark = pytest.mark.torch


def forward(graph: QuantizerGraph, x: Tensor) -> Tensor:
    """The float network the graph stands for."""
    tensors = float_tensors(graph)

    def keep(node: Node, raw: Tensor, operands: object) -> Tensor:
        return raw

    with torch.no_grad():
        values = run(graph, [x], lambda node: tensors_of(node, tensors), keep)
    (output,) = graph.output_nodes
    return values[output]


def shaken(model: nn.Module) -> nn.Module:
    """``model`` with weights and statistics of very unequal channels."""
    torch.manual_seed(5)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.1, 3.0)
            nn.init.uniform_(module.weight, 0.2, 4.0)
            nn.init.normal_(module.bias)
        elif isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            with torch.no_grad():
                module.weight.mul_(torch.rand_like(module.weight[:, :1, :1, :1]) * 8 + 0.1)
    return model.eval()


def test_folding_example() -> None:
    model = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), nn.BatchNorm2d(1)).eval()
    conv, norm = model[0], model[1]
    nn.init.constant_(conv.weight, 0.5)
    nn.init.constant_(norm.weight, 1.2)
    nn.init.constant_(norm.bias, 0.3)
    norm.running_mean.fill_(0.25)
    norm.running_var.fill_(0.81)
    graph = trace(model, [torch.zeros(1, 1, 2, 2)])
    fold_batch_norms(graph)
    (weight, bias) = graph.params.values()
    assert list(graph.params) == ["Sequential::0.weight", "Sequential::0.bias"]
    assert weight.item() == pytest.approx(0.6666626, abs=1e-7)
    assert bias.item() == pytest.approx(-0.03333127, abs=1e-8)


@pytest.mark.parametrize(
    "layers",
    [
        [nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6)],
        [nn.Conv2d(4, 8, 3, groups=2, bias=False), nn.BatchNorm2d(8)],
        [nn.Conv2d(4, 8, 3, groups=4), nn.BatchNorm2d(8)],
        [nn.ConvTranspose2d(4, 6, 2, stride=2), nn.BatchNorm2d(6)],
        [nn.ConvTranspose2d(4, 6, 3, groups=2), nn.BatchNorm2d(6)],
        [nn.ReLU(), nn.BatchNorm2d(4)],
    ],
    ids=["conv", "grouped", "depthwise", "transposed", "transposed grouped", "left over"],
)
def test_folding_keeps_the_network(layers: List[nn.Module]) -> None:
    model = shaken(nn.Sequential(*layers))
    x = torch.randn(2, 4, 6, 6)
    graph = trace(model, [x])
    fold_batch_norms(graph)
    left = sum(node.op == BATCH_NORM for node in graph.nodes)
    assert left == isinstance(layers[0], nn.ReLU)
    with torch.no_grad():
        torch.testing.assert_close(forward(graph, x), model(x), rtol=1e-4, atol=1e-5)


class Joined(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(4, 3, 3)
        self.b = nn.Conv2d(4, 5, 3, bias=False)
        self.norm = nn.BatchNorm2d(8)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.norm(torch.cat([self.a(x), self.b(x)], 1))
        return out


def test_folding_through_a_concat() -> None:
    model = shaken(Joined())
    x = torch.randn(2, 4, 6, 6)
    graph = trace(model, [x])
    fold_batch_norms(graph)
    assert BATCH_NORM not in {node.op for node in graph.nodes}
    with torch.no_grad():
        torch.testing.assert_close(forward(graph, x), model(x), rtol=1e-4, atol=1e-5)


class TwoReaders(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)
        self.norm = nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        out: Tensor = y + self.norm(y)
        return out


def test_folding_refuses_a_second_reader() -> None:
    graph = trace(TwoReaders().eval(), [torch.zeros(1, 3, 4, 4)])
    with pytest.raises(UnsupportedError, match=r"Conv2d\[conv\]"):
        fold_batch_norms(graph)


def column(*values: object) -> np.ndarray:
    """One channel per value, or per list of taps."""
    return np.array(values, np.float32).reshape(len(values), -1)


def test_pair_example() -> None:
    scale = pair_scale(column(0.8, 0.05), np.array([0.1, 0.02], np.float32), column(0.1, 0.9))
    np.testing.assert_allclose(scale, [2.828427, 0.2357023], rtol=1e-6)


@pytest.mark.parametrize(
    ("first", "bias", "second", "scale"),
    [
        # Both ranges small, one range zero: left alone.
        ([0.2], None, [0.2], 1.0),
        ([0.0], None, [0.9], 1.0),
        # A channel without weights does not see its bias either.
        ([0.0, 1.0], [9.0, 0.0], [4.0, 1.0], 1.0),
        # Bias shrunk by 2: range 4 / 2 against 0.5.
        ([1.0], [4.0], [0.5], 2.0),
        # Most weights tiny beside the bias: by 5, range 8 / 5 against 0.4.
        ([[1.0, 0.001, 0.001]], [8.0], [0.4], 2.0),
        # The same where they are zero, which counts as the smallest there is.
        ([[1.0, 0.001, 0.0]], [8.0], [0.4], 2.0),
        # A bias of 10 and more: by 5, range 100 / 5 against 5.
        ([10.0], [100.0], [5.0], 2.0),
        # Factor over 15: by 10, range 160 / 10 = 16 against 1.
        ([10.0], [160.0], [1.0], 4.0),
        # Factor over 30: by 20, range 320 / 20 = 16 against 1.
        ([10.0], [320.0], [1.0], 4.0),
    ],
)
def test_pair_branches(
    first: List[object], bias: List[float], second: List[float], scale: float
) -> None:
    biases = None if bias is None else np.array(bias, np.float32)
    found = pair_scale(column(*first), biases, column(*second))
    assert float(found[0]) == pytest.approx(scale, rel=1e-6)


@pytest.mark.parametrize(
    "layers",
    [
        [nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3)],
        [nn.Conv2d(3, 8, 3), nn.ReLU(), nn.MaxPool2d(2), nn.ConvTranspose2d(8, 4, 2, stride=2)],
        [nn.ConvTranspose2d(3, 8, 2, stride=2), nn.ReLU(), nn.Conv2d(8, 4, 1), nn.Conv2d(4, 4, 3)],
        [nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 4, 1)],
        [nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3, groups=2)],
        [nn.Conv2d(4, 8, 3, groups=2), nn.AvgPool2d(2), nn.Conv2d(8, 4, 3)],
        [nn.ConvTranspose2d(4, 8, 2, groups=2), nn.ReLU(), nn.Conv2d(8, 4, 3)],
        [nn.Conv2d(3, 8, 3), nn.ReLU(), nn.ConvTranspose2d(8, 8, 2, groups=8), nn.Conv2d(8, 2, 1)],
    ],
)
def test_equalization_keeps_the_network(layers: List[nn.Module]) -> None:
    model = shaken(nn.Sequential(*layers))
    x = torch.randn(2, 4 if layers[0].in_channels == 4 else 3, 12, 12)
    graph = trace(model, [x])
    before = {key: value.copy() for key, value in graph.params.items()}
    pairs = equalize(graph)
    convolutions = [m for m in layers if isinstance(m, (nn.Conv2d, nn.ConvTranspose2d))]
    assert len(pairs) == len(convolutions) - 1
    assert any(not np.array_equal(before[key], graph.params[key]) for key in before)
    with torch.no_grad():
        torch.testing.assert_close(forward(graph, x), model(x), rtol=1e-3, atol=1e-4)


def test_chains_of_the_uynet() -> None:
    graph = trace(UYNet(width=8).eval(), [torch.zeros(1, 3, 224, 224)])
    fold_batch_norms(graph)
    pairs: List[Tuple[int, int]] = []
    for chain in chains(graph):
        pairs += [(a.index, b.index) for a, b in zip(chain, chain[1:])]
    assert pairs == [
        (1, 3), (6, 8), (11, 13), (16, 18), (21, 23), (34, 36), (36, 38), (40, 42), (42, 44),
        (46, 48), (48, 50), (52, 54), (54, 56),
    ]  # fmt: skip
