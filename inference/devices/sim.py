"""The simulated card: a DPU subgraph at full speed on ONNX Runtime, in the DPU's exact integers.

Operators are translated by ``onnx_graph``; the few it cannot express exactly run by their integer
rule between two pieces of ONNX. Before the first model is opened, small convolutions with extreme
values are compared with integers: processors without a fused 8-bit dot product saturate in 16 bits
where the weights are signed, and there the weights are carried unsigned.
"""

from __future__ import annotations

import functools
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

import numpy as np

from ...compile.weights import constant_arrays
from ...compile.xir.graph import Graph, Op, Subgraph
from ...errors import DeviceError
from . import sim_available
from .base import Batch, Device
from .boundary import boundary_tensors
from .engine_cache import cached
from .handmade import GraphBuilder
from .onnx_graph import MAX_CUT, Piece
from .operators import run_operator
from .reference import ReferenceDevice
from .translation import Engine, Part, Translation
from .worker import WorkerDevice

PACKAGES_MISSING = "The simulated card needs onnx and onnxruntime"


class _OnnxStep:
    """Some operators as one ONNX Runtime session."""

    def __init__(self, part: Part, threads: Optional[int]) -> None:
        self.inputs, self.outputs = part.inputs, part.outputs
        self._feeds, self._fetches = part.feeds, list(part.fetches)
        self._session = _open(part.model, threads)

    def run(self, values: Dict[str, np.ndarray]) -> None:
        feeds = {
            feed: np.bitwise_xor(values[name].view(np.uint8), 128)
            for feed, name in zip(self._feeds, self.inputs)
        }
        for name, array in zip(self.outputs, self._session.run(self._fetches, feeds)):
            values[name] = np.bitwise_xor(array, 128, out=array).view(np.int8)


class _RuleStep:
    """One operator by its integer rule."""

    def __init__(self, graph: Graph, op: Op, constants: Mapping[str, np.ndarray]) -> None:
        self._graph, self._op = graph, op
        self._constants = {n: constants[n] for n in op.input_names if n in constants}

    def run(self, values: Dict[str, np.ndarray]) -> None:
        result = run_operator(self._graph, self._op, {**self._constants, **values})
        values[self._op.name] = np.ascontiguousarray(result)


class SimDevice(WorkerDevice):
    """A DPU subgraph on ONNX Runtime.

    Args:
        graph: the compiled model.
        subgraph: its DPU subgraph.
        batch: pictures per submission.
        threads: of ONNX Runtime; ``None`` for one per core.
        taps: tensors returned besides the outputs.
        signed_weights: ``None`` to find out what is exact on this processor.

    Attributes:
        engine_reason: how weights are carried and why, and what runs by its integer rule.

    Raises:
        UnsupportedError: an operator has no rule at all.
        DeviceError: ONNX Runtime is not exact on this machine, or refuses the model.
    """

    name = "sim"
    piece_type = Piece

    def __init__(
        self,
        graph: Graph,
        subgraph: Subgraph,
        batch: int,
        threads: Optional[int] = None,
        taps: Sequence[str] = (),
        signed_weights: Optional[bool] = None,
    ) -> None:
        super().__init__()
        available, lacking = sim_available()
        if not available:
            raise DeviceError(
                PACKAGES_MISSING, lacking, "--device reference computes the same numbers, slowly"
            )
        self.inputs, self.outputs = boundary_tensors(graph, subgraph, batch, taps)
        self._name_of = {op.tensor.name: op.name for op in graph.ops.values()}
        if signed_weights is None:
            signed_weights, reason = weight_form()
        else:
            reason = f"{'signed' if signed_weights else 'unsigned'} weights asked for"
        kept = tuple(self._name_of[info.name] for info in self.outputs)
        translation = Translation(graph, subgraph, batch, kept, signed_weights, self.piece_type)
        packed, found = cached(translation.digest(), lambda: translation.engine().pack())
        engine = Engine.unpack(packed)
        constants: Mapping[str, np.ndarray] = {}
        if engine.fallbacks:
            constants = constant_arrays(graph, subgraph)
            reason += "; by integer rule: " + ", ".join(engine.fallbacks)
        self._steps: List[Any] = [
            _OnnxStep(part, threads)
            if part.model
            else _RuleStep(graph, graph.op(part.outputs[0]), constants)
            for part in engine.parts
        ]
        self.engine_reason = reason
        self.notes = (reason, "engine from the cache") if found else (reason,)

    def compute(self, batch: Batch) -> Dict[str, np.ndarray]:
        """Runs the pieces."""
        values = {self._name_of[name]: np.ascontiguousarray(array) for name, array in batch.items()}
        for step in self._steps:
            step.run(values)
        return {info.name: values[self._name_of[info.name]] for info in self.outputs}


