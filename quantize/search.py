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
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import DataError
from ..files import write_text
from .candidates import Floors, Judge, Recipe, Shift, Trial, journal_line, read_trial, shifted
from .finetune import Finetuned
from .graph import INPUT
from .layer_noise import Interior, try_in_float
from .metrics import Scores
from .options import QuantizeOptions
from .quantizer import FEWEST_IMAGES, Calibration, Quantizer
from .samples import Samples

RATES = (0.5, 2.0, 4.0)
"""Steps of bias correction that are tried, as factors of the release's."""
SUBSETS = 2
"""Halves of the calibration pictures that are tried."""
LAYERS = 4
"""Most harmful tensors whose positions are shifted."""
NOISE_IMAGES = 8
"""Pictures on which the most harmful tensors are found."""


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
        finetune_images: int = 12,
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
                trial = read_trial(line)
                known[json.dumps(asdict(trial.recipe), sort_keys=True)] = trial
        except (ValueError, KeyError, TypeError):
            return {}  # a journal is a help only: what cannot be read is tried again
        return known

    def _write(self) -> None:
        if self.folder is None:
            return
        lines = [{"search": self._digest}, *(journal_line(trial) for trial in self._known.values())]
        text = "".join(json.dumps(line) + "\n" for line in lines)
        self.folder.mkdir(parents=True, exist_ok=True)
        write_text(self.folder / self.JOURNAL, text)
