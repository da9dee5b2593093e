"""Data sets: both layouts, every defect named, batches that are what the files say."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Tuple

import numpy as np
import pytest

from deepfake_fpga.errors import DataError, FormatError, MissingError
from deepfake_fpga.preprocessing import Preprocessing, fit
from deepfake_fpga.quantize.dataset import FAKE, REAL, ProblemKind, read_dataset
from deepfake_fpga.quantize.pictures import read_image, read_mask

from .faces import face, gif_bytes, write_dataset, write_image

SMALL = Preprocessing(height=32, width=32)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_dataset(tmp_path / "faces", videos=4, crops=3)


def test_labels_masks_and_order(folder: Path) -> None:
    dataset = read_dataset(folder)
    assert [(i.image.stem, i.label, i.mask is not None) for i in dataset.items[:6]] == [
        ("video0_0", REAL, False),
        ("video0_1", REAL, False),
        ("video0_2", REAL, False),
        ("video1_0", FAKE, True),
        ("video1_1", FAKE, True),
        ("video1_2", FAKE, True),
    ]
    assert dataset.problems == []
    assert dataset.unlabelled == ""


def test_numbers_are_ordered_as_numbers(tmp_path: Path) -> None:
    for n in (10, 2, 1):
        write_image(tmp_path / f"v_{n}.png", face(n, 8, False)[0])
    names = [item.image.stem for item in read_dataset(tmp_path).items]
    assert names == ["v_1", "v_2", "v_10"]


def test_batches_hold_what_the_files_hold(folder: Path) -> None:
    batches = list(read_dataset(folder).batches(5, SMALL))
    assert [len(b.items) for b in batches] == [5, 5, 2]
    second = batches[0]
    image, mask = face(101, 64, True)  # video1_1, the fifth
    assert second.items[4].image.stem == "video1_1"
    np.testing.assert_array_equal(second.images[4], fit(image, SMALL))
    np.testing.assert_array_equal(second.masks[4], mask[::2, ::2])  # nearest takes every second
    assert second.labels.tolist() == [1, 1, 1, 0, 0]
    assert second.mask_known.all()
    assert not second.masks[0].any()
    floats = second.floats
    assert floats.dtype == np.float32
    assert floats.shape == (5, 3, 32, 32)
    assert floats[4, 2, 7, 9] == np.float32(second.images[4, 7, 9, 2]) / np.float32(255)


@pytest.fixture(params=["PyAV", "OpenCV"])
def decoder(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reads GIF by PyAV, and as where there is none."""
    if request.param == "PyAV":
        pytest.importorskip("av")
    else:
        monkeypatch.setitem(sys.modules, "av", None)


@pytest.mark.usefixtures("decoder")
@pytest.mark.parametrize("bright", [255, 1])
@pytest.mark.parametrize("shape", [(64, 64), (37, 53)])
def test_gif_masks_are_exact(tmp_path: Path, shape: Tuple[int, int], bright: int) -> None:
    mask = np.random.RandomState(1).randint(0, 2, shape).astype(np.uint8)
    (tmp_path / "m.gif").write_bytes(gif_bytes(mask, bright))
    read = read_mask(tmp_path / "m.gif")
    assert read.dtype == np.uint8
    np.testing.assert_array_equal(read, mask)


@pytest.mark.usefixtures("decoder")
def test_an_empty_gif_mask_is_all_zero(tmp_path: Path) -> None:
    (tmp_path / "m.gif").write_bytes(gif_bytes(np.zeros((16, 16), np.uint8)))
    assert not read_mask(tmp_path / "m.gif").any()


