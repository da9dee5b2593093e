"""Training of U-YNet: the loop, the loss, and checkpoints that resume exactly.

The loss is that of the original: half cross-entropy of the mask, half binary cross-entropy of the
label. Everything random is drawn from the seed, the epoch and the sample's number, so a training
that is stopped and resumed gives the very weights of one that ran through.

Importing this module imports torch.
"""

from __future__ import annotations

import contextlib
import json
import math
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Callable, Dict, Generator, List, Mapping, Optional, Tuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import MismatchError, UsageError
from ..files import replacing
from ..preprocessing import to_float
from .augmentation import augment, degrade
from .model import UYNet
from .recomputation import recompute_gradients
from .samples import Samples, Validation, validate
from .self_blending import self_blend
from .training_plan import Plan

CHECKPOINT_FORMAT = 2

Network = Callable[[Tensor], Tuple[Tensor, Tensor]]
"""Float pictures ``[N, 3, H, W]`` to mask logits and the probability of REAL."""

Batch = Tuple[Tensor, Tensor, Tensor]
"""Pictures ``[N, 3, H, W]``, masks int64 ``[N, H, W]``, labels float32 ``[N]`` (1 = REAL)."""


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
        device: where to compute, ``cpu`` or ``cuda``.

    Attributes:
        step: steps done since the beginning.
        steps: steps of the whole training.
        stopped_early: why it ended before its last step; empty where it did not.
    """

    def __init__(
        self,
        plan: Plan,
        samples: Samples,
        validation: Optional[Samples] = None,
        weights: Optional[Mapping[str, Tensor]] = None,
        device: str = "cpu",
    ) -> None:
        if len(samples) < plan.pictures_per_step:
            raise UsageError(
                "There are fewer pictures than one batch holds",
                f"{len(samples)} pictures, batches of {plan.pictures_per_step}",
                "give more data or a smaller --batch-size",
            )
        if plan.patience and validation is None:
            raise UsageError(
                "Without validation nobody knows when to stop",
                f"patience is {plan.patience}",
                "give --validation, or leave --patience out",
            )
        self.plan, self.samples, self.validation = plan, samples, validation
        self._authentic = np.flatnonzero(samples.real > 0.5)
        if plan.self_blending and not len(self._authentic):
            raise UsageError(
                "There is no authentic picture to blend with itself",
                f"{len(samples)} pictures, all manipulated",
                "give authentic ones, or leave --self-blending out",
            )
        torch.manual_seed(plan.seed)
        model = UYNet(bilinear=plan.bilinear, width=plan.width)
        if weights is not None:
            model.load_state_dict(weights)
        self._device = torch.device(device)
        # Twice to four times as quick on a CPU as the default layout, for so few channels.
        model = model.to(self._device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.model: UYNet = model
        self.network: Network = self.model
        self._excess: List[Tensor] = []
        if plan.recompute:
            recompute_gradients(self.model)
        if plan.tail_limit > 0:
            self._watch_tails()
        self._adam = torch.optim.Adam(self.model.parameters(), lr=plan.learning_rate)
        self._per_epoch = len(samples) // plan.pictures_per_step
        self.step, self.steps = 0, plan.epochs * self._per_epoch
        self.best_score = -math.inf
        self.best: Dict[str, Tensor] = {}
        self.best_video_auc, self._stale = -math.inf, 0
        self.stopped_early = ""
        self._asked_to_stop = False

    @property
    def epoch(self) -> int:
        """The epoch the next step belongs to, from 0."""
        return self.step // self._per_epoch

    @property
    def done(self) -> bool:
        """Whether there is nothing left to do."""
        return self.step >= self.steps or bool(self.stopped_early)

    def stop(self) -> None:
        """Makes ``run`` end after the step in hand; may be called in a signal handler."""
        self._asked_to_stop = True

    def run(
        self,
        folder: Optional[Path] = None,
        until: Optional[int] = None,
        save_every: int = 200,
        on_step: Optional[Callable[[StepReport], Any]] = None,
        on_epoch: Optional[Callable[[int, Optional[Validation]], Any]] = None,
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
        self._asked_to_stop = False
        if self.stopped_early:
            return
        with contextlib.closing(self._batches(self.step, end)) as batches:
            for batch in batches:
                report = self._train(batch)
                if on_step is not None:
                    on_step(report)
                whole = self.step % self._per_epoch == 0
                if whole:
                    self._end_epoch(on_epoch)
                if folder and (self.step % save_every == 0 or whole):
                    self.save(folder / "last.pth")
                if self._asked_to_stop or self.stopped_early:
                    break
        if folder:
            self.save(folder / "last.pth")

    def _end_epoch(self, on_epoch: Optional[Callable[[int, Optional[Validation]], Any]]) -> None:
        found = self._validated()
        self._keep_best(found)
        if found is not None:
            if found.video_auc > self.best_video_auc:
                self.best_video_auc, self._stale = found.video_auc, 0
            else:
                self._stale += 1
            if self.plan.patience and self._stale >= self.plan.patience:
                self.stopped_early = (
                    f"the AUC over videos has not risen above {self.best_video_auc:.4f} for "
                    f"{self._stale} epochs"
                )
        if on_epoch is not None:
            on_epoch(self.epoch - 1, found)

    def _validated(self) -> Optional[Validation]:
        return validate(self.model, self.validation) if self.validation else None

    def _train(self, batch: Batch) -> StepReport:
        rate = self.plan.rate(self.step, self.steps)
        for group in self._adam.param_groups:
            group["lr"] = rate
        self.model.train()
        self._adam.zero_grad(set_to_none=True)
        parts = self.plan.accumulate
        sums = np.zeros(3)
        for images, masks, real in zip(*(tensor.chunk(parts) for tensor in batch)):
            self._excess.clear()
            with torch.autocast(self._device.type, torch.bfloat16, enabled=self.plan.bfloat16):
                logits, output = self.network(images.to(self._device))
            loss, mask_loss, label_loss = self.loss(
                logits, output, masks.to(self._device), real.to(self._device)
            )
            if self._excess:
                loss = loss + torch.stack(self._excess).sum()
            (loss / parts).backward()  # type: ignore[no-untyped-call]
            sums += [loss.item() / parts, mask_loss.item() / parts, label_loss.item() / parts]
        self._adam.step()
        epoch = self.epoch
        self.step += 1
        whole, mask, label = (float(value) for value in sums)
        return StepReport(epoch, self.step, self.steps, whole, mask, label, rate)

    def loss(
        self, logits: Tensor, output: Tensor, masks: Tensor, real: Tensor
    ) -> Tuple[Tensor, Tensor, Tensor]:
        """What is made small: the whole, and its two halves before weighting."""
        mask_loss = F.cross_entropy(logits.float(), masks)
        label_loss = F.binary_cross_entropy(output.float()[:, 0], real)
        share = self.plan.mask_share
        return share * mask_loss + (1.0 - share) * label_loss, mask_loss, label_loss

    def _watch_tails(self) -> None:
        """Notes how far activations exceed the limit, layer by layer, while training."""

        def note(module: nn.Module, _: Any, output: Tensor) -> None:
            if module.training:
                excess = F.relu(output.float() - self.plan.tail_limit)
                self._excess.append(excess.square().mean())

        for module in self.model.modules():
            if isinstance(module, (nn.ReLU, nn.ConvTranspose2d, nn.Linear)):
                module.register_forward_hook(note)

    def _batches(self, start: int, end: int) -> Generator[Batch, None, None]:
        """The batches of the steps from start to end, some prepared while another is used."""
        with ThreadPoolExecutor(1) as pool:
            coming: List[Future[Batch]] = []
            for step in range(start, end):
                coming.append(pool.submit(self._batch, step))
                if len(coming) > 2:
                    yield coming.pop(0).result()
            while coming:
                yield coming.pop(0).result()

    def _batch(self, step: int) -> Batch:
        epoch, place = divmod(step, self._per_epoch)
        order = np.random.RandomState([self.plan.seed, epoch, 1]).permutation(len(self.samples))
        size = self.plan.pictures_per_step
        chosen = order[place * size : (place + 1) * size]
        shown = [self._shown(int(number), epoch) for number in chosen]
        images = np.stack([image for image, _ in shown])
        masks = np.stack([mask for _, mask in shown]).astype(np.int64)
        floats = torch.from_numpy(to_float(images, self.samples.preprocessing))
        return (
            floats.contiguous(memory_format=torch.channels_last),
            torch.from_numpy(masks),
            torch.from_numpy(self.samples.real[chosen]),
        )

    def _shown(self, number: int, epoch: int) -> Tuple[np.ndarray, np.ndarray]:
        """A picture and its mask as one epoch shows it.

        One that is to be manipulated and has no manipulated pixel yet is blended with itself.
        """
        image, mask = self.samples.images[number], self.samples.masks[number]
        seed = [self.plan.seed, epoch, number]
        if self.plan.self_blending and self.samples.real[number] < 0.5:
            rng = np.random.RandomState([*seed, 3])
            own = not mask.any()
            if own or rng.uniform() < self.plan.self_blending:
                source = number if own else self._authentic[rng.randint(len(self._authentic))]
                image, blended = self_blend(self.samples.images[source], rng)
                mask = blended.astype(np.uint8)
        if self.plan.augment:
            image, mask = augment(image, mask, np.random.RandomState([*seed, 2]))
        if self.plan.degrade:
            image = degrade(image, np.random.RandomState([*seed, 4]))
        return image, mask

    def _keep_best(self, found: Optional[Validation]) -> None:
        value = float(self.step)
        if found is not None:
            value = 0.5 * (found.scores.auc + found.scores.iou)
        if value > self.best_score or not self.best:
            self.best_score = value
            self.best = {k: v.detach().clone() for k, v in self.model.state_dict().items()}

    def save(self, path: Path) -> None:
        """Writes all that ``restore`` needs; plain tensors and values, nothing to execute."""
        content = {
            "format": CHECKPOINT_FORMAT,
            "plan": asdict(self.plan),
            "samples": len(self.samples),
            **self._state(),
        }
        with replacing(path) as temporary:
            torch.save(content, str(temporary))

    def _state(self) -> Dict[str, Any]:
        return {
            "state_dict": self.model.state_dict(),
            "optimizer": self._adam.state_dict(),
            "torch_rng": torch.get_rng_state(),
            "step": self.step,
            "epoch": self.epoch,
            "best": self.best,
            "best_score": self.best_score,
            "best_video_auc": self.best_video_auc,
            "stale": self._stale,
            "stopped_early": self.stopped_early,
        }

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
        self._set_state(content)

    def _set_state(self, content: Mapping[str, Any]) -> None:
        self.model.load_state_dict(content["state_dict"])
        self._adam.load_state_dict(content["optimizer"])
        torch.set_rng_state(content["torch_rng"])
        self.step, self.best = content["step"], content["best"]
        self.best_score, self.best_video_auc = content["best_score"], content["best_video_auc"]
        self._stale, self.stopped_early = content["stale"], content["stopped_early"]


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
