"""The quantized model as an XIR graph: the ``<Name>_int.xmodel`` of the graph's release.

Operators are float, NHWC, with a ``fix`` operator behind every tensor that is quantized; constants
hold values that lie on their grid already (rule 9 of the vendor's quantizer). Conversion to
integers is the compiler's work.
"""

from __future__ import annotations

import re
from typing import Callable, Dict, List, Mapping, Sequence, Tuple

import numpy as np

from ..compile.xir.attributes import Attr, boolean, floats, int32, int32s, string, strings
from ..compile.xir.attributes import blob as raw_bytes
from ..compile.xir.attributes import float32 as single
from ..compile.xir.graph import Graph, Op, float32_tensor
from ..errors import UnsupportedError
from . import graph as g
from .factors import HARD_SIXTH, HARDSWISH_POSITION, LEAKY_SLOPE
from .graph import Node, QuantizerGraph
from .releases import Flattening

_NHWC_AXIS = {0: 0, 1: 3, 2: 1, 3: 2}
_BITS = 8


def to_xir(
    graph: QuantizerGraph,
    outputs: Mapping[Node, int],
    params: Mapping[str, int],
    values: Mapping[str, np.ndarray],
) -> Graph:
    """The XIR graph of ``graph`` for batch 1.

    Args:
        graph: the quantizer's graph.
        outputs: fix position of every tensor that is quantized.
        params: fix position of every parameter, by key.
        values: float32 values of every parameter on their grid, by key, in PyTorch's layout.

    Raises:
        UnsupportedError: an operator or layout that has no counterpart.
    """
    return _Exporter(graph, outputs, params, values).export()


def xir_name(name: str) -> str:
    """A debug name or parameter key as XIR spells it."""
    return re.sub("[^0-9A-Za-z]", "_", name)


class _Exporter:
    def __init__(
        self,
        graph: QuantizerGraph,
        outputs: Mapping[Node, int],
        params: Mapping[str, int],
        values: Mapping[str, np.ndarray],
    ) -> None:
        self.graph, self.outputs, self.params, self.values = graph, outputs, params, values
        self.consumers = graph.consumers()
        self.xir = Graph(graph.name)
        self.last: Dict[Node, str] = {}
        """What readers of a node connect to: its fix operator where it has one."""

    def export(self) -> Graph:
        for node in self.graph.nodes:
            for role, key in node.params.items():
                if xir_name(key) not in self.xir.ops:
                    self._const(xir_name(key), self._laid_out(node, role, self.values[key]))
                    self._fix(xir_name(key), self.params[key])
        for node in self.graph.nodes:
            name = xir_name(self.graph.debug_name(node))
            self.last[node] = _EMIT[node.op](self, node, name)
            if node in self.outputs:
                self.last[node] = self._fix(self.last[node], self.outputs[node])
        if self.graph.release.return_ops:
            returned = tuple(self.last[node] for node in self.graph.output_nodes)
            self.xir.attrs["return_ops"] = strings(returned)
        self.xir.root.ops = list(self.xir.ops)
        return self.xir

    # --- building blocks ---

    def add(
        self,
        name: str,
        kind: str,
        dims: Sequence[int],
        attrs: Mapping[str, Attr],
        inputs: Mapping[str, Sequence[str]],
    ) -> str:
        given = {argument: tuple(names) for argument, names in inputs.items() if names}
        self.xir.add(Op(name, kind, float32_tensor(name, dims), dict(attrs), given))
        return name

    def simple(self, node: Node, name: str, kind: str, attrs: Mapping[str, Attr]) -> str:
        """An operator that reads its operands as ``input`` and nothing else."""
        inputs = {"input": [self.last[source] for source in node.inputs]}
        return self.add(name, kind, _dims(node), attrs, inputs)

    def product(self, node: Node, name: str, factor: float, inner: str) -> str:
        """``inner`` times a constant, under the node's own name."""
        const = self._const(f"{name}_i1", np.array([factor], np.float32))
        return self.add(name, "mul", _dims(node), {}, {"input": [inner, const]})

    def _const(self, name: str, value: np.ndarray) -> str:
        value = np.ascontiguousarray(value, np.float32)
        attrs = {
            "data": raw_bytes(value.astype("<f4").tobytes()),
            "data_type": string("float32"),
            "shape": int32s(value.shape),
        }
        return self.add(name, "const", value.shape, attrs, {})

    def _fix(self, name: str, position: int) -> str:
        attrs = {
            "fix_point": int32(position),
            "bit_width": int32(_BITS),
            "round_mode": string("DPU_ROUND"),
            "if_signed": boolean(True),
        }
        dims = self.xir.ops[name].tensor.dims
        return self.add(f"{name}_fix", "fix", dims, attrs, {"input": [name]})

    def param(self, node: Node, role: str) -> List[str]:
        key = node.params.get(role)
        return [] if key is None else [f"{xir_name(key)}_fix"]

    def unsupported(self, node: Node, reason: str) -> UnsupportedError:
        return UnsupportedError(f"{node.op} cannot be exported to an .xmodel: {reason}", node.scope)

    # --- parameter layouts ---

    def _laid_out(self, node: Node, role: str, value: np.ndarray) -> np.ndarray:
        laid_out = value
        if role != "weight" or node.op == g.BATCH_NORM:
            pass
        elif node.op == g.CONV2D:
            laid_out = value.transpose(0, 2, 3, 1)
        elif node.op == g.DEPTHWISE_CONV2D:
            channels = node.attrs["in_channels"]
            laid_out = value.reshape((channels, -1, *value.shape[2:])).transpose(1, 2, 3, 0)
        elif node.op in g.TRANSPOSED:
            # The vendor's library runs the kernel the other way round.
            laid_out = value.transpose(1, 2, 3, 0)[:, ::-1, ::-1, :]
        elif self.graph.release.flattening is not Flattening.REORDERED:
            pass
        elif node.op == g.DENSE and node.inputs[0].op in (g.FLATTEN, g.RESHAPE):
            # Columns from (C, H, W) to (H, W, C), since the map it reads is flattened as NHWC.
            shape = node.inputs[0].inputs[0].shape
            if len(shape) == 4:
                columns = value.reshape((value.shape[0], *shape[1:])).transpose(0, 2, 3, 1)
                laid_out = columns.reshape(value.shape)
        return laid_out


