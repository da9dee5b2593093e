"""How far every tensor of a quantized model is from the float model, and which layer is to blame.

Two distances are measured. The *whole* noise of a tensor compares it with the same tensor of the
float network, so it holds what all layers before it did. Its *own* noise compares it with what
float parameters and no rounding would have made of the same quantized operands: only this layer's.
Which of the noisiest layers matter is then tried: each is kept in float once, and the noise at the
outputs measured again.

Memory is bounded by one small batch; sums run over batches. Importing this module imports torch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Callable, Dict, Iterable, Iterator, List, Mapping, Optional, Sequence, Set, Tuple

import numpy as np
import torch
from torch import Tensor

from . import graph as g
from .execution import Params, compute, run, tensors_of
from .fixpoint import HIGHEST, LOWEST, Rounding, aminmax, quantize, saturated
from .graph import Node
from .quantized import QuantizedModel

IMAGES_AT_A_TIME = 4
"""A pass keeps the codes of every tensor: about 40 MB per picture for a U-YNet of width 64."""


@dataclass(frozen=True)
class Interior:
    """A quantized model and what it was made from.

    Attributes:
        model: the quantized model.
        floats: parameter key to the float values, folded and equalized, not tuned.
        unequalized: the same before equalization.
    """

    model: QuantizedModel
    floats: Mapping[str, np.ndarray]
    unequalized: Mapping[str, np.ndarray]


@dataclass
class TensorNoise:
    """One quantized tensor beside its float counterpart, over all pictures.

    Attributes:
        name: of the operator, as in ``codes``.
        scope: module path of the operator.
        operator: its type without the vendor's prefix.
        position: fix position.
        weights: keys of the weights that act between the quantized tensors before and this one.
        signal, noise: sums of squares of the float tensor and of its distance to the quantized.
        own_signal, own_noise: the same for this layer alone.
        values: how many values were compared.
        clipped: how many were outside the codes.
        histogram: int64 ``[256]``, how often each code from -128 on occurred.
    """

    name: str
    scope: str
    operator: str
    position: int
    weights: Tuple[str, ...]
    signal: float = 0.0
    noise: float = 0.0
    own_signal: float = 0.0
    own_noise: float = 0.0
    values: int = 0
    clipped: int = 0
    histogram: np.ndarray = field(default_factory=lambda: np.zeros(256, np.int64))

    @property
    def snr(self) -> float:
        """Signal to noise against the float network in dB; infinite without any noise."""
        return decibels(self.signal, self.noise)

    @property
    def own_snr(self) -> float:
        """Signal to noise of this layer alone in dB; infinite without any noise."""
        return decibels(self.own_signal, self.own_noise)

    @property
    def saturated_share(self) -> float:
        """Share of values that were clipped."""
        return self.clipped / max(self.values, 1)

    @property
    def codes(self) -> Tuple[int, int]:
        """The least and the greatest code seen."""
        seen = np.flatnonzero(self.histogram) + LOWEST
        return (int(seen[0]), int(seen[-1])) if seen.size else (0, 0)

    @property
    def unused_bits(self) -> int:
        """Bits between the largest code seen and 127: 0 from 64 on, 7 for nothing but zeros."""
        low, high = self.codes
        return 7 - int(min(max(-low, high), HIGHEST)).bit_length()

    @property
    def over_rounding(self) -> float:
        """Own noise over that of rounding alone, which is a twelfth of a step squared."""
        step = 2.0**-self.position
        return self.own_noise / max(self.values, 1) / (step * step / 12)


@dataclass(frozen=True)
class OutputNoise:
    """The network's outputs with one layer kept in float, beside the whole quantized network.

    Attributes:
        name: the tensor kept in float with the weights before it; empty for none kept.
        noise: sum of squared distances to the float network's output, by output node name.
        gain: how many dB the noise of each output falls; 0 for none kept.
    """

    name: str
    noise: Dict[str, float]
    gain: Dict[str, float]


@dataclass(frozen=True)
class WeightRange:
    """One layer's weights before and after equalization.

    Attributes:
        key: of the parameter.
        position: fix position.
        before, after: largest magnitude.
        spread_before, spread_after: widest output channel over the narrowest that is not zero.
        snr: signal to noise of the quantized weights in dB.
    """

    key: str
    position: int
    before: float
    after: float
    spread_before: float
    spread_after: float
    snr: float


def decibels(signal: float, noise: float) -> float:
    """Ten times the logarithm of ``signal / noise``; infinite without noise, NaN without both."""
    if noise <= 0:
        return math.inf if signal > 0 else math.nan
    return 10 * math.log10(signal / noise) if signal > 0 else -math.inf


def measure_tensors(
    interior: Interior,
    batches: Iterable[Tensor],
    on_images: Callable[[int], None] = lambda images: None,
) -> List[TensorNoise]:
    """Every quantized tensor in execution order.

    Args:
        interior: the quantized model.
        batches: float pictures ``[N, 3, H, W]``; cut to ``IMAGES_AT_A_TIME``.
        on_images: told how many more are done.
    """
    model = interior.model
    floats = {key: torch.from_numpy(value) for key, value in interior.floats.items()}
    table = {
        node: TensorNoise(
            model.graph.node_name(node),
            node.scope,
            node.op.replace("nndct_", ""),
            model.node_positions[node],
            tuple(
                other.params["weight"] for other in _layer(model, node) if "weight" in other.params
            ),
        )
        for node in model.graph.nodes
        if node in model.node_positions
    }
    for part in _parts(batches):
        with torch.no_grad():
            codes = _quantized_pass(model, floats, part, table)
            _float_pass(model, floats, part, table, codes)
        on_images(part.shape[0])
    return list(table.values())


def try_in_float(
    interior: Interior,
    names: Sequence[str],
    batches: Sequence[Tensor],
    on_pass: Callable[[int], None] = lambda passes: None,
) -> List[OutputNoise]:
    """What keeping a layer in float would gain at the outputs, each of ``names`` alone.

    Returns:
        The whole quantized network first, then one record for each name.
    """
    model = interior.model
    floats = {key: torch.from_numpy(value) for key, value in interior.floats.items()}
    nodes = model.graph.by_name()
    kept: List[Optional[Node]] = [None, *(nodes[name] for name in names)]
    noise: List[Dict[str, float]] = [{} for _ in kept]
    with torch.no_grad():
        for part in _parts(batches):
            exact = run(
                model.graph,
                [part],
                lambda node: tensors_of(node, floats),
                lambda node, raw, operands: raw,
            )
            codes = _codes(model, part)
            for node, sums in zip(kept, noise):
                found = _outputs_with(model, floats, codes, node)
                for output, tensor in found.items():
                    name = model.graph.node_name(output)
                    sums[name] = sums.get(name, 0.0) + _squares(tensor - exact[output])
                on_pass(1)
    base = noise[0]
    return [
        OutputNoise(
            model.graph.node_name(node) if node else "",
            sums,
            {name: decibels(base[name], value) if base[name] else 0.0
             for name, value in sums.items()},
        )
        for node, sums in zip(kept, noise)
    ]  # fmt: skip


def weight_ranges(interior: Interior) -> List[WeightRange]:
    """The weights of every layer in execution order, a shared one once."""
    found: Dict[str, WeightRange] = {}
    for node in interior.model.graph.nodes:
        key = node.params.get("weight")
        if key is None or key in found or node.op not in g.WEIGHTED:
            continue
        before, after = interior.unequalized[key], interior.floats[key]
        grid = interior.model.node_parameters(node)["weight"]
        assert grid is not None  # the layer has weights
        error = after.astype(np.float64) - grid.numpy()
        found[key] = WeightRange(
            key,
            interior.model.info.params[key],
            float(np.abs(before).max()),
            float(np.abs(after).max()),
            _spread(before, node),
            _spread(after, node),
            decibels(float((after.astype(np.float64) ** 2).sum()), float((error**2).sum())),
        )
    return list(found.values())


def _quantized_pass(
    model: QuantizedModel,
    floats: Mapping[str, Tensor],
    part: Tensor,
    table: Mapping[Node, TensorNoise],
) -> Dict[Node, Tensor]:
    """Runs the quantized network, notes every layer's own noise; returns all codes (int8)."""
    codes: Dict[Node, Tensor] = {}
    # What a layer's first operators would give in float; ends where its tensor is quantized.
    ideal_of: Dict[Node, Tensor] = {}
    readers = {node: len(found) for node, found in model.graph.consumers().items()}

    def finish(node: Node, raw: Tensor, operands: Sequence[Tensor]) -> Tensor:
        ideal = raw
        if node.op != g.INPUT and (node.params or any(n in ideal_of for n in node.inputs)):
            sources = [ideal_of.get(n, tensor) for n, tensor in zip(node.inputs, operands)]
            ideal = compute(node, sources, tensors_of(node, floats) if node.params else {})
        for source in dict.fromkeys(node.inputs):
            readers[source] -= 1
            if not readers[source]:
                ideal_of.pop(source, None)
        if node not in table:
            if ideal is not raw:
                ideal_of[node] = ideal
            return raw
        record = table[node]
        result = quantize(raw, record.position, Rounding.HALF_UP)
        code = (result * 2.0**record.position).to(torch.int8)
        codes[node] = code
        record.values += raw.numel()
        record.clipped += saturated(raw, record.position, *aminmax(raw))
        counts = torch.bincount(code.reshape(-1).to(torch.int64) - LOWEST, minlength=256)
        record.histogram += counts.numpy()
        record.own_signal += _squares(ideal)
        record.own_noise += _squares(ideal - result)
        return result

    run(model.graph, [part], model.node_parameters, finish)
    return codes


