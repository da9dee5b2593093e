"""Synthetic crops and clips: their layout, their truth, their reproducibility."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from deepfake_fpga.errors import UsageError
from deepfake_fpga.quantize.camera import Camera, through_h264, through_jpeg
from deepfake_fpga.quantize.dataset import read_dataset
from deepfake_fpga.quantize.faces import Identity, Pose
from deepfake_fpga.quantize.manipulation import Manipulation, manipulate, region_mask
from deepfake_fpga.quantize.pictures import read_mask
from deepfake_fpga.quantize.portrait import Sitter
from deepfake_fpga.quantize.synthetic import (
    AUDIO_RATE,
    SPLITS,
    identity_seed,
    make_clip,
    make_dataset,
    make_take,
    voice,
    write_gif,
)

av = pytest.importorskip("av", reason="masks and clips need PyAV")


def recipe(seed: int, donor: int = 77) -> Manipulation:
    return Manipulation.sample(np.random.RandomState(seed), donor)


def test_dataset_has_the_layout_of_dfdc(tmp_path: Path):
    calls: list[int] = []
    metadata = make_dataset(tmp_path, 4, 2, seed=3, split="test", size=96, progress=calls.append)
    dataset = read_dataset(tmp_path)
    assert sum(calls) == len(metadata) == 4
    assert len(dataset) == 8
    assert dataset.problems == []
    (batch,) = dataset.batches(8)
    assert batch.mask_known.all()
    for item, mask in zip(batch.items, batch.masks):
        record = metadata[item.video + ".mp4"]
        assert item.label == record["label"]
        assert record["split"] == "test"
        assert bool(mask.any()) == (record["label"] == "FAKE")
        if record["label"] == "FAKE":
            original = metadata[record["original"]]
            assert original["label"] == "REAL"
            assert original["identity"] == record["identity"]
    assert len({record["identity"] for record in metadata.values()}) == 2


def test_dataset_is_not_written_over_another(tmp_path: Path):
    make_dataset(tmp_path, 1, 1, size=64)
    with pytest.raises(UsageError, match="already holds"):
        make_dataset(tmp_path, 1, 1, size=64)


def test_mask_survives_its_file(tmp_path: Path):
    mask = np.random.RandomState(0).uniform(size=(33, 50)) < 0.3
    write_gif(tmp_path / "m.gif", mask)
    assert (tmp_path / "m.gif").read_bytes()[:4] == b"GIF8"
    assert np.array_equal(read_mask(tmp_path / "m.gif"), mask)
    assert [p.name for p in tmp_path.iterdir()] == ["m.gif"]


@pytest.mark.parametrize("seed", range(8))
def test_mask_tells_which_pixels_changed(seed: int):
    who, pose, how = Identity.sample(seed), Pose(yaw=0.1 * (seed % 3)), recipe(seed)
    picture = Sitter(who).draw(pose)
    donor = Sitter(Identity.sample(77)).draw(pose) if how.donor else None
    fake, mask = manipulate(picture, who, pose, how, donor)
    change = np.abs(fake.astype(int) - picture).mean(axis=2)
    untouched = region_mask(who, pose, how, 256) == 0
    assert not change[untouched].any()
    assert 0.005 < mask.mean() < 0.5
    assert change[mask].mean() > 4
    assert change[mask].mean() > 8 * change[~mask].mean()
    assert change[mask].sum() > 0.7 * change.sum()


def test_authentic_twin_has_no_manipulated_pixel():
    real, fake = (make_take("test", 0, 5, 2, kind, size=96) for kind in (False, True))
    assert real.identity == fake.identity
    assert not any(mask.any() for mask in real.masks)
    assert all(mask.any() for mask in fake.masks)


def test_same_arguments_give_the_same_pixels():
    first, second = (make_take("train", 4, 9, 2, True, size=96) for _ in range(2))
    other = make_take("train", 5, 9, 2, True, size=96)
    for a, b, c in zip(first.pictures, second.pictures, other.pictures):
        assert np.array_equal(a, b)
        assert not np.array_equal(a, c)
    assert np.array_equal(first.masks, second.masks)


def test_no_identity_is_in_two_splits():
    seen = {
        split: {identity_seed(split, seed, n) for seed in (0, 1, 99, 12345) for n in range(3000)}
        for split in SPLITS
    }
    for split, seeds in seen.items():
        for other in set(SPLITS) - {split}:
            assert not seeds & seen[other]
    with pytest.raises(UsageError, match="no such split"):
        identity_seed("holdout", 0, 0)


def test_donors_come_from_the_same_split(monkeypatch: pytest.MonkeyPatch):
    drawn: list[int] = []
    sample = Identity.sample
    monkeypatch.setattr(Identity, "sample", lambda seed: drawn.append(seed) or sample(seed))
    for number in range(12):
        make_take("test", 1, number, 1, True, size=64)
    own = {identity_seed("test", 1, number) for number in range(12)}
    assert set(drawn) - own, "no manipulation took a donor"
    low = min(identity_seed("test", seed, 0) for seed in range(100)) // 1000000
    assert {seed // 1000000 for seed in drawn} == {low}


def test_identities_differ():
    people = [Identity.sample(seed) for seed in range(50)]
    assert len({person.skin for person in people}) == 50
    assert Identity.sample(3) == people[3]


def test_pose_moves_what_it_should():
    sitter = Sitter(Identity.sample(2))
    still = sitter.draw(Pose()).astype(int)
    blink = np.abs(sitter.draw(Pose(blink=1.0)) - still).sum(axis=2)
    mouth = np.abs(sitter.draw(Pose(mouth=1.0)) - still).sum(axis=2)
    rows = np.arange(256)[:, None]
    assert (blink * rows).sum() / blink.sum() < 133  # the middle of the face is at 0.52 * 256
    assert (mouth * rows).sum() / mouth.sum() > 133


def test_codecs_keep_the_picture_recognisable():
    picture = Sitter(Identity.sample(1)).draw(Pose())
    for result in (through_jpeg(picture, 60), through_h264([picture] * 2, 24)[1]):
        error = np.abs(result.astype(int) - picture)
        assert result.shape == picture.shape
        assert 0 < error.mean() < 6
    camera = Camera(shrink=0.7, blur=0.5, grain=3.0, shadow=0.2, crf=20)
    shots = camera.film([picture, picture, picture], np.random.RandomState(0))
    assert len(shots) == 3


def test_clip_has_frames_sound_and_truth(tmp_path: Path):
    path = tmp_path / "clip.mp4"
    clip = make_clip(path, seed=2, seconds=1.2, fps=20, manipulated=[(0.4, 0.8)], size=128)
    assert clip.label == "FAKE"
    assert clip.fake.tolist() == [8 <= i < 16 for i in range(24)]
    assert clip.masks.any(axis=(1, 2)).tolist() == clip.fake.tolist()
    with av.open(str(path)) as container:
        video, audio = container.streams.video[0], container.streams.audio[0]
        assert (video.codec_context.name, audio.codec_context.name) == ("h264", "aac")
        assert video.average_rate == 20
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video)]
    assert len(frames) == 24
    assert frames[0].shape == (128, 128, 3)
    assert any(not np.array_equal(frames[0], frame) for frame in frames[1:])
    with av.open(str(path)) as container:
        sound = np.concatenate([f.to_ndarray()[0] for f in container.decode(audio=0)])
    assert abs(len(sound) / AUDIO_RATE - 1.2) < 0.06
    assert sound.std() > 0.003
    assert [p.name for p in tmp_path.iterdir()] == ["clip.mp4"]


def test_clip_without_manipulation_is_real(tmp_path: Path):
    clip = make_clip(tmp_path / "c.mp4", seconds=0.2, fps=10, manipulated=(), size=64)
    assert clip.label == "REAL"
    assert not clip.masks.any()


def test_voice_is_as_loud_as_the_mouth_is_open():
    mouth = np.concatenate([np.zeros(25), np.ones(25)])
    sound = voice(mouth, 25.0, 0)
    assert len(sound) == 2 * AUDIO_RATE
    assert np.abs(sound).max() <= 1
    assert sound[AUDIO_RATE + 4000 :].std() > 20 * sound[: AUDIO_RATE - 4000].std()


def test_importing_the_generator_imports_nothing_heavy():
    code = (
        "import sys, deepfake_fpga.quantize.synthetic, deepfake_fpga.quantize.metrics;"
        "print([m for m in ('torch', 'cv2', 'av', 'onnxruntime') if m in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"
