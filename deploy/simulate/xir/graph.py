"""``xir.Graph``: a handle on our own graph in memory, and how a script builds one."""

from __future__ import annotations

from typing import Any, Dict, List, Optional, Sequence, Set

import numpy as np

from ....compile.xir import graph as records
from ..abort import abort
from . import drawing, files
from .attributes import Attributes, described
from .binding import bound, exported
from .op import Op, Tensor
from .operators import check_registered, complete_attrs, complete_inputs, to_attr
from .ordering import topological_order
from .shape_case import Made
from .shapes import infer
from .subgraph import Subgraph

_ARRAYS = (
    *("float32", "float64"),
    *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)),
)


@exported
class Graph(Attributes):
    """A network, with the tree of its subgraphs."""

    __slots__ = ("_fanout", "_ops", "_root")

    _record: records.Graph

    @bound("__init__(self: xir.Graph, name: str) -> None")
    def __init__(self, name: str) -> None:
        """An empty graph."""
        self._hold(records.Graph(name))

    def _hold(self, record: records.Graph) -> None:
        self._record = record
        self._ops: Dict[str, Op] = {}
        self._fanout: Optional[Dict[str, List[str]]] = None
        self._root = Subgraph._of(record.root, self, None)

    @staticmethod
    @bound("deserialize(fname: str) -> xir.Graph")
    def deserialize(fname: str) -> Graph:
        """The graph in an ``.xmodel`` file.

        Raises:
            XirAbort: it cannot be read.
        """
        graph = Graph.__new__(Graph)
        graph._hold(files.load(fname))
        return graph

    @bound("serialize(self: xir.Graph, fname: str) -> None")
    def serialize(self, fname: str) -> None:
        """Writes the graph to an ``.xmodel`` file.

        Raises:
            XirAbort: it cannot be written.
        """
        files.save(self._record, fname, self._sorted, self._sorted_children)

    @bound("get_name(self: xir.Graph) -> str")
    def get_name(self) -> str:
        """The name."""
        return self._record.name

    @bound("get_op_num(self: xir.Graph) -> int")
    def get_op_num(self) -> int:
        """Number of operators."""
        return len(self._record.ops)

    # ------------------------------------------------------------ building

    @bound(
        "create_op(self: xir.Graph, name: str, kind: str, attrs: handle = None, "
        "input_ops: handle = None, subgraph: xir::Subgraph = None) -> xir::Op"
    )
    def create_op(
        self,
        name: str,
        kind: str,
        attrs: Any = None,
        input_ops: Any = None,
        subgraph: Optional[Subgraph] = None,
    ) -> Op:
        """Adds an operator and infers the shape of what it makes.

        Args:
            name: not in use.
            kind: the type; an unknown one is taken as a custom operator, which needs the
                attributes ``shape`` and ``data_type``.
            attrs: a dict.
            input_ops: argument to list of operators.
            subgraph: leaf to add it to; the root if it is a leaf.

        Raises:
            XirAbort: the definition of ``kind`` is not met.
            RuntimeError: an attribute or input cannot be cast.
        """
        if name in self._record.ops:
            raise abort("XIR_MULTI_DEFINED_OP", "Multiple definition of OP!", name)
        check_registered(kind)
        names = complete_inputs(kind, name, self._named(input_ops))
        if attrs is not None and not isinstance(attrs, dict):
            raise abort("PYXIR_INVALID_DATA_TYPE", "Unsupported data type!", "attrs must be a dict")
        given = {key: to_attr(kind, key, value) for key, value in (attrs or {}).items()}
        record = records.Op(
            name,
            kind,
            records.Tensor(name, (), records.DataType.UNKNOWN, 0),
            complete_attrs(kind, name, given),
            names,
        )
        return self._add(record, infer(self._record, record), subgraph)

    @bound("create_const_op(self: xir.Graph, arg0: str, arg1: handle) -> xir::Op")
    def create_const_op(self, arg0: str, arg1: Any) -> Op:
        """Adds a constant with an array's values.

        Raises:
            XirAbort: the name is in use, or there is no such element type.
            RuntimeError: ``arg1`` is no array.
        """
        if not isinstance(arg1, np.ndarray):
            raise RuntimeError(f"Unable to cast Python instance of type {type(arg1)} to C++ type")
        if arg1.dtype.name not in _ARRAYS:
            raise abort(
                "PYXIR_INVALID_DATA_TYPE", "Unsupported data type!", f"array of {arg1.dtype}"
            )
        attrs = {
            "data": np.ascontiguousarray(arg1).tobytes(),
            "data_type": arg1.dtype.name,
            "shape": list(arg1.shape),
        }
        return self.create_op(arg0, "const", attrs)

    def _add(self, record: records.Op, made: Made, subgraph: Optional[Subgraph]) -> Op:
        if self._record.producer(record.name) is not None:
            raise abort("XIR_MULTI_DEFINED_TENSOR", "Multiple definition of Tensor!", record.name)
        record.tensor = records.Tensor(record.name, made.dims, made.dtype, made.bits, made.attrs)
        self._root._add_op(record.name, subgraph)
        self._record.add(record)
        self._rewired()
        return self._op(record.name)

    def _named(self, input_ops: Any) -> Dict[str, List[str]]:
        if input_ops is None:
            return {}
        if not isinstance(input_ops, dict):
            raise abort(
                "PYXIR_INVALID_DATA_TYPE", "Unsupported data type!", "input_ops must be a dict"
            )
        names: Dict[str, List[str]] = {}
        for arg, ops in input_ops.items():
            fits = isinstance(ops, (list, tuple)) and all(isinstance(op, Op) for op in ops)
            if not isinstance(arg, str) or not fits:
                raise RuntimeError(
                    f"Unable to cast Python instance of type {type(ops)} to C++ type "
                    "'std::vector<xir::Op*>'"
                )
            names[arg] = [self._own(op).name for op in ops]
        return names

    @bound("remove_op(self: xir.Graph, op: xir::Op) -> None")
    def remove_op(self, op: Op) -> None:
        """Takes an operator away that nothing reads.

        Raises:
            XirAbort: something reads it.
        """
        record = self._own(op)
        if self._consumers()[record.name]:
            raise abort(
                "XIR_REMOVE_OP_FAIL",
                "Failed to remove op!",
                f"{record.name} is read by {', '.join(self._consumers()[record.name])}",
            )
        self._root._remove_op(record.name)
        del self._record.ops[record.name]
        self._ops.pop(record.name, None)
        self._rewired()

    @bound("infer_shape(self: xir.Graph) -> None")
    def infer_shape(self) -> None:
        """Infers all shapes anew, from the inputs on.

        Raises:
            XirAbort: attributes and inputs of an operator do not go together.
        """
        for op in self.toposort():
            op.infer_shape()

    # ------------------------------------------------------------ looking

    @bound("get_op(self: xir.Graph, name: str) -> xir::Op")
    def get_op(self, name: str) -> Optional[Op]:
        """The operator called ``name``, or ``None``."""
        return self._op(name) if name in self._record.ops else None

    @bound("get_ops(self: xir.Graph) -> Set[xir::Op]")
    def get_ops(self) -> Set[Op]:
        """All operators, in no order."""
        return {self._op(name) for name in self._record.ops}

    @bound("get_head_ops(self: xir.Graph) -> Set[xir::Op]")
    def get_head_ops(self) -> Set[Op]:
        """Operators that read nothing: inputs and constants."""
        return {self._op(op.name) for op in self._record.ops.values() if not op.input_names}

    @bound("get_tail_ops(self: xir.Graph) -> Set[xir::Op]")
    def get_tail_ops(self) -> Set[Op]:
        """Operators that nothing reads."""
        return {self._op(op.name) for op in self._record.tail_ops()}

    @bound("toposort(self: xir.Graph) -> List[xir::Op]")
    def toposort(self) -> List[Op]:
        """All operators, each after those it reads.

        Raises:
            XirAbort: there is a cycle.
        """
        return [self._op(name) for name in self._sorted(list(self._record.ops))]

    @bound("get_tensor(self: xir.Graph, name: str) -> xir::Tensor")
    def get_tensor(self, name: str) -> Optional[Tensor]:
        """The tensor called ``name``, or ``None``."""
        producer = self._record.producer(name)
        return None if producer is None else self._op(producer.name)._tensor

    @bound("get_tensors(self: xir.Graph) -> Set[xir::Tensor]")
    def get_tensors(self) -> Set[Tensor]:
        """All tensors, in no order."""
        return {op._tensor for op in self.get_ops()}

    @bound("get_tensor_producer(self: xir.Graph, tensor: xir::Tensor) -> xir::Op")
    def get_tensor_producer(self, tensor: Tensor) -> Optional[Op]:
        """The operator whose tensor has that name, or ``None``."""
        producer = self._record.producer(tensor._record.name)
        return None if producer is None else self._op(producer.name)

    @bound("get_root_subgraph(self: xir.Graph) -> xir::Subgraph")
    def get_root_subgraph(self) -> Subgraph:
        """The root of the subgraph tree."""
        return self._root

    @bound("get_leaf_subgraph(self: xir.Graph, arg0: xir::Op) -> xir::Subgraph")
    def get_leaf_subgraph(self, arg0: Op) -> Optional[Subgraph]:
        """The leaf that lists an operator."""
        return self._root._leaf_of(self._own(arg0).name)

    @bound("save_as_dot(self: xir.Graph, fname: str) -> None")
    def save_as_dot(self, fname: str) -> None:
        """Writes the graph as text for graphviz.

        Raises:
            XirAbort: it cannot be written.
        """
        drawing.write_dot(self._record, fname)

    @bound("save_as_image(self: xir.Graph, fname: str, format: str) -> None")
    def save_as_image(self, fname: str, format: str) -> None:  # noqa: A002 - its name there
        """Draws the graph with graphviz' ``dot``.

        Raises:
            XirAbort: there is no ``dot``, or it fails.
        """
        drawing.write_image(self._record, fname, format)

    # ------------------------------------------------------------ inside

    def _op(self, name: str) -> Op:
        found = self._ops.get(name)
        # One handle for all, also where several threads ask first.
        return found or self._ops.setdefault(name, Op._of(self._record.ops[name], self))

    def _own(self, op: Op) -> records.Op:
        """The operator behind a handle, which must be one of this graph."""
        if self._record.ops.get(op._record.name) is not op._record:
            raise abort(
                "XIR_UNDEFINED_OP",
                "Undefined OP!",
                f"{op._record.name} is not in {self.get_name()}",
            )
        return op._record

    def _rewired(self) -> None:
        self._fanout = None

    def _consumers(self) -> Dict[str, List[str]]:
        if self._fanout is None:
            table = self._record.consumers()
            self._fanout = {name: [op.name for op in ops] for name, ops in table.items()}
        return self._fanout

    def _sorted(self, names: Sequence[str]) -> List[str]:
        """``names``, given in graph order, sorted by what reads what."""
        inside = set(names)
        consumers = self._consumers()
        edges = {name: [c for c in consumers[name] if c in inside] for name in names}
        order = topological_order(names, edges)
        if order is None:
            raise abort("XIR_OPERATION_FAILED", "Operation failed!", "The graph has a cycle")
        return order

    def _sorted_children(self, node: records.Subgraph) -> List[records.Subgraph]:
        children = sorted(node.children, key=lambda child: child.name)
        owner = {name: i for i, child in enumerate(children) for name in child.all_ops()}
        consumers = self._consumers()
        edges: Dict[int, List[int]] = {}
        for i, child in enumerate(children):
            read = {owner.get(c, i) for name in child.all_ops() for c in consumers[name]}
            edges[i] = sorted(read - {i})
        order = topological_order(range(len(children)), edges)
        if order is None:
            raise abort(
                "XIR_SUBGRAPH_HAS_CYCLE",
                "There is a cycle in subgraph!",
                f"The children of {node.name} have a cycle",
            )
        return [children[i] for i in order]

    def __str__(self) -> str:
        return described(self.get_name(), self._record.attrs, f"op_num: {self.get_op_num()}")

    def __repr__(self) -> str:
        return f"<xir.Graph named '{self.get_name()}'>"
