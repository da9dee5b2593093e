"""The quantized graph made regular: every value a fixed-point operator reads comes from a ``fix``.

The quantizer leaves two kinds of value without a ``fix``: operands of a concatenation (they are
rounded once, to the concatenation's fix point) and results of operators that only move data. The
vendor's compiler inserts the missing ones under names of its own, and so does this module.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Dict, List, Tuple

from .xir.attributes import Attr, boolean, int32, int32s, string
from .xir.graph import Graph, Op, float32_tensor

MOVING = ("transpose", "reshape", "flatten", "squeeze")
"""Operators whose result holds exactly the codes of their input."""


def prepare(source: Graph) -> Graph:
    """A copy of a quantized graph in which every operand has its ``fix``.

    * An operand of a concatenation gets the concatenation's fix point: one without a ``fix`` is
      given one, named ``<operand>_inserted_fix_<n>`` as in genuine compiled files. An operand
      with a ``fix`` of another fix point keeps it (others may read it) and is followed by a
      second one; that is exactly what the quantizer computes.
    * A ``fix`` follows every data movement, with the fix point of its input.
    * The target shape of a reshape becomes an attribute.
    """
    return _fix_movements(_fix_concat_operands(_copy(source)))


def fix_attrs(fix_point: int) -> Dict[str, Attr]:
    """The attributes of a ``fix``, ``fix2float`` or ``float2fix`` operator."""
    return {
        "fix_point": int32(fix_point),
        "bit_width": int32(8),
        "round_mode": string("DPU_ROUND"),
        "if_signed": boolean(True),
    }


def _copy(source: Graph) -> Graph:
    graph = Graph(source.name)
    graph.attrs = dict(source.attrs)
    graph.op_defs = list(source.op_defs)
    for op in source.ops.values():
        attrs, inputs = dict(op.attrs), dict(op.inputs)
        if op.type == "reshape" and inputs.get("shape"):
            attrs["shape"] = int32s(op.tensor.dims)
            inputs["shape"] = ()
        graph.add(replace(op, attrs=attrs, inputs=inputs, tensor=replace(op.tensor)))
    return graph


def _fix_concat_operands(source: Graph) -> Graph:
    """Inserts the fixes that concatenations need; see ``prepare``."""
    consumers = source.consumers()
    wanted: Dict[str, int] = {}
    """Concatenation to its fix point."""
    for op in reversed(list(source.ops.values())):
        if op.type != "concat" or len(consumers[op.name]) != 1:
            continue
        reader = consumers[op.name][0]
        if reader.type == "fix":
            wanted[op.name] = reader.get("fix_point")
        elif reader.name in wanted:
            wanted[op.name] = wanted[reader.name]

    graph = _start(source)
    count = 0
    for op in source.ops.values():
        if op.name not in wanted:
            graph.add(op)
            continue
        operands: List[str] = []
        for name in op.inputs["input"]:
            operand = graph.ops[name]
            if operand.type == "fix" and operand.get("fix_point") == wanted[op.name]:
                operands.append(name)
                continue
            inserted = f"{name}_inserted_fix_{count}"
            count += 1
            graph.add(_fix(inserted, operand, wanted[op.name]))
            operands.append(inserted)
        graph.add(replace(op, inputs={**op.inputs, "input": tuple(operands)}))
    return graph


def _fix_movements(source: Graph) -> Graph:
    """Inserts a fix after every data movement that somebody reads without one."""
    consumers = source.consumers()
    graph = _start(source)
    renamed: Dict[str, str] = {}
    for op in source.ops.values():
        inputs: Dict[str, Tuple[str, ...]] = {
            arg: tuple(renamed.get(name, name) for name in names)
            for arg, names in op.inputs.items()
        }
        graph.add(replace(op, inputs=inputs))
        if op.type not in MOVING or not consumers[op.name]:
            continue
        before = graph.ops[inputs["input"][0]]
        if before.type != "fix" or all(c.type == "fix" for c in consumers[op.name]):
            continue
        inserted = f"{op.name}_fix"
        while inserted in source.ops:
            inserted += "_fix"
        graph.add(_fix(inserted, op, before.get("fix_point")))
        renamed[op.name] = inserted
    return graph


def _start(source: Graph) -> Graph:
    graph = Graph(source.name)
    graph.attrs = source.attrs
    graph.op_defs = source.op_defs
    return graph


def _fix(name: str, operand: Op, fix_point: int) -> Op:
    return Op(
        name,
        "fix",
        float32_tensor(name, operand.tensor.dims),
        fix_attrs(fix_point),
        {"input": (operand.name,)},
    )
