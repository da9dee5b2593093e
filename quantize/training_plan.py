"""What a training is to do: everything besides the samples that decides the weights it ends with.

Nothing here needs torch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..errors import UsageError


@dataclass(frozen=True)
class Plan:
    """Everything that decides the weights a training ends with, besides the samples.

    Attributes:
        width: channels of the first level.
        bilinear: the variant that upsamples by interpolation.
        epochs: passes over the samples.
        batch_size: pictures per pass through the network; a shorter last batch is left out.
        accumulate: batches whose gradients are added up before the weights move.
        learning_rate: of Adam, at its highest; a cosine brings it to 0.
        warmup: steps over which it rises from 0.
        mask_share: share of the mask's loss; the label's has the rest.
        tail_limit: activations above this are penalised by the mean of their squared excess, so
            that eight bits hold what the classifier's maximum looks at; 0 for no penalty.
        augment: mirror, move, zoom and recolour the pictures.
        self_blending: share of the manipulated pictures in whose place a self-blended authentic
            one is shown, another each epoch.
        degrade: send half of the pictures through a worse camera.
        bfloat16: compute in bfloat16 where torch deems it safe (weights stay float32).
        recompute: keep no tensors inside a double convolution for the gradient but compute them
            again: half the memory, a third more time, the same weights.
        patience: stop after so many epochs without a better AUC over the validation's videos; 0
            never.
        seed: of the weights, the order and the augmentation.

    Raises:
        UsageError: a value is out of its range.
    """

    width: int = 8
    bilinear: bool = False
    epochs: int = 10
    batch_size: int = 16
    accumulate: int = 1
    learning_rate: float = 2e-3
    warmup: int = 100
    mask_share: float = 0.5
    tail_limit: float = 0.0
    augment: bool = True
    self_blending: float = 0.0
    degrade: bool = False
    bfloat16: bool = False
    recompute: bool = False
    patience: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("epochs", 0), ("batch_size", 1), ("accumulate", 1), ("patience", 0)):
            if getattr(self, name) < least:
                option = name.replace("_", "-")
                raise UsageError(
                    f"--{option} is {getattr(self, name)}", f"the least is {least}", "give more"
                )
        for name in ("mask_share", "self_blending"):
            if not 0 <= getattr(self, name) <= 1:
                option = name.replace("_", "-")
                raise UsageError(
                    f"--{option} is {getattr(self, name)}", "it is a share", "give 0 to 1"
                )

    @property
    def pictures_per_step(self) -> int:
        """Pictures whose gradients are added up before the weights move."""
        return self.batch_size * self.accumulate

    def rate(self, step: int, steps: int) -> float:
        """The learning rate of a step out of ``steps``."""
        rise = min(1.0, (step + 1) / max(1, self.warmup))
        return self.learning_rate * rise * 0.5 * (1.0 + math.cos(math.pi * step / max(1, steps)))
