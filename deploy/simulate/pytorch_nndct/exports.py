"""The quantized model as files, in the forms and with the console texts of the genuine tool."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Sequence, Tuple

from torch import Tensor, nn

from ....errors import UnsupportedError
from ....quantize.calls import mapped
from ....quantize.finetune import with_params
from ....quantize.quantized import QuantizedModel
from ....quantize.quantizer import Quantizer
from ..nndct_shared.messages import NndctScreenLogger
from ..nndct_shared.options import NndctOption
from . import deploy_check
from .engine import Mode, TorchQuantizer
from .scripts import traced, write_onnx

_NO_FORWARD = (
    "torch_quantizer.quant_model FORWARD function must be called before exporting quantization "
    "result. Run it on one input first."
)


class Exports:
    """Writes the quantized model; in calibration all of it does nothing, without a word.

    Args:
        quantizer: has run at least once in test, or an error is printed and nothing written.
        model: the float model.
        example: the arguments it was traced with.
    """

    def __init__(
        self, quantizer: TorchQuantizer, model: nn.Module, example: Tuple[Any, ...]
    ) -> None:
        self._quantizer, self._model, self._example = quantizer, model, example
        self._screen = NndctScreenLogger()

    def _ready(self) -> bool:
        if not self._quantizer.called:
            self._screen.error2user("NO_FORWARD", _NO_FORWARD)
        return self._quantizer.called

    def xmodel(self, output_dir: str, check: bool) -> None:
        """Writes ``<Name>_int.xmodel``, for the batch of the last forward.

        Raises:
            UnsupportedError: an operator has no counterpart in XIR; nothing is written.
        """
        if self._quantizer.mode is Mode.CALIB or not self._ready():
            return
        last = self._quantizer.last
        model = self._of_size(self._quantizer.quantized(), last)
        name = self._quantizer.ours.graph.name
        batch = int(last[0].shape[0])
        if batch != 1:
            self._screen.error2user(
                "XMODEL_BATCHSIZE", "Batch size must be 1 when exporting xmodel."
            )
        self._screen.info("=>Converting to xmodel ...")
        if check or NndctOption.nndct_deploy_check.value:
            self._screen.info(f"=>Dumping '{name}'' checking data...")
            data = os.path.join(output_dir, "deploy_check_data_int", name)
            deploy_check.dump(model, last, Path(data))
            self._screen.info(f"=>Finish dumping data.({data})")
        path = os.path.join(output_dir, f"{name}_int.xmodel")
        try:
            model.export_xmodel(path, batch)
        except UnsupportedError as error:
            self._screen.error2user("EXPORT_XMODEL", str(error))
            raise
        self._screen.info(f"=>Successfully convert '{name}' to xmodel.({path})")

    def _of_size(self, model: QuantizedModel, inputs: Sequence[Tensor]) -> QuantizedModel:
        """``model`` for inputs of the size of ``inputs``, if that is not the one of the example."""
        graph = model.graph
        if all(t.shape[1:] == node.shape[1:] for t, node in zip(inputs, graph.inputs)):
            return model
        feed = iter(inputs)
        arguments = mapped(self._example, lambda v: next(feed) if isinstance(v, Tensor) else v)
        other = Quantizer(self._model, arguments, self._quantizer.ours.options)
        return QuantizedModel(with_params(other.graph, graph.params), other.entries, model.info)

    def script(self, output_dir: str) -> None:
        """Writes ``<Name>_int.pt``: TorchScript that computes what the quantized model does."""
        if self._quantizer.mode is Mode.CALIB or not self._ready():
            return
        path = os.path.join(output_dir, f"{self._quantizer.ours.graph.name}_int.pt")
        Path(output_dir).mkdir(parents=True, exist_ok=True)
        traced(self._quantizer.quantized(), self._quantizer.last).save(path)
        self._screen.info(f"{os.path.basename(path)} is generated.({path})")

    def onnx(self, output_dir: str, **settings: Any) -> None:
        """Writes ``<Name>_int.onnx`` with QuantizeLinear and DequantizeLinear.

        The folder is not made, as by the genuine tool.
        """
        if self._quantizer.mode is Mode.CALIB or not self._ready():
            return
        path = os.path.join(output_dir, f"{self._quantizer.ours.graph.name}_int.onnx")
        try:
            write_onnx(self._quantizer.quantized(), self._quantizer.last, path, **settings)
        except OSError as error:
            self._screen.error2user("EXPORT_ONNX", str(error))
            return
        self._screen.info(f"{os.path.basename(path)} is generated.({path})")
