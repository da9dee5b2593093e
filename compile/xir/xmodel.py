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
from .schema import messages, read_attr, write_attr

_LIMIT = 2**31 - 1
"""Largest message protobuf can parse, in bytes."""

_INSPECT = "deepfake-fpga inspect FILE.xmodel"
_FETCH_AGAIN = "copy or download the file again and compare its size and checksum with the source"


def read_xmodel(path: Union[str, Path]) -> Graph:
    """The graph in the ``.xmodel`` file ``path``, quantized or compiled, ours or the vendor's.

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
    return parse_xmodel(data, str(path))


def parse_xmodel(data: bytes, source: str) -> Graph:
    """The graph serialized in ``data``; ``source`` names it in errors.

    Unlike the vendor's reader, this one refuses a message without operators or without a subgraph
    tree: no tool writes one, and empty and foreign files would pass as such.

    Raises:
        FormatError: ``data`` is no readable model.
    """
    if not data:
        raise FormatError(f"{source} is empty", "0 bytes", _FETCH_AGAIN)
    from google.protobuf.message import DecodeError

    message = messages()["Graph"]()
    try:
        message.ParseFromString(data)
    except (DecodeError, ValueError, IndexError) as error:
        _refuse_foreign(data, source)
        raise FormatError(
            f"{source} is damaged or truncated: it starts or ends in the middle of a message",
            f"{len(data)} bytes, protobuf says: {error or 'cannot parse'}",
            _FETCH_AGAIN,
        ) from error
    if not message.HasField("subg_root") or not message.op_node:
        _refuse_foreign(data, source)
        missing = "operators" if not message.op_node else "subgraph tree"
        raise FormatError(
            f"{source} has no {missing}, so it is no complete .xmodel",
            f"{len(data)} bytes, {len(message.op_node)} operators",
            _FETCH_AGAIN,
        )
    return _Reader(source, _has_unknown_fields(message)).graph(message)


def write_xmodel(graph: Graph, path: Union[str, Path]) -> None:
    """Writes ``graph`` to ``path`` whole or not at all.

    Equal graphs give equal bytes under one protobuf implementation; between implementations the
    order of attributes may differ, which no reader sees.

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
    message = messages()["Graph"](graph_name=graph.name)
    message.MergeFromString(graph.unknown)
    for op in graph.ops.values():
        _write_op(op, message.op_node.add())
    _write_subgraph(graph.root, message.subg_root)
    message.subg_root.SetInParent()
    _write_attrs(graph.attrs, message.graph_attr, f"graph {graph.name!r}")
    for op_def in graph.op_defs or op_defs(op.type for op in graph.ops.values()):
        message.op_defs.add().MergeFromString(op_def.wire)
    size = message.ByteSize()
    if size > _LIMIT:
        raise FormatError(
            f"Graph {graph.name!r} does not fit an .xmodel file, which holds 2 GiB at most",
            f"{size} bytes",
            "use a narrower network",
        )
    return bytes(message.SerializeToString(deterministic=True))


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

    def __init__(self, source: str, keep_unknown: bool) -> None:
        self.source = source
        self.keep_unknown = keep_unknown

    def graph(self, message: Any) -> Graph:
        graph = Graph(message.graph_name)
        makers: Dict[str, str] = {}
        for node in message.op_node:
            op = graph.add(self.op(node))
            other = makers.setdefault(op.tensor.name, op.name)
            if other != op.name:
                raise FormatError(
                    f"{self.source} has two tensors called {op.tensor.name!r}",
                    f"of the operators {other!r} and {op.name!r}",
                    _FETCH_AGAIN,
                )
        graph.root = self.subgraph(message.subg_root, graph, set())
        graph.attrs = self.attrs(message.graph_attr, "the graph")
        graph.op_defs = [
            OpDef(d.name, d.SerializeToString(deterministic=True)) for d in message.op_defs
        ]
        graph.unknown = self.unknown(message)
        return graph

    def op(self, message: Any) -> Op:
        if not message.HasField("output_tensor"):
            self._refuse_old(f"operator {message.op_name!r} has no output tensor")
        inputs: Dict[str, Any] = {}
        for arg in message.args:
            inputs[arg.arg_name] = inputs.get(arg.arg_name, ()) + tuple(arg.arg_ops)
        op = Op(
            message.op_name,
            message.op_type,
            self.tensor(message.output_tensor, message.op_name),
            self.attrs(message.op_attr, f"operator {message.op_name!r}"),
            inputs,
            self.unknown(message),
        )
        missing = missing_attributes(op)
        if missing:
            self._refuse_old(f"operator {op.name!r} ({op.type}) has no attribute {missing[0]!r}")
        return op

    def tensor(self, message: Any, op_name: str) -> Tensor:
        try:
            dtype = DataType(message.data_type)
        except ValueError:
            dtype = DataType.UNKNOWN
        if dtype is DataType.UNKNOWN or message.tensor_bit_width <= 0:
            raise FormatError(
                f"{self.source} has a tensor of no known element type",
                f"operator {op_name!r}: type code {message.data_type}, "
                f"{message.tensor_bit_width} bits",
                _FETCH_AGAIN,
            )
        # Dimensions are stored unsigned; an unknown one (-1) is 4294967295 in the file.
        dims = tuple(d - 2**32 if d >= 2**31 else d for d in message.tensor_dim)
        return Tensor(
            message.tensor_name,
            dims,
            dtype,
            message.tensor_bit_width,
            self.attrs(message.tensor_attr, f"tensor {message.tensor_name!r}"),
            self.unknown(message),
        )

    def subgraph(self, message: Any, graph: Graph, seen: Set[str]) -> Subgraph:
        ops = list(message.op_name)
        if ops and message.subg_child:
            self._refuse_tree(message.subgraph_name, "has operators and children at once")
        for name in ops:
            if name not in graph.ops:
                self._refuse_tree(message.subgraph_name, f"lists {name!r}, which is no operator")
            if name in seen:
                self._refuse_tree(message.subgraph_name, f"lists {name!r} a second time")
            seen.add(name)
        return Subgraph(
            message.subgraph_name,
            self.attrs(message.subg_attr, f"subgraph {message.subgraph_name!r}"),
            ops,
            [self.subgraph(child, graph, seen) for child in message.subg_child],
            self.unknown(message),
        )

    def attrs(self, table: Any, where: str) -> Dict[str, Attr]:
        # Some protobuf implementations hand out a key that is not UTF-8 as bytes.
        broken = [key for key in table if not isinstance(key, str)]
        if broken:
            raise FormatError(
                f"An attribute of {where} in {self.source} has no readable name",
                repr(broken[0]),
                _FETCH_AGAIN,
            )
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

    def unknown(self, message: Any) -> bytes:
        if not self.keep_unknown:
            return b""
        rest = type(message)()
        rest.CopyFrom(message)
        for field, _ in rest.ListFields():
            rest.ClearField(field.name)
        return bytes(rest.SerializeToString())

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