def _dims(node: Node) -> Tuple[int, ...]:
    """Shape of the result in XIR: batch 1, feature maps NHWC."""
    shape = (1, *node.shape[1:])
    return (1, shape[2], shape[3], shape[1]) if len(shape) == 4 else shape


def _wh(pair: Tuple[int, int]) -> Attr:
    return int32s((pair[1], pair[0]))


def _pad(pair: Tuple[int, int]) -> Attr:
    return int32s((pair[1], pair[1], pair[0], pair[0]))


def _axis(node: Node) -> Attr:
    axis = node.attrs["axis"]
    return int32(_NHWC_AXIS[axis] if len(node.shape) == 4 else axis)


def _input(e: _Exporter, node: Node, name: str) -> str:
    attrs = {"shape": int32s(_dims(node)), "data_type": string("FLOAT32")}
    return e.add(name, "data", _dims(node), attrs, {})


def _convolution(kind: str) -> Callable[[_Exporter, Node, str], str]:
    def emit(e: _Exporter, node: Node, name: str) -> str:
        a = node.attrs
        if a.get("output_padding", (0, 0)) != (0, 0):
            raise e.unsupported(node, "XIR has no output padding")
        attrs = {
            "kernel": _wh(a["kernel"]),
            "stride": _wh(a["stride"]),
            "dilation": _wh(a["dilation"]),
            "pad_mode": string("FLOOR"),
            "pad": _pad(a["padding"]),
            "group": int32(a["groups"]),
            "bias_term": boolean("bias" in node.params),
            "in_dim": int32(a["in_channels"]),
            "out_dim": int32(a["out_channels"]),
        }
        inputs = {
            "input": [e.last[node.inputs[0]]],
            "weights": e.param(node, "weight"),
            "bias": e.param(node, "bias"),
        }
        return e.add(name, kind, _dims(node), attrs, inputs)

    return emit


def _dense(e: _Exporter, node: Node, name: str) -> str:
    attrs = {"transpose_a": boolean(False), "transpose_b": boolean(True)}
    inputs = {
        "input": [e.last[node.inputs[0]], *e.param(node, "weight")],
        "bias": e.param(node, "bias"),
    }
    return e.add(name, "matmul", _dims(node), attrs, inputs)


def _batch_norm(e: _Exporter, node: Node, name: str) -> str:
    inputs = {
        "input": [e.last[node.inputs[0]]],
        "scale": e.param(node, "weight"),
        "bias": e.param(node, "bias"),
    }
    return e.add(name, "scale", _dims(node), {}, inputs)


def _pooling(node: Node, whole: bool) -> Dict[str, Attr]:
    a = node.attrs
    return {
        "kernel": _wh(a["kernel"]),
        "stride": _wh(a.get("stride", a["kernel"])),
        "pad": _pad(a.get("padding", (0, 0))),
        "pad_mode": string("CEIL" if a.get("ceil_mode") else "FLOOR"),
        "global": boolean(whole),
    }


def _max_pool(e: _Exporter, node: Node, name: str) -> str:
    return e.simple(node, name, "maxpool2d", _pooling(node, False))


def _avg_pool(e: _Exporter, node: Node, name: str) -> str:
    whole = node.op == g.ADAPTIVE_AVGPOOL and node.shape[2:] == (1, 1)
    attrs = _pooling(node, whole)
    attrs["count_include_pad"] = boolean(True)
    attrs["count_include_invalid"] = boolean(True)
    factor = node.attrs["factor"]
    if factor == 1 and e.graph.release.plain_average:
        return e.simple(node, name, "avgpool2d", attrs)
    inner = e.simple(node, f"{name}_i0", "avgpool2d", attrs)
    return e.product(node, name, factor, inner)


def _hardsigmoid(e: _Exporter, node: Node, name: str) -> str:
    inner = e.simple(node, f"{name}_i0", "hard-sigmoid", {})
    return e.product(node, name, 6 * HARD_SIXTH, inner)


