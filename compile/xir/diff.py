"""What differs between two graphs in meaning: operators, wiring, constants, types, subgraphs.

The order of a file and its operator definitions carry no meaning and are not compared. Names made
by tracing (``..._ret_3``, ``..._input``, ``..._4490``) change with the release of PyTorch and
can be disregarded: operators are then paired by how they are connected, from the inputs and the
parameters (whose names are the model's own) onwards, never by a number in a name.
"""

from __future__ import annotations

import hashlib
import re
import struct
from dataclasses import dataclass
from typing import Any, Dict, Iterable, List, Optional, Set, Tuple

from .attributes import Attr, AttrKind
from .graph import Graph, Op, Subgraph, Tensor

# The label a trace gives a value, where the operator's name ends or an exporter's suffix follows.
_TRACE = re.compile(
    r"_(?:(?:ret|input)(?:_\d+)?|\d+)"
    r"(?=_?$|_(?:fix|shape|sink|swim|inserted|upload|download|i\d+)(?:_|$))"
)
_PREFIX = "subgraph_"


@dataclass(frozen=True)
class Difference:
    """One difference.

    Attributes:
        where: what it concerns: ``graph``, ``operator NAME`` (the left graph's name where both
            have it) or ``subgraph NAME``.
        what: the aspect: ``missing``, ``type``, ``input weights``, ``attribute pad`` and so on.
        left: how it is in the first graph, as text; empty where it has nothing.
        right: how it is in the second.
    """

    where: str
    what: str
    left: str
    right: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}: {self.left or 'nothing'} | {self.right or 'nothing'}"


def diff_graphs(
    left: Graph, right: Graph, *, ignore_trace_numbers: bool = False
) -> List[Difference]:
    """All differences between two graphs; empty if they mean the same.

    Args:
        left: the first graph; the texts are written from its side.
        right: the second.
        ignore_trace_numbers: pair operators by structure and disregard the labels tracing leaves
            in names. Names that differ otherwise are still reported.
    """
    pairs = _pair_by_structure(left, right) if ignore_trace_numbers else _pair_by_name(left, right)
    return _Comparison(left, right, pairs, ignore_trace_numbers).run()


def without_trace_label(name: str) -> str:
    """``name`` with the label of the trace replaced by ``_#`` (``ReLU_2__4490_fix``)."""
    return _TRACE.sub("_#", name)


# ---------------------------------------------------------------- which operator is which


def _pair_by_name(left: Graph, right: Graph) -> Dict[str, str]:
    return {name: name for name in left.ops if name in right.ops}


def _pair_by_structure(left: Graph, right: Graph) -> Dict[str, str]:
    """Operators of ``left`` to those of ``right``.

    Sources are paired by name. Then an operator is paired with one of its type that reads the
    partners of what it reads. Where that ends (an operator more on one side), the first operator
    left over is paired with its namesake if there is one, so that a difference does not run
    through all that comes after it.
    """
    pairs: Dict[str, str] = {}
    free = dict(right.ops)
    given_up: Set[str] = set()

    def take(op: Op, partner: Op) -> None:
        pairs[op.name] = partner.name
        del free[partner.name]

    for op in left.ops.values():
        same = free.get(op.name)
        if not op.input_names and same is not None and not same.input_names:
            take(op, same)
    while True:
        stuck: Optional[Op] = None
        progress = False
        by_wiring = _index(free.values())
        for op in left.ops.values():
            if op.name in pairs or op.name in given_up:
                continue
            partner = None
            if all(name in pairs for name in op.input_names):
                key = _wiring(op, pairs)
                partner = _likest(op, [c for c in by_wiring.get(key, []) if c.name in free])
            if partner is not None:
                take(op, partner)
                progress = True
            elif stuck is None:
                stuck = op
        if progress:
            continue
        if stuck is None:
            return pairs
        label = without_trace_label(stuck.name)
        namesakes = [
            c
            for c in free.values()
            if c.type == stuck.type and without_trace_label(c.name) == label
        ]
        partner = _likest(stuck, namesakes)
        if partner is None:
            given_up.add(stuck.name)
        else:
            take(stuck, partner)


