"""The vendor's quantizer ``pytorch_nndct``, releases 1.4.1 to 3.5, behind our interface.

It works in a folder of its own on copies of model and pictures, is called in the one order that
works, and its files are published only when ``vendor_checks`` has nothing against them.

Importing this module imports torch, but not the vendor's.
"""

from __future__ import annotations

import contextlib
import copy
import importlib
import inspect
import re
import shutil
import sys
import tempfile
import weakref
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, Iterator, List, Optional, Sequence, Tuple

import torch
from torch import Tensor, nn

from ..board.vendor import VendorTool, find_package
from ..errors import DataError, UnsupportedError, WorkError
from . import vendor_checks as checks
from .backend import (
    CALIBRATION_FILES,
    CALIBRATION_LOG,
    PARAM,
    TEST_LOG,
    CalibrationSummary,
    Finetune,
    QuantizeBackend,
    Quantized,
)
from .releases import RELEASES, release
from .results import QuantInfo
from .vendor_calls import SIM, VendorCalls
from .vendor_console import VendorConsole

ENOUGH_IMAGES = 100
_PACKAGE = "pytorch_nndct"


class VitisBackend(QuantizeBackend):
    """The vendor's quantizer, as it was found on this host.

    Args:
        tool: the package.

    Attributes:
        release: of the tool, one of ``RELEASES``.
        evidence: how that was found out.

    Raises:
        UnsupportedError: it cannot be imported, or its release is not known.
    """

    name = "vitis"

    def __init__(self, tool: VendorTool) -> None:
        self._tool = tool
        with _working_folder() as work:
            self._quantizer_type = _imported(VendorConsole(work / "import.log"))
        self.release, self.evidence = detect_release(tool, self._quantizer_type)

    def calibrate(
        self,
        model: nn.Module,
        example: Tensor,
        batches: Iterable[Tensor],
        folder: Path,
        on_images: Callable[[int], None],
        finetune: Optional[Finetune] = None,
    ) -> CalibrationSummary:
        """See ``QuantizeBackend.calibrate``; leaves ``CALIBRATION_LOG`` too.

        A fast finetune that is stopped begins again the next time: the tool keeps no finished
        layers. ``saturation``, ``peaks`` and ``sizes`` are empty, for it does not tell.

        Raises:
            WorkError: the tool failed or left no result; names where its console output is.
        """
        checks.check_model(model, example)
        rules = release(self.release)
        with _working_folder() as work:
            calls = VendorCalls(VendorConsole(work / CALIBRATION_LOG), rules)
            quantizer = self._quantizer(calls, "calib", model, example, work)
            forward = calls.call("the quantized network", lambda: quantizer.quant_model)
            with calls.keeping_log():
                checks.refuse_float_operators(calls.console.warnings)
            if finetune is not None:
                self._finetune(calls, quantizer, forward, model, example, finetune)
            images = 0
            for number, batch in enumerate(batches):
                checked = checks.check_pictures(batch, example, f"calibration batch {number}")
                # The tool quantizes its input in place.
                calls.call(f"calibration batch {number}", _run, forward, checked.clone())
                images += len(checked)
                on_images(len(checked))
            checks.check_images(images)
            calls.call("the calibration's export", quantizer.export_quant_config)
            with calls.keeping_log():
                checks.check_calibrated(work, model, rules, finetune is not None)
            names = [*CALIBRATION_FILES, CALIBRATION_LOG, *([PARAM] if finetune else [])]
            for name in names:
                shutil.move(str(work / name), str(folder / name))
        warnings = list(calls.console.warnings)
        adjustments = [text for text in warnings if "adjust the fix position" in text]
        if images < ENOUGH_IMAGES:
            warnings.append(
                f"Only {images} images were used for calibration; 100 to 1000 are usual"
            )
        return CalibrationSummary(
            images, [text for text in warnings if text not in adjustments], adjustments
        )

    def load(self, model: nn.Module, example: Tensor, folder: Path) -> Quantized:
        """See ``QuantizeBackend.load``; loads the tuned parameters of a fast finetune.

        Raises:
            UnsupportedError: the tool could not export the model later, without ``xir``.
        """
        checks.check_model(model, example)
        info = checks.check_before_test(folder, model, release(self.release))
        xir = find_package("xir")
        if not xir.usable:
            raise UnsupportedError(
                "The vendor's quantizer cannot write the quantized model without the xir module",
                xir.evidence,
                f"activate the container's conda environment, or: {SIM} --mode test --data DIR",
            )
        return _VitisQuantized(self, model, example, folder, info)

    def _finetune(
        self,
        calls: VendorCalls,
        quantizer: Any,
        forward: Callable[[Tensor], Any],
        model: nn.Module,
        example: Tensor,
        finetune: Finetune,
    ) -> None:
        held = [
            checks.check_pictures(batch, example, f"fast finetune batch {number}").clone()
            for number, batch in enumerate(finetune.batches)
        ]
        if not held:
            raise DataError("Fast finetune needs images", "none were given")
        targets = [_run(model, batch.clone()) for batch in held]
        finetune.on_layer(0, 1)
        calls.call("fast finetune", quantizer.fast_finetune, difference, (forward, held, targets))
        finetune.on_layer(1, 1)

    def _quantizer(
        self, calls: VendorCalls, mode: str, model: nn.Module, example: Tensor, folder: Path
    ) -> Any:
        """The tool's own object; it works on a copy of the model."""
        given: Dict[str, Any] = {
            "quant_mode": mode,
            "module": copy.deepcopy(model).cpu().eval(),
            "input_args": (example.clone(),),
            "output_dir": str(folder),
            "device": torch.device("cpu"),
        }
        known = _arguments(self._quantizer_type)
        missing = [name for name in given if known and name not in known]
        if missing:
            raise UnsupportedError(
                f"The vendor's torch_quantizer does not take {', '.join(missing)}",
                f"it takes {', '.join(known)}; {self.evidence}",
                f"{SIM} --mode {mode} --data DIR",
            )
        return calls.call(f"torch_quantizer({mode!r})", self._quantizer_type, **given)


