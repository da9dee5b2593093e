"""The table of PyTorch modules, functions and tensor methods the quantizer understands.

An operator is one entry: what is called (a module class, a function or a method name) and a
function that turns the call into a node. Attributes of nodes are plain Python values, spatial ones
``(height, width)``.

Importing this module imports torch.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any, Callable, Dict, Optional, Sequence, Tuple, Union

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import UnsupportedError
from . import graph as g
from .factors import LEAKY_SLOPE, pool_factor
from .graph import Node, QuantizerGraph


@dataclass(frozen=True)
class Parameter:
    """A parameter or buffer of the model, by its name in the state dict."""

    name: str
    value: Tensor


@dataclass
class Call:
    """One traced call, its operands already nodes, parameters or plain values.

    Attributes:
        graph: where the node goes.
        what: the call as a person would write it, for errors.
        where: source file and line of the call, or an empty string.
        scope: module classes and attribute names down to the call.
        shape: of the result for the example.
        module: the called module and its path, for module calls.
        args, kwargs: operands.
    """

    graph: QuantizerGraph
    what: str
    where: str
    scope: str
    shape: Tuple[int, ...]
    args: Sequence[Any]
    kwargs: Dict[str, Any]
    module: Any = None
    path: str = ""

    def arg(self, position: int, name: str, default: Any = None) -> Any:
        """The operand at ``position`` or called ``name``."""
        if position < len(self.args):
            return self.args[position]
        return self.kwargs.get(name, default)

    def operand(self, position: int, name: str) -> Node:
        """Same, where only a computed tensor will do."""
        value = self.arg(position, name)
        if not isinstance(value, Node):
            raise self.unsupported(f"operand {name!r} is {_short(value)}, not a computed tensor")
        return value

    def own(self, name: str) -> Optional[Parameter]:
        """The called module's parameter or buffer ``name``; ``None`` where it has none."""
        value = getattr(self.module, name)
        return None if value is None else Parameter(f"{self.path}.{name}", value.detach())

    def add(
        self,
        op: str,
        inputs: Sequence[Node],
        attrs: Optional[Dict[str, Any]] = None,
        params: Optional[Dict[str, Optional[Parameter]]] = None,
    ) -> Node:
        """Appends a node for this call."""
        node = Node(op, self.scope, list(inputs), self.shape, dict(attrs or {}))
        for role, parameter in (params or {}).items():
            if parameter is not None:
                node.params[role] = self._store(parameter, op)
        self.graph.nodes.append(node)
        return node

    def _store(self, parameter: Parameter, op: str) -> str:
        value = parameter.value
        if value.dtype != torch.float32:
            raise self.unsupported(f"{parameter.name} is {value.dtype}, not float32")
        key = f"{self.graph.name}::{parameter.name}"
        # A convolution called again gets its own copy, so that each use is folded and equalized
        # by itself; a linear layer's parameters stay shared, as in the vendor's graph.
        if key in self.graph.params and op != g.DENSE:
            key = f"{key}.{len(self.graph.nodes)}"
        self.graph.params[key] = value.detach().cpu().numpy().copy()
        return key

    def unsupported(self, reason: str) -> UnsupportedError:
        """The error for this call."""
        seen = f"{self.what} in {self.scope}" + (f", called at {self.where}" if self.where else "")
        return UnsupportedError(
            f"The quantizer cannot treat {self.what}: {reason}",
            seen,
            "replace the operator in the model's forward, or leave it to the code around the model",
        )


Builder = Callable[[Call], Node]
Pair = Tuple[int, int]


def builder_for(kind: str, target: Any, module: Optional[nn.Module]) -> Optional[Builder]:
    """The entry for an fx call of ``kind`` on ``target``; ``None`` where there is none."""
    if kind == "call_module":
        return MODULES.get(type(module))
    if kind == "call_method":
        return METHODS.get(target)
    return FUNCTIONS.get(target)


