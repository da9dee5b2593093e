"""Weight equalization across layers: channels of neighbouring convolutions brought to one range.

For a pair of convolutions joined by activations and pools only, channel ``i`` of the first one's
output and of the second one's input is divided and multiplied by the same number, so that the
float network stays what it was while both weight tensors use their one scale better (rule 2.4 of
the vendor's quantizer). All arithmetic is float32.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import List, Optional, Set, Tuple

import numpy as np

from .graph import (
    ADAPTIVE_AVGPOOL,
    AVGPOOL,
    CONV2D,
    CONV_TRANSPOSE2D,
    CONVOLUTIONS,
    MAXPOOL,
    RELU,
    TRANSPOSED,
    Node,
    QuantizerGraph,
)

_PASSED = frozenset({RELU, MAXPOOL, AVGPOOL, ADAPTIVE_AVGPOOL})


@dataclass(frozen=True)
class EqualizedPair:
    """One pair, in the order of treatment, with the divisor of each channel between the two."""

    first: Node
    second: Node
    scale: np.ndarray


def equalize(graph: QuantizerGraph) -> List[EqualizedPair]:
    """Equalizes every pair of ``graph`` in place, one sweep; each sees the pairs before it."""
    pairs = []
    for chain in chains(graph):
        for first, second in zip(chain, chain[1:]):
            if graph.release.grouped_equalization or not _grouped(first, second):
                pairs.append(_equalize_pair(graph, first, second))
    return pairs


def _grouped(first: Node, second: Node) -> bool:
    """Whether channels of the pair can be told apart by their groups only.

    Releases that know no groups cannot pair these; what they do instead was not seen.
    """
    outgoing = first.op == CONV_TRANSPOSE2D and first.attrs["groups"] > 1
    return outgoing or (second.op == CONV2D and bool(second.attrs["groups"] > 1))


def chains(graph: QuantizerGraph) -> List[List[Node]]:
    """Lists of at least two convolutions that follow each other, in the order they are found.

    The graph is walked depth first from every input. A walk carries the current list along: a
    convolution joins it, an activation or pool lets it through, anything else and every node with
    more than one use ends it.
    """
    consumers, uses = graph.consumers(), graph.uses()
    found: List[List[Node]] = []

    def close(chain: List[Node]) -> None:
        if len(chain) >= 2 and chain not in found:
            found.append(list(chain))

    for source in graph.inputs:
        visited: Set[Node] = set()
        # A stack instead of recursion, since networks may be deeper than Python's limit; a node
        # stands on it twice, the second time (children done) to close the list it handed down.
        stack: List[Tuple[Node, List[Node], bool]] = [(source, [], False)]
        while stack:
            node, chain, done = stack.pop()
            if done:
                close(chain)
                continue
            if node in visited:
                continue
            visited.add(node)
            chain = chain or []
            if node.op in CONVOLUTIONS:
                chain.append(node)
            if node.op not in CONVOLUTIONS | _PASSED or uses[node] > 1:
                close(chain)
                chain = []
            stack.append((node, chain, True))
            for child in reversed(consumers[node]):
                stack.append((child, chain, False))
    return found


def _equalize_pair(graph: QuantizerGraph, first: Node, second: Node) -> EqualizedPair:
    w0 = _by_output(graph.params[first.params["weight"]], first)
    w1 = _by_input(graph.params[second.params["weight"]], second)
    b0 = graph.weight(first, "bias")
    scale = pair_scale(w0.reshape(w0.shape[0], -1), b0, w1.reshape(w1.shape[0], -1))
    column = scale.reshape(-1, 1, 1, 1)
    key0, key1 = first.params["weight"], second.params["weight"]
    graph.params[key0] = _from_output(w0 / column, graph.params[key0].shape, first)
    if b0 is not None:
        graph.params[first.params["bias"]] = b0 / scale
    graph.params[key1] = _from_input(w1 * column, graph.params[key1].shape, second)
    return EqualizedPair(first, second, scale)


def pair_scale(first: np.ndarray, bias: Optional[np.ndarray], second: np.ndarray) -> np.ndarray:
    """The divisor of each channel between two layers.

    Args:
        first: ``[channels, taps]``, the first layer's weights by output channel.
        bias: ``[channels]`` or ``None``.
        second: ``[channels, taps]``, the second layer's weights by input channel.

    Returns:
        float32 ``[channels]``; 1 where both ranges are small or one is zero.
    """
    joined = first
    if bias is not None:
        joined = np.concatenate([first, _bias_column(first, bias)], axis=1)
    r0 = np.abs(joined).max(axis=1)
    r1 = np.abs(second).max(axis=1)
    s = np.sqrt(r0 * r1)
    scale: np.ndarray = np.divide(r0, s, out=np.ones_like(r0), where=s != 0)
    scale[r0 + r1 < 0.5] = 1
    return scale


def _bias_column(weights: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """The bias as one more column, shrunk so that it rarely decides a channel's range."""
    wc, bc = weights.copy(), bias.copy()
    empty = ~weights.any(axis=1)
    bc[empty] = 0
    wc[empty] = 1e-7
    for row in np.flatnonzero((weights == 0).any(axis=1) & ~empty):
        nonzero = weights[row] != 0
        wc[row, ~nonzero] = np.abs(weights[row, nonzero]).min()
    wc[np.abs(wc) < 1e-7] = 1e-7
    factor = np.abs(bc)[:, None] / np.abs(wc)
    median, mean = np.median(factor), np.mean(factor)
    largest = np.abs(bias).max()
    if largest < 10 and largest / np.abs(wc).max() < 20:
        shrink = 5 if median > 100 or mean > 1000 else 2
    elif median > 30 or mean > 500:
        shrink = 20
    elif median > 15 or mean > 100:
        shrink = 10
    else:
        shrink = 5
    column: np.ndarray = bc[:, None] / np.float32(shrink)
    return column