def _index(ops: Iterable[Op]) -> Dict[Any, List[Op]]:
    table: Dict[Any, List[Op]] = {}
    for op in ops:
        table.setdefault(_wiring(op, None), []).append(op)
    return table


def _wiring(op: Op, pairs: Optional[Dict[str, str]]) -> Any:
    """Type and inputs of ``op``, the latter by their partners' names where ``pairs`` is given."""
    inputs = [
        (arg, tuple(names if pairs is None else (pairs[name] for name in names)))
        for arg, names in sorted(op.inputs.items())
        if names
    ]
    # Operators without inputs would all be alike; the name without its label tells them apart.
    label = "" if inputs else without_trace_label(op.name)
    return op.type, label, tuple(inputs)


def _likest(op: Op, candidates: List[Op]) -> Optional[Op]:
    """The candidate with most in common with ``op``, the first of equals."""
    if not candidates:
        return None
    label = without_trace_label(op.name)
    return max(
        candidates,
        key=lambda c: (
            without_trace_label(c.name) == label,
            c.tensor.dims == op.tensor.dims,
            c.attrs == op.attrs,
            c.name == op.name,
        ),
    )


# ---------------------------------------------------------------- how they differ


class _Comparison:
    def __init__(
        self, left: Graph, right: Graph, pairs: Dict[str, str], ignore_trace_numbers: bool
    ) -> None:
        self.left = left
        self.right = right
        self.pairs = pairs
        self.partners = set(pairs.values())
        self.loose = ignore_trace_numbers
        self.found: List[Difference] = []

    def run(self) -> List[Difference]:
        self.text("graph", "name", self.left.name, self.right.name)
        self.attrs("graph", self.left.attrs, self.right.attrs)
        for op in self.left.ops.values():
            partner = self.pairs.get(op.name)
            if partner is None:
                self.add(f"operator {op.name}", "missing", op.type, "")
            else:
                self.op(op, self.right.ops[partner])
        for op in self.right.ops.values():
            if op.name not in self.partners:
                self.add(f"operator {op.name}", "missing", "", op.type)
        self.subgraph(self.left.root, self.right.root)
        return self.found

    def add(self, where: str, what: str, left: str, right: str) -> None:
        self.found.append(Difference(where, what, left, right))

    def text(self, where: str, what: str, left: str, right: str) -> None:
        if not self.same_text(left, right):
            self.add(where, what, left, right)

    def op(self, left: Op, right: Op) -> None:
        where = f"operator {left.name}"
        self.text(where, "name", left.name, right.name)
        if left.type != right.type:
            self.add(where, "type", left.type, right.type)
        for arg in _either(left.inputs, right.inputs):
            ours = [self.pairs.get(n, n) for n in left.inputs.get(arg, ())]
            theirs = list(right.inputs.get(arg, ()))
            if ours != theirs:
                self.add(where, f"input {arg}", ", ".join(ours), ", ".join(theirs))
        self.attrs(where, left.attrs, right.attrs, left.tensor)
        self.tensor(where, left.tensor, right.tensor)

    def tensor(self, where: str, left: Tensor, right: Tensor) -> None:
        self.text(where, "tensor name", left.name, right.name)
        if left.dims != right.dims:
            self.add(where, "shape", shape_text(left.dims), shape_text(right.dims))
        if (left.dtype, left.bits) != (right.dtype, right.bits):
            self.add(where, "element type", left.type_name, right.type_name)
        self.attrs(where, left.attrs, right.attrs, of="tensor attribute")

    def attrs(
        self,
        where: str,
        left: Dict[str, Attr],
        right: Dict[str, Attr],
        tensor: Optional[Tensor] = None,
        of: str = "attribute",
    ) -> None:
        for key in _either(left, right):
            ours, theirs = left.get(key), right.get(key)
            if ours is None or theirs is None:
                self.add(where, f"{of} {key}", attr_text(ours), attr_text(theirs))
            elif not self.same_attr(ours, theirs):
                texts = attr_text(ours), attr_text(theirs)
                if isinstance(ours.value, bytes) and isinstance(theirs.value, bytes):
                    texts = _bytes_texts(ours.value, theirs.value, tensor)
                self.add(where, f"{of} {key}", *texts)

    def subgraph(self, left: Subgraph, right: Subgraph) -> None:
        where = f"subgraph {left.name}"
        self.text(where, "name", left.name, right.name)
        self.attrs(where, left.attrs, right.attrs)
        # An operator that one graph lacks altogether is reported once, not here again.
        ours = {self.pairs[name]: name for name in left.ops if name in self.pairs}
        theirs = {name for name in right.ops if name in self.partners}
        for name in ours:
            if name not in theirs:
                self.add(where, "member", ours[name], "")
        for name in right.ops:
            if name in theirs and name not in ours:
                self.add(where, "member", "", name)
        free = list(right.children)
        for child in left.children:
            partner = self.partner(child, free)
            if partner is None:
                self.add(f"subgraph {child.name}", "missing", f"in {left.name}", "")
            else:
                free.remove(partner)
                self.subgraph(child, partner)
        for child in free:
            self.add(f"subgraph {child.name}", "missing", "", f"in {right.name}")

    def partner(self, child: Subgraph, candidates: List[Subgraph]) -> Optional[Subgraph]:
        """The candidate with the same operators, else the one of the same name."""
        ops = {self.pairs.get(name, name) for name in child.all_ops()}
        for candidate in candidates:
            if set(candidate.all_ops()) == ops:
                return candidate
        for candidate in candidates:
            if self.same_text(child.name, candidate.name):
                return candidate
        return None

    def same_attr(self, left: Attr, right: Attr) -> bool:
        if left.kind is not right.kind:
            return False
        if left.value == right.value or repr(left.value) == repr(right.value):  # NaN is not itself
            return True
        if left.kind is AttrKind.STRING:
            return self.same_text(str(left.value), str(right.value))
        if left.kind is AttrKind.STRINGS:
            ours: Tuple[str, ...] = left.value  # type: ignore[assignment]
            theirs: Tuple[str, ...] = right.value  # type: ignore[assignment]
            return len(ours) == len(theirs) and all(map(self.same_text, ours, theirs))
        return False

    def same_text(self, left: str, right: str) -> bool:
        """Whether two names are the same; an operator's name stands for its partner's."""
        if left == right:
            return True
        if not self.loose:
            return False
        if left.startswith(_PREFIX) and right.startswith(_PREFIX):
            return self.same_text(left[len(_PREFIX) :], right[len(_PREFIX) :])
        if without_trace_label(left) != without_trace_label(right):
            return False
        return self.pairs.get(left, right) == right


