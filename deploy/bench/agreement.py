"""Whether devices that were measured gave the same answers to the same frames."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Dict, List, Mapping, Optional, Sequence

import numpy as np

from ...inference.session import Prediction
from .contenders import EXACT

MUST_BE_EQUAL = ("card", "sim", "reference")
"""Those that compute a compiled model; one that differs from another is wrong."""


@dataclass(frozen=True)
class Agreement:
    """One device beside the one the others are compared with.

    Attributes:
        name: the contender's key.
        with_name: of the one compared with; empty where nothing was compared, see ``note``.
        images: compared.
        equal: whether every code is equal; ``None`` where nothing was compared.
        different: share of the mask logits that are not equal.
        mask_pixels: share of the mask's pixels of another class.
        flips: verdicts that are not the same.
        probability: the largest difference of a fake probability.
        failed: whether that must not be.
        note: why nothing was compared.
    """

    name: str
    with_name: str = ""
    images: int = 0
    equal: Optional[bool] = None
    different: float = 0.0
    mask_pixels: float = 0.0
    flips: int = 0
    probability: float = 0.0
    failed: bool = False
    note: str = ""

    def to_json(self) -> Dict[str, Any]:
        """A JSON object."""
        return asdict(self)


def joined(parts: Sequence[Prediction]) -> Prediction:
    """The answers to several batches as one."""
    scores = [part.score for part in parts]
    known = [score for score in scores if score is not None]
    return Prediction(
        np.concatenate([part.mask for part in parts]),
        np.concatenate([part.real for part in parts]),
        np.concatenate([part.logits for part in parts]),
        parts[0].device,
        parts[0].scale,
        np.concatenate(known) if len(known) == len(scores) else None,
    )


def agreements(
    answers: Mapping[str, Prediction],
    names: Mapping[str, str],
    threshold: float = 0.5,
    strangers: Sequence[str] = (),
) -> List[Agreement]:
    """Compares every device with the first exact one.

    Args:
        answers: by contender key, to the same frames in the same order; one may have answered
            fewer frames, then those are compared.
        names: contender key to device name.
        threshold: fake probability from which a verdict is FAKE.
        strangers: keys of networks with other parameters; not compared.
    """
    order = [key for name in EXACT for key in answers if names[key] == name]
    first = next((key for key in order if key not in strangers), "")
    found = []
    for key, answer in answers.items():
        if names[key] == "null":
            found.append(Agreement(key, note="gives zeros"))
        elif key in strangers:
            found.append(Agreement(key, note="has other random parameters"))
        elif not first:
            found.append(Agreement(key, note="no exact device to compare with"))
        elif key == first:
            found.append(Agreement(key, note="the others are compared with it"))
        else:
            must = {names[key], names[first]} <= set(MUST_BE_EQUAL)
            found.append(_compared(key, answer, first, answers[first], threshold, must))
    return found


def _compared(
    key: str, answer: Prediction, first: str, exact: Prediction, threshold: float, must: bool
) -> Agreement:
    count = min(len(answer.real), len(exact.real))
    ours = answer.logits[:count].astype(np.float64) * answer.scale
    theirs = exact.logits[:count].astype(np.float64) * exact.scale
    probability, wanted = 1.0 - answer.real[:count], 1.0 - exact.real[:count]
    different = float(np.mean(ours != theirs))
    gap = float(np.max(np.abs(probability - wanted)))
    # Two sigmoids of one value may differ in the last place.
    equal = different == 0 and gap <= 1e-6
    return Agreement(
        key,
        first,
        count,
        equal,
        different,
        float(np.mean(answer.mask[:count] != exact.mask[:count])),
        int(np.sum((probability >= threshold) != (wanted >= threshold))),
        gap,
        failed=must and not equal,
    )
