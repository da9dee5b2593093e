"""A search for the quantization that costs least, among those the vendor's files can express.

What is varied: the method that finds fix positions, the step of bias correction, which of the
calibration pictures are used, a fast finetune before it; and then, from the best of these, the fix
positions of the tensors and weights that do most harm, one step up or down each, kept where it
helps. Candidates are compared on one set of labelled pictures; what the result is worth must be
measured on another. Every candidate tried is noted in a journal, so a search that is stopped goes
on, and comes to the same end.

Importing this module imports torch.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import DataError
from ..files import write_text
from ..preprocessing import to_float
from .adjustment import adjust
from .evaluation import predict
from .finetune import Finetuned
from .graph import INPUT
from .layer_noise import Interior, try_in_float
from .metrics import Scores, Tally
from .options import QuantizeOptions
from .quantizer import FEWEST_IMAGES, Calibration, Quantizer
from .results import QuantInfo
from .samples import Samples

RATES = (0.25, 0.5, 2.0, 4.0)
"""Steps of bias correction that are tried, as factors of the release's."""
SUBSETS = 3
"""Halves of the calibration pictures that are tried."""
LAYERS = 6
"""Most harmful tensors whose positions are shifted."""
NOISE_IMAGES = 8
"""Pictures on which the most harmful tensors are found."""

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


@dataclass(frozen=True)
class SearchResult:
    """What a search found.

    Attributes:
        chosen: the candidate with the least damage that reaches the floors.
        calibration: its result, ready to be saved.
        trials: all candidates in the order they were tried, the default first.
        exact: the float model on the choosing set.
    """

    chosen: Trial
    calibration: Calibration
    trials: List[Trial]
    exact: Scores


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


