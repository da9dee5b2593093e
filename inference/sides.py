"""One model by one way of computing it, with every tensor in sight: what ``parity`` compares.

A side takes codes (or pictures) and gives the codes or float values of every tensor it knows, NHWC,
by the names of ``wiring``. The sides that need torch are in ``torch_sides``.
"""

from __future__ import annotations

import abc
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Mapping, Optional, Sequence, Tuple

import numpy as np

from ..compile.weights import constant_arrays
from ..compile.xir.graph import Graph, Op, Subgraph
from ..errors import MismatchError, MissingError, UsageError
from ..preprocessing import Preprocessing, quantization_table, to_codes, to_float
from .artifact import MANIFEST, artifact_of, read_manifest
from .cpu_operators import is_supported, run_cpu_operator
from .devices import GRAPH_DEVICES, choose_device, choose_simulated, open_device
from .devices.base import Device
from .devices.recording import Recording, is_recording
from .quantized_graph import QuantizedGraph
from .session import ordered_subgraphs, padded
from .wiring import Wiring, common_name, graph_wiring

CHECKPOINTS = (".pth", ".pt", ".safetensors")
FORMS = (
    "a float checkpoint (.pth, .pt, .safetensors), a folder of quant, a *_int.xmodel, a compiled "
    ".xmodel (also sim:FILE, reference:FILE), or a recording"
)


@dataclass(frozen=True, eq=False)
class Value:
    """One tensor of a batch.

    Attributes:
        array: int8 codes, or float values where ``fix_point`` is ``None``; ``[n, ...]``, NHWC.
        fix_point: of the codes.
    """

    array: np.ndarray
    fix_point: Optional[int]

    @property
    def real(self) -> np.ndarray:
        """The values, float64."""
        scale = 1.0 if self.fix_point is None else 2.0**-self.fix_point
        return np.asarray(self.array.astype(np.float64) * scale)


@dataclass(frozen=True)
class Entry:
    """A tensor that a side can be fed at.

    Attributes:
        name: common name.
        shape: of one picture, without the batch.
        fix_point: of its codes; ``None`` takes float values.
    """

    name: str
    shape: Tuple[int, ...]
    fix_point: Optional[int]


Feeds = Mapping[str, Value]
"""Common name to what it is fed."""


class Side(abc.ABC):
    """One model by one way of computing it.

    Attributes:
        text: as the user named it.
        kind: ``float``, ``quantized``, ``xmodel``, ``sim``, ``reference`` or ``recording``.
        about: what it is, in words.
        wiring: its operators; ``None`` where only its borders are known.
        constants: int8 parameters by common name, as far as they can be read.
        entries: where it can be fed.
        picture: how a picture becomes its input; ``None`` where it does not take one picture.
    """

    text: str
    kind: str
    about: str
    wiring: Optional[Wiring] = None
    constants: Mapping[str, np.ndarray] = {}
    entries: Tuple[Entry, ...] = ()
    picture: Optional[Preprocessing] = None

    @abc.abstractmethod
    def run(self, feeds: Feeds, batch: int) -> Dict[str, Value]:
        """Every tensor that follows from ``feeds``; ``batch`` counts the calls, from 0."""

    def feeds(self, images: np.ndarray) -> Dict[str, Value]:
        """What this side is fed for fitted pictures, uint8 ``[n, H, W, 3]``, RGB."""
        assert self.picture is not None
        entry = self.entries[0]
        if entry.fix_point is None:
            values = to_float(images, self.picture).transpose(0, 2, 3, 1)
            return {entry.name: Value(values, None)}
        codes = to_codes(images, quantization_table(entry.fix_point, self.picture))
        return {entry.name: Value(codes, entry.fix_point)}

    def close(self) -> None:
        """Releases what was opened; nothing, unless a side says otherwise."""
        return


class XmodelSide(Side):
    """A quantized ``*_int.xmodel`` executed in exact float arithmetic."""

    kind = "xmodel"

    def __init__(self, text: str, graph: Graph, manifest: Optional[Mapping[str, Any]]) -> None:
        self.text = text
        self.about = f"quantized xmodel {graph.name}, executed on its fixed-point grid"
        self._model = QuantizedGraph(graph)
        self.wiring = graph_wiring(graph)
        self.constants = self._model.constants
        inputs = [op for op in graph.ops.values() if op.type == "data"]
        fixes = {
            op.inputs["input"][0]: op
            for op in graph.ops.values()
            if op.name in self._model.fix_points
        }
        self.entries = tuple(
            Entry(
                fixes[op.name].name, op.tensor.dims[1:], self._model.fix_points[fixes[op.name].name]
            )
            for op in inputs
            if op.name in fixes
        )
        self.picture = picture_of(self.entries, len(inputs), manifest)

    def run(self, feeds: Feeds, batch: int) -> Dict[str, Value]:
        """See ``Side.run``."""
        ops, given = self._model.graph.ops, {}
        for name, value in feeds.items():
            if name in self._model.fix_points and value.fix_point == self._model.fix_points[name]:
                given[name] = value.array
            elif name in ops and ops[name].type == "fix":
                given[ops[name].inputs["input"][0]] = value.real.astype(np.float32)
            elif name[: -len("_fix")] in ops:
                # A float tensor that the compiler turned into codes.
                given[name[: -len("_fix")]] = value.real.astype(np.float32)
        return {
            common_name(name): Value(codes, self._model.fix_points[name])
            for name, codes in self._model.run(given).items()
        }


