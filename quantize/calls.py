"""One traced call of PyTorch, ready to become a node of the quantizer's graph.

Importing this module imports torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable, Dict, Iterator, List, Optional, Sequence, Tuple, Union

import torch
from torch import Tensor

from ..errors import UnsupportedError
from . import graph as g
from .graph import Node, QuantizerGraph


@dataclass(frozen=True)
class Parameter:
    """A parameter or buffer of the model, by its name in the state dict."""

    name: str
    value: Tensor


class Size(int):
    """A whole number computed from shapes, with the nodes that read them.

    Attributes:
        sources: the shape nodes.
    """

    sources: Tuple[Node, ...]

    def __new__(cls, value: int, sources: Tuple[Node, ...]) -> Size:
        """``value``, read by ``sources``."""
        made = super().__new__(cls, value)
        made.sources = sources
        return made


def mapped(value: Any, change: Callable[[Any], Any]) -> Any:
    """``value`` with everything in its tuples, lists, dicts and slices changed."""
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(mapped(v, change) for v in value))
    if isinstance(value, tuple):
        return tuple(mapped(v, change) for v in value)
    if isinstance(value, list):
        return [mapped(v, change) for v in value]
    if isinstance(value, dict):
        return {k: mapped(v, change) for k, v in value.items()}
    if isinstance(value, slice):
        parts = (value.start, value.stop, value.step)
        return slice(*(mapped(v, change) for v in parts))
    return change(value)


def parts_of(value: Any) -> Iterator[Any]:
    """Everything in the tuples, lists, dicts and slices of ``value``."""
    found: List[Any] = []
    mapped(value, found.append)
    return iter(found)


@dataclass
class Call:
    """One traced call, its operands already nodes, parameters or plain values.

    Attributes:
        graph: where the node goes.
        what: the call as a person would write it, for errors.
        where: source file and line of the call, or an empty string.
        scope: module classes and attribute names down to the call.
        shape: of the result for the example.
        module: the called module and its path, for module calls.
        args, kwargs: operands.
        shapes: of the results, for calls that give several.
        is_float: whether the result holds float numbers.
        compute: the call itself, on tensors in place of nodes.
        kind: the operator's name in PyTorch's own vocabulary, e.g. ``aten::silu``.
    """

    graph: QuantizerGraph
    what: str
    where: str
    scope: str
    shape: Tuple[int, ...]
    args: Sequence[Any]
    kwargs: Dict[str, Any]
    module: Any = None
    path: str = ""
    shapes: Sequence[Tuple[int, ...]] = ()
    is_float: bool = True
    compute: Optional[Callable[..., Any]] = None
    kind: Optional[Callable[[], str]] = None

    def arg(self, position: int, name: str, default: Any = None) -> Any:
        """The operand at ``position`` or called ``name``."""
        if position < len(self.args):
            return self.args[position]
        return self.kwargs.get(name, default)

    def operand(self, position: int, name: str) -> Node:
        """Same, where only a computed tensor will do."""
        value = self.arg(position, name)
        if not isinstance(value, Node):
            raise self.unsupported(f"operand {name!r} is {short(value)}, not a computed tensor")
        return value

    def tensor(self, position: int, name: str) -> Node:
        """Same, where a number or a parameter will do too; it becomes a constant."""
        value = self.arg(position, name)
        return value if isinstance(value, Node) else self.constant(value, name)

    def constant(self, value: Any, name: str = "operand") -> Node:
        """A node that gives a number or a parameter."""
        if isinstance(value, Parameter):
            held = value.value
            if held.dtype != torch.float32:
                raise self.unsupported(f"{value.name} is {held.dtype}, not float32")
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            held = torch.tensor(float(value))
        else:
            raise self.unsupported(f"operand {name!r} is {short(value)}, not a computed tensor")
        array = held.detach().cpu().numpy().copy()
        node = Node(g.CONST, "const", [], tuple(held.shape), {"value": array})
        self.graph.nodes.append(node)
        return node

    def own(self, name: str) -> Optional[Parameter]:
        """The called module's parameter or buffer ``name``; ``None`` where it has none."""
        value = getattr(self.module, name)
        return None if value is None else Parameter(f"{self.path}.{name}", value.detach())

    def add(
        self,
        op: str,
        inputs: Sequence[Node],
        attrs: Optional[Dict[str, Any]] = None,
        params: Optional[Dict[str, Optional[Parameter]]] = None,
    ) -> Node:
        """Appends a node for this call."""
        known = {id(node) for node in inputs}
        sizes = [n for v in parts_of([self.args, self.kwargs]) for n in getattr(v, "sources", ())]
        sizes = [n for n in dict.fromkeys(sizes) if id(n) not in known]
        node = Node(op, self.scope, [*inputs, *sizes], self.shape, dict(attrs or {}))
        node.is_float = self.is_float
        for role, parameter in (params or {}).items():
            if parameter is not None:
                node.params[role] = self._store(parameter, op)
        self.graph.nodes.append(node)
        return node

    def _store(self, parameter: Parameter, op: str) -> str:
        value = parameter.value
        if value.dtype != torch.float32:
            raise self.unsupported(f"{parameter.name} is {value.dtype}, not float32")
        key = f"{self.graph.name}::{parameter.name}"
        # A convolution called again gets its own copy, so that each use is folded and equalized
        # by itself; a linear layer's parameters stay shared, as in the vendor's graph.
        if key in self.graph.params and op != g.DENSE:
            key = f"{key}{COPY}{len(self.graph.nodes)}"
        self.graph.params[key] = value.detach().cpu().numpy().copy()
        return key

    def custom(self) -> Node:
        """A node for an operator the vendor's quantizer does not know: it runs in float."""
        if self.kind is None or self.compute is None or self.shapes:
            raise self.unsupported("it is not in its table of operators")
        kind, compute = self.kind(), self.compute
        given = (list(self.args), self.kwargs)
        inputs = list(dict.fromkeys(v for v in parts_of(given) if isinstance(v, Node)))
        plain = mapped(given, lambda v: v.value if isinstance(v, Parameter) else v)

        def call(operands: Sequence[Tensor]) -> Tensor:
            table = dict(zip(inputs, operands))
            args, kwargs = mapped(plain, lambda v: table[v].clone() if isinstance(v, Node) else v)
            result: Tensor = compute(*args, **kwargs)
            return result

        self.graph.notes.append(
            f"{self.what} in {self.scope}: {kind} is no operator of the DPU and stays float; the "
            "compiled model is cut there and this part runs on the processor"
        )
        return self.add(kind, inputs, {"call": call})

    def unsupported(self, reason: str) -> UnsupportedError:
        """The error for this call."""
        seen = f"{self.what} in {self.scope}" + (f", called at {self.where}" if self.where else "")
        return UnsupportedError(
            f"The quantizer cannot treat {self.what}: {reason}",
            seen,
            "replace the operator in the model's forward, or leave it to the code around the model",
        )


COPY = ".copy "
"""Stands in the key of a parameter used again, until the number of its node is known."""

Builder = Callable[[Call], Any]
"""Makes the node of a call, or a tuple of nodes for a call with several results."""

Pair = Tuple[int, int]


def pair(value: Union[int, Sequence[int]]) -> Pair:
    """A size given once or for both axes, as (height, width)."""
    if isinstance(value, (tuple, list)):
        if len(value) == 1:
            return int(value[0]), int(value[0])
        return int(value[0]), int(value[1])
    return int(value), int(value)  # type: ignore[arg-type]


def short(value: Any) -> str:
    """``value`` as a person would write it, cut if it is long."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
