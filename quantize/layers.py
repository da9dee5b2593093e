"""Calls of layers with weights: convolutions, linear layers, batch norms.

Spatial attributes are ``(height, width)``.

Importing this module imports torch.
"""

from __future__ import annotations

from typing import Any, Dict, Optional, Tuple

import torch

from . import graph as g
from .calls import Call, Pair, Parameter, pair
from .graph import Node


def _convolution(
    call: Call,
    weight: Parameter,
    bias: Optional[Parameter],
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: int,
) -> Node:
    outputs, inputs = int(weight.value.shape[0]), int(weight.value.shape[1]) * groups
    kernel: Pair = (int(weight.value.shape[2]), int(weight.value.shape[3]))
    steps = pair(dilation)
    if padding == "valid":
        padding = 0
    elif padding == "same":
        total = [d * (k - 1) for d, k in zip(steps, kernel)]
        if total[0] % 2 or total[1] % 2:
            raise call.unsupported("padding 'same' is uneven for this kernel")
        padding = (total[0] // 2, total[1] // 2)
    depthwise = groups != 1 and groups == inputs and outputs % inputs == 0
    return call.add(
        g.DEPTHWISE_CONV2D if depthwise else g.CONV2D,
        [call.operand(0, "input")],
        {
            "kernel": kernel,
            "stride": pair(stride),
            "padding": pair(padding),
            "dilation": steps,
            "groups": int(groups),
            "in_channels": inputs,
            "out_channels": outputs,
        },
        {"weight": weight, "bias": bias},
    )


def conv_module(call: Call) -> Node:
    """``nn.Conv2d``."""
    m = call.module
    if m.padding_mode != "zeros":
        raise call.unsupported(f"padding mode {m.padding_mode!r}, use a padding layer before it")
    weight = call.own("weight")
    assert weight is not None  # a convolution always has weights
    return _convolution(call, weight, call.own("bias"), m.stride, m.padding, m.dilation, m.groups)


def conv_function(call: Call) -> Node:
    """``F.conv2d`` with parameters of the model."""
    weight, bias = _given_weights(call)
    return _convolution(
        call,
        weight,
        bias,
        call.arg(3, "stride", 1),
        call.arg(4, "padding", 0),
        call.arg(5, "dilation", 1),
        call.arg(6, "groups", 1),
    )


def _conv_transpose(
    call: Call,
    weight: Parameter,
    bias: Optional[Parameter],
    stride: Any,
    padding: Any,
    output_padding: Any,
    groups: int,
    dilation: Any,
) -> Node:
    inputs, outputs = int(weight.value.shape[0]), int(weight.value.shape[1]) * groups
    depthwise = groups != 1 and outputs // groups == 1 and groups == inputs
    return call.add(
        g.DEPTHWISE_CONV_TRANSPOSE2D if depthwise else g.CONV_TRANSPOSE2D,
        [call.operand(0, "input")],
        {
            "kernel": (int(weight.value.shape[2]), int(weight.value.shape[3])),
            "stride": pair(stride),
            "padding": pair(padding),
            "output_padding": pair(output_padding),
            "dilation": pair(dilation),
            "groups": int(groups),
            "in_channels": inputs,
            "out_channels": outputs,
        },
        {"weight": weight, "bias": bias},
    )


def conv_transpose_module(call: Call) -> Node:
    """``nn.ConvTranspose2d``."""
    m = call.module
    if len(call.args) > 1 or call.kwargs.get("output_size") is not None:
        raise call.unsupported("it is called with an output size")
    weight = call.own("weight")
    assert weight is not None  # a convolution always has weights
    return _conv_transpose(
        call, weight, call.own("bias"), m.stride, m.padding, m.output_padding, m.groups, m.dilation
    )


def _given_weights(call: Call) -> Tuple[Parameter, Optional[Parameter]]:
    weight, bias = call.arg(1, "weight"), call.arg(2, "bias")
    if not isinstance(weight, Parameter) or not (bias is None or isinstance(bias, Parameter)):
        raise call.unsupported("its weights are computed, not parameters of the model")
    return weight, bias


def conv_transpose_function(call: Call) -> Node:
    """``F.conv_transpose2d`` with parameters of the model."""
    return _conv_transpose(
        call,
        *_given_weights(call),
        call.arg(3, "stride", 1),
        call.arg(4, "padding", 0),
        call.arg(5, "output_padding", 0),
        call.arg(6, "groups", 1),
        call.arg(7, "dilation", 1),
    )


def linear_function(call: Call) -> Node:
    """``F.linear`` with parameters of the model."""
    weight, bias = _given_weights(call)
    outputs, inputs = weight.value.shape
    attrs = {"in_channels": int(inputs), "out_channels": int(outputs)}
    return call.add(g.DENSE, [call.operand(0, "input")], attrs, {"weight": weight, "bias": bias})


def linear_module(call: Call) -> Node:
    """``nn.Linear``."""
    m = call.module
    attrs = {"in_channels": int(m.in_features), "out_channels": int(m.out_features)}
    params = {"weight": call.own("weight"), "bias": call.own("bias")}
    return call.add(g.DENSE, [call.operand(0, "input")], attrs, params)


def batch_norm_module(call: Call) -> Node:
    """A batch norm by its running statistics."""
    m = call.module
    mean, var = call.own("running_mean"), call.own("running_var")
    if mean is None or var is None:
        raise call.unsupported("it keeps no running statistics")
    weight, bias = call.own("weight"), call.own("bias")
    if weight is None:
        weight = Parameter(f"{call.path}.weight", torch.ones_like(mean.value))
    if bias is None:
        bias = Parameter(f"{call.path}.bias", torch.zeros_like(mean.value))
    params: Dict[str, Optional[Parameter]] = {
        "weight": weight,
        "bias": bias,
        "mean": mean,
        "var": var,
    }
    return call.add(g.BATCH_NORM, [call.operand(0, "input")], {"eps": float(m.eps)}, params)
