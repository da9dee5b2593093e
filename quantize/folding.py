"""Batch norm folded into the convolution before it, in float32.

With ``scale = gamma / sqrt(var + eps)`` and ``offset = beta - mean * scale`` the convolution's
output channels are multiplied by ``scale`` and its bias becomes ``bias * scale + offset`` (rule
2.2 of the vendor's quantizer); where a concat of convolutions stands between, each gets its share.
A batch norm that follows no convolution becomes an equivalent one
with mean 0, variance 1 and eps 0 (rule 2.3) and stays an operator of its own.
"""

from __future__ import annotations

from typing import Tuple

import numpy as np

from ..errors import UnsupportedError
from .graph import BATCH_NORM, CONCAT, CONVOLUTIONS, TRANSPOSED, Node, QuantizerGraph


def fold_batch_norms(graph: QuantizerGraph) -> None:
    """Folds every batch norm of ``graph`` in place and numbers the remaining nodes.

    Raises:
        UnsupportedError: a convolution feeds a batch norm and something else too.
    """
    uses = graph.uses()
    for node in [n for n in graph.nodes if n.op == BATCH_NORM]:
        scale, offset = _scale_and_offset(graph, node)
        source = node.inputs[0]
        joined = source.op == CONCAT and source.attrs["axis"] == 1 and uses[source] <= 1
        targets = source.inputs if joined else [source]
        if any(target.op not in CONVOLUTIONS for target in targets):
            _normalise(graph, node, scale, offset)
            continue
        first = 0
        for target in targets:
            if uses[target] > 1 or targets.count(target) > 1:
                # Folding would silently change what the other reader sees.
                raise UnsupportedError(
                    "A convolution feeds a batch norm and another operator too, so the batch norm "
                    "cannot be folded into it",
                    f"{target.scope} and {node.scope}",
                    "give each reader its own convolution",
                )
            last = first + target.attrs["out_channels"]
            _fold(graph, target, scale[first:last], offset[first:last])
            first = last
        uses[source] = uses[node]
        for key in node.params.values():
            del graph.params[key]
        graph.remove(node)
    graph.number()


def _scale_and_offset(graph: QuantizerGraph, node: Node) -> Tuple[np.ndarray, np.ndarray]:
    gamma, beta, mean, var = (
        graph.params[node.params[role]] for role in ("weight", "bias", "mean", "var")
    )
    # Square root and division are separate float32 operations.
    scale = gamma / np.sqrt(var + np.float32(node.attrs["eps"]))
    return scale, beta - mean * scale


def _fold(graph: QuantizerGraph, conv: Node, scale: np.ndarray, offset: np.ndarray) -> None:
    key = conv.params["weight"]
    weight = graph.params[key]
    if conv.op in TRANSPOSED:
        # Stored [in, out / groups, ...]; the output channels of group k belong to its slice of in.
        groups = conv.attrs["groups"]
        per_group = scale.reshape(groups, 1, -1, 1, 1)
        split = weight.reshape((groups, weight.shape[0] // groups, *weight.shape[1:]))
        graph.params[key] = (split * per_group).reshape(weight.shape)
    else:
        graph.params[key] = weight * scale.reshape(-1, 1, 1, 1)
    bias = graph.weight(conv, "bias")
    if bias is None:
        stem, _, copy = key.partition(".weight")
        after_weight = graph.release.bias_after_weight
        conv.params["bias"] = f"{key}.bias" if after_weight else f"{stem}.bias{copy}"
        graph.params[conv.params["bias"]] = offset
    else:
        graph.params[conv.params["bias"]] = bias * scale + offset


def _normalise(graph: QuantizerGraph, node: Node, scale: np.ndarray, offset: np.ndarray) -> None:
    graph.params[node.params["weight"]] = scale
    graph.params[node.params["bias"]] = offset
    for role in ("mean", "var"):
        del graph.params[node.params.pop(role)]
    node.attrs["eps"] = 0.0
