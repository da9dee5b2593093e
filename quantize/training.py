"""Training of U-YNet: the samples, the loss, the loop and checkpoints that resume exactly.

The loss is that of the original: half cross-entropy of the mask, half binary cross-entropy of the
label. Everything random is drawn from the seed, the epoch and the sample's number, so a training
that is stopped and resumed gives the very weights of one that ran through.

Importing this module imports torch.
"""

from __future__ import annotations

import json
import math
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Mapping, Optional, Tuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import DataError, MismatchError, UsageError
from ..files import replacing
from ..preprocessing import Preprocessing, fit, to_float
from .dataset import Dataset
from .metrics import Scores, Tally
from .model import UYNet
from .pictures import fit_mask
from .synthetic import make_take

CHECKPOINT_FORMAT = 1


@dataclass(frozen=True, eq=False)
class Samples:
    """Labelled pictures in memory, at the network's size.

    Attributes:
        images: uint8 ``[N, H, W, 3]``, RGB.
        masks: uint8 ``[N, H, W]``, 1 = manipulated.
        real: float32 ``[N]``, 1 = REAL, 0 = FAKE.
        preprocessing: how the pictures were fitted.
    """

    images: np.ndarray
    masks: np.ndarray
    real: np.ndarray
    preprocessing: Preprocessing

    def __len__(self) -> int:
        return len(self.images)


def load_samples(
    dataset: Dataset,
    preprocessing: Optional[Preprocessing] = None,
    progress: Optional[Callable[[int], Any]] = None,
) -> Samples:
    """Reads a labelled data set into memory (about 0.2 MB a picture).

    Pictures without label or mask are left out; they are in ``dataset.problems``.

    Raises:
        DataError: nothing usable is left.
    """
    preprocessing = preprocessing or Preprocessing()
    shape = (len(dataset), preprocessing.height, preprocessing.width)
    images, masks = np.empty((*shape, 3), np.uint8), np.empty(shape, np.uint8)
    real, count = np.empty(len(dataset), np.float32), 0
    for batch in dataset.batches(64, preprocessing):
        keep = np.flatnonzero((batch.labels >= 0) & batch.mask_known)
        rows = slice(count, count + len(keep))
        images[rows], masks[rows] = batch.images[keep], batch.masks[keep]
        real[rows] = batch.labels[keep]
        count += len(keep)
        if progress is not None:
            progress(len(batch.items))
    if count == 0:
        raise DataError(
            f"The data in {dataset.folder} has no picture with label and mask",
            dataset.unlabelled or str(dataset.problem_counts),
            "give a folder with crops/, masks/ and metadata.json",
        )
    return Samples(images[:count], masks[:count], real[:count], preprocessing)