class _VitisQuantized(Quantized):
    """A calibrated network in the tool's test mode."""

    def __init__(
        self,
        backend: VitisBackend,
        model: nn.Module,
        example: Tensor,
        folder: Path,
        info: QuantInfo,
    ) -> None:
        self._work = Path(tempfile.mkdtemp(prefix="quantize-"))
        weakref.finalize(self, shutil.rmtree, str(self._work), ignore_errors=True)
        self._model, self._example, self._info = model, example, info
        work = self._work
        for name in (*CALIBRATION_FILES, *([PARAM] if info.fast_finetuned else [])):
            shutil.copyfile(str(folder / name), str(work / name))
        self._calls = VendorCalls(VendorConsole(work / TEST_LOG), release(backend.release))
        try:
            self._open(backend, work)
        except BaseException:
            shutil.rmtree(str(work), ignore_errors=True)
            raise

    def _open(self, backend: VitisBackend, work: Path) -> None:
        self._quantizer = backend._quantizer(self._calls, "test", self._model, self._example, work)
        if self._info.fast_finetuned:
            # Without this call the tool tests the parameters from before, and does not say so.
            self._calls.call("the tuned parameters", self._quantizer.load_ft_param)
        self._forward = self._calls.call(
            "the quantized network", lambda: self._quantizer.quant_model
        )

    def __call__(self, pictures: Tensor) -> Tuple[Tensor, Tensor]:
        checked = checks.check_pictures(pictures, self._example, "test batch")
        outputs = self._calls.call("a test batch", _run, self._forward, checked.clone())
        if not isinstance(outputs, (tuple, list)) or len(outputs) != 2:
            raise WorkError(
                "The vendor's quantized network does not return what the float network does",
                f"{type(outputs).__name__} instead of a mask and a classifier output",
            )
        mask, real = outputs
        return mask, real

    def export_xmodel(self, path: Path) -> None:
        """Writes the model to ``path`` and the tool's console output beside it."""
        work = self._work / "export"
        work.mkdir(exist_ok=True)
        # The last forward decides the batch of the exported model, and must be of one picture.
        one = torch.zeros_like(self._example[:1])
        self._calls.call("the forward before the export", _run, self._forward, one)
        self._calls.call("export_xmodel", self._quantizer.export_xmodel, output_dir=str(work))
        made = work / f"{type(self._model).__name__}_int.xmodel"
        if not made.is_file():
            others = sorted(work.glob("*.xmodel"))
            made = others[0] if len(others) == 1 else made
        with self._calls.keeping_log():
            checks.check_xmodel(made, self._model, self._example, self._info)
        shutil.move(str(made), str(path))
        shutil.copyfile(str(self._calls.console.path), str(path.with_name(TEST_LOG)))


