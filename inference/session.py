"""A whole compiled model on pictures: fitted pixels in, masks and probabilities out.

The session quantizes the pixels, sends each DPU subgraph to the device, runs the operators around
them on the host and reads the two outputs by name. Batches are fixed: a short one is padded with
zeros and its answer trimmed, so slot k always gives what a single run gives.
"""

from __future__ import annotations

import functools
import hashlib
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, List, Optional, Set

import numpy as np

from ..compile.targets import Target
from ..compile.weights import constant_arrays
from ..compile.xir.graph import Graph, Op, Subgraph
from ..errors import (
    DataError,
    DeviceError,
    MismatchError,
    MissingError,
    ToolkitError,
    UnsupportedError,
    UsageError,
)
from ..files import sha256
from ..preprocessing import quantization_table, to_codes, to_float
from .artifact import Artifact
from .cpu_operators import fix2float, is_supported, run_cpu_operator, sigmoid
from .devices import (
    FALLBACKS,
    GRAPH_DEVICES,
    CardOptions,
    choose_device,
    open_device,
    open_devices,
    sim_available,
)
from .devices.base import Busy, Device
from .devices.fallback import FallbackDevice
from .devices.pace import PaceClock, batch_seconds
from .devices.paced import PacedDevice
from .devices.recording import Recorder, Recording

Arrays = Dict[str, np.ndarray]
"""Operator name to its tensor, the batch first."""


@dataclass(frozen=True, eq=False)
class Prediction:
    """The answer to one batch of ``n`` pictures.

    Attributes:
        mask: uint8 ``[n, H, W]``, the class of each pixel: the largest logit, the first wins.
        real: float32 ``[n]``, the classifier output (1 stands for ``classifier_one``).
        logits: the mask logits ``[n, H, W, classes]`` as int8 codes (float32 on ``float``).
        device: the device that computed them; two joined by ``+`` where each did a part.
        scale: what one code of ``logits`` is worth: two to minus its fix point, 1 for floats.
        score: float64 ``[n]``, the classifier's output before its sigmoid.
    """

    mask: np.ndarray
    real: np.ndarray
    logits: np.ndarray
    device: str = ""
    scale: float = 1.0
    score: Optional[np.ndarray] = None


@dataclass
class Timings:
    """Seconds spent so far, and on how much.

    Attributes:
        prepare: quantizing and padding.
        device: the device's own computation.
        host: operators outside the DPU subgraphs, and reading the outputs.
        batches: batches answered.
        images: pictures answered.
    """

    prepare: float = 0.0
    device: float = 0.0
    host: float = 0.0
    batches: int = 0
    images: int = 0


_GIVEN = ("data", "data-fix", "const", "const-fix")


@dataclass
class _Job:
    images: int
    step: int
    ticket: int
    values: Arrays
    devices: List[str] = field(default_factory=list)


