"""What quantization did to a model, as numbers: heads, verdicts, layers, weights, what to try.

``examine`` makes the record that ``report.json`` holds; ``calibration_page`` draws it.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple

import numpy as np

from ..files import write_json
from .calibration_page import write_calibration_page

if TYPE_CHECKING:
    from ..preprocessing import Preprocessing
    from ..quantize.dataset import Dataset
    from ..quantize.evaluation import Evaluation, Verdicts
    from ..quantize.layer_noise import Interior, OutputNoise, TensorNoise, WeightRange

REPORT_PAGE, REPORT_JSON = "report.html", "report.json"
SCHEMA = 1

LAYER_IMAGES = 16
"""Pictures over which layers are measured: their noise hardly changes with more."""
TRIED_IMAGES = 8
"""Pictures on which a layer is tried in float; each layer costs a pass over what follows it."""
TRIED_LAYERS = 12
"""How many are tried: those that add most noise of their own."""
SHOWN_LAYERS = 8
"""How many of the most damaging layers are told."""
POINTS = 2000
"""Pictures drawn and kept in the record at most, evenly taken."""

CLOSE, WORSE = 0.01, 0.05
"""A loss of Dice or AUC, or a share of changed verdicts, up to which INT8 counts as close to the
float model, and up to which as somewhat worse."""

CLIPPED, UNUSED, OVER_ROUNDING, SPREAD = 0.005, 2, 2.0, 32.0
"""From where on a symptom explains a layer's noise: share of clipped values, unused bits, noise
over that of rounding alone, widest output channel over the narrowest."""

CRITERION = (
    "largest balanced accuracy, the mean of the shares of FAKE found and of REAL passed; one half "
    "is kept where nothing is better"
)

METRICS = (
    ("mask", "Dice", "dice", True),
    ("mask", "IoU", "iou", True),
    ("verdict", "AUC", "auc", True),
    ("verdict", "accuracy", "accuracy", True),
    ("verdict", "EER", "eer", False),
    ("verdict", "log-loss", "log_loss", False),
    ("verdict", "calibration error (ECE)", "ece", False),
)
"""Head, name, attribute of ``Scores``, whether higher is better."""

Progress = Callable[[str, int], Callable[[int], None]]


def examine(
    evaluation: Evaluation,
    interior: Optional[Interior],
    dataset: Dataset,
    preprocessing: Preprocessing,
    calibration: Mapping[str, Any],
    progress: Progress,
) -> Dict[str, Any]:
    """The record of a report.

    Args:
        evaluation: both models on the whole data set.
        interior: the quantized model's tensors; ``None`` where they cannot be looked at.
        dataset: the pictures; a spread subset is read again for the layers.
        preprocessing: the model's record.
        calibration: ``results`` of the calibration's manifest.
        progress: opens a progress bar.
    """
    record: Dict[str, Any] = {
        "schema": SCHEMA,
        "data": str(dataset.folder),
        "images": evaluation.agreement.images,
        "labelled": evaluation.labelled,
        "masked": evaluation.masked,
        "summary": summarize(evaluation),
        "heads": heads(evaluation),
        "agreement": evaluation.agreement.to_json(),
        "why_no_scores": evaluation.why_no_scores,
        "verdicts": verdict_record(evaluation.verdicts),
        "calibration": {
            "images": calibration.get("images"),
            "gate": calibration.get("gate"),
            "adjustments": calibration.get("adjustments", []),
        },
        "layer_images": 0,
        "layers": [],
        "damaging": [],
        "weights": [],
    }
    if interior is not None:
        record.update(_layers(interior, dataset, preprocessing, calibration, progress))
    return record


def write_report(
    folder: Path, record: Mapping[str, Any], origin: Sequence[Tuple[str, str]]
) -> None:
    """Writes ``report.json`` and ``report.html``; ``origin`` is what it was made by, for people."""
    write_json(folder / REPORT_JSON, record)
    write_calibration_page(folder / REPORT_PAGE, record, origin)


def summarize(evaluation: Evaluation) -> Dict[str, str]:
    """How close INT8 is, in one word and one sentence."""
    alike = evaluation.agreement
    ours, theirs = evaluation.float_scores, evaluation.quantized_scores
    flips = f"{alike.verdict_flips} of {alike.images} verdicts differ"
    losses = [alike.verdict_flips / alike.images]
    words = []
    if ours is not None and theirs is not None:
        for name, before, after in (
            ("mask Dice", ours.dice, theirs.dice),
            ("AUC", ours.auc, theirs.auc),
        ):
            if not math.isnan(before) and not math.isnan(after):
                losses.append(before - after)
                words.append(f"{name} {before:.4f} becomes {after:.4f}")
    if not words:
        losses.append(1 - alike.mask_dice)
        words.append(f"the masks agree with a Dice of {alike.mask_dice:.4f}")
    worst = max(losses)
    kind = "close" if worst <= CLOSE else "worse" if worst <= WORSE else "bad"
    return {"kind": kind, "sentence": f"{', '.join(words)}, {flips}"}


def heads(evaluation: Evaluation) -> List[Dict[str, Any]]:
    """Every metric of both heads, float beside INT8; empty without labels."""
    ours, theirs = evaluation.float_scores, evaluation.quantized_scores
    if ours is None or theirs is None:
        return []
    rows = []
    for head, name, attribute, higher in METRICS:
        before, after = getattr(ours, attribute), getattr(theirs, attribute)
        rows.append(
            {
                "head": head,
                "metric": name,
                "float": number(before),
                "int8": number(after),
                "change": number(after - before),
                "better": "higher" if higher else "lower",
            }
        )
    return rows


def verdict_record(verdicts: Verdicts) -> Dict[str, Any]:
    """Scores of the pictures, where the verdict flips, reliability and the refitted threshold."""
    from ..quantize.metrics import balanced_accuracy, fitted_threshold, reliability

    labels = {1: "REAL", 0: "FAKE", -1: None}
    names = [labels[int(code)] for code in verdicts.labels]
    flips = []
    for i in verdicts.flips:
        quantized = "FAKE" if verdicts.quantized[i] >= 0.5 else "REAL"
        flips.append(
            {
                "picture": verdicts.names[i],
                "label": names[i],
                "float": number(verdicts.exact[i]),
                "int8": number(verdicts.quantized[i]),
                "right": None if names[i] is None else "int8" if quantized == names[i] else "float",
            }
        )
    known = verdicts.labels != -1
    fake = verdicts.labels[known] == 0
    exact, quantized_scores = verdicts.exact[known], verdicts.quantized[known]
    threshold, reached = fitted_threshold(quantized_scores, fake)
    float_threshold, float_reached = fitted_threshold(exact, fake)
    total = len(names)
    step = max(1, -(-total // POINTS))
    return {
        "flips": flips,
        "threshold": {
            "criterion": CRITERION,
            "int8": number(threshold),
            "int8_balanced_accuracy": number(reached),
            "int8_balanced_accuracy_at_half": number(
                balanced_accuracy(quantized_scores, fake, 0.5)
            ),
            "float": number(float_threshold),
            "float_balanced_accuracy": number(float_reached),
        },
        "reliability": {
            side: [[count, number(p), number(share)] for count, p, share in reliability(v, fake)]
            for side, v in (("float", exact), ("int8", quantized_scores))
        },
        "points": [
            [number(verdicts.exact[i]), number(verdicts.quantized[i]), names[i]]
            for i in range(0, total, step)
        ],
    }


def _layers(
    interior: Interior,
    dataset: Dataset,
    preprocessing: Preprocessing,
    calibration: Mapping[str, Any],
    progress: Progress,
) -> Dict[str, Any]:
    import torch

    from ..quantize.layer_noise import (
        IMAGES_AT_A_TIME,
        measure_tensors,
        try_in_float,
        weight_ranges,
    )

    chosen = dataset.subset(LAYER_IMAGES)
    tried: List[torch.Tensor] = []

    def pictures() -> Any:
        for batch in chosen.batches(IMAGES_AT_A_TIME, preprocessing, masks=False):
            floats = torch.from_numpy(batch.floats)
            if sum(len(part) for part in tried) < TRIED_IMAGES:
                tried.append(floats)
            yield floats

    tensors = measure_tensors(interior, pictures(), progress("layers", len(chosen)))
    weights = {found.key: found for found in weight_ranges(interior)}
    noisy = [t for t in tensors if t.operator != "input" and math.isfinite(t.own_snr)]
    noisy.sort(key=lambda tensor: tensor.own_snr)
    names = [tensor.name for tensor in noisy[:TRIED_LAYERS]]
    passes = (len(names) + 1) * len(tried)
    gains = try_in_float(interior, names, tried, progress("in float", passes))[1:]
    clipped = calibration.get("saturation", {})
    return {
        "layer_images": chosen_count(tensors, interior),
        "tried_images": sum(len(part) for part in tried),
        "layers": [layer_record(tensor, clipped.get(tensor.name, 0.0)) for tensor in tensors],
        "tried_layers": len(names),
        "damaging": damaging(noisy, gains, weights, clipped, interior),
        "weights": [
            {
                "key": w.key.split("::")[-1],
                "position": w.position,
                "before": number(w.before),
                "after": number(w.after),
                "spread_before": number(w.spread_before),
                "spread_after": number(w.spread_after),
                "snr_db": number(w.snr),
            }
            for w in weights.values()
        ],
    }


def chosen_count(tensors: Sequence[TensorNoise], interior: Interior) -> int:
    """Pictures the tensors were measured on, unreadable ones not counted."""
    if not tensors:
        return 0
    shape = interior.model.graph.by_name()[tensors[0].name].shape
    return tensors[0].values // max(1, int(np.prod(shape[1:])))


def layer_record(tensor: TensorNoise, calibrated: float) -> Dict[str, Any]:
    """One layer; ``calibrated`` is the share of its values clipped during calibration.

    ``snr_db`` and ``own_snr_db`` are null where there is no noise at all.
    """
    return {
        "name": tensor.name,
        "label": label(tensor),
        "operator": tensor.operator,
        "position": tensor.position,
        "snr_db": number(tensor.snr),
        "own_snr_db": number(tensor.own_snr),
        "over_rounding": number(tensor.over_rounding),
        "saturated_share": number(tensor.saturated_share),
        "saturated_in_calibration": number(calibrated),
        "unused_bits": tensor.unused_bits,
        "codes": list(tensor.codes),
        "histogram": [int(count) for count in tensor.histogram],
    }


def damaging(
    noisy: Sequence[TensorNoise],
    gains: Sequence[OutputNoise],
    weights: Mapping[str, WeightRange],
    clipped: Mapping[str, float],
    interior: Interior,
) -> List[Dict[str, Any]]:
    """The layers that were tried in float, the one that gains most first, each with advice."""
    nodes = interior.model.graph.by_name()
    by_name = {tensor.name: tensor for tensor in noisy}
    rows: List[Dict[str, Any]] = []
    for tried in gains:
        tensor = by_name[tried.name]
        heads: Dict[str, float] = {}
        for output, gain in tried.gain.items():
            head = "mask" if len(nodes[output].shape) == 4 else "verdict"
            heads[head] = max(heads.get(head, -math.inf), gain)
        ranges = [weights[key] for key in tensor.weights if key in weights]
        cause, steps = advice(tensor, clipped.get(tensor.name, 0.0), ranges)
        rows.append(
            {
                "name": tensor.name,
                "label": label(tensor),
                "own_snr_db": number(tensor.own_snr),
                "gain_db": {head: number(gain) for head, gain in heads.items()},
                "cause": cause,
                "try": steps,
            }
        )
    rows.sort(key=lambda row: -max([g for g in row["gain_db"].values() if g is not None] or [0.0]))
    return rows[:SHOWN_LAYERS]


def advice(
    tensor: TensorNoise, calibrated: float, weights: Sequence[WeightRange]
) -> Tuple[str, List[str]]:
    """Why a layer is noisy and what to try, by its symptoms.

    Args:
        tensor: the layer.
        calibrated: share of its values clipped during calibration.
        weights: of the layer.
    """
    causes, steps = [], []
    share = tensor.saturated_share
    if share > CLIPPED:
        causes.append(f"{share:.1%} of its values are clipped, {calibrated:.1%} in calibration")
        if share > 4 * calibrated:
            steps.append("calibrate on pictures like these: they reach values it never met")
        else:
            steps.append("calibrate with larger batches (-b), so that each meets the whole range")
    if tensor.unused_bits >= UNUSED:
        causes.append(f"{tensor.unused_bits} of 7 bits are not used")
        steps.append(
            "look for a few odd pictures in the calibration set that stretch its range; more "
            "pictures outvote them"
        )
    spread = max((w.spread_after for w in weights), default=1.0)
    if weights and share <= CLIPPED and tensor.over_rounding > OVER_ROUNDING:
        causes.append(
            f"its noise is {tensor.over_rounding:.1f} times that of rounding its results, so most "
            "comes from its rounded weights"
        )
        steps.append("quant --mode calib --fast-finetune: it moves weights to make up for rounding")
    if spread > SPREAD:
        causes.append(f"its widest output channel is {spread:.0f} times its narrowest")
        if any(w.spread_after > 2 * w.spread_before for w in weights):
            steps.append("calibrate without equalization: it widened the spread here")
        else:
            steps.append("train on with weight decay, which evens channels out")
    if not causes:
        causes.append("eight bits for its results, nothing else")
        steps.append("no calibration helps: train with quantization, or keep it in float")
    else:
        steps.append("else keep it in float: the graph is cut there and the host computes it")
    return "; ".join(causes), steps


def label(tensor: TensorNoise) -> str:
    """A layer's name for people: the module path, and the operator where that does not say it."""
    path = ".".join(re.findall(r"\[([^\]]+)\]", tensor.scope))
    number_of = tensor.name.rsplit("_", 1)[-1]
    if path:
        return f"{path} {tensor.operator}"
    return "input" if tensor.operator == "input" else f"{tensor.operator} {number_of}"


def number(value: float, digits: int = 6) -> Optional[float]:
    """``value`` rounded for JSON; ``None`` where it is not finite."""
    return round(float(value), digits) if math.isfinite(value) else None