def _pair(value: Union[int, Sequence[int]]) -> Pair:
    if isinstance(value, (tuple, list)):
        if len(value) == 1:
            return int(value[0]), int(value[0])
        return int(value[0]), int(value[1])
    return int(value), int(value)  # type: ignore[arg-type]


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


# --- convolutions and linear layers ---------------------------------------------------------------


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
    steps = _pair(dilation)
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
            "stride": _pair(stride),
            "padding": _pair(padding),
            "dilation": steps,
            "groups": int(groups),
            "in_channels": inputs,
            "out_channels": outputs,
        },
        {"weight": weight, "bias": bias},
    )


def _conv_module(call: Call) -> Node:
    m = call.module
    if m.padding_mode != "zeros":
        raise call.unsupported(f"padding mode {m.padding_mode!r}")
    weight = call.own("weight")
    assert weight is not None  # a convolution always has weights
    return _convolution(call, weight, call.own("bias"), m.stride, m.padding, m.dilation, m.groups)


def _conv_function(call: Call) -> Node:
    weight, bias = call.arg(1, "weight"), call.arg(2, "bias")
    if not isinstance(weight, Parameter) or not (bias is None or isinstance(bias, Parameter)):
        raise call.unsupported("its weights are computed, not parameters of the model")
    return _convolution(
        call,
        weight,
        bias,
        call.arg(3, "stride", 1),
        call.arg(4, "padding", 0),
        call.arg(5, "dilation", 1),
        call.arg(6, "groups", 1),
    )


def _conv_transpose_module(call: Call) -> Node:
    m = call.module
    inputs, outputs, groups = m.in_channels, m.out_channels, m.groups
    depthwise = groups != 1 and outputs // groups == 1 and groups == inputs
    if len(call.args) > 1 or call.kwargs.get("output_size") is not None:
        raise call.unsupported("it is called with an output size")
    return call.add(
        g.DEPTHWISE_CONV_TRANSPOSE2D if depthwise else g.CONV_TRANSPOSE2D,
        [call.operand(0, "input")],
        {
            "kernel": _pair(m.kernel_size),
            "stride": _pair(m.stride),
            "padding": _pair(m.padding),
            "output_padding": _pair(m.output_padding),
            "dilation": _pair(m.dilation),
            "groups": int(groups),
            "in_channels": int(inputs),
            "out_channels": int(outputs),
        },
        {"weight": call.own("weight"), "bias": call.own("bias")},
    )


def _linear_module(call: Call) -> Node:
    m = call.module
    attrs = {"in_channels": int(m.in_features), "out_channels": int(m.out_features)}
    params = {"weight": call.own("weight"), "bias": call.own("bias")}
    return call.add(g.DENSE, [call.operand(0, "input")], attrs, params)


def _batch_norm_module(call: Call) -> Node:
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


# --- pooling, resampling --------------------------------------------------------------------------


def _max_pool(call: Call, kernel: Any, stride: Any, padding: Any, dilation: Any, ceil: Any) -> Node:
    if _pair(dilation) != (1, 1):
        raise call.unsupported("dilated pooling")
    return call.add(
        g.MAXPOOL,
        [call.operand(0, "input")],
        {
            "kernel": _pair(kernel),
            "stride": _pair(stride if stride not in (None, [], ()) else kernel),
            "padding": _pair(padding),
            "ceil_mode": bool(ceil),
        },
    )


def _max_pool_module(call: Call) -> Node:
    m = call.module
    if m.return_indices:
        raise call.unsupported("it returns indices")
    return _max_pool(call, m.kernel_size, m.stride, m.padding, m.dilation, m.ceil_mode)


def _max_pool_function(call: Call) -> Node:
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
    if not include_pad and _pair(padding) != (0, 0):
        raise call.unsupported("average pooling that leaves the padding out of the count")
    return call.add(
        g.AVGPOOL,
        [call.operand(0, "input")],
        {
            "kernel": _pair(kernel),
            "stride": _pair(stride if stride not in (None, [], ()) else kernel),
            "padding": _pair(padding),
            "ceil_mode": bool(ceil),
            "factor": pool_factor(_pair(kernel), call.graph.release),
        },
    )


