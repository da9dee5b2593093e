"""From any ``nn.Module`` in evaluation mode to the quantizer's graph.

``recording`` gives the calls in execution order with the shapes of their results and the values of
everything that is no tensor (sizes, indices); the table in ``operators`` makes the nodes.

Importing this module imports torch.
"""

from __future__ import annotations

import operator
import warnings
from typing import Any, Callable, Dict, List, Sequence, Set

import torch
import torch.fx
from torch import Tensor, nn

from .calls import COPY, Call, Parameter, Size, mapped, parts_of
from .graph import CONST, INPUT, MUL, RELU, RELU6, SHAPE, Node, QuantizerGraph
from .operators import builder_for
from .recording import TracedTensor, Tracer, attribute, record
from .releases import DEFAULT, Release


def trace(
    model: nn.Module,
    example: Sequence[Any],
    replace_relu6: bool = True,
    release: Release = DEFAULT,
) -> QuantizerGraph:
    """The graph of ``model``, numbered, with copies of its float32 parameters.

    The model is traced in evaluation mode and left as it was; ``example`` is not changed.

    Args:
        model: any module whose forward takes ``len(example)`` arguments.
        example: float32 tensors, batch first, or tuples, lists and dicts of such; only their
            shapes matter.
        replace_relu6: turn ``nn.ReLU6`` modules (not the function) into ReLU, as equalization
            wants it (rule 2.1, step 1).
        release: the vendor's release whose graph this is to be.

    Raises:
        UnsupportedError: the forward branches on values, or holds an operator that is not known.
        UsageError: the example does not fit the forward.
    """
    if isinstance(model, nn.DataParallel):
        model = model.module
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            # A forward may start with an operator that overwrites its operand.
            given = [
                mapped(x, lambda v: v.clone() if isinstance(v, Tensor) else v) for x in example
            ]
            tracer = Tracer(model, given)
            try:
                recorded = record(model, tracer, given)
            finally:
                tracer.clean()
        relu6 = RELU if replace_relu6 else RELU6
        return _Builder(model, tracer, relu6, release).build(recorded)
    finally:
        for module, training in modes:
            module.training = training


