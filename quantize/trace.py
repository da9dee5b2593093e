"""From any ``nn.Module`` in evaluation mode to the quantizer's graph.

torch.fx records the calls in execution order, a run of the example gives the shapes and the value
of everything that is no tensor (sizes, indices), and the table in ``operators`` makes the nodes.

Importing this module imports torch.
"""

from __future__ import annotations

import inspect
import os
import sys
import traceback
import warnings
from typing import Any, Dict, List, Sequence, Set, Tuple

import torch
import torch.fx
from torch import Tensor, nn

from ..errors import UnsupportedError, UsageError
from .graph import INPUT, RELU, RELU6, Node, QuantizerGraph
from .operators import Call, Parameter, builder_for
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
            tracer, recorded, defaults = _record(model, len(example))
            run = _Run(torch.fx.GraphModule(model, recorded))
            # A forward may start with an operator that overwrites its operand.
            try:
                run.run(*(x.detach().clone() for x in example), *defaults)
            except Exception as error:
                raise UsageError(
                    f"{type(model).__name__} cannot run on the example",
                    f"shapes {[list(x.shape) for x in example]}: {_first_line(error)}",
                    "give an example of the shape and type the model was made for",
                ) from error
        relu6 = RELU if replace_relu6 else RELU6
        return _Builder(model, tracer, run, relu6, release).build(recorded, len(example))
    finally:
        for module, training in modes:
            module.training = training