def _avg_pool_module(call: Call) -> Node:
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


def _avg_pool_function(call: Call) -> Node:
    return _avg_pool(
        call,
        call.arg(1, "kernel_size"),
        call.arg(2, "stride"),
        call.arg(3, "padding", 0),
        call.arg(4, "ceil_mode", False),
        call.arg(5, "count_include_pad", True),
        call.arg(6, "divisor_override"),
    )


def _adaptive_avg_pool(call: Call) -> Node:
    source = call.operand(0, "input")
    result, given = call.shape[2:], source.shape[2:]
    if given[0] % result[0] or given[1] % result[1]:
        raise call.unsupported(f"{given} does not divide into {result} equal windows")
    kernel = (given[0] // result[0], given[1] // result[1])
    factor = pool_factor(kernel, call.graph.release, several_pixels=tuple(result) != (1, 1))
    attrs = {"kernel": kernel, "size": tuple(result), "factor": factor}
    return call.add(g.ADAPTIVE_AVGPOOL, [source], attrs)


def _resize(call: Call, scale: Any, mode: str, align_corners: Any) -> Node:
    if mode not in ("nearest", "bilinear"):
        raise call.unsupported(f"interpolation {mode!r}")
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


def _upsample_module(call: Call) -> Node:
    m = call.module
    return _resize(call, m.scale_factor, m.mode, m.align_corners)


def _interpolate_function(call: Call) -> Node:
    return _resize(
        call,
        call.arg(2, "scale_factor"),
        call.arg(3, "mode", "nearest"),
        call.arg(4, "align_corners"),
    )


# --- element by element ---------------------------------------------------------------------------


def _unary(op: str) -> Builder:
    return lambda call: call.add(op, [call.operand(0, "input")])


def _binary(op: str) -> Builder:
    def build(call: Call) -> Node:
        if call.kwargs.get("alpha", 1) != 1:
            raise call.unsupported("its second operand has a factor")
        first, second = call.operand(0, "input"), call.operand(1, "other")
        if first.shape != second.shape:
            raise call.unsupported(f"operands of shapes {first.shape} and {second.shape}")
        return call.add(op, [first, second])

    return build


def _leaky_relu(call: Call) -> Node:
    slope = call.module.negative_slope if call.module else call.arg(1, "negative_slope", 0.01)
    if slope != LEAKY_SLOPE:
        call.graph.notes.append(
            f"{call.what}: the DPU's leaky slope {LEAKY_SLOPE} takes the place of {slope}"
        )
    return call.add(g.LEAKY_RELU, [call.operand(0, "input")])


def _softmax(call: Call) -> Node:
    axis = call.module.dim if call.module is not None else call.arg(1, "dim")
    if axis is None:
        raise call.unsupported("it names no dimension")
    return call.add(g.SOFTMAX, [call.operand(0, "input")], {"axis": axis % len(call.shape)})


# --- shape only -----------------------------------------------------------------------------------


def _concat(call: Call) -> Node:
    parts = call.arg(0, "tensors")
    if not isinstance(parts, (tuple, list)) or not all(isinstance(p, Node) for p in parts):
        raise call.unsupported("it joins something other than computed tensors")
    axis = call.arg(1, "dim", 0)
    return call.add(g.CONCAT, list(parts), {"axis": axis % len(call.shape)})


def _flatten(call: Call) -> Node:
    source = call.operand(0, "input")
    rank = len(source.shape)
    if call.module is not None:
        start, end = call.module.start_dim, call.module.end_dim
    else:
        start, end = call.arg(1, "start_dim", 0), call.arg(2, "end_dim", -1)
    return call.add(g.FLATTEN, [source], {"start": start % rank, "end": end % rank})


def _reshape(call: Call) -> Node:
    source = call.operand(0, "input")
    if call.shape == source.shape:
        return source
    if call.shape[0] != source.shape[0]:
        raise call.unsupported(f"it changes the batch, {source.shape} to {call.shape}")
    return call.add(g.RESHAPE, [source], {"shape": tuple(call.shape[1:])})


def _same(call: Call) -> Node:
    return call.operand(0, "input")


def _dropout(call: Call) -> Node:
    source = call.operand(0, "input")
    kept = call.graph.release.dropout_in_chains
    return call.add(g.DROPOUT, [source], {}) if kept else source


def _dropout_function(call: Call) -> Node:
    if call.arg(2, "training", True):
        raise call.unsupported("dropout that stays on in evaluation")
    return _dropout(call)


MODULES: Dict[type, Builder] = {
    nn.Conv2d: _conv_module,
    nn.ConvTranspose2d: _conv_transpose_module,
    nn.Linear: _linear_module,
    nn.BatchNorm2d: _batch_norm_module,
    nn.ReLU: _unary(g.RELU),
    nn.ReLU6: _unary(g.RELU6),
    nn.LeakyReLU: _leaky_relu,
    nn.Sigmoid: _unary(g.SIGMOID),
    nn.Tanh: _unary(g.TANH),
    nn.Hardsigmoid: _unary(g.HARDSIGMOID),
    nn.Hardswish: _unary(g.HARDSWISH),
    nn.Softmax: _softmax,
    nn.MaxPool2d: _max_pool_module,
    nn.AvgPool2d: _avg_pool_module,
    nn.AdaptiveAvgPool2d: _adaptive_avg_pool,
    nn.Upsample: _upsample_module,
    nn.UpsamplingNearest2d: _upsample_module,
    nn.UpsamplingBilinear2d: _upsample_module,
    nn.Flatten: _flatten,
    nn.Dropout: _dropout,
    nn.Dropout2d: _dropout,
    nn.Identity: _same,
}

FUNCTIONS: Dict[Any, Builder] = {
    F.conv2d: _conv_function,
    torch.conv2d: _conv_function,
    F.relu: _unary(g.RELU),
    F.relu_: _unary(g.RELU),
    torch.relu: _unary(g.RELU),
    torch.relu_: _unary(g.RELU),
    F.relu6: _unary(g.RELU6),
    F.leaky_relu: _leaky_relu,
    F.sigmoid: _unary(g.SIGMOID),
    torch.sigmoid: _unary(g.SIGMOID),
    F.tanh: _unary(g.TANH),
    torch.tanh: _unary(g.TANH),
    F.hardsigmoid: _unary(g.HARDSIGMOID),
    F.hardswish: _unary(g.HARDSWISH),
    F.softmax: _softmax,
    torch.softmax: _softmax,
    F.max_pool2d: _max_pool_function,
    torch.max_pool2d: _max_pool_function,
    F.avg_pool2d: _avg_pool_function,
    F.adaptive_avg_pool2d: _adaptive_avg_pool,
    F.interpolate: _interpolate_function,
    torch.cat: _concat,
    operator.add: _binary(g.ADD),
    operator.iadd: _binary(g.ADD),
    torch.add: _binary(g.ADD),
    operator.sub: _binary(g.SUB),
    torch.sub: _binary(g.SUB),
    operator.mul: _binary(g.MUL),
    operator.imul: _binary(g.MUL),
    torch.mul: _binary(g.MUL),
    torch.flatten: _flatten,
    torch.reshape: _reshape,
    F.dropout: _dropout_function,
}

METHODS: Dict[str, Builder] = {
    "relu": _unary(g.RELU),
    "relu_": _unary(g.RELU),
    "sigmoid": _unary(g.SIGMOID),
    "sigmoid_": _unary(g.SIGMOID),
    "tanh": _unary(g.TANH),
    "softmax": _softmax,
    "add": _binary(g.ADD),
    "add_": _binary(g.ADD),
    "sub": _binary(g.SUB),
    "mul": _binary(g.MUL),
    "mul_": _binary(g.MUL),
    "flatten": _flatten,
    "view": _reshape,
    "reshape": _reshape,
    "contiguous": _same,
}
