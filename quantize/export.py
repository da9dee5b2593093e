"""The quantized model as an XIR graph: the ``<Name>_int.xmodel`` of the graph's release.

Operators are float, NHWC, with a ``fix`` operator behind every tensor that is quantized; constants
hold values that lie on their grid already (rule 9 of the vendor's quantizer). Conversion to
integers is the compiler's work.
"""

from __future__ import annotations

import re
from typing import Callable, Dict, List, Mapping, Optional, Sequence, Tuple

import numpy as np

from ..compile.xir.attributes import Attr, boolean, floats, int32, int32s, string, strings
from ..compile.xir.attributes import blob as raw_bytes
from ..compile.xir.attributes import float32 as single
from ..compile.xir.graph import Graph, Op, float32_tensor
from ..errors import UnsupportedError
from . import graph as g
from .factors import HARD_SIXTH, HARDSWISH_POSITION, LEAKY_SLOPE
from .graph import Node, QuantizerGraph
from .layout import SINK, SWIM, channels_last, takes_maps
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
        self.graph, self.params, self.values = graph, params, values
        self.outputs = dict(outputs)
        self.consumers = graph.consumers()
        self.maps = channels_last(graph)
        self.xir = Graph(graph.name)
        self.last: Dict[Node, str] = {}
        """What readers of a node connect to: its fix operator where it has one."""
        self.reordered: Dict[Tuple[Node, Tuple[int, ...]], str] = {}
        """A node and an order of axes to the operator that puts it in that order."""
        self.merged = {node for node in graph.nodes if self._merges(node)}
        """Paddings that become part of their reader."""

    def export(self) -> Graph:
        self._move_positions()
        for node in self.graph.nodes:
            for role, key in node.params.items():
                if xir_name(key) not in self.xir.ops:
                    self._const(xir_name(key), self._laid_out(node, role, self.values[key]))
                    self._fix(xir_name(key), self.params[key])
        for node in self.graph.nodes:
            name = xir_name(self.graph.debug_name(node))
            if node.op == g.SHAPE:
                continue
            if node in self.merged:
                self.last[node] = self.last[node.inputs[0]]
                continue
            self.last[node] = _EMIT.get(node.op, _unknown)(self, node, name)
            if node in self.outputs:
                self.last[node] = self._fix(name, self.outputs[node], self.last[node])
        if self.graph.release.return_ops:
            returned = tuple(self.last[node] for node in self.graph.output_nodes)
            self.xir.attrs["return_ops"] = strings(returned)
        self.xir.root.ops = list(self.xir.ops)
        return self.xir

    def _move_positions(self) -> None:
        """Fix positions of tensors that the exported model does not have, and of one it adds."""
        for node in self.graph.nodes:
            readers = self.consumers[node]
            if node in self.merged and node in self.outputs:
                self.outputs.setdefault(node.inputs[0], self.outputs.pop(node))
            concat = readers[0] if len(readers) == 1 and readers[0].op == g.CONCAT else None
            if node.op == g.HARDSWISH and concat in self.outputs and node not in self.outputs:
                self.outputs[node] = self.outputs[concat]

    def _merges(self, node: Node) -> bool:
        """Whether a padding with zeros, the same on opposite sides, goes into its one reader."""
        if node.op not in (g.PAD, g.PAD_ND) or len(node.shape) != 4:
            return False
        widths = [*node.attrs["padding"], 0, 0]
        plain = node.attrs["mode"] == "constant" and node.attrs["value"] == 0
        even = widths[0] == widths[1] >= 0 and widths[2] == widths[3] >= 0 and not any(widths[4:])
        readers, windows = (
            self.consumers[node],
            (g.CONV2D, g.DEPTHWISE_CONV2D, g.MAXPOOL, g.AVGPOOL),
        )
        alone = len(readers) == 1 and self.graph.uses()[node] == 1
        return plain and even and alone and readers[0].op in windows

    def padding(self, node: Node) -> Tuple[int, int]:
        """The padding (height, width) of a window operator, with one merged into it."""
        high, wide = node.attrs.get("padding", (0, 0))
        if node.inputs[0] in self.merged:
            widths = [*node.inputs[0].attrs["padding"], 0, 0]
            high, wide = high + widths[2], wide + widths[0]
        return high, wide

    # --- layout ---

    def dims(self, node: Node) -> Tuple[int, ...]:
        """Shape of the result in XIR: batch 1, feature maps NHWC."""
        shape = (1, *node.shape[1:]) if node.shape else ()
        return (1, shape[2], shape[3], shape[1]) if node in self.maps else shape

    def axis(self, node: Node, axis: int) -> int:
        return _NHWC_AXIS[axis] if node in self.maps else axis

    def given(self, node: Node, index: int = 0) -> str:
        """What ``node`` reads as its operand ``index``, in the order of axes it takes."""
        source = node.inputs[index]
        wants_map = takes_maps(node) and node in self.maps
        if node.op == g.MEAN and source in self.maps and _drops_maps(node):
            wants_map = True
        if len(source.shape) != 4 or (source in self.maps) == wants_map:
            return self.last[source]
        if source in self.maps:
            return self.reorder(source, SINK, f"{self.graph.debug_name(source)}_sink_transpose_0")
        several = any(other in self.maps for other in node.inputs)
        of, how = (node, "neighbor") if several else (source, "swim")
        return self.reorder(source, SWIM, f"{self.graph.debug_name(of)}_{how}_transpose_0")

    def reorder(self, source: Node, order: Tuple[int, ...], name: str) -> str:
        """``source`` with its axes in another order; a mere reshape where no value moves."""
        key = (source, order)
        if key not in self.reordered:
            before = self.dims(source)
            after = tuple(before[axis] for axis in order)
            moving = [axis for axis in order if before[axis] != 1]
            if moving == sorted(moving):
                self.reordered[key] = self.reshape(xir_name(name), after, self.last[source])
            else:
                self.reordered[key] = self.add(
                    xir_name(name),
                    "transpose",
                    after,
                    {"order": int32s(order)},
                    {"input": [self.last[source]]},
                )
        return self.reordered[key]

    def reshape(self, name: str, sizes: Sequence[int], source: str) -> str:
        """``source`` in another shape, which stands beside it as a stack of constants."""
        parts = [
            self._const(f"{name}_shape_attr_{i}_", np.array([size], np.float32))
            for i, size in enumerate(sizes)
        ]
        shape = self.add(
            f"{name}_shape_i0", "stack", (len(sizes), 1), {"axis": int32(0)}, {"input": parts}
        )
        self.xir.ops[shape].tensor.attrs["shape_info"] = int32s(sizes)
        inputs = {"input": [source], "shape": [shape]}
        return self.add(name, "reshape", sizes, {"shape": int32s((0,))}, inputs)

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
        read = [i for i, source in enumerate(node.inputs) if source.op != g.SHAPE]
        inputs = {"input": [self.given(node, i) for i in read]}
        return self.add(name, kind, self.dims(node), attrs, inputs)

    def product(self, node: Node, name: str, factor: float, inner: str) -> str:
        """``inner`` times a constant, under the node's own name."""
        const = self._const(f"{name}_i1", np.array([factor], np.float32))
        return self.add(name, "mul", self.dims(node), {}, {"input": [inner, const]})

    def _const(self, name: str, value: np.ndarray) -> str:
        value = np.ascontiguousarray(value, np.float32)
        attrs = {
            "data": raw_bytes(value.astype("<f4").tobytes()),
            "data_type": string("float32"),
            "shape": int32s(value.shape),
        }
        return self.add(name, "const", value.shape, attrs, {})

    def _fix(self, name: str, position: int, reads: Optional[str] = None) -> str:
        attrs = {
            "fix_point": int32(position),
            "bit_width": int32(_BITS),
            "round_mode": string("DPU_ROUND"),
            "if_signed": boolean(True),
        }
        source = name if reads is None else reads
        dims = self.xir.ops[source].tensor.dims
        return self.add(f"{name}_fix", "fix", dims, attrs, {"input": [source]})

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
        elif node.op == g.DENSE and self.columns_follow(node.inputs[0]):
            # Columns from (C, H, W) to (H, W, C), since the map it reads is flattened as NHWC.
            shape = node.inputs[0].inputs[0].shape
            columns = value.reshape((value.shape[0], *shape[1:])).transpose(0, 2, 3, 1)
            laid_out = columns.reshape(value.shape)
        return laid_out

    def columns_follow(self, node: Node) -> bool:
        """Whether ``node`` flattens a map for one linear layer, whose columns are put in order."""
        if node.op not in _RESHAPING or len(node.shape) != 2:
            return False
        readers = self.consumers[node]
        alone = self.graph.uses()[node] == 1 and len(readers) == 1 and readers[0].op == g.DENSE
        if not alone or node.inputs[0] not in self.maps:
            return False
        key = readers[0].params["weight"]
        if sum(key in other.params.values() for other in self.graph.nodes) > 1:
            # Its columns cannot be in two orders.
            return False
        return self.graph.release.flattening is Flattening.REORDERED


