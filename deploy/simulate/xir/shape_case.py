"""One operator as shape inference sees it, and what it makes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict, List, Mapping, Optional, Tuple

from ....compile.xir.attributes import Attr, int32s
from ....compile.xir.graph import DataType, Op, Tensor
from ..abort import XirAbort, abort

Dims = Tuple[int, ...]


@dataclass(frozen=True)
class Made:
    """The tensor an operator makes.

    Attributes:
        info: the values of a tensor that only says a shape, kept beside it as ``shape_info``.
    """

    dims: Dims
    dtype: DataType
    bits: int
    info: Optional[Dims] = None

    @property
    def attrs(self) -> Dict[str, Attr]:
        """Attributes of the tensor."""
        return {} if self.info is None else {"shape_info": int32s(self.info)}


@dataclass
class Case:
    """One operator with what it reads.

    Attributes:
        inputs: argument to tensors.
        producers: argument to the operators that make them.
    """

    op: Op
    inputs: Mapping[str, List[Tensor]]
    producers: Mapping[str, List[Op]]

    @property
    def first(self) -> Tensor:
        """The first tensor it reads as ``input``."""
        return self.inputs["input"][0]

    @property
    def dims(self) -> Dims:
        """Shape of the first."""
        return self.first.dims

    def get(self, name: str, default: Any = None) -> Any:
        """An attribute's value."""
        return self.op.get(name, default)

    def fail(self, text: str) -> XirAbort:
        """What is raised where attributes and inputs do not go together."""
        return abort(
            "XIR_SHAPE_UNMATCH",
            "Shape is unmatched!",
            f"{self.op.name} ({self.op.type}): {text}",
        )

    def axis(self, value: int, rank: Optional[int] = None) -> int:
        """An axis counted from the front; ``rank`` is that of the first tensor by default.

        Raises:
            XirAbort: there is no such axis.
        """
        rank = len(self.dims) if rank is None else rank
        if not -rank <= value < rank:
            raise self.fail(f"axis {value} of {rank}")
        return value % rank
