"""The XIR graph in memory: operators, tensors, the subgraph tree, and how to walk them.

It knows nothing of files (``xmodel``), of targets or of arithmetic. Operators refer to each other
by name, as the file does, so a graph can be built, changed and compared without object identity.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Any, Dict, Iterator, List, Optional, Sequence, Set, Tuple

from ...errors import FormatError, UnsupportedError
from .attributes import Attr, boolean, int32, string


class DataType(enum.Enum):
    """Element type of a tensor; the value is the code in the file."""

    INT = 0
    UINT = 1
    XINT = 2
    XUINT = 3
    FLOAT = 4
    BFLOAT = 5
    UNKNOWN = 6


@dataclass
class Tensor:
    """What an operator produces.

    Attributes:
        name: may differ from the operator's name (``input_0`` makes ``input_0_fix``).
        dims: NHWC for feature maps; an unknown dimension is -1.
        dtype: ``XINT`` means power-of-two fixed point with the exponent in ``fix_point``.
        bits: width of one element.
        attrs: ``fix_point``, ``bit_width``, ``round_mode``, ``reg_id``, ``ddr_addr`` and so on.
        unknown: wire bytes of fields the format did not have when this was written, kept as read.
    """

    name: str
    dims: Tuple[int, ...]
    dtype: DataType
    bits: int
    attrs: Dict[str, Attr] = field(default_factory=dict)
    unknown: bytes = b""

    def get(self, key: str, default: Any = None) -> Any:
        """The plain Python value of attribute ``key``, or ``default``."""
        return self.attrs[key].value if key in self.attrs else default

    @property
    def fix_point(self) -> Optional[int]:
        """Fraction bits of an ``XINT`` tensor; ``None`` where there are none."""
        value = self.get("fix_point")
        return None if value is None else int(value)

    @property
    def elements(self) -> int:
        """Number of elements; 0 for rank 0, as the vendor's library counts."""
        count = 1 if self.dims else 0
        for dim in self.dims:
            count *= dim
        return count

    @property
    def type_name(self) -> str:
        """``XINT8``, ``FLOAT32`` and so on."""
        return f"{self.dtype.name}{self.bits}"


@dataclass
class Op:
    """One operator: its type, attributes, named input lists and the tensor it makes.

    Attributes:
        inputs: argument name (``input``, ``weights``, ``bias``) to producing operators' names;
            an argument the definition has but this operator lacks is an empty tuple.
    """

    name: str
    type: str
    tensor: Tensor
    attrs: Dict[str, Attr] = field(default_factory=dict)
    inputs: Dict[str, Tuple[str, ...]] = field(default_factory=dict)
    unknown: bytes = b""

    def get(self, key: str, default: Any = None) -> Any:
        """The plain Python value of attribute ``key``, or ``default``."""
        return self.attrs[key].value if key in self.attrs else default

    @property
    def input_names(self) -> List[str]:
        """Names of all producing operators, argument by argument."""
        return [name for names in self.inputs.values() for name in names]


@dataclass
class Subgraph:
    """A node of the subgraph tree: a leaf lists operators, an inner node has children."""

    name: str
    attrs: Dict[str, Attr] = field(default_factory=dict)
    ops: List[str] = field(default_factory=list)
    children: List[Subgraph] = field(default_factory=list)
    unknown: bytes = b""

    def get(self, key: str, default: Any = None) -> Any:
        """The plain Python value of attribute ``key``, or ``default``."""
        return self.attrs[key].value if key in self.attrs else default

    @property
    def device(self) -> Optional[str]:
        """``USER``, ``DPU`` or ``CPU``; ``None`` on an uncompiled graph and on the root."""
        value = self.get("device")
        return None if value is None else str(value).upper()

    def all_ops(self) -> List[str]:
        """Names of the operators in this node and below, in file order."""
        names = list(self.ops)
        for child in self.children:
            names.extend(child.all_ops())
        return names

    def walk(self) -> Iterator[Tuple[int, Subgraph]]:
        """The node itself and all below, depth first, as ``(depth, subgraph)``."""
        yield 0, self
        for child in self.children:
            for depth, node in child.walk():
                yield depth + 1, node


