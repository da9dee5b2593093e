"""The table of PyTorch modules, functions and tensor methods the quantizer understands.

An operator is one entry: what is called (a module class, a function or a method name) and a
function that turns the call into a node. Attributes of nodes are plain Python values, spatial ones
``(height, width)``.

Importing this module imports torch.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any, Callable, Dict, Iterator, List, Optional, Sequence, Tuple, Union

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import UnsupportedError
from . import graph as g
from .factors import LEAKY_SLOPE, division_factor, pool_factor
from .graph import Node, QuantizerGraph


@dataclass(frozen=True)
class Parameter:
    """A parameter or buffer of the model, by its name in the state dict."""

    name: str
    value: Tensor


class Size(int):
    """A whole number computed from shapes, with the nodes that read them.

    Attributes:
        sources: the shape nodes.
    """

    sources: Tuple[Node, ...]

    def __new__(cls, value: int, sources: Tuple[Node, ...]) -> Size:
        """``value``, read by ``sources``."""
        made = super().__new__(cls, value)
        made.sources = sources
        return made


def mapped(value: Any, change: Callable[[Any], Any]) -> Any:
    """``value`` with everything in its tuples, lists, dicts and slices changed."""
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(mapped(v, change) for v in value))
    if isinstance(value, tuple):
        return tuple(mapped(v, change) for v in value)
    if isinstance(value, list):
        return [mapped(v, change) for v in value]
    if isinstance(value, dict):
        return {k: mapped(v, change) for k, v in value.items()}
    if isinstance(value, slice):
        parts = (value.start, value.stop, value.step)
        return slice(*(mapped(v, change) for v in parts))
    return change(value)


def parts_of(value: Any) -> Iterator[Any]:
    """Everything in the tuples, lists, dicts and slices of ``value``."""
    found: List[Any] = []
    mapped(value, found.append)
    return iter(found)


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
        shapes: of the results, for calls that give several.
        is_float: whether the result holds float numbers.
        compute: the call itself, on tensors in place of nodes.
        kind: the operator's name in PyTorch's own vocabulary, e.g. ``aten::silu``.
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
    shapes: Sequence[Tuple[int, ...]] = ()
    is_float: bool = True
    compute: Optional[Callable[..., Any]] = None
    kind: Optional[Callable[[], str]] = None

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

    def tensor(self, position: int, name: str) -> Node:
        """Same, where a number or a parameter will do too; it becomes a constant."""
        value = self.arg(position, name)
        return value if isinstance(value, Node) else self.constant(value, name)

    def constant(self, value: Any, name: str = "operand") -> Node:
        """A node that gives a number or a parameter."""
        if isinstance(value, Parameter):
            held = value.value
            if held.dtype != torch.float32:
                raise self.unsupported(f"{value.name} is {held.dtype}, not float32")
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            held = torch.tensor(float(value))
        else:
            raise self.unsupported(f"operand {name!r} is {_short(value)}, not a computed tensor")
        array = held.detach().cpu().numpy().copy()
        node = Node(g.CONST, "const", [], tuple(held.shape), {"value": array})
        self.graph.nodes.append(node)
        return node

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
        known = {id(node) for node in inputs}
        sizes = [n for v in parts_of([self.args, self.kwargs]) for n in getattr(v, "sources", ())]
        sizes = [n for n in dict.fromkeys(sizes) if id(n) not in known]
        node = Node(op, self.scope, [*inputs, *sizes], self.shape, dict(attrs or {}))
        node.is_float = self.is_float
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
            key = f"{key}{COPY}{len(self.graph.nodes)}"
        self.graph.params[key] = value.detach().cpu().numpy().copy()
        return key

    def custom(self) -> Node:
        """A node for an operator the vendor's quantizer does not know: it runs in float."""
        if self.kind is None or self.compute is None or self.shapes:
            raise self.unsupported("it is not in its table of operators")
        kind, compute = self.kind(), self.compute
        given = (list(self.args), self.kwargs)
        inputs = list(dict.fromkeys(v for v in parts_of(given) if isinstance(v, Node)))
        plain = mapped(given, lambda v: v.value if isinstance(v, Parameter) else v)

        def call(operands: Sequence[Tensor]) -> Tensor:
            table = dict(zip(inputs, operands))
            args, kwargs = mapped(plain, lambda v: table[v].clone() if isinstance(v, Node) else v)
            result: Tensor = compute(*args, **kwargs)
            return result

        self.graph.notes.append(
            f"{self.what} in {self.scope}: {kind} is no operator of the DPU and stays float; the "
            "compiled model is cut there and this part runs on the processor"
        )
        return self.add(kind, inputs, {"call": call})

    def unsupported(self, reason: str) -> UnsupportedError:
        """The error for this call."""
        seen = f"{self.what} in {self.scope}" + (f", called at {self.where}" if self.where else "")
        return UnsupportedError(
            f"The quantizer cannot treat {self.what}: {reason}",
            seen,
            "replace the operator in the model's forward, or leave it to the code around the model",
        )


