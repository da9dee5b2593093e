"""The drop-in module ``xir``."""

from __future__ import annotations

from typing import List

from .datatype import DataType
from .graph import Graph
from .op import Op, Tensor
from .subgraph import Subgraph
from .template import GraphTemplate, OpTemplate

__drop_in__ = "deepfake-fpga"

__all__ = ["DataType", "Graph", "GraphTemplate", "Op", "OpTemplate", "Subgraph", "Tensor"]


def __dir__() -> List[str]:
    return [name for name in globals() if name in __all__ or name.startswith("__")]
