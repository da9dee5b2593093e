"""What a DPU subgraph takes and gives: its boundary tensors at the device's batch size."""

from __future__ import annotations

from typing import Sequence, Tuple

from ...compile.xir.graph import Graph, Op, Subgraph
from ...errors import UnsupportedError
from .base import TensorInfo

_MOST_BYTES = 2**31


def boundary_tensors(
    graph: Graph, subgraph: Subgraph, batch: int, taps: Sequence[str] = ()
) -> Tuple[Tuple[TensorInfo, ...], Tuple[TensorInfo, ...]]:
    """Inputs and outputs of ``subgraph``, the outputs followed by the tapped tensors.

    Constants are no inputs, wherever they stand. The file's batch of 1 is replaced by ``batch``.

    Raises:
        UnsupportedError: a boundary tensor is not int8, or a tap names no tensor in the subgraph.
    """
    inputs, outputs = graph.boundary(subgraph)
    inside = set(subgraph.all_ops())
    wanted = [op for op in outputs if op.type != "const-fix"]
    for name in taps:
        op = graph.producer(name)
        if op is None or op.name not in inside:
            raise UnsupportedError(f"There is no tensor {name!r} in subgraph {subgraph.name!r}")
        if op not in wanted:
            wanted.append(op)
    return (
        tuple(tensor_info(op, batch) for op in inputs if op.type != "const-fix"),
        tuple(tensor_info(op, batch) for op in wanted),
    )


def tensor_info(op: Op, batch: int) -> TensorInfo:
    """The tensor of ``op`` with its first dimension replaced by ``batch``.

    Raises:
        UnsupportedError: it is not a fixed-point tensor.
    """
    fix_point = op.tensor.fix_point
    if fix_point is None:
        raise UnsupportedError(
            f"Tensor {op.tensor.name!r} at the border of a DPU subgraph has no fix point",
            f"{op.type} gives {op.tensor.type_name}",
            "deepfake-fpga inspect shows the model's tensors",
        )
    if not 0 < op.tensor.elements * batch <= _MOST_BYTES or min(op.tensor.dims) < 1:
        raise UnsupportedError(
            f"Tensor {op.tensor.name!r} at the border of a DPU subgraph has no possible size",
            f"{list(op.tensor.dims)} for a batch of {batch}",
            "the file is damaged or was changed: deepfake-fpga compile again",
        )
    return TensorInfo(op.tensor.name, (batch, *op.tensor.dims[1:]), fix_point)
