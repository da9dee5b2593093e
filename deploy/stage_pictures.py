"""The pictures of the quantize stage: which are taken, what the gate sees of them, in batches."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING, Dict, Iterator, List, Sequence

if TYPE_CHECKING:
    from torch import Tensor

    from ..quantize.checkpoint import Checkpoint
    from ..quantize.dataset import Dataset
    from ..quantize.gate import Census, Finding
    from .quantization import Progress, QuantRequest, Say

_SEED = 0


def read_pictures(request: QuantRequest, say: Say) -> Dataset:
    """The pictures the stage uses, as many as are asked for; says how many there are."""
    from ..quantize.dataset import read_dataset

    whole = read_dataset(request.data)
    dataset = whole if request.subset is None else whole.subset(request.subset, _SEED)
    labels = Counter(item.label or "without label" for item in dataset.items)
    counts = ", ".join(f"{count} {label}" for label, count in sorted(labels.items()))
    say(f"data {request.data}: {len(dataset)} of {len(whole)} images ({counts})")
    return dataset


def count_pictures(
    dataset: Dataset, request: QuantRequest, checkpoint: Checkpoint, progress: Progress
) -> Census:
    """Reads every calibration picture once, for the gate; cheap beside the calibration."""
    from ..quantize.gate import Census

    census = Census()
    done = progress("check", len(dataset))
    for batch in dataset.batches(request.batch_size, checkpoint.preprocessing, masks=False):
        census.add(batch)
        done(len(batch.items))
    return census


def float_batches(
    dataset: Dataset, request: QuantRequest, checkpoint: Checkpoint
) -> Iterator[Tensor]:
    """The calibration pictures."""
    import torch

    for batch in dataset.batches(request.batch_size, checkpoint.preprocessing, masks=False):
        yield torch.from_numpy(batch.floats)


def tuning_pictures(dataset: Dataset, request: QuantRequest, say: Say) -> Dataset:
    """The pictures of a fast finetune: all, or as many as are asked for."""
    count = request.finetune_images
    chosen = dataset if count is None else dataset.subset(count, _SEED)
    say(f"fast finetune on {len(chosen)} images; it takes long and can be stopped and gone on with")
    return chosen


def gate_record(census: Census, findings: Sequence[Finding]) -> Dict[str, object]:
    """What the gate saw, by which bounds, and which findings ``--force`` overrode."""
    from ..quantize.gate import Limits

    return {
        "pictures": census.to_json(),
        "limits": asdict(Limits()),
        "overridden": [finding.to_json() for finding in findings],
    }


def unused_pictures(dataset: Dataset, request: QuantRequest) -> str:
    """Why there may be fewer pictures than the user thinks."""
    seen = [] if request.subset is None else [f"--subset {request.subset}"]
    if dataset.problems:
        seen.append(problem_summary(dataset))
    return ", ".join(seen)


def data_warnings(dataset: Dataset) -> List[str]:
    """What a person should know of the pictures, for a manifest."""
    return [problem_summary(dataset)] if dataset.problems else []


def problem_summary(dataset: Dataset, shown: int = 3) -> str:
    """The defects of a data set in one line: counts, and the first few by name."""
    counts = ", ".join(f"{count} {kind}" for kind, count in dataset.problem_counts.items())
    names = ", ".join(problem.path.name for problem in dataset.problems[:shown])
    more = ", ..." if len(dataset.problems) > shown else ""
    return f"{counts} ({names}{more})"
