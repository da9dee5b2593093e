"""Attributes of operators with a sliding window, as genuine compiled models have them."""

from __future__ import annotations

from typing import Dict, List, Sequence

from .matching import Match, reduced_kernel
from .targets import CHANNEL_PARALLEL
from .xir.attributes import Attr, int32, int32s, string
from .xir.graph import Graph, Op


def convolution_attrs(
    source: Graph, match: Match, weights: Sequence[int], first: bool
) -> Dict[str, Attr]:
    """Attributes of a convolution: the float operator's, the fused activation, exact pads.

    Args:
        source: the quantized graph.
        match: the chain with the convolution.
        weights: ``[out, kh, kw, in]``.
        first: it reads a value that comes from outside the DPU.
    """
    head = match.head
    if head.type.startswith("transposed"):
        names = ("kernel", "stride", "dilation", "pad")
        attrs = {name: head.attrs[name] for name in names if name in head.attrs}
    else:
        attrs = {**head.attrs, "pad": int32s(reached_pad(source, head)), **unused_shifts()}
    attrs["nonlinear"] = string(match.nonlinear)
    if head.type == "conv2d" and first and _rows_fit(weights):
        attrs["channel_augmentation"] = int32(1)
    return attrs


def pool_attrs(source: Graph, match: Match) -> Dict[str, Attr]:
    """Attributes of a pooling; a reduction becomes one whose kernel is as long as the axis."""
    head = match.head
    if head.type == "reduction_max":
        kernel, stride = reduced_kernel(source, head) or (1, 1), (1, 1)
        pad = [0, 0, 0, 0]
    else:
        kernel, stride, pad = head.get("kernel"), head.get("stride"), reached_pad(source, head)
    return {
        "kernel": int32s(kernel),
        "stride": int32s(stride),
        "pad": int32s(pad),
        "type": string(match.flavour),
    }


def unused_shifts() -> Dict[str, Attr]:
    """The attributes of a hard sigmoid on an operator that has none."""
    return {name: int32(-128) for name in ("hsigmoid_in", "shift_hsigmoid", "shift_hswish")}


def reached_pad(source: Graph, head: Op) -> List[int]:
    """``[left, right, top, bottom]`` without the padding that no window reaches."""
    dims = source.ops[head.inputs["input"][0]].tensor.dims
    given = head.get("pad") or (0, 0, 0, 0)
    dilation = head.get("dilation") or (1, 1)
    pad = list(given)
    for axis in (0, 1):
        size, out = dims[2 - axis], head.tensor.dims[2 - axis]
        reach = (head.get("kernel")[axis] - 1) * dilation[axis] + 1
        last = (out - 1) * head.get("stride")[axis] + reach - size - given[2 * axis]
        pad[2 * axis + 1] = max(0, last)
    return pad


def _rows_fit(weights: Sequence[int]) -> bool:
    """Whether all kernel rows fit into one group of input channels."""
    return weights[1] > 1 and weights[1] * weights[3] <= CHANNEL_PARALLEL
