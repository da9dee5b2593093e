"""How each operator of the quantizer's graph stands in an exported model (rule 9.6).

Spatial attributes count width before height, paddings go left, right, top, bottom; several
operators become more than one.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Callable, Dict, Tuple

import numpy as np

from ..compile.xir.attributes import Attr, boolean, floats, int32, int32s, string
from ..compile.xir.attributes import float32 as single
from . import graph as g
from .factors import HARD_SIXTH, HARDSWISH_POSITION, LEAKY_SLOPE
from .graph import Node
from .layout import SINK, SWIM
from .releases import Flattening

if TYPE_CHECKING:
    from .export import Exporter

NHWC_AXIS = {0: 0, 1: 3, 2: 1, 3: 2}
"""An axis of an NCHW map to the same axis of an NHWC map."""

Emit = Callable[["Exporter", Node, str], str]
"""Adds a node under a name; returns the name of what its readers connect to."""


def xir_name(name: str) -> str:
    """A debug name or parameter key as XIR spells it."""
    return re.sub("[^0-9A-Za-z]", "_", name)


def drops_maps(node: Node) -> bool:
    """Whether a mean leaves axes that stand in the same order in NCHW and NHWC."""
    return node.attrs["axes"] in ((1,), (2, 3), (1, 2, 3))


def _wh(pair: Tuple[int, int]) -> Attr:
    return int32s((pair[1], pair[0]))


def _pad(pair: Tuple[int, int]) -> Attr:
    return int32s((pair[1], pair[1], pair[0], pair[0]))


def _axis(e: Exporter, node: Node) -> Attr:
    return int32(e.axis(node, node.attrs["axis"]))


def _input(e: Exporter, node: Node, name: str) -> str:
    attrs = {"shape": int32s(e.dims(node)), "data_type": string("FLOAT32")}
    return e.add(name, "data", e.dims(node), attrs, {})


def _convolution(kind: str) -> Emit:
    def emit(e: Exporter, node: Node, name: str) -> str:
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


def _dense(e: Exporter, node: Node, name: str) -> str:
    attrs = {"transpose_a": boolean(False), "transpose_b": boolean(True)}
    inputs = {
        "input": [e.given(node), *e.param(node, "weight")],
        "bias": e.param(node, "bias"),
    }
    return e.add(name, "matmul", e.dims(node), attrs, inputs)


def _batch_norm(e: Exporter, node: Node, name: str) -> str:
    inputs = {
        "input": [e.given(node)],
        "scale": e.param(node, "weight"),
        "bias": e.param(node, "bias"),
    }
    return e.add(name, "scale", e.dims(node), {}, inputs)


def _pooling(e: Exporter, node: Node, whole: bool) -> Dict[str, Attr]:
    a = node.attrs
    return {
        "kernel": _wh(a["kernel"]),
        "stride": _wh(a.get("stride", a["kernel"])),
        "pad": _pad(e.padding(node)),
        "pad_mode": string("CEIL" if a.get("ceil_mode") else "FLOOR"),
        "global": boolean(whole),
    }


def _max_pool(e: Exporter, node: Node, name: str) -> str:
    return e.simple(node, name, "maxpool2d", _pooling(e, node, False))


def _avg_pool(e: Exporter, node: Node, name: str) -> str:
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


def _hardsigmoid(e: Exporter, node: Node, name: str) -> str:
    inner = e.simple(node, f"{name}_i0", "hard-sigmoid", {})
    return e.product(node, name, 6 * HARD_SIXTH, inner)


def _hardswish(e: Exporter, node: Node, name: str) -> str:
    # The vendor leaves the inner names as they were traced.
    plain = e.graph.debug_name(node)
    inner = e.simple(node, f"{name}_i0", "hard-sigmoid", {})
    const = e.const(f"{plain}_i1", np.array([6 * HARD_SIXTH], np.float32))
    gate = e.add(f"{plain}_mul", "mul", e.dims(node), {}, {"input": [inner, const]})
    gate = e.fix(gate, HARDSWISH_POSITION)
    return e.add(name, "mul", e.dims(node), {}, {"input": [gate, e.given(node)]})


def _resize(e: Exporter, node: Node, name: str) -> str:
    a = node.attrs
    bilinear = a["mode"] == "bilinear"
    attrs = {
        "mode": string(a["mode"].upper()),
        "align_corners": boolean(a["align_corners"]),
        "half_pixel_centers": boolean(bilinear and not a["align_corners"]),
        "scale": floats((a["scale"][1], a["scale"][0])),
    }
    return e.simple(node, name, "resize", attrs)


def _flat(e: Exporter, node: Node, name: str) -> str:
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


def _permute(e: Exporter, node: Node, name: str) -> str:
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


def _constant(e: Exporter, node: Node, name: str) -> str:
    value, (reader, *_) = node.attrs["value"], e.consumers[node]
    if reader.op in (g.ADD, g.SUB, g.RSUB, g.MUL, g.DIV):
        value = np.broadcast_to(value, (e.batch, *reader.shape[1:]))
        e.maps.discard(node)
        if reader in e.maps:
            value = value.transpose(SWIM)
            e.maps.add(node)
    return e.const(name, value)


def _elementwise(kind: str, swapped: bool = False) -> Emit:
    def emit(e: Exporter, node: Node, name: str) -> str:
        if "alpha" in node.attrs:
            raise e.unsupported(node, "its second operand has a factor")
        operands = [e.given(node, i) for i in range(2)]
        inputs = {"input": operands[::-1] if swapped else operands}
        return e.add(name, kind, e.dims(node), {}, inputs)

    return emit


def _prelu(e: Exporter, node: Node, name: str) -> str:
    inputs = {"input": [e.given(node)], "weight": e.param(node, "weight")}
    return e.add(name, "prelu", e.dims(node), {}, inputs)


def _hardtanh(e: Exporter, node: Node, name: str) -> str:
    if (node.attrs["low"], node.attrs["high"]) != (-1, 1):
        raise e.unsupported(node, "only the one from -1 to 1 has a counterpart")
    return e.simple(node, name, "hard-tanh", {})


def _matmul(e: Exporter, node: Node, name: str) -> str:
    attrs = {"transpose_a": boolean(False), "transpose_b": boolean(False)}
    return e.simple(node, name, "matmul", attrs)


def _mean(e: Exporter, node: Node, name: str) -> str:
    source = node.inputs[0]
    map_given = source in e.maps and (node in e.maps or drops_maps(node))
    axes = sorted(NHWC_AXIS[a] if map_given else a for a in node.attrs["axes"])
    attrs = {"axis": int32s(axes), "keep_dims": boolean(node.attrs["keep"])}
    if node.attrs["factor"] == 1:
        return e.simple(node, name, "reduction_mean", attrs)
    inner = e.simple(node, f"{name}_i0", "reduction_mean", attrs)
    return e.product(node, name, node.attrs["factor"], inner)


def _padding(e: Exporter, node: Node, name: str) -> str:
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


def _slice(e: Exporter, node: Node, name: str) -> str:
    source = node.inputs[0]
    ranges = [(0, e.batch, 1), *node.attrs["ranges"][1:]]
    sizes = (e.batch, *source.shape[1:])
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


def _pixel_shuffle(e: Exporter, node: Node, name: str) -> str:
    scale = node.shape[2] // node.inputs[0].shape[2]
    return e.simple(node, name, "pixel-shuffle", {"scale": int32(scale), "upscale": boolean(True)})


def _through(e: Exporter, node: Node, name: str) -> str:
    """Nothing of its own: its readers spread the operand, or read it as it is."""
    return e.given(node)


def _chunk(e: Exporter, node: Node, name: str) -> str:
    raise e.unsupported(node, "the vendor exports no operator with several results; use slices")


def unknown(e: Exporter, node: Node, name: str) -> str:
    """An operator that stays float, under its own type."""
    attrs = {"shape": int32s(e.dims(node)), "data_type": string("FLOAT32")}
    return e.simple(node, name, node.op, attrs)


def _transposed_flat(e: Exporter, node: Node, name: str) -> str:
    """Releases before 3.0 put the map back in the model's order and flatten that."""
    source = node.inputs[0]
    debug = e.graph.debug_name(source)
    transpose = {
        Flattening.INNER_TRANSPOSE: f"{name}_i0",
        Flattening.GRAPH_SINK: xir_name(f"{e.graph.name}::{debug}_sink_tranpose_0"),
    }.get(e.graph.release.flattening, xir_name(f"{debug}_sink_transpose_0"))
    if transpose not in e.xir.ops:
        dims = (e.batch, *source.shape[1:])
        order = {"order": int32s((0, 3, 1, 2))}
        e.add(transpose, "transpose", dims, order, {"input": [e.last[source]]})
    attrs = {"start_axis": int32(1), "end_axis": int32(3)}
    return e.add(name, "flatten", e.dims(node), attrs, {"input": [transpose]})


def _plain(kind: str) -> Emit:
    return lambda e, node, name: e.simple(node, name, kind, {})


EMIT: Dict[str, Emit] = {
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
