"""Operators as modules, which models written for quantization use in the place of functions."""

from __future__ import annotations

from typing import Any, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Add(nn.Module):
    """The sum of two tensors."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """``x + y``."""
        return torch.add(x, y)


class Sub(nn.Module):
    """The difference of two tensors."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """``x - y``."""
        return torch.sub(x, y)


class Mul(nn.Module):
    """The product of two tensors."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """``x * y``."""
        return torch.mul(x, y)


class Cat(nn.Module):
    """Tensors one behind the other."""

    def forward(self, tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
        """The ``tensors`` joined along ``dim``."""
        return torch.cat(list(tensors), dim)


class MaxPool2d(nn.Module):
    """Maximum pooling with its window given in the call."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """As ``torch.nn.functional.max_pool2d``."""
        pooled: Tensor = F.max_pool2d(x, *args, **kwargs)
        return pooled


class Interpolate(nn.Module):
    """Resizing."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """As ``torch.nn.functional.interpolate``."""
        return F.interpolate(x, *args, **kwargs)
