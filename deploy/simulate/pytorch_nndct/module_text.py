"""The generated module ``<Name>.py``: the quantizer's graph as a PyTorch module of its own.

Every operator is one submodule ``module_<n>`` where it has parameters, and one line of the forward;
the file needs nothing but PyTorch and computes in float.
"""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any, Callable, Dict, List

import torch
from torch import nn

from ....files import write_text
from ....quantize import graph as g
from ....quantize.factors import HARD_SIXTH, LEAKY_SLOPE
from ....quantize.graph import Node, QuantizerGraph

_HEADER = """# GENERATED in the place of NNDCT's file by deepfake-fpga, DO NOT EDIT!

import torch
import torch.nn.functional as F
"""


def write_module(graph: QuantizerGraph, path: Path) -> None:
    """Writes the module of ``graph``."""
    write_text(path, module_text(graph))


def load_module(graph: QuantizerGraph, path: Path) -> nn.Module:
    """The module in ``path`` with the folded (and equalized) parameters of ``graph``."""
    module: nn.Module = runpy.run_path(str(path))[graph.name]()
    state = {
        f"module_{node.index}.{role}": torch.from_numpy(graph.params[key].copy())
        for node in graph.nodes
        for role, key in node.params.items()
    }
    module.load_state_dict(state, strict=False)
    return module.eval()


def module_text(graph: QuantizerGraph) -> str:
    """The text of the file."""
    lines = [_HEADER, "", f"class {graph.name}(torch.nn.Module):", "    def __init__(self):"]
    lines.append(f"        super({graph.name}, self).__init__()")
    body: List[str] = []
    variables: Dict[Node, str] = {}
    counts: Dict[int, int] = {}
    for number, node in enumerate(graph.inputs):
        variables[node] = f"args[{number}]"
    for node in graph.nodes:
        names = f"#{graph.debug_name(node)}({graph.node_name(node)})"
        made = _MODULES[node.op](node) if node.op in _MODULES else "torch.nn.Identity()"
        if node.twin is None:
            lines.append(f"        self.module_{node.index} = {made} {names}")
        module = f"self.module_{node.index}"
        operands = [variables[source] for source in node.inputs]
        counts[node.index] = counts.get(node.index, -1) + 1
        twin = f"_{counts[node.index]}" if counts[node.index] else ""
        variable = f"output_module_{node.index}{twin}"
        if node.op == g.INPUT:
            call = f"{module}({variables[node]})"
        elif node.op in _MODULES:
            call = f"{module}({', '.join(operands)})"
        elif node.op in _CALLS and "call" not in node.attrs:
            call = _CALLS[node.op](node, operands)
        else:
            call = f"self._not_generated({node.op!r})"
        body.append(f"        {variable} = {call}")
        variables[node] = variable
    lines += ["", "    def forward(self, *args):", *body]
    lines.append(f"        return {_structure(graph.outputs, variables)}")
    lines += ["", "    def _not_generated(self, kind):", "        raise NotImplementedError(kind)"]
    return "\n".join(lines) + "\n"


def _structure(value: Any, variables: Dict[Node, str]) -> str:
    if isinstance(value, Node):
        return variables[value]
    if isinstance(value, (tuple, list)):
        inner = ", ".join(_structure(item, variables) for item in value)
        if isinstance(value, list):
            return f"[{inner}]"
        return f"({inner},)" if len(value) == 1 else f"({inner})"
    if isinstance(value, dict):
        pairs = (f"{key!r}: {_structure(item, variables)}" for key, item in value.items())
        return "{" + ", ".join(pairs) + "}"
    return repr(value)


def _convolution(kind: str, extra: str = "") -> Callable[[Node], str]:
    def make(node: Node) -> str:
        a = node.attrs
        names = ["in_channels", "out_channels", "kernel_size", "stride", "padding"]
        values = [a["in_channels"], a["out_channels"], a["kernel"], a["stride"], a["padding"]]
        if extra:
            names.append(extra)
            values.append(a[extra])
        names += ["groups", "dilation", "bias"]
        values += [a["groups"], a["dilation"], "bias" in node.params]
        given = ", ".join(f"{name}={_plain(value)}" for name, value in zip(names, values))
        return f"torch.nn.{kind}({given})"

    return make


def _plain(value: Any) -> str:
    return repr(list(value) if isinstance(value, tuple) else value)


def _dense(node: Node) -> str:
    columns, rows = node.inputs[0].shape[-1], node.shape[-1]
    bias = "bias" in node.params
    return f"torch.nn.Linear(in_features={columns}, out_features={rows}, bias={bias})"


def _batch_norm(node: Node) -> str:
    return f"torch.nn.BatchNorm{len(node.shape) - 2 or 1}d({node.shape[1]}, eps=0.0)"


