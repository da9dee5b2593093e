"""The command ``data``: from a folder of videos to a split set, and what it prints and returns."""

from __future__ import annotations

import json
import shutil
import tarfile
from fractions import Fraction
from pathlib import Path
from typing import Any, Dict, Tuple

import cv2
import numpy as np
import pytest

from deepfake_fpga.preprocessing import Preprocessing, Square, cut, fit
from deepfake_fpga.quantize.dataset import read_dataset
from deepfake_fpga.quantize.pictures import read_image
from deepfake_fpga.quantize.synthetic import make_take
from deepfake_fpga.quantize.synthetic_pairs import make_pair

from .calling import exit_code
from .clips import write_clip

SIZE = 96


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dfdc") / "part_0"
    folder.mkdir()
    metadata: Dict[str, Any] = {}
    for number in range(3):
        pair = make_pair("train", 2, number, 4, SIZE)
        for letter, pictures in (("r", pair.original), ("f", pair.fake)):
            write_clip(
                folder / f"{letter}{number}.mp4", 4, height=SIZE, width=SIZE, pictures=pictures,
                rate=Fraction(15),
            )  # fmt: skip
        metadata[f"r{number}.mp4"] = {"label": "REAL", "split": "train"}
        metadata[f"f{number}.mp4"] = {"label": "FAKE", "original": f"r{number}.mp4"}
    (folder / "metadata.json").write_text(json.dumps(metadata))
    return folder


def call(*words: Any) -> int:
    return exit_code("data", *words)


