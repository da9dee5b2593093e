"""Which release the drop-in quantizer is, and what that changes for a script."""

from __future__ import annotations

from typing import FrozenSet, Tuple

from .... import __version__
from ..options import active_options

_ORDER = ("1.4.1", "2.0", "2.5", "3.0", "3.5")

_LATER_ARGUMENTS = (("target", "2.0"), ("input_kwargs", "3.0"), ("dynamo", "3.5"))
"""Arguments of ``torch_quantizer`` that came later, and the release that brought them."""

_METHODS = (
    ("export_onnx_model", ("2.5", "3.0", "3.5")),
    ("export_traced_torch_script", ("2.5",)),
    ("export_torch_script", ("3.0", "3.5")),
)
"""Methods of ``torch_quantizer`` that not every release has."""


def release() -> str:
    """The active release, such as ``3.0``."""
    return active_options().release


def at_least(wanted: str) -> bool:
    """Whether the active release is ``wanted`` or a later one."""
    return _ORDER.index(release()) >= _ORDER.index(wanted)


def version() -> str:
    """As ``pytorch_nndct.__version__`` and ``quant_info.json`` give it."""
    import torch

    number = release() if release().count(".") == 2 else f"{release()}.0"
    return f"{number}+deepfake_fpga{__version__}+torch{torch.__version__}"


def unknown_arguments() -> Tuple[str, ...]:
    """Arguments of ``torch_quantizer`` that the active release does not have yet."""
    return tuple(name for name, since in _LATER_ARGUMENTS if not at_least(since))


def missing_methods() -> FrozenSet[str]:
    """Methods of ``torch_quantizer`` that the active release does not have."""
    return frozenset(name for name, releases in _METHODS if release() not in releases)
