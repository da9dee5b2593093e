"""``xir.GraphTemplate`` and ``xir.OpTemplate``: patterns of operators, which no script can make.

Release 3.0 lists the two classes, but their only constructor copies, and nothing gives a first
one to copy.
"""

from __future__ import annotations

from typing import List, Optional, Set

from .binding import bound, exported, pybind11_object


@exported
class OpTemplate(pybind11_object):
    """One operator of a pattern."""

    __slots__ = ("_fanout", "_inputs", "_name", "_types")

    _name: str
    _types: Set[str]
    _inputs: Set[OpTemplate]
    _fanout: Set[OpTemplate]

    @bound("__init__(self: xir.OpTemplate, arg0: xir.OpTemplate) -> None")
    def __init__(self, arg0: OpTemplate) -> None:
        """A copy."""
        self._name, self._types = arg0._name, arg0._types
        self._inputs, self._fanout = arg0._inputs, arg0._fanout

    @bound("get_name(self: xir.OpTemplate) -> str")
    def get_name(self) -> str:
        """The name."""
        return self._name

    @bound("get_types(self: xir.OpTemplate) -> Set[str]")
    def get_types(self) -> Set[str]:
        """The types that match."""
        return set(self._types)

    @bound("get_input_ops(self: xir.OpTemplate) -> Set[xir.OpTemplate]")
    def get_input_ops(self) -> Set[OpTemplate]:
        """The templates it reads."""
        return set(self._inputs)

    @bound("get_fanout_ops(self: xir.OpTemplate) -> Set[xir.OpTemplate]")
    def get_fanout_ops(self) -> Set[OpTemplate]:
        """The templates that read it."""
        return set(self._fanout)


@exported
class GraphTemplate(pybind11_object):
    """A pattern of operators."""

    __slots__ = ("_name", "_ops")

    _name: str
    _ops: List[OpTemplate]

    @bound("__init__(self: xir.GraphTemplate, arg0: xir.GraphTemplate) -> None")
    def __init__(self, arg0: GraphTemplate) -> None:
        """A copy."""
        self._name, self._ops = arg0._name, arg0._ops

    @bound("get_name(self: xir.GraphTemplate) -> str")
    def get_name(self) -> str:
        """The name."""
        return self._name

    @bound("get_op(self: xir.GraphTemplate, name: str) -> xir.OpTemplate")
    def get_op(self, name: str) -> Optional[OpTemplate]:
        """The operator called ``name``, or ``None``."""
        return {op._name: op for op in self._ops}.get(name)

    @bound("get_op_num(self: xir.GraphTemplate) -> int")
    def get_op_num(self) -> int:
        """Number of operators."""
        return len(self._ops)

    @bound("toposort(self: xir.GraphTemplate) -> List[xir.OpTemplate]")
    def toposort(self) -> List[OpTemplate]:
        """The operators in order."""
        return list(self._ops)
