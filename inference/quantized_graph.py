"""Execution of the quantizer's ``*_int.xmodel``: float operators with a ``fix`` behind each tensor.

The vendor's quantized model in XIR form (level L1), in numpy and without torch. Every value lies on
a power-of-two grid, so sums are taken in float64 (or in float32 where that holds them) and are
exact; what the vendor computes with a division (average pools, hard sigmoid) is brought back to
its grid before it is rounded.
"""

from __future__ import annotations

from typing import Callable, Dict, List, Mapping, Optional, Sequence

import numpy as np

from ..compile.xir.graph import Graph, Op
from ..compile.xir.soundness import refuse_unsound
from ..errors import FormatError, UnsupportedError
from .cpu_operators import RULES as FLOAT_RULES
from .cpu_operators import float2fix
from .devices import integer_rules as rules
from .devices.operators import refusing, window

Values = Dict[str, np.ndarray]
"""Operator name to array: int8 codes of a ``fix``, float values of anything else."""

_PIECE = 1 << 22
_FLOAT32_TERMS = 2**24 // 2**14
_SNAP = 2.0**40


class QuantizedGraph:
    """A quantized xmodel ready to be executed.

    Args:
        graph: as the quantizer wrote it.

    Attributes:
        graph: as given.
        constants: int8 codes of every parameter, by the name of its ``fix``, in XIR's layout.
        fix_points: fix point of every ``fix`` operator that is no constant, in graph order.

    Raises:
        FormatError: a constant's bytes do not fit its shape, or an operator is impossible.
        UnsupportedError: the graph is compiled.
    """

    def __init__(self, graph: Graph) -> None:
        if graph.subgraphs("DPU"):
            raise UnsupportedError(
                f"Graph {graph.name!r} is compiled, not the quantizer's output",
                f"it has {len(graph.subgraphs('DPU'))} DPU subgraphs",
                "give the *_int.xmodel that quant wrote",
            )
        refuse_unsound(graph, graph.ops.values())
        self.graph = graph
        self.constants = quantized_constants(graph)
        self.fix_points = {
            op.name: position_of(op)
            for op in graph.ops.values()
            if op.type == "fix" and op.name not in self.constants
        }
        self._consts = {o.name: const_array(o) for o in graph.ops.values() if o.type == "const"}

    def run(self, feeds: Mapping[str, np.ndarray], wanted: Sequence[str] = ()) -> Values:
        """Executes everything that follows from what is given.

        Args:
            feeds: operator name to array, the batch first: float32 values of a ``data`` operator,
                or int8 codes of any ``fix``, which then stands for all that is before it.
            wanted: operators that are no ``fix`` whose float result is returned too.

        Returns:
            Int8 codes of every ``fix`` that follows from ``feeds`` (these included), and the
            float32 values of those wanted.

        Raises:
            UnsupportedError: something wanted needs an operator that cannot be executed, or
                attributes have no meaning.
        """
        values: Values = {}
        found: Values = {}
        last = {
            name: op.name for op in self.graph.ops.values() for name in op.inputs.get("input", ())
        }
        blocked: Dict[str, str] = {}
        for op in self.graph.ops.values():
            result = self._result(op, feeds, values, blocked)
            if result is None:
                continue
            values[op.name] = result
            if op.name in self.fix_points:
                found[op.name] = result
            elif op.name in wanted:
                found[op.name] = result.astype(np.float32)
            for name in op.input_names:
                if last.get(name) == op.name:
                    values.pop(name, None)
        for name in wanted:
            if name not in found:
                raise UnsupportedError(
                    f"Tensor {name!r} cannot be computed from what is given",
                    blocked.get(name, f"given: {', '.join(sorted(feeds))}"),
                )
        return found

    def _result(
        self, op: Op, feeds: Mapping[str, np.ndarray], values: Values, blocked: Dict[str, str]
    ) -> Optional[np.ndarray]:
        if op.name in feeds:
            return feeds[op.name]
        if op.name in self.constants:
            return self.constants[op.name]
        if op.type == "const":
            return self._consts[op.name]
        sources = op.inputs.get("input", ())
        missing = [name for name in op.input_names if name not in values and name in sources]
        if op.type == "data" or missing or not sources:
            reasons = [blocked[name] for name in missing if name in blocked]
            blocked[op.name] = reasons[0] if reasons else f"{op.type} {op.name!r} is not given"
            return None
        if not is_supported(op.type):
            blocked[op.name] = f"operator {op.name!r} of type {op.type!r} has no rule"
            return None
        with refusing(op):
            result = self._compute(op, values)
        if result.shape[1:] != tuple(op.tensor.dims[1:]):
            raise UnsupportedError(
                f"Operator {op.name!r} does not give the tensor the model declares",
                f"{op.type} gives {list(result.shape[1:])}, declared {list(op.tensor.dims[1:])}",
            )
        return result

    def _compute(self, op: Op, values: Values) -> np.ndarray:
        if op.type == "fix":
            return _codes(self._real(op.inputs["input"][0], values), position_of(op))
        if op.type in _CONVOLUTIONS:
            return self._convolution(op, values)
        # The second argument of a reshape only restates its size, and may not be computed.
        own = set(op.inputs) <= {"input", "shape"}
        names = op.inputs.get("input", ()) if own else op.input_names
        inputs = [self._real(name, values) for name in names]
        if op.type == "matmul":
            return self._matmul(op, inputs[:2], values)
        rule = RULES.get(op.type)
        return FLOAT_RULES[op.type](op, inputs) if rule is None else rule(op, inputs)

    def _real(self, name: str, values: Values) -> np.ndarray:
        """The values of a tensor: exact, in float64 unless it is a float tensor of the host."""
        array = values[name]
        if array.dtype != np.int8:
            return array
        return array.astype(np.float64) * 2.0 ** -position_of(self.graph.ops[name])

    def _argument(self, op: Op, arg: str, values: Values) -> Optional[np.ndarray]:
        names = op.inputs.get(arg, ())
        return self._real(names[0], values) if names else None

    def _convolution(self, op: Op, values: Values) -> np.ndarray:
        source, kernel = op.inputs["input"][0], op.inputs["weights"][0]
        x, weights, scale = values[source], values[kernel], 1.0
        if x.dtype == np.int8 and weights.dtype == np.int8:
            # Sums of codes are integers: exact in float32 as long as they fit its mantissa.
            terms = int(np.prod(weights.shape[1:]))
            exact = np.float32 if terms <= _FLOAT32_TERMS else np.float64
            positions = [position_of(self.graph.ops[name]) for name in (source, kernel)]
            x, weights, scale = x.astype(exact), weights.astype(exact), 2.0 ** -sum(positions)
        else:
            x, weights = self._real(source, values), self._real(kernel, values)
        acc = _convolved(op, x, weights)
        result = acc.astype(np.float64)
        result *= scale
        bias = self._argument(op, "bias", values)
        if bias is not None:
            result += (
                bias
                if bias.size == result.shape[-1]
                else np.repeat(bias, result.shape[-1] // bias.size)
            )
        return result

    def _matmul(self, op: Op, inputs: Sequence[np.ndarray], values: Values) -> np.ndarray:
        left, right = (array.astype(np.float64) for array in inputs[:2])
        if op.get("transpose_a", False):
            left = left.swapaxes(-1, -2)
        if op.get("transpose_b", False):
            right = right.swapaxes(-1, -2)
        bias = self._argument(op, "bias", values)
        product: np.ndarray = left @ right
        return product if bias is None else product + bias


def is_supported(op_type: str) -> bool:
    """Whether operators of this type of a quantized graph can be executed."""
    return op_type in (*_CONVOLUTIONS, "matmul") or op_type in RULES or op_type in FLOAT_RULES


def position_of(op: Op) -> int:
    """The fix position of a ``fix`` operator of a sound graph."""
    return int(op.get("fix_point"))


def const_array(op: Op) -> np.ndarray:
    """The float32 values of a ``const`` operator.

    Raises:
        FormatError: its bytes are missing or do not fit its shape.
    """
    data = op.get("data") or b""
    if not isinstance(data, bytes) or len(data) != 4 * op.tensor.elements:
        raise FormatError(
            f"The bytes of constant {op.name!r} are missing or do not fit its shape",
            f"{str(data)[:40]!r} for float32 {list(op.tensor.dims)}",
            "export the quantized model again: deepfake-fpga quant --mode test",
        )
    values: np.ndarray = np.frombuffer(data, "<f4").reshape(op.tensor.dims)
    return values


def quantized_constants(graph: Graph) -> Dict[str, np.ndarray]:
    """Int8 codes of every parameter of a quantized graph, by the name of its ``fix``.

    Raises:
        FormatError: see ``const_array``.
    """
    found: Dict[str, np.ndarray] = {}
    for op in graph.ops.values():
        if op.type != "fix":
            continue
        source = graph.input_ops(op)[0]
        if source.type == "const":
            found[op.name] = float2fix(const_array(source), position_of(op))
    return found


# -- rules of single operators ------------------------------------------------------------------

_CONVOLUTIONS = (
    "conv2d",
    "depthwise-conv2d",
    "transposed-conv2d",
    "transposed-depthwise-conv2d",
)


def _convolved(op: Op, x: np.ndarray, weights: np.ndarray) -> np.ndarray:
    geometry = window(op)
    stride, pads = geometry.stride, geometry.pads
    if op.type.startswith("transposed"):
        x = rules.insert_zeros(x, stride)
        stride = (1, 1)
        pads = rules.transposed_pads(geometry.kernel, geometry.dilation, pads)
    (top, bottom), (left, right) = pads
    if min(top, bottom, left, right) < 0:
        raise UnsupportedError(f"Operator {op.name!r} pads by less than nothing", f"{pads}")
    x = np.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)), mode="constant")
    depthwise = "depthwise" in op.type
    groups = 1 if depthwise else int(op.get("group", 1) or 1)
    inputs, outputs = weights.shape[3], weights.shape[0]
    if x.shape[3] != inputs * groups or outputs % groups:
        raise UnsupportedError(
            f"The weights of {op.name!r} do not fit what it reads",
            f"weights {list(weights.shape)}, input with {x.shape[3]} channels, group {groups}",
        )
    rows, columns = (
        (x.shape[a + 1] - (geometry.kernel[a] - 1) * geometry.dilation[a] - 1) // stride[a] + 1
        for a in (0, 1)
    )
    if rows < 1 or columns < 1 or tuple(weights.shape[1:3]) != geometry.kernel:
        raise UnsupportedError(
            f"Operator {op.name!r} has a kernel that does not fit",
            f"kernel {geometry.kernel}, weights {list(weights.shape)}, input {list(x.shape)}",
        )
    count = outputs * x.shape[3] if depthwise else outputs
    acc = np.zeros((len(x), rows, columns, count), x.dtype)
    for dy in range(geometry.kernel[0]):
        for dx in range(geometry.kernel[1]):
            y0, x0 = dy * geometry.dilation[0], dx * geometry.dilation[1]
            tap = x[
                :,
                y0 : y0 + (rows - 1) * stride[0] + 1 : stride[0],
                x0 : x0 + (columns - 1) * stride[1] + 1 : stride[1],
            ]
            if depthwise:
                # Output channel c * M + m.
                parts = tap[..., None] * weights[:, dy, dx].T
                acc += parts.reshape(acc.shape)
                continue
            each = outputs // groups
            for group in range(groups):
                mine = slice(group * each, (group + 1) * each)
                part = tap[..., group * inputs : (group + 1) * inputs]
                acc[..., mine] += part @ weights[mine, dy, dx].T
    return acc


