"""Graphs as pictures: the text for graphviz, and what graphviz makes of it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import List, Optional

from ....compile.xir.graph import Graph, Subgraph
from ..abort import abort


def write_dot(graph: Graph, fname: str, subgraph: Optional[Subgraph] = None) -> None:
    """Writes ``graph``, or the part of it in ``subgraph``, as text for graphviz.

    Raises:
        XirAbort: the file cannot be written.
    """
    try:
        Path(fname).write_text(_dot(graph, subgraph or graph.root), encoding="utf-8")
    except OSError as error:
        raise abort("XIR_OPERATION_FAILED", "Operation failed!", f"{fname}: {error}") from error


def write_image(graph: Graph, fname: str, kind: str) -> None:
    """Draws ``graph`` in a format such as ``png`` or ``svg``.

    Raises:
        XirAbort: the program ``dot`` is not installed, or fails.
    """
    program = shutil.which("dot")
    if program is None:
        raise abort("XIR_OPERATION_FAILED", "Operation failed!", "dot is not installed")
    done = subprocess.run(
        [program, f"-T{kind}", "-o", fname],
        input=_dot(graph, graph.root).encode(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    if done.returncode:
        text = done.stdout.decode(errors="replace").strip()
        raise abort("XIR_OPERATION_FAILED", "Operation failed!", f"dot -T{kind}: {text}")


def _dot(graph: Graph, root: Subgraph) -> str:
    inside = set(root.all_ops())
    lines = [f"digraph {_quoted(graph.name)} {{", "  node [shape=box];"]
    _clusters(graph, root, lines, "  ")
    for op in graph.ops.values():
        for name in op.input_names:
            if op.name in inside and name in inside:
                lines.append(f"  {_quoted(name)} -> {_quoted(op.name)};")
    return "\n".join([*lines, "}", ""])


def _clusters(graph: Graph, node: Subgraph, lines: List[str], indent: str) -> None:
    for name in node.ops:
        op = graph.ops[name]
        label = f"{name}\\n{op.type}\\n{list(op.tensor.dims)} {op.tensor.type_name.lower()}"
        lines.append(f"{indent}{_quoted(name)} [label={_quoted(label)}];")
    for number, child in enumerate(node.children):
        # Only names that begin with "cluster" are drawn as boxes.
        lines.append(f"{indent}subgraph {_quoted(f'cluster_{id(child):x}_{number}')} {{")
        lines.append(f"{indent}  label={_quoted(child.name)};")
        _clusters(graph, child, lines, indent + "  ")
        lines.append(f"{indent}}}")


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '\\"') + '"'
