"""Our compiler: a quantized ``*_int.xmodel`` to a compiled model that the simulated card runs.

The result has everything a compiled model for the VCK5000 has except instructions: they cannot be
made without the vendor's compiler. The graph says so in ``libs_info``, where the vendor's compiler
writes its own version, and ``is_simulated`` tells the two apart.
"""

from __future__ import annotations

from typing import Callable, Optional

from .. import __version__
from .lowering import lower
from .partition import partition
from .targets import Target
from .weights import SIMULATED_STAMP, is_simulated
from .xir.attributes import map_string, strings
from .xir.graph import Graph
from .xir.opdefs import definitions, op_defs

__all__ = ["compile_graph", "is_simulated"]

Log = Callable[[str], None]


def compile_graph(graph: Graph, target: Target, log: Optional[Log] = None) -> Graph:
    """Compiles a quantized graph.

    Args:
        graph: the quantizer's; it is not changed.
        target: the DPU.
        log: receives a line for each operator that falls to the CPU.

    Raises:
        FormatError: the graph is no quantizer's output.
    """
    lowered = lower(graph, target)
    compiled = partition(lowered, target, log if log is not None else _silent)
    compiled.attrs["return_ops"] = strings(lowered.return_ops)
    compiled.attrs["libs_info"] = map_string({f"{SIMULATED_STAMP}{__version__}": "simulated"})
    known = definitions()
    compiled.op_defs = op_defs(known) + [d for d in graph.op_defs if d.name not in known]
    return compiled


def _silent(line: str) -> None:
    del line
