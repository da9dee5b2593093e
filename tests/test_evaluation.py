"""Scores and agreement of two models whose answers are known."""

from __future__ import annotations

from pathlib import Path
from typing import Tuple

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from deepfake_fpga.errors import DataError  # noqa: E402
from deepfake_fpga.preprocessing import Preprocessing  # noqa: E402
from deepfake_fpga.quantize.dataset import read_dataset  # noqa: E402
from deepfake_fpga.quantize.evaluation import evaluate  # noqa: E402

from .faces import write_dataset, write_image  # noqa: E402

pytestmark = pytest.mark.torch
SMALL = Preprocessing(height=32, width=32)


def model(real: float, mask: str):  # type: ignore[no-untyped-def]
    """Says ``real`` of every picture; its mask is nothing, everything or the left half."""

    def run(x: torch.Tensor) -> Tuple[torch.Tensor, torch.Tensor]:
        logits = torch.zeros(x.shape[0], 2, *x.shape[2:])
        end = {"nothing": 0, "half": x.shape[3] // 2, "everything": x.shape[3]}[mask]
        logits[:, 1, :, :end] = 1
        return logits, torch.full((x.shape[0], 1), real)

    return run


def test_scores_and_agreement(tmp_path: Path) -> None:
    dataset = read_dataset(write_dataset(tmp_path / "a", videos=4, crops=2))
    seen = []
    result = evaluate(
        model(0.75, "nothing"), model(0.25, "half"), dataset, 3, SMALL, on_batch=seen.append
    )
    assert seen == [3, 3, 2]
    assert (result.labelled, result.masked) == (8, 8)
    assert result.float_scores is not None
    assert result.quantized_scores is not None
    # The float model says REAL of everything: right for half, no pixel found, no order at all.
    assert result.float_scores.accuracy == 0.5
    assert result.float_scores.dice == 0.0
    assert result.float_scores.auc == 0.5
    masks = np.concatenate([b.masks for b in dataset.batches(8, SMALL)])
    left = np.zeros(masks.shape, bool)
    left[:, :, :16] = True
    both = int((left & (masks == 1)).sum())
    expected = 2 * both / (int(left.sum()) + int(masks.sum()))
    assert result.quantized_scores.dice == pytest.approx(expected, abs=1e-12)
    agreement = result.agreement
    assert agreement.verdict_flips == 8
    assert agreement.flipped[0] == "video0_0.png"
    assert agreement.mask_pixels == 0.5
    assert agreement.mask_dice == 0.0
    assert agreement.max_difference == pytest.approx(0.5)
    assert len(result.verdicts.names) == 8
    assert result.verdicts.exact == pytest.approx(np.full(8, 0.25))
    assert list(result.verdicts.labels) == [1, 1, 0, 0] * 2
    # Every picture gets one fake probability; half are fake.
    for scores, fake in ((result.float_scores, 0.25), (result.quantized_scores, 0.75)):
        assert scores.ece == pytest.approx(0.25)
        assert scores.eer == 0.5
        assert scores.log_loss == pytest.approx(-(np.log(fake) + np.log(1 - fake)) / 2)


def test_without_labels_only_agreement_is_given(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", np.zeros((32, 32, 3), np.uint8))
    dataset = read_dataset(tmp_path)
    result = evaluate(model(0.9, "everything"), model(0.9, "everything"), dataset, 8, SMALL)
    assert result.float_scores is None
    assert "plain folder" in result.why_no_scores
    assert result.agreement.verdict_flips == 0
    assert result.agreement.mask_dice == 1.0
    assert result.to_json()["float"] is None


def test_unknown_masks_do_not_count(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path / "a", videos=2, crops=2)
    (folder / "masks" / "video1_0.gif").unlink()
    result = evaluate(
        model(0.1, "nothing"), model(0.1, "everything"), read_dataset(folder), 8, SMALL
    )
    assert (result.labelled, result.masked) == (4, 3)


def test_pictures_that_cannot_be_read_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(DataError, match="Not one picture"):
        evaluate(model(0.1, "half"), model(0.1, "half"), read_dataset(tmp_path), 8, SMALL)
