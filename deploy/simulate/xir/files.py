"""Graphs from and to ``.xmodel`` files, with what the genuine library adds when it reads one."""

from __future__ import annotations

from pathlib import Path
from typing import Callable, List, Sequence

from ....compile.xir import graph as records
from ....compile.xir.opdefs import Definition, definitions, op_def, op_defs
from ....compile.xir.xmodel import read_xmodel, write_xmodel
from ....errors import MissingError, ToolkitError
from ..abort import abort
from .operators import custom_definition, register


def load(fname: str) -> records.Graph:
    """The graph in the file, operators completed with their optional attributes and inputs.

    The types it defines are known from then on. Like the genuine reader, this takes a file without
    operators, an empty one too.

    Raises:
        XirAbort: there is no such file, or it is no ``.xmodel``.
    """
    try:
        graph = read_xmodel(fname, allow_empty=True)
    except ToolkitError as error:
        raise abort("XIR_READ_PB_FAILURE", "failed to read pb file", f"file = {fname}") from error
    register(definition.name for definition in graph.op_defs)
    known = definitions()
    for op in graph.ops.values():
        if op.type in known:
            _complete(op, known[op.type])
    return graph


def save(
    graph: records.Graph,
    fname: str,
    ops_in_order: Callable[[Sequence[str]], List[str]],
    children_in_order: Callable[[records.Subgraph], List[records.Subgraph]],
) -> None:
    """Writes the graph with operators and subgraphs in the library's order.

    Args:
        graph: stays as it is.
        fname: the file.
        ops_in_order: sorts operators' names, given in graph order.
        children_in_order: sorts a subgraph's children.

    Raises:
        XirAbort: the file cannot be written.
    """

    def ordered(node: records.Subgraph) -> records.Subgraph:
        inside = set(node.ops)
        ops = ops_in_order([name for name in graph.ops if name in inside])
        children = [ordered(child) for child in children_in_order(node)]
        return records.Subgraph(node.name, node.attrs, ops, children, node.unknown)

    stored = records.Graph(graph.name)
    stored.attrs, stored.unknown = graph.attrs, graph.unknown
    stored.ops = {name: graph.ops[name] for name in ops_in_order(list(graph.ops))}
    stored.root = ordered(graph.root)
    stored.op_defs = _definitions(graph)
    try:
        # Ours would make the folder.
        if not Path(fname).absolute().parent.is_dir():
            raise MissingError(f"There is no folder for {fname}")
        write_xmodel(stored, fname)
    except ToolkitError as error:
        raise abort(
            "XIR_WRITE_PB_FAILURE", "failed to write pb file", f"file = {fname}: {error}"
        ) from error


def _complete(op: records.Op, definition: Definition) -> None:
    for attr in definition.attrs:
        if not attr.required:
            op.attrs.setdefault(attr.name, attr.default)
    for arg in definition.inputs:
        op.inputs.setdefault(arg.name, ())


def _definitions(graph: records.Graph) -> List[records.OpDef]:
    """All definitions the library knows: built in, read from the file, made up on the way."""
    known = definitions()
    kept = [d for d in graph.op_defs if d.name not in known]
    named = set(known) | {d.name for d in kept}
    custom = sorted({op.type for op in graph.ops.values()} - named)
    made = [op_def(custom_definition(name)) for name in custom]
    return op_defs(known) + kept + made
