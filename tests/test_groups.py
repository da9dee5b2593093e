"""Which tensors are quantized, under which names and in which order, pattern by pattern.

Every expectation was derived by hand from the rules: first the results of quantizable operators in
order (of the group they end), then whatever else feeds one.
"""

from __future__ import annotations

from typing import Any, Callable, List

import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from deepfake_fpga.quantize import graph as g  # noqa: E402
from deepfake_fpga.quantize.equalization import chains  # noqa: E402
from deepfake_fpga.quantize.execution import compute  # noqa: E402
from deepfake_fpga.quantize.folding import fold_batch_norms  # noqa: E402
from deepfake_fpga.quantize.graph import QuantizerGraph  # noqa: E402
from deepfake_fpga.quantize.groups import entries  # noqa: E402
from deepfake_fpga.quantize.releases import V2_5, V3_0, V3_5, Release  # noqa: E402
from deepfake_fpga.quantize.trace import trace  # noqa: E402

pytestmark = pytest.mark.torch


class Net(nn.Module):
    """A forward given as a function of the module and its input."""

    def __init__(self, run: Callable[..., Any], **modules: Any) -> None:
        super().__init__()
        self.run = run
        for name, module in modules.items():
            setattr(self, name, module)

    def forward(self, *inputs: Any) -> Any:
        return self.run(self, *inputs)


def conv(given: int = 3, made: int = 3, **more: Any) -> nn.Conv2d:
    return nn.Conv2d(given, made, 1, **more)


def traced(
    net: nn.Module, release: Release = V3_5, inputs: int = 1, side: int = 6
) -> QuantizerGraph:
    graph = trace(net.eval(), [torch.zeros(1, 3, side, side)] * inputs, release=release)
    fold_batch_norms(graph)
    return graph


def short(graph: QuantizerGraph, nodes: Any) -> List[str]:
    return [graph.node_name(node).split("::")[1].replace("nndct_", "") for node in nodes]


def listed(net: nn.Module, release: Release = V3_5, side: int = 6) -> List[str]:
    graph = traced(net, release, side=side)
    return short(graph, entries(graph).outputs)


def self_add(m: Any, x: Tensor) -> Tensor:
    y = m.c(x)
    return F.relu(y) + y


def nested(m: Any, x: Tensor) -> Tensor:
    inner = torch.cat([m.a(x), m.b(x)], 1)
    return torch.cat([inner, m.c(x)], 1)


def excite(m: Any, x: Tensor) -> Tensor:
    y = F.relu(m.c(x))
    return y * torch.sigmoid(m.d(F.adaptive_avg_pool2d(y, 1)))


def halves(m: Any, x: Tensor) -> Tensor:
    a, b = m.c(x).chunk(2, 1)
    return a * torch.sigmoid(b)


