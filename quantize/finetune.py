"""Fast finetune: layer by layer, parameters that bring quantized outputs closer to float ones.

No labels are needed. For every convolution and linear layer, Adam minimises the squared distance
between the layer's output on quantized inputs and the float model's output, over cached batches.
After each sweep the parameters go back to their grid, and the change stays only if no output of
the network got worse and one got better. The fix positions are those of a calibration on the same
batches and never change. These are the rules 6.2 and 6.3 of the vendor's quantizer (its variant 1,
on the CPU); the calibration that follows is ``calibrate`` with ``kept``.

Importing this module imports torch.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import DataError, UnsupportedError
from . import graph as g
from .calibration import Run, calibrate
from .execution import Params, compute, float_tensors, tensors_of
from .finetune_journal import Journal, Layer, Progress
from .fixpoint import Rounding, quantize, quantize_
from .graph import Node, QuantizerGraph
from .groups import QUANTIZABLE, Entries

SWEEPS = 100
"""Most sweeps over the batches for one layer."""

_RATE = 0.01
_ACCURATE = 4.5
_SLOWEST = 1e-5
_NO_LOSS = 1000.0

_ACTIVATIONS = frozenset({g.RELU, g.RELU6, g.HARDSIGMOID, g.HARDSWISH})
"""What may follow a convolution and is then part of what is compared."""

Batch = Sequence[Tensor]
Values = Dict[Node, Tensor]

OnLayer = Callable[[int, int], None]
"""Called with the number of layers done and of all layers; first with those done earlier."""


@dataclass
class Finetuned:
    """Tuned parameters and the fix positions they are tuned for.

    Attributes:
        found: the calibration they were tuned with.
        params: parameter key to float32 values on their grids, PyTorch's layout.
        layers: what happened to every layer.
    """

    found: Run
    params: Dict[str, np.ndarray]
    layers: List[Layer]

    def graph(self, graph: QuantizerGraph) -> QuantizerGraph:
        """The same graph with the tuned parameters in the place of the float ones."""
        return with_params(graph, self.params)


def with_params(graph: QuantizerGraph, params: Mapping[str, np.ndarray]) -> QuantizerGraph:
    """``graph`` with other parameters; the nodes are shared."""
    tuned = copy.copy(graph)
    tuned.params = dict(params)
    return tuned


class _Straight(torch.autograd.Function):
    """Rounds to a grid; gradients pass as if it did not, also where it saturates."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, position: int, bits: int) -> Tensor:
        return quantize(x, position, Rounding.HALF_UP, bits)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tuple[Tensor, None, None]:
        return gradient, None, None