class Session:
    """A model opened on a device.

    One thread may submit while another takes results; results can be taken in any order.

    Args:
        artifact: the compiled model.
        device: ``auto``, ``sim``, ``reference``, ``null``, ``replay``, ``float`` or ``card``.
        threads: threads of one computation; ``None`` for one per core.
        checkpoint: the float checkpoint, for ``float`` only.
        record: a file to keep the device's inputs and outputs in; it appears when the session is
            closed without an error.
        recording: the file that the device ``replay`` plays back.
        card: how the card is used.
        fallback: the device that goes on where the card fails or cannot be opened; empty for none.
        network: a network in memory instead of the checkpoint, for ``float`` only: called with
            NCHW pictures in 0..1 it gives ``(logits, real)``, and has ``n_classes``.
        pace: the build of the card whose pace is kept, for ``sim``, ``reference`` and ``null``.

    Attributes:
        artifact: as given.
        batch: pictures per submission at most.
        device_name: the device taken.
        reason: why, in words.
        timings: what was spent so far.

    Raises:
        DeviceError: the device cannot be used.
        MissingError: an unknown device, ``float`` without a checkpoint, or ``replay`` without a
            recording.
        MismatchError: the recording is of another model.
        UsageError: the float device is to be recorded, there is no such fallback, or a device that
            keeps no pace is to keep one.
        UnsupportedError: the model has an operator nobody here can run.
    """

    def __init__(
        self,
        artifact: Artifact,
        device: str = "auto",
        *,
        threads: Optional[int] = None,
        checkpoint: Optional[Path] = None,
        record: Optional[Path] = None,
        recording: Optional[Path] = None,
        card: Optional[CardOptions] = None,
        fallback: str = "",
        network: Optional[Any] = None,
        pace: Optional[Target] = None,
    ) -> None:
        self.artifact = artifact
        self.batch = artifact.batch
        _check_fallback(fallback)
        self.device_name, self.reason = choose_device(device, artifact.graph, artifact.path, card)
        if pace is not None and self.device_name not in GRAPH_DEVICES:
            raise UsageError(
                f"The device {self.device_name} keeps its own pace",
                f"the pace of {pace.dpu_name} was asked for",
                f"leave the pace out, or take one of {', '.join(GRAPH_DEVICES)}",
            )
        self._pace = pace
        self._switches: List[str] = []
        self.timings = Timings()
        self._lock = threading.Lock()
        self._jobs: Dict[int, _Job] = {}
        self._next_ticket = 1
        self._closed = False
        self._model: _Model
        self._recorder: Optional[Recorder] = None
        self._recording: Optional[Recording] = None
        if self.device_name == "float":
            if record is not None:
                raise UsageError(
                    "The float device cannot be recorded",
                    f"--record {record}",
                    "record a device that runs the compiled model: --device sim",
                )
            self._model = _FloatModel(artifact, checkpoint, self.batch, threads, network)
        else:
            if self.device_name == "replay" and recording is not None:
                self._recording = open_recording(recording, artifact)
            try:
                self._model = self._open(threads, card, fallback)
            except BaseException:
                self.close()
                raise
        notes = [note for device in self._model.devices for note in device.notes]
        self.reason = "; ".join([self.reason, *dict.fromkeys(notes)])
        if record is not None and isinstance(self._model, _CompiledModel):
            try:
                self._recorder = Recorder(
                    Path(record),
                    artifact.path.name,
                    model_sha256(artifact),
                    self.device_name,
                    self.reason,
                )
            except BaseException:
                self.close()
                raise
            self._model.record(self._recorder)

    def _open(
        self, threads: Optional[int], card: Optional[CardOptions], fallback: str
    ) -> _CompiledModel:
        """The compiled model on the device chosen, or on the fallback where that is refused."""
        wanted = self.device_name
        if wanted != "card":
            return _CompiledModel(
                self.artifact, wanted, self.batch, threads, self._recording, pace=self._pace
            )
        try:
            return _CompiledModel(
                self.artifact, wanted, self.batch, threads, card=card, fallback=fallback
            )
        except ToolkitError as error:
            if not fallback:
                raise
            self.device_name = fallback
            self.reason = f"fallback, for the card was refused: {error}"
            self._switches.append(f"{fallback} computes, for the card was refused: {error}")
        return _CompiledModel(self.artifact, fallback, self.batch, threads)

    def observe(self, busy: Busy) -> None:
        """Has every computation of the devices told as it ends, where they know of it."""
        for device in self._model.devices:
            device.observe(busy)

    def incidents(self) -> List[str]:
        """What went wrong since the opening and was mended, in words, oldest first."""
        found = list(self._switches)
        for device in self._model.devices:
            found.extend(line for line in device.incidents() if line not in found)
        return found

    def submit(self, images: np.ndarray) -> int:
        """Starts one batch.

        Args:
            images: uint8 ``[n, H, W, 3]``, RGB, fitted to the model's input size, ``n`` from 1 to
                ``batch``.

        Returns:
            A ticket for ``result``.

        Raises:
            DataError: the array is not that.
            DeviceError: the device failed, or the session is closed.
        """
        record = self.artifact.preprocessing
        size = (record.height, record.width, 3)
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != size:
            raise DataError(
                "The pictures do not have the form the model takes",
                f"got {images.dtype} {list(images.shape)}, "
                f"wants uint8 [n, {size[0]}, {size[1]}, 3]",
            )
        if not 1 <= len(images) <= self.batch:
            raise DataError(f"A batch holds 1 to {self.batch} pictures", f"got {len(images)}")
        if self._closed:
            raise DeviceError("The session is closed")
        start = time.perf_counter()
        values = self._model.prepare(images)
        prepared = time.perf_counter()
        if self._recorder is not None:
            self._recorder.batch(len(images))
        job = _Job(len(images), 0, 0, values)
        self._model.advance(job)
        with self._lock:
            ticket = self._next_ticket
            self._next_ticket += 1
            self._jobs[ticket] = job
            self.timings.prepare += prepared - start
        return ticket

    def result(self, ticket: int) -> Prediction:
        """Blocks until the batch of ``ticket`` is done; each ticket can be asked for once.

        Raises:
            DeviceError: the ticket is unknown, or the device failed.
        """
        with self._lock:
            job = self._jobs.pop(ticket, None)
        if job is None:
            raise DeviceError(
                f"The session has no batch under ticket {ticket}",
                "each ticket can be asked for once",
            )
        host = self._model.finish(job)
        start = time.perf_counter()
        prediction = self._model.read(job)
        host += time.perf_counter() - start
        with self._lock:
            self.timings.host += host
            self.timings.device = sum(device.seconds for device in self._model.devices)
            self.timings.batches += 1
            self.timings.images += job.images
        return prediction

    def run(self, images: np.ndarray) -> Prediction:
        """``submit`` and ``result`` in one."""
        return self.result(self.submit(images))

    def close(self, complete: bool = True) -> None:
        """Closes the device; safe to call twice.

        Args:
            complete: whether a recording is kept; it is only where every batch was answered.
        """
        self._closed = True
        model: Optional[_Model] = getattr(self, "_model", None)
        for device in model.devices if model is not None else ():
            device.close()
        if self._recorder is not None:
            self._recorder.close(complete and not self._jobs)
        if self._recording is not None:
            self._recording.close()

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close(complete=exc_info[0] is None)


