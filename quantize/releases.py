"""The vendor's releases: what the quantizer of each does and writes differently.

A card's container comes with one release, whose compiler expects that release's files; the
numbers differ in few places only. One record per release holds every difference this package
knows of, and the rules ask it instead of comparing releases. Clamping before or after rounding,
which also changed, gives the same code for every value below 2**31 and needs no field.

Releases 1.4.1, 2.0, 2.5 and 3.5 were recorded; 3.0 follows the rules alone.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Dict

from ..errors import UsageError


class Unfilled(enum.Enum):
    """Operators that are listed in the result but never get a fix position, nor a fix operator."""

    NONE = "none"
    GATES = "sigmoid and tanh"
    SOFTMAX = "softmax"


class PoolFactors(enum.Enum):
    """Which average pools are multiplied by the DPU's approximation of their division."""

    SQUARE_TABLE = "table"
    """The square windows of the table; adaptive pooling only if it leaves one pixel."""
    ALL = "all"
    """The table's windows, and the best factor for every other."""


class Flattening(enum.Enum):
    """What stands in the exported model where a map is flattened before a linear layer."""

    INNER_TRANSPOSE = "<name>_i0"
    """``transpose`` under the flattening operator's name, then ``flatten``."""
    GRAPH_SINK = "<graph>__<source>_sink_tranpose_0"
    """``transpose`` under the source's name (misspelt so), then ``flatten``."""
    SINK = "<source>_sink_transpose_0"
    """``transpose`` under the source's name, then ``flatten``."""
    REORDERED = "reshape"
    """``reshape``; the linear layer's columns are put in the order of the map instead."""


@dataclass(frozen=True)
class Release:
    """What one release does.

    Attributes:
        name: as users and the vendor write it.
        correction_rate: default step of bias correction.
        empty_position: fix position of a tensor of zeros, before the cap.
        sequential_sums: the search adds squared errors one by one in float32.
        unfilled: entries that stay without a fix position.
        softmax_fixed: the result of a softmax is quantized.
        nested_pairs: positions are written ``[[8,5]]``, not ``[8,5]``.
        plain_names: tensors are called by operator and number, not by module scope.
        flags: the result says whether it is fine-tuned and bias corrected.
        version: the result names the tool that wrote it.
        digest: the result holds a digest of the graph.
        bias_after_weight: a bias made by folding is called ``<weight's name>.bias``.
        dropout_in_chains: dropout is still there while weights are equalized, and ends a chain.
        grouped_equalization: grouped convolutions are equalized.
        pool_factors: see ``PoolFactors``.
        plain_average: an average pool with factor 1 is exported without the multiplication.
        gate_inputs: hard sigmoid and hard swish also bound their input's position, and hard swish
            its output's.
        shifts_last: the shift rules run after all other adjustments, not in node order with them.
        null_stops_adjustment: an entry left without a position (a gate's apart) keeps all others
            from being adjusted.
        flattening: see ``Flattening``.
        return_ops: the exported graph lists its results.
        layerwise_finetune: fast finetune tunes layer by layer against cached results; the oldest
            has another variant.
        recent_torch: the container's torch is recent: it traces means and sums in a form the
            quantizer does not know, so that they stay float, and padding in one without rules.
    """

    name: str
    correction_rate: float
    empty_position: int
    sequential_sums: bool
    unfilled: Unfilled
    softmax_fixed: bool
    nested_pairs: bool
    plain_names: bool
    flags: bool
    version: bool
    digest: bool
    bias_after_weight: bool
    dropout_in_chains: bool
    grouped_equalization: bool
    pool_factors: PoolFactors
    plain_average: bool
    gate_inputs: bool
    shifts_last: bool
    null_stops_adjustment: bool
    flattening: Flattening
    return_ops: bool
    layerwise_finetune: bool
    recent_torch: bool = False

    def __str__(self) -> str:
        return self.name