def test_four_commands_lead_from_videos_to_a_checked_split(
    videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    faces, split = tmp_path / "faces", tmp_path / "split"
    assert call("check", videos) == 0
    assert "6 files, nothing must be fixed" in capsys.readouterr().out
    assert call("masks", videos, "-o", faces, "--frames", 2, "--jobs", 2) == 0
    out = capsys.readouterr().out
    assert "12 crops with masks from 6 of 6 videos (6 FAKE, 6 REAL)" in out
    assert f"data split {faces}" in out
    assert "Faces: whole, small and nearly square: a crop of a face already (6 videos)" in out
    assert call("split", faces, "-o", split, "--parts", "train=2,test=1") == 0
    out = capsys.readouterr().out
    assert "No two parts share a video, an original or a named person" in out
    assert "of 3 originals nobody says who is in them" in out
    assert call("check", split) == 0
    out = capsys.readouterr().out
    assert "Parts by folder" in out
    assert "12 files, nothing must be fixed" in out
    for part, count in (("train", 8), ("test", 4)):
        dataset = read_dataset(split / part)
        assert (len(dataset), dataset.problems) == (count, [])


def test_faults_are_a_table_json_and_a_script(
    videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    faces = tmp_path / "faces"
    assert call("masks", videos, "-o", faces, "--frames", 1) == 0
    crop = faces / "crops" / "f1_0.png"
    crop.write_bytes(crop.read_bytes()[:500])
    capsys.readouterr()
    script = tmp_path / "mend.sh"
    assert call("check", faces, "--fixes", script) == 1
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert any(line.startswith(f"fix 1 cut off {crop}: the file is") for line in lines)
    assert lines[-1] == "6 files, 1 fault must be fixed"
    assert f"rm -f {crop}" in script.read_text()
    assert call("check", faces, "--json", "--resume", tmp_path / "seen.jsonl") == 1
    record = json.loads(capsys.readouterr().out)
    assert record["sound"] is False
    assert record["faults"]["truncated"]["found"][0]["where"] == str(crop)
    # The same two folders as parts: everything is in both.
    assert call("check", f"train={faces}", f"test={faces}", "--json") == 1
    record = json.loads(capsys.readouterr().out)
    assert record["faults"]["leak_video"]["count"] == 6


def test_a_bad_video_is_listed_and_the_status_is_1(
    videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    archive = tmp_path / "videos.tar"
    with tarfile.open(str(archive), "w") as tar:
        for path in sorted(videos.iterdir()):
            if path.name != "r2.mp4":
                tar.add(str(path), arcname=path.name)
    target = tmp_path / "faces.tar.gz"
    assert call("masks", archive, "-o", target, "--frames", 1) == 1
    out = capsys.readouterr().out
    assert f"{archive}/f2.mp4: its original r2 is not among the videos" in out
    with tarfile.open(str(target)) as tar:
        assert "crops/f0_0.png" in tar.getnames()
        assert "crops/f2_0.png" not in tar.getnames()
    assert call("masks", archive, "-o", tmp_path / "again", "--frames", 1, "--json") == 1
    record = json.loads(capsys.readouterr().out)
    assert list(record["skipped"]) == [f"{archive}/f2.mp4"]
    whole = archive.read_bytes()
    archive.write_bytes(whole[: len(whole) // 2])
    assert call("crops", archive, "-o", tmp_path / "half", "--frames", 1) == 1
    assert "cut off" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (("masks", "absent", "-o", "out"), 2, "no folder or archive absent"),
        (("masks", "VIDEOS", "-o", "out", "--faces", "boxes"), 2, "needs a file"),
        (("masks", "VIDEOS", "-o", "out", "--level", "2"), 2, "--level"),
        (("masks", "VIDEOS"), 2, "-o"),
        (("split", "VIDEOS", "-o", "out", "--parts", "train"), 2, "--parts train=80"),
        (("split", "VIDEOS", "-o", "out", "--parts", "a=1,b=1,c=1,d=1"), 1, "too many show"),
        (("split", "VIDEOS", "-o", "out", "--identities", "none.csv"), 2, "--identities"),
        (("check", "absent"), 2, "no folder or archive absent"),
    ],
)
def test_errors_name_what_is_wrong(
    videos: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    words: Tuple[str, ...],
    status: int,
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call(*(str(videos) if word == "VIDEOS" else word for word in words)) == status
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_options_of_masks_reach_the_masks(videos: Path, tmp_path: Path) -> None:
    words = ("--frames", 1, "--threshold", "fixed", "--level", 0.35, "--size", 64)
    assert call("masks", videos, "-o", tmp_path / "out", *words, "--structure-only") in (0, 1)
    options = json.loads((tmp_path / "out" / "data.json").read_text())["options"]
    assert options["size"] == 64
    assert options["mask"]["threshold"] == "fixed"
    assert options["mask"]["level"] == 0.35
    assert options["mask"]["colour"] is False


def test_photographs_are_cut_where_there_is_no_video(
    videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photographs = tmp_path / "photographs"
    photographs.mkdir()
    take = make_take("test", 3, 1, 1, False)
    wall = np.full((300, 500, 3), 128, np.uint8)
    for name, x in (("left", 20), ("right", 240)):
        whole = wall.copy()
        whole[40:264, x : x + 224] = fit(take.pictures[0], Preprocessing())
        cv2.imwrite(str(photographs / f"{name}.png"), whole[..., ::-1])
    cv2.imwrite(str(photographs / "wall.jpg"), wall)
    (photographs / "cut.jpg").write_bytes((photographs / "wall.jpg").read_bytes()[:40])
    out = tmp_path / "faces"
    assert call("crops", photographs, "-o", out, "--faces", "cascade", "--json") == 1
    record = json.loads(capsys.readouterr().out)
    assert (record["done"], record["crops"]) == (2, 2)
    assert "no face" in record["skipped"][f"{photographs}/wall.jpg"]
    assert "cannot be decoded" in record["skipped"][f"{photographs}/cut.jpg"]
    journal = [json.loads(line) for line in (out / "videos.jsonl").read_text().splitlines()]
    about = {line["video"]: line["crops"][0] for line in journal if line.get("crops")}
    for name, x in (("left", 20), ("right", 240)):
        square = Square(*about[f"{photographs}/{name}.png"]["square"])
        assert 180 < square.side < 300  # the drawn face, a third added on each side
        assert abs(square.x + square.side / 2 - (x + 112)) < 20
        crop = read_image(out / "crops" / f"{name}_0.png")
        assert np.array_equal(crop, cut(read_image(photographs / f"{name}.png"), square))

    # Where there are videos the pictures beside them are no part of the data set, ...
    both = tmp_path / "both"
    shutil.copytree(str(videos), str(both))
    shutil.copy(str(photographs / "left.png"), str(both / "thumbnail.png"))
    assert call("crops", both, "-o", tmp_path / "others", "--frames", 1, "--json") == 0
    assert json.loads(capsys.readouterr().out)["videos"] == 6
    # ... and masks need two videos.
    assert call("masks", photographs, "-o", tmp_path / "masks") == 1
    assert "There are no videos" in capsys.readouterr().err