class _Model:
    """How one kind of model prepares its input, goes through its devices and reads its outputs."""

    devices: List[Device]

    def prepare(self, images: np.ndarray) -> Arrays:
        raise NotImplementedError

    def advance(self, job: _Job) -> None:
        """Goes on until a batch is with a device (``job.ticket`` set) or nothing is left."""
        raise NotImplementedError

    def finish(self, job: _Job) -> float:
        """Waits for everything left; returns the seconds the host itself worked."""
        raise NotImplementedError

    def read(self, job: _Job) -> Prediction:
        raise NotImplementedError


class _CompiledModel(_Model):
    """A compiled graph: its subgraphs in the order of their dependencies."""

    def __init__(
        self,
        artifact: Artifact,
        device_name: str,
        batch: int,
        threads: Optional[int],
        recording: Optional[Recording] = None,
        card: Optional[CardOptions] = None,
        fallback: str = "",
        pace: Optional[Target] = None,
    ) -> None:
        self.graph, self.batch = artifact.graph, batch
        self.input = self.graph.op(artifact.input_op)
        mask, classifier = (
            self.graph.producer(name) for name in (artifact.mask, artifact.classifier)
        )
        if mask is None or classifier is None:
            raise UnsupportedError("The model lacks an output named in its manifest")
        self.mask, self.classifier = _logits_op(self.graph, mask), classifier
        self.score = _score_op(self.graph, classifier)
        self.needed = _ancestors(self.graph, [self.mask, self.classifier])
        self.steps = [
            s for s in ordered_subgraphs(self.graph) if self.needed.intersection(s.all_ops())
        ]
        self._refuse_unknown()
        fix_point = self.input.tensor.fix_point
        self.preprocessing = artifact.preprocessing
        self.table = (
            None if fix_point is None else quantization_table(fix_point, self.preprocessing)
        )
        self.constants = _host_constants(self.graph, self.steps)
        dpu = {index: s for index, s in enumerate(self.steps) if s.device == "DPU"}
        if fallback:
            for subgraph in dpu.values():
                constant_arrays(self.graph, subgraph)  # it must be able to go on
        model = artifact.path if artifact.path.is_file() else None
        self.devices = open_devices(
            device_name,
            self.graph,
            list(dpu.values()),
            batch=batch,
            threads=threads,
            recording=recording,
            model=model,
            card=card,
        )
        if fallback:
            self.devices = [
                FallbackDevice(
                    device,
                    functools.partial(
                        open_device, fallback, self.graph, subgraph, batch=batch, threads=threads
                    ),
                )
                for device, subgraph in zip(self.devices, dpu.values())
            ]
        if pace is not None:
            clock = PaceClock()
            self.devices = [
                PacedDevice(device, clock, batch_seconds(self.graph, subgraph, pace))
                for device, subgraph in zip(self.devices, dpu.values())
            ]
        self.by_step: Dict[int, Device] = dict(zip(dpu, self.devices))
        self.op_of = {op.tensor.name: op.name for op in self.graph.ops.values()}

    def record(self, recorder: Recorder) -> None:
        """Has everything that passes the devices written down from now on."""
        for index, device in self.by_step.items():
            self.by_step[index] = recorder.wrap(device, self.steps[index].name)
        self.devices = list(self.by_step.values())

    def _refuse_unknown(self) -> None:
        """Refuses a model that would fail on its first batch."""
        for step in self.steps:
            for name in step.all_ops():
                op = self.graph.op(name)
                known = is_supported(op.type) or op.type in _GIVEN
                if step.device != "DPU" and name in self.needed and not known:
                    raise UnsupportedError(
                        f"Operator type {op.type!r} cannot be run on the host",
                        f"operator {name!r} of {self.graph.name!r}",
                        "deepfake-fpga inspect shows what falls to the CPU and why",
                    )

    def prepare(self, images: np.ndarray) -> Arrays:
        if self.table is None:
            pixels = to_float(images, self.preprocessing).transpose(0, 2, 3, 1)
        else:
            pixels = to_codes(images, self.table)
        values = dict(self.constants)
        values[self.input.name] = padded(pixels, self.batch)
        return values

    def advance(self, job: _Job) -> None:
        while job.step < len(self.steps):
            device = self.by_step.get(job.step)
            if device is not None:
                batch = {info.name: job.values[self.op_of[info.name]] for info in device.inputs}
                job.ticket = device.submit(batch)
                return
            for name in self.steps[job.step].all_ops():
                if name in self.needed and name not in job.values:
                    op = self.graph.op(name)
                    job.values[name] = run_cpu_operator(self.graph, op, job.values)
            job.step += 1

    def finish(self, job: _Job) -> float:
        host = 0.0
        while job.step < len(self.steps):
            answer = self.by_step[job.step].answer(job.ticket)
            job.devices.append(answer.device)
            for name, array in answer.outputs.items():
                job.values[self.op_of[name]] = array
            job.step += 1
            start = time.perf_counter()
            self.advance(job)
            host += time.perf_counter() - start
        return host

    def read(self, job: _Job) -> Prediction:
        logits = job.values[self.mask.name][: job.images]
        real = job.values[self.classifier.name][: job.images].reshape(-1)
        fix_point = self.classifier.tensor.fix_point
        if fix_point is not None:
            real = sigmoid(fix2float(real, fix_point))
        real = real.astype(np.float32)
        score = logit(real)
        if self.score is not None:
            codes = job.values[self.score.name][: job.images].reshape(-1)
            score = codes.astype(np.float64) * _worth(self.score)
        device = "+".join(dict.fromkeys(job.devices))
        return Prediction(first_largest(logits), real, logits, device, _worth(self.mask), score)


