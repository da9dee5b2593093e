"""What an operator must have before it is added to a graph: inputs, attributes, defaults."""

from __future__ import annotations

from typing import Any, Dict, Iterable, Mapping, Optional, Sequence, Set, Tuple

from ....compile.xir.attributes import Attr, AttrKind
from ....compile.xir.graph import DataType
from ....compile.xir.opdefs import ArgDefinition, AttrDefinition, Definition, definitions
from ..abort import abort
from ..options import active_options
from .attributes import check_key, typed, untyped

_REGISTERED: Set[str] = set()
_WITHOUT_CUSTOM = ("1.4.1", "2.0", "2.5")


def definition_of(op_type: str) -> Definition:
    """The definition of ``op_type``; an unknown one is a custom operator's.

    A custom operator reads any number of tensors as ``input`` and says with the attributes
    ``shape`` and ``data_type`` what it makes.
    """
    return definitions().get(op_type) or custom_definition(op_type)


def register(op_types: Iterable[str]) -> None:
    """Makes types known to this process, as reading a file does with those it defines."""
    _REGISTERED.update(op_types)


def check_registered(op_type: str) -> None:
    """Refuses types that a release before 3.0 does not know; later ones register them.

    Raises:
        XirAbort: the release is older, and no file has defined the type.
    """
    if op_type in definitions() or op_type in _REGISTERED:
        return
    if active_options().release in _WITHOUT_CUSTOM:
        raise abort("XIR_UNREGISTERED_OP", "Unregistered OP!", f"{op_type} is no known type")
    register([op_type])


def custom_definition(op_type: str) -> Definition:
    """The definition that the library registers for a type it does not know."""
    return Definition(
        op_type,
        (ArgDefinition("input", False, True, DataType.FLOAT),),
        (
            AttrDefinition("shape", True, Attr(AttrKind.INT32S, ()), 0),
            AttrDefinition("data_type", True, Attr(AttrKind.STRING, ""), 1),
        ),
    )


def to_attr(op_type: str, name: Any, value: Any) -> Attr:
    """The attribute ``name`` of an operator; its definition decides the kind if it names it.

    Raises:
        XirAbort: nothing says the kind and ``value`` is of none that can be stored.
        RuntimeError: ``value`` cannot be cast.
    """
    check_key(name)
    for attr in definition_of(op_type).attrs:
        if attr.name == name:
            return typed(value, attr.default.kind)
    return untyped(value)


def complete_attrs(op_type: str, name: str, attrs: Mapping[str, Attr]) -> Dict[str, Attr]:
    """``attrs`` with the defaults of the optional ones, by name.

    Raises:
        XirAbort: a required one is missing.
    """
    complete = dict(attrs)
    for attr in definition_of(op_type).attrs:
        if attr.name in complete:
            continue
        if attr.required:
            raise abort(
                "XIR_INVALID_ATTR_OCCUR",
                "Invalid attribute occurrence!",
                f"{name} ({op_type}): the attribute {attr.name} is REQUIRED",
            )
        complete[attr.name] = attr.default
    return dict(sorted(complete.items()))


def complete_inputs(
    op_type: str, name: str, inputs: Mapping[str, Sequence[str]]
) -> Dict[str, Tuple[str, ...]]:
    """``inputs`` in the definition's order, an absent one as an empty tuple.

    Raises:
        XirAbort: a required one is missing, one is given too often, or there is no such one.
    """
    complete: Dict[str, Tuple[str, ...]] = {}
    for arg in definition_of(op_type).inputs:
        complete[arg.name] = tuple(inputs.get(arg.name, ()))
        check_count(op_type, name, arg, len(complete[arg.name]))
    for given in inputs:
        argument(op_type, name, given)
    return complete


def argument(op_type: str, name: str, wanted: str) -> ArgDefinition:
    """The definition of input ``wanted``.

    Raises:
        XirAbort: there is none.
    """
    found: Optional[ArgDefinition] = None
    for arg in definition_of(op_type).inputs:
        found = arg if arg.name == wanted else found
    if found is None:
        raise abort(
            "XIR_UNREGISTERED_ARG",
            "Unregistered argument!",
            f"{name} ({op_type}) has no argument {wanted}",
        )
    return found


def check_count(op_type: str, name: str, arg: ArgDefinition, count: int) -> None:
    """Refuses a number of operators that input ``arg`` cannot have.

    Raises:
        XirAbort: there are too few or too many.
    """
    if (arg.required and not count) or (count > 1 and not arg.repeated):
        occurrence = "REQUIRED" if arg.required else "OPTIONAL"
        raise abort(
            "XIR_INVALID_ARG_OCCUR",
            "Invalid argument occurrence!",
            f"{name} ({op_type}): the argument {arg.name} is {occurrence}, given {count}",
        )