_RESHAPING = (g.FLATTEN, g.RESHAPE, g.SQUEEZE, g.UNSQUEEZE)


def _drops_maps(node: Node) -> bool:
    """Whether a mean leaves axes that stand in the same order in NCHW and NHWC."""
    return node.attrs["axes"] in ((1,), (2, 3), (1, 2, 3))


def _wh(pair: Tuple[int, int]) -> Attr:
    return int32s((pair[1], pair[0]))


def _pad(pair: Tuple[int, int]) -> Attr:
    return int32s((pair[1], pair[1], pair[0], pair[0]))


def _axis(e: _Exporter, node: Node) -> Attr:
    return int32(e.axis(node, node.attrs["axis"]))


def _input(e: _Exporter, node: Node, name: str) -> str:
    attrs = {"shape": int32s(e.dims(node)), "data_type": string("FLOAT32")}
    return e.add(name, "data", e.dims(node), attrs, {})


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
            "pad": _pad(e.padding(node)),
            "group": int32(a["groups"]),
            "bias_term": boolean("bias" in node.params),
            "in_dim": int32(a["in_channels"]),
            "out_dim": int32(a["out_channels"]),
        }
        inputs = {
            "input": [e.given(node)],
            "weights": e.param(node, "weight"),
            "bias": e.param(node, "bias"),
        }
        return e.add(name, kind, e.dims(node), attrs, inputs)

    return emit