COPY = ".copy "
"""Stands in the key of a parameter used again, until the number of its node is known."""

Builder = Callable[[Call], Any]
"""Makes the node of a call, or a tuple of nodes for a call with several results."""

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
        raise call.unsupported(f"padding mode {m.padding_mode!r}, use a padding layer before it")
    weight = call.own("weight")
    assert weight is not None  # a convolution always has weights
    return _convolution(call, weight, call.own("bias"), m.stride, m.padding, m.dilation, m.groups)


def _conv_function(call: Call) -> Node:
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
            "stride": _pair(stride),
            "padding": _pair(padding),
            "output_padding": _pair(output_padding),
            "dilation": _pair(dilation),
            "groups": int(groups),
            "in_channels": inputs,
            "out_channels": outputs,
        },
        {"weight": weight, "bias": bias},
    )


def _conv_transpose_module(call: Call) -> Node:
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


def _conv_transpose_function(call: Call) -> Node:
    return _conv_transpose(
        call,
        *_given_weights(call),
        call.arg(3, "stride", 1),
        call.arg(4, "padding", 0),
        call.arg(5, "output_padding", 0),
        call.arg(6, "groups", 1),
        call.arg(7, "dilation", 1),
    )


def _linear_function(call: Call) -> Node:
    weight, bias = _given_weights(call)
    outputs, inputs = weight.value.shape
    attrs = {"in_channels": int(inputs), "out_channels": int(outputs)}
    return call.add(g.DENSE, [call.operand(0, "input")], attrs, {"weight": weight, "bias": bias})


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
    return call.add(
        g.AVGPOOL,
        [call.operand(0, "input")],
        {
            "kernel": _pair(kernel),
            "stride": _pair(stride if stride not in (None, [], ()) else kernel),
            "padding": _pair(padding),
            "ceil_mode": bool(ceil),
            "include_pad": bool(include_pad),
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
        return _adaptive_avg_pool(call)
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
        first, second = call.arg(0, "input"), call.arg(1, "other")
        alpha = call.kwargs.get("alpha", 1)
        if call.kwargs.get("rounding_mode") is not None or not call.is_float:
            return call.custom()
        kind = op
        if isinstance(first, (int, float)):
            if op == g.DIV:
                raise call.unsupported("a number is divided by a tensor")
            kind, first, second = (g.RSUB if op == g.SUB else op), second, first
        nodes = [v if isinstance(v, Node) else call.constant(v) for v in (first, second)]
        return call.add(kind, nodes, {} if alpha == 1 else {"alpha": float(alpha)})

    return build


def _larger_or_smaller(op: str) -> Builder:
    """Element by element only; over a dimension it is another operator."""

    def build(call: Call) -> Node:
        if len(call.args) == 2 and all(isinstance(a, Node) for a in call.args):
            return call.add(op, list(call.args))
        return call.custom()

    return build


def _mean(call: Call) -> Node:
    dims, keep = call.arg(1, "dim"), bool(call.arg(2, "keepdim", False))
    if call.graph.release.recent_torch or dims is None:
        return call.custom()
    source = call.operand(0, "input")
    rank = len(source.shape)
    axes = sorted(d % rank for d in (dims if isinstance(dims, (tuple, list)) else [dims]))
    count = 1
    for axis in axes:
        count *= source.shape[axis]
    attrs = {"axes": tuple(axes), "keep": keep, "factor": division_factor(count)}
    return call.add(g.MEAN, [source], attrs)


def _hardtanh(call: Call) -> Node:
    if call.module is not None:
        low, high = call.module.min_val, call.module.max_val
    else:
        low, high = call.arg(1, "min_val", -1.0), call.arg(2, "max_val", 1.0)
    source = call.operand(0, "input")
    if (low, high) == (0, 6):
        return call.add(g.RELU6, [source])
    return call.add(g.HARDTANH, [source], {"low": float(low), "high": float(high)})


def _prelu(call: Call) -> Node:
    weight = call.own("weight") if call.module is not None else call.arg(1, "weight")
    if not isinstance(weight, Parameter):
        raise call.unsupported("its slopes are computed, not parameters of the model")
    return call.add(g.PRELU, [call.operand(0, "input")], {}, {"weight": weight})


def _gelu(call: Call) -> Node:
    if call.module is not None:
        how = getattr(call.module, "approximate", "none")
    else:
        how = call.arg(1, "approximate", "none")
    return call.add(g.GELU, [call.operand(0, "input")], {"approximate": how})


def _matmul(call: Call) -> Node:
    return call.add(g.MATMUL, [call.tensor(0, "input"), call.tensor(1, "other")])


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
    if not isinstance(parts, (tuple, list)):
        raise call.unsupported("it joins something other than computed tensors")
    axis = call.arg(1, "dim", call.kwargs.get("axis", 0))
    nodes = [part if isinstance(part, Node) else call.constant(part) for part in parts]
    return call.add(g.CONCAT, nodes, {"axis": axis % len(call.shape)})


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


_FRESH = frozenset({g.EXPAND, g.REPEAT})
"""Moving operators whose result may get a fix position of its own, so it must not be a view."""


def _moved(op: str) -> Builder:
    """An operator that only moves values; it is run as the model has it."""

    def build(call: Call) -> Node:
        source, compute = call.operand(0, "input"), call.compute
        if compute is None:
            raise call.unsupported("it is not in its table of operators")
        run, args, kwargs = compute, tuple(call.args[1:]), dict(call.kwargs)

        def move(operands: Sequence[Tensor]) -> Tensor:
            moved: Tensor = run(operands[0], *args, **kwargs)
            return moved.clone() if op in _FRESH else moved

        return call.add(op, [source], {"call": move})

    return build


def _permute(call: Call) -> Node:
    source = call.operand(0, "input")
    given = call.arg(1, "dims")
    dims = given if isinstance(given, (tuple, list)) else call.args[1:]
    order = tuple(int(d) % len(source.shape) for d in dims)
    return call.add(g.PERMUTE, [source], {"order": order})


def _transpose(call: Call) -> Node:
    source = call.operand(0, "input")
    rank = len(source.shape)
    names = ("dim0", "dim1") if "dim0" in call.kwargs else ("axis0", "axis1")
    first, second = (int(call.arg(i + 1, names[i])) % rank for i in range(2))
    order = list(range(rank))
    order[first], order[second] = second, first
    return call.add(g.TRANSPOSE, [source], {"order": tuple(order)})


def _pad(call: Call) -> Node:
    m = call.module
    given = m.padding if m is not None else call.arg(1, "pad")
    mode = call.arg(2, "mode", "constant") if m is None else _PAD_MODES.get(type(m), "constant")
    value = getattr(m, "value", 0) if m is not None else call.arg(3, "value")
    source = call.operand(0, "input")
    padding = tuple(int(p) for p in ([given] * 4 if isinstance(given, int) else given))
    attrs = {"padding": padding, "mode": mode, "value": float(value or 0)}
    return call.add(g.PAD_ND if call.graph.release.recent_torch else g.PAD, [source], attrs)


_PAD_MODES = {nn.ReflectionPad2d: "reflect", nn.ReplicationPad2d: "replicate"}


def _chunk(call: Call) -> Any:
    source = call.operand(0, "input")
    axis = int(call.arg(2, "dim", 0)) % len(source.shape)
    return _results(call, source, g.CHUNK, axis, [shape[axis] for shape in call.shapes])


def _results(call: Call, source: Node, op: str, axis: int, sizes: List[int]) -> Any:
    made: List[Node] = []
    start = 0
    for size, shape in zip(sizes, call.shapes):
        call.shape = shape
        node = call.add(op, [source], {"axis": axis, "start": start, "length": size})
        node.twin = made[0] if made else None
        made.append(node)
        start += size
    return tuple(made)


def _item(call: Call) -> Node:
    """Indexing of a tensor by numbers, ranges and ``...``."""
    source, given = call.operand(0, "input"), call.args[1]
    keys = list(given) if isinstance(given, tuple) else [given]
    if not all(isinstance(k, (int, slice)) or k is Ellipsis for k in keys):
        return call.custom()
    if Ellipsis in keys:
        at = keys.index(Ellipsis)
        keys[at : at + 1] = [slice(None)] * (len(source.shape) - len(keys) + 1)
    ranges = []
    for key, size in zip(keys, source.shape):
        if not isinstance(key, slice):
            return call.custom()
        start, stop, step = key.indices(size)
        ranges.append((start, stop, step))
    while len(ranges) < len(source.shape):
        ranges.append((0, source.shape[len(ranges)], 1))
    if ranges[0] != (0, source.shape[0], 1):
        return call.custom()
    return call.add(g.STRIDED_SLICE, [source], {"ranges": tuple(ranges)})


def _expand_as(call: Call) -> Node:
    nodes = [call.operand(0, "input"), call.operand(1, "other")]
    return call.add(g.EXPAND_AS, nodes)


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


def _not_here(call: Call) -> Node:
    """An operator that the vendor quantizes by rules that are not in this package."""
    raise call.unsupported("the vendor's quantizer has rules for it that are not known here")


MODULES: Dict[type, Builder] = {
    nn.Conv2d: _conv_module,
    nn.ConvTranspose2d: _conv_transpose_module,
    nn.Linear: _linear_module,
    nn.BatchNorm1d: _batch_norm_module,
    nn.BatchNorm2d: _batch_norm_module,
    nn.ReLU: _unary(g.RELU),
    nn.ReLU6: _unary(g.RELU6),
    nn.LeakyReLU: _leaky_relu,
    nn.Hardtanh: _hardtanh,
    nn.PReLU: _prelu,
    nn.GELU: _gelu,
    nn.Mish: _unary(g.MISH),
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
    nn.Unflatten: _reshape,
    nn.PixelShuffle: _moved(g.PIXEL_SHUFFLE),
    nn.ZeroPad2d: _pad,
    nn.ConstantPad2d: _pad,
    nn.ReflectionPad2d: _pad,
    nn.ReplicationPad2d: _pad,
    nn.Conv1d: _not_here,
    nn.Conv3d: _not_here,
    nn.ConvTranspose1d: _not_here,
    nn.ConvTranspose3d: _not_here,
    nn.MaxPool1d: _not_here,
    nn.LayerNorm: _not_here,
    nn.GroupNorm: _not_here,
    nn.InstanceNorm1d: _not_here,
    nn.InstanceNorm2d: _not_here,
    nn.InstanceNorm3d: _not_here,
    nn.BatchNorm3d: _not_here,
}

FUNCTIONS: Dict[Any, Builder] = {
    F.conv1d: _not_here,
    F.conv3d: _not_here,
    F.conv_transpose1d: _not_here,
    F.conv_transpose3d: _not_here,
    F.max_pool1d: _not_here,
    F.layer_norm: _not_here,
    F.group_norm: _not_here,
    F.instance_norm: _not_here,
    torch.sqrt: _not_here,
    F.conv2d: _conv_function,
    torch.conv2d: _conv_function,
    F.conv_transpose2d: _conv_transpose_function,
    torch.conv_transpose2d: _conv_transpose_function,
    F.linear: _linear_function,
    F.pad: _pad,
    F.hardtanh: _hardtanh,
    F.hardtanh_: _hardtanh,
    F.prelu: _prelu,
    torch.prelu: _prelu,
    F.gelu: _gelu,
    F.mish: _unary(g.MISH),
    torch.exp: _unary(g.EXP),
    torch.matmul: _matmul,
    operator.matmul: _matmul,
    torch.mean: _mean,
    torch.max: _larger_or_smaller(g.MAX),
    torch.min: _larger_or_smaller(g.MIN),
    operator.getitem: _item,
    F.pixel_shuffle: _moved(g.PIXEL_SHUFFLE),
    torch.pixel_shuffle: _moved(g.PIXEL_SHUFFLE),
    torch.squeeze: _moved(g.SQUEEZE),
    torch.unsqueeze: _moved(g.UNSQUEEZE),
    torch.permute: _permute,
    torch.transpose: _transpose,
    torch.chunk: _chunk,
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
    torch.concat: _concat,
    operator.add: _binary(g.ADD),
    operator.iadd: _binary(g.ADD),
    torch.add: _binary(g.ADD),
    operator.sub: _binary(g.SUB),
    operator.isub: _binary(g.SUB),
    operator.truediv: _binary(g.DIV),
    operator.itruediv: _binary(g.DIV),
    torch.div: _binary(g.DIV),
    torch.true_divide: _binary(g.DIV),
    torch.multiply: _binary(g.MUL),
    torch.subtract: _binary(g.SUB),
    torch.sub: _binary(g.SUB),
    operator.mul: _binary(g.MUL),
    operator.imul: _binary(g.MUL),
    torch.mul: _binary(g.MUL),
    torch.flatten: _flatten,
    torch.reshape: _reshape,
    F.dropout: _dropout_function,
}

METHODS: Dict[str, Builder] = {
    "sqrt": _not_here,
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
    "sub_": _binary(g.SUB),
    "div": _binary(g.DIV),
    "div_": _binary(g.DIV),
    "mean": _mean,
    "max": _larger_or_smaller(g.MAX),
    "min": _larger_or_smaller(g.MIN),
    "matmul": _matmul,
    "exp": _unary(g.EXP),
    "tanh_": _unary(g.TANH),
    "squeeze": _moved(g.SQUEEZE),
    "unsqueeze": _moved(g.UNSQUEEZE),
    "expand": _moved(g.EXPAND),
    "expand_as": _expand_as,
    "repeat": _moved(g.REPEAT),
    "permute": _permute,
    "transpose": _transpose,
    "chunk": _chunk,
    "contiguous": _moved(g.CONTIGUOUS),
    "detach": _same,
    "float": _same,
}
