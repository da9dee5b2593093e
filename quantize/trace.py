"""From any ``nn.Module`` in evaluation mode to the quantizer's graph.

torch.fx records the calls in execution order, a run of the example gives the shapes and the value
of everything that is no tensor (sizes, indices), and the table in ``operators`` makes the nodes.

Importing this module imports torch.
"""

from __future__ import annotations

import inspect
import operator
import os
import sys
import traceback
import warnings
from dataclasses import dataclass
from typing import Any, Callable, Dict, Iterator, List, Sequence, Set, Tuple

import torch
import torch.fx
from torch import Tensor, nn

from ..errors import UnsupportedError, UsageError
from .graph import CONST, INPUT, MUL, RELU, RELU6, SHAPE, Node, QuantizerGraph
from .operators import COPY, Call, Parameter, Size, builder_for, mapped, parts_of
from .releases import DEFAULT, Release

_TORCH = os.path.dirname(torch.__file__) + os.sep
_HERE = os.path.abspath(__file__)


def trace(
    model: nn.Module,
    example: Sequence[Tensor],
    replace_relu6: bool = True,
    release: Release = DEFAULT,
) -> QuantizerGraph:
    """The graph of ``model``, numbered, with copies of its float32 parameters.

    The model is traced in evaluation mode and left as it was; ``example`` is not changed.

    Args:
        model: any module whose forward takes ``len(example)`` tensors.
        example: float32 tensors, batch first; only their shapes matter.
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
            tracer = _Tracer(model, given)
            try:
                recorded = _record(model, tracer, given)
            finally:
                tracer.clean()
        relu6 = RELU if replace_relu6 else RELU6
        return _Builder(model, tracer, relu6, release).build(recorded)
    finally:
        for module, training in modes:
            module.training = training


def tensors_in(structure: Any) -> List[Tensor]:
    """The tensors in nested arguments, in order, as the graph's inputs take them."""
    return [value for value in parts_of(structure) if isinstance(value, Tensor)]


@dataclass(frozen=True)
class _Tensor:
    """What is known of a traced tensor."""

    shape: Tuple[int, ...]
    is_float: bool


class _Concrete:
    """A traced value that is computed along the way.

    Sizes and everything else that is no tensor may steer the forward, as they do in the vendor's
    tracer; the values of tensors may not.
    """

    tracer: Any
    value: Any

    def _plain(self, what: str) -> Any:
        if isinstance(self.value, Tensor):
            raise torch.fx.proxy.TraceError(f"{what} of a tensor's values")
        return self.value

    def __iter__(self) -> Iterator[Any]:
        if isinstance(self.value, Tensor):
            count = int(self.value.shape[0])
        else:
            count = len(self._plain("a loop"))
        return iter([self[i] for i in range(count)])  # type: ignore[index]

    def __len__(self) -> int:
        value = self.value
        return int(value.shape[0]) if isinstance(value, Tensor) else len(value)

    def __index__(self) -> int:
        return operator.index(self._plain("a whole number"))

    def __int__(self) -> int:
        return int(self._plain("a whole number"))

    def __float__(self) -> float:
        return float(self._plain("a number"))

    def __getattr__(self, name: str) -> Any:
        if name in ("dtype", "device", "ndim", "layout", "is_cuda", "requires_grad"):
            return getattr(self.value, name)
        if name in ("value", "_dynamic"):
            raise AttributeError(name)
        return _Attribute(self, name)  # type: ignore[arg-type]


class _Proxy(_Concrete, torch.fx.Proxy):
    pass


class _Attribute(_Concrete, torch.fx.proxy.Attribute):
    @property
    def value(self) -> Any:
        return getattr(self.root.value, self.attr)


