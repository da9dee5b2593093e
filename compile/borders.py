"""What stands between subgraphs: uploads, downloads, copies, and the operators' order in the file.

Names are those of genuine compiled models: ``<operator>_upload_0``, ``<operator>_download_0``,
and the tensor inside the DPU carries the suffix.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Dict, List, Mapping, Set, Tuple

from .memory import is_placeable
from .xir.attributes import Attr, string
from .xir.graph import Graph, Op, int8_tensor

CONSTANTS = ("const", "const-fix")
"""Operator types that belong to the subgraph of their reader."""


def copy_unplaceable_operands(graph: Graph, groups: Dict[str, int]) -> None:
    """Puts a copy between a DPU concatenation and each operand it cannot take in place."""
    consumers = graph.consumers()
    inside = {name for name, op in graph.ops.items() if op.get("device") == "DPU"}
    added: Dict[str, Op] = {}
    for concat in graph.ops.values():
        if concat.type != "concat-fix" or concat.name not in inside:
            continue
        operands = list(concat.inputs["input"])
        for index, name in enumerate(operands):
            operand = graph.ops[name]
            leaves = any(groups[r.name] != groups[concat.name] for r in consumers[name])
            same_group = groups[name] == groups[concat.name]
            if same_group and not leaves and is_placeable(operand, concat, consumers[name]):
                continue
            own = _free_name(graph, added, f"{operand.tensor.name}_inserted_fix")
            tensor = int8_tensor(own, operand.tensor.dims, operand.tensor.fix_point or 0)
            attrs: Dict[str, Attr] = {
                "nonlinear": string("NONE"),
                "type": string("ADD"),
                "device": string("DPU"),
            }
            added[own] = Op(own, "eltwise-fix", tensor, attrs, {"input": (name,)})
            groups[own] = groups[concat.name]
            operands[index] = own
        concat.inputs["input"] = tuple(operands)
    if added:
        _insert(graph, added)


def add_borders(graph: Graph, groups: Dict[str, int]) -> None:
    """Adds an upload for each value that enters the DPU, a download for each that leaves."""
    added: Dict[str, Op] = {}
    downloads: Dict[str, str] = {}
    uploads: Dict[Tuple[str, int], str] = {}
    for op in list(graph.ops.values()):
        for arg, names in op.inputs.items():
            given: List[str] = []
            for name in names:
                source = graph.ops[name]
                if groups[name] != groups[op.name] and source.type not in CONSTANTS:
                    if source.get("device") == "DPU":
                        if name not in downloads:
                            downloads[name] = _download(graph, added, source)
                            groups[downloads[name]] = groups[name]
                        name = downloads[name]
                    if op.get("device") == "DPU":
                        key = (name, groups[op.name])
                        if key not in uploads:
                            uploads[key] = _upload(graph, added, name)
                            groups[uploads[key]] = groups[op.name]
                        name = uploads[key]
                given.append(name)
            op.inputs[arg] = tuple(given)
    _insert(graph, added)


def _download(graph: Graph, added: Dict[str, Op], source: Op) -> str:
    name = _free_name(graph, added, f"{source.name}_download")
    tensor = source.tensor
    outside = replace(tensor, attrs=dict(tensor.attrs))
    source.tensor = replace(tensor, name=f"{tensor.name}_download_0")
    added[name] = Op(
        name, "download", outside, {"device": string("DPU")}, {"input": (source.name,)}
    )
    return name


def _upload(graph: Graph, added: Dict[str, Op], source: str) -> str:
    name = _free_name(graph, added, f"{source}_upload")
    tensor = (added.get(source) or graph.ops[source]).tensor
    inside = replace(
        tensor, name=f"{tensor.name}_upload_{name.rpartition('_')[2]}", attrs=dict(tensor.attrs)
    )
    added[name] = Op(name, "upload", inside, {"device": string("DPU")}, {"input": (source,)})
    return name


def _free_name(graph: Graph, added: Mapping[str, Op], stem: str) -> str:
    number = 0
    while f"{stem}_{number}" in graph.ops or f"{stem}_{number}" in added:
        number += 1
    return f"{stem}_{number}"


def _insert(graph: Graph, added: Mapping[str, Op]) -> None:
    """Adds operators and brings all into an order in which inputs come first."""
    waiting: Dict[str, Op] = {**graph.ops, **added}
    ops: Dict[str, Op] = {}
    for start in waiting:
        stack = [start]
        while stack:
            op = waiting[stack[-1]]
            missing = [name for name in op.input_names if name not in ops]
            if missing:
                stack.append(missing[0])
            else:
                ops[op.name] = op
                stack.pop()
    graph.ops = ops


def sort_for_file(graph: Graph, ranks: Mapping[str, int]) -> None:
    """Brings operators into the order of genuine files.

    It is the reverse of the order in which a depth-first search along the readers is done with
    them. The search starts at each operator without inputs in turn, those kept as they were
    first; these and the readers are taken in the order of the quantized file.
    """

    def rank(name: str) -> int:
        return ranks.get(name, len(ranks) + len(graph.ops))

    readers = {
        name: sorted((op.name for op in ops), key=rank) for name, ops in graph.consumers().items()
    }
    heads = [op for op in graph.ops.values() if not op.input_names]
    heads.sort(key=lambda op: (op.type.endswith("-fix"), rank(op.name)))
    done: List[str] = []
    seen: Set[str] = set()
    for head in heads:
        seen.add(head.name)
        stack = [(head.name, iter(readers[head.name]))]
        while stack:
            name, rest = stack[-1]
            following = next((reader for reader in rest if reader not in seen), None)
            if following is None:
                done.append(name)
                stack.pop()
            else:
                seen.add(following)
                stack.append((following, iter(readers[following])))
    graph.ops = {name: graph.ops[name] for name in reversed(done)}