def _hardswish(e: _Exporter, node: Node, name: str) -> str:
    # The vendor leaves the inner names as they were traced.
    plain = e.graph.debug_name(node)
    inner = e.simple(node, f"{name}_i0", "hard-sigmoid", {})
    const = e._const(f"{plain}_i1", np.array([6 * HARD_SIXTH], np.float32))
    gate = e.add(f"{plain}_mul", "mul", _dims(node), {}, {"input": [inner, const]})
    gate = e._fix(gate, HARDSWISH_POSITION)
    return e.add(name, "mul", _dims(node), {}, {"input": [gate, e.last[node.inputs[0]]]})


def _resize(e: _Exporter, node: Node, name: str) -> str:
    a = node.attrs
    bilinear = a["mode"] == "bilinear"
    attrs = {
        "mode": string(a["mode"].upper()),
        "align_corners": boolean(a["align_corners"]),
        "half_pixel_centers": boolean(bilinear and not a["align_corners"]),
        "scale": floats((a["scale"][1], a["scale"][0])),
    }
    return e.simple(node, name, "resize", attrs)


def _flat(e: _Exporter, node: Node, name: str) -> str:
    source = node.inputs[0]
    if len(node.shape) != 2:
        raise e.unsupported(node, f"only flattening to [N, values] is known, not {node.shape}")
    if e.graph.release.flattening is not Flattening.REORDERED and len(source.shape) == 4:
        return _transposed_flat(e, node, name)
    if len(source.shape) == 4 and source.shape[2:] != (1, 1):
        readers = e.consumers[node]
        single_use = e.graph.uses()[node] == 1 and e.graph.uses()[source] == 1
        if not (single_use and readers and readers[0].op == g.DENSE):
            raise e.unsupported(node, "a map of more than one pixel must go to one linear layer")
    sizes = (1, int(np.prod(node.shape[1:])))
    parts = [
        e._const(f"{name}_shape_attr_{i}_", np.array([size], np.float32))
        for i, size in enumerate(sizes)
    ]
    shape = e.add(
        f"{name}_shape_i0", "stack", (len(sizes), 1), {"axis": int32(0)}, {"input": parts}
    )
    e.xir.ops[shape].tensor.attrs["shape_info"] = int32s(sizes)
    inputs = {"input": [e.last[source]], "shape": [shape]}
    return e.add(name, "reshape", sizes, {"shape": int32s((0,))}, inputs)


def _transposed_flat(e: _Exporter, node: Node, name: str) -> str:
    """Releases before 3.0 put the map back in the model's order and flatten that."""
    source = node.inputs[0]
    debug = e.graph.debug_name(source)
    transpose = {
        Flattening.INNER_TRANSPOSE: f"{name}_i0",
        Flattening.GRAPH_SINK: xir_name(f"{e.graph.name}::{debug}_sink_tranpose_0"),
    }.get(e.graph.release.flattening, xir_name(f"{debug}_sink_transpose_0"))
    if transpose not in e.xir.ops:
        dims = (1, *source.shape[1:])
        order = {"order": int32s((0, 3, 1, 2))}
        e.add(transpose, "transpose", dims, order, {"input": [e.last[source]]})
    attrs = {"start_axis": int32(1), "end_axis": int32(3)}
    return e.add(name, "flatten", _dims(node), attrs, {"input": [transpose]})


def _plain(kind: str) -> Callable[[_Exporter, Node, str], str]:
    return lambda e, node, name: e.simple(node, name, kind, {})


_EMIT: Dict[str, Callable[[_Exporter, Node, str], str]] = {
    g.INPUT: _input,
    g.CONV2D: _convolution("conv2d"),
    g.DEPTHWISE_CONV2D: _convolution("depthwise-conv2d"),
    g.CONV_TRANSPOSE2D: _convolution("transposed-conv2d"),
    g.DEPTHWISE_CONV_TRANSPOSE2D: _convolution("transposed-depthwise-conv2d"),
    g.DENSE: _dense,
    g.BATCH_NORM: _batch_norm,
    g.RELU: _plain("relu"),
    g.RELU6: _plain("relu6"),
    g.LEAKY_RELU: lambda e, n, name: e.simple(
        n, name, "leaky-relu", {"alpha": single(LEAKY_SLOPE)}
    ),
    g.SIGMOID: _plain("sigmoid"),
    g.TANH: _plain("tanh"),
    g.HARDSIGMOID: _hardsigmoid,
    g.HARDSWISH: _hardswish,
    g.SOFTMAX: lambda e, n, name: e.simple(n, name, "softmax", {"axis": _axis(n)}),
    g.MAXPOOL: _max_pool,
    g.AVGPOOL: _avg_pool,
    g.ADAPTIVE_AVGPOOL: _avg_pool,
    g.ADD: _plain("add"),
    g.SUB: _plain("sub"),
    g.MUL: _plain("mul"),
    g.CONCAT: lambda e, n, name: e.simple(n, name, "concat", {"axis": _axis(n)}),
    g.RESIZE: _resize,
    g.FLATTEN: _flat,
    g.RESHAPE: _flat,
}
