"""The drop-in module ``vart``."""

from __future__ import annotations

__drop_in__ = "deepfake-fpga"
