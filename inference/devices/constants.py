"""The int8 weights and biases of a subgraph, wherever the file keeps them."""

from __future__ import annotations

from typing import Dict

import numpy as np

from ...compile.xir.graph import Graph, Subgraph
from ...errors import FormatError


def subgraph_constants(graph: Graph, subgraph: Subgraph) -> Dict[str, np.ndarray]:
    """``const-fix`` operators that the subgraph reads, by name, in plain ``OHWI`` order.

    Bytes inside the operator (``DPUCZDX8G`` files) are taken as they are; an empty ``data`` means
    the weight payload of the subgraph, which ``compile.weights`` unpacks.

    Raises:
        FormatError: a constant has neither, or not the bytes its shape needs.
    """
    inside = set(subgraph.all_ops())
    read = {name for op_name in inside for name in graph.op(op_name).input_names}
    constants = [op for op in graph.ops.values() if op.type == "const-fix" and op.name in read]
    arrays: Dict[str, np.ndarray] = {}
    if any(not op.get("data") for op in constants):
        from ...compile.weights import constant_arrays

        arrays.update(constant_arrays(graph))
    for op in constants:
        data = op.get("data")
        if data:
            arrays[op.name] = np.frombuffer(bytes(data), np.int8)
        if op.name not in arrays or arrays[op.name].size != op.tensor.elements:
            raise FormatError(
                f"Constant {op.name!r} does not have the bytes its shape needs",
                f"shape {list(op.tensor.dims)}, "
                f"bytes {arrays[op.name].size if op.name in arrays else 0}",
            )
        arrays[op.name] = arrays[op.name].reshape(op.tensor.dims)
    return {op.name: arrays[op.name] for op in constants}
