"""The gate: pictures and tensors made to be wrong in one way each, and the ways past it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence

import numpy as np
import pytest
from click.testing import CliRunner

from deepfake_fpga.errors import DataError
from deepfake_fpga.preprocessing import Preprocessing
from deepfake_fpga.quantize.dataset import Batch, Item, read_dataset
from deepfake_fpga.quantize.gate import (
    Census,
    Check,
    Finding,
    Limits,
    brightness_hash,
    near_duplicates,
    refuse,
    tensor_findings,
)

from .faces import face, write_dataset, write_image


def census(
    images: np.ndarray,
    videos: Optional[Sequence[str]] = None,
    labels: Optional[Sequence[Optional[str]]] = None,
    batch: int = 5,
) -> Census:
    """The count over pictures given as arrays; each its own source if ``videos`` is not given."""
    found = Census()
    size = images.shape[1]
    for start in range(0, len(images), batch):
        part = images[start : start + batch]
        items = tuple(
            Item(
                Path(f"{videos[k] if videos else 'p'}_{k}.png"),
                videos[k] if videos else f"p_{k}",
                labels[k] if labels else None,
            )
            for k in range(start, start + len(part))
        )
        blank = np.zeros((len(part), size, size), np.uint8)
        known = np.zeros(len(part), bool)
        codes = np.full(len(part), -1, np.int8)
        found.add(Batch(items, part, blank, known, codes, Preprocessing()))
    return found


def noise(count: int, seed: int = 0, size: int = 64) -> np.ndarray:
    """Pictures that have nothing in common, uint8 ``[N, size, size, 3]``."""
    return np.random.RandomState(seed).randint(0, 256, (count, size, size, 3)).astype(np.uint8)


def checks(findings: Sequence[Finding]) -> List[Check]:
    return [finding.check for finding in findings]


def test_a_sound_set_passes() -> None:
    videos = [f"v{k // 4}" for k in range(16)]
    labels = ["REAL" if k % 2 else "FAKE" for k in range(16)]
    assert census(noise(16), videos, labels).findings() == []
    assert census(noise(16)).findings() == []


def test_too_few_cannot_be_forced() -> None:
    (finding,) = census(noise(7)).findings()
    assert (finding.check, finding.value, finding.final) == (Check.TOO_FEW, 7, True)
    with pytest.raises(DataError, match="7 usable"):
        refuse([finding], force=True)
    assert census(noise(8)).findings() == []


def test_one_source() -> None:
    (finding,) = census(noise(10), ["a"] * 6 + ["b"] * 4).findings()
    assert finding.check is Check.SOURCE
    assert finding.where == {"a": 0.6}
    assert "6 of 10" in finding.evidence
    assert census(noise(10), ["a"] * 5 + ["b"] * 5).findings() == []  # a half is not over a half


@pytest.mark.parametrize(("fakes", "stands"), [(0, True), (1, True), (2, False), (10, False)])
def test_balance(fakes: int, stands: bool) -> None:
    videos = [f"v{k}" for k in range(20)]
    found = census(noise(20), videos, ["FAKE"] * fakes + ["REAL"] * (20 - fakes)).findings()
    assert checks(found) == ([Check.BALANCE] if stands else [])
    if stands:
        assert found[0].where == {"FAKE": fakes / 20, "REAL": 1 - fakes / 20}


def test_pictures_without_labels_are_no_imbalance() -> None:
    labels = ["REAL"] * 4 + ["FAKE"] * 4 + [None] * 8
    assert census(noise(16), [f"v{k}" for k in range(16)], labels).findings() == []


def test_duplicates_by_construction() -> None:
    originals = noise(9)
    again = np.concatenate([originals, originals[[0, 4, 7]]])
    counted = census(again)
    assert counted.duplicates(0) == [("p_9.png", "p_0.png"), ("p_10.png", "p_4.png"),
                                     ("p_11.png", "p_7.png")]  # fmt: skip
    assert counted.findings() == []  # 3 of 12 is a quarter, not more
    found = census(np.concatenate([again, originals[:1]])).findings()
    assert checks(found) == [Check.DUPLICATES]
    assert "4 of 13" in found[0].evidence
    assert "p_9.png looks like p_0.png" in found[0].evidence


def test_the_hash_knows_a_picture_by_brightness_alone() -> None:
    """By the definition, cell by cell, with loops of its own."""
    image = noise(1, seed=3, size=70)
    bits = brightness_hash(image)[0].reshape(16, 16)
    for row in range(16):
        for column in range(16):
            cells = []
            for k in (column, column + 1):
                top, bottom = row * 70 // 16, (row + 1) * 70 // 16
                left, right = k * 70 // 17, (k + 1) * 70 // 17
                cells.append(image[0, top:bottom, left:right].astype(float).mean())
            assert bits[row, column] == (cells[1] > cells[0])


def test_what_is_and_what_is_not_a_near_duplicate() -> None:
    import cv2

    image = face(1, 224, fake=True)[0]
    jpeg = cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 50])[1], 1)
    dark = (image * 0.7 + 10).astype(np.uint8)
    small = cv2.resize(cv2.resize(image, (112, 112)), (224, 224))
    other = face(2, 224, fake=True)[0]
    hashes = brightness_hash(np.stack([image, jpeg, dark, small, other]))
    distances = (hashes != hashes[0]).sum(axis=1)
    bits = Limits().duplicate_bits
    assert (distances[1:4] <= bits).all(), distances
    assert distances[4] > 2 * bits
    assert near_duplicates(hashes, bits) == [(1, 0), (2, 0), (3, 0)]


def test_flat_pictures_repeat_each_other() -> None:
    flat = np.stack([np.full((64, 64, 3), v, np.uint8) for v in range(10, 250, 20)])
    assert not brightness_hash(flat).any()
    assert Check.DUPLICATES in checks(census(flat).findings())


def test_near_duplicates_over_several_blocks() -> None:
    hashes = np.random.RandomState(5).rand(1300, 256) > 0.5
    hashes[1200] = hashes[3]
    hashes[1200, :12] ^= True
    hashes[700] = hashes[600]
    assert near_duplicates(hashes, 12) == [(700, 600), (1200, 3)]
    assert near_duplicates(hashes, 11) == [(700, 600)]


def test_tensors() -> None:
    sound = {"a": 0.0015, "b": 0.01}
    assert tensor_findings(sound, {"a": 64.0, "b": 200.0, "c": 8.0}, {}) == []
    found = tensor_findings(
        {"a": 0.011, "b": 0.2, "c": 0.001},
        {"a": 127.0, "dead": 0.0, "faint": 7.9},
        {"a": 3136, "b": 3136},
    )
    assert checks(found) == [Check.SATURATION, Check.UNFILLED]
    assert found[0].where == {"a": 0.011, "b": 0.2}
    assert found[0].value == 0.2
    assert "b (20.0%)" in found[0].evidence
    assert set(found[1].where) == {"dead", "faint"}


def test_a_tensor_of_few_values_may_lose_one_of_a_batch() -> None:
    sizes = {"map": 100, "logit": 1}
    assert tensor_findings({"logit": 0.125}, {}, sizes) == []
    (finding,) = tensor_findings({"logit": 0.126, "map": 0.01}, {}, sizes)
    assert (finding.where, finding.limit) == ({"logit": 0.126}, 0.125)
    (finding,) = tensor_findings({"logit": 0.1, "map": 0.1}, {}, sizes)
    assert finding.where == {"map": 0.1}


def test_refusing_names_every_finding_and_what_to_do() -> None:
    found = census(noise(12), ["a"] * 12, ["REAL"] * 12).findings()
    assert checks(found) == [Check.SOURCE, Check.BALANCE]
    with pytest.raises(DataError) as caught:
        refuse(found, force=False, context="3 unreadable")
    error = caught.value
    for finding in found:
        assert finding.check.value in error.cause
        assert finding.evidence in error.evidence
        assert finding.next_step in error.next_step
    assert "3 unreadable" in error.evidence
    assert "--force" in error.next_step
    refuse(found, force=True)
    refuse([], force=False)
    json.dumps([finding.to_json() for finding in found], allow_nan=False)


def test_the_sets_of_the_tests_and_of_the_recordings_pass(tmp_path: Path, shared: Path) -> None:
    count = Census()
    for batch in read_dataset(write_dataset(tmp_path / "faces", videos=4, crops=3)).batches(4):
        count.add(batch)
    assert count.findings() == []
    recorded = np.load(str(shared / "golden" / "uynet_w8" / "calib_u8.npz"))
    assert census(recorded[recorded.files[0]]).findings() == []


# The command: needs the quantizer, hence torch.


def calib(*args: Any) -> Dict[str, Any]:
    """``quant --mode calib --json``: what it prints."""
    from deepfake_fpga.deploy.cli import cli

    words = ["quant", "--mode", "calib", "-q", "--json", *map(str, args)]
    result = CliRunner().invoke(cli, words, catch_exceptions=False, standalone_mode=False)
    record: Dict[str, Any] = json.loads(result.stdout)
    return record


def save_model(path: Path, seed: int) -> Path:
    torch = pytest.importorskip("torch")
    from deepfake_fpga.quantize.model import UYNet

    torch.manual_seed(seed)
    torch.save(UYNet(width=2).state_dict(), str(path))
    return path


@pytest.fixture
def one_video(tmp_path: Path) -> Path:
    """Twelve pictures of one video."""
    for n, image in enumerate(noise(12)):
        write_image(tmp_path / "one" / "crops" / f"clip_{n}.png", image)
    return tmp_path / "one"


@pytest.mark.torch
def test_forcing_is_recorded(tmp_path: Path, one_video: Path) -> None:
    weights, build = save_model(tmp_path / "m.pth", seed=5), tmp_path / "build"
    args = ("--data", one_video, "--checkpoint", weights, "-d", build)
    with pytest.raises(DataError, match="one source dominates"):
        calib(*args)
    assert not build.exists()
    printed = calib(*args, "--force")
    gate = printed["results"]["gate"]
    assert [f["check"] for f in gate["overridden"]] == ["one source dominates"]
    assert gate["pictures"]["largest_source"] == 12
    assert gate["limits"]["source_share"] == 0.5
    assert printed["options"]["force"] is True
    assert any("--force overrode" in warning for warning in printed["warnings"])
    kept = json.loads((build / "quant_model" / "manifest.json").read_text())
    assert kept["results"]["gate"] == gate


@pytest.mark.torch
def test_a_dead_layer_is_refused_after_calibration(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    weights, build = save_model(tmp_path / "m.pth", seed=5), tmp_path / "build"
    state = torch.load(str(weights), weights_only=True)
    for role in ("weight", "bias"):  # the first batch norm gives zero on every picture
        state[f"inc.double_conv.1.{role}"].zero_()
    torch.save(state, str(weights))
    data = write_dataset(tmp_path / "faces", videos=4, crops=2)
    with pytest.raises(DataError) as caught:
        calib("--data", data, "--checkpoint", weights, "-d", build)
    assert "tensors that were never filled" in caught.value.cause
    assert "UYNet::nndct_relu_2 (0.0)" in caught.value.evidence
    assert not build.exists()
