"""Training options: recomputed gradients, added-up batches, early stop, self-blending, the log."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import List

import numpy as np
import pytest

torch = pytest.importorskip("torch")
cv2 = pytest.importorskip("cv2")

from deepfake_fpga.errors import DataError, MismatchError, UsageError  # noqa: E402
from deepfake_fpga.preprocessing import Preprocessing  # noqa: E402
from deepfake_fpga.quantize import training_log  # noqa: E402
from deepfake_fpga.quantize.augmentation import degrade  # noqa: E402
from deepfake_fpga.quantize.checkpoint import load_checkpoint  # noqa: E402
from deepfake_fpga.quantize.dataset import read_dataset  # noqa: E402
from deepfake_fpga.quantize.metrics import Scores  # noqa: E402
from deepfake_fpga.quantize.samples import (  # noqa: E402
    Samples,
    Validation,
    draw_photograph_crops,
    draw_samples,
    load_authentic,
    load_samples,
    video_auc,
    with_self_blended,
)
from deepfake_fpga.quantize.synthetic import make_dataset  # noqa: E402
from deepfake_fpga.quantize.training import Trainer  # noqa: E402
from deepfake_fpga.quantize.training_log import TrainingLog  # noqa: E402
from deepfake_fpga.quantize.training_plan import Plan  # noqa: E402

pytestmark = [pytest.mark.torch, pytest.mark.usefixtures("one_thread")]
PLAN = Plan(width=2, epochs=2, batch_size=2, warmup=1, seed=5)
ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def samples() -> Samples:
    return draw_samples("train", videos=4, frames_per_video=1, seed=1)


def weights(trainer: Trainer) -> dict[str, np.ndarray]:
    return {key: value.numpy().copy() for key, value in trainer.model.state_dict().items()}


def test_recomputing_gives_the_same_weights(samples: Samples):
    found = []
    for recompute in (False, True):
        trainer = Trainer(replace(PLAN, recompute=recompute, tail_limit=1.0), samples)
        trainer.run(until=2)
        found.append(weights(trainer))
    assert found[0].keys() == found[1].keys()
    for key, value in found[0].items():
        assert np.array_equal(value, found[1][key]), key


def test_recomputing_keeps_fewer_tensors(samples: Samples):
    kept = []
    for recompute in (False, True):
        trainer = Trainer(replace(PLAN, recompute=recompute), samples)
        trainer.model.train()
        count = [0]

        def pack(tensor, count=count):
            count[0] += tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            trainer.model(torch.rand(1, 3, 224, 224))
        kept.append(count[0])
    assert kept[1] < 0.6 * kept[0]


def test_added_up_batches_make_one_step(samples: Samples):
    """Two halves give the gradients of the mean of their losses."""
    plan = replace(PLAN, batch_size=2, accumulate=2, epochs=1, augment=False)
    trainer = Trainer(plan, samples)
    assert trainer.steps == 1
    steps = []
    trainer._adam.step = lambda: steps.append(  # only the gradients are looked at
        {name: p.grad.clone() for name, p in trainer.model.named_parameters()}
    )
    trainer.run()
    assert len(steps) == 1

    torch.manual_seed(plan.seed)
    other = Trainer(plan, samples)
    images, masks, real = other._batch(0)
    assert len(images) == 4
    other.model.train()
    losses = []
    for half in (slice(0, 2), slice(2, 4)):
        logits, output = other.model(images[half])
        losses.append(other.loss(logits, output, masks[half], real[half])[0])
    (sum(losses) / 2).backward()
    for name, parameter in other.model.named_parameters():
        assert torch.allclose(steps[0][name], parameter.grad, atol=1e-6), name


def _scripted(monkeypatch, values: list[float]) -> None:
    coming = iter(values)

    def validate(model, samples):
        value = next(coming)
        return Validation(Scores(4, value, 0.5, 0.5, 0.5, 0.5), value)

    monkeypatch.setattr("deepfake_fpga.quantize.training.validate", validate)


def test_it_stops_when_the_video_auc_stays(samples: Samples, tmp_path: Path, monkeypatch):
    _scripted(monkeypatch, [0.6, 0.7, 0.7, 0.65, 0.9])
    plan = replace(PLAN, epochs=5, patience=2)
    trainer = Trainer(plan, samples, samples)
    trainer.run(tmp_path)
    assert trainer.epoch == 4
    assert "0.7000 for 2 epochs" in trainer.stopped_early
    assert trainer.done
    again = Trainer(plan, samples, samples)
    again.restore(tmp_path / "last.pth")
    again.run(tmp_path)
    assert again.step == trainer.step


def test_patience_is_kept_over_a_resume(samples: Samples, tmp_path: Path, monkeypatch):
    plan = replace(PLAN, epochs=5, patience=2)
    _scripted(monkeypatch, [0.7, 0.6])
    Trainer(plan, samples, samples).run(tmp_path, until=4)
    _scripted(monkeypatch, [0.7])
    resumed = Trainer(plan, samples, samples)
    resumed.restore(tmp_path / "last.pth")
    resumed.run(tmp_path)
    assert resumed.epoch == 3
    assert resumed.stopped_early


def test_patience_needs_validation(samples: Samples):
    with pytest.raises(UsageError, match="nobody knows when to stop"):
        Trainer(replace(PLAN, patience=1), samples)


def test_asked_to_stop_it_resumes_exactly(samples: Samples, tmp_path: Path):
    plan = replace(PLAN, self_blending=0.5, degrade=True, accumulate=1)
    through = Trainer(plan, samples)
    through.run()
    stopped = Trainer(plan, samples)
    stopped.run(tmp_path, on_step=lambda report: stopped.stop())
    assert stopped.step == 1
    assert not stopped.done
    resumed = Trainer(plan, samples)
    resumed.restore(tmp_path / "last.pth")
    resumed.run(tmp_path)
    one, other = weights(through), weights(resumed)
    assert all(np.array_equal(one[key], other[key]) for key in one)


def test_self_blending_takes_the_place_of_manipulated_pictures(samples: Samples):
    plan = replace(PLAN, batch_size=4, self_blending=1.0, augment=False)
    trainer = Trainer(plan, samples)
    images, masks, real = trainer._batch(0)
    order = np.random.RandomState([plan.seed, 0, 1]).permutation(4)
    pictures = (images.permute(0, 2, 3, 1).numpy() * 255).round().astype(np.uint8)
    authentic = samples.images[samples.real > 0.5].astype(int)
    for place, number in enumerate(order):
        if real[place] > 0.5:
            assert np.array_equal(pictures[place], samples.images[number])
            assert not masks[place].any()
        else:
            assert masks[place].any()
            assert not np.array_equal(masks[place].numpy(), samples.masks[number])
            nearest = np.abs(authentic - pictures[place]).mean(axis=(1, 2, 3)).min()
            assert 0 < nearest < 30
    assert not np.array_equal(trainer._batch(1)[1].numpy(), masks.numpy())


def test_a_picture_to_be_blended_is_blended_with_itself(samples: Samples):
    real = samples.images[:1]
    twins = Samples(
        np.concatenate([real, real]),
        np.zeros((2, 224, 224), np.uint8),
        np.array([1, 0], np.float32),
        samples.preprocessing,
    )
    trainer = Trainer(replace(PLAN, self_blending=0.01, augment=False), twins)
    masks, labels = trainer._batch(0)[1:]
    assert [bool(mask.any()) for mask in masks] == [label < 0.5 for label in labels]


def test_only_authentic_pictures_can_be_blended(samples: Samples):
    fakes = replace(samples, real=samples.real * 0)
    with pytest.raises(UsageError, match="no authentic picture"):
        Trainer(replace(PLAN, self_blending=0.5), fakes)


@pytest.mark.parametrize(
    ("option", "value"),
    [("self_blending", 1.5), ("mask_share", -0.1), ("accumulate", 0), ("batch_size", 0)],
)
def test_values_out_of_range_are_refused(option: str, value: float):
    with pytest.raises(UsageError, match=option.replace("_", "-")):
        Plan(**{option: value})


def test_a_worse_camera_keeps_half_and_repeats_itself(samples: Samples):
    picture = samples.images[0]
    changed = 0
    for seed in range(40):
        worse = degrade(picture, np.random.RandomState(seed))
        assert worse.shape == picture.shape
        assert worse.dtype == np.uint8
        assert np.array_equal(worse, degrade(picture, np.random.RandomState(seed)))
        changed += not np.array_equal(worse, picture)
        assert np.abs(worse.astype(float) - picture).mean() < 12
    assert 8 <= changed <= 26


def test_video_auc_by_hand():
    images = np.zeros((6, 1, 1, 3), np.uint8)
    given = Samples(
        images,
        np.zeros((6, 1, 1), np.uint8),
        np.array([1, 1, 1, 0, 0, 0], np.float32),
        Preprocessing(),
        np.array([0, 0, 1, 2, 2, 3]),
    )
    # Means: authentic 0.5 (video 0) and 0.2; manipulated 0.6 and 0.4: three of four pairs right.
    fake = np.array([0.9, 0.1, 0.2, 0.7, 0.5, 0.4])
    assert video_auc(fake, given) == pytest.approx(0.75)


def test_joined_samples_keep_videos_apart(samples: Samples):
    both = Samples.joined([samples, samples, replace(samples, videos=None)])
    assert len(both) == 12
    assert both.videos is not None
    assert len(np.unique(both.videos)) == 12
    other = replace(samples, preprocessing=Preprocessing(height=112))
    with pytest.raises(MismatchError):
        Samples.joined([samples, other])


def test_validation_with_self_blended_pictures(samples: Samples):
    blended = with_self_blended(samples, seed=2)
    assert blended.real.tolist() == [1, 1, 0, 0]
    assert not blended.masks[:2].any()
    assert blended.masks[2:].any(axis=(1, 2)).all()
    again = with_self_blended(samples, seed=2)
    assert np.array_equal(blended.images, again.images)


def test_crops_of_photographs(tmp_path: Path):
    with pytest.raises(DataError):
        draw_photograph_crops(tmp_path, 2)
    ramp = np.tile(np.arange(256, dtype=np.uint8)[None, :, None], (200, 1, 3))
    cv2.imwrite(str(tmp_path / "ramp.png"), ramp)
    crops = draw_photograph_crops(tmp_path, 8, seed=1)
    assert crops.images.shape == (8, 224, 224, 3)
    assert crops.real.tolist() == [1] * 8
    assert not crops.masks.any()
    rise = crops.images[:, 100, -1, 0].astype(int) - crops.images[:, 100, 0, 0]
    assert np.all((rise >= 90) & (rise <= 200))  # as wide as the crop is: 96 to 200 pixels
    assert len(np.unique(rise)) > 3


def test_authentic_crops_are_read_without_labels(tmp_path: Path):
    crops = tmp_path / "crops"
    crops.mkdir()
    with pytest.raises(DataError, match="no picture"):
        load_authentic(tmp_path)
    for name, grey in (("a_0", 40), ("b_0", 90)):
        cv2.imwrite(str(crops / f"{name}.png"), np.full((80, 80, 3), grey, np.uint8))
    (crops / "c_0.png").write_bytes(b"no picture")
    for folder in (tmp_path, crops):
        said: List[str] = []
        found = load_authentic(folder, say=said.append)
        assert said == [f"{crops / 'c_0.png'} is left out: unreadable image"]
        assert found.images[:, 0, 0, 0].tolist() == [40, 90]
        assert found.real.tolist() == [1, 1]
        assert not found.masks.any()


def test_weights_record_how_the_photographs_were_cut(tmp_path: Path):
    for part in ("train", "validation"):
        make_dataset(tmp_path / part, 4, 1, seed=2)
    (tmp_path / "train" / "data.json").write_text(
        json.dumps({"options": {"faces": "cascade", "margin": 0.25}})
    )
    command = [
        sys.executable, str(ROOT / "scripts" / "train.py"), "--draw", "4", "--width", "1",
        "--faces", str(tmp_path / "train"), "--validation-faces", str(tmp_path / "validation"),
        "--face-times", "2", "--epochs", "1", "--batch-size", "8", "--threads", "1",
        "--output", str(tmp_path / "run"),
    ]  # fmt: skip
    refused = subprocess.run(command, stderr=subprocess.PIPE, text=True)
    assert refused.returncode == 2
    assert "self-blending" in refused.stderr
    done = subprocess.run([*command, "--self-blending", "0.5"], stdout=subprocess.PIPE, text=True)
    assert done.returncode == 0
    trained = load_checkpoint(tmp_path / "run" / "uynet.safetensors")
    assert (trained.preprocessing.face, trained.preprocessing.margin) == ("cascade", 0.25)
    # 8 drawn pictures; 4 crops, shown twice, as they are and blended: 3 steps of 8.
    lines = training_log.read(tmp_path / "run" / "steps.csv")
    assert lines[-1]["step"] == "3"


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--faces", "absent"], "self-blending"),
        (["--face-times", "0"], "--face-times is 0"),
        (["--validation-faces", "absent"], "add --validation"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_is_read(
    more: List[str], said: str, tmp_path: Path
):
    script = str(ROOT / "scripts" / "train.py")
    command = [sys.executable, script, "--data", "absent", "--output", str(tmp_path / "run"), *more]
    refused = subprocess.run(command, stderr=subprocess.PIPE, text=True)
    assert refused.returncode == 2
    assert said in refused.stderr
    assert not (tmp_path / "run").exists()


def test_the_log_drops_what_is_done_again(tmp_path: Path):
    log = TrainingLog(tmp_path)
    for step in (10, 20, 30):
        log.add("steps", {"step": step, "epoch": 0, "loss": 1.0 / step})
    log.add("epochs", {"step": 30, "epoch": 0, "auc": None, "video_auc": 0.5})
    log.close()
    TrainingLog(tmp_path, step=20).add("steps", {"step": 30, "epoch": 0, "loss": 7.0})
    lines = training_log.read(tmp_path / "steps.csv")
    assert [line["step"] for line in lines] == ["10", "20", "30"]
    assert lines[-1]["loss"] == "7.0"
    assert training_log.read(tmp_path / "epochs.csv") == []


def test_the_script_stopped_by_ctrl_c_resumes_exactly(tmp_path: Path):
    make_dataset(tmp_path / "data", 4, 1, seed=2)
    plan = Plan(width=1, epochs=200, batch_size=2, seed=9, self_blending=0.5)
    command = [
        sys.executable, str(ROOT / "scripts" / "train.py"), "--data", str(tmp_path / "data"),
        "--width", "1", "--epochs", "200", "--batch-size", "2", "--self-blending", "0.5",
        "--threads", "1", "--save-every", "1000", "--seed", "9", "--output", str(tmp_path / "run"),
    ]  # fmt: skip
    stopped = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    log = tmp_path / "run" / "steps.csv"
    while stopped.poll() is None and not (log.is_file() and log.read_text().count("\n") > 1):
        time.sleep(0.02)
    stopped.send_signal(signal.SIGINT)
    out, err = stopped.communicate()
    assert stopped.returncode == 130, err
    assert "add --resume to go on" in out
    assert not (tmp_path / "run" / "uynet.safetensors").exists()

    samples = load_samples(read_dataset(tmp_path / "data"))
    resumed, through = Trainer(plan, samples), Trainer(plan, samples)
    resumed.restore(tmp_path / "run" / "last.pth")
    assert 10 <= resumed.step < resumed.steps == 400
    resumed.run(until=resumed.step + 2)
    through.run(until=resumed.step)
    one, other = weights(through), weights(resumed)
    assert all(np.array_equal(one[key], other[key]) for key in one)