class _Tracer(torch.fx.Tracer):
    """Records for every call the module scope, the line of the model's source and the result."""

    def __init__(self, model: nn.Module, given: Sequence[Any]) -> None:
        super().__init__()
        self.model, self.given = model, given
        self.scopes: Dict[torch.fx.Node, str] = {}
        self.lines: Dict[torch.fx.Node, str] = {}
        self.results: Dict[torch.fx.Node, Any] = {}
        """Per call its result, with a ``_Tensor`` in place of every tensor."""
        self.constants: Dict[torch.fx.Node, Any] = {}
        """Results that depend on no input."""
        self.arguments: List[Any] = []
        """The forward's arguments, with an fx node in place of every tensor."""
        self._stack: List[Tuple[str, str]] = [("", type(model).__name__)]
        self._attributes = set(vars(model))
        self._computing = False

    def clean(self) -> None:
        """Takes off the model what torch.fx put there."""
        for name in set(vars(self.model)) - self._attributes:
            delattr(self.model, name)

    def create_args_for_root(
        self, root_fn: Any, is_module: bool, concrete_args: Any = None
    ) -> Tuple[Any, List[Any]]:
        proxies: List[Any] = []

        def placeholder(value: Any) -> Any:
            if not isinstance(value, Tensor):
                return value
            node = self.create_node("placeholder", f"input_{len(proxies)}", (), {})
            proxies.append(self._known(node, value, True))
            return proxies[-1]

        arguments = [mapped(value, placeholder) for value in self.given]
        self.arguments = [
            mapped(a, lambda v: v.node if isinstance(v, torch.fx.Proxy) else v) for a in arguments
        ]
        return root_fn, [self.root, *arguments]

    def proxy(self, node: torch.fx.Node) -> torch.fx.Proxy:
        return _Proxy(node, self)

    def to_bool(self, obj: Any) -> bool:
        return bool(obj._plain("a decision"))

    def create_proxy(
        self, kind: str, target: Any, args: Any, kwargs: Any, *rest: Any, **more: Any
    ) -> Any:
        takes_values = kind == "call_method" and target in ("item", "tolist", "numpy")
        if takes_values and isinstance(args[0].value, Tensor):
            raise torch.fx.proxy.TraceError(f"Tensor.{target}() takes a tensor's values")
        dynamic = [v for v in parts_of([args, kwargs]) if getattr(v, "_dynamic", False) is True]
        concrete_args = mapped(args, _value)
        concrete_kwargs = mapped(kwargs, _value)
        made = super().create_proxy(kind, target, args, kwargs, *rest, **more)
        value = self._compute(kind, target, concrete_args, concrete_kwargs)
        return self._known(made.node, value, bool(dynamic))

    def _known(self, node: torch.fx.Node, value: Any, dynamic: bool) -> Any:
        proxy: Any = self.proxy(node)
        proxy.value, proxy._dynamic = value, dynamic
        self.results[node] = mapped(value, _described)
        if not dynamic:
            self.constants[node] = value
        return proxy

    def _compute(self, kind: str, target: Any, args: Any, kwargs: Any) -> Any:
        self._computing = True
        try:
            if kind == "get_attr":
                return _attribute(self.model, str(target))
            if kind == "call_module":
                return self.model.get_submodule(str(target)).forward(*args, **kwargs)
            if kind == "call_method":
                return getattr(args[0], target)(*args[1:], **kwargs)
            return target(*args, **kwargs)
        except Exception as error:
            shapes = [list(x.shape) for x in tensors_in(self.given)]
            raise UsageError(
                f"{type(self.model).__name__} cannot run on the example",
                f"shapes {shapes}: {_first_line(error)}, at {_calling_line()}",
                "give an example of the shape and type the model was made for",
            ) from error
        finally:
            self._computing = False

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        known = builder_for("call_module", None, m) is not None
        return known or bool(super().is_leaf_module(m, module_qualified_name))

    def _module_getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: Any) -> Any:
        """A parameter or buffer read while tracing; this is the hook's name in torch 1.10."""
        if self._computing or not isinstance(attr_val, nn.Parameter):
            return attr_val
        for name, parameter in self.root.named_parameters():
            if parameter is attr_val:
                if name not in parameter_proxy_cache:
                    parameter_proxy_cache[name] = self.create_proxy("get_attr", name, (), {})
                return parameter_proxy_cache[name]
        return attr_val

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: Any) -> Any:
        """The same hook in later releases."""
        return self._module_getattr(attr, attr_val, parameter_proxy_cache)

    def call_module(self, m: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        if self._computing:
            return forward(*args, **kwargs)
        path = self.path_of_module(m)
        parent = self._stack[-1][0]
        inside = parent and path.startswith(parent + ".")
        relative = path[len(parent) + 1 :] if inside else path
        self._stack.append((path, f"{type(m).__name__}[{relative}]"))
        try:
            return super().call_module(m, forward, args, kwargs)
        finally:
            self._stack.pop()

    def create_node(self, *args: Any, **kwargs: Any) -> torch.fx.Node:
        node = super().create_node(*args, **kwargs)
        self.scopes[node] = "/".join(part for _, part in self._stack)
        self.lines[node] = _calling_line()
        return node


def _value(operand: Any) -> Any:
    return operand.value if isinstance(operand, torch.fx.Proxy) else operand


def _described(value: Any) -> Any:
    if isinstance(value, Tensor):
        return _Tensor(tuple(value.shape), value.dtype.is_floating_point)
    return value


def _calling_line() -> str:
    frame: Any = sys._getframe(1)
    while frame is not None and _internal(frame.f_code.co_filename):
        frame = frame.f_back
    return "" if frame is None else f"{frame.f_code.co_filename}:{frame.f_lineno}"


def _internal(filename: str) -> bool:
    return filename.startswith((_TORCH, "<")) or os.path.abspath(filename) == _HERE


def _record(model: nn.Module, tracer: _Tracer, given: Sequence[Any]) -> torch.fx.Graph:
    parameters = [
        p
        for p in inspect.signature(model.forward).parameters.values()
        if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
    ]
    required = sum(p.default is p.empty for p in parameters)
    try:
        # Arguments the example leaves out keep their default and are no part of the graph.
        inspect.signature(model.forward).bind(*given)
    except TypeError as error:
        raise UsageError(
            f"The example has {len(given)} tensors, {type(model).__name__}.forward takes {required}"
            + (f" to {len(parameters)}" if len(parameters) > required else ""),
            str(error),
            "give one example tensor per argument of forward",
        ) from error
    try:
        return tracer.trace(model)
    except torch.fx.proxy.TraceError as error:
        raise UnsupportedError(
            f"The forward of {type(model).__name__} decides by the values of a tensor, which a "
            "fixed graph cannot do",
            f"{_model_line(error)} ({error})",
            "replace the branch or loop by tensor operations, or take it out of the model",
        ) from error
    except (UnsupportedError, UsageError):
        raise
    except Exception as error:
        raise UnsupportedError(
            f"The forward of {type(model).__name__} cannot be traced",
            f"{_model_line(error)}: {type(error).__name__}: {error}",
            "run the model on the example once; if that works, simplify the line above",
        ) from error


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"


def _model_line(error: BaseException) -> str:
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if not _internal(frame.filename):
            return f"{frame.filename}:{frame.lineno}: {frame.line}"
    return "no source line"


class _Builder:
    """Turns a recorded fx graph into the quantizer's, call by call."""

    def __init__(self, model: nn.Module, tracer: _Tracer, relu6: str, release: Release) -> None:
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
                value = _attribute(self.model, str(fx_node.target), self.tracer.tensor_attrs)
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
        if not any(isinstance(part, _Tensor) for part in parts_of(result)):
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
            shapes=[p.shape for p in parts_of(result) if isinstance(p, _Tensor)] if several else (),
            is_float=all(p.is_float for p in parts_of(result) if isinstance(p, _Tensor)),
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


def _attribute(model: nn.Module, path: str, stowed: Any = None) -> Tensor:
    for tensor, name in (stowed or {}).items():
        if name == path:
            found: Tensor = tensor
            return found
    value: Any = model
    for part in path.split("."):
        value = getattr(value, part)
    if not isinstance(value, Tensor):
        raise UnsupportedError(f"The forward reads {path!r}, which is no tensor", repr(value)[:80])
    return value


def _what(fx_node: torch.fx.Node, module: Any) -> str:
    if module is not None:
        return f"nn.{type(module).__name__} {fx_node.target!r}"
    if fx_node.op == "call_method":
        return f"Tensor.{fx_node.target}"
    target: Any = fx_node.target
    name = getattr(target, "__name__", str(target))
    return f"{getattr(target, '__module__', '') or 'torch'}.{name}"
