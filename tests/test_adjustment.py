"""Fix positions after calibration: the DPU's shifts stay within their limits."""

from __future__ import annotations

from typing import List, Optional, Tuple

import pytest

from deepfake_fpga.quantize.adjustment import Positions, adjust, legal_shifts
from deepfake_fpga.quantize.graph import (
    ADD,
    CONCAT,
    CONV2D,
    HARDSIGMOID,
    HARDSWISH,
    INPUT,
    MAXPOOL,
    RELU,
    RESIZE,
    Node,
    QuantizerGraph,
)
from deepfake_fpga.quantize.groups import entries


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        # input, weight, bias, output: as the vendor's tool changed them
        ((5, 0, 12, 12), (5, 0, 12, 5)),
        ((12, 12, 3, 3), (12, 7, 3, 3)),
        ((11, 12, -1, -1), (11, 4, -1, -1)),
        ((-1, 3, 12, -4), (-1, 3, 12, -4)),
        ((-4, 5, 12, -6), (-4, 5, 10, -6)),
        ((-7, 8, 12, -5), (-7, 8, 11, -5)),
        ((7, 12, 2, 10), (7, 11, 2, 10)),
        ((6, 7, 10, 4), (6, 7, 10, 4)),
        # without a bias only the accumulator's shift counts
        ((7, 12, None, 10), (7, 12, None, 10)),
    ],
)
def test_shift_examples(given: tuple, expected: tuple) -> None:  # type: ignore[type-arg]
    i, w, b, o = given
    assert legal_shifts(Positions(i, w, b, o)) == Positions(*expected)


def test_cut_at_its_limits_is_left_alone() -> None:
    for output in (13, -3):
        same = Positions(input=6, weight=7, bias=None, output=output)
        assert legal_shifts(same) == same


def build(resize: Optional[str] = None) -> QuantizerGraph:
    """input -> conv -> relu [-> resize]"""
    graph = QuantizerGraph("Net")
    source = Node(INPUT, "input_0", [], (1, 3, 4, 4))
    conv = Node(CONV2D, "Net/Conv2d[c]", [source], (1, 3, 4, 4))
    conv.params = {"weight": "Net::c.weight", "bias": "Net::c.bias"}
    relu = Node(RELU, "Net/ReLU[r]", [conv], (1, 3, 4, 4))
    graph.nodes = [source, conv, relu]
    if resize is not None:
        graph.nodes.append(Node(RESIZE, "Net", [relu], (1, 3, 8, 8), {"mode": resize}))
    graph.outputs = graph.nodes[-1]
    graph.number()
    return graph


def test_adjusts_the_carrier_of_the_group_and_says_so() -> None:
    graph = build()
    found = entries(graph)
    source, _, relu = graph.nodes
    params = {"Net::c.weight": 0, "Net::c.bias": 12}
    outputs = {source: 5, relu: 12}
    notes = adjust(graph, found, params, outputs)
    assert outputs == {source: 5, relu: 5}
    assert params == {"Net::c.weight": 0, "Net::c.bias": 12}
    assert notes == ["output Net::nndct_relu_2: fix position 12 to 5, its shift would be negative"]


@pytest.mark.parametrize(("mode", "position"), [("nearest", 4), ("bilinear", 5)])
def test_nearest_resize_keeps_its_inputs_position(mode: str, position: int) -> None:
    graph = build(mode)
    source, _, relu, resize = graph.nodes
    outputs = {source: 6, relu: 4, resize: 5}
    params = {"Net::c.weight": 7, "Net::c.bias": 10}
    notes = adjust(graph, entries(graph), params, outputs)
    assert outputs[resize] == position
    assert len(notes) == (mode == "nearest")


def gate(op: str) -> QuantizerGraph:
    """input -> operator"""
    graph = QuantizerGraph("Net")
    source = Node(INPUT, "input_0", [], (1, 3, 4, 4))
    graph.nodes = [source, Node(op, "Net", [source], (1, 3, 4, 4))]
    graph.outputs = graph.nodes[-1]
    graph.number()
    return graph


@pytest.mark.parametrize(
    ("op", "before", "after"),
    [
        (HARDSIGMOID, (-2, 5), (0, 7)),
        (HARDSIGMOID, (3, 9), (3, 9)),
        (HARDSWISH, (-2, 9), (0, 7)),
        (HARDSWISH, (3, 10), (3, 10)),
        (HARDSWISH, (1, 12), (1, 8)),
    ],
)
def test_gates(op: str, before: tuple, after: tuple) -> None:  # type: ignore[type-arg]
    graph = gate(op)
    outputs = dict(zip(graph.nodes, before))
    adjust(graph, entries(graph), {}, outputs)
    assert tuple(outputs.values()) == after


@pytest.mark.parametrize(
    ("aligned", "positions"),
    [
        ((), [7, 5, 6, 4, 3]),
        (("pool",), [7, 5, 6, 3, 3]),
        (("add",), [6, 6, 6, 4, 3]),
        (("concat",), [7, 5, 4, 4, 3]),
        # From the last node to the first, each reads what later ones were given.
        (("add", "concat", "pool"), [3, 3, 3, 3, 3]),
    ],
)
def test_inputs_that_take_the_position_of_the_result(
    aligned: Tuple[str, ...], positions: List[int]
) -> None:
    graph = QuantizerGraph("Net")
    left, right = (Node(INPUT, f"input_{i}", [], (1, 3, 4, 4)) for i in range(2))
    total = Node(ADD, "Net", [left, right], (1, 3, 4, 4))
    joined = Node(CONCAT, "Net", [total, total], (1, 6, 4, 4))
    pooled = Node(MAXPOOL, "Net", [joined], (1, 6, 2, 2))
    graph.nodes = [left, right, total, joined, pooled]
    graph.outputs = pooled
    graph.number()
    listed = entries(graph)
    # As if the sum had another reader too, and so a position of its own.
    outputs = dict(zip(graph.nodes, [7, 5, 6, 4, 3]))
    notes = adjust(graph, listed, {}, outputs, aligned)
    assert list(outputs.values()) == positions
    assert len(notes) == sum(a != b for a, b in zip(positions, [7, 5, 6, 4, 3]))
