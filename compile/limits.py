"""Why a fixed-point operator does not fit a target, in the words of the vendor's compiler.

Limits as in the vendor's target descriptions and in PG403 (see ``targets``).
"""

from __future__ import annotations

from typing import Iterator, Mapping, Optional, Sequence

from .targets import CHANNEL_PARALLEL, Target
from .xir.graph import Graph, Op

CONVERSIONS = ("fix", "fix2float", "float2fix")
"""Operators at the border of the DPU; they are the CPU's by nature, not for lack of support."""

_MOST_CHANNELS = 256 * CHANNEL_PARALLEL
_TRANSPOSED_MOST = 16
"""Largest kernel side and stride of a transposed convolution (PG403 1.0)."""

_TRANSPOSED_DEPTHWISE_MOST = 8
"""Largest quotient of kernel side and stride of a transposed depthwise one (PG403 1.1)."""


def reason_for_cpu(
    graph: Graph, op: Op, target: Target, devices: Mapping[str, str]
) -> Optional[str]:
    """Why ``op`` cannot run on ``target``, as one sentence; ``None`` if it can.

    Args:
        graph: the lowered graph.
        op: one of its operators, no input and no constant.
        target: the DPU.
        devices: ``USER``, ``DPU`` or ``CPU`` of the operators before ``op``.
    """
    return next(_reasons(graph, op, target, devices), None)


def _reasons(graph: Graph, op: Op, target: Target, devices: Mapping[str, str]) -> Iterator[str]:
    if op.type in CONVERSIONS:
        yield "converts at the border of the DPU"
    elif op.type == "conv2d-fix":
        yield from _shape(op)
        yield from _range(op, "kernel", *target.conv_kernel)
        yield from _range(op, "stride", *target.conv_stride)
        yield from _pads(op)
        yield from _bank(graph, op, target)
        yield from _nonlinear(op, target.conv_nonlinear)
    elif op.type == "transposed-conv2d-fix":
        yield from _shape(op)
        yield from _range(op, "kernel", 1, _TRANSPOSED_MOST)
        yield from _range(op, "stride", 1, _TRANSPOSED_MOST)
        yield from _pads(op)
        yield from _bank(graph, op, target)
        yield from _nonlinear(op, target.conv_nonlinear)
    elif op.type == "depthwise-conv2d-fix" and target.depthwise_kernel:
        yield from _shape(op)
        yield from _range(op, "kernel", 1, target.depthwise_kernel)
        yield from _range(op, "stride", 1, target.depthwise_stride)
        yield from _pads(op)
        yield from _nonlinear(op, target.depthwise_nonlinear)
    elif op.type == "transposed-depthwise-conv2d-fix" and target.depthwise_kernel:
        yield from _shape(op)
        for axis, kernel, stride in zip(("width", "height"), op.get("kernel"), op.get("stride")):
            if -(-kernel // stride) > _TRANSPOSED_DEPTHWISE_MOST:
                yield (
                    f'DPU only supports "kernel_{axis} / stride_{axis}"({kernel} / {stride})'
                    f" no more than {_TRANSPOSED_DEPTHWISE_MOST}"
                )
        yield from _pads(op)
        yield from _nonlinear(op, target.depthwise_nonlinear)
    elif op.type == "pool-fix":
        yield from _shape(op)
        yield from _pool(op, target)
    elif op.type == "eltwise-fix":
        yield from _shape(op)
        if op.get("type") not in target.eltwise_types:
            types = ", ".join(target.eltwise_types)
            yield f'DPU only supports "type"({op.get("type")}) among {types}'
        yield from _nonlinear(op, target.eltwise_nonlinear)
    elif op.type == "concat-fix":
        if op.get("axis") == 0:
            yield 'DPU only supports "axis"(0) greater than 0'
        if op.get("axis") != 3 and any(devices[name] == "CPU" for name in op.inputs["input"]):
            yield f'DPU only supports "axis"({op.get("axis")}) equal to 3 with inputs from the CPU'
    elif op.type != "reshape-fix":
        yield f'operator "{op.type}" is not in the DPU\'s instruction set'


def _shape(op: Op) -> Iterator[str]:
    if len(op.tensor.dims) != 4:
        yield f'DPU only supports "dimensions"({len(op.tensor.dims)}) equal to 4'


def _range(op: Op, name: str, low: int, high: int) -> Iterator[str]:
    for axis, value in zip(("width", "height"), op.get(name)):
        if not low <= value <= high:
            yield f'DPU only supports "{name}_{axis}"({value}) in range [{low}, {high}]'


def _pads(op: Op) -> Iterator[str]:
    dilation = op.get("dilation") or (1, 1)
    for index, value in enumerate(op.get("pad") or ()):
        side = ("left", "right", "top", "bottom")[index]
        axis = index // 2
        reach = (op.get("kernel")[axis] - 1) * dilation[axis] + 1
        if value >= reach:
            kernel = f"kernel_{('width', 'height')[axis]}"
            if dilation[axis] > 1:
                kernel = f"dilated_{kernel}"
            yield f'DPU only supports "pad_{side}"({value}) less than "{kernel}"({reach})'


def _bank(graph: Graph, op: Op, target: Target) -> Iterator[str]:
    outputs, rows, columns, channels = graph.input_ops(op, "weights")[0].tensor.dims
    depth = rows * columns * -(-channels // CHANNEL_PARALLEL)
    if depth > target.bank_depth:
        yield (
            f'DPU only supports "kernel_width * kernel_height * ceil(input_channel /'
            f' {CHANNEL_PARALLEL})"({depth}) no more than "bank_depth"({target.bank_depth})'
        )
    if outputs > _MOST_CHANNELS:
        yield f'DPU only supports "output_channel"({outputs}) no more than {_MOST_CHANNELS}'
    spread = max(op.get("dilation") or (1,)) * channels
    if spread > _MOST_CHANNELS:
        yield (
            f'DPU only supports "dilation * input_channel"({spread}) no more than {_MOST_CHANNELS}'
        )


def _nonlinear(op: Op, possible: Sequence[str]) -> Iterator[str]:
    nonlinear = op.get("nonlinear") or "NONE"
    if nonlinear != "NONE" and nonlinear not in possible:
        yield f'DPU only supports "nonlinear"({nonlinear}) among NONE, {", ".join(possible)}'


def _pool(op: Op, target: Target) -> Iterator[str]:
    kernel = op.get("kernel")
    if target.pool_square and kernel[0] != kernel[1]:
        yield (
            f'DPU only supports "kernel_width"({kernel[0]}) equal to "kernel_height"({kernel[1]})'
        )
    for axis, value in zip(("width", "height"), kernel):
        if value not in target.pool_kernels:
            sides = ", ".join(str(side) for side in target.pool_kernels)
            if len(target.pool_kernels) > 8:
                sides = f"1 to {target.pool_kernels[-1]}"
            yield f'DPU only supports "kernel_{axis}"({value}) among {sides}'
    yield from _range(op, "stride", 1, target.pool_stride)
    yield from _pads(op)