def test_every_defect_is_named(folder: Path) -> None:
    (folder / "masks" / "video1_0.gif").unlink()
    (folder / "masks" / "video1_1.gif").write_bytes(b"GIF89a not really")
    (folder / "masks" / "video1_2.gif").write_bytes(gif_bytes(np.ones((8, 8), np.uint8)))
    (folder / "crops" / "video0_0.png").write_bytes(b"\x89PNG\r\n\x1a\n and then nothing")
    (folder / "crops" / "video0_1.png").write_bytes(b"")
    (folder / "crops" / "video2_0.png").write_bytes(
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"
    )
    metadata = json.loads((folder / "metadata.json").read_text())
    metadata["video2.mp4"]["label"] = "MAYBE"
    del metadata["video3.mp4"]
    (folder / "metadata.json").write_text(json.dumps(metadata))
    dataset = read_dataset(folder)
    batches = list(dataset.batches(4, SMALL))
    assert sum(len(b.items) for b in batches) == 12 - 3
    list(dataset.batches(4, SMALL))  # a second reading reports nothing twice
    found = {(p.kind, p.path.name) for p in dataset.problems}
    assert len(found) == len(dataset.problems)
    assert found == {
        (ProblemKind.MISSING_MASK, "video1_0.png"),
        (ProblemKind.UNREADABLE_MASK, "video1_1.gif"),
        (ProblemKind.MASK_SIZE, "video1_2.gif"),
        (ProblemKind.UNREADABLE_IMAGE, "video0_0.png"),
        (ProblemKind.UNREADABLE_IMAGE, "video0_1.png"),
        (ProblemKind.UNREADABLE_IMAGE, "video2_0.png"),
        (ProblemKind.UNKNOWN_LABEL, "video2_1.png"),
        (ProblemKind.UNKNOWN_LABEL, "video2_2.png"),
        (ProblemKind.UNKNOWN_VIDEO, "video3_0.png"),
        (ProblemKind.UNKNOWN_VIDEO, "video3_1.png"),
        (ProblemKind.UNKNOWN_VIDEO, "video3_2.png"),
    }
    assert dataset.problem_counts["video not in metadata.json"] == 3
    known = {i.image.stem: k for b in batches for i, k in zip(b.items, b.mask_known.tolist())}
    assert known == {
        "video0_2": True,
        "video1_0": False,
        "video1_1": False,
        "video1_2": False,
        "video2_1": False,
        "video2_2": False,
        "video3_0": True,
        "video3_1": True,
        "video3_2": True,
    }


def test_a_video_name_may_have_underscores(tmp_path: Path) -> None:
    write_image(tmp_path / "crops" / "my_clip_7.png", face(0, 8, False)[0])
    write_image(tmp_path / "crops" / "abc_7_0.png", face(0, 8, False)[0])
    labels = {"my_clip.mp4": {"label": "REAL"}, "abc.mp4": {"label": "REAL"}}
    (tmp_path / "metadata.json").write_text(json.dumps(labels))
    dataset = read_dataset(tmp_path)
    assert [item.video for item in dataset.items] == ["abc", "my_clip"]
    assert dataset.problems == []


def test_subset_is_balanced_spread_and_repeatable(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path / "faces", videos=6, crops=4, size=8)
    dataset = read_dataset(folder)
    subset = dataset.subset(12, seed=3)
    assert Counter(item.label for item in subset.items) == {REAL: 6, FAKE: 6}
    assert Counter(item.video for item in subset.items) == {f"video{n}": 2 for n in range(6)}
    assert subset.items == read_dataset(folder).subset(12, seed=3).items
    assert subset.items != dataset.subset(12, seed=4).items
    assert list(subset.items) == sorted(subset.items, key=dataset.items.index)
    assert len(dataset.subset(7)) == 7
    assert dataset.subset(1000).items == dataset.items


def test_plain_folder_with_names_of_any_script(tmp_path: Path) -> None:
    image = face(5, 40, False)[0]
    write_image(tmp_path / "Gesicht größer 顔.png", image)
    write_image(tmp_path / "b.PNG", image)
    (tmp_path / "notes.txt").write_text("no picture")
    dataset = read_dataset(tmp_path)
    assert len(dataset) == 2
    assert "plain folder" in dataset.unlabelled
    np.testing.assert_array_equal(read_image(dataset.items[0].image), image)
    batch = next(dataset.batches(8, SMALL))
    assert batch.labels.tolist() == [-1, -1]
    assert not batch.mask_known.any()


def test_without_metadata_the_reason_is_given(folder: Path) -> None:
    (folder / "metadata.json").unlink()
    dataset = read_dataset(folder)
    assert "metadata.json" in dataset.unlabelled
    assert {item.label for item in dataset.items} == {None}


@pytest.mark.parametrize("content", ["{", "[]", '{"a.mp4": "REAL"}', '{"a.mp4": {}}', "\udcff"])
def test_damaged_metadata(folder: Path, content: str) -> None:
    (folder / "metadata.json").write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(FormatError, match="labels"):
        read_dataset(folder)


def test_no_folder_and_no_pictures(tmp_path: Path) -> None:
    with pytest.raises(MissingError):
        read_dataset(tmp_path / "absent")
    (tmp_path / "a.txt").write_text("")
    with pytest.raises(DataError, match="no pictures") as caught:
        read_dataset(tmp_path)
    assert "a.txt" in caught.value.evidence
