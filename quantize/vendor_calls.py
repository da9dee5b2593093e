"""Calls of the vendor's quantizer: whatever ends one becomes an error of ours, with its log kept.

It ends the process on its own errors, sometimes with the status of success.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
import traceback
from pathlib import Path
from typing import Any, Callable, Iterator, Mapping, Optional, Sequence, Tuple, Type

from ..errors import (
    MismatchError,
    OrderError,
    ToolkitError,
    UnsupportedError,
    UsageError,
    WorkError,
)
from .releases import Release
from .vendor_console import VendorConsole

SIM = "deepfake-fpga quant --backend sim"
"""What does the same without the vendor's quantizer."""

_CALIBRATE = "deepfake-fpga quant --mode calib --data DIR"

EXPLAINED: Sequence[Tuple[str, Type[ToolkitError], str, str]] = (
    (
        "CALIB_RESULT_MISMATCH|Node name mismatch",
        MismatchError,
        "The calibration belongs to another model",
        _CALIBRATE,
    ),
    (
        "does not match current model",
        MismatchError,
        "The bias correction belongs to another model",
        _CALIBRATE,
    ),
    (
        "Bias correction result file does not exist|calibration result file does not exist",
        OrderError,
        "The calibration is incomplete",
        _CALIBRATE,
    ),
    (
        "Fast finetuned parameter file does not exist",
        OrderError,
        "The parameters of the fast finetune are not there",
        f"{_CALIBRATE} --fast-finetune",
    ),
    (
        "install xir package|NO_XIR",
        UnsupportedError,
        "The vendor's quantizer cannot write the quantized model without the xir module",
        f"activate the container's conda environment, or: {SIM} --mode test --data DIR",
    ),
    (
        "QUANT_CONFIG",
        UsageError,
        "The vendor's quantizer refuses its configuration",
        "run where no nndct configuration is set",
    ),
    (
        "MemoryError|[Cc]annot allocate memory|DefaultCPUAllocator",
        WorkError,
        "There is not enough memory for the vendor's quantizer",
        "use a smaller batch (-b), or fewer pictures (--finetune-images)",
    ),
)
"""Pattern in what was seen, the error, its cause and what to do."""


class VendorCalls:
    """Calls of the vendor's code: whatever ends one becomes an error of ours."""

    def __init__(self, console: VendorConsole, rules: Release) -> None:
        self.console, self._rules = console, rules

    def call(self, what: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Returns what ``function`` returns.

        Raises:
            ToolkitError: it exited, whatever the status, or failed.
        """
        with self.keeping_log():
            return self._call(what, function, args, kwargs)

    def _call(
        self, what: str, function: Callable[..., Any], args: Any, kwargs: Mapping[str, Any]
    ) -> Any:
        try:
            with self.console.capture():
                return function(*args, **kwargs)
        except SystemExit as stop:
            raise self._error(what, f"it ended the process with status {stop.code}") from stop
        except ToolkitError:
            raise
        except Exception as error:
            said = f"{type(error).__name__}: {error}"
            if self._is_layout_crash(error):
                raise UnsupportedError(
                    "The quantizer of release 2.5 cannot export a network with two results such "
                    "as U-YNet; it fails in its own rewriting of the layout",
                    said,
                    f"{SIM} --mode test --data DIR writes the model of this calibration in the "
                    "form of 2.5",
                ) from error
            raise self._error(what, said) from error

    @contextlib.contextmanager
    def keeping_log(self) -> Iterator[None]:
        """An error that leaves the block names a copy of the log that stays."""
        try:
            yield
        except ToolkitError as error:
            kept = _kept(self.console.path)
            if kept is None:
                raise
            evidence = f"{error.evidence}; " if error.evidence else ""
            raise type(error)(
                error.cause, f"{evidence}console output in {kept}", error.next_step
            ) from error

    def _error(self, what: str, said: str) -> ToolkitError:
        last = self.console.last_error()
        evidence = f"{what}: {said}" + (f"; {last}" if last else "")
        for pattern, kind, cause, next_step in EXPLAINED:
            if re.search(pattern, evidence):
                return kind(cause, evidence, next_step)
        return WorkError(f"The vendor's quantizer failed in {what}", evidence, SIM)

    def _is_layout_crash(self, error: Exception) -> bool:
        frames = traceback.extract_tb(error.__traceback__)
        named = any("layout_tran" in f.name or "deploy_optimizer" in f.filename for f in frames)
        return self._rules.name == "2.5" and isinstance(error, IndexError) and named


def _kept(path: Path) -> Optional[Path]:
    """A copy of a log with something in it, in the system's temporary folder."""
    if not path.is_file() or not path.stat().st_size:
        return None
    handle, name = tempfile.mkstemp(prefix=f"{path.stem}-", suffix=path.suffix)
    os.close(handle)
    shutil.copyfile(str(path), name)
    return Path(name)