@pytest.mark.parametrize(
    ("net", "expected"),
    [
        # A ReLU that alone reads a convolution carries the position of both.
        (Net(lambda m, x: F.relu(m.c(x)), c=conv()), ["input_0", "relu_2"]),
        # With two readers the convolution has its own, and the ReLU one as an operand of the sum.
        (Net(self_add, c=conv()), ["input_0", "conv2d_1", "elemwise_add_3", "relu_2"]),
        # A ReLU of a convolution with two readers that nothing quantizable reads stays float.
        (Net(lambda m, x: (lambda y: (y, F.relu(y)))(m.c(x)), c=conv()), ["input_0", "conv2d_1"]),
        # The operands of a concat have none of their own, that of the inner concat comes from them.
        (Net(nested, a=conv(), b=conv(), c=conv()), ["input_0", "concat_3", "concat_5"]),
        (
            Net(lambda m, x: torch.cat([F.interpolate(m.c(x), scale_factor=1.0), m.d(x)], 1),
                c=conv(), d=conv()),
            ["input_0", "conv2d_1", "concat_4"],
        ),
        # A sigmoid in front of a product gets one in the second pass, at the end none.
        (
            Net(excite, c=conv(), d=conv()),
            ["input_0", "relu_2", "adaptive_avg_pool2d_3", "conv2d_4", "elemwise_mul_6",
             "sigmoid_5"],
        ),
        (Net(lambda m, x: torch.tanh(m.c(x)), c=conv()), ["input_0", "conv2d_1"]),
        (Net(lambda m, x: torch.softmax(m.c(x), 1), c=conv()),
         ["input_0", "conv2d_1", "softmax_2"]),
        # Data movement shares the position of what it moves; a size counts in the numbering.
        (
            Net(lambda m, x: m.f(F.max_pool2d(x, 6).view(x.size(0), -1)), f=nn.Linear(3, 2)),
            ["input_0", "maxpool_1", "dense_4"],
        ),
        (
            Net(lambda m, x: m.f(m.c(x).permute(0, 2, 3, 1)), c=conv(), f=nn.Linear(3, 2)),
            ["input_0", "conv2d_1", "dense_3"],
        ),
        # transpose is a follower like permute, but carries a position itself.
        (
            Net(lambda m, x: m.d(m.c(x).transpose(2, 3)), c=conv(), d=conv()),
            ["input_0", "transpose_2", "conv2d_3"],
        ),
        (Net(halves, c=conv(3, 4)), ["input_0", "conv2d_1", "elemwise_mul_4", "sigmoid_3"]),
        # ReLU6 as a function, leaky ReLU, hard swish.
        (Net(lambda m, x: m.d(F.relu6(m.c(x))), c=conv(), d=conv()),
         ["input_0", "relu6_2", "conv2d_3"]),
        (Net(lambda m, x: F.leaky_relu(m.c(x)), c=conv()), ["input_0", "leaky_relu_2"]),
        (Net(lambda m, x: F.hardswish(m.c(x)), c=conv()), ["input_0", "conv2d_1", "hswish_2"]),
        # Unknown operators stay float unless something quantizable reads them.
        (Net(lambda m, x: m.d(F.silu(m.c(x))), c=conv(), d=conv()),
         ["input_0", "conv2d_1", "conv2d_3", "aten_silu_2"]),
        (Net(lambda m, x: torch.cumsum(m.c(x), 1), c=conv()), ["input_0", "conv2d_1"]),
        # An activation never joins the group of one.
        (Net(lambda m, x: m.c(F.relu(torch.abs(x))), c=conv()), ["conv2d_3", "relu_2"]),
        # Recent torch gives means and paddings forms without a rule of their own.
        (Net(lambda m, x: m.f(m.c(x).mean([2, 3])), c=conv(), f=nn.Linear(3, 2)),
         ["input_0", "conv2d_1", "dense_3", "aten_mean_2"]),
        (Net(lambda m, x: m.c(F.pad(x, (0, 1, 0, 1))), c=conv()),
         ["input_0", "conv2d_2", "pad_nd_1"]),
        # Numbers are constants at the beginning, in the order of the kinds of their readers.
        (
            Net(lambda m, x: (1 - m.c(x) * 2 + 0.5) * 3, c=conv()),
            ["input_4", "conv2d_5", "elemwise_mul_6", "rsub_7", "elemwise_add_8", "elemwise_mul_9",
             "const_0", "const_2", "const_3", "const_1"],
        ),
        # A batch norm that is left over is quantized; a ReLU joins it.
        (nn.Sequential(nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 2, 1)),
         ["input_0", "relu_2", "conv2d_3"]),
        # Dropout and identity leave no number behind, a dropped second argument neither.
        (nn.Sequential(nn.Conv2d(3, 3, 1), nn.Dropout(), nn.Identity(), nn.ReLU(), nn.Flatten(),
                       nn.Linear(108, 2)), ["input_0", "relu_2", "dense_4"]),
    ],
)  # fmt: skip
def test_entries(net: nn.Module, expected: List[str]) -> None:
    assert listed(net) == expected


def test_sums_and_products_with_two_operands_of_different_rank() -> None:
    net = Net(lambda m, x: x * m.s, s=nn.Parameter(torch.ones(3, 1, 1)))
    assert listed(net) == ["input_1", "elemwise_mul_2", "const_0"]


def test_older_containers_know_means_and_paddings() -> None:
    net = Net(lambda m, x: m.f(m.c(x).mean([2, 3])), c=conv(), f=nn.Linear(3, 2))
    assert listed(net, V3_0) == ["input_0", "conv2d_1", "mean_2", "dense_3"]
    net = Net(lambda m, x: m.c(F.pad(x, (0, 1, 0, 1))), c=conv())
    assert listed(net, V3_0) == ["input_0", "pad_1", "conv2d_2"]


def test_dropout_of_older_releases_counts_until_it_is_removed() -> None:
    net = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Dropout(), nn.Conv2d(3, 3, 1))
    assert [n.op for n in traced(net, V2_5).nodes].count(g.DROPOUT) == 1
    assert chains(traced(net, V2_5)) == []
    assert len(chains(traced(net, V3_5))) == 1


@pytest.mark.parametrize(("columns", "factor"), [(4, 12 * 85 / 1024), (8, 24 * 85 / 2048)])
def test_mean_has_the_best_factor_for_its_count(columns: int, factor: float) -> None:
    graph = trace(Net(lambda m, x: x.mean([2, 3])), [torch.zeros(1, 3, 3, columns)], release=V3_0)
    (node,) = graph.output_nodes
    assert compute(node, [torch.ones(2, 3, 3, columns)], {}).flatten().tolist() == [factor] * 6


def test_mean_over_a_power_of_two_is_exact() -> None:
    graph = trace(Net(lambda m, x: x.mean([2, 3])), [torch.zeros(1, 3, 4, 4)], release=V3_0)
    (node,) = graph.output_nodes
    assert compute(node, [torch.ones(1, 3, 4, 4)], {}).flatten().tolist() == [1.0] * 3


