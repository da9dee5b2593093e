"""The two files of a calibration: ``quant_info.json`` and ``bias_corr.pth``, written and read.

Both have the form of the vendor's release 3.5, so either tool's result serves the other (rule 7.1).
Reading needs no torch and executes nothing from the file.
"""

from __future__ import annotations

import collections
import contextlib
import io
import json
import pickle
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional

from ..errors import FormatError, MismatchError, OrderError
from ..files import replacing, write_text
from .graph import WEIGHTED, Node, QuantizerGraph
from .groups import Entries

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
        outputs: node name to fix position, in the order of the file.
        corrections: see ``Corrections``; ``None`` when bias correction was off.
        graph_md5: digest of the graph's structure; ``None`` in older files.
        version: the tool that wrote it.
        fast_finetuned: whether parameters were tuned too.
    """

    params: Mapping[str, int]
    outputs: Mapping[str, int]
    corrections: Optional[Corrections]
    graph_md5: Optional[str]
    version: str
    fast_finetuned: bool = False

    def text(self) -> str:
        """The exact text of ``quant_info.json``: two-space indent, no newline at the end."""
        corrected = self.corrections is not None
        fields = [
            f'  "param":\n{_section(self.params)}',
            f'  "output":\n{_section(self.outputs)}',
            f'  "input":\n{_section({})}',
            f'  "fast_finetuned":{json.dumps(self.fast_finetuned)}',
            f'  "bias_corrected":{json.dumps(corrected)}',
            f'  "version":{json.dumps(self.version)}',
            f'  "graph_md5":{json.dumps(self.graph_md5)}',
        ]
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


def load(folder: Path) -> QuantInfo:
    """The calibration in ``folder``.

    Raises:
        OrderError: nothing was calibrated there.
        FormatError: a file is not what its name says.
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
        params = {str(key): _position(value) for key, value in raw["param"].items()}
        outputs = {str(key): _position(value) for key, value in raw["output"].items()}
        corrected = bool(raw.get("bias_corrected", (folder / BIAS_CORR).is_file()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise FormatError(
            f"{path} is not a calibration result", f"{type(error).__name__}: {error}", _CALIBRATE
        ) from error
    return QuantInfo(
        params,
        outputs,
        _load_corrections(folder / BIAS_CORR) if corrected else None,
        raw.get("graph_md5"),
        str(raw.get("version", "")),
        bool(raw.get("fast_finetuned", False)),
    )


def check(info: QuantInfo, graph: QuantizerGraph, entries: Entries, source: str) -> None:
    """Refuses a calibration that was made for another model.

    ``source`` names where ``info`` comes from.

    Raises:
        MismatchError: structure, names or shapes differ; the first names that do are listed.
    """
    expected = {
        "parameters": (list(entries.params), info.params),
        "tensors": ([graph.node_name(node) for node in entries.outputs], info.outputs),
    }
    for what, (needed, found) in expected.items():
        missing = [key for key in needed if key not in found]
        extra = [key for key in found if key not in needed]
        if missing:
            raise _mismatch(
                source,
                f"{what} of this model without a fix position: {_some(missing)}"
                + (f"; fix positions of others: {_some(extra)}" if extra else ""),
            )
    if info.graph_md5 is not None and info.graph_md5 != graph.md5():
        raise _mismatch(
            source, f"graph_md5 {info.graph_md5} in the file, {graph.md5()} of this model"
        )
    if info.corrections is not None:
        _check_corrections(info.corrections, graph, source)


def _check_corrections(corrections: Corrections, graph: QuantizerGraph, source: str) -> None:
    for node in graph.nodes:
        key = node.params.get("bias")
        if node.op not in WEIGHTED or key is None:
            continue
        found = corrections.get(graph.node_name(node))
        channels = graph.params[key].shape[0]
        if found is None or len(found) != channels:
            seen = "nothing" if found is None else f"{len(found)} values"
            raise _mismatch(
                source,
                f"{BIAS_CORR} holds {seen} for {graph.node_name(node)}, which has {channels} "
                "output channels",
            )


def output_positions(info: QuantInfo, graph: QuantizerGraph, entries: Entries) -> Dict[Node, int]:
    """Node to fix position for every tensor that is quantized."""
    return {node: info.outputs[graph.node_name(node)] for node in entries.outputs}


def _mismatch(source: str, evidence: str) -> MismatchError:
    return MismatchError(
        f"The calibration in {source} belongs to another model", evidence, _CALIBRATE
    )


def _some(names: List[str]) -> str:
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"


def _section(positions: Mapping[str, int]) -> str:
    lines = [f"    {json.dumps(k)}:[[{BITS},{v}]]" for k, v in positions.items()]
    return "  {\n" + ",\n".join(lines) + "\n  }"


def _position(value: Any) -> int:
    # Releases before 3.0 write a flat pair.
    pair = value[0] if isinstance(value[0], list) else value
    bits, position = pair
    if bits != BITS:
        raise ValueError(f"{bits} bits, only {BITS} are known")
    if isinstance(position, bool) or not isinstance(position, int):
        raise ValueError(f"fix position {position!r} (the calibration met values not finite)")
    return position


class _Plain(pickle.Unpickler):
    """Reads dictionaries, lists and numbers; refuses every class but ``OrderedDict``."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        raise pickle.UnpicklingError(f"it holds a {module}.{name}")


def _load_corrections(path: Path) -> Dict[str, Optional[List[float]]]:
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
            raw = _Plain(io.BytesIO(archive.read(names[0]))).load()
        return {str(k): None if v is None else [float(x) for x in v] for k, v in raw.items()}
    except (zipfile.BadZipFile, pickle.UnpicklingError, IndexError, EOFError) as error:
        raise FormatError(f"{path} is not a bias correction", str(error), _CALIBRATE) from error
    except (AttributeError, TypeError, ValueError) as error:
        raise FormatError(
            f"{path} is not a bias correction: it should hold a list of numbers per operator",
            f"{type(error).__name__}: {error}",
            _CALIBRATE,
        ) from error