class _Tracer(torch.fx.Tracer):
    """Records for every call the module scope and the line of the model's source."""

    def __init__(self, root_class: str) -> None:
        super().__init__()
        self.scopes: Dict[torch.fx.Node, str] = {}
        self.lines: Dict[torch.fx.Node, str] = {}
        self._stack: List[Tuple[str, str]] = [("", root_class)]

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        known = builder_for("call_module", None, m) is not None
        return known or bool(super().is_leaf_module(m, module_qualified_name))

    def call_module(self, m: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
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


def _calling_line() -> str:
    frame: Any = sys._getframe(1)
    while frame is not None and _internal(frame.f_code.co_filename):
        frame = frame.f_back
    return "" if frame is None else f"{frame.f_code.co_filename}:{frame.f_lineno}"


def _internal(filename: str) -> bool:
    return filename.startswith((_TORCH, "<")) or os.path.abspath(filename) == _HERE


def _record(model: nn.Module, operands: int) -> Tuple[_Tracer, torch.fx.Graph, List[Any]]:
    parameters = [
        p
        for p in inspect.signature(model.forward).parameters.values()
        if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
    ]
    required = sum(p.default is p.empty for p in parameters)
    if not required <= operands <= max(len(parameters), required):
        raise UsageError(
            f"The example has {operands} tensors, {type(model).__name__}.forward takes {required}"
            + (f" to {len(parameters)}" if len(parameters) > required else ""),
            next_step="give one example tensor per argument of forward",
        )
    # Arguments the example leaves out keep their default and are no part of the graph.
    fixed = {p.name: p.default for p in parameters[operands:]}
    tracer = _Tracer(type(model).__name__)
    try:
        with warnings.catch_warnings():
            # torch 1.10 cannot assert a default of None, which is of no use here anyway.
            warnings.filterwarnings("ignore", "Was not able to add assertion")
            recorded = tracer.trace(model, concrete_args=fixed or None)
        return tracer, recorded, list(fixed.values())
    except torch.fx.proxy.TraceError as error:
        raise UnsupportedError(
            f"The forward of {type(model).__name__} decides by the values of a tensor, which a "
            "fixed graph cannot do",
            f"{_model_line(error)} ({error})",
            "replace the branch or loop by tensor operations, or take it out of the model",
        ) from error
    except UnsupportedError:
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


class _Run(torch.fx.Interpreter):
    """Runs the example; keeps the shape of every tensor and the value of all else."""

    def __init__(self, module: torch.fx.GraphModule) -> None:
        super().__init__(module)
        self.shapes: Dict[torch.fx.Node, Tuple[int, ...]] = {}
        self.values: Dict[torch.fx.Node, Any] = {}

    def run_node(self, n: torch.fx.Node) -> Any:
        result = super().run_node(n)
        if isinstance(result, Tensor):
            self.shapes[n] = tuple(result.shape)
        else:
            self.values[n] = result
        return result


class _Builder:
    """Turns a recorded fx graph into the quantizer's, call by call."""

    def __init__(
        self, model: nn.Module, tracer: _Tracer, run: _Run, relu6: str, release: Release
    ) -> None:
        self.model, self.tracer, self.run, self.relu6 = model, tracer, run, relu6
        self.graph = QuantizerGraph(type(model).__name__, release)
        self.made: Dict[torch.fx.Node, Any] = {}
        self.overwritten: Dict[Node, Node] = {}

    def build(self, recorded: torch.fx.Graph, operands: int) -> QuantizerGraph:
        """The numbered graph; operators whose result nobody uses are left out."""
        needed = _needed(recorded)
        for fx_node in recorded.nodes:
            if fx_node.op == "placeholder":
                self._placeholder(fx_node, operands)
            elif fx_node.op == "get_attr":
                value = _attribute(self.model, str(fx_node.target))
                self.made[fx_node] = Parameter(str(fx_node.target), value.detach())
            elif fx_node.op == "output":
                self.graph.outputs = self._resolve(fx_node.args[0])
            elif fx_node in needed or self._in_place(fx_node):
                self.made[fx_node] = self._call(fx_node)
        _prune(self.graph)
        self.graph.number()
        return self.graph

    def _placeholder(self, fx_node: torch.fx.Node, operands: int) -> None:
        position = len(self.graph.inputs)
        if position < operands and fx_node in self.run.shapes:
            node = Node(INPUT, f"input_{position}", [], self.run.shapes[fx_node])
            self.graph.nodes.append(node)
            self.made[fx_node] = node
        else:
            self.made[fx_node] = self.run.values.get(fx_node)

    def _call(self, fx_node: torch.fx.Node) -> Any:
        if fx_node in self.run.values and not _holds_tensor(self.run.values[fx_node]):
            return self.run.values[fx_node]
        if isinstance(fx_node.target, type) and hasattr(fx_node.target, "_fields"):
            # torch.fx records the making of a named tuple as a call.
            fields = {k: self._resolve(v) for k, v in fx_node.kwargs.items()}
            return fx_node.target(*(self._resolve(a) for a in fx_node.args), **fields)
        kind = fx_node.op
        module = self.model.get_submodule(str(fx_node.target)) if kind == "call_module" else None
        call = Call(
            graph=self.graph,
            what=_what(fx_node, module),
            where=self.tracer.lines[fx_node],
            scope=self.tracer.scopes[fx_node],
            shape=self.run.shapes.get(fx_node, ()),
            args=[self._resolve(a) for a in fx_node.args],
            kwargs={k: self._resolve(v) for k, v in fx_node.kwargs.items()},
            module=module,
            path=str(fx_node.target),
        )
        make = builder_for(kind, fx_node.target, module)
        if make is None or fx_node not in self.run.shapes:
            raise call.unsupported("it is not in its table of operators")
        node = make(call)
        if isinstance(module, nn.ReLU6) and self.relu6 != node.op:
            node.op = self.relu6
            self.graph.notes.append(f"{call.what} became a ReLU, as equalization wants it")
        if self._in_place(fx_node):
            self.overwritten[call.operand(0, "input")] = node
        return node

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
        if isinstance(value, torch.fx.Node):
            made = self.made.get(value)
            while isinstance(made, Node) and made in self.overwritten:
                made = self.overwritten[made]
            return made
        if isinstance(value, tuple) and hasattr(value, "_fields"):
            return type(value)(*(self._resolve(v) for v in value))
        if isinstance(value, tuple):
            return tuple(self._resolve(v) for v in value)
        if isinstance(value, list):
            return [self._resolve(v) for v in value]
        if isinstance(value, dict):
            return {k: self._resolve(v) for k, v in value.items()}
        return value


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


def _attribute(model: nn.Module, path: str) -> Tensor:
    value: Any = model
    for part in path.split("."):
        value = getattr(value, part)
    if not isinstance(value, Tensor):
        raise UnsupportedError(f"The forward reads {path!r}, which is no tensor", repr(value)[:80])
    return value


def _holds_tensor(value: Any) -> bool:
    if isinstance(value, (tuple, list)):
        return any(_holds_tensor(item) for item in value)
    return isinstance(value, Tensor)


def _what(fx_node: torch.fx.Node, module: Any) -> str:
    if module is not None:
        return f"nn.{type(module).__name__} {fx_node.target!r}"
    if fx_node.op == "call_method":
        return f"Tensor.{fx_node.target}"
    target: Any = fx_node.target
    name = getattr(target, "__name__", str(target))
    return f"{getattr(target, '__module__', '') or 'torch'}.{name}"
