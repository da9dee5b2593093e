"""``xir.Op`` and ``xir.Tensor``: handles on one operator and on what it makes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Dict, List, Optional, Sequence

from ....compile.xir import graph as records
from ....compile.xir.attributes import Attr
from ..abort import abort
from .attributes import Attributes, described
from .binding import bound, exported, overloaded
from .operators import argument, check_count, complete_attrs, to_attr
from .shapes import infer

if TYPE_CHECKING:
    from .graph import Graph


@exported
class Tensor(Attributes):
    """What an operator makes: name, shape and type, no values."""

    __slots__ = ("_op",)

    _record: records.Tensor
    _op: Optional[Op]

    @bound("__init__(self: xir.Tensor, arg0: xir.Tensor) -> None")
    def __init__(self, arg0: Tensor) -> None:
        """A copy, which no operator makes."""
        self._record, self._op = _copy_of(arg0._record), None

    @classmethod
    def _of(cls, record: records.Tensor, op: Optional[Op]) -> Tensor:
        tensor = cls.__new__(cls)
        tensor._record, tensor._op = record, op
        return tensor

    @staticmethod
    @bound("clone(tensor: xir.Tensor) -> xir.Tensor")
    def clone(tensor: Tensor) -> Tensor:
        """A copy, which no operator makes."""
        return Tensor(tensor)

    @property
    def name(self) -> str:
        """The name; setting it renames the tensor, to a name that is not in use."""
        return self._record.name

    @name.setter
    def name(self, value: str) -> None:
        if not isinstance(value, str):
            raise TypeError(f"{value!r} is no str")
        if self._op is not None and self._op._graph._record.producer(value) is not None:
            raise abort(
                "XIR_MULTI_DEFINED_TENSOR",
                "Multiple definition of Tensor!",
                f"{value} is in use",
            )
        self._record.name = value

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return len(self._record.dims)

    @property
    def dims(self) -> List[int]:
        """The shape."""
        return list(self._record.dims)

    @property
    def dtype(self) -> str:
        """Such as ``xint8`` or ``float32``."""
        return self._record.type_name.lower()

    @property
    def producer(self) -> Optional[Op]:
        """The operator that makes it; ``None`` for copies and for a runner's tensors."""
        return self._op

    @bound("get_element_num(self: xir.Tensor) -> int")
    def get_element_num(self) -> int:
        """Number of elements; 0 without dimensions."""
        return self._record.elements

    @bound("get_data_size(self: xir.Tensor) -> int")
    def get_data_size(self) -> int:
        """Bytes."""
        return -(-self._record.elements * self._record.bits // 8)

    def __str__(self) -> str:
        parts = (f"shape: {self.dims}", f"type: '{self.dtype}'")
        return described(self.name, self._record.attrs, *parts)

    def __repr__(self) -> str:
        return f"<xir.Tensor named '{self.name}'>"


@exported
class Op(Attributes):
    """An operator of a graph."""

    __slots__ = ("_graph", "_tensor")

    _record: records.Op
    _graph: Graph
    _tensor: Tensor

    @bound("__init__(self: xir.Op, arg0: xir.Op) -> None")
    def __init__(self, arg0: Op) -> None:
        """Another handle on the same operator."""
        self._record, self._graph, self._tensor = arg0._record, arg0._graph, arg0._tensor

    @classmethod
    def _of(cls, record: records.Op, graph: Graph) -> Op:
        op = cls.__new__(cls)
        op._record, op._graph = record, graph
        op._tensor = Tensor._of(record.tensor, op)
        return op

    @bound("get_name(self: xir.Op) -> str")
    def get_name(self) -> str:
        """The name."""
        return self._record.name

    @bound("get_type(self: xir.Op) -> str")
    def get_type(self) -> str:
        """The type, such as ``conv2d``."""
        return self._record.type

    @bound("get_graph(self: xir.Op) -> xir.Graph")
    def get_graph(self) -> Graph:
        """The graph it belongs to."""
        return self._graph

    @overloaded(
        "get_input_num(self: xir.Op) -> int", "get_input_num(self: xir.Op, name: str) -> int"
    )
    def get_input_num(self, *args: Any, **kwargs: Any) -> int:
        """Number of operators it reads, all or those of one argument."""
        if args or kwargs:
            return len(_input_names(self, *args, **kwargs))
        return len(self._record.input_names)

    @bound("get_input_ops(self: xir.Op) -> Dict[str, List[xir.Op]]")
    def get_input_ops(self) -> Dict[str, List[Op]]:
        """The operators it reads, by argument."""
        return {arg: self._ops(names) for arg, names in sorted(self._record.inputs.items())}

    @bound("get_input_ops_by_name(self: xir.Op, name: str) -> List[xir.Op]")
    def get_input_ops_by_name(self, name: str) -> List[Op]:
        """The operators it reads as ``name``; none if there is no such argument."""
        return self._ops(self._record.inputs.get(name, ()))

    @bound("get_input_op(self: xir.Op, name: str, idx: int = 0) -> xir.Op")
    def get_input_op(self, name: str, idx: int = 0) -> Op:
        """One operator that it reads.

        Raises:
            XirAbort: there is none.
        """
        names = self._record.inputs.get(name, ())
        if not 0 <= idx < len(names):
            raise abort(
                "XIR_OUT_OF_RANGE",
                "Out of range!",
                f"{self._record.name} has {len(names)} operators as {name}, {idx} is asked for",
            )
        return self._graph._op(names[idx])

    @bound("get_input_tensors(self: xir.Op) -> List[xir::Tensor]")
    def get_input_tensors(self) -> List[Tensor]:
        """The tensors it reads, argument by argument."""
        return [op._tensor for op in self._ops(self._record.input_names)]

    @bound("get_input_tensors_by_name(self: xir.Op, name: str) -> List[xir::Tensor]")
    def get_input_tensors_by_name(self, name: str) -> List[Tensor]:
        """The tensors it reads as ``name``."""
        return [op._tensor for op in self.get_input_ops_by_name(name)]

    @bound("get_input_tensor(self: xir.Op, name: str, idx: int = 0) -> xir::Tensor")
    def get_input_tensor(self, name: str, idx: int = 0) -> Tensor:
        """One tensor that it reads.

        Raises:
            XirAbort: there is none.
        """
        return self.get_input_op(name, idx)._tensor

    @bound("get_output_tensor(self: xir.Op) -> xir::Tensor")
    def get_output_tensor(self) -> Tensor:
        """The tensor it makes."""
        return self._tensor

    @bound("get_fanout_num(self: xir.Op) -> int")
    def get_fanout_num(self) -> int:
        """Number of operators that read it."""
        return len(self._graph._consumers()[self._record.name])

    @bound("get_fanout_ops(self: xir.Op) -> List[xir.Op]")
    def get_fanout_ops(self) -> List[Op]:
        """The operators that read it."""
        return self._ops(self._graph._consumers()[self._record.name])

    @bound("set_input_ops(self: xir.Op, name: str, ops: List[xir.Op]) -> xir.Op")
    def set_input_ops(self, name: str, ops: List[Op]) -> Op:
        """Reads ``ops`` as ``name`` from now on; the shape stays until ``infer_shape``.

        Raises:
            XirAbort: there is no such argument, or not that many are possible.
        """
        check_count(
            self._record.type,
            self._record.name,
            argument(self._record.type, self._record.name, name),
            len(ops),
        )
        self._record.inputs[name] = tuple(self._graph._own(op).name for op in ops)
        self._graph._rewired()
        return self

    @bound("replace_input_ops(self: xir.Op, op_old: xir.Op, op_new: xir.Op) -> None")
    def replace_input_ops(self, op_old: Op, op_new: Op) -> None:
        """Reads ``op_new`` wherever it read ``op_old``, if it did."""
        old, new = self._graph._own(op_old).name, self._graph._own(op_new).name
        for arg, names in self._record.inputs.items():
            self._record.inputs[arg] = tuple(new if name == old else name for name in names)
        self._graph._rewired()

    @bound("infer_shape(self: xir.Op) -> None")
    def infer_shape(self) -> None:
        """Makes the output tensor's shape and type what attributes and inputs give.

        Raises:
            XirAbort: they do not go together.
        """
        made = infer(self._graph._record, self._record)
        tensor = self._record.tensor
        tensor.dims, tensor.dtype, tensor.bits = made.dims, made.dtype, made.bits
        tensor.attrs.update(made.attrs)

    def _to_attr(self, name: Any, value: Any) -> Attr:
        return to_attr(self._record.type, name, value)

    def _replace_attrs(self, attrs: Dict[str, Attr]) -> None:
        super()._replace_attrs(complete_attrs(self._record.type, self._record.name, attrs))

    def _ops(self, names: Sequence[str]) -> List[Op]:
        return [self._graph._op(name) for name in names]

    def __str__(self) -> str:
        return described(self._record.name, self._record.attrs, f"type: '{self._record.type}'")

    def __repr__(self) -> str:
        return f"<xir.Op named '{self._record.name}'>"


@bound("get_input_num(self: xir.Op, name: str) -> int")
def _input_names(self: Op, name: str) -> Sequence[str]:
    return self._record.inputs.get(name, ())


def _copy_of(record: records.Tensor) -> records.Tensor:
    return records.Tensor(
        record.name, record.dims, record.dtype, record.bits, dict(record.attrs), record.unknown
    )