def draw_samples(
    split: str,
    videos: int,
    frames_per_video: int,
    seed: int = 0,
    preprocessing: Optional[Preprocessing] = None,
    progress: Optional[Callable[[int], Any]] = None,
) -> Samples:
    """Draws synthetic samples without writing them: the same as ``make_dataset`` would give."""
    preprocessing = preprocessing or Preprocessing()
    size = (preprocessing.height, preprocessing.width)
    images: List[np.ndarray] = []
    masks: List[np.ndarray] = []
    real: List[float] = []
    for video in range(videos):
        fake = video % 2 == 1
        take = make_take(split, seed, video // 2, frames_per_video, fake)
        images += [fit(picture, preprocessing) for picture in take.pictures]
        masks += [fit_mask(mask.astype(np.uint8), size) for mask in take.masks]
        real += [0.0 if fake else 1.0] * frames_per_video
        if progress is not None:
            progress(1)
    return Samples(np.stack(images), np.stack(masks), np.array(real, np.float32), preprocessing)


@dataclass(frozen=True)
class Plan:
    """Everything that decides the weights a training ends with, besides the samples.

    Attributes:
        width: channels of the first level.
        bilinear: the variant that upsamples by interpolation.
        epochs: passes over the samples.
        batch_size: pictures per step; a shorter last batch is left out.
        learning_rate: of Adam, at its highest; a cosine brings it to 0.
        warmup: steps over which it rises from 0.
        mask_share: share of the mask's loss; the label's has the rest.
        tail_limit: activations above this are penalised by the mean of their squared excess, so
            that eight bits hold what the classifier's maximum looks at; 0 for no penalty.
        augment: mirror, move, zoom and recolour the pictures.
        bfloat16: compute in bfloat16 where torch deems it safe (weights stay float32).
        seed: of the weights, the order and the augmentation.
    """

    width: int = 8
    bilinear: bool = False
    epochs: int = 10
    batch_size: int = 16
    learning_rate: float = 2e-3
    warmup: int = 100
    mask_share: float = 0.5
    tail_limit: float = 0.0
    augment: bool = True
    bfloat16: bool = False
    seed: int = 0

    def rate(self, step: int, steps: int) -> float:
        """The learning rate of a step out of ``steps``."""
        rise = min(1.0, (step + 1) / max(1, self.warmup))
        return self.learning_rate * rise * 0.5 * (1.0 + math.cos(math.pi * step / max(1, steps)))


@dataclass(frozen=True)
class StepReport:
    """One step: its place, the loss and its two halves before weighting, and the rate."""

    epoch: int
    step: int
    steps: int
    loss: float
    mask_loss: float
    label_loss: float
    rate: float


class Trainer:
    """A training in progress.

    Args:
        plan: what to do.
        samples: what to learn from.
        validation: what the best weights are chosen by; without it the last ones are the best.
        weights: a ``state_dict`` to begin with instead of random values.

    Attributes:
        step: steps done since the beginning.
        steps: steps of the whole training.
    """

    def __init__(
        self,
        plan: Plan,
        samples: Samples,
        validation: Optional[Samples] = None,
        weights: Optional[Mapping[str, Tensor]] = None,
    ) -> None:
        if len(samples) < plan.batch_size:
            raise UsageError(
                "There are fewer pictures than one batch holds",
                f"{len(samples)} pictures, batches of {plan.batch_size}",
                "give more data or a smaller --batch-size",
            )
        self.plan, self.samples, self.validation = plan, samples, validation
        torch.manual_seed(plan.seed)
        model = UYNet(bilinear=plan.bilinear, width=plan.width)
        if weights is not None:
            model.load_state_dict(weights)
        # Twice to four times as quick on a CPU as the default layout, for so few channels.
        self.model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._excess: List[Tensor] = []
        if plan.tail_limit > 0:
            self._watch_tails()
        self._adam = torch.optim.Adam(self.model.parameters(), lr=plan.learning_rate)
        self._per_epoch = len(samples) // plan.batch_size
        self.step, self.steps = 0, plan.epochs * self._per_epoch
        self.best_score = -math.inf
        self.best: Dict[str, Tensor] = {}

    @property
    def epoch(self) -> int:
        """The epoch the next step belongs to, from 0."""
        return self.step // self._per_epoch

    def run(
        self,
        folder: Optional[Path] = None,
        until: Optional[int] = None,
        save_every: int = 200,
        on_step: Optional[Callable[[StepReport], Any]] = None,
        on_epoch: Optional[Callable[[int, Optional[Scores]], Any]] = None,
    ) -> None:
        """Trains from where it stands.

        Args:
            folder: where ``last.pth`` is written every ``save_every`` steps and after each
                epoch; None writes nothing.
            until: stop after this step; None runs to the end.
            save_every: steps between checkpoints.
            on_step: told of every step.
            on_epoch: told of every epoch and its validation.
        """
        end = self.steps if until is None else min(until, self.steps)
        for images, masks, real in self._batches(self.step, end):
            report = self._train(images, masks, real)
            if on_step is not None:
                on_step(report)
            if self.step % self._per_epoch == 0:
                scores = score(self.model, self.validation) if self.validation else None
                self._keep_best(scores)
                if on_epoch is not None:
                    on_epoch(self.epoch - 1, scores)
            if folder and (self.step % save_every == 0 or self.step % self._per_epoch == 0):
                self.save(folder / "last.pth")
        if folder:
            self.save(folder / "last.pth")

    def _train(self, images: Tensor, masks: Tensor, real: Tensor) -> StepReport:
        rate = self.plan.rate(self.step, self.steps)
        for group in self._adam.param_groups:
            group["lr"] = rate
        self.model.train()
        self._excess.clear()
        self._adam.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.plan.bfloat16):
            logits, output = self.model(images)
        mask_loss = F.cross_entropy(logits.float(), masks)
        label_loss = F.binary_cross_entropy(output.float()[:, 0], real)
        share = self.plan.mask_share
        loss = share * mask_loss + (1.0 - share) * label_loss
        if self._excess:
            loss = loss + torch.stack(self._excess).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        self._adam.step()
        epoch = self.epoch
        self.step += 1
        return StepReport(
            epoch,
            self.step,
            self.steps,
            loss.item(),
            mask_loss.item(),
            label_loss.item(),
            rate,
        )

    def _watch_tails(self) -> None:
        """Notes how far activations exceed the limit, layer by layer, while training."""

        def note(module: torch.nn.Module, _: Any, output: Tensor) -> None:
            if module.training:
                excess = F.relu(output.float() - self.plan.tail_limit)
                self._excess.append(excess.square().mean())

        for module in self.model.modules():
            if isinstance(module, (torch.nn.ReLU, torch.nn.ConvTranspose2d, torch.nn.Linear)):
                module.register_forward_hook(note)

    def _batches(self, start: int, end: int) -> Iterator[Tuple[Tensor, Tensor, Tensor]]:
        """The batches of the steps from start to end, one prepared while another is used."""
        with ThreadPoolExecutor(1) as pool:
            coming: List[Future[Tuple[Tensor, Tensor, Tensor]]] = []
            for step in range(start, end):
                coming.append(pool.submit(self._batch, step))
                if len(coming) > 2:
                    yield coming.pop(0).result()
            while coming:
                yield coming.pop(0).result()

    def _batch(self, step: int) -> Tuple[Tensor, Tensor, Tensor]:
        epoch, place = divmod(step, self._per_epoch)
        order = np.random.RandomState([self.plan.seed, epoch, 1]).permutation(len(self.samples))
        size = self.plan.batch_size
        chosen = order[place * size : (place + 1) * size]
        images, masks = self.samples.images[chosen], self.samples.masks[chosen]
        if self.plan.augment:
            for i, number in enumerate(chosen):
                rng = np.random.RandomState([self.plan.seed, epoch, int(number), 2])
                images[i], masks[i] = augment(images[i], masks[i], rng)
        floats = torch.from_numpy(to_float(images, self.samples.preprocessing))
        return (
            floats.contiguous(memory_format=torch.channels_last),
            torch.from_numpy(masks.astype(np.int64)),
            torch.from_numpy(self.samples.real[chosen]),
        )

    def _keep_best(self, scores: Optional[Scores]) -> None:
        value = float(self.step) if scores is None else 0.5 * (scores.auc + scores.iou)
        if value > self.best_score or not self.best:
            self.best_score = value
            self.best = {k: v.detach().clone() for k, v in self.model.state_dict().items()}

    def save(self, path: Path) -> None:
        """Writes all that ``restore`` needs; plain tensors and values, nothing to execute."""
        content = {
            "format": CHECKPOINT_FORMAT,
            "state_dict": self.model.state_dict(),
            "optimizer": self._adam.state_dict(),
            "torch_rng": torch.get_rng_state(),
            "plan": asdict(self.plan),
            "samples": len(self.samples),
            "step": self.step,
            "epoch": self.epoch,
            "best": self.best,
            "best_score": self.best_score,
        }
        with replacing(path) as temporary:
            torch.save(content, str(temporary))

    def restore(self, path: Path) -> None:
        """Continues from a checkpoint written by ``save``.

        Raises:
            MismatchError: it belongs to another plan or to other samples.
        """
        content = torch.load(str(path), map_location="cpu", weights_only=True)
        if not isinstance(content, dict) or content.get("format") != CHECKPOINT_FORMAT:
            raise MismatchError(
                f"{path} is not a checkpoint of a training", "", "give the last.pth of a training"
            )
        theirs: Mapping[str, Any] = {**content["plan"], "samples": content["samples"]}
        ours = {**asdict(self.plan), "samples": len(self.samples)}
        different = [
            f"{name} is {theirs.get(name)} there, {value} here"
            for name, value in ours.items()
            if theirs.get(name) != value
        ]
        if different:
            raise MismatchError(
                f"The checkpoint {path} is of another training",
                "; ".join(different),
                "repeat the options it was begun with, or start afresh in another folder",
            )
        self.model.load_state_dict(content["state_dict"])
        self._adam.load_state_dict(content["optimizer"])
        torch.set_rng_state(content["torch_rng"])
        self.step, self.best = content["step"], content["best"]
        self.best_score = content["best_score"]


