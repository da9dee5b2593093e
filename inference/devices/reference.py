"""The definition as a device: every operator of a DPU subgraph by its integer rule in numpy.

Slow and plain on purpose; the other devices are compared with it.
"""

from __future__ import annotations

from typing import Dict, List, Mapping, Optional, Sequence, Set

import numpy as np

from ...compile.weights import constant_arrays
from ...compile.xir.graph import Graph, Op, Subgraph
from ...compile.xir.soundness import refuse_unsound
from ...errors import UnsupportedError
from .base import Batch, Device
from .boundary import boundary_tensors
from .operators import is_supported, run_operator
from .worker import WorkerDevice


class ReferenceDevice(WorkerDevice):
    """Walks the operators of a subgraph in graph order.

    Args:
        graph: the compiled model.
        subgraph: its DPU subgraph.
        batch: pictures per submission.
        taps: tensors returned besides the outputs.
        constants: int8 arrays by operator name; read from the graph where ``None``.

    Raises:
        UnsupportedError: an operator has no integer rule.
    """

    name = "reference"

    def __init__(
        self,
        graph: Graph,
        subgraph: Subgraph,
        batch: int,
        taps: Sequence[str] = (),
        constants: Optional[Mapping[str, np.ndarray]] = None,
    ) -> None:
        super().__init__()
        self.inputs, self.outputs = boundary_tensors(graph, subgraph, batch, taps)
        self._graph = graph
        self._ops = computed_ops(graph, subgraph)
        self._constants = constant_arrays(graph, subgraph) if constants is None else constants
        self._name_of = {op.tensor.name: op.name for op in graph.ops.values()}
        unknown = [op for op in self._ops if not is_supported(op.type)]
        if unknown:
            raise UnsupportedError(
                f"Operator type {unknown[0].type!r} has no integer rule",
                f"operator {unknown[0].name!r} in subgraph {subgraph.name!r}",
            )
        self._kept = {self._name_of[info.name] for info in self.outputs}
        self._last_use = {name: op.name for op in self._ops for name in op.input_names}

    def compute(self, batch: Batch) -> Dict[str, np.ndarray]:
        """Runs the operators one after the other."""
        values: Dict[str, np.ndarray] = dict(self._constants)
        values.update({self._name_of[name]: array for name, array in batch.items()})
        for op in self._ops:
            values[op.name] = run_operator(self._graph, op, values)
            for name in op.input_names:
                if self._last_use[name] == op.name and name not in self._kept:
                    values.pop(name, None)
        return {info.name: values[self._name_of[info.name]] for info in self.outputs}


def computed_ops(graph: Graph, subgraph: Subgraph) -> List[Op]:
    """The subgraph's operators in graph order, constants left out.

    Raises:
        FormatError: one of them is impossible (see ``refuse_unsound``).
    """
    inside: Set[str] = set(subgraph.all_ops())
    found = [op for op in graph.ops.values() if op.name in inside and op.type != "const-fix"]
    refuse_unsound(graph, found)
    return found


def create(
    graph: Graph,
    subgraph: Subgraph,
    *,
    batch: int,
    threads: Optional[int] = None,
    taps: Sequence[str] = (),
) -> Device:
    """Opens the device; ``threads`` is numpy's own business."""
    return ReferenceDevice(graph, subgraph, batch, taps)
