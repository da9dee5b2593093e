"""What ``torch_quantizer`` does: constructs, tunes, exports, with the genuine console texts."""

from __future__ import annotations

import copy
import inspect
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Mapping, Optional, Sequence, Tuple

import numpy as np
import torch
from torch import nn

from ....errors import UnsupportedError
from ....files import write_text
from ....quantize import results, tuned_parameters
from ....quantize.calls import mapped
from ....quantize.graph import SIGMOID, TANH
from ....quantize.quantizer import QuantizeOptions, Quantizer
from ..nndct_shared.messages import NndctScreenLogger, leave
from ..nndct_shared.options import NndctOption, refuse_unfollowed
from .config import configured
from .engine import Mode, TorchQuantizer, positional
from .exports import Exports
from .host_notes import host_notes, memory
from .module_text import load_module, write_module
from .nn import DeQuantStub, QuantStub
from .quant_model import RecoveryModel
from .versions import at_least, release

DEFAULT_OUTPUT = "quantize_result"
_PUBLIC = {"calib": Mode.CALIB, "test": Mode.TEST}
_NO_CALIBRATION = (
    "Quantization is not performed completely, check if module FORWARD function is called! "
    "Run torch_quantizer.quant_model on the calibration data before exporting."
)


@dataclass(frozen=True)
class Request:
    """The arguments of ``torch_quantizer``.

    Attributes are called as there.
    """

    quant_mode: Any
    module: Any
    input_args: Any = None
    input_kwargs: Optional[Mapping[str, Any]] = None
    state_dict_file: Optional[str] = None
    output_dir: str = DEFAULT_OUTPUT
    bitwidth: Optional[int] = None
    mix_bit: bool = False
    device: Any = torch.device("cuda")  # noqa: RUF009 - it never changes
    lstm: bool = False
    app_deploy: str = "CV"
    qat_proc: bool = False
    custom_quant_ops: Optional[Sequence[str]] = None
    quant_config_file: Optional[str] = None
    target: Optional[str] = None
    dynamo: bool = False

    def refuse(self) -> None:
        """Refuses what the drop-in does not do.

        Raises:
            UnsupportedError: names the argument.
        """
        for name in ("mix_bit", "lstm", "qat_proc", "custom_quant_ops", "dynamo"):
            if getattr(self, name):
                raise UnsupportedError(
                    f"The drop-in quantizer does not do torch_quantizer({name}=...)",
                    f"{name}={getattr(self, name)!r}",
                    "leave the argument out, or quantize with the vendor's tool",
                )