def augment(
    image: np.ndarray, mask: np.ndarray, rng: np.random.RandomState
) -> Tuple[np.ndarray, np.ndarray]:
    """The same face seen otherwise: mirrored, moved, zoomed, recoloured.

    Args:
        image: uint8 ``[H, W, 3]``, RGB.
        mask: uint8 ``[H, W]``.
        rng: source of randomness.

    Returns:
        New arrays of the same shapes and types.
    """
    import cv2

    if rng.uniform() < 0.5:
        image, mask = image[:, ::-1], mask[:, ::-1]
    height, width = mask.shape
    if rng.uniform() < 0.5:
        zoom = rng.uniform(0.85, 1.25)
        shift = rng.uniform(-0.08, 0.08, 2) * (width, height)
        middle = np.array([width / 2.0, height / 2.0])
        move = np.column_stack([np.eye(2) * zoom, middle * (1 - zoom) + shift])
        image = cv2.warpAffine(
            np.ascontiguousarray(image),
            move,
            (width, height),
            flags=cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        )
        mask = cv2.warpAffine(
            np.ascontiguousarray(mask),
            move,
            (width, height),
            flags=cv2.INTER_NEAREST,
            borderMode=cv2.BORDER_REPLICATE,
        )
    gain, offset = rng.uniform(0.85, 1.15, 3), rng.uniform(-12, 12)
    table = np.clip(np.arange(256)[:, None] * gain + offset + 0.5, 0, 255).astype(np.uint8)
    recoloured = np.stack([cv2.LUT(image[..., c], table[:, c]) for c in range(3)], axis=2)
    return recoloured, np.ascontiguousarray(mask)


