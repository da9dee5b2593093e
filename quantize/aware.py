"""Quantization-aware training: the network is trained as the quantizer will make it.

``AwareNetwork`` computes what ``QuantizedModel`` computes: the same traced, folded and equalized
graph, the same fix positions and bias corrections, every parameter and tensor on its grid. Its
parameters stay float underneath and gradients pass the roundings as if there were none, except
where a value saturates. ``AwareTrainer`` trains it in rounds: after each epoch the parameters go
back into a plain U-YNet, which is quantized anew, so that what is simulated in the last round is
what post-training quantization makes of the checkpoint that is written.

Importing this module imports torch.
"""

from __future__ import annotations

from typing import Any, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import UsageError
from ..preprocessing import to_float
from .execution import Params, run
from .fixpoint import Rounding, limits, quantize
from .graph import Node, substitute
from .options import QuantizeOptions
from .quantizer import Calibration, Quantizer
from .recording import tensors_in
from .samples import Samples, Validation, validate
from .training import Trainer
from .training_plan import Plan

CALIBRATION_IMAGES = 64
"""Pictures of the training that every round is calibrated on."""

_BATCH = 8


class _Straight(torch.autograd.Function):
    """Rounds to a grid; gradients pass as if it did not, but not where it saturates."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, position: int, rounding: Rounding, bits: int) -> Tensor:
        scaled = x * 2.0**position
        low, high = limits(bits)
        ctx.save_for_backward((scaled >= low - 0.5) & (scaled < high + 0.5))
        return quantize(x, position, rounding, bits)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tuple[Tensor, None, None, None]:
        (inside,) = ctx.saved_tensors
        return gradient * inside, None, None, None


class AwareNetwork(nn.Module):
    """A quantized network that can be trained.

    Args:
        quantizer: of the float network.
        calibration: its fix positions and bias corrections; they stay as they are.

    Attributes:
        keys: of the parameters, in order.
        values: their float values.
    """

    def __init__(self, quantizer: Quantizer, calibration: Calibration) -> None:
        super().__init__()
        model = quantizer.quantized(calibration)
        self.graph, self.info, self._positions = model.graph, model.info, model.node_positions
        self.keys: List[str] = list(self.graph.params)
        self.values = nn.ParameterList(
            [nn.Parameter(torch.from_numpy(self.graph.params[key].copy())) for key in self.keys]
        )
        corrections = self.info.corrections or {}
        self._corrections = {
            node: torch.tensor(value, dtype=torch.float32)
            for node in self.graph.nodes
            for value in (corrections.get(self.graph.file_name(node)),)
            if value is not None
        }

    def forward(self, *inputs: Any) -> Any:
        """As ``QuantizedModel``: the network's outputs in its own structure, on the grid."""
        table = dict(zip(self.keys, self.values))
        found = run(
            self.graph, tensors_in(inputs), lambda node: self._params(node, table), self._finish
        )
        return substitute(self.graph.outputs, found)

    def parameter_arrays(self) -> Dict[str, np.ndarray]:
        """The float values by key, in PyTorch's layout."""
        return {
            key: value.detach().cpu().numpy().copy() for key, value in zip(self.keys, self.values)
        }

    def _params(self, node: Node, table: Mapping[str, Tensor]) -> Params:
        params: Dict[str, Optional[Tensor]] = {"bias": None}
        for role, key in node.params.items():
            value = table[key]
            if role == "bias" and node in self._corrections:
                value = value - self._corrections[node]
            params[role] = self._straight(value, self.info.params[key], Rounding.HALF_AWAY)
        return params

    def _finish(self, node: Node, raw: Tensor, operands: Sequence[Tensor]) -> Tensor:
        position = self._positions.get(node)
        return raw if position is None else self._straight(raw, position, Rounding.HALF_UP)

    def _straight(self, value: Tensor, position: int, rounding: Rounding) -> Tensor:
        bits = self.graph.bits
        result: Tensor = _Straight.apply(value, position, rounding, bits)  # type: ignore[no-untyped-call]
        return result