def shape_text(dims: Iterable[int]) -> str:
    """``1x224x224x3``; ``?`` for an unknown dimension, ``scalar`` for rank 0."""
    return "x".join("?" if d < 0 else str(d) for d in dims) or "scalar"


def attr_text(attr: Optional[Attr]) -> str:
    """Kind and value of an attribute on one line, long values shortened."""
    if attr is None:
        return ""
    if isinstance(attr.value, bytes):
        digest = hashlib.sha256(attr.value).hexdigest()[:12]
        return f"{attr.kind.name} of {len(attr.value)} bytes, sha256 {digest}"
    value = attr.value
    if isinstance(value, dict):
        value = {k: f"{len(v)} bytes" if isinstance(v, bytes) else v for k, v in value.items()}
    text = str(list(value) if isinstance(value, tuple) else value)
    return f"{attr.kind.name} {text if len(text) <= 200 else text[:197] + '...'}"


def _bytes_texts(left: bytes, right: bytes, tensor: Optional[Tensor]) -> Tuple[str, str]:
    if len(left) != len(right):
        return f"{len(left)} bytes", f"{len(right)} bytes"
    places = [i for i, (x, y) in enumerate(zip(left, right)) if x != y]
    first = places[0]
    summary = f"{len(places)} of {len(left)} bytes differ, the first at {first}"
    if tensor is not None and tensor.type_name == "FLOAT32" and len(left) % 4 == 0:
        index = first // 4
        ours, theirs = (struct.unpack_from("<f", d, 4 * index)[0] for d in (left, right))
        return f"element {index} is {ours:.9g}", f"{theirs:.9g} ({summary})"
    return f"byte {first} is {left[first]}", f"{right[first]} ({summary})"


def _either(left: Dict[str, Any], right: Dict[str, Any]) -> List[str]:
    return list(dict.fromkeys([*left, *right]))