def _float_pass(
    model: QuantizedModel,
    floats: Mapping[str, Tensor],
    part: Tensor,
    table: Mapping[Node, TensorNoise],
    codes: Dict[Node, Tensor],
) -> None:
    def finish(node: Node, raw: Tensor, operands: Sequence[Tensor]) -> Tensor:
        code = codes.pop(node, None)
        if code is not None:
            record = table[node]
            record.signal += _squares(raw)
            record.noise += _squares(raw - code.to(torch.float32) * 2.0**-record.position)
        return raw

    run(model.graph, [part], lambda node: tensors_of(node, floats), finish)


def _codes(model: QuantizedModel, part: Tensor) -> Dict[Node, Tensor]:
    """The codes (int8) of every quantized tensor."""
    codes: Dict[Node, Tensor] = {}

    def finish(node: Node, raw: Tensor, operands: Sequence[Tensor]) -> Tensor:
        position = model.node_positions.get(node)
        if position is None:
            return raw
        result = quantize(raw, position, Rounding.HALF_UP)
        codes[node] = (result * 2.0**position).to(torch.int8)
        return result

    run(model.graph, [part], model.node_parameters, finish)
    return codes


def _outputs_with(
    model: QuantizedModel,
    floats: Mapping[str, Tensor],
    codes: Mapping[Node, Tensor],
    kept: Optional[Node],
) -> Dict[Node, Tensor]:
    """The quantized network's outputs with the layer that ends in ``kept`` in float.

    Only what depends on that layer is computed; all else is taken from ``codes``.
    """
    exact: Set[Node] = set() if kept is None else set(_layer(model, kept))
    outputs = set(model.graph.output_nodes)
    readers = {node: len(found) for node, found in model.graph.consumers().items()}
    changed: Dict[Node, Tensor] = {}

    def computed(node: Node) -> Tensor:
        params: Params = {}
        if node.params:
            params = tensors_of(node, floats) if node in exact else model.node_parameters(node)
        return compute(node, [value(source) for source in node.inputs], params)

    def value(node: Node) -> Tensor:
        if node in changed:
            return changed[node]
        if node in codes:
            return codes[node].to(torch.float32) * 2.0 ** -model.node_positions[node]
        return computed(node)

    for node in model.graph.nodes:
        if node in exact or any(source in changed for source in node.inputs):
            result = computed(node)
            position = model.node_positions.get(node)
            if position is not None and node is not kept:
                result = quantize(result, position, Rounding.HALF_UP)
            changed[node] = result
        for source in dict.fromkeys(node.inputs):
            readers[source] -= 1
            if not readers[source] and source not in outputs:
                changed.pop(source, None)
    return {node: value(node) for node in outputs}