def create(
    graph: Graph,
    subgraph: Subgraph,
    *,
    batch: int,
    threads: Optional[int] = None,
    taps: Sequence[str] = (),
) -> Device:
    """Opens the device."""
    return SimDevice(graph, subgraph, batch, threads, taps)


@functools.lru_cache(maxsize=None)
def weight_form() -> Tuple[bool, str]:
    """Whether int8 weights are exact on this processor, and the sentence to say so.

    Raises:
        DeviceError: neither int8 nor uint8 weights are.
    """
    graph, batch, expected = _probe()
    for signed in (True, False):
        device = SimDevice(graph, graph.subgraphs("DPU")[0], 1, 1, signed_weights=signed)
        wrong = {
            name
            for name, array in device.compute(batch).items()
            if not np.array_equal(array, expected[name])
        }
        if not wrong:
            if signed:
                return True, "int8 weights: exact in a probe with extreme values"
            return False, "uint8 weights: int8 weights saturate in 16 bits on this processor"
    raise DeviceError(
        "ONNX Runtime does not compute exact integers on this machine",
        f"wrong in the probe: {', '.join(sorted(wrong))}",
        "--device reference computes the same without it, slowly",
    )


def _probe() -> Tuple[Graph, Dict[str, np.ndarray], Dict[str, np.ndarray]]:
    """A graph that meets each kernel with the largest sums and with ties, and its answers."""
    random = np.random.default_rng(0)
    build = GraphBuilder("probe")
    source = build.input((1, 6, 6, 64), 0)
    few = build.input((1, 6, 6, 3), 0, "few")

    def conv(name: str, value: str, shape: Tuple[int, ...], cut: int, pad: int, kind: str) -> None:
        weights = np.where(random.random(shape) < 0.5, -128, 127).astype(np.int8)
        bias = np.full(shape[0] if kind == "conv2d-fix" else shape[3], 1, np.int8)
        build.output(
            build.convolution(
                name,
                value,
                weights,
                bias,
                (0, 1 - cut, -cut),
                (1, 6, 6, len(bias)),
                kind,
                pad=(pad, pad, pad, pad),
            )
        )

    conv("dense", source, (32, 3, 3, 64), 12, 1, "conv2d-fix")
    conv("ties", source, (32, 1, 1, 64), MAX_CUT, 0, "conv2d-fix")
    conv("first", few, (32, 3, 3, 3), 11, 1, "conv2d-fix")
    conv("depthwise", source, (1, 3, 3, 64), 10, 1, "depthwise-conv2d-fix")
    graph = build.finish()
    subgraph = graph.subgraphs("DPU")[0]
    batch = {
        f"{name}_fix": np.where(random.random((1, 6, 6, channels)) < 0.3, -128, 127).astype(np.int8)
        for name, channels in (("image", 64), ("few", 3))
    }
    return graph, batch, ReferenceDevice(graph, subgraph, 1).compute(batch)


def _open(model: bytes, threads: Optional[int]) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise DeviceError(
            "The simulated card needs ONNX Runtime", str(error), "pip install onnxruntime"
        ) from None

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads or 0
    options.inter_op_num_threads = 1
    # Decoding and writing want the cores too: waiting threads sleep.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # The nodes are final: nothing to fuse, and nothing may be changed.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise DeviceError(
            "ONNX Runtime refuses the translated model", str(error).strip().splitlines()[-1]
        ) from error
