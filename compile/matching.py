"""Which chains of float operators, closed by a ``fix``, are one fixed-point operator of the DPU.

A chain is taken only where the fixed-point operator computes exactly the quantizer's numbers:
nobody else reads what lies inside, and all operands are on their grids.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Dict, Optional, Set, Tuple

import numpy as np

from .preparation import MOVING
from .targets import Target
from .xir.graph import Graph, Op

LEAKY_SLOPE = 0.1015625
"""The only slope a fused leaky ReLU has: 26/256, which the quantizer forces."""

_ACTIVATIONS = {"relu": "RELU", "relu6": "RELU6", "leaky-relu": "LEAKYRELU"}
_CONVOLUTIONS = (
    "conv2d",
    "depthwise-conv2d",
    "transposed-conv2d",
    "transposed-depthwise-conv2d",
)

_AVERAGE_FACTORS: Dict[Tuple[int, int], Tuple[int, int]] = {
    (3, 3): (7, 6),
    (5, 5): (10, 8),
    (6, 6): (7, 8),
    (7, 7): (21, 10),
    (14, 14): (21, 12),
}


@dataclass(frozen=True)
class Match:
    """A chain that becomes one fixed-point operator.

    Attributes:
        kind: what it becomes: the XIR type of the fixed-point operator, or ``matmul``.
        head: the operator that computes.
        fix: the ``fix`` that closes the chain; its fix point is the result's.
        inputs: names of the activations it reads (``fix`` operators).
        nonlinear: ``NONE``, ``RELU``, ``RELU6`` or ``LEAKYRELU``.
        inner: names of the operators the chain absorbs, without ``fix``.
        flavour: ``MAX``/``AVG`` of a pooling, ``ADD``/``MUL`` of an element-wise operator.
    """

    kind: str
    head: Op
    fix: Op
    inputs: Tuple[str, ...]
    nonlinear: str = "NONE"
    inner: Tuple[str, ...] = ()
    flavour: str = ""


def find_matches(graph: Graph, target: Target, outputs: Set[str]) -> Dict[str, Match]:
    """Every chain of a prepared graph that becomes one operator, by the name of its ``fix``.

    Args:
        graph: from ``preparation.prepare``.
        target: decides whether a product of two activations is for the DPU.
        outputs: operators whose value leaves the graph; they are never inside a chain.
    """
    finder = _Finder(graph, target, outputs)
    matches = {}
    for op in graph.ops.values():
        if op.type == "fix":
            match = finder.match(op)
            if match is not None:
                matches[op.name] = match
    return matches


def average_factor(height: int, width: int) -> Tuple[int, int]:
    """``(N, M)`` by which the DPU averages: a sum times ``N / 2^M``.

    Five square kernels have fixed values; for the others it is the first closest ``N / 2^M`` with
    ``M`` up to ``ceil(log2(128 * height * width)) - 1``.
    """
    if (height, width) in _AVERAGE_FACTORS:
        return _AVERAGE_FACTORS[(height, width)]
    area = height * width
    best, distance = (1, 0), math.inf
    for shift in range(math.ceil(math.log2(128 * area))):
        factor = math.floor(2**shift / area + 0.5)
        error = abs(factor / 2**shift - 1 / area)
        if error < distance:
            best, distance = (factor, shift), error
    return best


def constant_of(graph: Graph, name: str) -> Optional[Op]:
    """The ``const`` behind the ``fix`` called ``name``, ``None`` if that is no fixed constant."""
    op = graph.ops[name]
    if op.type != "fix":
        return None
    source = graph.ops[op.inputs["input"][0]]
    return source if source.type == "const" else None


def reduced_kernel(graph: Graph, op: Op) -> Optional[Tuple[int, int]]:
    """``(width, height)`` of the pooling that a reduction is, ``None`` if it is none."""
    dims = graph.ops[op.inputs["input"][0]].tensor.dims
    axes = set(op.get("axis", ()))
    if len(dims) != 4 or not op.get("keep_dims") or not axes or not axes <= {1, 2}:
        return None
    return dims[2] if 2 in axes else 1, dims[1] if 1 in axes else 1


class _Finder:
    def __init__(self, graph: Graph, target: Target, outputs: Set[str]) -> None:
        self.graph = graph
        self.target = target
        self.outputs = outputs
        self.consumers = graph.consumers()

    def match(self, fix: Op) -> Optional[Match]:
        """The chain that ``fix`` closes."""
        last = self.graph.ops[fix.inputs["input"][0]]
        if last.type == "fix":
            if constant_of(self.graph, last.name) is not None:
                return None
            # One value under a second fix point: an addition of a single operand.
            return Match("eltwise-fix", fix, fix, (last.name,), flavour="ADD")
        if not self.inside(last):
            return None
        nonlinear = "NONE"
        head = last
        if last.type in _ACTIVATIONS:
            if last.type == "leaky-relu" and last.get("alpha") != LEAKY_SLOPE:
                return None
            nonlinear = _ACTIVATIONS[last.type]
            head = self.graph.ops[last.inputs["input"][0]]
            if head.type == "fix" and last.type == "relu" and self.is_activation(head.name):
                return Match("eltwise-fix", last, fix, (head.name,), nonlinear, (last.name,), "ADD")
            if not self.inside(head):
                return None
        match = self.computing(fix, head, nonlinear)
        if match is None and nonlinear == "NONE":
            match = self.pooling(fix, head) or self.moving(fix, head)
        if match is None or not all(self.is_activation(name) for name in match.inputs):
            return None
        inner = {last.name, head.name, *match.inner}
        return Match(
            match.kind,
            match.head,
            fix,
            match.inputs,
            nonlinear,
            tuple(name for name in self.graph.ops if name in inner),
            match.flavour,
        )

    def computing(self, fix: Op, head: Op, nonlinear: str) -> Optional[Match]:
        """A convolution, a matrix product, an addition or a product."""
        inputs = head.inputs.get("input", ())
        if head.type in _CONVOLUTIONS:
            if head.type == "conv2d" and head.get("group", 1) != 1:
                return None
            if not self.has_constants(head, head.inputs.get("weights", ())):
                return None
            return Match(f"{head.type}-fix", head, fix, inputs)
        if head.type == "matmul":
            if (
                len(inputs) != 2
                or head.get("transpose_a", False)
                or len(head.tensor.dims) != 2
                or head.tensor.dims[0] != 1
                or not self.has_constants(head, inputs[1:])
            ):
                return None
            return Match("matmul", head, fix, inputs[:1])
        if head.type == "add" and nonlinear in ("NONE", "RELU") and self.same_shape(head):
            return Match("eltwise-fix", head, fix, inputs, flavour="ADD")
        if head.type == "mul" and nonlinear == "NONE" and "MUL" in self.target.eltwise_types:
            if len(inputs) != 2 or not self.same_shape(head):
                return None
            return Match("eltwise-fix", head, fix, inputs, flavour="MUL")
        return None

    def pooling(self, fix: Op, head: Op) -> Optional[Match]:
        """A pooling; an average may carry the quantizer's correction factor as a product."""
        inputs = head.inputs.get("input", ())
        if head.type == "maxpool2d":
            return Match("pool-fix", head, fix, inputs, flavour="MAX")
        if head.type == "reduction_max":
            axes = tuple(sorted(head.get("axis", ())))
            if (
                head.get("keep_dims")
                and axes in ((1,), (2,), (1, 2))
                and len(head.tensor.dims) == 4
            ):
                return Match("pool-fix", head, fix, inputs, flavour="MAX")
            return None
        factor = 1.0
        pool = head
        if head.type == "mul" and len(inputs) == 2:
            pool, constant = (self.graph.ops[name] for name in inputs)
            if constant.type != "const" or constant.tensor.elements != 1:
                return None
            factor = float(np.frombuffer(constant.get("data"), np.float32)[0])
            if not self.inside(pool):
                return None
        if pool.type != "avgpool2d" or pool.get("pad_mode") == "CEIL":
            return None
        if any(pool.get("pad", ())) and not pool.get("count_include_pad", True):
            return None
        width, height = pool.get("kernel")
        numerator, shift = average_factor(height, width)
        if np.float32(factor) != np.float32(numerator * height * width / 2.0**shift):
            return None
        return Match("pool-fix", pool, fix, pool.inputs["input"], inner=(pool.name,), flavour="AVG")

    def moving(self, fix: Op, head: Op) -> Optional[Match]:
        """A concatenation, or a movement that keeps every byte where it is."""
        inputs = head.inputs.get("input", ())
        fix_points = {self.graph.ops[name].get("fix_point") for name in inputs}
        if fix_points != {fix.get("fix_point")}:
            return None
        if head.type == "concat":
            return Match("concat-fix", head, fix, inputs)
        if head.type in MOVING and (head.type != "transpose" or self.keeps_order(head)):
            return Match("reshape-fix", head, fix, inputs)
        return None

    def keeps_order(self, transpose: Op) -> bool:
        """Whether a transpose only moves axes of length 1."""
        dims = self.graph.ops[transpose.inputs["input"][0]].tensor.dims
        moved = [axis for axis in transpose.get("order") if dims[axis] != 1]
        return moved == sorted(moved)

    def inside(self, op: Op) -> bool:
        """Whether nobody but the chain reads ``op``."""
        return len(self.consumers[op.name]) == 1 and op.name not in self.outputs

    def is_activation(self, name: str) -> bool:
        """Whether ``name`` is a value on a grid that is no constant."""
        op = self.graph.ops[name]
        return op.type == "fix" and constant_of(self.graph, name) is None

    def has_constants(self, head: Op, weights: Tuple[str, ...]) -> bool:
        """Whether the weights, and the bias if there is one, are constants on a grid."""
        names = (*weights, *head.inputs.get("bias", ()))
        return len(weights) == 1 and all(
            constant_of(self.graph, name) is not None for name in names
        )

    def same_shape(self, head: Op) -> bool:
        """Whether all operands have the result's shape (the DPU does not broadcast)."""
        return all(
            self.graph.ops[name].tensor.dims == head.tensor.dims for name in head.inputs["input"]
        )