_MODULES: Dict[str, Callable[[Node], str]] = {
    g.CONV2D: _convolution("Conv2d"),
    g.DEPTHWISE_CONV2D: _convolution("Conv2d"),
    g.CONV_TRANSPOSE2D: _convolution("ConvTranspose2d", "output_padding"),
    g.DEPTHWISE_CONV_TRANSPOSE2D: _convolution("ConvTranspose2d", "output_padding"),
    g.DENSE: _dense,
    g.BATCH_NORM: _batch_norm,
    g.RELU: lambda n: "torch.nn.ReLU()",
    g.RELU6: lambda n: "torch.nn.ReLU6()",
    g.LEAKY_RELU: lambda n: f"torch.nn.LeakyReLU({LEAKY_SLOPE})",
    g.SIGMOID: lambda n: "torch.nn.Sigmoid()",
    g.TANH: lambda n: "torch.nn.Tanh()",
    g.SOFTMAX: lambda n: f"torch.nn.Softmax(dim={n.attrs['axis']})",
    g.MAXPOOL: lambda n: (
        f"torch.nn.MaxPool2d(kernel_size={_plain(n.attrs['kernel'])}, "
        f"stride={_plain(n.attrs['stride'])}, padding={_plain(n.attrs['padding'])}, "
        f"ceil_mode={n.attrs['ceil_mode']})"
    ),
    g.FLATTEN: lambda n: f"torch.nn.Flatten({n.attrs['start']}, {n.attrs['end']})",
}

_Call = Callable[[Node, List[str]], str]


def _binary(sign: str) -> _Call:
    return lambda n, x: (
        f"{x[0]} {sign} {x[1]}"
        if n.attrs.get("alpha", 1) == 1
        else (f"{x[0]} {sign} {n.attrs['alpha']} * {x[1]}")
    )


def _average(node: Node, operands: List[str]) -> str:
    a = node.attrs
    given = f"{a['kernel']}, {a['stride']}, {a['padding']}, {a['ceil_mode']}"
    return _scaled(node, f"F.avg_pool2d({operands[0]}, {given}, {a.get('include_pad', True)})")


def _scaled(node: Node, call: str) -> str:
    """An average as the DPU takes it, whose division is a product and a shift."""
    plain = node.attrs.get("uneven") or node.attrs["factor"] == 1
    return call if plain else f"{call} * {float(node.attrs['factor'])}"


def _pad(node: Node, operands: List[str]) -> str:
    a = node.attrs
    value = f", {a['value']}" if a["mode"] == "constant" else ""
    return f"F.pad({operands[0]}, {list(a['padding'])}, {a['mode']!r}{value})"


def _resize(node: Node, operands: List[str]) -> str:
    a = node.attrs
    corners = a["align_corners"] if a["mode"] == "bilinear" else None
    size = f"scale_factor={list(a['scale'])}" if a["by_scale"] else f"size={tuple(a['size'])}"
    return f"F.interpolate({operands[0]}, {size}, mode={a['mode']!r}, align_corners={corners})"


_CALLS: Dict[str, _Call] = {
    g.ADD: _binary("+"),
    g.SUB: _binary("-"),
    g.MUL: lambda n, x: f"{x[0]} * {x[1]}",
    g.DIV: lambda n, x: f"{x[0]} / {x[1]}",
    g.MATMUL: lambda n, x: f"torch.matmul({x[0]}, {x[1]})",
    g.MAX: lambda n, x: f"torch.max({x[0]}, {x[1]})",
    g.MIN: lambda n, x: f"torch.min({x[0]}, {x[1]})",
    g.CONCAT: lambda n, x: f"torch.cat([{', '.join(x)}], dim={n.attrs['axis']})",
    g.AVGPOOL: _average,
    g.ADAPTIVE_AVGPOOL: lambda n, x: _scaled(
        n, f"F.adaptive_avg_pool2d({x[0]}, {tuple(n.attrs['size'])})"
    ),
    g.MEAN: lambda n, x: _scaled(
        n, f"torch.mean({x[0]}, {tuple(n.attrs['axes'])}, {n.attrs['keep']})"
    ),
    g.PAD: _pad,
    g.PAD_ND: _pad,
    g.RSUB: lambda n, x: f"{x[1]} - {x[0]}",
    g.SHAPE: lambda n, x: f"{x[0]}.shape[{n.attrs['dim']}]",
    g.TRANSPOSE: lambda n, x: f"{x[0]}.permute({tuple(n.attrs['order'])})",
    g.RESIZE: _resize,
    g.RESHAPE: lambda n, x: f"{x[0]}.reshape(({x[0]}.shape[0], *{tuple(n.attrs['shape'])}))",
    g.PERMUTE: lambda n, x: f"{x[0]}.permute({tuple(n.attrs['order'])})",
    g.HARDSIGMOID: lambda n, x: f"F.relu6({x[0]} + 3.0) * {HARD_SIXTH}",
    g.HARDSWISH: lambda n, x: f"{x[0]} * F.relu6({x[0]} + 3.0) * {HARD_SIXTH}",
    g.CONST: lambda n, x: f"torch.tensor({n.attrs['value'].tolist()})",
}