class _Builder:
    """Turns a recorded fx graph into the quantizer's, call by call."""

    def __init__(self, model: nn.Module, tracer: Tracer, relu6: str, release: Release) -> None:
        self.model, self.tracer, self.relu6 = model, tracer, relu6
        self.graph = QuantizerGraph(type(model).__name__, release)
        self.made: Dict[torch.fx.Node, Any] = {}
        self.overwritten: Dict[Node, Node] = {}

    def build(self, recorded: torch.fx.Graph) -> QuantizerGraph:
        """The numbered graph; operators whose result nobody uses are left out."""
        needed = _needed(recorded)
        for fx_node in recorded.nodes:
            if fx_node.op == "placeholder":
                number = len(self.graph.inputs)
                shape = self.tracer.results[fx_node].shape
                self.made[fx_node] = Node(INPUT, f"input_{number}", [], shape)
                self.graph.nodes.append(self.made[fx_node])
            elif fx_node.op == "get_attr":
                value = attribute(self.model, str(fx_node.target), self.tracer.tensor_attrs)
                self.made[fx_node] = Parameter(str(fx_node.target), value.detach())
            elif fx_node.op == "output":
                self.graph.outputs = self._resolve(fx_node.args[0])
            elif fx_node in needed or self._in_place(fx_node):
                self.made[fx_node] = self._call(fx_node)
        _prune(self.graph)
        _order_constants(self.graph)
        self.graph.number()
        _name_copies(self.graph)
        return self.graph

    def _call(self, fx_node: torch.fx.Node) -> Any:
        args = [self._resolve(a) for a in fx_node.args]
        kwargs = {k: self._resolve(v) for k, v in fx_node.kwargs.items()}
        target = fx_node.target
        if isinstance(target, type) and hasattr(target, "_fields"):
            # torch.fx records the making of a named tuple as a call.
            return target(*args, **kwargs)
        result = self.tracer.results[fx_node]
        if target is operator.getitem and not isinstance(args[0], (Node, Parameter)):
            return args[0][args[1]]
        if fx_node in self.tracer.constants:
            value = self.tracer.constants[fx_node]
            return Parameter(fx_node.name, value) if isinstance(value, Tensor) else value
        tensors = [part for part in parts_of(result) if isinstance(part, TracedTensor)]
        if not tensors:
            return self._no_tensor(fx_node, args, kwargs, result)
        several = isinstance(result, (tuple, list))
        kind = fx_node.op
        module = self.model.get_submodule(str(target)) if kind == "call_module" else None
        compute: Any = module if module is not None else target
        call = Call(
            graph=self.graph,
            what=_what(fx_node, module),
            where=self.tracer.lines[fx_node],
            scope=self.tracer.scopes[fx_node],
            shape=() if several else result.shape,
            args=args,
            kwargs=kwargs,
            module=module,
            path=str(target),
            shapes=[p.shape for p in parts_of(result) if isinstance(p, TracedTensor)]
            if several
            else (),
            is_float=all(p.is_float for p in parts_of(result) if isinstance(p, TracedTensor)),
            compute=_method(str(target)) if kind == "call_method" else compute,
        )
        call.kind = lambda: _aten_kind(call)
        divides = kind == "call_function" and target in (operator.truediv, torch.div)
        if divides and isinstance(args[0], (int, float)):
            return self._reciprocal(call)
        make = builder_for(kind, target, module)
        node = call.custom() if make is None else make(call)
        if isinstance(module, nn.ReLU6) and self.relu6 != node.op:
            node.op = self.relu6
            self.graph.notes.append(f"{call.what} became a ReLU, as equalization wants it")
        if self._in_place(fx_node) and isinstance(node, Node):
            self.overwritten[call.operand(0, "input")] = node
        return node

    def _reciprocal(self, call: Call) -> Node:
        """A number divided by a tensor, which PyTorch computes in two steps."""
        number = call.args[0]
        call.args, call.compute, call.kind = [call.args[1]], torch.reciprocal, _named("reciprocal")
        inverse = call.custom()
        call.args = []
        return call.add(MUL, [inverse, call.constant(number)])

    def _no_tensor(
        self, fx_node: torch.fx.Node, args: List[Any], kwargs: Dict[str, Any], result: Any
    ) -> Any:
        """Sizes: they carry the nodes they come from, which their readers then read too."""
        source = args[0] if args else None
        reads_shape = (fx_node.target is getattr and args[1:] == ["shape"]) or (
            fx_node.op == "call_method" and fx_node.target == "size"
        )
        if isinstance(source, Node) and reads_shape:
            given = args[1:] if fx_node.op == "call_method" else []
            if given or "dim" in kwargs:
                dim = int(given[0] if given else kwargs["dim"]) % len(source.shape)
                return self._size(fx_node, source, dim)
            return tuple(self._size(fx_node, source, dim) for dim in range(len(source.shape)))
        sources = [n for v in parts_of([args, kwargs]) for n in getattr(v, "sources", ())]
        if sources and isinstance(result, int) and not isinstance(result, bool):
            return Size(result, tuple(dict.fromkeys(sources)))
        return result

    def _size(self, fx_node: torch.fx.Node, source: Node, dim: int) -> Size:
        node = Node(SHAPE, self.tracer.scopes[fx_node], [source], (), {"dim": dim})
        node.is_float = False
        self.graph.nodes.append(node)
        return Size(source.shape[dim], (node,))

    def _in_place(self, fx_node: torch.fx.Node) -> bool:
        """Whether the call overwrites its first operand, which later readers then see."""
        if fx_node.op == "call_module":
            module = self.model.get_submodule(str(fx_node.target))
            return bool(getattr(module, "inplace", False))
        if fx_node.op == "call_method":
            name = str(fx_node.target)
            return name.endswith("_") and not name.endswith("__")
        if fx_node.op == "call_function":
            name = getattr(fx_node.target, "__name__", "")
            operators = ("iadd", "isub", "imul", "itruediv")
            return bool(fx_node.kwargs.get("inplace")) or name.endswith("_") or name in operators
        return False

    def _resolve(self, value: Any) -> Any:
        """An fx operand as nodes, parameters and plain values, containers kept."""

        def made(part: Any) -> Any:
            if not isinstance(part, torch.fx.Node):
                return part
            # What stands for a value may itself be a container, of sizes or of results.
            return mapped(self.made.get(part), self._latest)

        return mapped(value, made)

    def _latest(self, made: Any) -> Any:
        while isinstance(made, Node) and made in self.overwritten:
            made = self.overwritten[made]
        return made