def _dense(e: _Exporter, node: Node, name: str) -> str:
    attrs = {"transpose_a": boolean(False), "transpose_b": boolean(True)}
    inputs = {
        "input": [e.given(node), *e.param(node, "weight")],
        "bias": e.param(node, "bias"),
    }
    return e.add(name, "matmul", e.dims(node), attrs, inputs)


def _batch_norm(e: _Exporter, node: Node, name: str) -> str:
    inputs = {
        "input": [e.given(node)],
        "scale": e.param(node, "weight"),
        "bias": e.param(node, "bias"),
    }
    return e.add(name, "scale", e.dims(node), {}, inputs)


def _pooling(e: _Exporter, node: Node, whole: bool) -> Dict[str, Attr]:
    a = node.attrs
    return {
        "kernel": _wh(a["kernel"]),
        "stride": _wh(a.get("stride", a["kernel"])),
        "pad": _pad(e.padding(node)),
        "pad_mode": string("CEIL" if a.get("ceil_mode") else "FLOOR"),
        "global": boolean(whole),
    }


def _max_pool(e: _Exporter, node: Node, name: str) -> str:
    return e.simple(node, name, "maxpool2d", _pooling(e, node, False))


def _avg_pool(e: _Exporter, node: Node, name: str) -> str:
    if node.attrs.get("uneven"):
        raise e.unsupported(node, "its windows are not of one size")
    whole = node.op == g.ADAPTIVE_AVGPOOL and node.shape[2:] == (1, 1)
    attrs = _pooling(e, node, whole)
    attrs["count_include_pad"] = boolean(node.attrs.get("include_pad", True))
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
    gate = e.add(f"{plain}_mul", "mul", e.dims(node), {}, {"input": [inner, const]})
    gate = e._fix(gate, HARDSWISH_POSITION)
    return e.add(name, "mul", e.dims(node), {}, {"input": [gate, e.given(node)]})


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
    older = e.graph.release.flattening is not Flattening.REORDERED
    if older and len(node.shape) == 2 and source in e.maps:
        return _transposed_flat(e, node, name)
    before = e.last[source]
    pixels = int(np.prod(source.shape[2:]))
    # A map of one pixel, or with columns in its order, is read as it stands.
    if source in e.maps and not (pixels == 1 or e.columns_follow(node)):
        before = e.reorder(source, SINK, f"{e.graph.debug_name(source)}_sink_transpose_0")
    return e.reshape(name, e.dims(node), before)


