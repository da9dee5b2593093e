"""The ``.xmodel`` file: a graph to its protobuf bytes and back, and what else a file may be.

The file is one serialized ``Graph`` message without magic, checksum or trailer, so nearly
anything parses or fails in the same way; the reader says which of the usual mix-ups it was given.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, List, Optional, Set, Tuple, Union

from ...errors import FormatError, MissingError
from ...files import impostor, replacing
from .attributes import Attr, AttrKind
from .graph import DataType, Graph, Op, OpDef, Subgraph, Tensor
from .opdefs import missing_attributes, op_defs, problems
from .schema import SCHEMA, encode_attr, read_attr
from .wire import UNKNOWN, Message, WireError

_LIMIT = 2**31 - 1
"""Largest message protobuf can parse, in bytes."""

_INSPECT = "deepfake-fpga inspect FILE.xmodel"
_FETCH_AGAIN = "copy or download the file again and compare its size and checksum with the source"


def read_xmodel(path: Union[str, Path], allow_empty: bool = False) -> Graph:
    """The graph in the ``.xmodel`` file ``path``, quantized or compiled, ours or the vendor's.

    Args:
        path: the file.
        allow_empty: take a graph without operators, which nobody means to read, but scripts that
            build graphs may.

    Raises:
        MissingError: there is no such file.
        FormatError: it is empty, truncated, too large, of an old format, or something else.
    """
    path = Path(path)
    if path.is_dir():
        raise MissingError(
            f"{path} is a folder, not an .xmodel file", next_step=f"ls {path}/*.xmodel"
        )
    try:
        size = path.stat().st_size
        if size > _LIMIT:
            raise FormatError(
                f"{path} is over 2 GiB, the most an .xmodel file can have",
                f"{size} bytes",
                f"{_INSPECT} with the model itself, not an image or archive of it",
            )
        data = path.read_bytes()
    except FileNotFoundError:
        raise MissingError(
            f"There is no file {path}", f"working directory {Path.cwd()}", f"ls -l {path.parent}"
        ) from None
    except OSError as error:
        raise MissingError(f"{path} cannot be read", str(error), f"ls -l {path.parent}") from error
    return parse_xmodel(data, str(path), allow_empty)


def parse_xmodel(data: bytes, source: str, allow_empty: bool = False) -> Graph:
    """The graph serialized in ``data``; ``source`` names it in errors.

    Unlike the vendor's reader, this one refuses a message without operators or without a subgraph
    tree: no tool writes one, and empty and foreign files would pass as such. With ``allow_empty``
    it takes one without operators and unknown fields.

    Raises:
        FormatError: ``data`` is no readable model.
    """
    if not data and not allow_empty:
        raise FormatError(f"{source} is empty", "0 bytes", _FETCH_AGAIN)
    try:
        message = SCHEMA.decode("Graph", data)
    except WireError as error:
        _refuse_foreign(data, source)
        raise FormatError(
            f"{source} is damaged or truncated: it starts or ends in the middle of a message",
            f"{len(data)} bytes: {error}",
            _FETCH_AGAIN,
        ) from error
    if allow_empty and not message["op_node"] and UNKNOWN not in message:
        return _Reader(source).graph(message)
    if message["subg_root"] is None or not message["op_node"]:
        _refuse_foreign(data, source)
        missing = "subgraph tree" if message["op_node"] else "operators"
        raise FormatError(
            f"{source} has no {missing}, so it is no complete .xmodel",
            f"{len(data)} bytes, {len(message['op_node'])} operators",
            _FETCH_AGAIN,
        )
    return _Reader(source).graph(message)


def write_xmodel(graph: Graph, path: Union[str, Path]) -> None:
    """Writes ``graph`` to ``path`` whole or not at all.

    Equal graphs give equal bytes.

    Raises:
        FormatError: what ``dump_xmodel`` raises.
        MissingError: ``path`` cannot be written.
    """
    path = Path(path)
    data = dump_xmodel(graph)
    try:
        with replacing(path) as temporary:
            temporary.write_bytes(data)
    except OSError as error:
        raise MissingError(
            f"{path} cannot be written", str(error), f"ls -ld {path.parent}"
        ) from error


def dump_xmodel(graph: Graph) -> bytes:
    """The bytes of ``graph`` as an ``.xmodel`` file.

    Attributes whose name starts with two underscores are private to a process and left out, as
    the vendor's writer does. A graph without operator definitions gets those of its types.

    Raises:
        FormatError: an operator is not as its type demands, an attribute's value does not fit its
            kind, or the result exceeds 2 GiB.
    """
    for op in graph.ops.values():
        faults = problems(op)
        if faults:
            raise FormatError(
                f"Operator {op.name!r} of graph {graph.name!r} cannot be stored, "
                "the vendor's reader would abort at it",
                f"{op.type}: {'; '.join(faults)}",
            )
    pieces = SCHEMA.pieces(
        "Graph",
        {
            "graph_name": graph.name,
            "op_node": [_op_message(op) for op in graph.ops.values()],
            "subg_root": _subgraph_message(graph.root),
            "graph_attr": _attr_messages(graph.attrs, f"graph {graph.name!r}"),
            "op_defs": [
                op_def.wire
                for op_def in graph.op_defs or op_defs(op.type for op in graph.ops.values())
            ],
            UNKNOWN: graph.unknown,
        },
    )
    size = sum(map(len, pieces))
    if size > _LIMIT:
        raise FormatError(
            f"Graph {graph.name!r} does not fit an .xmodel file, which holds 2 GiB at most",
            f"{size} bytes",
            "use a narrower network",
        )
    return b"".join(pieces)


KINDS: Dict[str, Tuple[type, ...]] = {
    "fix_point": (int,),
    "bit_width": (int,),
    "reg_id": (int,),
    "ddr_addr": (int,),
    "device": (str,),
    "dpu_name": (str,),
    "dpu_fingerprint": (int,),
    "workload": (int,),
    "workload_on_arch": (int,),
    "mc_code": (bytes, str),
    "runner": (dict,),
    "reg_id_to_size": (dict,),
    "reg_id_to_context_type": (dict,),
    "reg_id_to_context_type_v2": (dict,),
    "reg_id_to_hw_segment": (dict,),
    "reg_id_to_parameter_value": (dict,),
    "return_ops": (tuple,),
    "libs_info": (dict,),
    "files_md5sum": (dict,),
}
"""What the attributes that everything relies on are, wherever they stand."""


class _Reader:
    """Turns messages into the graph; knows the source's name for errors."""

    def __init__(self, source: str) -> None:
        self.source = source

    def graph(self, message: Message) -> Graph:
        graph = Graph(message["graph_name"])
        makers: Dict[str, str] = {}
        for node in message["op_node"]:
            op = graph.add(self.op(node))
            other = makers.setdefault(op.tensor.name, op.name)
            if other != op.name:
                raise FormatError(
                    f"{self.source} has two tensors called {op.tensor.name!r}",
                    f"of the operators {other!r} and {op.name!r}",
                    _FETCH_AGAIN,
                )
        if message["subg_root"] is not None:
            graph.root = self.subgraph(message["subg_root"], graph, set())
        graph.attrs = self.attrs(message["graph_attr"], "the graph")
        graph.op_defs = [OpDef(d["name"], SCHEMA.encode("OpDef", d)) for d in message["op_defs"]]
        graph.unknown = message.get(UNKNOWN, b"")
        return graph

    def op(self, message: Message) -> Op:
        name = message["op_name"]
        if message["output_tensor"] is None:
            self._refuse_old(f"operator {name!r} has no output tensor")
        inputs: Dict[str, Any] = {}
        for arg in message["args"]:
            inputs[arg["arg_name"]] = inputs.get(arg["arg_name"], ()) + tuple(arg["arg_ops"])
        op = Op(
            name,
            message["op_type"],
            self.tensor(message["output_tensor"], name),
            self.attrs(message["op_attr"], f"operator {name!r}"),
            inputs,
            message.get(UNKNOWN, b""),
        )
        missing = missing_attributes(op)
        if missing:
            self._refuse_old(f"operator {op.name!r} ({op.type}) has no attribute {missing[0]!r}")
        return op

    def tensor(self, message: Message, op_name: str) -> Tensor:
        name, code, bits = (
            message[field] for field in ("tensor_name", "data_type", "tensor_bit_width")
        )
        try:
            dtype = DataType(code)
        except ValueError:
            dtype = DataType.UNKNOWN
        if dtype is DataType.UNKNOWN or bits <= 0:
            raise FormatError(
                f"{self.source} has a tensor of no known element type",
                f"operator {op_name!r}: type code {code}, {bits} bits",
                _FETCH_AGAIN,
            )
        # Dimensions are stored unsigned; an unknown one (-1) is 4294967295 in the file.
        dims = tuple(d - 2**32 if d >= 2**31 else d for d in message["tensor_dim"])
        attrs = self.attrs(message["tensor_attr"], f"tensor {name!r}")
        return Tensor(name, dims, dtype, bits, attrs, message.get(UNKNOWN, b""))

    def subgraph(self, message: Message, graph: Graph, seen: Set[str]) -> Subgraph:
        ops, subgraph = message["op_name"], message["subgraph_name"]
        if ops and message["subg_child"]:
            self._refuse_tree(subgraph, "has operators and children at once")
        for name in ops:
            if name not in graph.ops:
                self._refuse_tree(subgraph, f"lists {name!r}, which is no operator")
            if name in seen:
                self._refuse_tree(subgraph, f"lists {name!r} a second time")
            seen.add(name)
        return Subgraph(
            subgraph,
            self.attrs(message["subg_attr"], f"subgraph {subgraph!r}"),
            ops,
            [self.subgraph(child, graph, seen) for child in message["subg_child"]],
            message.get(UNKNOWN, b""),
        )

    def attrs(self, table: Dict[str, Message], where: str) -> Dict[str, Attr]:
        found = {key: read_attr(table[key]) for key in sorted(table)}
        for key, attr in found.items():
            kinds = KINDS.get(key)
            wrong = kinds and (not isinstance(attr.value, kinds) or isinstance(attr.value, bool))
            if wrong or (key == "return_ops" and attr.kind is not AttrKind.STRINGS):
                raise FormatError(
                    f"Attribute {key!r} of {where} in {self.source} is of the wrong kind",
                    f"{attr.kind.name}: {str(attr.value)[:60]!r}",
                    _FETCH_AGAIN,
                )
        return found

    def _refuse_old(self, evidence: str) -> None:
        raise FormatError(
            f"{self.source} is of an old format (release 1.2 or before), which the vendor's own "
            "library refuses too",
            evidence,
            "quantize and compile the model again with release 1.4 or newer",
        )

    def _refuse_tree(self, name: str, what: str) -> None:
        raise FormatError(
            f"{self.source} has a broken subgraph tree", f"subgraph {name!r} {what}", _FETCH_AGAIN
        )


