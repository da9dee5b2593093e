"""Fix positions made to suit the DPU's shifters, once, after calibration.

The DPU shifts a 32-bit accumulator right by ``cut = weight + input - output`` and a bias left by
``weight + input - bias``; both have limits (rules 4.3 and 4.4 of the vendor's quantizer). The
calibration run itself does not see the adjusted positions.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Collection, Dict, FrozenSet, List, Mapping, Optional

from . import graph as g
from .graph import Node, QuantizerGraph
from .groups import QUANTIZABLE, Entries

_MAX_SHIFT = 16
_ACCUMULATOR_BITS = 24
_GATE_POSITION = 7
_GATES = frozenset({g.SIGMOID, g.TANH})


@dataclass(frozen=True)
class Positions:
    """Fix positions around one weighted operator; ``bias`` is ``None`` where it has none."""

    input: int
    weight: int
    bias: Optional[int]
    output: int


def legal_shifts(given: Positions) -> Positions:
    """``given`` with the fewest changes that keep both shifts within the DPU's limits.

    The accumulator's shift must lie in 0..16: a negative one lowers the output's position, one
    too large the weight's. The bias may be finer than the accumulator by no more than the bits
    that are cut off (and never beyond 16 bits), and coarser by 16 at most.
    """
    cut = given.weight + given.input - given.output
    result = given
    if cut < 0:
        result = replace(result, output=given.output + cut)
    elif cut > _MAX_SHIFT:
        result = replace(result, weight=given.weight - cut + _MAX_SHIFT)
    if given.bias is None:
        return result
    shift = result.weight + given.input - given.bias
    least = min(0, -(_ACCUMULATOR_BITS - (8 + cut)))
    if shift < least:
        result = replace(result, bias=given.bias + shift - least)
    elif shift > _MAX_SHIFT:
        result = replace(result, weight=result.weight - shift + _MAX_SHIFT)
    return result


ALIGNED: Mapping[str, FrozenSet[str]] = {
    "concat": frozenset({g.CONCAT}),
    "add": frozenset({g.ADD}),
    "pool": frozenset({g.MAXPOOL, g.AVGPOOL, g.ADAPTIVE_AVGPOOL}),
}
"""Operators whose inputs may be given the position of their result, by the word for them."""


def adjust(
    graph: QuantizerGraph,
    entries: Entries,
    params: Dict[str, int],
    outputs: Dict[Node, int],
    aligned: Collection[str] = (),
) -> List[str]:
    """Changes ``params`` and ``outputs`` in place; says in words what it changed.

    The inputs of ``aligned`` operators (words of ``ALIGNED``) come first, from the last node to the
    first. The other rules run in node order, in releases before 3.5 those for shifts after all
    others.
    """
    notes: List[str] = []
    release = graph.release
    if release.null_stops_adjustment and any(n.op not in _GATES for n in entries.unfilled):
        return notes

    def entry(node: Node) -> Node:
        return node if node in outputs else entries.carriers[node]

    def move(node: Node, position: int, reason: str) -> None:
        before = outputs[entry(node)]
        if position != before:
            outputs[entry(node)] = position
            name = graph.node_name(entry(node))
            notes.append(f"output {name}: fix position {before} to {position}, {reason}")

    def apply(node: Node) -> None:
        if node.op not in QUANTIZABLE or node.op == g.INPUT or entry(node) not in outputs:
            return
        source = node.inputs[0]
        if entry(source) not in outputs:
            return
        given = outputs[entry(source)]
        if node.op in g.WEIGHTED:
            bias_key = node.params.get("bias")
            found = Positions(
                given,
                params[node.params["weight"]],
                None if bias_key is None else params[bias_key],
                outputs[entry(node)],
            )
            legal = legal_shifts(found)
            move(node, legal.output, "its shift would be negative")
            for role, before, after in (
                ("weight", found.weight, legal.weight),
                ("bias", found.bias, legal.bias),
            ):
                if before != after and after is not None:
                    key = node.params[role]
                    params[key] = after
                    notes.append(f"{role} {key}: fix position {before} to {after}, shift limit")
        elif node.op == g.PAD:
            move(node, given, "padding keeps its input's")
        elif node.op == g.RESIZE:
            if node.attrs["mode"] == "nearest" and entries.carriers[node].op != g.CONCAT:
                move(node, given, "nearest resize keeps its input's")
        elif node.op == g.HARDSIGMOID:
            move(node, max(outputs[entry(node)], _GATE_POSITION), "hard sigmoid lies in 0..1")
            if release.gate_inputs:
                move(source, max(given, 0), "hard sigmoid needs whole units")
        elif node.op == g.HARDSWISH and release.gate_inputs:
            move(source, max(given, 0), "hard swish needs whole units")
            limit = outputs[entry(source)] + _GATE_POSITION
            move(node, min(outputs[entry(node)], limit), "hard swish's shift would be negative")

    kinds = {op for word in aligned for op in ALIGNED[word]}
    for node in reversed(graph.nodes):
        for source in node.inputs if node.op in kinds and entry(node) in outputs else ():
            if entry(source) in outputs:
                move(source, outputs[entry(node)], f"as {graph.node_name(node)} has")
    shifted = [node for node in graph.nodes if node.op in g.WEIGHTED]
    others = [node for node in graph.nodes if node.op not in g.WEIGHTED]
    for node in others + shifted if release.shifts_last else graph.nodes:
        apply(node)
    return notes