def _pooled(op: Op, x: np.ndarray, fill: float) -> List[np.ndarray]:
    """One array per kernel cell, each of the output's size."""
    if op.get("global", False):
        kernel, stride, pads = (x.shape[1], x.shape[2]), (1, 1), ((0, 0), (0, 0))
    else:
        geometry = window(op)
        kernel, stride, pads = geometry.kernel, geometry.stride, geometry.pads
    size = (int(op.tensor.dims[1]), int(op.tensor.dims[2]))
    grown = []
    for axis in (0, 1):
        reach = (size[axis] - 1) * stride[axis] + kernel[axis]
        before, after = pads[axis]
        grown.append((before, max(after, reach - before - x.shape[axis + 1], 0)))
    x = np.pad(x, ((0, 0), grown[0], grown[1], (0, 0)), mode="constant", constant_values=fill)
    return [
        x[
            :,
            dy : dy + (size[0] - 1) * stride[0] + 1 : stride[0],
            dx : dx + (size[1] - 1) * stride[1] + 1 : stride[1],
        ]
        for dy in range(kernel[0])
        for dx in range(kernel[1])
    ]


def _max_pool(op: Op, x: Sequence[np.ndarray]) -> np.ndarray:
    cells = _pooled(op, x[0], -np.inf)
    largest: np.ndarray = cells[0].copy()
    for cell in cells[1:]:
        np.maximum(largest, cell, out=largest)
    return largest