def _permute(e: _Exporter, node: Node, name: str) -> str:
    source, order = node.inputs[0], node.attrs["order"]
    if source in e.maps:
        order = tuple(SINK[axis] for axis in order)
    if order == tuple(range(len(order))):
        return e.last[source]
    before = {"input": [e.last[source]]}
    dims = tuple(e.xir.ops[e.last[source]].tensor.dims[axis] for axis in order)
    if node in e.maps:
        # Only a map of one pixel; its values do not move.
        return e.reshape(name, e.dims(node), e.last[source])
    return e.add(name, "transpose", dims, {"order": int32s(order)}, before)


def _constant(e: _Exporter, node: Node, name: str) -> str:
    value, (reader, *_) = node.attrs["value"], e.consumers[node]
    if reader.op in (g.ADD, g.SUB, g.RSUB, g.MUL, g.DIV):
        value = np.broadcast_to(value, (1, *reader.shape[1:]))
        e.maps.discard(node)
        if reader in e.maps:
            value = value.transpose(SWIM)
            e.maps.add(node)
    return e._const(name, value)


def _elementwise(kind: str, swapped: bool = False) -> Callable[[_Exporter, Node, str], str]:
    def emit(e: _Exporter, node: Node, name: str) -> str:
        if "alpha" in node.attrs:
            raise e.unsupported(node, "its second operand has a factor")
        operands = [e.given(node, i) for i in range(2)]
        inputs = {"input": operands[::-1] if swapped else operands}
        return e.add(name, kind, e.dims(node), {}, inputs)

    return emit


def _prelu(e: _Exporter, node: Node, name: str) -> str:
    inputs = {"input": [e.given(node)], "weight": e.param(node, "weight")}
    return e.add(name, "prelu", e.dims(node), {}, inputs)


def _hardtanh(e: _Exporter, node: Node, name: str) -> str:
    if (node.attrs["low"], node.attrs["high"]) != (-1, 1):
        raise e.unsupported(node, "only the one from -1 to 1 has a counterpart")
    return e.simple(node, name, "hard-tanh", {})


def _matmul(e: _Exporter, node: Node, name: str) -> str:
    attrs = {"transpose_a": boolean(False), "transpose_b": boolean(False)}
    return e.simple(node, name, "matmul", attrs)


def _mean(e: _Exporter, node: Node, name: str) -> str:
    source = node.inputs[0]
    map_given = source in e.maps and (node in e.maps or _drops_maps(node))
    axes = sorted(_NHWC_AXIS[a] if map_given else a for a in node.attrs["axes"])
    attrs = {"axis": int32s(axes), "keep_dims": boolean(node.attrs["keep"])}
    if node.attrs["factor"] == 1:
        return e.simple(node, name, "reduction_mean", attrs)
    inner = e.simple(node, f"{name}_i0", "reduction_mean", attrs)
    return e.product(node, name, node.attrs["factor"], inner)


