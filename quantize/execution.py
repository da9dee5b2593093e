"""Float arithmetic of every operator, and running a whole graph with it.

These are the computations of the vendor's quantized model (rule 8): ordinary float32 operators on
operands that lie on power-of-two grids. What happens to a result (searched, quantized, recorded)
is the caller's, given as a function.

Importing this module imports torch.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, Mapping, Optional, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from . import graph as g
from .factors import HARD_SIXTH, HARDSWISH_POSITION, LEAKY_SLOPE
from .fixpoint import Rounding, quantize
from .graph import Node, QuantizerGraph

Params = Mapping[str, Optional[Tensor]]
"""Role (``weight``, ``bias``) to tensor in PyTorch's layout."""

Finish = Callable[[Node, Tensor, Sequence[Tensor]], Tensor]
"""Takes a node, its raw result and its operands; returns the tensor its readers see."""


def run(
    graph: QuantizerGraph,
    inputs: Sequence[Tensor],
    params_of: Callable[[Node], Params],
    finish: Finish,
) -> Dict[Node, Tensor]:
    """Executes ``graph`` in order; tensors are freed after their last reader.

    Args:
        graph: numbered graph.
        inputs: one float32 tensor per network input, batch first; not changed.
        params_of: the parameters of a node that has some.
        finish: called once per node with its raw result. A result of an operator other than an
            input or a reshaping one is fresh memory that may be overwritten.

    Returns:
        The finished tensors of the output nodes.
    """
    kept = set(graph.output_nodes)
    remaining = {node: len(readers) for node, readers in graph.consumers().items()}
    values: Dict[Node, Tensor] = {}
    for node, tensor in zip(graph.inputs, inputs):
        values[node] = finish(node, tensor.contiguous(), ())
    for node in graph.nodes:
        if node.op != g.INPUT:
            operands = [values[source] for source in node.inputs]
            raw = compute(node, operands, params_of(node) if node.params else {})
            values[node] = finish(node, raw, operands)
            for source in dict.fromkeys(node.inputs):
                remaining[source] -= 1
                if not remaining[source] and source not in kept:
                    del values[source]
    return {node: values[node] for node in kept}


def compute(node: Node, operands: Sequence[Tensor], params: Params) -> Tensor:
    """The raw result of one operator."""
    if "call" in node.attrs:
        result: Tensor = node.attrs["call"](operands)
        return result
    return _ARITHMETIC[node.op](node.attrs, operands, params)


def reference(node: Node, operands: Sequence[Tensor], params: Params) -> Tensor:
    """What a weighted operator would give with ``params``, as bias correction computes it."""
    if node.op != g.DENSE:
        return compute(node, operands, params)
    weight, bias = params["weight"], params["bias"]
    assert weight is not None  # a linear layer always has weights
    product = torch.matmul(operands[0], weight.t())
    return product if bias is None else product + bias


def _conv2d(a: Dict[str, Any], x: Sequence[Tensor], p: Params) -> Tensor:
    return F.conv2d(
        x[0], _given(p["weight"]), p.get("bias"), a["stride"], a["padding"], a["dilation"],
        a["groups"],
    )  # fmt: skip


def _conv_transpose2d(a: Dict[str, Any], x: Sequence[Tensor], p: Params) -> Tensor:
    return F.conv_transpose2d(
        x[0], _given(p["weight"]), p.get("bias"), a["stride"], a["padding"], a["output_padding"],
        a["groups"], a["dilation"],
    )  # fmt: skip


def _dense(_: Dict[str, Any], x: Sequence[Tensor], p: Params) -> Tensor:
    return F.linear(x[0], _given(p["weight"]), p.get("bias"))


def _batch_norm(_: Dict[str, Any], x: Sequence[Tensor], p: Params) -> Tensor:
    weight = _given(p["weight"])
    zero, one = torch.zeros_like(weight), torch.ones_like(weight)
    return F.batch_norm(x[0], zero, one, weight, p["bias"], False, 0.0, 0.0)


def _max_pool(a: Dict[str, Any], x: Sequence[Tensor], _: Params) -> Tensor:
    return F.max_pool2d(x[0], a["kernel"], a["stride"], a["padding"], ceil_mode=a["ceil_mode"])


def _avg_pool(a: Dict[str, Any], x: Sequence[Tensor], _: Params) -> Tensor:
    y = F.avg_pool2d(
        x[0], a["kernel"], a["stride"], a["padding"], a["ceil_mode"], a.get("include_pad", True)
    )
    return y * float(a["factor"])


def _adaptive_avg_pool(a: Dict[str, Any], x: Sequence[Tensor], _: Params) -> Tensor:
    y = F.adaptive_avg_pool2d(x[0], a["size"])
    return y if a.get("uneven") else y * float(a["factor"])


def _mean(a: Dict[str, Any], x: Sequence[Tensor], _: Params) -> Tensor:
    return torch.mean(x[0], a["axes"], a["keep"]) * float(a["factor"])


def _add(a: Dict[str, Any], x: Sequence[Tensor], _: Params) -> Tensor:
    return torch.add(x[0], x[1], alpha=a.get("alpha", 1))


def _sub(a: Dict[str, Any], x: Sequence[Tensor], _: Params) -> Tensor:
    return torch.sub(x[0], x[1], alpha=a.get("alpha", 1))


def _rsub(a: Dict[str, Any], x: Sequence[Tensor], _: Params) -> Tensor:
    return torch.sub(x[1], x[0], alpha=a.get("alpha", 1))


def _pad(a: Dict[str, Any], x: Sequence[Tensor], _: Params) -> Tensor:
    if a["mode"] != "constant":
        return F.pad(x[0], a["padding"], a["mode"])
    return F.pad(x[0], a["padding"], "constant", a["value"])


