"""The two files of a calibration: ``quant_info.json`` and ``bias_corr.pth``, written and read.

Both have the form of one of the vendor's releases, so either tool's result serves the other (rules
7.1 and 7.2). Files before 3.5 call tensors by names that end in a number of the tracer, so they are
matched with a graph in order, by module scope. Reading needs no torch and executes nothing from the
file.
"""

from __future__ import annotations

import collections
import contextlib
import io
import json
import math
import pickle
import re
import struct
import zipfile
import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple, TypeVar

from ..compile.xir.soundness import FIX_POINTS
from ..errors import FormatError, MismatchError, OrderError
from ..files import replacing, write_text
from .graph import WEIGHTED, Node, QuantizerGraph
from .groups import Entries
from .releases import DEFAULT, V1_4_1, V2_0, V2_5, V3_0, V3_5, Release

QUANT_INFO = "quant_info.json"
BIAS_CORR = "bias_corr.pth"
BITS = 8

_CALIBRATE = "deepfake-fpga quant --mode calib"

Corrections = Mapping[str, Optional[List[float]]]
"""Node name to (float bias - corrected bias) per output channel; ``None`` without a bias."""


@dataclass(frozen=True)
class QuantInfo:
    """What calibration hands to the test stage.

    Attributes:
        params: parameter key to fix position, in the order of the file.
        outputs: node name to fix position, in the order of the file, names as the release has
            them (``QuantizerGraph.file_name``); ``None`` where the release lists a tensor only.
        corrections: see ``Corrections``; ``None`` when bias correction was off.
        graph_md5: digest of the graph's structure; ``None`` in older files.
        version: the tool that wrote it.
        fast_finetuned: whether parameters were tuned too.
        release: the vendor's release whose form the files have.
        bits: of every code.
    """

    params: Mapping[str, int]
    outputs: Mapping[str, Optional[int]]
    corrections: Optional[Corrections]
    graph_md5: Optional[str]
    version: str
    fast_finetuned: bool = False
    release: Release = DEFAULT
    bits: int = BITS

    def text(self) -> str:
        """The exact text of ``quant_info.json``: two-space indent, no newline at the end."""
        nested = self.release.nested_pairs
        fields = [
            f'  "param":\n{_section(self.params, nested, self.bits)}',
            f'  "output":\n{_section(self.outputs, nested, self.bits)}',
            f'  "input":\n{_section({}, nested, self.bits)}',
        ]
        if self.release.flags:
            corrected = self.corrections is not None
            fields.append(f'  "fast_finetuned":{json.dumps(self.fast_finetuned)}')
            fields.append(f'  "bias_corrected":{json.dumps(corrected)}')
        if self.release.version:
            fields.append(f'  "version":{json.dumps(self.version)}')
        if self.release.digest:
            fields.append(f'  "graph_md5":{json.dumps(self.graph_md5)}')
        return "{\n" + ",\n".join(fields) + "\n}"

    def save(self, folder: Path) -> List[Path]:
        """Writes the files into ``folder`` (made if absent), each whole or not at all.

        Returns:
            The paths written.
        """
        info, corrections = folder / QUANT_INFO, folder / BIAS_CORR
        if self.corrections is None:
            # A correction of an earlier run would not belong to the new positions.
            with contextlib.suppress(FileNotFoundError):
                corrections.unlink()
            write_text(info, self.text())
            return [info]
        import torch

        with replacing(info) as info_part, replacing(corrections) as corrections_part:
            info_part.write_bytes(self.text().encode("utf-8"))
            torch.save(dict(self.corrections), str(corrections_part))
        return [info, corrections]


def load(folder: Path, bits: int = BITS) -> QuantInfo:
    """The calibration in ``folder``, its release told by the form of the file.

    Releases 1.4.1 and 2.0 write the same form; where nothing tells them apart it is called 2.0.
    All tensors must have ``bits`` bits.

    Raises:
        OrderError: nothing was calibrated there.
        FormatError: a file is not what its name says.
    """
    info, corrected = load_positions(folder, bits)
    return replace(info, corrections=load_corrections(folder) if corrected else None)


