"""The float and the quantized model side by side on the same pictures.

With labels and masks the answer is how good each is; without, how often the two agree. A mask's
pixel is manipulated where its class 1 exceeds class 0; a picture is FAKE from a fake probability
(1 minus the network's output) of one half on, as in ``run``.

Importing this module imports torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Tuple

import numpy as np
import torch
from torch import Tensor

from ..errors import DataError
from ..preprocessing import Preprocessing
from .dataset import UNKNOWN_LABEL, Batch, Dataset
from .metrics import Counts, Scores, accuracy, auc, ece, eer, iou, log_loss

Model = Callable[[Tensor], Tuple[Tensor, Tensor]]
"""Float pictures ``[N, 3, H, W]`` to mask logits ``[N, 2, H, W]`` and ``[N, 1]`` (1 = REAL)."""


class Prediction(NamedTuple):
    """What a model says of a batch.

    Attributes:
        mask: bool ``[N, H, W]``, true = manipulated.
        fake: float64 ``[N]``, the fake probability.
    """

    mask: np.ndarray
    fake: np.ndarray


@dataclass(frozen=True)
class Agreement:
    """How alike the float and the quantized model are; needs no labels.

    Attributes:
        images: pictures compared.
        verdict_flips: pictures whose verdict differs.
        flipped: names of the first few of them.
        mask_pixels: share of pixels with the same class.
        mask_dice: Dice of the quantized mask against the float mask, all pixels together.
        mean_difference: mean absolute difference of the fake probability.
        max_difference: the largest.
    """

    images: int
    verdict_flips: int
    flipped: Tuple[str, ...]
    mask_pixels: float
    mask_dice: float
    mean_difference: float
    max_difference: float

    def to_json(self) -> Dict[str, Any]:
        """A JSON object, rounded to six digits."""
        record = dict(vars(self), flipped=list(self.flipped))
        return {k: round(v, 6) if isinstance(v, float) else v for k, v in record.items()}


@dataclass(frozen=True)
class Verdicts:
    """What both models said of every picture.

    Attributes:
        names: of the picture files.
        labels: int8 ``[N]``, 1 = REAL, 0 = FAKE, -1 = not known.
        exact: float64 ``[N]``, the float model's fake probability.
        quantized: float64 ``[N]``, the quantized model's.
    """

    names: Tuple[str, ...]
    labels: np.ndarray
    exact: np.ndarray
    quantized: np.ndarray

    @property
    def flips(self) -> np.ndarray:
        """Positions of the pictures whose verdict differs, int64 ``[F]``."""
        return np.flatnonzero((self.exact >= 0.5) != (self.quantized >= 0.5))


@dataclass(frozen=True)
class Evaluation:
    """Both models on one data set.

    Attributes:
        float_scores: of the float model; ``None`` where there are neither labels nor masks.
        quantized_scores: of the quantized model, likewise.
        labelled: pictures with a label; accuracy and AUC are over these.
        masked: pictures with a known mask; Dice and IoU are over these.
        agreement: of the two.
        verdicts: picture by picture; not in ``to_json``.
        why_no_scores: why ``float_scores`` is ``None``; empty where it is not.
    """

    float_scores: Optional[Scores]
    quantized_scores: Optional[Scores]
    labelled: int
    masked: int
    agreement: Agreement
    verdicts: Verdicts
    why_no_scores: str = ""

    def to_json(self) -> Dict[str, Any]:
        """A JSON object."""
        return {
            "float": self.float_scores.to_json() if self.float_scores else None,
            "quantized": self.quantized_scores.to_json() if self.quantized_scores else None,
            "labelled": self.labelled,
            "masked": self.masked,
            "agreement": self.agreement.to_json(),
            "why_no_scores": self.why_no_scores,
        }


def evaluate(
    float_model: Model,
    quantized_model: Model,
    dataset: Dataset,
    batch_size: int,
    preprocessing: Preprocessing,
    on_batch: Callable[[int], None] = lambda images: None,
) -> Evaluation:
    """Runs both models over a data set.

    Args:
        float_model: the checkpoint's network.
        quantized_model: its quantized form.
        dataset: pictures, read batch by batch.
        batch_size: pictures at a time.
        preprocessing: the model's record.
        on_batch: called with the number of pictures of each batch done.

    Raises:
        DataError: not one picture could be read.
    """
    ours, theirs = _Side(), _Side()
    agreement = _AgreementTally()
    for batch in dataset.batches(batch_size, preprocessing):
        pictures = torch.from_numpy(batch.floats)
        quantized = predict(quantized_model, pictures.clone())
        exact = predict(float_model, pictures)
        ours.add(exact, batch)
        theirs.add(quantized, batch)
        agreement.add(exact, quantized, batch)
        on_batch(len(batch.items))
    if agreement.images == 0:
        raise DataError(
            f"Not one picture of {dataset.folder} could be read",
            f"{len(dataset.problems)} problems, the first: {dataset.problems[0].path}",
            "check the pictures",
        )
    scored = ours.labelled > 0 or ours.masked > 0
    why = "" if scored else dataset.unlabelled or "no picture has a usable label or mask"
    return Evaluation(
        float_scores=ours.scores() if scored else None,
        quantized_scores=theirs.scores() if scored else None,
        labelled=ours.labelled,
        masked=ours.masked,
        agreement=agreement.result(),
        verdicts=agreement.verdicts(),
        why_no_scores=why,
    )


def predict(model: Model, pictures: Tensor) -> Prediction:
    """Runs a model on float pictures ``[N, 3, H, W]`` and decides pixels and verdicts."""
    with torch.no_grad():
        logits, real = model(pictures)
    planes = logits.numpy()
    return Prediction(
        mask=planes[:, 1] > planes[:, 0],
        fake=1.0 - real.numpy().reshape(-1).astype(np.float64),
    )


class _Side:
    """One model's predictions against the truth, where it is known."""

    def __init__(self) -> None:
        self.masked = 0
        self._pixels = Counts()
        self._ious: List[float] = []
        self._fake: List[np.ndarray] = []
        self._truth: List[np.ndarray] = []

    @property
    def labelled(self) -> int:
        return sum(map(len, self._truth))

    def add(self, found: Prediction, batch: Batch) -> None:
        known = batch.labels != UNKNOWN_LABEL
        self._fake.append(found.fake[known])
        self._truth.append(batch.labels[known] == 0)
        for i in np.flatnonzero(batch.mask_known):
            self._pixels = self._pixels + Counts.of(found.mask[i], batch.masks[i])
            if batch.masks[i].any():
                self._ious.append(iou(found.mask[i], batch.masks[i]))
            self.masked += 1

    def scores(self) -> Scores:
        fake, truth = np.concatenate(self._fake), np.concatenate(self._truth)
        nan = float("nan")
        return Scores(
            images=self.labelled,
            auc=auc(fake, truth),
            accuracy=accuracy(fake >= 0.5, truth),
            dice=self._pixels.dice if self.masked else nan,
            iou=self._pixels.iou if self.masked else nan,
            fake_iou=float(np.mean(self._ious)) if self._ious else nan,
            eer=eer(fake, truth),
            log_loss=log_loss(fake, truth),
            ece=ece(fake, truth),
        )