def _slice(a: Dict[str, Any], x: Sequence[Tensor], _: Params) -> Tensor:
    # The batch is taken whole, whatever its size.
    taken = [slice(None)] + [slice(*limits) for limits in a["ranges"][1:]]
    return x[0][tuple(taken)]


def _gelu(a: Dict[str, Any], x: Sequence[Tensor], _: Params) -> Tensor:
    if a["approximate"] == "none":
        return F.gelu(x[0])
    return F.gelu(x[0], approximate=a["approximate"])


def _resize(a: Dict[str, Any], x: Sequence[Tensor], _: Params) -> Tensor:
    corners = a["align_corners"] if a["mode"] == "bilinear" else None
    if a["by_scale"]:
        return F.interpolate(
            x[0], scale_factor=list(a["scale"]), mode=a["mode"], align_corners=corners
        )
    return F.interpolate(x[0], size=a["size"], mode=a["mode"], align_corners=corners)


def _hardsigmoid(_: Dict[str, Any], x: Sequence[Tensor], __: Params) -> Tensor:
    return F.relu6(x[0] + 3.0) * HARD_SIXTH


def _hardswish(_: Dict[str, Any], x: Sequence[Tensor], __: Params) -> Tensor:
    gate = F.relu6(x[0] + 3.0) * HARD_SIXTH
    return x[0] * quantize(gate, HARDSWISH_POSITION, Rounding.HALF_UP)


def _flatten(a: Dict[str, Any], x: Sequence[Tensor], _: Params) -> Tensor:
    return torch.flatten(x[0], a["start"], a["end"])


def _reshape(a: Dict[str, Any], x: Sequence[Tensor], _: Params) -> Tensor:
    return x[0].reshape((x[0].shape[0],) + a["shape"])


def _given(tensor: Optional[Tensor]) -> Tensor:
    assert tensor is not None  # the tracer gives every weighted node its weight
    return tensor


_ARITHMETIC: Dict[str, Callable[[Dict[str, Any], Sequence[Tensor], Params], Tensor]] = {
    g.CONV2D: _conv2d,
    g.DEPTHWISE_CONV2D: _conv2d,
    g.CONV_TRANSPOSE2D: _conv_transpose2d,
    g.DEPTHWISE_CONV_TRANSPOSE2D: _conv_transpose2d,
    g.DENSE: _dense,
    g.BATCH_NORM: _batch_norm,
    g.RELU: lambda a, x, p: F.relu(x[0]),
    g.RELU6: lambda a, x, p: F.relu6(x[0]),
    g.LEAKY_RELU: lambda a, x, p: F.leaky_relu(x[0], LEAKY_SLOPE),
    g.SIGMOID: lambda a, x, p: torch.sigmoid(x[0]),
    g.TANH: lambda a, x, p: torch.tanh(x[0]),
    g.HARDSIGMOID: _hardsigmoid,
    g.HARDSWISH: _hardswish,
    g.SOFTMAX: lambda a, x, p: torch.softmax(x[0], a["axis"]),
    g.MAXPOOL: _max_pool,
    g.AVGPOOL: _avg_pool,
    g.ADAPTIVE_AVGPOOL: _adaptive_avg_pool,
    g.ADD: _add,
    g.SUB: _sub,
    g.RSUB: _rsub,
    g.DIV: lambda a, x, p: x[0] / x[1],
    g.MAX: lambda a, x, p: torch.max(x[0], x[1]),
    g.MIN: lambda a, x, p: torch.min(x[0], x[1]),
    g.MATMUL: lambda a, x, p: torch.matmul(x[0], x[1]),
    g.MEAN: _mean,
    g.PAD: _pad,
    g.PAD_ND: _pad,
    g.PRELU: lambda a, x, p: F.prelu(x[0], _given(p["weight"])),
    g.GELU: _gelu,
    g.MISH: lambda a, x, p: F.mish(x[0]),
    g.HARDTANH: lambda a, x, p: F.hardtanh(x[0], a["low"], a["high"]),
    g.EXP: lambda a, x, p: torch.exp(x[0]),
    g.PERMUTE: lambda a, x, p: x[0].permute(a["order"]),
    g.TRANSPOSE: lambda a, x, p: x[0].permute(a["order"]).clone(),
    g.STRIDED_SLICE: _slice,
    g.CHUNK: lambda a, x, p: x[0].narrow(a["axis"], a["start"], a["length"]),
    g.EXPAND_AS: lambda a, x, p: x[0].expand_as(x[1]).clone(),
    g.CONST: lambda a, x, p: torch.tensor(a["value"]),
    g.SHAPE: lambda a, x, p: torch.tensor(x[0].shape[a["dim"]]),
    g.DROPOUT: lambda a, x, p: x[0],
    g.MUL: lambda a, x, p: x[0] * x[1],
    g.CONCAT: lambda a, x, p: torch.cat(list(x), a["axis"]),
    g.RESIZE: _resize,
    g.FLATTEN: _flatten,
    g.RESHAPE: _reshape,
}


def tensors_of(node: Node, table: Mapping[str, Tensor]) -> Params:
    """The parameters of ``node`` looked up by key; an absent bias is ``None``."""
    found: Dict[str, Optional[Tensor]] = {"bias": None}
    found.update({role: table[key] for role, key in node.params.items()})
    return found


def float_tensors(graph: QuantizerGraph) -> Dict[str, Tensor]:
    """Every float parameter of ``graph`` as a torch tensor sharing its memory."""
    return {key: torch.from_numpy(value) for key, value in graph.params.items()}
