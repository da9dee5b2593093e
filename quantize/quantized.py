"""The quantized model: the vendor's test mode, with access to every tensor and parameter.

Importing this module imports torch.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable, Dict, Optional, Sequence, Union

import numpy as np
import torch
from torch import Tensor

from ..compile.xir.graph import Graph
from ..compile.xir.xmodel import write_xmodel
from ..errors import DataError, UnsupportedError, UsageError
from .execution import Params, float_tensors, run, tensors_of
from .export import to_xir
from .fixpoint import Rounding, quantize, quantize_
from .graph import INPUT, Node, QuantizerGraph, substitute
from .groups import Entries
from .recording import tensors_in
from .results import QuantInfo, output_positions


class QuantizedModel:
    """A network whose parameters and tensors lie on power-of-two grids of 8-bit codes.

    Call it like the float model; it answers in the model's own structure. All arithmetic is
    float32, exact on the grid.

    Attributes:
        graph: the folded (and equalized) graph with float parameters.
        info: the calibration in force.
        positions: node name to fix position, for every tensor that is quantized.
    """

    def __init__(self, graph: QuantizerGraph, entries: Entries, info: QuantInfo) -> None:
        self.graph, self.info = graph, info
        self.node_positions = output_positions(info, graph, entries)
        self.positions: Dict[str, int] = {
            graph.node_name(node): position for node, position in self.node_positions.items()
        }
        floats = float_tensors(graph)
        self._params: Dict[Node, Params] = {
            node: self._on_grid(node, tensors_of(node, floats))
            for node in graph.nodes
            if node.params
        }

    def __call__(self, *inputs: Any) -> Any:
        """The network's outputs, in the float model's structure.

        Args:
            inputs: the forward's arguments, float32 tensors of the shapes the model was traced with
                (or tuples, lists and dicts of them), any batch size.

        Raises:
            UsageError, DataError: a wrong number, shape, type or a value that is not finite.
        """
        return substitute(self.graph.outputs, self._run(tensors_in(inputs)))

    def codes(self, *inputs: Any) -> Dict[str, np.ndarray]:
        """The int8 codes of every quantized tensor, by node name in execution order.

        Feature maps are NCHW.
        """
        record: Dict[Node, Tensor] = {}
        self._run(tensors_in(inputs), record)
        return {
            self.graph.node_name(node): (tensor * 2.0 ** self.node_positions[node])
            .to(torch.int8)
            .numpy()
            for node, tensor in record.items()
        }

    def int8_parameters(self) -> Dict[str, np.ndarray]:
        """The int8 codes of every parameter, by key, in PyTorch's layout.

        Where a linear layer is used twice, those of its last use, as the vendor's tool keeps them.
        """
        return {
            key: np.rint(value.numpy() * 2.0 ** self.info.params[key]).astype(np.int8)
            for node, params in self._params.items()
            for role, key in node.params.items()
            for value in (params[role],)
            if value is not None
        }

    def node_parameters(self, node: Node) -> Params:
        """The parameters of one operator, by role, on their grids."""
        return self._params[node]

    def parameters(self) -> Dict[str, np.ndarray]:
        """The parameters as float32 values on their grids, by key, in PyTorch's layout.

        Raises:
            UnsupportedError: a shared layer's uses were corrected differently.
        """
        table: Dict[str, np.ndarray] = {}
        for node, params in self._params.items():
            for role, key in node.params.items():
                value = params[role]
                if value is None:
                    continue
                known = table.setdefault(key, value.numpy())
                if not np.array_equal(known, value.numpy()):
                    raise UnsupportedError(
                        f"A linear layer is used twice and its uses need different parameters, "
                        f"so {key} cannot be given once",
                        node.scope,
                        "use two layers with the same weights",
                    )
        return table

    def export_xmodel(self, path: Union[str, Path], batch: int = 1) -> None:
        """Writes the quantized model in XIR as the vendor's ``<Name>_int.xmodel``.

        The compiler takes models for batch 1.

        Raises:
            UnsupportedError: an operator has no counterpart in XIR.
        """
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_xmodel(self.to_xir(batch), path)

    def to_xir(self, batch: int = 1) -> Graph:
        """The quantized model as an XIR graph.

        Raises:
            UnsupportedError: an operator has no counterpart in XIR.
        """
        params = self.info.params
        return to_xir(self.graph, self.node_positions, params, self.parameters(), batch)

    def _on_grid(self, node: Node, floats: Params) -> Dict[str, Optional[Tensor]]:
        found: Dict[str, Optional[Tensor]] = dict(floats)
        corrections = self.info.corrections or {}
        correction = corrections.get(self.graph.file_name(node))
        bias = found.get("bias")
        if correction is not None and bias is not None:
            found["bias"] = bias - torch.tensor(correction, dtype=torch.float32)
        for role, value in found.items():
            if value is not None:
                position = self.info.params[node.params[role]]
                found[role] = quantize(value, position, Rounding.HALF_AWAY, self.graph.bits)
        return found

    def _run(
        self, inputs: Sequence[Tensor], record: Optional[Dict[Node, Tensor]] = None
    ) -> Dict[Node, Tensor]:
        check_batch(self.graph, inputs, "input")

        def see(node: Node, result: Tensor) -> None:
            if record is not None and node in self.node_positions:
                record[node] = result

        return self.execute(inputs, see)

    def execute(
        self,
        inputs: Sequence[Tensor],
        see: Optional[Callable[[Node, Tensor], None]] = None,
        on_unusable: Optional[Callable[[Node], None]] = None,
    ) -> Dict[Node, Tensor]:
        """The finished tensors of the output nodes; nothing is checked beforehand.

        Args:
            inputs: one tensor per network input, images first; not changed.
            see: called with every node and its finished tensor, in execution order.
            on_unusable: called with every node whose result is not finite, which then stays float
                as the vendor's tool leaves it. Without it nobody looks.
        """

        def finish(node: Node, raw: Tensor, operands: Sequence[Tensor]) -> Tensor:
            result, position = raw, self.node_positions.get(node)
            if position is None:
                pass
            elif on_unusable is not None and not bool(torch.isfinite(raw).all()):
                on_unusable(node)
            elif node.op == INPUT:
                result = quantize(raw, position, Rounding.HALF_UP, self.graph.bits)
            else:
                result = quantize_(raw, position, Rounding.HALF_UP, self.graph.bits)
            if see is not None:
                see(node, result)
            return result

        with torch.no_grad():
            return run(self.graph, inputs, self._params.__getitem__, finish)


def check_batch(graph: QuantizerGraph, batch: Sequence[Tensor], what: str) -> None:
    """Refuses a batch the graph cannot take; ``what`` names it in the message.

    Raises:
        UsageError: a wrong number of tensors.
        DataError: a wrong type or shape, or a value that is not finite.
    """
    expected = graph.inputs
    if len(batch) != len(expected):
        raise UsageError(
            f"{graph.name} takes {len(expected)} input tensors, {len(batch)} were given"
        )
    for node, tensor in zip(expected, batch):
        if not isinstance(tensor, Tensor) or tensor.dtype != torch.float32:
            kind = tensor.dtype if isinstance(tensor, Tensor) else type(tensor).__name__
            raise DataError(f"The {what} must be a float32 tensor", f"{kind}")
        if tuple(tensor.shape[1:]) != node.shape[1:]:
            raise DataError(
                f"The {what} has another shape than the model was traced with",
                f"{list(tensor.shape[1:])} per image, expected {list(node.shape[1:])}",
            )
        finite = torch.isfinite(tensor)
        if not bool(finite.all()):
            image = int(torch.nonzero(~finite.flatten(1).all(1))[0])
            raise DataError(
                f"The {what} holds a value that is not finite (NaN or infinity)",
                f"image {image} of {tensor.shape[0]}, counted from 0",
                "check how this image is read and scaled",
            )
