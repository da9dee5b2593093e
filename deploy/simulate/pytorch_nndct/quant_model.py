"""``quant_model``: what the script calls in the place of its float model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn

if TYPE_CHECKING:
    from .engine import TorchQuantizer


class RecoveryModel(nn.Module):
    """The quantized model; it answers in the float model's structure."""

    def __init__(self, engine: TorchQuantizer) -> None:
        super().__init__()
        self.quant_model = engine.quant_model
        # Not a submodule: it is no part of the network.
        object.__setattr__(self, "_engine", engine)
        if engine.quant_model is not None:
            object.__setattr__(engine.quant_model, "forward", self.forward)
        self.eval()

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Runs the quantized model; see ``TorchQuantizer.forward``."""
        return self._engine.forward(args, kwargs)  # type: ignore[union-attr]
