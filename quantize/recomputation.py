"""Less memory for gradients: what is inside a double convolution is computed again, not kept.

The weights of a training come out the same to the last bit; batch norms do not count a batch twice.

Importing this module imports torch.
"""

from __future__ import annotations

import contextlib
import inspect
from typing import Iterator, List, Optional

import torch
from torch import Tensor, nn

from ..errors import UnsupportedError
from .model import DoubleConv


def recompute_gradients(model: nn.Module) -> None:
    """Makes every double convolution of ``model`` keep only its input for the gradient.

    Raises:
        UnsupportedError: torch is too old to tell the second pass from the first.
    """
    from torch.utils.checkpoint import checkpoint

    if "context_fn" not in inspect.signature(checkpoint).parameters:
        raise UnsupportedError(
            "This torch cannot recompute without counting batch norms twice",
            f"torch {torch.__version__}; 2.1 and newer can",
            "leave --recompute out, or take smaller batches with --accumulate",
        )

    @contextlib.contextmanager
    def again(norms: List[nn.BatchNorm2d]) -> Iterator[None]:
        # The running averages have seen this batch already.
        before = [(norm, norm.momentum, norm.num_batches_tracked) for norm in norms]
        for norm, _, count in before:
            norm.momentum, norm.num_batches_tracked = 0.0, _copied(count)
        try:
            yield
        finally:
            for norm, momentum, count in before:
                norm.momentum, norm.num_batches_tracked = momentum, count

    def wrap(block: DoubleConv) -> None:
        plain = block.forward
        norms = [module for module in block.modules() if isinstance(module, nn.BatchNorm2d)]

        def forward(x: Tensor) -> Tensor:
            if not (block.training and torch.is_grad_enabled()):
                return plain(x)
            result: Tensor = checkpoint(
                plain,
                x,
                use_reentrant=False,
                context_fn=lambda: (contextlib.nullcontext(), again(norms)),
            )
            return result

        block.forward = forward  # type: ignore[method-assign]

    for module in model.modules():
        if isinstance(module, DoubleConv):
            wrap(module)


def _copied(count: Optional[Tensor]) -> Optional[Tensor]:
    return None if count is None else count.clone()