def _has_unknown_fields(message: Any) -> bool:
    # Cheap for the usual case, so that nothing is copied per operator; no release wrote any.
    known = type(message)()
    known.CopyFrom(message)
    known.DiscardUnknownFields()
    return bool(known.ByteSize() != message.ByteSize())


def _write_op(op: Op, message: Any) -> None:
    message.op_name = op.name
    message.op_type = op.type
    message.MergeFromString(op.unknown)
    where = f"operator {op.name!r}"
    _write_attrs(op.attrs, message.op_attr, where)
    for name, producers in op.inputs.items():
        message.args.add(arg_name=name, arg_ops=list(producers))
    tensor = message.output_tensor
    tensor.tensor_name = op.tensor.name
    tensor.MergeFromString(op.tensor.unknown)
    tensor.tensor_dim.extend(dim & 0xFFFFFFFF for dim in op.tensor.dims)
    tensor.data_type = op.tensor.dtype.value
    tensor.tensor_bit_width = op.tensor.bits
    _write_attrs(op.tensor.attrs, tensor.tensor_attr, f"the tensor of {where}")
    tensor.SetInParent()


def _write_subgraph(subgraph: Subgraph, message: Any) -> None:
    if subgraph.ops and subgraph.children:
        raise FormatError(f"Subgraph {subgraph.name!r} has operators and children at once")
    message.subgraph_name = subgraph.name
    message.MergeFromString(subgraph.unknown)
    message.op_name.extend(subgraph.ops)
    _write_attrs(subgraph.attrs, message.subg_attr, f"subgraph {subgraph.name!r}")
    for child in subgraph.children:
        _write_subgraph(child, message.subg_child.add())


def _write_attrs(attrs: Dict[str, Attr], table: Any, where: str) -> None:
    for key in sorted(attrs):
        if key.startswith("__"):
            continue
        try:
            write_attr(attrs[key], table[key])
        except (TypeError, ValueError, AttributeError) as error:
            raise FormatError(
                f"Attribute {key!r} of {where} has a value that its kind cannot hold",
                f"kind {attrs[key].kind.name}, value {str(attrs[key].value)[:80]!r}: {error}",
            ) from error


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
