"""Operators of a compiled model that run on the host: float arithmetic and the borders to int8.

Arrays carry the batch first where the file says 1. Formulas: rounding and the two conversions as
the DPU's (ties go up, saturating); everything else is the plain float32 definition.
"""

from __future__ import annotations

from typing import Callable, Dict, List, Mapping

import numpy as np

from ..compile.xir.graph import Graph, Op
from ..errors import UnsupportedError
from .devices import operators
from .float_operators import FLOAT_RULES
from .resizing import resize

Rule = Callable[[Op, List[np.ndarray]], np.ndarray]


def run_cpu_operator(graph: Graph, op: Op, values: Mapping[str, np.ndarray]) -> np.ndarray:
    """Runs one operator; fixed-point ones that the compiler left to the host by their integer rule.

    Args:
        graph: the model.
        op: the operator.
        values: at least the tensors it reads, by operator name.

    Returns:
        The operator's tensor.

    Raises:
        UnsupportedError: there is no rule for the operator's type.
    """
    if op.type in RULES:
        with operators.refusing(op):
            return RULES[op.type](op, [values[name] for name in op.input_names])
    if operators.is_supported(op.type):
        return operators.run_operator(graph, op, values)
    raise UnsupportedError(
        f"Operator type {op.type!r} cannot be run on the host",
        f"operator {op.name!r} of {graph.name!r}; known: {', '.join(sorted(RULES))}",
    )


def is_supported(op_type: str) -> bool:
    """Whether ``run_cpu_operator`` has a rule for this type."""
    return op_type in RULES or operators.is_supported(op_type)


def float2fix(values: np.ndarray, fix_point: int, signed: bool = True) -> np.ndarray:
    """``clip(floor(x * 2^fix_point + 1/2))``: float32 to int8, or uint8 if not ``signed``.

    Not-a-number gives 0.
    """
    scaled = np.floor(values.astype(np.float64) * 2.0**fix_point + 0.5)
    scaled[np.isnan(scaled)] = 0
    if signed:
        return np.asarray(np.clip(scaled, -128, 127), np.int8)
    return np.asarray(np.clip(scaled, 0, 255), np.uint8)


def fix2float(codes: np.ndarray, fix_point: int) -> np.ndarray:
    """``code * 2^-fix_point`` in float32, exact."""
    return np.asarray(codes.astype(np.float32) * np.float32(2.0**-fix_point))


def sigmoid(values: np.ndarray) -> np.ndarray:
    """``1 / (1 + exp(-x))``, float32 in and out, without overflow."""
    x = values.astype(np.float64)
    small = np.exp(-np.abs(x))
    return np.asarray(np.where(x >= 0, 1.0 / (1.0 + small), small / (1.0 + small)), np.float32)


def softmax(values: np.ndarray, axis: int = -1) -> np.ndarray:
    """``exp(x - max) / sum``, float32."""
    powers = np.exp(values - values.max(axis=axis, keepdims=True))
    result: np.ndarray = (powers / powers.sum(axis=axis, keepdims=True)).astype(np.float32)
    return result


def _sigmoid(op: Op, x: List[np.ndarray]) -> np.ndarray:
    return sigmoid(x[0])


def _softmax(op: Op, x: List[np.ndarray]) -> np.ndarray:
    return softmax(x[0], int(op.get("axis", -1)))


def _fix2float(op: Op, x: List[np.ndarray]) -> np.ndarray:
    return fix2float(x[0], int(op.get("fix_point")))


def _float2fix(op: Op, x: List[np.ndarray]) -> np.ndarray:
    return float2fix(x[0], int(op.get("fix_point")), bool(op.get("if_signed", True)))


def _fix(op: Op, x: List[np.ndarray]) -> np.ndarray:
    fix_point = int(op.get("fix_point"))
    return fix2float(float2fix(x[0], fix_point), fix_point)


def _relu(op: Op, x: List[np.ndarray]) -> np.ndarray:
    return np.asarray(np.maximum(x[0], np.float32(0)))


def _relu6(op: Op, x: List[np.ndarray]) -> np.ndarray:
    return np.asarray(np.clip(x[0], np.float32(0), np.float32(6)))


def _leaky_relu(op: Op, x: List[np.ndarray]) -> np.ndarray:
    return np.where(x[0] < 0, x[0] * np.float32(op.get("alpha", 0.1015625)), x[0])


def _tanh(op: Op, x: List[np.ndarray]) -> np.ndarray:
    return np.asarray(np.tanh(x[0]))


def _hard_sigmoid(op: Op, x: List[np.ndarray]) -> np.ndarray:
    result: np.ndarray = np.clip(x[0] + np.float32(3), np.float32(0), np.float32(6)) / np.float32(6)
    return result


def _transpose(op: Op, x: List[np.ndarray]) -> np.ndarray:
    moved: np.ndarray = x[0].transpose(op.get("order"))
    return moved


def _reshape(op: Op, x: List[np.ndarray]) -> np.ndarray:
    return x[0].reshape((x[0].shape[0], *op.tensor.dims[1:]))


def _concat(op: Op, x: List[np.ndarray]) -> np.ndarray:
    return np.concatenate(x, axis=int(op.get("axis")))


def _argmax(op: Op, x: List[np.ndarray]) -> np.ndarray:
    result: np.ndarray = np.argmax(x[0], axis=int(op.get("axis")))
    return result.reshape((x[0].shape[0], *op.tensor.dims[1:])).astype(np.int32)


def _add(op: Op, x: List[np.ndarray]) -> np.ndarray:
    return _folded(np.add, x)


def _mul(op: Op, x: List[np.ndarray]) -> np.ndarray:
    return _folded(np.multiply, x)


def _folded(function: np.ufunc, x: List[np.ndarray]) -> np.ndarray:
    total = x[0]
    for other in x[1:]:
        total = function(total, other)
    return total


def _resize(op: Op, x: List[np.ndarray]) -> np.ndarray:
    return resize(
        x[0],
        (op.tensor.dims[1], op.tensor.dims[2]),
        str(op.get("mode")),
        bool(op.get("align_corners", False)),
        bool(op.get("half_pixel_centers", False)),
    )


RULES: Dict[str, Rule] = {
    "sigmoid": _sigmoid,
    "softmax": _softmax,
    "fix2float": _fix2float,
    "float2fix": _float2fix,
    "fix": _fix,
    "relu": _relu,
    "relu6": _relu6,
    "leaky-relu": _leaky_relu,
    "tanh": _tanh,
    "hard-sigmoid": _hard_sigmoid,
    "transpose": _transpose,
    "reshape": _reshape,
    "flatten": _reshape,
    "squeeze": _reshape,
    "concat": _concat,
    "argmax": _argmax,
    "argmax-fix": _argmax,
    "add": _add,
    "mul": _mul,
    "resize": _resize,
    **FLOAT_RULES,
}
"""Operator type to rule."""
