"""The drop-in module ``nndct_shared``: what scripts import of the quantizer's common part."""

from __future__ import annotations

__drop_in__ = "deepfake-fpga"
