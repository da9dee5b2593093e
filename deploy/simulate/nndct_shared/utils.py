"""The names of ``nndct_shared.utils`` that scripts import."""

from __future__ import annotations

from .messages import NndctScreenLogger
from .options import NndctOption

__all__ = ["NndctOption", "NndctScreenLogger", "get_option_value"]


def get_option_value(name: str) -> object:
    """The value of the option called ``name``, such as ``nndct_quant_off``."""
    return getattr(NndctOption, name).value