class _AgreementTally:
    _NAMED = 5

    def __init__(self) -> None:
        self.images = 0
        self._pixels = Counts()
        self._names: List[str] = []
        self._labels: List[np.ndarray] = []
        self._exact: List[np.ndarray] = []
        self._quantized: List[np.ndarray] = []

    def add(self, exact: Prediction, quantized: Prediction, batch: Batch) -> None:
        self.images += len(batch.items)
        self._pixels = self._pixels + Counts.of(quantized.mask, exact.mask)
        self._names += [item.image.name for item in batch.items]
        self._labels.append(batch.labels)
        self._exact.append(exact.fake)
        self._quantized.append(quantized.fake)

    def verdicts(self) -> Verdicts:
        return Verdicts(
            tuple(self._names),
            np.concatenate(self._labels),
            np.concatenate(self._exact),
            np.concatenate(self._quantized),
        )

    def result(self) -> Agreement:
        verdicts = self.verdicts()
        differences = np.abs(verdicts.exact - verdicts.quantized)
        return Agreement(
            images=self.images,
            verdict_flips=len(verdicts.flips),
            flipped=tuple(verdicts.names[i] for i in verdicts.flips[: self._NAMED]),
            mask_pixels=self._pixels.accuracy,
            mask_dice=self._pixels.dice,
            mean_difference=float(differences.mean()),
            max_difference=float(differences.max()),
        )