class _FloatModel(_Model):
    """The float checkpoint with the preprocessing of the compiled model beside it."""

    def __init__(
        self,
        artifact: Artifact,
        checkpoint: Optional[Path],
        batch: int,
        threads: Optional[int],
        network: Optional[Any] = None,
    ) -> None:
        from .devices import float as float_device

        if checkpoint is None and network is None:
            raise MissingError(
                "The float device needs the checkpoint the model was made from",
                str(artifact.path),
                "deepfake-fpga run --device float --checkpoint FILE",
            )
        self.names = (float_device.INPUT, float_device.LOGITS, float_device.REAL)
        self.preprocessing, self.batch = artifact.preprocessing, batch
        if checkpoint is None:
            self.device = float_device.FloatDevice(network, artifact.preprocessing, batch, threads)
        else:
            self.device = float_device.open_checkpoint(
                checkpoint, artifact.preprocessing, batch=batch, threads=threads
            )
        self.devices = [self.device]

    def prepare(self, images: np.ndarray) -> Arrays:
        return {self.names[0]: padded(to_float(images, self.preprocessing), self.batch)}

    def advance(self, job: _Job) -> None:
        job.ticket = self.device.submit(job.values)

    def finish(self, job: _Job) -> float:
        job.values = self.device.wait(job.ticket)
        return 0.0

    def read(self, job: _Job) -> Prediction:
        logits = job.values[self.names[1]][: job.images].transpose(0, 2, 3, 1)
        real = job.values[self.names[2]][: job.images].reshape(-1)
        return Prediction(first_largest(logits), real, logits, self.device.name, score=logit(real))


def _check_fallback(fallback: str) -> None:
    """Refuses a fallback that could not go on."""
    if fallback and fallback not in FALLBACKS:
        raise UsageError(
            f"{fallback!r} cannot go on for the card", f"known are {', '.join(FALLBACKS)}"
        )
    if fallback == "sim":
        available, reason = sim_available()
        if not available:
            raise DeviceError("The fallback sim cannot compute", reason, "--fallback reference")


def model_sha256(artifact: Artifact) -> str:
    """SHA-256 of the model's file; of what the file would hold where it is only in memory."""
    if artifact.path.is_file():
        return sha256(artifact.path)
    from ..compile.xir.xmodel import dump_xmodel

    return hashlib.sha256(dump_xmodel(artifact.graph)).hexdigest()