# Weights with the channels between the two layers in front, whatever the layer's own layout.


def _by_output(weight: np.ndarray, node: Node) -> np.ndarray:
    if node.op not in TRANSPOSED:
        return weight
    groups = node.attrs["groups"]
    split = weight.reshape((groups, weight.shape[0] // groups, *weight.shape[1:]))
    moved = split.transpose(0, 2, 1, 3, 4)
    joined: np.ndarray = moved.reshape((-1, *moved.shape[2:]))
    return joined


def _from_output(channels: np.ndarray, shape: Tuple[int, ...], node: Node) -> np.ndarray:
    if node.op not in TRANSPOSED:
        return channels
    groups = node.attrs["groups"]
    split = channels.reshape((groups, shape[1], shape[0] // groups, *shape[2:]))
    return np.ascontiguousarray(split.transpose(0, 2, 1, 3, 4).reshape(shape))


def _by_input(weight: np.ndarray, node: Node) -> np.ndarray:
    if node.op in TRANSPOSED:
        return weight
    # [out, in / groups, ...]: the input channels of group k belong to its slice of out. A
    # depthwise layer is the case of one input channel per group.
    groups = node.attrs["groups"]
    split = weight.reshape((groups, weight.shape[0] // groups, *weight.shape[1:]))
    moved = split.transpose(0, 2, 1, 3, 4)
    joined: np.ndarray = moved.reshape((-1, *moved.shape[2:]))
    return joined


def _from_input(channels: np.ndarray, shape: Tuple[int, ...], node: Node) -> np.ndarray:
    if node.op in TRANSPOSED:
        return channels
    groups = node.attrs["groups"]
    split = channels.reshape((groups, shape[1], shape[0] // groups, *shape[2:]))
    return np.ascontiguousarray(split.transpose(0, 2, 1, 3, 4).reshape(shape))