def _avg_pool(op: Op, x: Sequence[np.ndarray]) -> np.ndarray:
    cells = _pooled(op, x[0], 0.0)
    total = cells[0].astype(np.float64)
    for cell in cells[1:]:
        total += cell
    return total / len(cells)


def _product(op: Op, x: Sequence[np.ndarray]) -> np.ndarray:
    result = x[0].astype(np.float64)
    for other in x[1:]:
        result = result * other
    # A division by the window and the factor against it cancel but for the last bits.
    return np.asarray(np.rint(result * _SNAP) / _SNAP)


def _difference(op: Op, x: Sequence[np.ndarray]) -> np.ndarray:
    return np.asarray(x[0] - x[1])


def _reduction(
    function: Callable[..., np.ndarray],
) -> Callable[[Op, Sequence[np.ndarray]], np.ndarray]:
    def rule(op: Op, x: Sequence[np.ndarray]) -> np.ndarray:
        axes = tuple(int(axis) for axis in op.get("axis"))
        result: np.ndarray = function(x[0], axis=axes, keepdims=bool(op.get("keep_dims", True)))
        return result

    return rule


RULES: Dict[str, Callable[[Op, Sequence[np.ndarray]], np.ndarray]] = {
    "maxpool2d": _max_pool,
    "avgpool2d": _avg_pool,
    "mul": _product,
    "sub": _difference,
    "reduction_max": _reduction(np.max),
    "reduction_mean": _reduction(np.mean),
}
"""Operator type to its rule, where it differs from the host's or the host has none."""


def _codes(values: np.ndarray, position: int) -> np.ndarray:
    """``float2fix`` in pieces: its temporaries would be many times a large tensor."""
    flat = np.ascontiguousarray(values).reshape(-1)
    codes = np.empty(flat.shape, np.int8)
    for start in range(0, flat.size, _PIECE):
        codes[start : start + _PIECE] = float2fix(flat[start : start + _PIECE], position)
    return codes.reshape(values.shape)