def test_pool_that_does_not_divide_is_listed_and_stays_float() -> None:
    graph = traced(nn.Sequential(nn.Conv2d(3, 3, 1), nn.AdaptiveAvgPool2d(4), nn.Conv2d(3, 2, 1)))
    found = entries(graph)
    assert short(graph, found.outputs) == [
        "input_0",
        "conv2d_1",
        "adaptive_avg_pool2d_2",
        "conv2d_3",
    ]
    assert short(graph, found.unfilled) == ["adaptive_avg_pool2d_2"]
    assert "(6, 6) does not divide into (4, 4)" in graph.notes[0]


def test_left_over_batch_norm_lists_gamma_and_beta() -> None:
    graph = traced(nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 2, 1, bias=False)))
    assert list(entries(graph).params) == [
        "Sequential::0.weight", "Sequential::0.bias", "Sequential::1.weight",
    ]  # fmt: skip


def test_copies_are_called_after_the_node_constants_counted() -> None:
    net = Net(lambda m, x: m.c(F.relu(m.c(x * 2))), c=conv())
    assert list(entries(traced(net)).params) == [
        "Net::c.weight", "Net::c.bias", "Net::c.weight.5", "Net::c.bias.5",
    ]  # fmt: skip


def test_linear_layer_used_twice_is_listed_once() -> None:
    net = Net(lambda m, x: m.f(F.relu(m.f(x.flatten(2)))), f=nn.Linear(36, 36))
    assert list(entries(traced(net)).params) == ["Net::f.weight", "Net::f.bias"]


def test_sizes_are_readers_of_their_tensor() -> None:
    net = Net(lambda m, x: F.interpolate(m.c(x), size=x.shape[2:]), c=conv())
    graph = traced(net)
    assert short(graph, graph.nodes) == ["input_0", "conv2d_1", "shape_2", "shape_3", "resize_4"]
    assert graph.uses()[graph.nodes[0]] == 3
    assert graph.nodes[-1].inputs == [graph.nodes[1], graph.nodes[2], graph.nodes[3]]


def pairs(net: nn.Module, inputs: int = 1) -> List[List[int]]:
    return [[node.index for node in chain] for chain in chains(traced(net, inputs=inputs))]


def two_inputs(m: Any, x: Tensor, y: Tensor) -> Tensor:
    return m.b(m.a(y)) + m.d(m.c(x))


def branching(m: Any, x: Tensor) -> Tensor:
    y = F.relu(m.b(m.a(x)))
    return m.d(F.relu(m.c(y))) + y


@pytest.mark.parametrize(
    ("net", "expected"),
    [
        # Activations and pools let a chain through, depthwise layers are part of it.
        (
            nn.Sequential(
                conv(3, 4), nn.ReLU(), conv(4, 4, groups=4), nn.AvgPool2d(2), conv(4, 2),
                nn.MaxPool2d(1), nn.AdaptiveAvgPool2d(1), nn.ConvTranspose2d(2, 2, 2),
            ),
            [[1, 3, 5, 8]],
        ),
        # A ReLU6 module becomes a ReLU, the function ends the chain.
        (nn.Sequential(conv(), nn.ReLU6(), conv()), [[1, 3]]),
        (Net(lambda m, x: m.b(F.relu6(m.a(x))), a=conv(), b=conv()), []),
        # So do leaky ReLU, hard swish, a left-over batch norm, a concat, a sum.
        (nn.Sequential(conv(), nn.LeakyReLU(), conv()), []),
        (nn.Sequential(conv(), nn.Hardswish(), conv()), []),
        (nn.Sequential(conv(), nn.ReLU(), nn.BatchNorm2d(3), conv()), []),
        (Net(lambda m, x: m.b(torch.cat([m.a(x), m.c(x)], 1)), a=conv(), b=conv(6), c=conv()), []),
        (Net(lambda m, x: m.b(m.a(x) + x), a=conv(), b=conv()), []),
        # A second reader ends it before and after: the layer may be its last, not its first.
        (Net(branching, a=conv(), b=conv(), c=conv(), d=conv()), [[1, 2], [4, 6]]),
        # Being an output counts as a reader.
        (Net(lambda m, x: (lambda y: (y, m.b(y)))(m.a(x)), a=conv(), b=conv()), []),
        # A batch norm is folded first.
        (nn.Sequential(conv(), nn.BatchNorm2d(3), nn.ReLU(), conv()), [[1, 3]]),
    ],
)  # fmt: skip
def test_chains(net: nn.Module, expected: List[List[int]]) -> None:
    assert pairs(net) == expected


def test_chains_start_from_every_input_in_turn() -> None:
    net = Net(two_inputs, a=conv(), b=conv(), c=conv(), d=conv())
    # Nodes run in the order of the calls, the walk begins at the first argument.
    assert pairs(net, inputs=2) == [[4, 5], [2, 3]]