class Search:
    """A search in progress.

    Args:
        model: float network in eval mode.
        calibration: batches of float pictures ``[N, 3, H, W]``, held in memory.
        choosing: labelled pictures that candidates are compared on.
        floors: what the result must reach there.
        options: of the quantizer; its release decides the form of the files.
        folder: where the journal and the finetune's state are kept; ``None`` keeps none.
        finetune_images: tune on so many pictures; 0 leaves fast finetune out.
        on_trial: called with the number of candidates done and of all that are foreseen.

    Raises:
        DataError: no calibration picture.
    """

    JOURNAL, STATE = "search.jsonl", "search_finetune.npz"

    def __init__(
        self,
        model: nn.Module,
        calibration: Sequence[Tensor],
        choosing: Samples,
        floors: Optional[Floors] = None,
        options: Optional[QuantizeOptions] = None,
        folder: Optional[Path] = None,
        finetune_images: int = 16,
        on_trial: Optional[Callable[[int, int], Any]] = None,
    ) -> None:
        if not calibration:
            raise DataError("A search needs calibration pictures", "none were given")
        self.model, self.batches, self.floors = model, list(calibration), floors or Floors()
        self.options, self.folder = options or QuantizeOptions(), folder
        self.finetune_images, self._on_trial = finetune_images, on_trial
        self.example = self.batches[0][:1]
        self.quantizer = Quantizer(model, self.example, self.options)
        self.judge = Judge(model, choosing)
        self.trials: List[Trial] = []
        self._made: Dict[Recipe, Calibration] = {}
        self._tuned: Optional[Finetuned] = None
        self._digest = self._make_digest(choosing)
        self._known = self._read()
        self._total = 0

    def run(self) -> SearchResult:
        """Tries everything and gives the best.

        Raises:
            DataError: no candidate reaches the floors.
        """
        first = self._first_recipes()
        self._total = len(first) + 4 * LAYERS
        for recipe in first:
            self._try(recipe)
        best = min(self.trials, key=lambda trial: trial.damage)
        shifts = list(self._shifts(best.recipe))
        self._total = len(first) + len(shifts)
        for shift in shifts:
            if any(s.name == shift.name and s.kind == shift.kind for s in best.recipe.shifts):
                self._total -= 1  # moved the other way already
                continue
            recipe = replace(best.recipe, shifts=(*best.recipe.shifts, shift))
            trial = self._try(recipe)
            if trial is not None and trial.damage < best.damage:
                best = trial
        reaching = [trial for trial in self.trials if not self.floors.missed(trial.scores)]
        if not reaching:
            raise DataError(
                f"None of the {len(self.trials)} quantizations that were tried reaches the floor",
                f"the best, {best.recipe.words()}: {'; '.join(self.floors.missed(best.scores))}; "
                f"the float model has AUC {self.judge.exact.auc:.4f} and mask IoU "
                f"{self.judge.exact.iou:.4f} there",
                "lower --floor-auc or --floor-iou, or train on the grid: scripts/train.py "
                "--quantization-aware",
            )
        chosen = min(reaching, key=lambda trial: trial.damage)
        calibration = self.calibration(chosen.recipe)
        assert calibration is not None  # it was tried
        return SearchResult(chosen, calibration, self.trials, self.judge.exact)

    def calibration(self, recipe: Recipe) -> Optional[Calibration]:
        """What a recipe makes; ``None`` where the DPU's shifters undo its last shift."""
        base = replace(recipe, shifts=())
        if base not in self._made:
            self._made[base] = self._calibrate(base)
        found: Optional[Calibration] = self._made[base]
        for shift in recipe.shifts:
            info = None if found is None else shifted(self.quantizer, found.info, shift)
            found = None if found is None or info is None else replace(found, info=info)
        return found

    def _first_recipes(self) -> List[Recipe]:
        recipes = [Recipe(), Recipe(by_range=True)]
        if self.options.bias_correction:
            recipes += [Recipe(rate=rate) for rate in RATES]
        halves = [Recipe(subset=seed) for seed in range(SUBSETS)]
        if all(sum(map(len, self._used(half))) >= FEWEST_IMAGES for half in halves):
            recipes += halves
        if self.finetune_images and self.quantizer.graph.release.layerwise_finetune:
            recipes.append(Recipe(finetuned=True))
        return recipes

    def _calibrate(self, recipe: Recipe) -> Calibration:
        rate = self.options.rules().correction_rate if self.options.correction_rate is None else (
            self.options.correction_rate
        )  # fmt: skip
        options = replace(
            self.options, by_range=recipe.by_range, correction_rate=rate * recipe.rate
        )
        quantizer = Quantizer(self.model, self.example, options)
        tuned = None
        if recipe.finetuned:
            if self._tuned is None:
                state = None if self.folder is None else self.folder / self.STATE
                self._tuned = quantizer.finetune(self._tuning(), None, state)
            tuned = self._tuned
        return quantizer.calibrate(self._used(recipe), tuned=tuned)

    def _used(self, recipe: Recipe) -> List[Tensor]:
        """The calibration batches of a recipe: all, or a half."""
        if recipe.subset is None:
            return self.batches
        order = np.random.RandomState(recipe.subset).permutation(len(self.batches))
        return [self.batches[i] for i in np.sort(order[: (len(order) + 1) // 2])]

    def _tuning(self) -> Iterator[Tensor]:
        left = self.finetune_images
        for batch in self.batches:
            if left <= 0:
                return
            yield batch[:left]
            left -= len(batch)

    def _shifts(self, recipe: Recipe) -> Iterator[Shift]:
        """Shifts worth trying, those of the most harmful tensors first."""
        calibration = self.calibration(recipe)
        assert calibration is not None  # a recipe without shifts is always possible
        model = self.quantizer.quantized(calibration)
        graph = model.graph
        plain = self.quantizer.graph.params
        pictures = torch.cat(self.batches)[:NOISE_IMAGES]
        nodes = graph.by_name()
        names = [name for name in model.positions if nodes[name].op != INPUT]
        found = try_in_float(Interior(model, plain, plain), names, [pictures])
        harm = {record.name: sum(record.gain.values()) for record in found[1:]}
        worst = sorted(harm, key=lambda name: -harm[name])[:LAYERS]
        for name in worst:
            node = nodes[name]
            for delta in (-1, 1):
                yield Shift("output", graph.file_name(node), delta)
            weight = node.params.get("weight") or next(
                (source.params["weight"] for source in node.inputs if "weight" in source.params),
                None,
            )
            for delta in (-1, 1) if weight is not None else ():
                yield Shift("param", str(weight), delta)

    def _try(self, recipe: Recipe) -> Optional[Trial]:
        key = json.dumps(asdict(recipe), sort_keys=True)
        if key in self._known:
            trial = self._known[key]
        else:
            calibration = self.calibration(recipe)
            if calibration is None:
                self._total -= 1
                return None
            trial = Trial(recipe, *self.judge(self.quantizer.quantized(calibration)))
            self._known[key] = trial
            self._write()
        self.trials.append(trial)
        if self._on_trial is not None:
            self._on_trial(len(self.trials), max(self._total, len(self.trials)))
        return trial

    def _make_digest(self, choosing: Samples) -> str:
        digest = hashlib.sha256(self.quantizer.weights_fingerprint().encode())
        digest.update(f"{self.options} {self.finetune_images}".encode())
        for batch in self.batches:
            digest.update(batch.numpy().tobytes())
        for array in (choosing.images, choosing.masks, choosing.real):
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    def _read(self) -> Dict[str, Trial]:
        """The trials of an earlier search with the same weights, pictures and options."""
        path = None if self.folder is None else self.folder / self.JOURNAL
        if path is None or not path.is_file():
            return {}
        known: Dict[str, Trial] = {}
        try:
            lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
            if not lines or lines[0] != {"search": self._digest}:
                return {}
            for line in lines[1:]:
                trial = _read_trial(line)
                known[json.dumps(asdict(trial.recipe), sort_keys=True)] = trial
        except (ValueError, KeyError, TypeError):
            return {}  # a journal is a help only: what cannot be read is tried again
        return known

    def _write(self) -> None:
        if self.folder is None:
            return
        lines = [{"search": self._digest}, *(_line(trial) for trial in self._known.values())]
        text = "".join(json.dumps(line) + "\n" for line in lines)
        self.folder.mkdir(parents=True, exist_ok=True)
        write_text(self.folder / self.JOURNAL, text)


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


def _line(trial: Trial) -> Dict[str, Any]:
    return {
        "recipe": asdict(trial.recipe), "scores": asdict(trial.scores), "damage": trial.damage,
    }  # fmt: skip


def _read_trial(line: Mapping[str, Any]) -> Trial:
    recipe = dict(line["recipe"])
    shifts = tuple(Shift(**shift) for shift in recipe.pop("shifts"))
    return Trial(Recipe(**recipe, shifts=shifts), Scores(**line["scores"]), float(line["damage"]))
