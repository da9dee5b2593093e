"""The calibration run: fix positions from batches of data, and bias correction along the way.

Every batch adds one fix position per tensor to that tensor's history; the position in force is the
most frequent so far and quantizes the tensor at once, so later layers see what they will see on
the card. Parameters are searched once. These are rules 3.7 and 5 of the vendor's quantizer.

Importing this module imports torch.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Callable, Dict, Iterable, List, Optional, Sequence, Tuple

import numpy as np
import torch
from torch import Tensor

from ..errors import DataError
from . import graph as g
from .execution import Params, float_tensors, reference, run, tensors_of
from .fixpoint import (
    Rounding,
    aminmax,
    most_frequent,
    quantize,
    quantize_,
    saturated,
    search,
    search_within,
)
from .graph import Node, QuantizerGraph
from .groups import Entries

OnBatch = Callable[[int, int], None]
"""Called after every batch with its number (from 0) and its images."""

OnUnusable = Callable[[Node], None]
"""Called with the node whose result cannot be calibrated."""


@dataclass
class Run:
    """What a calibration run found, before adjustment.

    Attributes:
        params: parameter key to fix position.
        histories: node to the position of every batch.
        corrections: node to (float bias - bias at the end) per output channel; ``None`` without
            a bias.
        saturated: node to the share of its values that were clipped, over all batches.
        ranges: node to the least and greatest value of its float result, over all batches.
        images: images seen.
    """

    params: Dict[str, int]
    histories: Dict[Node, List[int]]
    corrections: Dict[Node, Optional[np.ndarray]]
    saturated: Dict[Node, float]
    ranges: Dict[Node, Tuple[float, float]]
    images: int

    @property
    def outputs(self) -> Dict[Node, int]:
        """Node to its final position, the most frequent of its history.

        A tensor that no batch gave a position, all its values being unusable, is left out.
        """
        return {n: most_frequent(history) for n, history in self.histories.items() if history}


def calibrate(
    graph: QuantizerGraph,
    entries: Entries,
    batches: Iterable[Sequence[Tensor]],
    rate: Optional[float],
    cap: int = 12,
    on_batch: Optional[OnBatch] = None,
    kept: Optional[Run] = None,
    by_range: bool = False,
) -> Run:
    """Runs ``batches`` through the folded (and equalized) ``graph``.

    Args:
        graph: numbered, with float parameters.
        entries: what is to be calibrated.
        batches: per batch one float32 tensor per network input, images first.
        rate: step of bias correction; ``None`` leaves the biases alone.
        cap: highest fix position.
        on_batch: called after every batch.
        kept: an earlier run whose fix positions hold; nothing is searched then. So it is after a
            fast finetune, with the tuned parameters in ``graph`` (rule 6.4).
        by_range: see ``Calibrator``.

    Raises:
        DataError: a tensor holds a value that is not finite.
    """
    calibrator = Calibrator(graph, entries, rate, cap, kept, by_range=by_range)
    for number, batch in enumerate(batches):
        calibrator.forward(batch)
        if on_batch is not None:
            on_batch(number, int(batch[0].shape[0]))
    return calibrator.result()


class Calibrator:
    """A calibration that is given one batch at a time.

    Args:
        graph, entries, rate, cap, kept: as for ``calibrate``.
        on_unusable: called with every tensor that holds values which are not finite; it is then
            left float for that batch and gets no position from it, as the vendor's tool does.
            Without it such a tensor is an error.
        by_range: take every position from the range of values, without the search for errors.

    Attributes:
        images: images seen.
        batches: batches seen.
        inputs: the network's inputs of the last batch as its operators saw them: quantized.
    """

    def __init__(
        self,
        graph: QuantizerGraph,
        entries: Entries,
        rate: Optional[float],
        cap: int = 12,
        kept: Optional[Run] = None,
        on_unusable: Optional[OnUnusable] = None,
        by_range: bool = False,
    ) -> None:
        self.graph, self.cap, self.kept, self.on_unusable = graph, cap, kept, on_unusable
        self.by_range = by_range
        self.bits = graph.bits
        self.floats = float_tensors(graph)
        self.positions = {key: self._search_parameter(key) for key in entries.params}
        self.quantized: Dict[Node, Params] = {}
        self.corrections: Dict[Node, BiasCorrection] = {}
        for node in graph.nodes:
            if node.params:
                self.quantized[node] = {
                    role: None if value is None else self._on_grid(node.params[role], value)
                    for role, value in tensors_of(node, self.floats).items()
                }
            if node.op in g.WEIGHTED and rate is not None:
                self.corrections[node] = BiasCorrection(rate)
        self.histories: Dict[Node, List[int]] = {node: [] for node in entries.filled}
        self.clipped: Dict[Node, List[int]] = {node: [0, 0] for node in entries.filled}
        self.ranges: Dict[Node, Tuple[float, float]] = {}
        if kept is not None:
            self.histories = {node: list(history) for node, history in kept.histories.items()}
        self.images = self.batches = 0
        self.inputs: Dict[Node, Tensor] = {}

    def _search_parameter(self, key: str) -> int:
        if self.kept is not None:
            return self.kept.params[key]
        position = search(self.floats[key], self.cap, self.by_range, self.graph.release, self.bits)
        if position is None:
            raise DataError(f"The parameter {key} holds values that are not finite")
        return position

    def _on_grid(self, key: str, value: Tensor) -> Tensor:
        return quantize(value, self.positions[key], Rounding.HALF_AWAY, self.bits)

    def forward(self, batch: Sequence[Tensor]) -> Dict[Node, Tensor]:
        """Takes one batch into account; it is not changed.

        Args:
            batch: one float32 tensor per network input, images first.

        Returns:
            The network's outputs, quantized by the positions in force now.

        Raises:
            DataError: a tensor holds a value that is not finite.
        """
        with torch.no_grad():
            outputs = run(self.graph, batch, self._params_of, self._finish)
        self.batches += 1
        self.images += int(batch[0].shape[0]) if batch else 0
        return outputs

    def _params_of(self, node: Node) -> Params:
        params = self.quantized[node]
        bias, correction = params.get("bias"), self.corrections.get(node)
        if self.kept is not None and bias is not None and correction and not correction.stopped:
            # Parameters go back to their grid before each batch, so corrections below half a
            # code are lost.
            quantize_(bias, self.positions[node.params["bias"]], Rounding.HALF_AWAY, self.bits)
        return params

    def _finish(self, node: Node, raw: Tensor, operands: Sequence[Tensor]) -> Tensor:
        result = self._quantize(node, raw) if node in self.histories else raw
        if node.op == g.INPUT:
            self.inputs[node] = result
        correction = self.corrections.get(node)
        if correction is not None and not correction.stopped:
            expected = reference(node, operands, tensors_of(node, self.floats))
            bias = self.quantized[node].get("bias")
            correction.update(result, expected, bias, -1 if node.op == g.DENSE else 1)
        return result

    def _quantize(self, node: Node, raw: Tensor) -> Tensor:
        low, high = aminmax(raw)
        by_range = self.by_range or node.op == g.INPUT or self.kept is not None
        position = search_within(raw, low, high, self.cap, by_range, self.graph.release, self.bits)
        if position is None and self.on_unusable is not None:
            self.on_unusable(node)
            return raw
        if position is None:
            raise DataError(
                f"The result of {self.graph.node_name(node)} cannot be calibrated: its values are "
                "not finite",
                f"least {low}, greatest {high} in batch {self.batches} (counted from 0), "
                f"{node.scope}",
            )
        if self.kept is None:
            self.histories[node].append(position)
        least, greatest = self.ranges.get(node, (low, high))
        self.ranges[node] = (min(least, low), max(greatest, high))
        in_force = most_frequent(self.histories[node])
        count = self.clipped[node]
        count[0] += saturated(raw, in_force, low, high, self.bits)
        count[1] += raw.numel()
        if node.op == g.INPUT:
            return quantize(raw, in_force, Rounding.HALF_UP, self.bits)
        return quantize_(raw, in_force, Rounding.HALF_UP, self.bits)

    def result(self) -> Run:
        """What the batches so far gave."""
        corrections: Dict[Node, Optional[np.ndarray]] = {}
        for node in self.corrections:
            bias, key = self.quantized[node].get("bias"), node.params.get("bias")
            if bias is None or key is None:
                corrections[node] = None
            else:
                corrections[node] = (self.floats[key] - bias).numpy()
        shares = {node: clipped / max(seen, 1) for node, (clipped, seen) in self.clipped.items()}
        return Run(self.positions, self.histories, corrections, shares, self.ranges, self.images)


@dataclass
class BiasCorrection:
    """Moves one layer's bias, batch by batch, against the mean error of its quantized output.

    Attributes:
        rate: step, halved while the layer is already accurate.
        efficiency, deviation: running averages of 1.25 * log10(signal / noise) and its changes.
        stopped: once the layer is accurate or settled; for good.
    """

    rate: float
    efficiency: np.float64 = field(default_factory=np.float64)
    deviation: np.float64 = field(default_factory=np.float64)
    stopped: bool = False

    def update(
        self, result: Tensor, expected: Tensor, bias: Optional[Tensor], channel_axis: int
    ) -> None:
        """Takes one batch into account and changes ``bias`` in place.

        Args:
            result: the layer's output, quantized if it is quantized where it is made.
            expected: the same from the float parameters and the same input.
            bias: the bias in force, or ``None``.
            channel_axis: 1 for convolutions, -1 for linear layers.
        """
        error = result - expected
        count = max(result.numel(), 1)
        rate = self._rate(_sum_of_squares(expected) / count, _sum_of_squares(error) / count)
        if rate is None:
            self.stopped = True
        elif bias is not None:
            mean = _channel_sums(error, channel_axis) * (bias.numel() / count)
            bias.sub_(mean.to(torch.float32) * rate)

    def _rate(self, signal: float, noise: float) -> Optional[float]:
        """The step for this batch, or ``None`` to stop."""
        if noise <= 0:
            return None
        with np.errstate(all="ignore"):
            ratio = np.float32(signal) / np.float32(noise)
            efficiency = np.float64(np.float32(1.25) * np.log10(ratio))
            change = np.abs(efficiency - self.efficiency)
            if not change > 0:
                return None
            self.efficiency = (4 * self.efficiency + efficiency) * 0.2
            self.deviation = (4 * self.deviation + change) * 0.2
            settled = self.deviation / self.efficiency < 0.05
            steady = np.abs(change - self.deviation / change) < 0.05
        if self.efficiency > 4.3 or settled or steady:
            return None
        return self.rate * 0.5 if self.efficiency > 4.0 else self.rate


# Both add rows in float32 and the rows in float64: nearly as exact as float64 throughout, several
# times as fast, and the number of threads does not show.


def _sum_of_squares(x: Tensor) -> float:
    norms = torch.linalg.vector_norm(x, dim=-1).to(torch.float64)
    return float((norms * norms).sum())


def _channel_sums(x: Tensor, channel_axis: int) -> Tensor:
    if channel_axis % x.dim() != x.dim() - 1:
        x = x.sum(-1)
    axes = [axis for axis in range(x.dim()) if axis != channel_axis % x.dim()]
    return x.sum(axes, dtype=torch.float64)