def _padding(e: _Exporter, node: Node, name: str) -> str:
    modes = {"constant": "CONSTANT", "reflect": "REFLECT"}
    if node.attrs["mode"] not in modes:
        raise e.unsupported(node, f"XIR has no mode {node.attrs['mode']!r}")
    given = node.attrs["padding"]
    pairs = [(0, 0)] * len(node.shape)
    for number in range(len(given) // 2):
        pairs[len(pairs) - 1 - number] = (given[2 * number], given[2 * number + 1])
    if node in e.maps:
        pairs = [pairs[axis] for axis in SWIM]
    attrs = {
        "paddings": int32s([width for pair in pairs for width in pair]),
        "mode": string(modes[node.attrs["mode"]]),
        "constant_values": floats([node.attrs["value"]] * (2 * len(pairs))),
    }
    return e.simple(node, name, "pad", attrs)


def _slice(e: _Exporter, node: Node, name: str) -> str:
    source = node.inputs[0]
    ranges = [(0, 1, 1), *node.attrs["ranges"][1:]]
    sizes = (1, *source.shape[1:])
    whole = [r == (0, size, 1) for r, size in zip(ranges, sizes)]
    if node in e.maps:
        ranges, whole = [ranges[a] for a in SWIM], [whole[a] for a in SWIM]
    mask = sum(1 << axis for axis, taken in enumerate(whole) if taken)
    begin, end, strides = zip(*ranges)
    attrs = {
        "begin": int32s(begin),
        "end": int32s(end),
        "strides": int32s(strides),
        "begin_mask": int32(mask),
        "end_mask": int32(mask),
        "ellipsis_mask": int32(0),
        "new_axis_mask": int32(0),
        "shrink_axis_mask": int32(0),
    }
    return e.simple(node, name, "strided_slice", attrs)


def _pixel_shuffle(e: _Exporter, node: Node, name: str) -> str:
    scale = node.shape[2] // node.inputs[0].shape[2]
    return e.simple(node, name, "pixel-shuffle", {"scale": int32(scale), "upscale": boolean(True)})


def _through(e: _Exporter, node: Node, name: str) -> str:
    """Nothing of its own: its readers spread the operand, or read it as it is."""
    return e.given(node)


def _chunk(e: _Exporter, node: Node, name: str) -> str:
    raise e.unsupported(node, "the vendor exports no operator with several results; use slices")


def _unknown(e: _Exporter, node: Node, name: str) -> str:
    """An operator that stays float, under its own type."""
    attrs = {"shape": int32s(e.dims(node)), "data_type": string("FLOAT32")}
    return e.simple(node, name, node.op, attrs)


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
    return e.add(name, "flatten", e.dims(node), attrs, {"input": [transpose]})


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
    g.SOFTMAX: lambda e, n, name: e.simple(n, name, "softmax", {"axis": _axis(e, n)}),
    g.MAXPOOL: _max_pool,
    g.AVGPOOL: _avg_pool,
    g.ADAPTIVE_AVGPOOL: _avg_pool,
    g.ADD: _elementwise("add"),
    g.SUB: _elementwise("sub"),
    g.MUL: _elementwise("mul"),
    g.CONCAT: lambda e, n, name: e.simple(n, name, "concat", {"axis": _axis(e, n)}),
    g.RESIZE: _resize,
    g.FLATTEN: _flat,
    g.RESHAPE: _flat,
    g.SQUEEZE: _flat,
    g.UNSQUEEZE: _flat,
    g.PERMUTE: _permute,
    g.TRANSPOSE: _permute,
    g.CONST: _constant,
    g.RSUB: _elementwise("sub", swapped=True),
    g.DIV: _elementwise("div"),
    g.MAX: _elementwise("max"),
    g.MIN: _elementwise("min"),
    g.PRELU: _prelu,
    g.GELU: _plain("gelu"),
    g.MISH: _plain("mish"),
    g.EXP: _plain("exp"),
    g.HARDTANH: _hardtanh,
    g.MATMUL: _matmul,
    g.MEAN: _mean,
    g.PAD: _padding,
    g.PAD_ND: _padding,
    g.STRIDED_SLICE: _slice,
    g.PIXEL_SHUFFLE: _pixel_shuffle,
    g.CONTIGUOUS: _through,
    g.EXPAND_AS: _through,
    g.CHUNK: _chunk,
}
