"""Who compiles: the vendor's ``vai_c_xir`` or our own compiler, behind one interface."""

from __future__ import annotations

import abc
from pathlib import Path
from typing import Optional, Tuple

from ..board.vendor import State, find_program
from ..errors import MissingError, UsageError
from .compiler import CompileResult, Log, compile_xmodel
from .options import NO_OPTIONS, CompilerOptions
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
        self,
        source: Path,
        target: Target,
        output_dir: Path,
        net_name: str,
        log: Log,
        options: CompilerOptions = NO_OPTIONS,
    ) -> CompileResult:
        """Compiles a quantized model; see ``compiler.compile_xmodel`` for all arguments."""


class SimBackend(Backend):
    """Our own compiler; its models run on the simulated card."""

    name = "sim"

    def compile(
        self,
        source: Path,
        target: Target,
        output_dir: Path,
        net_name: str,
        log: Log,
        options: CompilerOptions = NO_OPTIONS,
    ) -> CompileResult:
        """Compiles without the vendor's tools."""
        return compile_xmodel(source, target, output_dir, net_name, log, options)


def select_backend(
    choice: str, arch: Optional[Path] = None, time_limit: Optional[float] = None
) -> Tuple[Backend, str]:
    """The compiler to use and, in words, why.

    Args:
        choice: ``auto``, ``vitis`` or ``sim``.
        arch: the ``arch.json`` that the user named, for the vendor's compiler.
        time_limit: seconds the vendor's compiler may take; ``None`` for its default.

    Raises:
        UsageError: another word.
        MissingError: ``vitis`` was asked for and ``vai_c_xir`` is not here.
    """
    from .vitis import TIME_LIMIT, VitisBackend

    if choice not in BACKENDS:
        raise UsageError(f"There is no backend {choice!r}", f"known are {', '.join(BACKENDS)}")
    if choice == "sim":
        return SimBackend(), "named with --backend"
    found = find_program(VENDOR_COMPILER)
    where = f"{VENDOR_COMPILER} is {found.evidence}"
    if found.usable and found.path is not None:
        if found.state is State.GENUINE:
            where = f"{VENDOR_COMPILER} is at {found.evidence}"
        limit = TIME_LIMIT if time_limit is None else time_limit
        return VitisBackend(found.path, arch, limit), where
    if choice == "auto":
        return SimBackend(), where
    raise MissingError(
        "The vendor's compiler is not here",
        where,
        "run this inside the Vitis AI container with its conda environment active,"
        " or: deepfake-fpga compile --backend sim",
    )