def _layer(model: QuantizedModel, node: Node) -> Iterator[Node]:
    """``node`` and the operators before it up to the quantized tensors they start from."""
    yield node
    for source in node.inputs:
        if source not in model.node_positions:
            yield from _layer(model, source)


def _parts(batches: Iterable[Tensor]) -> Iterator[Tensor]:
    for batch in batches:
        yield from torch.split(batch, IMAGES_AT_A_TIME)


def _squares(x: Tensor) -> float:
    # Parts of a size whose float32 sum is accurate, then in float64.
    return float(sum(float((p * p).sum()) for p in torch.split(x.reshape(-1), 1 << 14)))


def _spread(weight: np.ndarray, node: Node) -> float:
    """Widest output channel over the narrowest that is not zero; 1 where all are zero."""
    first = weight
    if node.op in g.TRANSPOSED:  # [in, out / groups, ...]
        groups = int(node.attrs["groups"])
        split = weight.reshape((groups, weight.shape[0] // groups, *weight.shape[1:]))
        moved = np.moveaxis(split, 2, 1)
        first = moved.reshape((-1, *moved.shape[2:]))
    ranges = np.abs(first).reshape(first.shape[0], -1).max(axis=1)
    ranges = ranges[ranges > 0]
    return float(ranges.max() / ranges.min()) if ranges.size else 1.0