class CompiledSide(Side):
    """A compiled xmodel: its DPU subgraphs on a device, what is between them on the host."""

    def __init__(
        self,
        text: str,
        path: Path,
        graph: Graph,
        device: str,
        batch: int,
        threads: Optional[int],
    ) -> None:
        self.text, self.kind = text, device
        self._graph, self._batch = graph, batch
        manifest = read_manifest(path.with_name(MANIFEST))
        dpu = graph.subgraphs("DPU")
        self.about = f"compiled for {dpu[0].get('dpu_name')}, on {device}"
        self.wiring = graph_wiring(graph)
        self._steps = ordered_subgraphs(graph)
        self._devices: Dict[str, Device] = {}
        self._producers = {op.tensor.name: op for op in graph.ops.values()}
        for subgraph in dpu:
            taps = [
                graph.ops[name].tensor.name
                for name in subgraph.all_ops()
                if graph.ops[name].type != "const-fix"
            ]
            self._devices[subgraph.name] = open_device(
                device, graph, subgraph, batch=batch, threads=threads, taps=taps
            )
        self.constants = {graph.ops[n].tensor.name: a for n, a in constant_arrays(graph).items()}
        inputs = [op for op in graph.ops.values() if op.type in ("data", "data-fix")]
        entries = [_entry(graph, info.name) for d in self._devices.values() for info in d.inputs]
        self.entries = tuple({entry.name: entry for entry in entries}.values())
        self.picture = None
        if len(dpu) == 1 or not self._stops():
            self.picture = picture_of(self.entries[:1], len(inputs), manifest)
        if self.picture is not None and manifest is not None and manifest.get("outputs"):
            artifact_of(graph, path, manifest)  # refuses a manifest that does not fit

    def run(self, feeds: Feeds, batch: int) -> Dict[str, Value]:
        """See ``Side.run``."""
        count = len(next(iter(feeds.values())).array)
        values: Dict[str, np.ndarray] = {}
        for op in self._graph.ops.values():
            fed = feeds.get(common_name(op.tensor.name))
            if fed is not None and op.type != "download":
                array = fed.array
                if op.tensor.fix_point is None:
                    array = fed.real.astype(np.float32)
                elif fed.fix_point != op.tensor.fix_point:
                    raise _other_fix_point(self.text, op, fed)
                values[op.name] = padded(array, self._batch)
        for step in self._steps:
            device = self._devices.get(step.name)
            if device is None:
                self._on_host(step, values)
                continue
            given = {
                info.name: values.get(self._producers[info.name].name) for info in device.inputs
            }
            if all(array is not None for array in given.values()):
                batch_of = {name: array for name, array in given.items() if array is not None}
                for name, array in device.wait(device.submit(batch_of)).items():
                    values[self._producers[name].name] = array
        found: Dict[str, Value] = {}
        for op in self._graph.ops.values():
            if op.name in values and op.tensor.fix_point is not None:
                found.setdefault(
                    common_name(op.tensor.name), Value(values[op.name][:count], op.tensor.fix_point)
                )
        return found

    def _on_host(self, step: Subgraph, values: Dict[str, np.ndarray]) -> None:
        for name in step.all_ops():
            op = self._graph.op(name)
            ready = op.input_names and all(source in values for source in op.input_names)
            if name not in values and ready and is_supported(op.type):
                values[name] = run_cpu_operator(self._graph, op, values)

    def _stops(self) -> bool:
        """Whether something between the DPU subgraphs cannot be run here."""
        host = [s for s in self._steps if s.name not in self._devices and s.device != "USER"]
        return any(not is_supported(self._graph.op(n).type) for s in host for n in s.all_ops())

    def close(self) -> None:
        """See ``Side.close``."""
        for device in self._devices.values():
            device.close()


