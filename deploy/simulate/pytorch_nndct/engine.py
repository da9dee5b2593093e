"""The quantizer behind ``quant_model``: what one forward does in calibration and in test.

All numbers come from our own quantizer; this module decides which of its parts runs, and copies
what the genuine one does to its caller's tensors.
"""

from __future__ import annotations

import enum
import inspect
from dataclasses import replace
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

import numpy as np
import torch
from torch import Tensor, nn

from ....errors import MismatchError
from ....quantize import graph as g
from ....quantize import results, tuned_parameters
from ....quantize.calibration import Calibrator
from ....quantize.calls import mapped
from ....quantize.execution import float_tensors, run, tensors_of
from ....quantize.finetune import Finetuned, with_params
from ....quantize.graph import Node, substitute
from ....quantize.quantized import QuantizedModel
from ....quantize.quantizer import Calibration, Quantizer
from ....quantize.recording import tensors_in
from ....quantize.results import QuantInfo
from ..nndct_shared.messages import NndctScreenLogger, leave


class Mode(enum.Enum):
    """What a forward is for."""

    CALIB = 1
    TEST = 2
    COLLECT = 3
    """Float, keeping the inputs for a fast finetune."""


class TorchQuantizer:
    """One model being calibrated or tested.

    Attributes:
        ours: our quantizer of the model.
        mode: see ``Mode``.
        quant_model: the generated module, with one submodule per operator.
        called: whether a forward was run in calibration or test.
        last: the tensors of the last forward, for exports.
        tuned: a fast finetune of this process.
        collected: batches of a fast finetune.
    """

    def __init__(self, ours: Quantizer, signature: inspect.Signature, mode: Mode) -> None:
        self.ours, self.mode = ours, mode
        self.quant_model: Optional[nn.Module] = None
        self.called = False
        self.last: List[Tensor] = []
        self.tuned: Optional[Finetuned] = None
        self.collected: List[Tuple[Tensor, ...]] = []
        self.info: Optional[QuantInfo] = None
        self._signature = signature
        self._calibrator: Optional[Calibrator] = None
        self._loaded: Optional[Dict[str, np.ndarray]] = None
        self._quantized: Optional[QuantizedModel] = None
        self._folder = Path()
        self._screen = NndctScreenLogger()

    # --- forward ---

    def forward(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """One forward of the quantized model, in the float model's structure.

        The caller's input tensors are overwritten by their quantized values, as the genuine kernel
        does; views are spared.
        """
        given = tensors_in(positional(self._signature, args, kwargs))
        self._check_shapes(given)
        device = given[0].device if given else torch.device("cpu")
        inputs = [tensor.detach().cpu() for tensor in given]
        if self.mode is Mode.COLLECT:
            self.collected.append(tuple(tensor.clone() for tensor in inputs))
            return self._finished(self._float(inputs), device)
        seen: Dict[Node, Tensor] = {}
        if self.mode is Mode.CALIB:
            calibrator = self.calibrator()
            outputs = calibrator.forward(inputs)
            seen = calibrator.inputs
        else:
            finite = all(bool(torch.isfinite(tensor).all()) for tensor in inputs)
            unusable = None if finite else self._unusable

            def see(node: Node, result: Tensor) -> None:
                if node.op == g.INPUT:
                    seen[node] = result

            outputs = self.quantized().execute(inputs, see, unusable)
        self.called, self.last = True, [tensor.clone() for tensor in inputs]
        for tensor, node in zip(given, self.ours.graph.inputs):
            _overwrite(tensor, seen[node])
        return self._finished(outputs, device)

    def _finished(self, outputs: Dict[Node, Tensor], device: torch.device) -> Any:
        result = substitute(self.ours.graph.outputs, outputs)
        if device.type == "cpu":
            return result
        return mapped(result, lambda v: v.to(device) if isinstance(v, Tensor) else v)

    def _float(self, inputs: Sequence[Tensor]) -> Dict[Node, Tensor]:
        graph = self.ours.graph
        floats = float_tensors(graph)
        with torch.no_grad():
            return run(graph, inputs, lambda n: tensors_of(n, floats), lambda n, raw, x: raw)

    def _check_shapes(self, given: Sequence[Tensor]) -> None:
        for tensor, node in zip(given, self.ours.graph.inputs):
            if tuple(tensor.shape[1:]) != tuple(node.shape[1:]):
                self._screen.warning(
                    f"The shape of input ({tensor.shape[1:]}) should be the same with that of "
                    f"dummy input ({list(node.shape[1:])})"
                )

    def _unusable(self, node: Node) -> None:
        name = self.ours.graph.file_name(node)
        self._screen.warning2user(
            "TENSOR_VALUE_INVALID",
            f"The tensor {name} has inf or nan values. It is not quantized in this forward.",
        )

    # --- calibration ---

    def calibrator(self) -> Calibrator:
        """The calibration in progress."""
        if self._calibrator is None:
            self._calibrator = self.ours.calibrator(self.tuned, on_unusable=self._unusable)
        return self._calibrator

    def collect(self) -> None:
        """Starts a fast finetune: the next forwards are float and their inputs are kept."""
        self.mode, self.collected = Mode.COLLECT, []

    def search(self) -> None:
        """The next forwards find the positions the finetune is to keep; no bias is moved."""
        self.mode = Mode.CALIB
        self._calibrator = self.ours.calibrator(correct=False, on_unusable=self._unusable)

    def finetune(self) -> Dict[str, np.ndarray]:
        """Tunes on what was collected and searched; returns what ``param.pth`` holds."""
        found = self.calibrator().result()
        self.tuned = self.ours.finetune(self.collected, found=found)
        self._calibrator, self.collected = None, []
        names = tuned_parameters.names(self.ours.graph)
        return {name: self.tuned.params[key] for name, key in names.items()}

    def calibration(self) -> Calibration:
        """What the forwards so far gave."""
        return self.ours.calibration(self.calibrator().result(), self.tuned)

    # --- test ---

    def load(self, folder: Path) -> None:
        """Reads a calibration; what is wrong with it ends the process as the genuine tool does.

        Raises:
            SystemExit: a file is missing (2), or is another model's (0).
            FormatError: a file is damaged.
        """
        correct = self.ours.options.bias_correction
        if correct and not (folder / results.BIAS_CORR).is_file():
            raise leave(
                "BIAS_CORRECTION",
                "Bias correction result file does not exist. "
                "Please check calibration with bias correction is done or not.",
            )
        if not (folder / results.QUANT_INFO).is_file():
            raise leave(
                "NO_CALIB_RESULT",
                "Quantization calibration result file does not exist. "
                "Please check calibration is done or not.",
            )
        info, corrected = results.load_positions(folder, self.ours.graph.bits)
        if corrected and not correct:
            self._screen.warning2user(
                "BIAS_CORRECTION",
                "Bias correction is off, the one in the quantization result directory is not used.",
            )
        graph, entries = self.ours.graph, self.ours.entries
        try:
            if not results.same_form(info.release, graph.release):
                raise MismatchError(f"The file has the form of release {info.release}")
            named = results.fitted(info, graph, entries, str(folder), allow_unfilled=True)
        except MismatchError as error:
            raise leave(
                "CALIB_RESULT_MISMATCH",
                "Node name mismatch is found when   loading quantization steps of tensors. "
                f"{error.cause}: {error.evidence}. Calibrate this model again.",
                0,
            ) from error
        for node in entries.filled:
            if named.outputs[graph.file_name(node)] is None:
                self._screen.warning2user(
                    "TENSOR_NOT_QUANTIZED",
                    f"The tensor {graph.file_name(node)} has no quantization step. It stays float.",
                )
        # An empty table stands for corrections that the first forward reads.
        self.info = replace(info, corrections={}) if corrected else info
        self._folder, self._quantized = folder, None

    def load_tuned(self, folder: Path) -> None:
        """Reads ``param.pth``.

        Raises:
            SystemExit: there is none (2).
        """
        flagged = self.ours.graph.release.flags and not (self.info and self.info.fast_finetuned)
        if flagged or not (folder / tuned_parameters.PARAM).is_file():
            raise leave(
                "FAST_FINETINE",
                "Fast finetuned parameter file does not exist. "
                "Please check calibration with fast finetune is done or not.",
            )
        self._loaded = tuned_parameters.load(folder, self.ours.graph)
        self._quantized = None

    def quantized(self) -> QuantizedModel:
        """The quantized model of the calibration that was loaded.

        Raises:
            SystemExit: the bias corrections are another model's (2).
        """
        if self._quantized is None:
            assert self.info is not None  # loaded before the first forward in test
            correct = self.ours.options.bias_correction
            corrections = results.load_corrections(self._folder) if correct else None
            graph, info = self.ours.graph, replace(self.info, corrections=corrections)
            try:
                info = results.fitted(
                    info, graph, self.ours.entries, str(self._folder), allow_unfilled=True
                )
            except MismatchError as error:
                raise leave(
                    "BIAS_CORRECTION",
                    "Bias correction file in quantization result directory does not match current "
                    "model.",
                ) from error
            if self._loaded is not None:
                graph = with_params(graph, self._loaded)
            self._quantized = QuantizedModel(graph, self.ours.entries, info)
            self._show_parameters(self._quantized)
        return self._quantized

    def _show_parameters(self, model: QuantizedModel) -> None:
        """Puts the parameters into the generated module, where scripts may look at them."""
        if self.quant_model is None:
            return
        for node in model.graph.nodes:
            for role in node.params:
                value = model.node_parameters(node)[role]
                shown = getattr(self.quant_model, f"module_{node.index}", None)
                if value is not None and isinstance(getattr(shown, role, None), Tensor):
                    getattr(shown, role).data = value.clone()


def positional(
    signature: inspect.Signature, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> Tuple[Any, ...]:
    """The arguments of a forward in their order, with defaults where names leave gaps."""
    if not kwargs:
        signature.bind(*args)
        return tuple(args)
    bound = signature.bind(*args, **kwargs)
    last = list(bound.arguments)[-1]
    names = list(signature.parameters)
    bound.apply_defaults()
    return tuple(bound.arguments[name] for name in names[: names.index(last) + 1])


def _overwrite(tensor: Tensor, quantized: Tensor) -> None:
    """What the genuine kernel does to its input; a view's storage is not its own and is spared."""
    given: Any = tensor  # torch before 2.0 has no untyped storage
    if hasattr(given, "untyped_storage"):
        own = given.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()
    else:
        own = given.storage().size() == tensor.numel()
    if own:
        with torch.inference_mode() if tensor.is_inference() else torch.no_grad():
            tensor.detach().copy_(quantized)