@dataclass(frozen=True)
class OpDef:
    """A self-description of an operator type as stored in the file; kept, never interpreted.

    Attributes:
        wire: the serialized ``OpDef`` message.
    """

    name: str
    wire: bytes


class Graph:
    """A network: operators in topological order, the subgraph tree, graph attributes."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.attrs: Dict[str, Attr] = {}
        self.ops: Dict[str, Op] = {}
        self.root = Subgraph("root")
        self.op_defs: List[OpDef] = []
        self.unknown: bytes = b""

    def get(self, key: str, default: Any = None) -> Any:
        """The plain Python value of graph attribute ``key``, or ``default``."""
        return self.attrs[key].value if key in self.attrs else default

    def add(self, op: Op) -> Op:
        """Appends ``op``; its inputs must be in the graph already.

        Raises:
            FormatError: the name is taken, or an input does not exist.
        """
        if op.name in self.ops:
            raise FormatError(f"The operator name {op.name!r} stands twice in graph {self.name!r}")
        for name in op.input_names:
            if name not in self.ops:
                raise FormatError(
                    f"Operator {op.name!r} reads {name!r}, which does not come before it",
                    f"graph {self.name!r}, operator type {op.type!r}",
                )
        self.ops[op.name] = op
        return op

    def op(self, name: str) -> Op:
        """The operator called ``name``.

        Raises:
            UnsupportedError: there is none.
        """
        try:
            return self.ops[name]
        except KeyError:
            raise UnsupportedError(f"Graph {self.name!r} has no operator {name!r}") from None

    def input_ops(self, op: Op, arg: str = "input") -> List[Op]:
        """The operators that feed argument ``arg`` of ``op``, in order."""
        return [self.ops[name] for name in op.inputs.get(arg, ())]

    def consumers(self) -> Dict[str, List[Op]]:
        """Operator name to the operators that read it, in graph order, each once."""
        table: Dict[str, List[Op]] = {name: [] for name in self.ops}
        for op in self.ops.values():
            for name in dict.fromkeys(op.input_names):
                table[name].append(op)
        return table

    def producer(self, tensor_name: str) -> Optional[Op]:
        """The operator whose tensor is called ``tensor_name``, or ``None``."""
        for op in self.ops.values():
            if op.tensor.name == tensor_name:
                return op
        return None

    def tail_ops(self) -> List[Op]:
        """Operators that nothing reads."""
        read = {name for op in self.ops.values() for name in op.input_names}
        return [op for name, op in self.ops.items() if name not in read]

    def boundary(self, subgraph: Subgraph) -> Tuple[List[Op], List[Op]]:
        """Operators outside that ``subgraph`` reads, and its own that are read outside or by none.

        Both lists are in graph order.
        """
        inside: Set[str] = set(subgraph.all_ops())
        reads: Set[str] = set()
        read_outside: Set[str] = set()
        read_at_all: Set[str] = set()
        for op in self.ops.values():
            for name in op.input_names:
                read_at_all.add(name)
                if op.name in inside and name not in inside:
                    reads.add(name)
                if op.name not in inside and name in inside:
                    read_outside.add(name)
        outputs = [
            op
            for op in self.ops.values()
            if op.name in inside and (op.name in read_outside or op.name not in read_at_all)
        ]
        return [op for op in self.ops.values() if op.name in reads], outputs

    def subgraphs(self, device: Optional[str] = None) -> List[Subgraph]:
        """The root's children, those of ``device`` only if given, in file order."""
        return [c for c in self.root.children if device is None or c.device == device]


def int8_tensor(name: str, dims: Sequence[int], fix_point: int) -> Tensor:
    """An ``XINT8`` tensor with the four attributes the vendor's compiler gives each."""
    return Tensor(
        name,
        tuple(int(d) for d in dims),
        DataType.XINT,
        8,
        {
            "fix_point": int32(fix_point),
            "bit_width": int32(8),
            "round_mode": string("DPU_ROUND"),
            "if_signed": boolean(True),
        },
    )


def float32_tensor(name: str, dims: Sequence[int]) -> Tensor:
    """A ``FLOAT32`` tensor without attributes."""
    return Tensor(name, tuple(int(d) for d in dims), DataType.FLOAT, 32)
