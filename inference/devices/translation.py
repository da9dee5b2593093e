"""A DPU subgraph as parts that ONNX Runtime or an integer rule runs, and the bytes that keep them.

It knows what a translation depends on, so that an engine kept on disk is used for nothing else.
"""

from __future__ import annotations

import functools
import hashlib
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, List, Mapping, Tuple, Type, Union

from ...compile import weights
from ...compile.weights import constant_arrays
from ...compile.xir.attributes import Attr
from ...compile.xir.graph import Graph, Subgraph
from ...errors import UnsupportedError
from . import integer_rules, onnx_graph, operators
from .onnx_graph import NotExactError, Piece
from .operators import is_supported, refusing
from .reference import computed_ops


@dataclass(frozen=True)
class Part:
    """A run of operators as ONNX, or one operator for its integer rule.

    Attributes:
        inputs: operators whose tensors it reads.
        outputs: operators it computes.
        feeds: names of the inputs in the ONNX model; empty for a rule.
        fetches: names of the outputs there.
        model: the serialized ONNX model; empty for a rule.
    """

    inputs: Tuple[str, ...]
    outputs: Tuple[str, ...]
    feeds: Tuple[str, ...] = ()
    fetches: Tuple[str, ...] = ()
    model: bytes = b""


@dataclass(frozen=True)
class Engine:
    """The parts of one subgraph in order.

    Attributes:
        fallbacks: operators that run by their integer rule, each with the reason.
    """

    parts: Tuple[Part, ...]
    fallbacks: Tuple[str, ...]

    def pack(self) -> bytes:
        """A line of JSON, then the ONNX models one after another."""
        rows = [{**asdict(part), "model": len(part.model)} for part in self.parts]
        head = json.dumps({"parts": rows, "fallbacks": self.fallbacks}).encode("utf-8")
        return b"".join([head, b"\n", *(part.model for part in self.parts)])

    @staticmethod
    def unpack(data: bytes) -> Engine:
        """What ``pack`` gave."""
        start = data.index(b"\n") + 1
        record = json.loads(data[:start].decode("utf-8"))
        parts = []
        for row in record["parts"]:
            end = start + row["model"]
            names = (tuple(row[key]) for key in ("inputs", "outputs", "feeds", "fetches"))
            inputs, outputs, feeds, fetches = names
            parts.append(Part(inputs, outputs, feeds, fetches, data[start:end]))
            start = end
        return Engine(tuple(parts), tuple(record["fallbacks"]))


@dataclass(frozen=True, eq=False)
class Translation:
    """What is to be translated.

    Attributes:
        graph: the compiled model.
        subgraph: its DPU subgraph.
        batch: pictures per submission.
        kept: operators whose tensors are wanted.
        signed_weights: int8 weights, else uint8.
        piece_type: translates the operators.
    """

    graph: Graph
    subgraph: Subgraph
    batch: int
    kept: Tuple[str, ...]
    signed_weights: bool
    piece_type: Type[Piece] = Piece

    def engine(self) -> Engine:
        """Translates.

        Raises:
            UnsupportedError: an operator has neither an exact ONNX form nor an integer rule.
        """
        constants = constant_arrays(self.graph, self.subgraph)
        fallbacks: List[str] = []
        pieces: List[Union[Piece, Part]] = []
        piece = self._piece(constants)
        for op in computed_ops(self.graph, self.subgraph):
            try:
                with refusing(op):
                    piece.translate(op)
            except NotExactError as why:
                if not is_supported(op.type):
                    raise UnsupportedError(
                        f"Operator type {op.type!r} has no integer rule",
                        f"operator {op.name!r} in subgraph {self.subgraph.name!r}",
                    ) from None
                fallbacks.append(f"{op.name} ({why})")
                reads = tuple(name for name in op.input_names if name not in constants)
                pieces += [piece, Part(reads, (op.name,))]
                piece = self._piece(constants)
        pieces.append(piece)
        return Engine(tuple(self._parts(pieces)), tuple(fallbacks))

    def _piece(self, constants: Mapping[str, Any]) -> Piece:
        return self.piece_type(self.graph, constants, self.batch, self.signed_weights)

    def _parts(self, pieces: List[Union[Piece, Part]]) -> List[Part]:
        """From the last piece to the first, so that each knows what is read after it."""
        needed = set(self.kept)
        parts: List[Part] = []
        for item in reversed(pieces):
            if isinstance(item, Piece):
                computed = [n for n in item.values if n in needed and n not in item.inputs]
                if not computed:
                    continue
                item = Part(
                    tuple(item.inputs),
                    tuple(computed),
                    tuple(item.values[name] for name in item.inputs),
                    tuple(item.values[name] for name in computed),
                    item.model(computed),
                )
            needed.update(item.inputs)
            parts.insert(0, item)
        return parts

    def digest(self) -> str:
        """Hexadecimal digest of everything the engine depends on, our own source included."""
        digest = hashlib.sha256(_source())
        kind = f"{self.piece_type.__module__}.{self.piece_type.__qualname__}"
        digest.update(repr((kind, self.batch, self.kept, self.signed_weights)).encode("utf-8"))
        _feed(digest, self.subgraph.attrs)
        names = dict.fromkeys(self.subgraph.all_ops())
        for name in list(names):
            names.update(dict.fromkeys(self.graph.op(name).input_names))
        for name in names:
            op = self.graph.op(name)
            form = (name, op.type, sorted(op.inputs.items()), op.tensor.name, op.tensor.dims)
            digest.update(repr(form).encode("utf-8"))
            _feed(digest, op.attrs)
            _feed(digest, op.tensor.attrs)
        return digest.hexdigest()


def _feed(digest: Any, attrs: Mapping[str, Attr]) -> None:
    """Adds attributes to a digest; bytes as they are, since the ``repr`` of long ones is slow."""
    for key, attr in sorted(attrs.items()):
        value = attr.value
        parts = value if isinstance(value, dict) else {"": value}
        for name, part in sorted(parts.items()):
            data = part if isinstance(part, bytes) else repr(part).encode("utf-8")
            digest.update(repr((key, attr.kind.value, name, len(data))).encode("utf-8"))
            digest.update(data)


@functools.lru_cache(maxsize=None)
def _source() -> bytes:
    """The modules that decide how a model is translated."""
    names = [module.__name__ for module in (onnx_graph, operators, integer_rules, weights)]
    files = [sys.modules[name].__file__ for name in (__name__, *names)]
    return b"".join(Path(file).read_bytes() for file in files if file is not None)
