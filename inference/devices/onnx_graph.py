"""Fixed-point operators as ONNX nodes that ONNX Runtime executes with the DPU's exact integers.

Every tensor is carried as uint8 ``code + 128``, NHWC. ``QLinearConv`` accumulates exactly in
int32 and then rounds ``float32(accumulator) * scale`` half to even. It rounds half **up**, as the
DPU does, when

* ``128 * 2^cut`` is part of the bias, so that no value that is not saturated is negative, and
* the output scale is one float32 step below ``2^cut``, so that every tie lands just above.

The product then drifts by at most ``256 * 2^-23`` of a code, which must stay below the distance
of two accumulators, ``2^-cut``: hence ``MAX_CUT``. A bias finer than the accumulator loses its
fraction before a floor, which changes nothing while ``cut`` is at least 1.

An operator that cannot be had exactly this way raises ``NotExactError``; the caller runs it by
its integer rule.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, List, Mapping, Sequence, Tuple

import numpy as np

from ...compile.xir.graph import Graph, Op
from .integer_rules import average_factor, transposed_pads
from .operators import (
    convolution_fix_points,
    fix_point,
    pad_sources,
    resize_sources,
    same_fix_points,
    window,
)

MAX_CUT = 14
"""Most bits a convolution may drop; beyond, a tie and its neighbour are one float."""

ZERO = 128
"""The byte that stands for code 0."""

OPSET, CONTRIB, IR_VERSION = 13, "com.microsoft", 7

_INT32_ROOM = 2**31 - 1


class NotExactError(Exception):
    """An operator cannot be expressed exactly; the message says why."""


class Piece:
    """ONNX nodes for a run of consecutive operators.

    Args:
        graph: the compiled model.
        constants: int8 arrays of its ``const-fix`` operators.
        batch: first dimension of every tensor.
        signed_weights: int8 weights, else uint8 ``weight + 128``.

    Attributes:
        inputs: operators outside whose tensors the piece reads.
        values: operator name to the name of its value.
    """

    def __init__(
        self,
        graph: Graph,
        constants: Mapping[str, np.ndarray],
        batch: int,
        signed_weights: bool = True,
    ) -> None:
        self.graph, self.constants = graph, constants
        self.batch, self.signed_weights = batch, signed_weights
        self.inputs: List[str] = []
        self.values: Dict[str, str] = {}
        self._nodes: List[Any] = []
        self._initializers: Dict[str, np.ndarray] = {}
        self._shared: Dict[Tuple[str, bytes], str] = {}

    def translate(self, op: Op) -> None:
        """Adds one operator.

        Raises:
            NotExactError: it cannot be expressed exactly; the piece is unchanged.
            UnsupportedError: its attributes have no defined meaning.
        """
        emit = _EMITTERS.get(op.type)
        if emit is None:
            raise NotExactError(f"{op.type} has no exact ONNX form")
        nodes, inputs = len(self._nodes), len(self.inputs)
        try:
            self.values[op.name] = emit(self, op)
        except NotExactError:
            for name in self.inputs[inputs:]:
                del self.values[name]
            del self._nodes[nodes:], self.inputs[inputs:]
            raise

    def model(self, outputs: Sequence[str]) -> bytes:
        """The serialized ONNX model, whose outputs are the tensors of these operators."""
        from onnx import TensorProto, helper, numpy_helper

        def info(name: str, value: str) -> Any:
            return helper.make_tensor_value_info(value, TensorProto.UINT8, self.dims(name))

        used = {name for node in self._nodes for name in node.input}
        graph = helper.make_graph(
            self._nodes,
            "piece",
            [info(name, self.values[name]) for name in self.inputs],
            [info(name, self.values[name]) for name in outputs],
            [numpy_helper.from_array(a, n) for n, a in self._initializers.items() if n in used],
        )
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", OPSET), helper.make_opsetid(CONTRIB, 1)],
            producer_name="deepfake-fpga",
        )
        model.ir_version = IR_VERSION
        data: bytes = model.SerializeToString()
        return data

    # -- names and small parts --------------------------------------------------------------------

    def dims(self, name: str) -> List[int]:
        """Dimensions of an operator's tensor at the piece's batch."""
        return [self.batch, *self.graph.op(name).tensor.dims[1:]]

    def read(self, name: str) -> str:
        """The value of operator ``name``, an input of the piece if it is not computed here."""
        if name not in self.values:
            self.inputs.append(name)
            self.values[name] = f"in:{name}"
        return self.values[name]

    def source(self, op: Op) -> str:
        """The value of the only input of ``op``."""
        return self.read(op.inputs["input"][0])

    def initializer(self, name: str, array: np.ndarray) -> str:
        """A constant; small ones with the same content are shared."""
        array = np.ascontiguousarray(array) if array.ndim else array
        if array.size <= 16:
            key = (f"{array.dtype}{array.shape}", array.tobytes())
            name = self._shared.setdefault(key, f"c{len(self._shared)}")
        self._initializers[name] = array
        return name

    def node(self, kind: str, inputs: Sequence[str], contrib: bool = False, **attrs: Any) -> str:
        """A node of one output; returns the output's name."""
        from onnx import helper

        output = f"v{len(self._nodes)}:{kind}"
        domain = CONTRIB if contrib else None
        self._nodes.append(helper.make_node(kind, list(inputs), [output], domain=domain, **attrs))
        return output

    def reshape(self, value: str, shape: Sequence[int]) -> str:
        """``value`` with other dimensions."""
        return self.node("Reshape", [value, self.initializer("", np.array(shape, np.int64))])

    def scalar(self, value: int, dtype: Any = np.uint8) -> str:
        """A rank 0 constant."""
        return self.initializer("", np.array(value, dtype))

    def clip(self, value: str, lowest: int, highest: int) -> str:
        """Codes limited to ``lowest`` and ``highest``; a limit of the code range costs nothing."""
        if lowest <= -128 and highest >= 127:
            return value
        limits = [self.scalar(lowest + ZERO)]
        if highest < 127:
            limits.append(self.scalar(highest + ZERO))
        return self.node("Clip", [value, *limits])

    def output_scale(self, cut: int) -> float:
        """The scale of a convolution's output that makes the rounding drop ``cut`` bits."""
        return 2.0**cut if cut <= 0 else float(np.nextafter(np.float32(2.0**cut), np.float32(0)))

    def activated(self, value: str, op: Op, fo: int) -> str:
        """Rounded codes after the activation of ``op``, which a clip can be after rounding too."""
        nonlinear = str(op.get("nonlinear", "NONE"))
        if nonlinear in ("", "NONE"):
            return value
        if nonlinear in ("RELU", "PRELU"):
            return self.clip(value, 0, 127)
        if nonlinear == "RELU6":
            return self.clip(value, 0, min(127, int(np.floor(6 * 2.0**fo + 0.5))))
        raise NotExactError(f"activation {nonlinear} acts before the rounding")

    def requantized(self, value: str, shift: int) -> str:
        """``R(code, shift)``: a 256-entry table inside ONNX Runtime."""
        if shift == 0:
            return value
        if shift > 0:
            # Bytes are never negative, so nudging the scale sends every tie up.
            zero_in = 0
            scale = 2.0**shift * (1 - 2.0**-10) if shift <= 7 else 2.0**20
            zero_out = ZERO - (ZERO >> shift)
        else:
            zero_in, scale, zero_out = ZERO, 2.0 ** max(shift, -8), ZERO
        parameters = [
            self.scalar(1, np.float32),
            self.scalar(zero_in),
            self.initializer("", np.array(scale, np.float32)),
            self.scalar(zero_out),
        ]
        return self.node("QLinearLeakyRelu", [value, *parameters], contrib=True, alpha=1.0)

    def convolution(
        self,
        name: str,
        value: str,
        weights: np.ndarray,
        bias: np.ndarray,
        cut: int,
        groups: int = 1,
        **attrs: Any,
    ) -> str:
        """``R(conv(value, weights) + bias, cut)``, exactly.

        Args:
            name: for the constants.
            value: uint8 NHWC.
            weights: int8 ``[O, I, kh, kw]``.
            bias: int64 ``[O]``, in units of the accumulator.
            cut: bits dropped; negative multiplies.
            groups: 1, or the number of channels for a depthwise convolution.
            attrs: ONNX attributes ``pads``, ``strides``, ``dilations``.
        """
        if cut > MAX_CUT:
            raise NotExactError(f"{cut} bits are dropped, exact up to {MAX_CUT}")
        offset = ZERO << cut if cut > 0 else 0
        products = int(np.prod(weights.shape[1:])) * 128 * 255
        if products + int(np.abs(bias).max(initial=0)) + offset > _INT32_ROOM:
            raise NotExactError("the accumulator could overflow")
        if self.signed_weights:
            stored, zero = weights, self.scalar(0, np.int8)
        else:
            stored, zero = (weights.astype(np.int16) + ZERO).astype(np.uint8), self.scalar(ZERO)
        one = self.scalar(1, np.float32)
        inputs = [
            value,
            one,
            self.scalar(ZERO),
            self.initializer(f"{name}:weights", stored),
            one,
            zero,
            self.initializer("", np.array(self.output_scale(cut), np.float32)),
            self.scalar(0 if cut > 0 else ZERO),
            self.initializer(f"{name}:bias", (bias + offset).astype(np.int32)),
        ]
        kernel = list(weights.shape[2:])
        return self.node(
            "QLinearConv",
            inputs,
            contrib=True,
            channels_last=1,
            group=groups,
            kernel_shape=kernel,
            **attrs,
        )

    # -- operators --------------------------------------------------------------------------------

    def _convolution(self, op: Op) -> str:
        if int(op.get("group", 1)) != 1 and "depthwise" not in op.type:
            raise NotExactError("grouped")
        stored = self.constants.get(op.inputs["weights"][0])
        if stored is None:
            raise NotExactError("the weights are no constant")
        geometry = window(op)
        depthwise = "depthwise" in op.type
        fi, fw, fb, fo = convolution_fix_points(self.graph, op)
        if depthwise:
            # [M, kh, kw, C] to [C * M, 1, kh, kw]
            weights = stored.transpose(3, 0, 1, 2).reshape(-1, 1, *stored.shape[1:3])
        else:
            weights = stored.transpose(0, 3, 1, 2)
        outputs = len(weights)
        cut = fi + fw - fo
        bias = self._bias(op, outputs, fi + fw - fb, cut)
        value, pads = self.source(op), geometry.pads
        stride, dilation = geometry.stride, geometry.dilation
        groups = stored.shape[3] if depthwise else 1
        if op.type.startswith("transposed"):
            if not depthwise and geometry.kernel == stride and pads == ((0, 0), (0, 0)):
                result = self._spread(op, value, stored, bias, cut)
                return self.activated(result, op, fo)
            value = self._zeros_inserted(op.inputs["input"][0], value, stride)
            pads = transposed_pads(geometry.kernel, dilation, pads)
            stride = (1, 1)
        if min(min(pad) for pad in pads) < 0:
            raise NotExactError("negative padding")
        (top, bottom), (left, right) = pads
        result = self.convolution(
            op.name,
            value,
            np.ascontiguousarray(weights),
            bias,
            cut,
            groups,
            pads=[top, left, bottom, right],
            strides=list(stride),
            dilations=list(dilation),
        )
        return self.activated(result, op, fo)

    def _bias(self, op: Op, outputs: int, shift: int, cut: int) -> np.ndarray:
        """The bias in whole units of the accumulator, int64 ``[outputs]``."""
        names = op.inputs.get("bias", ())
        if not names:
            return np.zeros(outputs, np.int64)
        stored = self.constants.get(names[0])
        if stored is None:
            raise NotExactError("the bias is no constant")
        if stored.size != outputs:
            stored = np.repeat(stored, outputs // stored.size)
        bias = stored.astype(np.int64)
        if shift >= 0:
            if shift > 23:
                raise NotExactError("the bias could overflow")
            return np.asarray(bias << shift)
        if cut >= 1:
            return np.asarray(bias >> -shift)
        if cut == 0:
            # The rounding itself happens at the accumulator's unit.
            return np.asarray((bias + (1 << (-shift - 1))) >> -shift)
        if np.any(bias & ((1 << -shift) - 1)):
            raise NotExactError("the bias is finer than the accumulator, which is multiplied")
        return np.asarray(bias >> -shift)

    def _spread(self, op: Op, value: str, stored: np.ndarray, bias: np.ndarray, cut: int) -> str:
        """A transposed convolution whose windows do not overlap.

        Each input pixel makes a block of ``kh x kw`` output pixels: a 1x1 convolution to
        ``kh * kw * O`` channels, and the blocks moved to their places.
        """
        outputs, kh, kw, channels = stored.shape
        blocks = stored[:, ::-1, ::-1].transpose(1, 2, 0, 3).reshape(-1, channels, 1, 1)
        flat = self.convolution(
            op.name, value, np.ascontiguousarray(blocks), np.tile(bias, kh * kw), cut
        )
        if (kh, kw) == (1, 1):
            return flat
        _, height, width, _ = self.dims(op.inputs["input"][0])
        split = self.reshape(flat, [self.batch, height, width, kh, kw * outputs])
        moved = self.node("Transpose", [split], perm=[0, 1, 3, 2, 4])
        return self.reshape(moved, self.dims(op.name))

    def _zeros_inserted(self, name: str, value: str, stride: Tuple[int, int]) -> str:
        """``stride - 1`` zeros between rows and columns."""
        n, height, width, channels = self.dims(name)
        sy, sx = stride
        if stride == (1, 1):
            return value
        split = self.reshape(value, [n, height, 1, width, 1, channels])
        pads = np.array([0] * 6 + [0, 0, sy - 1, 0, sx - 1, 0], np.int64)
        grown = self.node("Pad", [split, self.initializer("", pads), self.scalar(ZERO)])
        whole = self.reshape(grown, [n, height * sy, width * sx, channels])
        ends = np.array([(height - 1) * sy + 1, (width - 1) * sx + 1], np.int64)
        zeros, axes = np.zeros(2, np.int64), np.array([1, 2], np.int64)
        return self.node(
            "Slice", [whole, *(self.initializer("", part) for part in (zeros, ends, axes))]
        )

    def _pool(self, op: Op) -> str:
        geometry = window(op)
        fi, fo = fix_point(self.graph.input_ops(op)[0]), fix_point(op)
        value, dims, source = self.source(op), self.dims(op.name), op.inputs["input"][0]
        pads = []
        for axis, (before, after) in enumerate(geometry.pads):
            size = self.dims(source)[axis + 1]
            reach = (dims[axis + 1] - 1) * geometry.stride[axis] + geometry.kernel[axis]
            pads.append((before, max(after, reach - before - size)))
            fitting = (size + sum(pads[axis]) - geometry.kernel[axis]) // geometry.stride[axis] + 1
            if fitting != dims[axis + 1] or max(pads[axis]) >= geometry.kernel[axis]:
                raise NotExactError("windows beyond the padding")
        (top, bottom), (left, right) = pads
        attrs = {"pads": [top, left, bottom, right], "strides": list(geometry.stride)}
        kind = op.get("type")
        if kind == "MAX":
            largest = self.node(
                "NhwcMaxPool", [value], contrib=True, kernel_shape=list(geometry.kernel), **attrs
            )
            return self.requantized(largest, fi - fo)
        if kind == "AVG":
            factor, shift = average_factor(geometry.kernel)
            if factor > 127:
                raise NotExactError(f"the factor {factor} is no int8")
            channels = dims[3]
            weights = np.full((channels, 1, *geometry.kernel), factor, np.int8)
            bias = np.zeros(channels, np.int64)
            cut = shift + fi - fo
            return self.convolution(op.name, value, weights, bias, cut, channels, **attrs)
        raise NotExactError(f"pooling {kind}")

    def _add(self, op: Op) -> str:
        if str(op.get("type", "ADD")) != "ADD":
            raise NotExactError("a product of two tensors")
        sources = self.graph.input_ops(op)
        fix_points = [fix_point(source) for source in sources]
        finest, fo = max(fix_points), fix_point(op)
        if len(sources) == 1:
            return self.activated(self.requantized(self.source(op), finest - fo), op, fo)
        dims = self.dims(op.name)
        if any(self.dims(source.name) != dims for source in sources):
            raise NotExactError("the inputs broadcast")
        if finest - min(fix_points) > 6:
            raise NotExactError("the fix points are further apart than int8 weights reach")
        # The tensors become rows of one picture and the sum a depthwise convolution over them.
        channels, count = dims[-1], len(sources)
        pixels = int(np.prod(dims[1:-1], dtype=np.int64))
        rows = [
            self.reshape(self.read(source.name), [self.batch, 1, pixels, channels])
            for source in sources
        ]
        stacked = self.node("Concat", rows, axis=1)
        factors = np.array([1 << (finest - f) for f in fix_points], np.int8)
        weights = np.tile(factors.reshape(1, 1, count, 1), (channels, 1, 1, 1))
        bias = np.zeros(channels, np.int64)
        total = self.convolution(op.name, stacked, weights, bias, finest - fo, channels)
        return self.activated(self.reshape(total, dims), op, fo)

    def _concat(self, op: Op) -> str:
        same_fix_points(self.graph, op)
        axis = int(op.get("axis"))
        values = [self.read(name) for name in op.inputs["input"]]
        return self.node("Concat", values, axis=axis)

    def _reshape(self, op: Op) -> str:
        same_fix_points(self.graph, op)
        return self.reshape(self.source(op), self.dims(op.name))

    def _copy(self, op: Op) -> str:
        same_fix_points(self.graph, op)
        return self.node("Identity", [self.source(op)])

    def _resample(self, op: Op) -> str:
        if op.type == "upsample-fix" and op.get("mode") != "NEAREST":
            raise NotExactError("blends pixels in float32")
        value = self._taken(self.source(op), resize_sources(self.graph, op))
        return self.requantized(value, fix_point(self.graph.input_ops(op)[0]) - fix_point(op))

    def _pad(self, op: Op) -> str:
        sources = pad_sources(self.graph, op)
        if all(places.min() >= 0 for places in sources):
            return self._taken(self.source(op), sources)
        paddings = [int(v) for v in op.get("paddings")]
        pads = self.initializer("", np.array(paddings[0::2] + paddings[1::2], np.int64))
        return self.node("Pad", [self.source(op), pads, self.scalar(ZERO)])

    def _taken(self, value: str, sources: Sequence[np.ndarray]) -> str:
        for axis, places in enumerate(sources):
            name = f"places{axis}:{len(self._nodes)}"
            value = self.node("Gather", [value, self.initializer(name, places)], axis=axis + 1)
        return value


_EMITTERS: Dict[str, Callable[[Piece, Op], str]] = {
    "conv2d-fix": Piece._convolution,
    "depthwise-conv2d-fix": Piece._convolution,
    "transposed-conv2d-fix": Piece._convolution,
    "transposed-depthwise-conv2d-fix": Piece._convolution,
    "pool-fix": Piece._pool,
    "eltwise-fix": Piece._add,
    "concat-fix": Piece._concat,
    "reshape-fix": Piece._reshape,
    "upload": Piece._copy,
    "download": Piece._copy,
    "identity": Piece._copy,
    "upsample-fix": Piece._resample,
    "downsample-fix": Piece._resample,
    "pad-fix": Piece._pad,
}
