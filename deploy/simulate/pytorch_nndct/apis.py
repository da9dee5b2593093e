"""``torch_quantizer`` and its companions, in the form of the active release."""

from __future__ import annotations

import inspect
from typing import Any, Callable, Dict, List, Optional, Sequence

from torch import nn

from .processor import DEFAULT_OUTPUT, Request, TorchQuantProcessor, say_retiring
from .versions import at_least, missing_methods, unknown_arguments

__all__ = ["Inspector", "dump_xmodel", "torch_quantizer"]  # noqa: F822 - see __getattr__

_last: List[TorchQuantProcessor] = []
"""The newest quantizer of this process, which ``dump_xmodel`` means."""


class _Released(type):
    """Shows the signature that the active release has."""

    @property
    def __signature__(cls) -> inspect.Signature:
        return _signature()


class torch_quantizer(metaclass=_Released):  # noqa: N801 - the genuine name
    """Quantizes one model: ``quant_model`` is run on data, then a result is exported.

    Arguments that the active release does not have are a ``TypeError``, its missing methods an
    ``AttributeError``.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        request = Request(**_arguments(args, kwargs))
        self.processor = TorchQuantProcessor(request)
        _last[:] = [self.processor]

    def __getattribute__(self, name: str) -> Any:
        if name in missing_methods():
            raise AttributeError(f"'torch_quantizer' object has no attribute '{name}'")
        return super().__getattribute__(name)

    @property
    def quant_model(self) -> nn.Module:
        """The quantized model."""
        return self.processor.quant_model

    @property
    def deploy_model(self) -> None:
        """Only training has one."""
        from ..nndct_shared.messages import NndctScreenLogger

        NndctScreenLogger().warning2user(
            "DEPLOY_MODEL", "Only quant aware training process has deployable model."
        )

    def fast_finetune(self, run_fn: Callable[..., Any], run_args: Sequence[Any]) -> None:
        """Tunes the parameters layer by layer; ``run_fn(*run_args)`` runs the data."""
        self.processor.fast_finetune(run_fn, run_args)

    def load_ft_param(self) -> None:
        """Takes the parameters that a fast finetune left."""
        self.processor.load_ft_param()

    def quantize(
        self,
        run_fn: Callable[..., Any],
        run_args: Sequence[Any],
        ft_run_args: Optional[Sequence[Any]] = None,
    ) -> None:
        """Calibrates by ``run_fn(*run_args)`` and exports the result."""
        self.processor.quantize(run_fn, run_args, ft_run_args)

    def test(self, run_fn: Callable[..., Any], run_args: Sequence[Any]) -> None:
        """Evaluates the quantized model by ``run_fn(*run_args)``."""
        self.processor.test(run_fn, run_args)

    def deploy(
        self,
        run_fn: Callable[..., Any],
        run_args: Sequence[Any],
        fmt: str = "xmodel",
        output_dir: str = DEFAULT_OUTPUT,
        **settings: Any,
    ) -> None:
        """Runs the quantized model and exports it as ``fmt``: xmodel, onnx or torch_script."""
        exports = {
            "xmodel": "export_xmodel",
            "onnx": "export_onnx_model",
            "torch_script": "export_torch_script",
        }
        if fmt not in exports:
            raise ValueError(f"fmt is {fmt!r}, known are {', '.join(exports)}")
        self.processor.enter_test()
        run_fn(*run_args)
        getattr(self, exports[fmt])(output_dir=output_dir, **settings)

    def export_quant_config(self) -> None:
        """Writes the result of the calibration."""
        self.processor.export_quant_config()

    def export_xmodel(
        self,
        output_dir: str = DEFAULT_OUTPUT,
        deploy_check: bool = False,
        dynamic_batch: bool = False,
    ) -> None:
        """Writes the quantized model for the compiler; ``dynamic_batch`` has no effect on it."""
        del dynamic_batch
        self.processor.exports.xmodel(output_dir, deploy_check)

    def dump_xmodel(self, output_dir: str = DEFAULT_OUTPUT, deploy_check: bool = False) -> None:
        """The old name of ``export_xmodel``."""
        say_retiring()
        self.processor.exports.xmodel(output_dir, deploy_check)

    def export_onnx_model(
        self,
        output_dir: str = DEFAULT_OUTPUT,
        verbose: bool = False,
        dynamic_batch: bool = False,
        opset_version: Optional[int] = None,
        native_onnx: bool = True,
        dump_layers: bool = False,
        check_model: bool = False,
        opt_graph: bool = False,
    ) -> None:
        """Writes the quantized model as ONNX with QuantizeLinear and DequantizeLinear."""
        self.processor.exports.onnx(
            output_dir,
            verbose=verbose,
            dynamic_batch=dynamic_batch,
            opset_version=opset_version,
            native_onnx=native_onnx,
            dump_layers=dump_layers,
            check_model=check_model,
            opt_graph=opt_graph,
        )

    def export_torch_script(self, output_dir: str = DEFAULT_OUTPUT, verbose: bool = False) -> None:
        """Writes the quantized model as TorchScript."""
        del verbose
        self.processor.exports.script(output_dir)

    def export_traced_torch_script(
        self, output_dir: str = DEFAULT_OUTPUT, verbose: bool = False
    ) -> None:
        """What ``export_torch_script`` is called in release 2.5."""
        del verbose
        self.processor.exports.script(output_dir)


def dump_xmodel(output_dir: str = DEFAULT_OUTPUT, deploy_check: bool = False) -> None:
    """Exports the newest quantizer's model, as scripts for the oldest releases do.

    Raises:
        RuntimeError: there is no quantizer.
    """
    say_retiring()
    if not _last:
        raise RuntimeError("dump_xmodel() needs a torch_quantizer that was made before")
    _last[0].exports.xmodel(output_dir, deploy_check)


def _signature() -> inspect.Signature:
    """Of ``torch_quantizer`` in the active release."""
    unknown = unknown_arguments()
    parameters = [p for n, p in inspect.signature(Request).parameters.items() if n not in unknown]
    return inspect.Signature(parameters)


def _arguments(args: Sequence[Any], kwargs: Dict[str, Any]) -> Dict[str, Any]:
    try:
        return dict(_signature().bind(*args, **kwargs).arguments)
    except TypeError as error:
        raise TypeError(f"torch_quantizer: {error}") from None


def __getattr__(name: str) -> Any:
    if name == "Inspector" and at_least("2.5"):
        from .inspector import Inspector

        return Inspector
    if name == "QatProcessor":
        from .unsupported import refusing

        return refusing(name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
