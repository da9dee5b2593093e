"""Candidates of a quantization search: how one is made, what it must reach, what it is worth.

Importing this module imports torch.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any, Callable, Dict, List, Mapping, Optional, Tuple

import numpy as np
import torch
from torch import Tensor, nn

from ..preprocessing import to_float
from .adjustment import adjust
from .evaluation import predict
from .metrics import Scores, Tally
from .quantizer import Quantizer
from .results import QuantInfo
from .samples import Samples

_BATCH = 16


@dataclass(frozen=True)
class Shift:
    """A fix position moved: of an ``output`` or of a ``param``, by its name in the files."""

    kind: str
    name: str
    delta: int


@dataclass(frozen=True)
class Recipe:
    """How one candidate is calibrated; the default is the vendor's own way.

    Attributes:
        by_range: positions from the range of values, not by the least squared error.
        rate: factor of the release's step of bias correction.
        subset: seed of the half of the calibration pictures that is used; ``None`` for all.
        finetuned: after a fast finetune.
        shifts: fix positions moved afterwards.
    """

    by_range: bool = False
    rate: float = 1.0
    subset: Optional[int] = None
    finetuned: bool = False
    shifts: Tuple[Shift, ...] = ()

    def words(self) -> str:
        """What differs from the default, for people."""
        said = ["positions by range"] if self.by_range else []
        if self.rate != 1.0:
            said.append(f"bias correction x{self.rate:g}")
        if self.subset is not None:
            said.append(f"half of the pictures (seed {self.subset})")
        if self.finetuned:
            said.append("fast finetune")
        said += [f"{shift.name} {shift.delta:+d}" for shift in self.shifts]
        return ", ".join(said) or "default"


@dataclass(frozen=True)
class Floors:
    """What the quantized model must reach; ``None`` asks for nothing."""

    auc: Optional[float] = None
    iou: Optional[float] = None

    def missed(self, scores: Scores) -> List[str]:
        """Which floors ``scores`` does not reach, in words."""
        return [
            f"{title} {value:.4f} is below {floor:g}"
            for title, floor, value in (
                ("AUC", self.auc, scores.auc), ("mask IoU", self.iou, scores.iou),
            )
            if floor is not None and not value >= floor
        ]  # fmt: skip


@dataclass(frozen=True)
class Trial:
    """One candidate and what it was worth on the choosing set.

    Attributes:
        recipe: how it was made.
        scores: of the quantized model.
        damage: what it loses against the float model, see ``Judge``; the least wins.
    """

    recipe: Recipe
    scores: Scores
    damage: float

    def to_json(self) -> Dict[str, Any]:
        """A JSON object."""
        return {
            "recipe": asdict(self.recipe),
            "words": self.recipe.words(),
            "scores": self.scores.to_json(),
            "damage": round(self.damage, 8),
        }


class Judge:
    """Compares quantized models with the float one on labelled pictures.

    The damage is the AUC and the IoU that are lost, and a tenth of how far verdicts and masks
    move: on few pictures an AUC is coarse, and two candidates often have the same.

    Args:
        model: the float network.
        samples: labelled pictures.

    Attributes:
        exact: the float model's scores.
    """

    def __init__(self, model: nn.Module, samples: Samples) -> None:
        self._samples = samples
        self.exact, self._fake, self._masks = self._run(model)

    def __call__(self, model: Callable[[Tensor], Any]) -> Tuple[Scores, float]:
        """The scores of a model and its damage."""
        scores, fake, masks = self._run(model)
        lost = (self.exact.auc - scores.auc) + (self.exact.iou - scores.iou)
        moved = float(np.abs(fake - self._fake).mean()) + float((masks != self._masks).mean())
        return scores, (0.0 if math.isnan(lost) else lost) + 0.1 * moved

    def _run(self, model: Callable[[Tensor], Any]) -> Tuple[Scores, np.ndarray, np.ndarray]:
        tally, fake, masks = Tally(), [], []
        for start in range(0, len(self._samples), _BATCH):
            rows = slice(start, start + _BATCH)
            images = self._samples.images[rows]
            found = predict(model, torch.from_numpy(to_float(images, self._samples.preprocessing)))
            fakes = self._samples.real[rows] < 0.5
            tally.add(found.fake, fakes, found.mask, self._samples.masks[rows])
            fake.append(found.fake)
            masks.append(found.mask)
        return tally.scores(), np.concatenate(fake), np.concatenate(masks)


def shifted(quantizer: Quantizer, info: QuantInfo, shift: Shift) -> Optional[QuantInfo]:
    """A calibration with one fix position moved, and others where the DPU's shifters ask for it.

    ``None`` where they undo the shift, or where no such position is there.
    """
    graph, entries = quantizer.graph, quantizer.entries
    params, names = dict(info.params), {graph.file_name(node): node for node in entries.outputs}
    outputs = {
        node: position
        for name, node in names.items()
        for position in (info.outputs.get(name),)
        if position is not None
    }
    table: Dict[Any, int] = params if shift.kind == "param" else outputs
    key = shift.name if shift.kind == "param" else names.get(shift.name)
    if key not in table:
        return None
    wanted = table[key] + shift.delta
    if wanted > quantizer.options.max_fix_position:
        return None
    table[key] = wanted
    adjust(graph, entries, params, outputs, quantizer.options.aligned)
    if table[key] != wanted:
        return None
    moved = {name: outputs.get(node) for name, node in names.items()}
    return replace(info, params=params, outputs=moved)


def journal_line(trial: Trial) -> Dict[str, Any]:
    """A trial as a line of the journal, in full precision."""
    return {
        "recipe": asdict(trial.recipe), "scores": asdict(trial.scores), "damage": trial.damage,
    }  # fmt: skip


def read_trial(line: Mapping[str, Any]) -> Trial:
    """A trial from a line of the journal.

    Raises:
        KeyError, TypeError, ValueError: it is none.
    """
    recipe = dict(line["recipe"])
    shifts = tuple(Shift(**shift) for shift in recipe.pop("shifts"))
    return Trial(Recipe(**recipe, shifts=shifts), Scores(**line["scores"]), float(line["damage"]))
