"""What a forward does, call by call: torch.fx with every value computed along the way.

Importing this module imports torch.
"""

from __future__ import annotations

import inspect
import operator
import os
import sys
import traceback
from dataclasses import dataclass
from typing import Any, Dict, Iterator, List, Sequence, Tuple

import torch
import torch.fx
from torch import Tensor, nn

from ..errors import UnsupportedError, UsageError
from .calls import mapped, parts_of
from .operators import builder_for

_TORCH = os.path.dirname(torch.__file__) + os.sep
_HERE = os.path.abspath(__file__)


def tensors_in(structure: Any) -> List[Tensor]:
    """The tensors in nested arguments, in order, as the graph's inputs take them."""
    return [value for value in parts_of(structure) if isinstance(value, Tensor)]


@dataclass(frozen=True)
class TracedTensor:
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

    @property
    def _dynamic(self) -> bool:
        return bool(self.root._dynamic)


class Tracer(torch.fx.Tracer):
    """Records for every call the module scope, the line of the model's source and the result."""

    def __init__(self, model: nn.Module, given: Sequence[Any]) -> None:
        super().__init__()
        self.model, self.given = model, given
        self.scopes: Dict[torch.fx.Node, str] = {}
        self.lines: Dict[torch.fx.Node, str] = {}
        self.results: Dict[torch.fx.Node, Any] = {}
        """Per call its result, with a ``TracedTensor`` in place of every tensor."""
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
        """The forward's arguments with a placeholder for every tensor."""
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
        """A traced value."""
        return _Proxy(node, self)

    def to_bool(self, obj: Any) -> bool:
        """A decision, refused if it depends on the values of a tensor."""
        return bool(obj._plain("a decision"))

    def create_proxy(
        self, kind: str, target: Any, args: Any, kwargs: Any, *rest: Any, **more: Any
    ) -> Any:
        """Records a call and computes its result."""
        takes_values = kind == "call_method" and target in ("item", "tolist", "numpy")
        if takes_values and isinstance(args[0].value, Tensor):
            raise torch.fx.proxy.TraceError(f"Tensor.{target}() takes a tensor's values")
        given = [v for v in parts_of([args, kwargs]) if getattr(v, "_dynamic", False) is True]
        concrete_args = mapped(args, _value)
        concrete_kwargs = mapped(kwargs, _value)
        made = super().create_proxy(kind, target, args, kwargs, *rest, **more)
        value = self._compute(kind, target, concrete_args, concrete_kwargs)
        if tensors_in(value):
            # A tensor made of sizes alone is a constant.
            given = [v for v in given if tensors_in(v.value)]
        return self._known(made.node, value, bool(given))

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
                return attribute(self.model, str(target))
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
        """Modules of the table and of torch are one call."""
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
        """Keeps the scope while the module runs."""
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
        """Keeps the scope and the source line of every call."""
        node = super().create_node(*args, **kwargs)
        self.scopes[node] = "/".join(part for _, part in self._stack)
        self.lines[node] = _calling_line()
        return node


def _value(operand: Any) -> Any:
    return operand.value if isinstance(operand, torch.fx.Proxy) else operand


def _described(value: Any) -> Any:
    if isinstance(value, Tensor):
        return TracedTensor(tuple(value.shape), value.dtype.is_floating_point)
    return value


def _calling_line() -> str:
    frame: Any = sys._getframe(1)
    while frame is not None and _internal(frame.f_code.co_filename):
        frame = frame.f_back
    return "" if frame is None else f"{frame.f_code.co_filename}:{frame.f_lineno}"


def _internal(filename: str) -> bool:
    return filename.startswith((_TORCH, "<")) or os.path.abspath(filename) == _HERE


def record(model: nn.Module, tracer: Tracer, given: Sequence[Any]) -> torch.fx.Graph:
    """The calls of the forward.

    Raises:
        UnsupportedError: it decides by the values of a tensor, or cannot be traced.
        UsageError: the example does not fit.
    """
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


def attribute(model: nn.Module, path: str, stowed: Any = None) -> Tensor:
    """A parameter, buffer or constant the forward reads."""
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
