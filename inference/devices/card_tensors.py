"""Which of the model's tensors each tensor of a runner is: by name, never by position."""

from __future__ import annotations

import re
from typing import Any, Dict, List, Mapping, Sequence, Tuple

from ...errors import MismatchError, UnsupportedError
from .base import TensorInfo


def match_tensors(
    wanted: Sequence[TensorInfo], offered: Sequence[Mapping[str, Any]], where: str
) -> Tuple[Dict[str, Mapping[str, Any]], List[str]]:
    """Finds the model's tensors among the runner's by name, whatever the order.

    The runtime names a tensor at either side of an upload or a download, so names are compared
    after these words are taken away; names that still differ must be the last of both sides.

    Args:
        wanted: tensors of the model.
        offered: the runner's descriptions: ``name``, ``dims``, ``dtype``, ``fix_point``.
        where: the subgraph, for messages.

    Returns:
        Name in the model to description, and what a person should know.

    Raises:
        MismatchError: a tensor is missing, is ambiguous, or has another shape or fix point.
    """
    found: Dict[str, Mapping[str, Any]] = {}
    notes: List[str] = []
    left = {str(record["name"]): record for record in offered}
    if len(left) != len(offered) or len(offered) != len(wanted):
        raise _unmatched(wanted, offered, where)
    for form in (str, plain_name, bare_name):
        missing = [info for info in wanted if info.name not in found]
        ours = [form(info.name) for info in missing]
        theirs = [form(name) for name in left]
        for info in missing:
            key = form(info.name)
            names = [name for name in left if form(name) == key]
            if len(names) == 1 and ours.count(key) == 1 and theirs.count(key) == 1:
                found[info.name] = left.pop(names[0])
    missing = [info for info in wanted if info.name not in found]
    if len(missing) == 1 and tuple(next(iter(left.values()))["dims"][1:]) == missing[0].shape[1:]:
        name, record = left.popitem()
        found[missing[0].name] = record
        notes.append(f"the runner calls tensor {missing[0].name!r} {name!r}")
    elif missing:
        raise _unmatched(wanted, offered, where)
    for info in wanted:
        record = found[info.name]
        dims, fix_point = [int(size) for size in record["dims"]], record["fix_point"]
        if tuple(dims[1:]) != info.shape[1:] or fix_point not in (None, info.fix_point):
            raise MismatchError(
                f"Tensor {info.name!r} of subgraph {where!r} is another one on the card",
                f"{dims} at fix point {fix_point} on the card, "
                f"{list(info.shape)} at {info.fix_point} in the model",
                "the file was changed since it was read: run again",
            )
        if str(record["dtype"]).lower() not in ("xint8", "int8"):
            raise UnsupportedError(
                f"Tensor {info.name!r} of subgraph {where!r} is no int8 tensor on the card",
                str(record["dtype"]),
            )
        if fix_point is None:
            notes.append(f"the runner names no fix point of {info.name!r}: the model's is taken")
    return found, notes


def plain_name(name: str) -> str:
    """A tensor's name without the words of upload and download."""
    return re.sub(r"_(?:up|down)load_0(?=_fix$|$)", "", name)


def bare_name(name: str) -> str:
    """A tensor's name without what frameworks put around the operator's name."""
    return re.sub(r"^quant_|_fix$", "", plain_name(name))


def _unmatched(
    wanted: Sequence[TensorInfo], offered: Sequence[Mapping[str, Any]], where: str
) -> MismatchError:
    return MismatchError(
        f"The tensors of subgraph {where!r} are not those the card's runner has",
        f"the model has {sorted(info.name for info in wanted)}, "
        f"the runner {sorted(str(record['name']) for record in offered)}",
        "the file was changed since it was read: run again",
    )