def _op_message(op: Op) -> Message:
    where, tensor = f"operator {op.name!r}", op.tensor
    return {
        "op_name": op.name,
        "op_type": op.type,
        "op_attr": _attr_messages(op.attrs, where),
        "args": [{"arg_name": name, "arg_ops": ops} for name, ops in op.inputs.items()],
        "output_tensor": {
            "tensor_name": tensor.name,
            "tensor_dim": [dim & 0xFFFFFFFF for dim in tensor.dims],
            "data_type": tensor.dtype.value,
            "tensor_bit_width": tensor.bits,
            "tensor_attr": _attr_messages(tensor.attrs, f"the tensor of {where}"),
            UNKNOWN: tensor.unknown,
        },
        UNKNOWN: op.unknown,
    }


def _subgraph_message(subgraph: Subgraph) -> Message:
    if subgraph.ops and subgraph.children:
        raise FormatError(f"Subgraph {subgraph.name!r} has operators and children at once")
    return {
        "subgraph_name": subgraph.name,
        "op_name": subgraph.ops,
        "subg_attr": _attr_messages(subgraph.attrs, f"subgraph {subgraph.name!r}"),
        "subg_child": [_subgraph_message(child) for child in subgraph.children],
        UNKNOWN: subgraph.unknown,
    }


