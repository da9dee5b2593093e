"""XIR: the vendor's graph format, in memory and as a ``.xmodel`` file."""

from .attributes import Attr, AttrKind
from .diff import Difference, diff_graphs
from .graph import DataType, Graph, Op, OpDef, Subgraph, Tensor, float32_tensor, int8_tensor
from .xmodel import dump_xmodel, parse_xmodel, read_xmodel, write_xmodel

__all__ = [
    "Attr",
    "AttrKind",
    "DataType",
    "Difference",
    "Graph",
    "Op",
    "OpDef",
    "Subgraph",
    "Tensor",
    "diff_graphs",
    "dump_xmodel",
    "float32_tensor",
    "int8_tensor",
    "parse_xmodel",
    "read_xmodel",
    "write_xmodel",
]