def unfolded(
    state: Mapping[str, Tensor], params: Mapping[str, np.ndarray], norms: Mapping[str, float]
) -> Dict[str, Tensor]:
    """A ``state_dict`` whose folding gives ``params`` exactly: batch norms that do nothing.

    Args:
        state: of the network, for shapes and names.
        params: folded values by key, ``<model>::<name>``.
        norms: name of every batch norm to its eps.

    Raises:
        UsageError: a parameter of ``params`` is not one of the network's own.
    """
    found = {key: value.detach().clone() for key, value in state.items()}
    for key, value in params.items():
        name = key.split("::", 1)[1]
        if name not in found or tuple(found[name].shape) != value.shape:
            raise UsageError(
                "The trained parameters cannot be put back into the network",
                f"it has no {name} of shape {list(value.shape)}",
                "give convolutions that a batch norm follows a bias",
            )
        found[name] = torch.from_numpy(np.ascontiguousarray(value))
    for name, eps in norms.items():
        # Folding divides by the same float32 root, so its scale is 1 to the last bit.
        root = np.sqrt(np.float32(1) + np.float32(eps))
        for role, number in (
            ("weight", root),
            ("bias", 0),
            ("running_mean", 0),
            ("running_var", 1),
        ):
            tensor = found[f"{name}.{role}"]
            found[f"{name}.{role}"] = torch.full_like(tensor, float(number))
    return found


class AwareTrainer(Trainer):
    """Quantization-aware training of trained weights, one round per epoch.

    Args:
        plan: what to do; computes in float32 and keeps no tail limit.
        samples: what to learn from; ``CALIBRATION_IMAGES`` of them calibrate.
        validation: what the best weights are chosen by, quantized.
        weights: a ``state_dict`` of trained float weights.
        options: how it will be quantized.
    """

    def __init__(
        self,
        plan: Plan,
        samples: Samples,
        validation: Optional[Samples] = None,
        weights: Optional[Mapping[str, Tensor]] = None,
        options: Optional[QuantizeOptions] = None,
    ) -> None:
        for name in ("bfloat16", "recompute", "tail_limit"):
            if getattr(plan, name):
                raise UsageError(
                    f"Quantization-aware training goes without --{name.replace('_', '-')}",
                    "it computes on the DPU's grid in float32",
                    "leave it out",
                )
        super().__init__(plan, samples, validation, weights)
        self._options = options or QuantizeOptions()
        rng = np.random.RandomState([plan.seed, 5])
        chosen = np.sort(rng.permutation(len(samples))[:CALIBRATION_IMAGES])
        self._calibration_images = samples.images[chosen]
        self._begin_round()

    def _begin_round(self) -> None:
        """Quantizes the network as it stands, and trains what came of it from here on."""
        self.model.eval()
        self._anchor = {key: value.clone() for key, value in self.model.state_dict().items()}
        example = torch.from_numpy(
            to_float(self._calibration_images[:1], self.samples.preprocessing)
        )
        quantizer = Quantizer(self.model, example, self._options)
        aware = AwareNetwork(quantizer, quantizer.calibrate(self._pictures()))
        self.network: AwareNetwork = aware
        self._adam = torch.optim.Adam(aware.parameters(), lr=self.plan.learning_rate)

    def _pictures(self) -> Iterator[Tensor]:
        for start in range(0, len(self._calibration_images), _BATCH):
            part = self._calibration_images[start : start + _BATCH]
            yield torch.from_numpy(to_float(part, self.samples.preprocessing))

    def _write_back(self) -> None:
        norms = {
            name: module.eps
            for name, module in self.model.named_modules()
            if isinstance(module, nn.BatchNorm2d)
        }
        state = unfolded(self.model.state_dict(), self.network.parameter_arrays(), norms)
        self.model.load_state_dict(state)

    def _validated(self) -> Optional[Validation]:
        """What post-training quantization of the weights so far is worth."""
        self._write_back()
        self._begin_round()
        return validate(self.network, self.validation) if self.validation else None

    def _state(self) -> Dict[str, Any]:
        return {
            **super()._state(),
            "anchor": self._anchor,
            "aware": [value.detach() for value in self.network.values],
        }

    def _set_state(self, content: Mapping[str, Any]) -> None:
        if "anchor" not in content:
            raise UsageError(
                "The checkpoint is of a training in float",
                "it holds no state of quantization-aware training",
                "leave --quantization-aware out, or name another folder",
            )
        self.model.load_state_dict(content["anchor"])
        self._begin_round()
        with torch.no_grad():
            for value, saved in zip(self.network.values, content["aware"]):
                value.copy_(saved)
        super()._set_state({**content, "state_dict": content["anchor"]})