def _method(name: str) -> Callable[..., Any]:
    return lambda operand, *args, **kwargs: getattr(operand, name)(*args, **kwargs)


def _named(name: str) -> Callable[[], str]:
    return lambda: f"aten::{name}"


def _aten_kind(call: Call) -> str:
    """The call's operator in PyTorch's own vocabulary, as the vendor's tracer sees it."""
    nodes = [v for v in parts_of([call.args, call.kwargs]) if isinstance(v, Node)]
    nodes = list(dict.fromkeys(nodes))
    plain = mapped(
        (list(call.args), call.kwargs), lambda v: v.value if isinstance(v, Parameter) else v
    )

    def run(*operands: Tensor) -> Any:
        table = dict(zip(nodes, operands))
        args, kwargs = mapped(plain, lambda v: table[v] if isinstance(v, Node) else v)
        assert call.compute is not None  # the builder gives every call its function
        return call.compute(*args, **kwargs)

    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            example = tuple(torch.zeros(node.shape) for node in nodes)
            traced: Any = torch.jit.trace(run, example, check_trace=False)  # type: ignore[no-untyped-call]
            kinds = [n.kind() for n in traced.graph.nodes() if n.kind().startswith("aten::")]
    except Exception:
        kinds = []
    return kinds[-1] if kinds else f"aten::{call.what.split('.')[-1].split()[0].lower()}"


def _order_constants(graph: QuantizerGraph) -> None:
    """Constants first, those of one kind of reader together, as the vendor lists them."""
    readers = graph.consumers()
    order: Dict[str, List[Node]] = {}
    for node in graph.nodes:
        for source in node.inputs:
            if source.op == CONST and readers[source][0] is node:
                order.setdefault(node.op, []).append(source)
    constants = [node for group in order.values() for node in group]
    rest = [node for node in graph.nodes if node.op != CONST]
    graph.nodes = [*dict.fromkeys(constants), *rest]


def _name_copies(graph: QuantizerGraph) -> None:
    """A parameter used again is called after the node that uses it."""
    for node in graph.nodes:
        for role, key in node.params.items():
            if COPY in key:
                node.params[role] = f"{key.split(COPY)[0]}.{node.index}"
                graph.params[node.params[role]] = graph.params.pop(key)


def _needed(recorded: torch.fx.Graph) -> Set[torch.fx.Node]:
    needed: Set[torch.fx.Node] = set()
    for fx_node in reversed(list(recorded.nodes)):
        if fx_node.op == "output" or fx_node in needed:
            needed.update(fx_node.all_input_nodes)
    return needed


def _prune(graph: QuantizerGraph) -> None:
    """Drops nodes from which no output is reached, and their parameters; inputs stay."""
    kept: Set[Node] = set(graph.output_nodes)
    for node in reversed(graph.nodes):
        if node in kept:
            kept.update(node.inputs)
    graph.nodes = [node for node in graph.nodes if node in kept or node.op == INPUT]
    keys = {key for node in graph.nodes for key in node.params.values()}
    graph.params = {key: value for key, value in graph.params.items() if key in keys}


def _what(fx_node: torch.fx.Node, module: Any) -> str:
    if module is not None:
        return f"nn.{type(module).__name__} {fx_node.target!r}"
    if fx_node.op == "call_method":
        return f"Tensor.{fx_node.target}"
    target: Any = fx_node.target
    name = getattr(target, "__name__", str(target))
    return f"{getattr(target, '__module__', '') or 'torch'}.{name}"
