"""Calls that pool or resample feature maps.

Spatial attributes are ``(height, width)``.

Importing this module imports torch.
"""

from __future__ import annotations

from typing import Any

from . import graph as g
from .calls import Call, pair
from .factors import pool_factor
from .graph import Node


def _max_pool(call: Call, kernel: Any, stride: Any, padding: Any, dilation: Any, ceil: Any) -> Node:
    if pair(dilation) != (1, 1):
        raise call.unsupported("dilated pooling")
    return call.add(
        g.MAXPOOL,
        [call.operand(0, "input")],
        {
            "kernel": pair(kernel),
            "stride": pair(stride if stride not in (None, [], ()) else kernel),
            "padding": pair(padding),
            "ceil_mode": bool(ceil),
        },
    )


def max_pool_module(call: Call) -> Node:
    """``nn.MaxPool2d``."""
    m = call.module
    if m.return_indices:
        raise call.unsupported("it returns indices")
    return _max_pool(call, m.kernel_size, m.stride, m.padding, m.dilation, m.ceil_mode)


def max_pool_function(call: Call) -> Node:
    """``F.max_pool2d``."""
    if call.arg(6, "return_indices", False):
        raise call.unsupported("it returns indices")
    return _max_pool(
        call,
        call.arg(1, "kernel_size"),
        call.arg(2, "stride"),
        call.arg(3, "padding", 0),
        call.arg(4, "dilation", 1),
        call.arg(5, "ceil_mode", False),
    )


def _avg_pool(
    call: Call, kernel: Any, stride: Any, padding: Any, ceil: Any, include_pad: Any, divisor: Any
) -> Node:
    if divisor is not None:
        raise call.unsupported("average pooling with its own divisor")
    return call.add(
        g.AVGPOOL,
        [call.operand(0, "input")],
        {
            "kernel": pair(kernel),
            "stride": pair(stride if stride not in (None, [], ()) else kernel),
            "padding": pair(padding),
            "ceil_mode": bool(ceil),
            "include_pad": bool(include_pad),
            "factor": pool_factor(pair(kernel), call.graph.release),
        },
    )


def avg_pool_module(call: Call) -> Node:
    """``nn.AvgPool2d``."""
    m = call.module
    return _avg_pool(
        call,
        m.kernel_size,
        m.stride,
        m.padding,
        m.ceil_mode,
        m.count_include_pad,
        m.divisor_override,
    )


def avg_pool_function(call: Call) -> Node:
    """``F.avg_pool2d``."""
    return _avg_pool(
        call,
        call.arg(1, "kernel_size"),
        call.arg(2, "stride"),
        call.arg(3, "padding", 0),
        call.arg(4, "ceil_mode", False),
        call.arg(5, "count_include_pad", True),
        call.arg(6, "divisor_override"),
    )


def adaptive_avg_pool(call: Call) -> Node:
    """Averages over equal windows; over unequal ones it stays float."""
    source = call.operand(0, "input")
    result, given = call.shape[2:], source.shape[2:]
    if given[0] % result[0] or given[1] % result[1]:
        call.graph.notes.append(
            f"{call.what} in {call.scope}: {given} does not divide into {result} equal windows, so "
            "its result stays float"
        )
        return call.add(g.ADAPTIVE_AVGPOOL, [source], {"size": tuple(result), "uneven": True})
    kernel = (given[0] // result[0], given[1] // result[1])
    factor = pool_factor(kernel, call.graph.release, several_pixels=tuple(result) != (1, 1))
    attrs = {"kernel": kernel, "size": tuple(result), "factor": factor}
    return call.add(g.ADAPTIVE_AVGPOOL, [source], attrs)


def _resize(call: Call, scale: Any, mode: str, align_corners: Any) -> Node:
    if mode == "area":
        return adaptive_avg_pool(call)
    if mode not in ("nearest", "bilinear") or len(call.shape) != 4:
        return call.custom()
    source = call.operand(0, "input")
    if scale is not None:
        pair = scale if isinstance(scale, (tuple, list)) else (scale, scale)
        factors = (float(pair[0]), float(pair[-1]))
    else:
        factors = (call.shape[2] / source.shape[2], call.shape[3] / source.shape[3])
    attrs = {
        "size": tuple(call.shape[2:]),
        "scale": factors,
        "by_scale": scale is not None,
        "mode": mode,
        "align_corners": bool(align_corners),
    }
    return call.add(g.RESIZE, [source], attrs)


def upsample_module(call: Call) -> Node:
    """``nn.Upsample`` and its relatives."""
    m = call.module
    return _resize(call, m.scale_factor, m.mode, m.align_corners)


def interpolate_function(call: Call) -> Node:
    """``F.interpolate``."""
    return _resize(
        call,
        call.arg(2, "scale_factor"),
        call.arg(3, "mode", "nearest"),
        call.arg(4, "align_corners"),
    )
