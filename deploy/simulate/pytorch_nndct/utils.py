"""The names of ``pytorch_nndct.utils`` that scripts import."""

from __future__ import annotations

from .unsupported import refusing

register_custom_op = refusing("register_custom_op")
