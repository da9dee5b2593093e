"""The modules of ``pytorch_nndct.nn`` that models made for the quantizer contain."""

from __future__ import annotations

from torch import Tensor, nn

__all__ = ["DeQuantStub", "QuantStub"]


class QuantStub(nn.Module):
    """Marks where the genuine quantizer starts; the drop-in quantizes the whole model."""

    def forward(self, x: Tensor) -> Tensor:
        """``x`` itself."""
        return x


class DeQuantStub(nn.Module):
    """Marks where the genuine quantizer ends; the drop-in quantizes the whole model."""

    def forward(self, x: Tensor) -> Tensor:
        """``x`` itself."""
        return x