class TorchQuantProcessor:
    """One ``torch_quantizer``.

    Attributes:
        quantizer: what runs behind ``quant_model``.
        quant_model: for the script to call.
        exports: writes the quantized model.
        output_dir: where the calibration is.
    """

    def __init__(self, request: Request) -> None:
        self._screen = NndctScreenLogger()
        self.output_dir = request.output_dir
        request.refuse()
        refuse_unfollowed()
        for note in host_notes() if at_least("3.0") else ():
            self._screen.info(note)
        if request.target is not None:
            self._screen.warning(
                f"target={request.target!r} changes nothing here: every operator of the model is "
                "quantized, also those that this DPU leaves to the processor."
            )
        mode = self._mode(request.quant_mode)
        device = self._device(request.device)
        config = configured(request.quant_config_file, request.bitwidth)
        if at_least("2.5"):
            self._screen.info(
                "Quant config file is empty, use default quant configuration"
                if request.quant_config_file is None
                else f"Quant config file is {request.quant_config_file}"
            )
        word = "calibration" if mode is Mode.CALIB else "test"
        self._screen.info(f"Quantization {word} process start up...")
        model = self._module(request, device)
        forward = inspect.signature(model.forward)
        example = self._given_example(request, model, forward)
        options = QuantizeOptions(
            equalization=config.equalization,
            bias_correction=config.bias_correction,
            correction_rate=config.correction_rate,
            max_fix_position=config.max_fix_position,
            release=release(),
            bits=config.bits,
            by_range=config.by_range,
            aligned=config.aligned,
        )
        ours = self._parsed(model, example, options)
        self.quantizer = TorchQuantizer(ours, forward, mode)
        path = Path(self.output_dir) / f"{ours.graph.name}.py"
        write_module(ours.graph, path)
        self.quantizer.quant_model = load_module(ours.graph, path)
        self._screen.info(f"=>Quantizable module is generated.({self._shown(path.name)})")
        self.exports = Exports(self.quantizer, model, example)
        self.quant_model = RecoveryModel(self.quantizer)
        self._screen.info("=>Get module with quantization.")
        if mode is Mode.TEST:
            self.quantizer.load(Path(self.output_dir))

    # --- construction ---

    def _mode(self, given: Any) -> Mode:
        if isinstance(given, int):
            self._screen.warning(
                "quant_mode will not support integer value in future version. "
                "It supports string values 'calib' and 'test'."
            )
            given = {1: "calib", 2: "test"}.get(given, given)
        if NndctOption.nndct_quant_mode.value > 0:
            given = {1: "calib", 2: "test"}.get(NndctOption.nndct_quant_mode.value, given)
        if given not in _PUBLIC:
            self._screen.warning(
                "quant_mode supported values are 'calib' and 'test'. "
                "Change it to 'calib' as calibration mode."
            )
        return _PUBLIC.get(given, Mode.CALIB)

    def _device(self, given: Any) -> torch.device:
        device = torch.device(given)
        if device.type == "cuda" and not torch.cuda.is_available():
            for _ in range(2):
                self._screen.warning2user(
                    "CUDA_UNAVAILABLE", "CUDA (HIP) is not available, change device to CPU"
                )
            device = torch.device("cpu")
        return device

    def _module(self, request: Request, device: torch.device) -> nn.Module:
        given = request.module
        if isinstance(given, nn.DataParallel):
            self._screen.warning2user(
                "DATA_PARALLEL", "The model is a DataParallel; its inner module is quantized."
            )
            given = given.module
        module: nn.Module = given.to(device)
        if request.state_dict_file is not None:
            module.load_state_dict(torch.load(request.state_dict_file, map_location=device))
        self._screen.info(f"=>Quant Module is in '{device.type}'.")
        tensors = [*module.parameters(), *module.buffers()]
        if all(tensor.device.type == "cpu" for tensor in tensors):
            return module
        return copy.deepcopy(module).cpu()

    def _given_example(
        self, request: Request, model: nn.Module, forward: inspect.Signature
    ) -> Tuple[Any, ...]:
        given = request.input_args
        if isinstance(given, np.ndarray):
            raise TypeError(f"'numpy.{given.dtype}' object is not iterable")
        if given is None:
            args: Tuple[Any, ...] = ()
        else:
            args = tuple(given) if isinstance(given, (tuple, list)) else (given,)
        kwargs = request.input_kwargs or {}
        if not args and not kwargs:
            # The forward itself says what it lacks.
            model()
        found = positional(forward, args, kwargs)
        return tuple(mapped(value, _on_cpu) for value in found)

    def _parsed(
        self, model: nn.Module, example: Tuple[Any, ...], options: QuantizeOptions
    ) -> Quantizer:
        name = type(model).__name__
        self._screen.info(f"=>Parsing {name}...")
        if at_least("3.0"):
            wrapped = f"nndct_st_{name}_ed" if release() == "3.5" else name
            self._screen.info("Start to trace and freeze model...")
            self._screen.info(f"The input model {wrapped} is torch.nn.Module.")
        ours = Quantizer(model, example, options)
        if at_least("3.0"):
            self._screen.info("Finish tracing.")
            self._screen.info("Processing ops...")
        for kind in dict.fromkeys(node.op for node in ours.graph.nodes if node.custom):
            self._screen.warning2user(
                "FLOAT_OP",
                f"The quantizer recognize new op `{kind}` as a float operator by default.",
            )
        for note in ours.graph.notes:
            if "stays float" not in note:
                code = "REPLACE_RELU6" if "became a ReLU" in note else "LEAKYRELU"
                self._screen.warning2user(code, note)
        if any(isinstance(module, (QuantStub, DeQuantStub)) for module in model.modules()):
            self._screen.warning(
                "QuantStub and DeQuantStub are passed over: the whole model is quantized."
            )
        if options.equalization:
            self._screen.info("=>Doing weights equalization...")
        return ours

    def _shown(self, name: str, folder: Optional[str] = None) -> str:
        return os.path.join(self.output_dir if folder is None else folder, name)

    # --- calibration ---

    def fast_finetune(self, run_fn: Callable[..., Any], run_args: Sequence[Any]) -> None:
        """Tunes the parameters on what ``run_fn`` gives ``quant_model``; it is called twice.

        Raises:
            SystemExit: gradients are off (2).
            UnsupportedError, DataError: see ``Quantizer.finetune``.
        """
        if self.quantizer.mode is Mode.TEST:
            self._screen.warning2user(
                "FINETUNE_IGNORED", "Finetune function will be ignored in test mode!"
            )
            self._screen.info("=>Export fast finetuned parameters ...")
            return
        if at_least("3.0") and not torch.is_grad_enabled():
            raise leave("FAST_FINETUNE", "Fast finetune must not be called where gradients are off")
        self.quantizer.ours.check_finetune()
        self._screen.info("=>Preparing data for fast finetuning module parameters ...")
        self.quantizer.collect()
        try:
            run_fn(*run_args)
        finally:
            self.quantizer.search()
        self._say_memory()
        self._screen.info("=>Find initial quantization steps for fast finetuning...")
        run_fn(*run_args)
        self._screen.info("=>Fast finetuning module parameters for better quantization accuracy...")
        tuned = self.quantizer.finetune()
        self._screen.info("=>Export fast finetuned parameters ...")
        self._screen.info(
            f"=>Exporting quant model parameters.({self._shown(tuned_parameters.PARAM)})"
        )
        tuned_parameters.save(Path(self.output_dir), tuned)

    def _say_memory(self) -> None:
        found = memory()
        if found is not None:
            total, free = (f"{size / 2**20:.2f}G" for size in found)
            self._screen.info(f"Mem status(total mem: {total}, available mem: {free}).")
        batches = self.quantizer.collected
        size = sum(t.numel() * t.element_size() for batch in batches for t in batch)
        self._screen.info(f"Memory cost by fast finetuning is {size / 2**30:.2f} G.")

    def load_ft_param(self) -> None:
        """Takes the parameters of an earlier fast finetune; in calibration it does nothing.

        Raises:
            SystemExit: there are none (2).
        """
        if self.quantizer.mode is Mode.TEST:
            self._screen.info(
                f"=>Loading quant model parameters.({self._shown(tuned_parameters.PARAM)})"
            )
            self.quantizer.load_tuned(Path(self.output_dir))

    def export_quant_config(self) -> None:
        """Writes ``quant_info.json``, after a calibration ``bias_corr.pth`` too."""
        path = Path(self.output_dir) / results.QUANT_INFO
        if self.quantizer.mode is Mode.TEST:
            assert self.quantizer.info is not None  # loaded on construction
            self._screen.info(f"=>Exporting quant config.({self._shown(path.name)})")
            write_text(path, self.quantizer.info.text())
            return
        if not self.quantizer.called:
            self._screen.error2user("NO_CALIBRATION", _NO_CALIBRATION)
            return
        found = self.quantizer.calibration()
        ours = self.quantizer.ours
        for node in ours.entries.outputs:
            name = ours.graph.file_name(node)
            if found.info.outputs[name] is None and node.op not in (SIGMOID, TANH):
                self._screen.warning2user(
                    "TENSOR_NOT_QUANTIZED", f"The tensor {name} has no quantization step."
                )
        for text in filter(None, map(_shift_text, found.adjustments)):
            self._screen.warning2user("SHIFT_CHECK", text)
        self._screen.info(f"=>Exporting quant config.({self._shown(path.name)})")
        found.info.save(Path(self.output_dir))

    # --- one process ---

    def quantize(
        self,
        run_fn: Callable[..., Any],
        run_args: Sequence[Any],
        ft_run_args: Optional[Sequence[Any]],
    ) -> None:
        """Calibrates with one call."""
        self._screen.info("Model quantization calibration begin:")
        if ft_run_args is not None:
            self.fast_finetune(run_fn, ft_run_args)
        run_fn(*run_args)
        self._screen.info("Model quantization calibration end.")
        self.export_quant_config()

    def test(self, run_fn: Callable[..., Any], run_args: Sequence[Any]) -> None:
        """Goes on in test mode and runs ``run_fn``, whose result is printed."""
        self.enter_test()
        self._screen.info("Quantized model evaluation begin:")
        metric = run_fn(*run_args)
        self._screen.info(f"Quantized model evaluation returns metric:\n {metric}")

    def enter_test(self) -> None:
        """Takes the calibration in ``output_dir``, tuned parameters with it."""
        if self.quantizer.mode is Mode.TEST:
            return
        tuned = self.quantizer.tuned
        self.quantizer.mode, self.quantizer.called = Mode.TEST, False
        self.quantizer.load(Path(self.output_dir))
        if tuned is not None:
            self.load_ft_param()


def _is_tensor(value: Any) -> bool:
    return isinstance(value, torch.Tensor)


def _on_cpu(value: Any) -> Any:
    return value.detach().cpu() if _is_tensor(value) else value


def _shift_text(words: str) -> Optional[str]:
    """One of our adjustments in the genuine words; it tells of those for shifts only."""
    found = re.match(r"(\w+) (\S+): fix position (-?\d+) to (-?\d+), .*shift", words)
    if found is None:
        return None
    role, name, before, after = found.groups()
    return f"{role} {name} value is too small, so adjust the fix position from {before} to {after}"


def say_retiring() -> None:
    """The warning of ``dump_xmodel``."""
    NndctScreenLogger().warning(
        "The function dump_xmodel() will retire in future version. "
        "Use torch_quantizer.export_xmodel() reversely."
    )