def difference(
    forward: Callable[[Tensor], Any], batches: Sequence[Tensor], targets: Sequence[Any]
) -> float:
    """Mean squared difference to the float network's results, of all results together.

    The tool calls this as often as it likes, so batches are never used up.
    """
    total = 0.0
    for batch, wanted in zip(batches, targets):
        pairs = zip(_tensors(_run(forward, batch.clone())), _tensors(wanted))
        total += sum(float(torch.mean((a - b) ** 2)) for a, b in pairs)
    return total / max(len(batches), 1)


def detect_release(tool: VendorTool, quantizer_type: Any) -> Tuple[str, str]:
    """The tool's release and how it was told.

    Raises:
        UnsupportedError: it is none of ``RELEASES``.
    """
    version = _version() or tool.version
    shown = f"version {version or 'not given'}"
    possible = _by_arguments(quantizer_type)
    found = re.match(r"(\d+)\.(\d+)", version)
    for name in RELEASES:
        if found and name.split(".")[:2] == list(found.groups()) and name in possible:
            return name, shown
    if 0 < len(possible) < len(RELEASES):
        # Later ones of a group have this method.
        last = len(possible) > 1 and hasattr(quantizer_type, "export_onnx_model")
        return possible[-1 if last else 0], f"{shown}, told by its arguments"
    raise UnsupportedError(
        f"The release of {_PACKAGE} is not known",
        f"version {version or 'not given'} at {tool.path}; known are {', '.join(RELEASES)}",
        SIM,
    )


def _by_arguments(quantizer_type: Any) -> List[str]:
    """Releases whose ``torch_quantizer`` takes these arguments, which came one by one."""
    names = set(_arguments(quantizer_type))
    if not {"quant_mode", "module"} <= names:
        return list(RELEASES)
    if "dynamo" in names:
        return ["3.5"]
    if "input_kwargs" in names:
        return ["3.0"]
    return ["2.0", "2.5"] if "target" in names else ["1.4.1"]


def _imported(console: VendorConsole) -> Any:
    """The tool's ``torch_quantizer``."""
    try:
        with console.capture():
            return importlib.import_module(f"{_PACKAGE}.apis").torch_quantizer
    except (SystemExit, Exception) as error:
        last = console.last_error()
        raise UnsupportedError(
            f"The vendor's {_PACKAGE} is there but cannot be imported",
            f"{type(error).__name__}: {error}" + (f"; {last}" if last else ""),
            f"activate the container's conda environment (vitis-ai-pytorch), or: {SIM}",
        ) from error


def _version() -> str:
    module = sys.modules.get(_PACKAGE)
    for owner in (module, getattr(module, "version", None)):
        found = getattr(owner, "__version__", None)
        if isinstance(found, str):
            return found
    return ""


def _arguments(function: Any) -> List[str]:
    """Names of a callable's arguments; none where any would do or it does not tell."""
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return []
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return []
    return [name for name in parameters if name != "self"]


def _run(function: Callable[[Tensor], Any], pictures: Tensor) -> Any:
    with torch.no_grad():
        return function(pictures)


def _tensors(value: Any) -> List[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    return [tensor for part in value for tensor in _tensors(part)]


@contextlib.contextmanager
def _working_folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="quantize-") as name:
        yield Path(name)
