"""The drop-in module ``xir``."""

from __future__ import annotations

__drop_in__ = "deepfake-fpga"
