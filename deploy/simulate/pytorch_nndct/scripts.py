"""The quantized model as TorchScript and as ONNX."""

from __future__ import annotations

import warnings
from typing import Any, Dict, Optional, Sequence

import torch
from torch import Tensor, nn

from ....errors import UnsupportedError
from ....quantize.execution import Params, run
from ....quantize.fixpoint import Rounding, limits, quantize
from ....quantize.graph import Node, leaves
from ....quantize.quantized import QuantizedModel

OPSET = 13
"""The oldest that has the quantizing operators in the form we need."""


class _Network(nn.Module):
    """The quantized model as a module whose forward is nothing but tensor operators."""

    def __init__(self, model: QuantizedModel) -> None:
        super().__init__()
        self._model = model

    def forward(self, *inputs: Tensor) -> Any:
        def finish(node: Node, raw: Tensor, operands: Sequence[Tensor]) -> Tensor:
            position = self._model.node_positions.get(node)
            return raw if position is None else self.on_grid(raw, position)

        graph = self._model.graph
        found = run(graph, inputs, self.parameters_of, finish)
        results = tuple(found[node] for node in leaves(graph.outputs))
        return results if isinstance(graph.outputs, (tuple, list, dict)) else results[0]

    def parameters_of(self, node: Node) -> Params:
        """The parameters of an operator, which are on their grids."""
        return self._model.node_parameters(node)

    def on_grid(self, raw: Tensor, position: int) -> Tensor:
        """The vendor's rounding: half up."""
        return quantize(raw, position, Rounding.HALF_UP, self._model.graph.bits)


class _OnnxNetwork(_Network):
    """The same with PyTorch's own quantizing operator, which becomes ONNX's pair."""

    def __init__(self, model: QuantizedModel) -> None:
        super().__init__(model)
        for node in model.graph.nodes:
            for role in node.params:
                value = model.node_parameters(node)[role]
                self.register_buffer(f"module_{node.index}_{role}", value)

    def parameters_of(self, node: Node) -> Params:
        """They pass the operator too, so that runtimes take over their steps, not make their own.

        Buffers they are because constants would be folded away.
        """
        positions = self._model.info.params
        found: Dict[str, Optional[Tensor]] = {"bias": None}
        for role, key in node.params.items():
            value: Tensor = getattr(self, f"module_{node.index}_{role}")
            found[role] = self.on_grid(value, positions[key])
        return found

    def on_grid(self, raw: Tensor, position: int) -> Tensor:
        """ONNX rounds half to even; nothing else is to be had there."""
        step = 2.0**-position
        return torch.fake_quantize_per_tensor_affine(raw, step, 0, *limits(self._model.graph.bits))


def traced(model: QuantizedModel, inputs: Sequence[Tensor]) -> Any:
    """TorchScript; its outputs equal the quantized model's, for any batch."""
    with torch.no_grad(), warnings.catch_warnings():
        # Constants and sizes of the network are fixed, as they are in the quantized model.
        warnings.simplefilter("ignore")
        return torch.jit.trace(_Network(model).eval(), tuple(inputs), check_trace=False)  # type: ignore[no-untyped-call]


def write_onnx(
    model: QuantizedModel,
    inputs: Sequence[Tensor],
    path: str,
    verbose: bool,
    dynamic_batch: bool,
    opset_version: Any,
    native_onnx: bool,
    dump_layers: bool,
    check_model: bool,
    opt_graph: bool,
) -> None:
    """Writes ONNX whose activations pass QuantizeLinear and DequantizeLinear.

    Weights are float constants on their grid already. Runtimes round halves to even, so results
    differ from the quantized model's by single codes.

    Raises:
        OSError: the file cannot be written.
        UnsupportedError: a setting, or an operator that PyTorch's exporter does not know.
    """
    if not native_onnx or dump_layers:
        raise UnsupportedError(
            "The drop-in quantizer exports native ONNX only",
            f"native_onnx={native_onnx}, dump_layers={dump_layers}",
            "call export_onnx_model() with its defaults",
        )
    del opt_graph  # It simplifies; the numbers are the same.
    names = [f"input_{number}" for number in range(len(inputs))]
    results = [f"output_{number}" for number in range(len(model.graph.output_nodes))]
    settings: Dict[str, Any] = {}
    if "dynamo" in torch.onnx.export.__code__.co_varnames:
        settings["dynamo"] = False
    if dynamic_batch:
        settings["dynamic_axes"] = {name: {0: "batch"} for name in (*names, *results)}
    with open(path, "wb"):
        pass  # The exporter's own error for a missing folder is not one of the system's.
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                _OnnxNetwork(model).eval(),
                tuple(inputs),
                path,
                verbose=verbose,
                opset_version=opset_version or OPSET,
                input_names=names,
                output_names=results,
                do_constant_folding=False,
                **settings,
            )
    except RuntimeError as error:
        raise UnsupportedError(
            f"{model.graph.name} cannot be exported as ONNX", str(error).splitlines()[0]
        ) from error
    if check_model:
        import onnx

        onnx.checker.check_model(path)
