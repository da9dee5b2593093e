"""A quantized graph as the operators of a compiled model: ``*-fix``, and floats for the rest.

Names follow genuine compiled models: an operator keeps the name of the float operator it comes
from, its tensor has the name of the ``fix`` that closed it, a constant is ``<name>_new``, a dense
layer is ``<name>(TransferMatMulToConv2d)``, a conversion to float is ``<tensor>_<reader>``.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Dict, List, Optional, Sequence, Set, Tuple

import numpy as np

from ..errors import FormatError
from .matching import Match, constant_of, find_matches
from .preparation import fix_attrs, prepare
from .targets import Target
from .windows import convolution_attrs, pool_attrs, unused_shifts
from .xir.attributes import Attr, blob, int32, int32s, string
from .xir.graph import Graph, Op, Tensor, float32_tensor, int8_tensor


@dataclass
class Lowered:
    """A quantized graph with fixed-point operators, not yet divided among devices.

    Attributes:
        graph: operators in topological order; every ``const-fix`` has empty ``data``.
        constants: int8 values of every ``const-fix``, by operator name.
        outputs: names of the operators whose tensors are the model's outputs, in order.
        return_ops: the outputs' names as the quantizer gave them, in the same order.
        ranks: place in the quantized file of the operator that each one comes from.
    """

    graph: Graph
    constants: Dict[str, np.ndarray] = field(default_factory=dict)
    outputs: List[str] = field(default_factory=list)
    return_ops: List[str] = field(default_factory=list)
    ranks: Dict[str, int] = field(default_factory=dict)


def lower(source: Graph, target: Target) -> Lowered:
    """Replaces float operators between ``fix`` operators by fixed-point ones.

    Whatever has no exact fixed-point form stays a float operator, with conversions around it.

    Args:
        source: the quantizer's ``*_int.xmodel``.
        target: the DPU that the result is for.

    Raises:
        FormatError: the graph is no quantizer's output: nothing in it is quantized, its batch is
            not 1, a constant is off its grid, or it names an output that it does not have.
    """
    check_quantized(source)
    return _Lowering(source, target).run()


def check_quantized(source: Graph) -> None:
    """Refuses what is no quantizer's output for one image.

    Raises:
        FormatError: nothing in it is quantized, it is compiled already, or its batch is not 1.
    """
    if not any(op.type == "fix" for op in source.ops.values()):
        kind = "is compiled already" if source.root.children else "is not quantized"
        raise FormatError(
            f"Graph {source.name!r} {kind}: it has no fix operators",
            f"{len(source.ops)} operators",
            "pass the quantizer's *_int.xmodel: deepfake-fpga compile -x UYNet_int.xmodel",
        )
    batches = {op.tensor.dims[0] for op in source.ops.values() if op.type == "data"}
    if batches - {1}:
        raise FormatError(
            f"Graph {source.name!r} was exported with a batch of {max(batches)}",
            "a model is compiled for one image; the card runs one on each of its engines",
            "export it again with a batch of 1: deepfake-fpga quant --mode test",
        )


def output_names(source: Graph) -> List[str]:
    """A quantized graph's outputs: ``return_ops``, or else what nobody reads, in file order.

    Raises:
        FormatError: it names an output that it does not have.
    """
    named = source.get("return_ops")
    if named is None:
        # A constant nobody reads (the shape of a reshape) is no output.
        dead: Set[str] = set()
        for op in source.ops.values():
            if op.type == "const" or (op.input_names and dead.issuperset(op.input_names)):
                dead.add(op.name)
        return [op.name for op in source.tail_ops() if op.name not in dead]
    missing = [name for name in named if name not in source.ops]
    if missing:
        raise FormatError(
            f"Graph {source.name!r} names outputs that it does not have",
            ", ".join(missing),
            "export the quantized model again: deepfake-fpga quant --mode test",
        )
    return list(named)


@dataclass
class _Value:
    """Where the value of a source operator stands in the new graph.

    Attributes:
        fixed: operator with its int8 codes.
        floating: operator with its float32 values.
        spatial: operator with the codes of a rank 2 value as NHWC.
        permuted: that operator's channels come last where the value's come first.
    """

    fixed: Optional[str] = None
    floating: Optional[str] = None
    spatial: Optional[str] = None
    permuted: bool = False


class _Lowering:
    def __init__(self, source: Graph, target: Target) -> None:
        self.source = prepare(source)
        self.graph = Graph(source.name)
        self.graph.attrs = dict(source.attrs)
        self.consumers = self.source.consumers()
        self.return_ops = output_names(self.source)
        self.matches = find_matches(self.source, target, set(self.return_ops))
        self.absorbed: Set[str] = {n for m in self.matches.values() for n in m.inner}
        self.values: Dict[str, _Value] = {}
        self.constants: Dict[str, np.ndarray] = {}
        self.origin: Dict[str, str] = {}
        """New operator to the source's that computes the same, where the names differ."""
        self.outputs: List[str] = []

    def run(self) -> Lowered:
        for op in self.source.ops.values():
            if op.name in self.matches:
                self.values[op.name] = self.emit(self.matches[op.name])
            elif not self.is_inner(op):
                self.values[op.name] = self.keep(op)
        self.outputs = [self.float_output(name) for name in self.return_ops]
        self.drop_unused()
        return Lowered(self.graph, self.constants, self.outputs, self.return_ops, self.ranks())

    def ranks(self) -> Dict[str, int]:
        """Place in the quantized file of what each operator comes from, borders not included."""
        place = {name: index for index, name in enumerate(self.source.ops)}
        origins = {name: self.origin.get(name, name) for name in self.graph.ops}
        return {name: place[origin] for name, origin in origins.items() if origin in place}

    def is_inner(self, op: Op) -> bool:
        """Whether ``op`` is part of a chain, or a constant, which is added when it is read."""
        if op.name in self.absorbed or op.type == "const":
            return True
        return constant_of(self.source, op.name) is not None

    # Fixed-point operators.

    def emit(self, match: Match) -> _Value:
        """Adds the operator that a chain becomes."""
        if match.kind == "matmul":
            return self.emit_dense(match)
        if match.kind == "reshape-fix":
            return self.emit_reshape(match)
        inputs: Dict[str, Tuple[str, ...]] = {"input": tuple(self.fixed(n) for n in match.inputs)}
        head = match.head
        if match.kind == "pool-fix":
            attrs: Dict[str, Attr] = pool_attrs(self.source, match)
        elif match.kind == "eltwise-fix":
            attrs = {"nonlinear": string(match.nonlinear), "type": string(match.flavour)}
        elif match.kind == "concat-fix":
            attrs = {"axis": int32(head.get("axis"))}
        else:
            weights = self.constant(head.inputs["weights"][0])
            first = self.graph.ops[inputs["input"][0]].type in ("data-fix", "float2fix")
            attrs = convolution_attrs(self.source, match, weights.shape, first)
            inputs.update(self.parameters(head, weights, head.inputs["weights"][0]))
        # The chain of an average begins with its pooling but is named by the product.
        name = match.inner[-1] if match.flavour == "AVG" else head.name
        tensor = int8_tensor(match.fix.name, match.fix.tensor.dims, match.fix.get("fix_point"))
        return _Value(fixed=self.add(Op(name, match.kind, tensor, attrs, inputs)))

    def emit_dense(self, match: Match) -> _Value:
        """Adds a dense layer: a convolution over the whole map, and its result as a row."""
        head, fix = match.head, match.fix
        given = head.inputs["input"][1]
        weights = self.constant(given)
        if not head.get("transpose_b", False):
            weights = weights.T
        outputs, count = weights.shape
        value = self.values[match.inputs[0]]
        source = value.spatial
        if source is None or max(self.graph.ops[source].tensor.dims[1:3]) > 16:
            source = self.reshaped(self.fixed(match.inputs[0]), (1, 1, 1, count))
            value = _Value(spatial=source)
        _, height, width, channels = self.graph.ops[source].tensor.dims
        if value.permuted:
            kernel = weights.reshape(outputs, channels, height, width).transpose(0, 2, 3, 1)
        else:
            kernel = weights.reshape(outputs, height, width, channels)
        kernel = np.ascontiguousarray(kernel)
        attrs: Dict[str, Attr] = {
            "kernel": int32s((width, height)),
            "stride": int32s((1, 1)),
            "dilation": int32s((1, 1)),
            "pad": int32s((0, 0, 0, 0)),
            "pad_mode": string("FLOOR"),
            "nonlinear": string(match.nonlinear),
            **unused_shifts(),
        }
        inputs = {"input": (source,), **self.parameters(head, kernel, given)}
        fix_point = fix.get("fix_point")
        moved = f"{fix.name}(MoveReshape)"
        self.origin[f"{head.name}(TransferMatMulToConv2d)"] = head.name
        dense = self.add(
            Op(
                f"{head.name}(TransferMatMulToConv2d)",
                "conv2d-fix",
                int8_tensor(moved, (1, 1, 1, outputs), fix_point),
                attrs,
                inputs,
            )
        )
        tensor = int8_tensor(fix.name, fix.tensor.dims, fix_point)
        row = self.add(_reshape(f"{moved}_reshaped", dense, tensor))
        return _Value(fixed=row, spatial=dense)

    def emit_reshape(self, match: Match) -> _Value:
        """Adds a movement that keeps every byte where it is."""
        fix = match.fix
        tensor = int8_tensor(fix.name, fix.tensor.dims, fix.get("fix_point"))
        source = self.fixed(match.inputs[0])
        value = _Value(fixed=self.add(_reshape(match.head.name, source, tensor)))
        if len(fix.tensor.dims) == 2:
            before = self.map_before(match.inputs[0])
            if before is not None:
                value.spatial, value.permuted = before
        return value

    def map_before(self, name: str) -> Optional[Tuple[str, bool]]:
        """The NHWC map that a rank 2 value was, and whether it was turned to NCHW on the way."""
        op = self.source.ops[name]
        if len(op.tensor.dims) == 4:
            before = self.source.ops[op.inputs["input"][0]]
            if before.type == "transpose" and before.get("order") == (0, 3, 1, 2):
                origin = self.values[before.inputs["input"][0]].fixed
                return None if origin is None else (origin, True)
            return self.fixed(name), False
        value = self.values[name]
        return None if value.spatial is None else (value.spatial, value.permuted)

    def parameters(self, head: Op, weights: np.ndarray, name: str) -> Dict[str, Tuple[str, ...]]:
        """Adds the weights and the bias of a layer and returns the two input lists."""
        inputs: Dict[str, Tuple[str, ...]] = {"weights": (self.add_constant(name, weights),)}
        bias = head.inputs.get("bias", ())
        if bias:
            inputs["bias"] = (self.add_constant(bias[0], self.constant(bias[0])),)
        return inputs

    def constant(self, name: str) -> np.ndarray:
        """The int8 codes of the fixed constant ``name``.

        Raises:
            FormatError: a value is not on the grid of its fix point.
        """
        fix = self.source.ops[name]
        const = self.source.ops[fix.inputs["input"][0]]
        data = const.get("data", b"")
        if len(data) != 4 * const.tensor.elements:
            raise FormatError(
                f"Constant {const.name!r} has {len(data)} bytes",
                f"{const.tensor.elements} float32 values are wanted",
                "export the quantized model again: deepfake-fpga quant --mode test",
            )
        values = np.frombuffer(data, np.float32).astype(np.float64)
        scaled = values * 2.0 ** fix.get("fix_point")
        codes = np.clip(np.rint(scaled), -128, 127)
        wrong = int(np.count_nonzero(codes != scaled))
        if wrong:
            worst = int(np.argmax(np.abs(codes - scaled)))
            raise FormatError(
                f"Constant {const.name!r} is not on the grid of its fix point",
                f"{wrong} of {values.size} values, such as {values[worst]} at fix point"
                f" {fix.get('fix_point')}",
                "export the quantized model again: deepfake-fpga quant --mode test",
            )
        result: np.ndarray = codes.astype(np.int8).reshape(const.tensor.dims)
        return result

    def add_constant(self, name: str, codes: np.ndarray) -> str:
        """Adds a ``const-fix`` for one reader; a shared constant is stored once per reader."""
        fix = self.source.ops[name]
        base = f"{fix.inputs['input'][0]}_new"
        own, suffix = base, 1
        while own in self.graph.ops:
            own, suffix = f"{base}_{suffix}", suffix + 1
        tensor_name = fix.name if own == base else f"{fix.name}_{suffix - 1}"
        self.constants[own] = codes
        self.origin[own] = fix.inputs["input"][0]
        attrs = {
            "shape": int32s(codes.shape),
            "data_type": string("XINT8"),
            "data": blob(b""),
        }
        tensor = int8_tensor(tensor_name, codes.shape, fix.get("fix_point"))
        return self.add(Op(own, "const-fix", tensor, attrs))

    # Operators that stay, and the borders between the two worlds.

    def keep(self, op: Op) -> _Value:
        """Adds an operator that has no fixed-point form."""
        if op.type == "data":
            readers = self.consumers[op.name]
            if [r.type for r in readers] == ["fix"] and op.name not in self.return_ops:
                return _Value()
            return _Value(floating=self.add(replace(op, attrs=dict(op.attrs))))
        if op.type == "fix":
            return self.keep_fix(op)
        inputs = {
            arg: tuple(self.floating(name, op) for name in names)
            for arg, names in op.inputs.items()
        }
        kept = replace(op, attrs=dict(op.attrs), inputs=inputs, tensor=replace(op.tensor))
        return _Value(floating=self.add(kept))

    def keep_fix(self, op: Op) -> _Value:
        """Adds the border at a ``fix`` that closes no chain: an input, or a float operator."""
        before = self.source.ops[op.inputs["input"][0]]
        fix_point, dims = op.get("fix_point"), op.tensor.dims
        if before.type == "data" and self.values[before.name].floating is None:
            attrs = dict(before.attrs)
            attrs["data_type"] = string("XINT8")
            tensor = int8_tensor(op.name, dims, fix_point)
            return _Value(fixed=self.add(Op(before.name, "data-fix", tensor, attrs)))
        source = self.floating(before.name, op)
        fixed_readers = [
            r for r in self.consumers[op.name] if r.name in self.absorbed or r.name in self.matches
        ]
        if not fixed_readers:
            tensor = float32_tensor(op.name, dims)
            kept = Op(op.name, "fix", tensor, fix_attrs(fix_point), {"input": (source,)})
            return _Value(floating=self.add(kept))
        tensor = int8_tensor(op.name, dims, fix_point)
        border = Op(op.name, "float2fix", tensor, fix_attrs(fix_point), {"input": (source,)})
        return _Value(fixed=self.add(border))

    def fixed(self, name: str) -> str:
        """The operator with the int8 codes of the source's ``name``."""
        found = self.values[name].fixed
        if found is None:
            raise FormatError(f"Value {name!r} of graph {self.source.name!r} has no codes")
        return found

    def floating(self, name: str, reader: Optional[Op]) -> str:
        """The operator with the float values of ``name``, converted for ``reader`` if need be."""
        op = self.source.ops[name]
        if name not in self.values:
            inputs = {arg: tuple(self.floating(n, op) for n in ns) for arg, ns in op.inputs.items()}
            kept = replace(op, attrs=dict(op.attrs), inputs=inputs, tensor=replace(op.tensor))
            self.values[name] = _Value(floating=self.add(kept))
        value = self.values[name]
        if value.floating is not None:
            return value.floating
        own = f"{name}_{reader.name if reader is not None else ''}"
        if own in self.graph.ops:
            return own
        attrs = fix_attrs(op.get("fix_point"))
        inputs = {"input": (self.fixed(name),)}
        return self.add(Op(own, "fix2float", float32_tensor(own, op.tensor.dims), attrs, inputs))

    def float_output(self, name: str) -> str:
        """The operator that carries the model's output ``name`` as float values."""
        return self.floating(name, None)

    def reshaped(self, source: str, dims: Sequence[int]) -> str:
        """Adds an NHWC view of a rank 2 value."""
        tensor = self.graph.ops[source].tensor
        name = f"{tensor.name}(reshaped)"
        if name in self.graph.ops:
            return name
        return self.add(_reshape(name, source, int8_tensor(name, dims, tensor.fix_point or 0)))

    def add(self, op: Op) -> str:
        return self.graph.add(op).name

    def drop_unused(self) -> None:
        """Removes what neither an output nor a kept operator reads; inputs stay."""
        needed: Set[str] = set(self.outputs)
        for op in reversed(list(self.graph.ops.values())):
            if op.name in needed or op.type in ("data", "data-fix"):
                needed.add(op.name)
                needed.update(op.input_names)
        self.graph.ops = {name: op for name, op in self.graph.ops.items() if name in needed}
        self.constants = {n: codes for n, codes in self.constants.items() if n in needed}


def _reshape(name: str, source: str, tensor: Tensor) -> Op:
    return Op(name, "reshape-fix", tensor, {"shape": int32s(tensor.dims)}, {"input": (source,)})