def load_positions(folder: Path, bits: int = BITS) -> Tuple[QuantInfo, bool]:
    """``quant_info.json`` alone, without corrections, and whether biases were corrected.

    All its tensors must have ``bits`` bits.

    Raises:
        OrderError, FormatError: see ``load``.
    """
    path = folder / QUANT_INFO
    if not path.is_file():
        raise OrderError(
            f"There is no calibration in {folder}: {QUANT_INFO} is missing",
            f"no file {path}",
            _CALIBRATE,
        )
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        params = {
            key: _filled(key, _position(key, pair, bits)) for key, pair in raw["param"].items()
        }
        outputs = {key: _position(key, pair, bits) for key, pair in raw["output"].items()}
        release = _release(raw)
        # The oldest files do not say; there the other files' presence does.
        tuned = not release.flags and (folder / "param.pth").is_file()
        corrected = bool(raw.get("bias_corrected", (folder / BIAS_CORR).is_file()))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise FormatError(
            f"{path} is not a calibration result", f"{type(error).__name__}: {error}", _CALIBRATE
        ) from error
    version, finetuned = str(raw.get("version", "")), bool(raw.get("fast_finetuned", tuned))
    digest = raw.get("graph_md5")
    info = QuantInfo(params, outputs, None, digest, version, finetuned, release, bits)
    return info, corrected


def _release(raw: Mapping[str, Any]) -> Release:
    """The release whose form ``raw`` has."""
    values = [*raw["param"].values(), *raw["output"].values()]
    nested = {isinstance(value[0], list) for value in values}
    if len(nested) > 1:
        raise ValueError("some positions are written [[8,n]], others [8,n]")
    if True in nested:
        return V3_0 if any(_is_debug_name(name) for name in raw["output"]) else V3_5
    if "bias_corrected" in raw:
        return V2_5
    unfilled = any(value[1] is None for value in raw["output"].values())
    after_weight = any(re.search(r"\.weight(\.\d+)?\.bias$", key) for key in raw["param"])
    return V1_4_1 if unfilled or after_weight else V2_0


def _is_debug_name(name: str) -> bool:
    return "/" in name or "::input_" in name


def same_form(first: Release, second: Release) -> bool:
    """Whether the files of two releases need not differ."""
    oldest = {V1_4_1.name, V2_0.name}
    return first == second or {first.name, second.name} == oldest


def fitted(
    info: QuantInfo,
    graph: QuantizerGraph,
    entries: Entries,
    source: str,
    allow_unfilled: bool = False,
) -> QuantInfo:
    """``info`` with the names this graph has; refuses a calibration made for another model.

    Parameters, and tensors in release 3.5, are found by name. Other names end in a number of the
    tracer that wrote them; they must have the module scopes of this graph's, in order.
    ``source`` names where ``info`` comes from; ``allow_unfilled`` takes a calibration that left
    tensors without a position, which then stay float.

    Raises:
        MismatchError: structure, names or shapes differ; the first names that do are listed.
        FormatError: a tensor that must have a fix position has none.
    """
    _check_names("parameters", list(entries.params), info.params, source)
    outputs, corrections = info.outputs, info.corrections
    if not graph.release.plain_names:
        outputs = _renamed("tensors", outputs, entries.outputs, graph, source)
        if corrections is not None:
            weighted = [node for node in graph.nodes if node.op in WEIGHTED]
            corrections = _renamed("bias corrections", corrections, weighted, graph, source)
    _check_names("tensors", [graph.file_name(node) for node in entries.outputs], outputs, source)
    for node in () if allow_unfilled else entries.filled:
        if outputs[graph.file_name(node)] is None:
            raise FormatError(
                f"The calibration in {source} has no fix position for {graph.file_name(node)}",
                "null: the calibration met values that are not finite, or did not run",
                _CALIBRATE,
            )
    if info.graph_md5 is not None and info.graph_md5 != graph.md5():
        raise _mismatch(
            source, f"graph_md5 {info.graph_md5} in the file, {graph.md5()} of this model"
        )
    if corrections is not None:
        _check_corrections(corrections, graph, source)
    return replace(info, outputs=outputs, corrections=corrections, release=graph.release)


def _check_names(what: str, needed: List[str], found: Mapping[str, Any], source: str) -> None:
    missing = [key for key in needed if key not in found]
    extra = [key for key in found if key not in needed]
    if missing:
        raise _mismatch(
            source,
            f"{what} of this model without a fix position: {_some(missing)}"
            + (f"; fix positions of others: {_some(extra)}" if extra else ""),
        )


_Value = TypeVar("_Value")


def _renamed(
    what: str,
    found: Mapping[str, _Value],
    nodes: Sequence[Node],
    graph: QuantizerGraph,
    source: str,
) -> Dict[str, _Value]:
    """``found`` under the names of ``nodes``, one for one in order, if their scopes agree."""
    for number, (name, node) in enumerate(zip(found, nodes)):
        if _scope(name) != _scope(graph.debug_name(node)):
            raise _mismatch(
                source, f"{what}: number {number} is {name}, in this model {graph.debug_name(node)}"
            )
    if len(found) != len(nodes):
        rest = list(found)[len(nodes) :] or [graph.debug_name(n) for n in nodes[len(found) :]]
        raise _mismatch(
            source, f"{len(found)} {what}, {len(nodes)} in this model; left over: {_some(rest)}"
        )
    return {graph.debug_name(node): value for node, value in zip(nodes, found.values())}


