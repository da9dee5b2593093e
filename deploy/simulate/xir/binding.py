"""How the genuine module's classes look to Python: argument checks, docstrings, no free fields.

Every method is declared with the line its docstring has in the genuine module; the checks of its
arguments follow from that line, as they do there.
"""

from __future__ import annotations

import functools
import operator
import re
from typing import Any, Callable, Dict, List, NamedTuple, Tuple, TypeVar

F = TypeVar("F", bound=Callable[..., Any])
C = TypeVar("C", bound=type)

_CLASSES: Dict[str, type] = {}
_REQUIRED = object()
_DEFAULTS = {"None": None, "0": 0, "False": False}


class pybind11_object:  # noqa: N801 - the name that the genuine classes' base has
    """Base of all classes of the module; there is no constructor but those a class declares."""

    __slots__ = ("__weakref__",)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        del args, kwargs
        raise TypeError(f"xir.{type(self).__name__}: No constructor defined!")

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise TypeError(f"cannot pickle 'xir.{type(self).__name__}' object")


pybind11_object.__module__ = "pybind11_builtins"


def exported(cls: C) -> C:
    """Declares ``cls`` a class of the module ``xir``, also by name in signatures.

    Methods that it has from a base of several classes become its own, with its name in them.
    """
    cls.__module__ = "xir"
    for name in dir(cls):
        method = getattr(cls, name)
        line = getattr(method, "line", "")
        if "self: object" in line:
            own = line.replace("self: object", f"self: xir.{cls.__name__}")
            setattr(cls, name, bound(own)(method.__wrapped__))
    _CLASSES[cls.__name__] = cls
    return cls


class _Parameter(NamedTuple):
    name: str
    type: str
    default: Any


def bound(line: str) -> Callable[[F], F]:
    """Makes a function behave like the binding whose docstring begins with ``line``.

    Args:
        line: such as ``get_op(self: xir.Graph, name: str) -> xir::Op``.
    """
    name, parameters = _parse(line)

    def decorate(function: F) -> F:
        @functools.wraps(function)
        def checked(*args: Any, **kwargs: Any) -> Any:
            try:
                values = _arguments(parameters, args, kwargs)
            except TypeError as error:
                raise TypeError(
                    f"{name}(): incompatible function arguments. The following argument types are "
                    f"supported:\n    1. {line[len(name) :]}\n\n{error}"
                ) from None
            return function(*values)

        checked.line = line  # type: ignore[attr-defined]
        checked.__doc__ = f"{line}\n\n{function.__doc__ or ''}"
        return checked  # type: ignore[return-value]

    return decorate


def overloaded(*lines: str) -> Callable[[F], F]:
    """Gives a function the docstring of a binding with several signatures."""

    def decorate(function: F) -> F:
        name = function.__name__
        listed = "".join(f"{i}. {line}\n\n" for i, line in enumerate(lines, 1))
        head = f"{name}(*args, **kwargs)\nOverloaded function.\n\n"
        function.__doc__ = f"{head}{listed}{function.__doc__ or ''}"
        return function

    return decorate


def index(value: Any) -> int:
    """``value`` as an integer: ints, bools and what has ``__index__``; no floats.

    Raises:
        TypeError: it is none.
    """
    return operator.index(value)


def _parse(line: str) -> Tuple[str, List[_Parameter]]:
    found = re.match(r"(\w+)\((.*)\) -> ", line)
    assert found is not None, line
    parameters = []
    for part in filter(None, found.group(2).split(", ")):
        declared, _, default = part.partition(" = ")
        name, _, kind = declared.partition(": ")
        value = _DEFAULTS[default] if default else _REQUIRED
        parameters.append(_Parameter(name, kind.replace("::", "."), value))
    return found.group(1), parameters


def _arguments(
    parameters: List[_Parameter], args: Tuple[Any, ...], kwargs: Dict[str, Any]
) -> List[Any]:
    if len(args) > len(parameters):
        raise TypeError(f"{len(args)} arguments where {len(parameters)} are possible")
    values = []
    given = dict(kwargs)
    for position, parameter in enumerate(parameters):
        if position < len(args):
            value = args[position]
        elif parameter.name in given:
            value = given.pop(parameter.name)
        elif parameter.default is _REQUIRED:
            raise TypeError(f"{parameter.name!r} is missing")
        else:
            value = parameter.default
        values.append(_converted(parameter, value))
    if given:
        raise TypeError(f"unknown or twice given: {', '.join(sorted(given))}")
    return values


def _converted(parameter: _Parameter, value: Any) -> Any:
    kind = parameter.type
    if not kind or kind in ("handle", "object") or (value is None and parameter.default is None):
        return value
    if kind == "str":
        if isinstance(value, (str, bytes)):
            return value.decode() if isinstance(value, bytes) else value
    elif kind == "int":
        return index(value)
    elif kind == "dict":
        if isinstance(value, dict):
            return value
    elif kind.startswith("Set["):
        cls = _CLASSES[kind[8:-1]]
        if isinstance(value, (set, frozenset)) and all(isinstance(v, cls) for v in value):
            return value
    elif kind.startswith("List["):
        cls = _CLASSES[kind[9:-1]]
        if isinstance(value, (list, tuple)) and all(isinstance(v, cls) for v in value):
            return list(value)
    elif isinstance(value, _CLASSES[kind[4:]]):
        return value
    raise TypeError(f"{parameter.name}: {value!r:.80} is no {kind}")
