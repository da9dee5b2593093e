"""Reader of the listings that the vendor's own library made of genuine files."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple


@dataclass
class DumpedOp:
    """One operator as listed."""

    name: str
    type: str
    fanout: int
    inputs: Dict[str, List[str]] = field(default_factory=dict)
    attrs: Dict[str, Any] = field(default_factory=dict)
    tensor: str = ""
    dims: Tuple[int, ...] = ()
    dtype: str = ""
    elements: int = -1
    size: int = -1
    tensor_attrs: Dict[str, Any] = field(default_factory=dict)


@dataclass
class DumpedSubgraph:
    """One subgraph as listed, ``children`` and ``ops`` in the library's order."""

    name: str
    depth: int
    leaf: bool
    op_num: int
    attrs: Dict[str, Any] = field(default_factory=dict)
    inputs: Optional[List[str]] = None
    outputs: Optional[List[str]] = None
    ops: Optional[List[str]] = None
    children: List[DumpedSubgraph] = field(default_factory=list)


@dataclass
class Dump:
    """One file as listed; the operators in the library's topological order."""

    name: str
    attrs: Dict[str, Any]
    heads: List[str]
    tails: List[str]
    ops: List[DumpedOp]
    root: DumpedSubgraph


def read_dump(file: Path) -> Dump:
    """The listing in ``file``; attributes are as ``comparable`` gives them."""
    dump = Dump("", {}, [], [], [], DumpedSubgraph("", 0, False, 0))
    attrs = dump.attrs
    path: List[DumpedSubgraph] = []
    for line in file.read_text(encoding="utf-8").splitlines():
        text = line.strip()
        word = text.partition(" ")[0]
        if word == "GRAPH":
            dump.name = _names(text)[0]
        elif text.startswith(("head ops:", "tail ops:")):
            found = dump.heads if text.startswith("head") else dump.tails
            found.extend(_names(text))
        elif word == "OP":
            name, kind = _names(text)
            dump.ops.append(DumpedOp(name, kind, int(text.rpartition("fanout=")[2])))
            attrs = dump.ops[-1].attrs
        elif word == "input":
            arg, *producers = _names(text)
            dump.ops[-1].inputs[arg] = producers
        elif word == "output_tensor":
            _tensor(text, dump.ops[-1])
            attrs = dump.ops[-1].tensor_attrs
        elif word == "attr":
            _attr(text, attrs)
        elif word == "SUBGRAPH" and "depth=" in text:
            numbers = dict(re.findall(r" (depth|leaf|op_num)=(\w+)", text))
            node = DumpedSubgraph(
                _names(text)[0],
                int(numbers["depth"]),
                numbers["leaf"] == "true",
                int(numbers["op_num"]),
            )
            del path[node.depth :]
            if path:
                path[-1].children.append(node)
            else:
                dump.root = node
            path.append(node)
            attrs = node.attrs
        elif text.startswith(("inputs(sorted):", "outputs(sorted):", "ops(topo):")):
            setattr(path[-1], text.partition("(")[0], _names(text))
    return dump


def comparable(value: Any) -> Any:
    """``value`` in the form that the listing can give: of bytes, length and MD5."""
    if isinstance(value, bytes):
        return len(value), hashlib.md5(value).hexdigest()
    return value


def _names(text: str) -> List[str]:
    return re.findall(r'"([^"]*)"', text)


def _tensor(text: str, op: DumpedOp) -> None:
    op.tensor = _names(text)[0]
    dims, dtype, bits, elements, size = re.findall(r"=(\S+)", text.rpartition('"')[2])
    op.dims = tuple(json.loads(dims))
    op.dtype = dtype.lower() + bits
    op.elements, op.size = int(elements), int(size)


def _attr(text: str, attrs: Dict[str, Any]) -> None:
    found = re.match(r'attr "(.*?)": (\S+) = (.*)', text)
    assert found is not None, text
    name, kind, value = found.groups()
    value = value.replace("(not in file: added by library)", "")
    if kind == "bytes":
        length, digest = value.split()[:2]
        attrs[name] = int(length[4:]), digest[4:]
    elif kind == "map<string,bytes>":
        attrs[name] = None  # which the Python binding cannot read
    else:
        attrs[name] = json.loads(value)
