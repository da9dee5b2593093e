"""Who compiles: the vendor's ``vai_c_xir`` or our own compiler, behind one interface."""

from __future__ import annotations

import abc
import shutil
from pathlib import Path
from typing import Tuple

from ..errors import MissingError, UnsupportedError, UsageError
from .compiler import CompileResult, Log, compile_xmodel
from .targets import Target

BACKENDS = ("auto", "vitis", "sim")
VENDOR_COMPILER = "vai_c_xir"


class Backend(abc.ABC):
    """One compiler.

    Attributes:
        name: ``vitis`` or ``sim``.
    """

    name: str

    @abc.abstractmethod
    def compile(
        self, source: Path, target: Target, output_dir: Path, net_name: str, log: Log
    ) -> CompileResult:
        """Compiles a quantized model; see ``compiler.compile_xmodel`` for all arguments."""


class SimBackend(Backend):
    """Our own compiler; its models run on the simulated card."""

    name = "sim"

    def compile(
        self, source: Path, target: Target, output_dir: Path, net_name: str, log: Log
    ) -> CompileResult:
        """Compiles without the vendor's tools."""
        return compile_xmodel(source, target, output_dir, net_name, log)


def select_backend(choice: str) -> Tuple[Backend, str]:
    """The compiler to use and, in words, why.

    Args:
        choice: ``auto``, ``vitis`` or ``sim``.

    Raises:
        UsageError: another word.
        MissingError: ``vitis`` was asked for and ``vai_c_xir`` is not here.
        UnsupportedError: ``vitis`` was asked for, and this version cannot drive it.
    """
    if choice not in BACKENDS:
        raise UsageError(f"There is no backend {choice!r}", f"known are {', '.join(BACKENDS)}")
    found = shutil.which(VENDOR_COMPILER)
    where = f"{VENDOR_COMPILER} is at {found}" if found else f"{VENDOR_COMPILER} is not on the PATH"
    if choice == "sim":
        return SimBackend(), "named with --backend"
    if choice == "auto":
        if found is None:
            return SimBackend(), where
        return SimBackend(), f"{where}, but this version cannot drive it"
    if found is None:
        raise MissingError(
            "The vendor's compiler is not here",
            where,
            "run this inside the Vitis AI container with its conda environment active,"
            " or: deepfake-fpga compile --backend sim",
        )
    raise UnsupportedError(
        "This version cannot drive the vendor's compiler",
        where,
        f"{VENDOR_COMPILER} -x UYNet_int.xmodel -a arch.json -o compiled -n YNET,"
        " or: deepfake-fpga compile --backend sim",
    )
