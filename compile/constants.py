"""The constants of a compiled model taken by name from the quantized file it was made from.

For compiled models whose own parameter blob cannot be read: the order of the weights in it is the
vendor's secret, but names, shapes and fix points stand beside it.
"""

from __future__ import annotations

from typing import Dict

import numpy as np

from ..errors import MismatchError
from .lowering import lower
from .targets import TARGETS, target_by_name
from .xir.attributes import blob
from .xir.graph import Graph, Op

_NEXT = "give the *_int.xmodel that this very model was compiled from"


def place_constants(graph: Graph, quantized: Graph) -> int:
    """Writes the bytes of every ``const-fix`` of ``graph`` into its ``data``, in plain order.

    Args:
        graph: a compiled model, ours or the vendor's, of any DPU; changed in place.
        quantized: what it was compiled from.

    Returns:
        How many constants were placed.

    Raises:
        MismatchError: a constant is not in the quantized file, or has another size or fix point
            there; nothing is changed then.
        FormatError: ``quantized`` is no quantizer's output.
    """
    dpu = graph.subgraphs("DPU")
    name = str(dpu[0].get("dpu_name", "")) if dpu else ""
    lowered = lower(quantized, target_by_name(name) or TARGETS[0])
    by_tensor: Dict[str, Op] = {
        op.tensor.name: op for op in lowered.graph.ops.values() if op.type == "const-fix"
    }
    placed: Dict[str, np.ndarray] = {}
    for op in graph.ops.values():
        if op.type != "const-fix":
            continue
        source = by_tensor.get(op.tensor.name)
        if source is None:
            raise MismatchError(
                f"The quantized file has no constant {op.tensor.name!r}",
                f"graph {quantized.name!r} has {len(by_tensor)} others; wanted by {graph.name!r}",
                _NEXT,
            )
        if source.tensor.fix_point != op.tensor.fix_point:
            raise MismatchError(
                f"Constant {op.tensor.name!r} has another fix point in the quantized file",
                f"{source.tensor.fix_point} there, {op.tensor.fix_point} in the compiled model",
                _NEXT,
            )
        codes = lowered.constants[source.name]
        if codes.shape != op.tensor.dims:
            raise MismatchError(
                f"Constant {op.tensor.name!r} has another shape in the quantized file",
                f"{list(codes.shape)} there, {list(op.tensor.dims)} in the compiled model",
                _NEXT,
            )
        placed[op.name] = codes
    for op_name, codes in placed.items():
        graph.ops[op_name].attrs["data"] = blob(np.ascontiguousarray(codes, np.int8).tobytes())
    return len(placed)
