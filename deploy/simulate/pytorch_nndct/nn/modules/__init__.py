"""The sub-package ``pytorch_nndct.nn.modules``."""

from __future__ import annotations

from . import functional

__all__ = ["functional"]