class _StraightRelu(torch.autograd.Function):
    """ReLU and rounding to a grid in one storage.

    The result is overwritten by its codes before the gradient is taken, so what rounds to zero
    has none.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, position: int, bits: int) -> Tensor:
        y = quantize_(F.relu(x), position, Rounding.HALF_UP, bits)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tuple[Tensor, None, None]:
        (y,) = ctx.saved_tensors
        return gradient * (y > 0), None, None


class _Adam:
    """Adam on one tensor, written out so that every torch release takes the same steps."""

    def __init__(self, value: Tensor, rate: float) -> None:
        self.rate, self.count = rate, 0
        self.mean, self.square = torch.zeros_like(value), torch.zeros_like(value)

    def step(self, value: Tensor, gradient: Tensor) -> None:
        self.count += 1
        self.mean.mul_(0.9).add_(gradient, alpha=1 - 0.9)
        self.square.mul_(0.999).addcmul_(gradient, gradient, value=1 - 0.999)
        size = self.rate / (1 - 0.9**self.count)
        root = math.sqrt(1 - 0.999**self.count)
        value.addcdiv_(self.mean, (self.square.sqrt() / root).add_(1e-8), value=-size)


class _Twin:
    """One of the two networks, quantized or float, and every batch's tensors at the layer in hand.

    Only tensors that later operators read are kept.
    """

    def __init__(
        self,
        graph: QuantizerGraph,
        params: Mapping[Node, Params],
        positions: Mapping[Node, int],
        watched: Sequence[Node],
    ) -> None:
        self.nodes, self.params, self.positions = graph.nodes, params, positions
        self.bits = graph.bits
        self.place = {node: place for place, node in enumerate(graph.nodes)}
        self.last = {
            node: max([self.place[reader] for reader in readers], default=-1)
            for node, readers in graph.consumers().items()
        }
        for node in watched:
            self.last[node] = len(self.nodes)

    def start(self, graph: QuantizerGraph, batch: Batch) -> Values:
        return {
            node: self.finished(node, tensor.contiguous())
            for node, tensor in zip(graph.inputs, batch)
        }

    def finished(self, node: Node, raw: Tensor) -> Tensor:
        position = self.positions.get(node)
        if position is None:
            return raw
        if node.op == g.INPUT:
            return quantize(raw, position, Rounding.HALF_UP, self.bits)
        return quantize_(raw, position, Rounding.HALF_UP, self.bits)

    def advance(self, values: Values, start: int, stop: int) -> None:
        """Executes the nodes ``start`` to ``stop``; tensors nobody needs any more leave."""
        for place in range(start, stop):
            node = self.nodes[place]
            if node.op == g.INPUT:
                continue
            operands = [values[source] for source in node.inputs]
            raw = compute(node, operands, self.params[node] if node.params else {})
            values[node] = self.finished(node, raw)
            for source in {*node.inputs, node}:
                if self.last[source] <= place and source in values:
                    del values[source]


def finetune(
    graph: QuantizerGraph,
    entries: Entries,
    batches: Sequence[Batch],
    cap: int = 12,
    on_layer: Optional[OnLayer] = None,
    journal: Optional[Journal] = None,
    found: Optional[Run] = None,
    by_range: bool = False,
) -> Finetuned:
    """Tunes the folded (and equalized) ``graph`` on ``batches``.

    Args:
        graph: numbered, with float parameters.
        entries: what is calibrated.
        batches: per batch one float32 tensor per network input, images first; the same again
            where an earlier call was stopped.
        cap: highest fix position.
        on_layer: called before the first and after every layer.
        journal: where every finished layer is noted, so that a call that is stopped goes on there.
        found: a calibration on the same batches without bias correction, if there is one.
        by_range: how that calibration is made here if there is none; see ``Calibrator``.

    Raises:
        UnsupportedError: a layer is used twice.
        DataError: see ``calibrate``.
    """
    _refuse_shared(graph)
    earlier = None if journal is None else journal.read(graph)
    if earlier is None:
        if found is None:
            found = calibrate(graph, entries, batches, None, cap, by_range=by_range)
        floats = float_tensors(graph)
        tuned = {
            key: quantize(floats[key], position, Rounding.HALF_AWAY, graph.bits)
            for key, position in found.params.items()
        }
        layers: List[Layer] = []
    else:
        found, layers = earlier.found, earlier.layers
        tuned = {key: torch.from_numpy(value) for key, value in earlier.params.items()}
    nodes = [node for node in graph.nodes if node.op in g.WEIGHTED]
    if on_layer is not None:
        on_layer(len(layers), len(nodes))
    if len(layers) < len(nodes):
        tuning = _Tuning(graph, tuned, found, batches)
        for node in nodes[len(layers) :]:
            layers.append(tuning.layer(node))
            if journal is not None:
                arrays = {key: tensor.numpy() for key, tensor in tuned.items()}
                journal.write(graph, Progress(found, arrays, layers))
            if on_layer is not None:
                on_layer(len(layers), len(nodes))
    return Finetuned(found, {key: tensor.numpy() for key, tensor in tuned.items()}, layers)


def bytes_per_image(graph: QuantizerGraph) -> int:
    """What ``finetune`` keeps in memory for every image, at most.

    These are the tensors that are alive together, of the quantized and of the float network, and
    one layer's float result.
    """
    twin = _Twin(graph, {}, {}, _last_quantizable(graph))
    sizes = {node: 4 * _product(node.shape[1:]) for node in graph.nodes}
    alive: Dict[Node, int] = {}
    most = 0
    for place, node in enumerate(graph.nodes):
        alive[node] = sizes[node]
        most = max(most, 2 * sum(alive.values()) + sizes[node])
        for other in [other for other in alive if twin.last[other] <= place]:
            del alive[other]
    return most


def refuse_memory(graph: QuantizerGraph, images: int) -> None:
    """Refuses more images than fit into four fifths of the memory that is free.

    Raises:
        DataError: says how many would fit.
    """
    free = _free_memory()
    each = bytes_per_image(graph)
    if free is not None and images * each > 0.8 * free:
        raise DataError(
            f"Fast finetune of {images} images needs {images * each / 2**30:.1f} GiB of memory",
            f"{free / 2**30:.1f} GiB are free, of which it may take four fifths",
            f"tune on fewer: --finetune-images {max(int(0.8 * free / each), 1)}",
        )


def _free_memory() -> Optional[int]:
    """Bytes; ``None`` where the system does not say."""
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            table = dict(line.split(":", 1) for line in file)
        return int(table["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return None


def _product(shape: Sequence[int]) -> int:
    size = 1
    for extent in shape:
        size *= extent
    return size


def _refuse_shared(graph: QuantizerGraph) -> None:
    seen: Dict[str, Node] = {}
    for node in graph.nodes:
        for key in node.params.values():
            if key in seen:
                raise UnsupportedError(
                    "A layer that is used twice cannot be fine-tuned: its uses may need different "
                    "parameters",
                    f"{key}, used by {seen[key].scope} and {node.scope}",
                    "use two layers with the same weights",
                )
            seen[key] = node


class _Tuning:
    def __init__(
        self,
        graph: QuantizerGraph,
        tuned: Mapping[str, Tensor],
        found: Run,
        batches: Sequence[Batch],
    ) -> None:
        self.graph = graph
        self.param_positions, self.positions = found.params, found.outputs
        floats = float_tensors(graph)
        weighted = [node for node in graph.nodes if node.params]
        self.floats = {node: tensors_of(node, floats) for node in weighted}
        self.tuned = {
            node: {role: tuned[key] for role, key in node.params.items()} for node in weighted
        }
        self.watched = _last_quantizable(graph)
        self.float = _Twin(graph, self.floats, {}, self.watched)
        self.quantized = _Twin(
            graph, {n: {"bias": None, **p} for n, p in self.tuned.items()}, self.positions,
            self.watched,
        )  # fmt: skip
        self.consumers = graph.consumers()
        self.single = int(batches[0][0].shape[0]) == 1
        end = len(graph.nodes)
        self.wanted: List[List[Tensor]] = []
        self.ours: List[Values] = []
        self.theirs: List[Values] = []
        with torch.no_grad():
            for batch in batches:
                values = self.float.start(graph, batch)
                self.float.advance(values, 0, end)
                self.wanted.append([values[node] for node in self.watched])
                # The vendor's tool quantizes the network input where it stands, and the float
                # model reads the same memory from then on.
                self.ours.append(self.quantized.start(graph, batch))
                self.theirs.append(dict(self.ours[-1]))
        self.place = 0
        self.losses = self._losses()

    def _losses(self) -> List[float]:
        """Root mean squared error of each watched tensor, averaged over the batches."""
        totals = [0.0] * len(self.watched)
        for values, wanted in zip(self.ours, self.wanted):
            walk = dict(values)
            with torch.no_grad():
                self.quantized.advance(walk, self.place, len(self.graph.nodes))
                for index, (node, tensor) in enumerate(zip(self.watched, wanted)):
                    totals[index] += float((tensor - walk[node]).pow_(2).mean().sqrt())
        return [total / len(self.ours) for total in totals]

    def _go_to(self, node: Node) -> None:
        place = self.quantized.place[node]
        with torch.no_grad():
            for twin, everyone in ((self.quantized, self.ours), (self.float, self.theirs)):
                for values in everyone:
                    twin.advance(values, self.place, place)
        self.place = place

    def layer(self, node: Node) -> Layer:
        """Tunes one layer; those before it are done."""
        self._go_to(node)
        params, floats = self.tuned[node], self.floats[node]
        activation = self._activation(node)
        weight = params["weight"]
        bias = params.get("bias")
        float_weight = floats["weight"]
        assert float_weight is not None
        rates = self._rates(weight, bias, float_weight)
        optimizers = {role: _Adam(params[role], rate) for role, rate in rates.items()}
        best = {role: tensor.clone() for role, tensor in params.items()}
        targets = [self._target(node, activation, values) for values in self.theirs]
        previous = [_NO_LOSS] * len(self.watched)
        sweeps = kept = 0
        while sweeps < SWEEPS:
            sweeps += 1
            for values, target in zip(self.ours, targets):
                self._step(node, activation, values[node.inputs[0]], target, optimizers)
            for role, tensor in params.items():
                position = self.param_positions[node.params[role]]
                quantize_(tensor, position, Rounding.HALF_AWAY, self.graph.bits)
            losses = self._losses()
            if self._better(losses):
                kept += 1
                best = {role: tensor.clone() for role, tensor in params.items()}
                self.losses = losses
                continue
            for role, tensor in params.items():
                tensor.copy_(best[role])
            for optimizer in optimizers.values():
                optimizer.rate /= 2
            if all(o.rate < _SLOWEST for o in optimizers.values()) or all(
                abs(new - old) <= 1e-6 * max(abs(new), abs(old))
                for new, old in zip(losses, previous)
            ):
                break
            previous = losses
        return Layer(self.graph.node_name(node), sweeps, kept, list(self.losses))

    def _better(self, losses: Sequence[float]) -> bool:
        pairs = list(zip(losses, self.losses))
        return all(new <= old for new, old in pairs) and any(new < old for new, old in pairs)

    def _rates(self, weight: Tensor, bias: Optional[Tensor], floats: Tensor) -> Dict[str, float]:
        factor = 0.5 if self.single else 1.0
        rate = _RATE * factor
        noise = float((floats - weight).pow(2).mean())
        signal = float(floats.pow(2).mean())
        if noise <= 0 or 10 * math.log10(max(signal, 1e-300) / noise) / 8 > _ACCURATE:
            rate = 0.1 * rate * factor
        rates = {"weight": rate * float(weight.std())}
        if bias is not None:
            rates["bias"] = 0.0 if bias.numel() == 1 else rate * float(bias.std())
        return rates

    def _activation(self, node: Node) -> Optional[Node]:
        if node.op == g.DENSE:
            return None
        readers = [n for n in self.consumers[node] if n.op in _ACTIVATIONS]
        return readers[0] if readers else None

    def _target(self, node: Node, activation: Optional[Node], values: Values) -> Tensor:
        with torch.no_grad():
            raw = compute(node, [values[node.inputs[0]]], self.floats[node])
            return raw if activation is None else compute(activation, [raw], {})

    def _step(
        self,
        node: Node,
        activation: Optional[Node],
        x: Tensor,
        target: Tensor,
        optimizers: Mapping[str, _Adam],
    ) -> None:
        leaves = {r: t.detach().requires_grad_() for r, t in self.tuned[node].items()}
        float_weight = self.floats[node]["weight"]
        assert float_weight is not None
        with torch.enable_grad():
            y = compute(node, [x], {"bias": None, **leaves})
            y = self._on_grid(node, y)
            if activation is not None:
                y = self._activated(activation, y)
            loss = F.mse_loss(y, target) + F.mse_loss(leaves["weight"], float_weight)
            gradients = torch.autograd.grad(loss, list(leaves.values()))
        with torch.no_grad():
            for (role, tensor), gradient in zip(leaves.items(), gradients):
                optimizers[role].step(tensor.detach(), gradient)

    def _on_grid(self, node: Node, y: Tensor) -> Tensor:
        position = self.positions.get(node)
        if position is None:
            return y
        rounded: Tensor = _Straight.apply(y, position, self.graph.bits)  # type: ignore[no-untyped-call]
        return rounded

    def _activated(self, activation: Node, y: Tensor) -> Tensor:
        position = self.positions.get(activation)
        if activation.op == g.RELU and position is not None:
            result: Tensor = _StraightRelu.apply(y, position, self.graph.bits)  # type: ignore[no-untyped-call]
            return result
        return self._on_grid(activation, compute(activation, [y], {}))


def _last_quantizable(graph: QuantizerGraph) -> List[Node]:
    """The nearest quantizable operator above every network output."""
    found: Dict[Node, None] = {}

    def visit(node: Node) -> None:
        if node.op in QUANTIZABLE:
            found[node] = None
            return
        for source in node.inputs:
            visit(source)

    for node in graph.output_nodes:
        visit(node)
    return list(found)
