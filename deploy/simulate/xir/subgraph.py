"""``xir.Subgraph``: a node of the tree that the compiler makes of a graph."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Dict, List, Optional, Sequence, Set

from ....compile.xir import graph as records
from ..abort import abort
from . import drawing
from .attributes import Attributes, described
from .binding import bound, exported, overloaded

if TYPE_CHECKING:
    from .graph import Graph
    from .op import Op, Tensor


@exported
class Subgraph(Attributes):
    """A part of a graph: a leaf lists operators, another node has children."""

    __slots__ = ("_children", "_graph", "_parent")

    _record: records.Subgraph
    _graph: Graph
    _parent: Optional[Subgraph]
    _children: Dict[int, Subgraph]

    @bound("__init__(self: xir.Subgraph, arg0: xir.Subgraph) -> None")
    def __init__(self, arg0: Subgraph) -> None:
        """Another handle on the same subgraph."""
        self._record, self._graph = arg0._record, arg0._graph
        self._parent, self._children = arg0._parent, arg0._children

    @classmethod
    def _of(cls, record: records.Subgraph, graph: Graph, parent: Optional[Subgraph]) -> Subgraph:
        subgraph = cls.__new__(cls)
        subgraph._record, subgraph._graph, subgraph._parent = record, graph, parent
        subgraph._children = {}
        return subgraph

    # ------------------------------------------------------------ the tree

    @bound("get_name(self: xir.Subgraph) -> str")
    def get_name(self) -> str:
        """The name."""
        return self._record.name

    @bound("set_name(self: xir.Subgraph, name: str) -> xir.Subgraph")
    def set_name(self, name: str) -> Subgraph:
        """Renames it; gives itself."""
        self._record.name = name
        return self

    @property
    def is_root(self) -> bool:
        """Whether it has no parent."""
        return self._parent is None

    @property
    def is_leaf(self) -> bool:
        """Whether it has no children."""
        return not self._record.children

    @property
    def root(self) -> Subgraph:
        """The root of the tree."""
        return self._graph._root

    @property
    def depth(self) -> int:
        """Steps from the root, which has 0."""
        return 0 if self._parent is None else self._parent.depth + 1

    @bound("get_parent(self: xir.Subgraph) -> xir.Subgraph")
    def get_parent(self) -> Optional[Subgraph]:
        """The node above; ``None`` for the root."""
        return self._parent

    @bound("get_graph(self: xir.Subgraph) -> xir.Graph")
    def get_graph(self) -> Graph:
        """The graph it is a part of."""
        return self._graph

    @bound("get_children_num(self: xir.Subgraph) -> int")
    def get_children_num(self) -> int:
        """Number of children."""
        return len(self._record.children)

    @bound("get_children(self: xir.Subgraph) -> Set[xir.Subgraph]")
    def get_children(self) -> Set[Subgraph]:
        """The children, in no order."""
        return set(self._child_list())

    @bound("is_child(self: xir.Subgraph, op: xir.Subgraph) -> bool")
    def is_child(self, op: Subgraph) -> bool:
        """Whether ``op``, a subgraph, is one of the children."""
        return any(child is op._record for child in self._record.children)

    @bound("create_child_subgraph(self: xir.Subgraph) -> None")
    def create_child_subgraph(self) -> None:
        """Makes one child ``subgraph_<operator>`` for each operator of a leaf.

        Raises:
            XirAbort: it is no leaf.
        """
        if not self.is_leaf:
            raise abort(
                "XIR_SUBGRAPH_CREATE_CHILDREN_FOR_NONLEAF",
                "Cannot create children for a nonleaf subgraph!",
                self.get_name(),
            )
        names, self._record.ops = self._record.ops, []
        self._record.children = [records.Subgraph(f"subgraph_{name}", ops=[name]) for name in names]

    @bound(
        "merge_children(self: xir.Subgraph, child_subgraph_list: Set[xir.Subgraph]) -> xir.Subgraph"
    )
    def merge_children(self, child_subgraph_list: Set[Subgraph]) -> Subgraph:
        """Makes one leaf of several; it keeps the name that is first in the alphabet.

        Raises:
            XirAbort: not all are children, or not all are leaves, or there is none.
        """
        if not child_subgraph_list or not all(self.is_child(s) for s in child_subgraph_list):
            raise abort(
                "XIR_SUBGRAPH_INVALID_MERGE_REQUEST_NONCHILD",
                "Cannot merge subgraphs that are no children!",
                self.get_name(),
            )
        if not all(s.is_leaf for s in child_subgraph_list):
            raise abort(
                "XIR_SUBGRAPH_INVALID_MERGE_REQUEST_NONLEAF",
                "Cannot merge subgraphs that are no leaves!",
                self.get_name(),
            )
        kept, *others = sorted(child_subgraph_list, key=lambda s: s._record.name)
        gone = [other._record for other in others]
        for record in gone:
            kept._record.ops.extend(record.ops)
            self._children.pop(id(record), None)
        self._record.children = [
            child for child in self._record.children if not any(child is g for g in gone)
        ]
        return kept

    @bound("find_child_subgraph_by_op(self: xir.Subgraph, op: xir.Op) -> xir.Subgraph")
    def find_child_subgraph_by_op(self, op: Op) -> Optional[Subgraph]:
        """The child that has ``op``, or ``None``."""
        return self._child_with(op._record.name) if self._has(op) else None

    @bound("find_child_subgraph_by_op_name(self: xir.Subgraph, name: str) -> xir.Subgraph")
    def find_child_subgraph_by_op_name(self, name: str) -> Optional[Subgraph]:
        """The child that has the operator called ``name``, or ``None``."""
        return self._child_with(name)

    @bound("toposort_child_subgraph(self: xir.Subgraph) -> List[xir.Subgraph]")
    def toposort_child_subgraph(self) -> List[Subgraph]:
        """The children, each after those whose tensors it reads.

        They are sorted by name before, so the order does not depend on how the tree was made.

        Raises:
            XirAbort: they read each other in a circle.
        """
        self._child_list()
        order = self._graph._sorted_children(self._record)
        return [self._children[id(record)] for record in order]

    # ------------------------------------------------------------ operators and tensors

    @bound("get_op_num(self: xir.Subgraph) -> int")
    def get_op_num(self) -> int:
        """Number of operators here and below."""
        return len(self._record.all_ops())

    @bound("get_ops(self: xir.Subgraph) -> Set[xir.Op]")
    def get_ops(self) -> Set[Op]:
        """The operators here and below, in no order."""
        return {self._graph._op(name) for name in self._record.all_ops()}

    @bound("toposort(self: xir.Subgraph) -> List[xir.Op]")
    def toposort(self) -> List[Op]:
        """The operators here and below, each after those it reads.

        Raises:
            XirAbort: there is a cycle.
        """
        inside = set(self._record.all_ops())
        names = [name for name in self._graph._record.ops if name in inside]
        return [self._graph._op(name) for name in self._graph._sorted(names)]

    @overloaded(
        "has_op(self: xir.Subgraph, name: str) -> bool",
        "has_op(self: xir.Subgraph, op: xir.Op) -> bool",
    )
    def has_op(self, *args: Any, **kwargs: Any) -> bool:
        """Whether an operator, or the one with a name, is here or below."""
        given = (*args, *kwargs.values())
        if len(given) == 1 and isinstance(given[0], str) and set(kwargs) <= {"name"}:
            return given[0] in self._record.all_ops()
        return bool(_has_op(self, *args, **kwargs))

    @bound("get_tensor_producer(self: xir.Subgraph, tensor: xir::Tensor) -> xir.Op")
    def get_tensor_producer(self, tensor: Tensor) -> Optional[Op]:
        """The operator here or below that makes ``tensor``, or ``None``."""
        producer = self._graph._record.producer(tensor._record.name)
        if producer is None or producer.name not in self._record.all_ops():
            return None
        return self._graph._op(producer.name)

    @bound("get_input_tensors(self: xir.Subgraph) -> Set[xir::Tensor]")
    def get_input_tensors(self) -> Set[Tensor]:
        """The tensors from outside that are read inside, in no order."""
        reads, _ = self._graph._record.boundary(self._record)
        return {self._graph._op(op.name)._tensor for op in reads}

    @bound("get_output_tensors(self: xir.Subgraph) -> Set[xir::Tensor]")
    def get_output_tensors(self) -> Set[Tensor]:
        """The tensors made inside that are read outside, or by nothing, in no order."""
        _, makes = self._graph._record.boundary(self._record)
        return {self._graph._op(op.name)._tensor for op in makes}

    @bound("save_as_dot(self: xir.Subgraph, fname: str) -> None")
    def save_as_dot(self, fname: str) -> None:
        """Writes the subgraph as text for graphviz.

        Raises:
            XirAbort: it cannot be written.
        """
        drawing.write_dot(self._graph._record, fname, self._record)

    # ------------------------------------------------------------ inside

    def _child_list(self) -> List[Subgraph]:
        for record in self._record.children:
            if id(record) not in self._children:
                made = Subgraph._of(record, self._graph, self)
                self._children.setdefault(id(record), made)
        return [self._children[id(record)] for record in self._record.children]

    def _child_with(self, name: str) -> Optional[Subgraph]:
        for child in self._child_list():
            if name in child._record.all_ops():
                return child
        return None

    def _leaf_of(self, name: str) -> Optional[Subgraph]:
        if self.is_leaf:
            return self if name in self._record.ops else None
        child = self._child_with(name)
        return None if child is None else child._leaf_of(name)

    def _has(self, op: Op) -> bool:
        return op._graph is self._graph and op._record.name in self._record.all_ops()

    def _add_op(self, name: str, leaf: Optional[Subgraph]) -> None:
        """Lists a new operator in ``leaf``; without one in this root, or in a new leaf below it."""
        if leaf is None and not self.is_leaf:
            self._record.children.append(records.Subgraph(f"subgraph_{name}", ops=[name]))
            return
        leaf = leaf or self
        if not leaf.is_leaf or leaf.root is not self:
            raise abort("XIR_ADD_OP_FAIL", "Failed to add op!", f"{leaf.get_name()} is no leaf")
        leaf._record.ops.append(name)

    def _remove_op(self, name: str) -> None:
        leaf = self._leaf_of(name)
        if leaf is None:
            return
        leaf._record.ops.remove(name)
        # A file cannot hold a leaf without operators, the root excepted.
        node: Optional[Subgraph] = leaf
        while node is not None and node._parent is not None and not node._record.all_ops():
            siblings: Sequence[records.Subgraph] = node._parent._record.children
            gone = node._record
            node._parent._record.children = [s for s in siblings if s is not gone]
            node._parent._children.pop(id(gone), None)
            node = node._parent

    def __str__(self) -> str:
        return described(self.get_name(), self._record.attrs, f"op_num: {self.get_op_num()}")

    def __repr__(self) -> str:
        return f"<xir.Subgraph named '{self.get_name()}'>"


@bound("has_op(self: xir.Subgraph, op: xir.Op) -> bool")
def _has_op(self: Subgraph, op: Op) -> bool:
    return self._has(op)
