"""Training: the loss it takes, that it learns, that a resumed one ends with the same weights."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from deepfake_fpga.errors import DataError, MismatchError, UsageError  # noqa: E402
from deepfake_fpga.preprocessing import Preprocessing, fit, to_float  # noqa: E402
from deepfake_fpga.quantize.augmentation import augment  # noqa: E402
from deepfake_fpga.quantize.checkpoint import load_checkpoint  # noqa: E402
from deepfake_fpga.quantize.dataset import read_dataset  # noqa: E402
from deepfake_fpga.quantize.model import UYNet  # noqa: E402
from deepfake_fpga.quantize.pictures import fit_mask  # noqa: E402
from deepfake_fpga.quantize.samples import (  # noqa: E402
    Samples,
    draw_samples,
    load_samples,
    score,
)
from deepfake_fpga.quantize.synthetic import make_dataset, make_take  # noqa: E402
from deepfake_fpga.quantize.training import StepReport, Trainer, export  # noqa: E402
from deepfake_fpga.quantize.training_plan import Plan  # noqa: E402

pytestmark = [pytest.mark.torch, pytest.mark.usefixtures("one_thread")]
PLAN = Plan(width=2, epochs=2, batch_size=2, warmup=1, seed=5)


@pytest.fixture(scope="module")
def samples() -> Samples:
    return draw_samples("train", videos=6, frames_per_video=1, seed=1)


def weights(trainer: Trainer) -> dict[str, np.ndarray]:
    return {key: value.numpy().copy() for key, value in trainer.model.state_dict().items()}


def test_drawn_samples_are_those_of_a_data_set(tmp_path: Path, samples: Samples):
    make_dataset(tmp_path, 6, 1, seed=1)
    read = load_samples(read_dataset(tmp_path))
    assert np.array_equal(read.images, samples.images)
    assert np.array_equal(read.masks, samples.masks)
    assert np.array_equal(read.real, samples.real)
    assert read.real.tolist() == [1, 0] * 3


def test_unlabelled_pictures_are_refused(tmp_path: Path):
    make_dataset(tmp_path, 2, 1, size=64)
    (tmp_path / "metadata.json").unlink()
    with pytest.raises(DataError, match="no picture with label"):
        load_samples(read_dataset(tmp_path))


def test_loss_is_half_mask_half_label(samples: Samples):
    reports: list[StepReport] = []
    plan = Plan(width=2, epochs=1, batch_size=6, augment=False, seed=3)
    Trainer(plan, samples).run(until=1, on_step=reports.append)

    torch.manual_seed(3)
    model = UYNet(width=2).train()
    logits, real = model(torch.from_numpy(to_float(samples.images, samples.preprocessing)))
    x = logits.detach().numpy().astype(np.float64)
    p, y = real.detach().numpy()[:, 0].astype(np.float64), samples.real
    right = np.where(samples.masks == 1, x[:, 1], x[:, 0])
    mask_loss = float((np.logaddexp(x[:, 0], x[:, 1]) - right).mean())
    label_loss = float(-(y * np.log(p) + (1 - y) * np.log(1 - p)).mean())
    assert reports[0].mask_loss == pytest.approx(mask_loss, rel=1e-4)
    assert reports[0].label_loss == pytest.approx(label_loss, rel=1e-4)
    assert reports[0].loss == pytest.approx(0.5 * mask_loss + 0.5 * label_loss, rel=1e-4)


def test_training_decreases_the_loss(samples: Samples):
    losses: list[float] = []
    plan = Plan(width=4, epochs=8, batch_size=6, learning_rate=0.01, warmup=1, augment=False)
    Trainer(plan, samples).run(on_step=lambda report: losses.append(report.loss))
    assert len(losses) == 8
    assert losses[-1] < 0.8 * losses[0]


def test_a_resumed_training_ends_with_the_same_weights(tmp_path: Path, samples: Samples):
    through = Trainer(PLAN, samples)
    through.run()
    start = Trainer(PLAN, samples)
    start.run(tmp_path, until=2)  # in the middle of the first epoch
    resumed = Trainer(PLAN, samples)
    resumed.restore(tmp_path / "last.pth")
    assert resumed.step == 2
    resumed.run(tmp_path)
    assert resumed.step == through.step == 6
    one, other = weights(through), weights(resumed)
    assert all(np.array_equal(one[key], other[key]) for key in one)
    stopped = weights(start)
    assert any(not np.array_equal(one[key], stopped[key]) for key in one)


def test_another_plan_is_not_resumed(tmp_path: Path, samples: Samples):
    Trainer(PLAN, samples).run(tmp_path, until=1)
    other = Trainer(Plan(width=2, epochs=3, batch_size=2, warmup=1, seed=5), samples)
    with pytest.raises(MismatchError, match="another training") as caught:
        other.restore(tmp_path / "last.pth")
    assert "epochs is 2 there, 3 here" in caught.value.evidence


def test_a_foreign_file_is_not_resumed(tmp_path: Path, samples: Samples):
    torch.save({"state_dict": UYNet(width=2).state_dict()}, str(tmp_path / "w.pth"))
    with pytest.raises(MismatchError, match="not a checkpoint of a training"):
        Trainer(PLAN, samples).restore(tmp_path / "w.pth")


def test_too_few_pictures(samples: Samples):
    with pytest.raises(UsageError, match="fewer pictures"):
        Trainer(Plan(width=2, batch_size=7), samples)


def test_best_weights_are_those_of_the_best_validation(samples: Samples):
    trainer = Trainer(PLAN, samples, samples)
    kept: list[tuple[float, dict[str, np.ndarray]]] = []

    def on_epoch(epoch, found):
        scores = found.scores
        kept.append((0.5 * (scores.auc + scores.iou), weights(trainer)))

    trainer.run(on_epoch=on_epoch)
    value, state = max(kept, key=lambda pair: pair[0])
    assert len(kept) == 2
    assert trainer.best_score == value
    assert all(np.array_equal(trainer.best[key].numpy(), state[key]) for key in state)


def test_penalised_activations_shrink(samples: Samples):
    def highest(limit: float) -> float:
        plan = Plan(
            width=2, epochs=6, batch_size=6, warmup=1, augment=False, tail_limit=limit, seed=2
        )
        trainer, seen = Trainer(plan, samples), []
        hooks = [
            module.register_forward_hook(lambda m, i, o: seen.append(float(o.detach().max())))
            for module in trainer.model.modules()
            if isinstance(module, torch.nn.ReLU)
        ]
        trainer.run()
        last = len(seen) // 6  # the activations of the last step
        for hook in hooks:
            hook.remove()
        return sum(seen[-last:])

    assert highest(1.0) < 0.95 * highest(0.0)


def test_rate_rises_then_falls_to_nothing():
    plan = Plan(learning_rate=1.0, warmup=10)
    rates = [plan.rate(step, 100) for step in range(100)]
    assert int(np.argmax(rates)) == 9
    assert rates[0] == pytest.approx(0.1)
    assert rates[50] == pytest.approx(0.5)
    assert rates[-1] < 0.001


def test_augmentation_moves_picture_and_mask_together():
    take = make_take("train", 0, 1, 1, True)
    mask = fit_mask(take.masks[0].astype(np.uint8), (224, 224))
    picture = fit(take.pictures[0], Preprocessing()) // 4
    picture[mask == 1] = 250  # now brightness tells where the mask must be
    for seed in range(10):
        image, moved = augment(picture, mask, np.random.RandomState(seed))
        assert image.shape == picture.shape
        assert image.dtype == moved.dtype == np.uint8
        bright = image.min(axis=2) > 140
        both, either = (bright & (moved == 1)).sum(), (bright | (moved == 1)).sum()
        assert both > 0.93 * either


def test_score_of_an_oracle_and_of_its_opposite(samples: Samples):
    class Oracle(torch.nn.Module):
        def __init__(self, sign: float) -> None:
            super().__init__()
            self.sign, self.place = sign, 0

        def forward(self, x):
            rows = slice(self.place, self.place + len(x))
            self.place += len(x)
            mask = torch.from_numpy(samples.masks[rows].astype(np.float32))
            real = torch.from_numpy(samples.real[rows])[:, None]
            logits = torch.stack([self.sign * (0.5 - mask), self.sign * (mask - 0.5)], dim=1)
            return logits, real if self.sign > 0 else 1 - real

    right, wrong = (score(Oracle(sign), samples, batch_size=4) for sign in (1.0, -1.0))
    assert (right.auc, right.accuracy, right.dice, right.iou, right.fake_iou) == (1, 1, 1, 1, 1)
    assert (wrong.auc, wrong.accuracy, wrong.dice, wrong.iou) == (0, 0, 0, 0)


def test_exported_weights_read_back(tmp_path: Path, samples: Samples):
    trainer = Trainer(PLAN, samples)
    trainer.run(until=1)
    path = tmp_path / "w.safetensors"
    record = Preprocessing().to_json()
    export(path, trainer.model.state_dict(), {"width": 2, "preprocessing": record})
    checkpoint = load_checkpoint(path)
    assert checkpoint.width == 2
    assert json.loads(checkpoint.metadata["preprocessing"]) == record
    x = torch.rand(1, 3, 224, 224)
    with torch.no_grad():
        ours, theirs = checkpoint.model(x), trainer.model.eval()(x)
    assert torch.allclose(ours[0], theirs[0], atol=1e-5)
    assert torch.allclose(ours[1], theirs[1], atol=1e-6)
