"""The drop-in module ``pytorch_nndct``: Vitis AI's PyTorch quantizer, done by ours.

Submodules that need PyTorch are imported when they are first asked for.
"""

from __future__ import annotations

import importlib
from typing import Any

from ..nndct_shared.messages import NndctScreenLogger
from ..nndct_shared.options import take_from_command_line

__drop_in__ = "deepfake-fpga"

_SUBMODULES = ("apis", "nn", "utils")
_TRAINING = ("QatProcessor", "OFAPruner", "get_pruning_runner", "PruningRunner")

take_from_command_line()
NndctScreenLogger().info("Loading NNDCT kernels...")


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from .versions import version

        return version()
    if name in _SUBMODULES:
        return importlib.import_module(f"{__name__}.{name}")
    if name in _TRAINING:
        from .unsupported import refusing

        return refusing(name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