class RecordingSide(Side):
    """What a device was given and answered."""

    kind = "recording"

    def __init__(self, text: str, path: Path) -> None:
        self.text = text
        self._recording = Recording(path)
        recording = self._recording
        self.about = f"{recording.model} recorded on {recording.device}"
        self.images = recording.images
        self.entries = tuple(
            Entry(common_name(info.name), info.shape[1:], info.fix_point)
            for part in recording.parts
            for info in part.inputs
        )

    def recorded(self, batch: int) -> Dict[str, Value]:
        """The inputs of one batch, its padding cut off."""
        return self._read(batch, "in")

    def run(self, feeds: Feeds, batch: int) -> Dict[str, Value]:
        """The recorded tensors of that batch, whatever it is fed: its inputs are among them."""
        if batch >= len(self.images):
            return {}
        return {**self._read(batch, "in"), **self._read(batch, "out")}

    def _read(self, batch: int, direction: str) -> Dict[str, Value]:
        found: Dict[str, Value] = {}
        for at, part in enumerate(self._recording.parts):
            infos = part.inputs if direction == "in" else part.outputs
            arrays = self._recording.read(batch, at, direction)
            for info in infos:
                array = arrays[info.name][: self.images[batch]]
                found[common_name(info.name)] = Value(array, info.fix_point)
        return found

    def close(self) -> None:
        """See ``Side.close``."""
        self._recording.close()


def open_side(
    text: str, *, batch: int, threads: Optional[int] = None, weights: Optional[Path] = None
) -> Side:
    """Opens what the user named.

    Args:
        text: see ``FORMS``.
        batch: pictures at a time.
        threads: threads of a device; ``None`` for one per core.
        weights: quantized file to take a compiled model's constants from.

    Raises:
        MissingError: there is no such file.
        UsageError: it is nothing that can be compared.
        ToolkitError: it cannot be read or executed.
    """
    prefix, colon, rest = text.partition(":")
    device = ""
    if colon and prefix in (*GRAPH_DEVICES, "card", "auto", "float", "replay"):
        device, path = prefix, Path(rest)
    else:
        path = Path(text)
    if not path.exists():
        raise MissingError(f"There is no {path}", f"wanted: {FORMS}", "check the path")
    if path.is_dir() or path.suffix.lower() in CHECKPOINTS:
        if device not in ("", "float"):
            raise UsageError(
                f"{path} is no compiled model, {device} cannot run it", "", f"wanted: {FORMS}"
            )
        from . import torch_sides

        opener = torch_sides.open_folder if path.is_dir() else torch_sides.open_checkpoint
        return opener(text, path)
    if is_recording(path):
        return RecordingSide(text, path)
    if path.suffix.lower() == ".zip":
        raise UsageError(f"{path} is no recording", "", f"wanted: {FORMS}")
    return _open_xmodel(text, path, device, batch, threads, weights)


def picture_of(
    entries: Sequence[Entry], inputs: int, manifest: Optional[Mapping[str, Any]]
) -> Optional[Preprocessing]:
    """How a picture becomes the input of a network of these entries; ``None`` if it takes none.

    Raises:
        MismatchError: the manifest's record does not fit the input.
    """
    if inputs != 1 or len(entries) != 1:
        return None
    shape = entries[0].shape
    if len(shape) != 3 or shape[2] != 3:
        return None
    if not manifest or not manifest.get("preprocessing"):
        return Preprocessing(height=shape[0], width=shape[1])
    found = Preprocessing.from_json(manifest["preprocessing"])
    if (found.height, found.width) != shape[:2]:
        raise MismatchError(
            "The manifest's preprocessing does not fit the model's input",
            f"{found.height}x{found.width}, input {entries[0].name!r} is {list(shape)}",
        )
    return found


def _open_xmodel(
    text: str,
    path: Path,
    device: str,
    batch: int,
    threads: Optional[int],
    weights: Optional[Path],
) -> Side:
    from ..compile.xir.xmodel import read_xmodel

    graph = read_xmodel(path)
    if not graph.subgraphs("DPU"):
        if device not in ("", "float"):
            raise UsageError(
                f"{path} is not compiled, so {device} cannot run it",
                "it has no DPU subgraph",
                f"name it without {device}:, or deepfake-fpga compile -x {path}",
            )
        return XmodelSide(text, graph, read_manifest(path.with_name(MANIFEST)))
    if weights is not None:
        from ..compile.constants import place_constants

        place_constants(graph, read_xmodel(weights))
    name, _ = choose_device(device) if device else choose_simulated()
    if name == "card":
        raise UsageError(
            "The card cannot be used as a side: it returns outputs, not the tensors inside",
            str(path),
            "deepfake-fpga run --device card --record FILE, then name FILE as a side",
        )
    if name not in GRAPH_DEVICES:
        raise UsageError(f"{name} does not run compiled models", str(path), f"wanted: {FORMS}")
    return CompiledSide(text, path, graph, name, batch, threads)


def _entry(graph: Graph, tensor: str) -> Entry:
    op = graph.producer(tensor)
    assert op is not None
    return Entry(common_name(tensor), op.tensor.dims[1:], op.tensor.fix_point)


def _other_fix_point(text: str, op: Op, fed: Value) -> MismatchError:
    return MismatchError(
        f"{text} takes {op.tensor.name!r} at another fix point than it is given",
        f"{op.tensor.fix_point} in the model, {fed.fix_point} given",
        "compare models of one calibration, or give pictures instead of a recording",
    )
