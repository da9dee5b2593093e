"""What the other drop-in modules may know of these classes: the graph behind a handle."""

from __future__ import annotations

from typing import Dict, Sequence, Union

from ....compile.xir import graph as records
from ....compile.xir.attributes import Attr
from .graph import Graph
from .op import Tensor
from .subgraph import Subgraph


def graph_of(handle: Union[Graph, Subgraph]) -> records.Graph:
    """The graph that ``handle`` is, or is a part of."""
    return handle._record if isinstance(handle, Graph) else handle._graph._record


def subgraph_of(handle: Subgraph) -> records.Subgraph:
    """The node of the graph's tree behind ``handle``."""
    return handle._record


def runner_tensor(
    name: str,
    dims: Sequence[int],
    dtype: records.DataType,
    bits: int,
    attrs: Dict[str, Attr],
) -> Tensor:
    """A tensor that no operator makes and no graph holds, such as a runner has.

    Args:
        name: its name.
        dims: its shape, the batch first.
        dtype: element type.
        bits: of one element.
        attrs: copied.
    """
    record = records.Tensor(name, tuple(int(d) for d in dims), dtype, bits, dict(attrs))
    return Tensor._of(record, None)
