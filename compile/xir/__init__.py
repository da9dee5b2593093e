"""XIR: the vendor's graph format, in memory and as a ``.xmodel`` file."""

from .attributes import Attr, AttrKind
from .graph import DataType, Graph, Op, OpDef, Subgraph, Tensor, float32_tensor, int8_tensor

__all__ = [
    "Attr",
    "AttrKind",
    "DataType",
    "Graph",
    "Op",
    "OpDef",
    "Subgraph",
    "Tensor",
    "float32_tensor",
    "int8_tensor",
]
