"""The drop-in module ``nndct_shared``."""

from __future__ import annotations

__drop_in__ = "deepfake-fpga"
