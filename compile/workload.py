"""How many operations an operator counts for, as it is and as the engine's arrays execute it.

The formulas reproduce every number of the genuine VCK5000 models (convolutions, transposed
convolutions, poolings). No sample shows an element-wise operator or a depthwise convolution:
theirs are set by analogy.
"""

from __future__ import annotations

from typing import Iterable, Optional, Tuple

from .targets import CHANNEL_PARALLEL, OUTPUT_PARALLEL, PIXEL_PARALLEL
from .xir.attributes import uint64
from .xir.graph import Graph, Op, Subgraph


def workload(graph: Graph, op: Op) -> Optional[Tuple[int, int]]:
    """``(operations, operations on the arrays)`` of one image; ``None`` for what counts nothing.

    A multiplication and an addition are two operations, a bias is one per output. On the arrays
    channels are rounded up to whole groups, and one side of the map to whole groups of pixels.
    """
    if op.type in ("conv2d-fix", "transposed-conv2d-fix"):
        return _convolution(graph, op)
    if op.type in ("depthwise-conv2d-fix", "transposed-depthwise-conv2d-fix"):
        return _depthwise(graph, op)
    if op.type == "pool-fix":
        width, height = op.get("kernel")
        return _per_element(op, width * height)
    if op.type == "eltwise-fix":
        return _per_element(op, max(1, len(op.inputs["input"]) - 1))
    return None


def set_workloads(graph: Graph) -> None:
    """Writes the two numbers on every operator that has them and sums them up the tree."""
    for op in graph.ops.values():
        numbers = workload(graph, op)
        if numbers is not None:
            op.attrs["workload"] = uint64(numbers[0])
            op.attrs["workload_on_arch"] = uint64(numbers[1])
    _sum_up(graph, graph.root)


def _sum_up(graph: Graph, subgraph: Subgraph) -> None:
    for child in subgraph.children:
        _sum_up(graph, child)
    for key in ("workload", "workload_on_arch"):
        parts: Iterable[int] = (
            (child.get(key) for child in subgraph.children)
            if subgraph.children
            else (graph.ops[name].get(key, 0) for name in subgraph.ops)
        )
        subgraph.attrs[key] = uint64(sum(parts))


def _convolution(graph: Graph, op: Op) -> Tuple[int, int]:
    outputs, rows, columns, channels = graph.input_ops(op, "weights")[0].tensor.dims
    positions = rows * columns
    bias = 1 if op.inputs.get("bias") else 0
    _, height, width, _ = op.tensor.dims
    if op.type == "conv2d-fix":
        pixels, on_arch = height * width, _rounded(height, width)
        exact = (2 * positions * channels + bias) * pixels * outputs
    else:
        # Each input pixel meets the whole kernel; the biases belong to the output's pixels.
        _, in_height, in_width, _ = graph.input_ops(op)[0].tensor.dims
        pixels, on_arch = in_height * in_width, _rounded(in_height, in_width)
        exact = 2 * positions * channels * pixels * outputs + bias * height * width * outputs
    if op.get("channel_augmentation"):
        positions, channels = columns, rows * channels
    groups = _round_up(outputs, OUTPUT_PARALLEL)
    taps = 2 * positions * _round_up(channels, CHANNEL_PARALLEL)
    if op.type == "conv2d-fix":
        return exact, (taps + bias) * on_arch * groups
    stride = op.get("stride")
    return exact, (taps + bias * stride[0] * stride[1]) * on_arch * groups


def _depthwise(graph: Graph, op: Op) -> Tuple[int, int]:
    width, height = op.get("kernel")
    bias = 1 if op.inputs.get("bias") else 0
    positions = width * height
    if op.type.startswith("transposed"):
        stride = op.get("stride")
        positions = -(-positions // (stride[0] * stride[1]))
    return _per_element(op, 2 * positions + bias)


def _per_element(op: Op, operations: int) -> Tuple[int, int]:
    channels = op.tensor.dims[-1]
    pixels = op.tensor.elements // channels if channels else 0
    return (
        pixels * channels * operations,
        pixels * _round_up(channels, CHANNEL_PARALLEL) * operations,
    )


def _rounded(height: int, width: int) -> int:
    """Pixels of a map with one side rounded up to whole groups, the side that costs less."""
    return min(height * _round_up(width, PIXEL_PARALLEL), _round_up(height, PIXEL_PARALLEL) * width)


def _round_up(value: int, step: int) -> int:
    return -(-value // step) * step
