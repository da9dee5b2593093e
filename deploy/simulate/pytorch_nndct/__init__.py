"""The drop-in module ``pytorch_nndct``."""

from __future__ import annotations

__drop_in__ = "deepfake-fpga"