def score(
    model: torch.nn.Module,
    samples: Samples,
    batch_size: int = 32,
    progress: Optional[Callable[[int], Any]] = None,
) -> Scores:
    """Measures a float model in eval mode; it is left in the mode it was in.

    Args:
        model: a U-YNet, or anything with its inputs and outputs.
        samples: what to measure on.
        batch_size: pictures per pass.
        progress: called with the number of pictures after each pass.
    """
    was_training, tally = model.training, Tally()
    model.eval()
    try:
        with torch.no_grad():
            for start in range(0, len(samples), batch_size):
                rows = slice(start, start + batch_size)
                floats = torch.from_numpy(to_float(samples.images[rows], samples.preprocessing))
                logits, real = model(floats.contiguous(memory_format=torch.channels_last))
                tally.add(
                    1.0 - real.numpy()[:, 0],
                    samples.real[rows] < 0.5,
                    logits.argmax(1).numpy(),
                    samples.masks[rows],
                )
                if progress is not None:
                    progress(len(floats))
    finally:
        model.train(was_training)
    return tally.scores()


def export(path: Path, state: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    """Writes weights as safetensors with metadata.

    Args:
        path: the file.
        state: a ``state_dict`` of U-YNet.
        metadata: stored as text; what is not text becomes JSON.
    """
    from safetensors.torch import save_file

    tensors = {key: value.detach().cpu().contiguous() for key, value in state.items()}
    text = {
        key: value if isinstance(value, str) else json.dumps(value)
        for key, value in metadata.items()
    }
    with replacing(path) as temporary:
        save_file(tensors, str(temporary), metadata=text)
