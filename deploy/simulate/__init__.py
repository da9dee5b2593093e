"""Vitis AI without Vitis AI: drop-in ``xir``, ``vart``, ``pytorch_nndct`` and the programs.

``install()`` makes the modules importable in this process; ``deepfake-fpga simulate -- COMMAND``
makes them and the programs visible to one command and to nothing else.
"""

from __future__ import annotations

from .abort import XirAbort
from .installing import MODULES, install, is_installed, uninstall
from .options import SimulateOptions, active_options

__all__ = [
    "MODULES",
    "SimulateOptions",
    "XirAbort",
    "active_options",
    "install",
    "is_installed",
    "uninstall",
]
