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
from ...errors import DeviceError, UnsupportedError
from .base import Batch, Device
from .boundary import boundary_tensors
from .handmade import GraphBuilder
from .onnx_graph import MAX_CUT, NotExactError, Piece
from .operators import is_supported, refusing, run_operator
from .reference import ReferenceDevice, computed_ops
from .worker import WorkerDevice


class _OnnxStep:
    """Some operators as one ONNX Runtime session."""

    def __init__(self, piece: Piece, outputs: Sequence[str], threads: Optional[int]) -> None:
        self.inputs, self.outputs = list(piece.inputs), list(outputs)
        self._feeds = [piece.values[name] for name in self.inputs]
        self._fetches = [piece.values[name] for name in self.outputs]
        self._session = _open(piece.model(outputs), threads)

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
        self.outputs = [op.name]
        self.inputs = [name for name in op.input_names if name not in constants]
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
        self.inputs, self.outputs = boundary_tensors(graph, subgraph, batch, taps)
        self._name_of = {op.tensor.name: op.name for op in graph.ops.values()}
        if signed_weights is None:
            signed_weights, reason = weight_form()
        else:
            reason = f"{'signed' if signed_weights else 'unsigned'} weights asked for"
        constants = constant_arrays(graph, subgraph)
        self._steps: List[Any] = []
        fallbacks: List[str] = []
        kept = {self._name_of[info.name] for info in self.outputs}
        pieces: List[Any] = []
        piece = self.piece_type(graph, constants, batch, signed_weights)
        for op in computed_ops(graph, subgraph):
            try:
                with refusing(op):
                    piece.translate(op)
            except NotExactError as why:
                if not is_supported(op.type):
                    raise UnsupportedError(
                        f"Operator type {op.type!r} has no integer rule",
                        f"operator {op.name!r} in subgraph {subgraph.name!r}",
                    ) from None
                fallbacks.append(f"{op.name} ({why})")
                pieces += [piece, _RuleStep(graph, op, constants)]
                piece = self.piece_type(graph, constants, batch, signed_weights)
        pieces.append(piece)
        # From the last piece to the first, so that each knows what is read after it.
        needed = set(kept)
        for part in reversed(pieces):
            step = part
            if isinstance(part, Piece):
                computed = [n for n in part.values if n in needed and n not in part.inputs]
                if not computed:
                    continue
                step = _OnnxStep(part, computed, threads)
            needed.update(step.inputs)
            self._steps.insert(0, step)
        self.engine_reason = reason
        if fallbacks:
            self.engine_reason += "; by integer rule: " + ", ".join(fallbacks)
        self.notes = (self.engine_reason,)

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