V1_4_1 = Release(
    name="1.4.1",
    correction_rate=0.05,
    empty_position=0,
    sequential_sums=True,
    unfilled=Unfilled.GATES,
    softmax_fixed=False,
    nested_pairs=False,
    plain_names=False,
    flags=False,
    version=False,
    digest=False,
    bias_after_weight=True,
    dropout_in_chains=True,
    grouped_equalization=False,
    pool_factors=PoolFactors.SQUARE_TABLE,
    plain_average=True,
    gate_inputs=False,
    shifts_last=True,
    null_stops_adjustment=True,
    flattening=Flattening.INNER_TRANSPOSE,
    return_ops=True,
    layerwise_finetune=False,
)
V2_0 = Release(
    name="2.0",
    correction_rate=0.05,
    empty_position=0,
    sequential_sums=True,
    unfilled=Unfilled.NONE,
    softmax_fixed=False,
    nested_pairs=False,
    plain_names=False,
    flags=False,
    version=False,
    digest=False,
    bias_after_weight=False,
    dropout_in_chains=True,
    grouped_equalization=False,
    pool_factors=PoolFactors.ALL,
    plain_average=False,
    gate_inputs=False,
    shifts_last=True,
    null_stops_adjustment=True,
    flattening=Flattening.GRAPH_SINK,
    return_ops=True,
    layerwise_finetune=True,
)
V2_5 = Release(
    name="2.5",
    correction_rate=0.1,
    empty_position=18,
    sequential_sums=True,
    unfilled=Unfilled.SOFTMAX,
    softmax_fixed=False,
    nested_pairs=False,
    plain_names=False,
    flags=True,
    version=False,
    digest=False,
    bias_after_weight=False,
    dropout_in_chains=True,
    grouped_equalization=True,
    pool_factors=PoolFactors.ALL,
    plain_average=False,
    gate_inputs=False,
    shifts_last=True,
    null_stops_adjustment=True,
    flattening=Flattening.SINK,
    return_ops=False,
    layerwise_finetune=True,
)
V3_0 = Release(
    name="3.0",
    correction_rate=0.05,
    empty_position=18,
    sequential_sums=False,
    unfilled=Unfilled.NONE,
    softmax_fixed=True,
    nested_pairs=True,
    plain_names=False,
    flags=True,
    version=True,
    digest=False,
    bias_after_weight=False,
    dropout_in_chains=False,
    grouped_equalization=True,
    pool_factors=PoolFactors.ALL,
    plain_average=False,
    gate_inputs=True,
    shifts_last=True,
    null_stops_adjustment=False,
    flattening=Flattening.REORDERED,
    return_ops=False,
    layerwise_finetune=True,
)
V3_5 = Release(
    name="3.5",
    correction_rate=0.05,
    empty_position=18,
    sequential_sums=False,
    unfilled=Unfilled.NONE,
    softmax_fixed=True,
    nested_pairs=True,
    plain_names=True,
    flags=True,
    version=True,
    digest=True,
    bias_after_weight=False,
    dropout_in_chains=False,
    grouped_equalization=True,
    pool_factors=PoolFactors.ALL,
    plain_average=False,
    gate_inputs=True,
    shifts_last=False,
    null_stops_adjustment=False,
    flattening=Flattening.REORDERED,
    return_ops=False,
    layerwise_finetune=True,
    recent_torch=True,
)

RELEASES: Dict[str, Release] = {r.name: r for r in (V1_4_1, V2_0, V2_5, V3_0, V3_5)}
"""Every release by name, oldest first."""

DEFAULT = V3_0
"""The newest one made for the VCK5000."""


def release(name: str) -> Release:
    """The release called ``name``.

    Raises:
        UsageError: there is none.
    """
    found = RELEASES.get(name)
    if found is None:
        raise UsageError(
            f"Release {name!r} of the quantizer's rules is not known",
            f"known: {', '.join(RELEASES)}",
            "name the release of the container the model is for",
        )
    return found