def open_recording(path: Path, artifact: Artifact) -> Recording:
    """A recording of this very model.

    Raises:
        MissingError, FormatError: see ``Recording``.
        MismatchError: it is of another model.
    """
    recording = Recording(path)
    if recording.model_sha256 != model_sha256(artifact):
        recording.close()
        raise MismatchError(
            f"The recording {path} is of another model",
            f"{recording.model}, SHA-256 {recording.model_sha256[:12]}...; "
            f"{artifact.path} has {model_sha256(artifact)[:12]}...",
            "give the model it was recorded with: --model FILE",
        )
    return recording


def padded(array: np.ndarray, batch: int) -> np.ndarray:
    """``array`` with zeros appended until its first dimension is ``batch``, contiguous."""
    if len(array) == batch:
        return np.ascontiguousarray(array)
    whole = np.zeros((batch, *array.shape[1:]), array.dtype)
    whole[: len(array)] = array
    return whole


def first_largest(logits: np.ndarray) -> np.ndarray:
    """The index of the largest logit of each pixel, the first where several are equal.

    Args:
        logits: ``[n, H, W, classes]``.

    Returns:
        uint8 ``[n, H, W]``.
    """
    if logits.shape[-1] == 2:
        if logits.dtype == np.int8 and logits.flags.c_contiguous:
            # Both codes as one 16-bit number: shifts go through whole registers, strides do not.
            pairs = logits.view("<i2")[..., 0]
            return np.asarray(((pairs >> 8) > (pairs << 8 >> 8)).view(np.uint8))
        second: np.ndarray = logits[..., 1] > logits[..., 0]
        return second.view(np.uint8)
    return np.asarray(np.argmax(logits, axis=-1), np.uint8)


def logit(real: np.ndarray) -> np.ndarray:
    """What the sigmoid made these values of, as far as a float32 tells: -87.3 to 16.6.

    Args:
        real: float32, from 0 to 1.

    Returns:
        float64 of the same shape.
    """
    kind = np.finfo(np.float32)
    share = np.clip(real.astype(np.float64), float(kind.tiny), 1 - float(kind.epsneg))
    return np.asarray(np.log(share) - np.log1p(-share))


def _worth(op: Op) -> float:
    """What one unit of an operator's output is worth."""
    fix_point = op.tensor.fix_point
    return 1.0 if fix_point is None else 2.0**-fix_point


def _score_op(graph: Graph, op: Op) -> Optional[Op]:
    """The classifier's output before its sigmoid; ``None`` where the graph shows no sigmoid."""
    known = op.tensor.fix_point is not None  # the host applies the sigmoid to such an output
    while op.type in ("fix2float", "sigmoid"):
        known = known or op.type == "sigmoid"
        op = graph.input_ops(op)[0]
    return op if known else None


def _logits_op(graph: Graph, op: Op) -> Op:
    """The logits behind a mask output: conversions and softmax do not change the largest one."""
    while op.type in ("fix2float", "softmax"):
        op = graph.input_ops(op)[0]
    return op


def ordered_subgraphs(graph: Graph) -> List[Subgraph]:
    """The root's children, each after those whose tensors it reads.

    Raises:
        UnsupportedError: they depend on each other.
    """
    owner = {name: at for at, child in enumerate(graph.root.children) for name in child.all_ops()}
    reads: Dict[int, Set[int]] = {at: set() for at in range(len(graph.root.children))}
    for op in graph.ops.values():
        for name in op.input_names:
            if name in owner and op.name in owner and owner[name] != owner[op.name]:
                reads[owner[op.name]].add(owner[name])
    ordered: List[int] = []
    while len(ordered) < len(reads):
        ready = [at for at in reads if at not in ordered and reads[at] <= set(ordered)]
        if not ready:
            raise UnsupportedError(f"The subgraphs of {graph.name!r} depend on each other")
        ordered.extend(ready)
    return [graph.root.children[at] for at in ordered]


def _ancestors(graph: Graph, ops: List[Op]) -> Set[str]:
    found: Set[str] = set()
    waiting = [op.name for op in ops]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting.extend(graph.op(name).input_names)
    return found


def _host_constants(graph: Graph, steps: List[Subgraph]) -> Arrays:
    """Constants outside the DPU subgraphs, from the bytes in the file."""
    values: Arrays = {}
    for subgraph in steps:
        if subgraph.device == "DPU":
            continue
        for name in subgraph.all_ops():
            op = graph.op(name)
            if op.type in ("const", "const-fix"):
                dtype = np.dtype("<f4") if op.type == "const" else np.dtype(np.int8)
                data = bytes(op.get("data", b""))
                values[name] = np.frombuffer(data, dtype).reshape(op.tensor.dims)
    return values
