"""A CPU subgraph as a device: what the vendor's CPU runner would run, in numpy."""

from __future__ import annotations

from typing import Dict

import numpy as np

from ...compile.xir.graph import DataType, Graph, Op, Subgraph
from ...inference.cpu_operators import is_supported, run_cpu_operator
from ...inference.devices.base import Batch, TensorInfo
from ...inference.devices.worker import WorkerDevice
from .construction import missing_library

CONSTANTS = {"const": "<f4", "const-fix": "i1"}
"""Operator types whose values stand in the file, and their element types there."""


class CpuDevice(WorkerDevice):
    """A CPU subgraph by the numpy rules of its operators, one picture at a time.

    Args:
        graph: the compiled model.
        subgraph: its CPU subgraph.

    Raises:
        XirAbort: an operator has no rule; the genuine library may well be missing too.
    """

    name = "cpu"

    def __init__(self, graph: Graph, subgraph: Subgraph) -> None:
        super().__init__()
        self._graph = graph
        inside = set(subgraph.all_ops())
        self._ops = [op for op in graph.ops.values() if op.name in inside]
        if not all(op.type in CONSTANTS or is_supported(op.type) for op in self._ops):
            raise missing_library()
        inputs, outputs = graph.boundary(subgraph)
        self.inputs = tuple(_info(op) for op in inputs if op.type not in CONSTANTS)
        self.outputs = tuple(_info(op) for op in outputs)
        self._name_of = {op.tensor.name: op.name for op in graph.ops.values()}
        read = {name for op in self._ops for name in op.input_names}
        self._constants = {
            op.name: np.frombuffer(op.get("data", b""), CONSTANTS[op.type]).reshape(op.tensor.dims)
            for op in graph.ops.values()
            if op.type in CONSTANTS and (op.name in read or op.name in inside)
        }

    def compute(self, batch: Batch) -> Dict[str, np.ndarray]:
        """Runs the operators one after the other."""
        values: Dict[str, np.ndarray] = dict(self._constants)
        values.update({self._name_of[name]: array for name, array in batch.items()})
        for op in self._ops:
            if op.name not in values:
                values[op.name] = run_cpu_operator(self._graph, op, values)
        return {info.name: values[self._name_of[info.name]] for info in self.outputs}


def _info(op: Op) -> TensorInfo:
    is_fixed = op.tensor.dtype in (DataType.XINT, DataType.XUINT)
    return TensorInfo(op.tensor.name, op.tensor.dims, op.tensor.fix_point if is_fixed else None)