def _scope(name: str) -> str:
    """A debug name without the tracer's label; inputs have none, constants nothing else."""
    return name.rpartition("/")[0] or re.sub(r"::\d+$", "::", name)


def _check_corrections(corrections: Corrections, graph: QuantizerGraph, source: str) -> None:
    for node in graph.nodes:
        key = node.params.get("bias")
        if node.op not in WEIGHTED or key is None:
            continue
        found = corrections.get(graph.file_name(node))
        channels = graph.params[key].shape[0]
        if found is None or len(found) != channels:
            seen = "nothing" if found is None else f"{len(found)} values"
            raise _mismatch(
                source,
                f"{BIAS_CORR} holds {seen} for {graph.file_name(node)}, which has {channels} "
                "output channels",
            )


def output_positions(info: QuantInfo, graph: QuantizerGraph, entries: Entries) -> Dict[Node, int]:
    """Node to fix position for every tensor that is quantized."""
    found = {node: info.outputs[graph.file_name(node)] for node in entries.filled}
    return {node: position for node, position in found.items() if position is not None}


def _mismatch(source: str, evidence: str) -> MismatchError:
    return MismatchError(
        f"The calibration in {source} belongs to another model", evidence, _CALIBRATE
    )


def _some(names: List[str]) -> str:
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"


def _section(positions: Mapping[str, Optional[int]], nested: bool, bits: int) -> str:
    pairs = {key: f"[{bits},{json.dumps(value)}]" for key, value in positions.items()}
    lines = [f"    {json.dumps(k)}:{f'[{v}]' if nested else v}" for k, v in pairs.items()]
    return "  {\n" + ",\n".join(lines) + "\n  }"


def _position(key: str, value: Any, known: int) -> Optional[int]:
    """The fix position in the entry of tensor ``key``."""
    try:
        # Releases before 3.0 write a flat pair.
        bits, position = value[0] if isinstance(value[0], list) else value
    except (TypeError, ValueError, IndexError, KeyError):
        raise ValueError(f"{key!r} has {value!r} where [bits, fix position] belongs") from None
    if bits != known:
        raise ValueError(f"{key!r} has {bits} bits, only {known} are known")
    if position is None:
        return None
    low, high = FIX_POINTS
    if isinstance(position, bool) or not isinstance(position, int) or not low <= position <= high:
        raise ValueError(f"{key!r} has fix position {position!r}, possible are {low} to {high}")
    return position


def _filled(key: str, position: Optional[int]) -> int:
    if position is None:
        raise ValueError(f"{key!r} has fix position null (the calibration met values not finite)")
    return position


_MOST_BYTES = 64 << 20
_UNREADABLE = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    OSError,
    RuntimeError,
    pickle.UnpicklingError,
    IndexError,
    KeyError,
    EOFError,
    OverflowError,
    MemoryError,
)
"""What a damaged archive or pickle raises."""


class _Plain(pickle.Unpickler):
    """Reads dictionaries, lists and numbers; refuses every class but ``OrderedDict``."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        raise pickle.UnpicklingError(f"it holds a {module}.{name}")


def load_corrections(folder: Path) -> Dict[str, Optional[List[float]]]:
    """``bias_corr.pth`` of a calibration.

    Raises:
        OrderError: it is missing.
        FormatError: it is something else.
    """
    path = folder / BIAS_CORR
    if not path.is_file():
        raise OrderError(
            f"The calibration in {path.parent} was made with bias correction, but {path.name} is "
            "missing",
            f"no file {path}",
            _CALIBRATE,
        )
    try:
        with zipfile.ZipFile(str(path)) as archive:
            names = [n for n in archive.namelist() if n.split("/")[-1] == "data.pkl"]
            with archive.open(names[0]) as file:
                # A directory may claim any size; what is read is bounded.
                raw = _Plain(io.BytesIO(file.read(_MOST_BYTES))).load()
        found = {str(k): None if v is None else [float(x) for x in v] for k, v in raw.items()}
        for name, values in found.items():
            if not all(map(math.isfinite, values or ())):
                raise ValueError(f"{name!r} holds a value that is not finite")
        return found
    except _UNREADABLE as error:
        raise FormatError(f"{path} is not a bias correction", str(error), _CALIBRATE) from error
    except (AttributeError, TypeError, ValueError) as error:
        raise FormatError(
            f"{path} is not a bias correction: it should hold a list of numbers per operator",
            f"{type(error).__name__}: {error}",
            _CALIBRATE,
        ) from error