def _attr_messages(attrs: Dict[str, Attr], where: str) -> Dict[str, bytes]:
    """Attributes as encoded messages, so that one that cannot be stored is named."""
    messages = {}
    for key, attr in attrs.items():
        if key.startswith("__"):
            continue
        try:
            messages[key] = encode_attr(attr)
        except WireError as error:
            raise FormatError(
                f"Attribute {key!r} of {where} has a value that its kind cannot hold",
                f"kind {attr.kind.name}, value {str(attr.value)[:80]!r}: {error}",
            ) from error
    return messages


def _refuse_foreign(data: bytes, source: str) -> None:
    """Raises the error that names what ``data`` is, where it is recognised."""
    head = data[:512]
    found = impostor(head) or _other_format(head)
    if found is None:
        return
    next_step = "give the .xmodel file that the quantizer or the compiler wrote"
    if "Git-LFS" in found:
        next_step = f"git lfs pull --include={Path(source).name}"
    elif "download" in found or "server" in found:
        next_step = "download the raw file; the page is what the server gave instead"
    raise FormatError(f"{source} is {found}", f"it starts with {_excerpt(head)}", next_step)


def _other_format(head: bytes) -> Optional[str]:
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    if head.startswith(b"PK\x03\x04"):
        return "a ZIP archive (a PyTorch checkpoint or .npz is one), not an .xmodel"
    if head.startswith(b"\x80\x02"):
        return "a pickle (a PyTorch checkpoint of the old form?), not an .xmodel"
    if head.startswith(b"\x7fELF"):
        return "an ELF library or program, not an .xmodel"
    if head.startswith(b"xclbin2"):
        return "an xclbin (the card's configuration), not a model for it"
    if head[:1] == b"\x08" and head[2:3] in (b"\x12", b"\x1a", b"\x3a", b"\x42"):
        return "an ONNX model, not an .xmodel"
    if text.startswith(b"<"):
        return "an XML document, not an .xmodel"
    if text.startswith((b"{", b"[")):
        return "JSON (arch.json, meta.json or quant_info.json?), not an .xmodel"
    if not _control_bytes(head):
        return "a text file, not an .xmodel"
    return None


def _control_bytes(head: bytes) -> List[int]:
    return [byte for byte in head if byte < 9 or 13 < byte < 32 or byte == 127]


def _excerpt(head: bytes) -> str:
    return repr(head[:40].decode("latin-1"))
