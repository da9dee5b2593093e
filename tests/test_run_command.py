"""The command ``run``: what it takes, prints and returns, on a real session of the null device."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from deepfake_fpga.compile.xir.graph import Graph
from deepfake_fpga.deploy import defaults
from deepfake_fpga.deploy.cli import main
from deepfake_fpga.inference.devices.handmade import uynet

from .calling import exit_code
from .clips import write_clip
from .needs import needs_sim
from .standins import stand_in


@pytest.fixture(scope="session")
def graph() -> Graph:
    return uynet(4)


@pytest.fixture
def model(tmp_path: Path, graph: Graph, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that loads as a small compiled U-YNet."""
    return stand_in(tmp_path, graph, monkeypatch)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "faces"
    folder.mkdir()
    for number in range(10):
        image = np.full((64, 64, 3), 20 * number, np.uint8)
        assert cv2.imwrite(str(folder / f"v_{number}.png"), image)
    return folder


def call(*words: Any) -> int:
    return exit_code("run", *words)


def test_images_on_the_null_device(
    images: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    assert call("--images", images, "-o", output, "--model", model, "--device", "null") == 0
    out, err = capsys.readouterr()
    assert "10" in out
    assert "frames/s on null" in out
    assert "2 batches of 8, 62.5 % of the slots filled" in out
    assert f"Model: {model} (named with --model)" in err
    assert "Device: null" in err
    records = [json.loads(line) for line in (output / "records.jsonl").read_text().splitlines()]
    assert [Path(record["source"]).name for record in records] == [f"v_{n}.png" for n in range(10)]
    # Zero codes: the sigmoid of 0 is 0.5, and 0.5 reaches the threshold.
    assert {record["fake_probability"] for record in records} == {0.5}
    assert {record["device"] for record in records} == {"null"}
    assert len(list((output / "masks").iterdir())) == 10
    assert len(list((output / "overlays").iterdir())) == 10


def test_without_onnx_the_slow_device_is_taken_with_a_warning(
    images: Path,
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    one = images / "v_1.png"
    assert call("--images", one, "-o", tmp_path / "out", "--model", model, "--quiet") == 0
    err = capsys.readouterr().err
    assert "Warning: the reference device" in err
    assert "pip install onnx onnxruntime" in err
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["device"] == "reference"
    assert "onnxruntime not installed" in summary["device_reason"]


def test_json_is_all_of_standard_output(
    images: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = tmp_path / "metadata.json"
    labels.write_text('{"v.mp4": {"label": "FAKE"}}')
    code = call(
        "--images", images / "*_[12].png", "-o", tmp_path / "out", "--model", model, "--json",
        "--device", "null", "--no-overlay", "--labels", labels, "-t", 1,
    )  # fmt: skip
    assert code == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary == json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["accuracy"]["accuracy"] == 1.0
    assert summary["threads"] == 1
    assert summary["frames"]["total"] == 2
    assert not (tmp_path / "out" / "masks").exists()


def test_a_video_side_by_side(model: Path, tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", 9, sound="aac")
    output = tmp_path / "out"
    code = call("--video", clip, "-o", output, "--model", model, "--device", "null", "-q",
                "--side-by-side")  # fmt: skip
    assert code == 0
    av = pytest.importorskip("av")
    with av.open(str(output / "overlay.mp4")) as container:
        assert container.streams.video[0].width == 128
        assert len(container.streams.audio) == 1
        assert sum(1 for _ in container.decode(video=0)) == 9


def test_quiet_says_nothing(
    images: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--images", images, "-o", tmp_path / "out", "--model", model, "--device", "null"]
    assert call(*words, "-q") == 0
    assert capsys.readouterr() == ("", "")


def test_nothing_judged_is_status_1(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "x.png").write_text("no picture")
    words = ["--images", tmp_path / "x.png", "-o", tmp_path / "out", "--model", model]
    assert call(*words, "--device", "null") == 1
    out, err = capsys.readouterr()
    assert "inconclusive" in out
    assert "Nothing could be judged" in err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "neither"),
        (["--images", "{images}", "--video", "{images}"], "both"),
        (["--images", "{images}/*.jpg"], "No image matches"),
        (["--images", "{images}/absent"], "does not exist"),
        (["--video", "{images}"], "folder"),
        (["--images", "{images}", "--model", "absent.xmodel"], "absent.xmodel"),
        (["--images", "{images}", "--labels", "absent.json"], "absent.json"),
        (["--images", "{images}", "--device", "cloud"], "cloud"),
        (["--images", "{images}", "--checkpoint", "x.pth"], "--device float"),
        (["--images", "{images}", "-t", "0"], "0"),
    ],
)
def test_wrong_use_is_status_2(
    words: Any, said: str, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    words = [word.replace("{images}", str(images)) for word in words]
    assert call(*words, "-o", output) == 2
    assert said in capsys.readouterr().err
    assert not output.exists()


def test_the_build_folder_comes_before_the_shipped_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped = tmp_path / "data" / "YNET.xmodel"
    monkeypatch.setattr(defaults, "default_model", lambda: shipped)
    build = tmp_path / "build"
    with pytest.raises(defaults.MissingError, match="compile"):
        defaults.choose_model(None, build)
    shipped.parent.mkdir()
    shipped.write_bytes(b"x")
    path, reason = defaults.choose_model(None, build)
    assert path == shipped
    assert "shipped" in reason
    built = build / "compiled" / "YNET.xmodel"
    built.parent.mkdir(parents=True)
    built.write_bytes(b"x")
    path, reason = defaults.choose_model(None, build)
    assert path == built
    assert "build folder" in reason
    path, reason = defaults.choose_model(shipped, build)
    assert path == shipped
    assert "--model" in reason


@needs_sim
def test_a_run_is_recorded_and_played_back(
    images: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = tmp_path / "run.rec"
    common = ("--images", images, "--model", model, "--no-overlay", "-t", 1)
    assert call(*common, "-o", tmp_path / "a", "--device", "sim", "--record", record) == 0
    replay = (*common, "--device", "replay", "--recording", record)
    assert call(*replay, "-o", tmp_path / "b") == 0
    assert f"Device: replay (asked for; recorded on sim: {record})" in capsys.readouterr().err
    first, second = (
        [json.loads(line) for line in (tmp_path / name / "records.jsonl").read_text().splitlines()]
        for name in "ab"
    )
    assert [r["fake_probability"] for r in first] == [r["fake_probability"] for r in second]
    assert cv2.imwrite(str(images / "v_3.png"), np.full((64, 64, 3), 200, np.uint8))
    assert call(*replay, "-o", tmp_path / "c") == 1
    assert "Batch 0 is not the one that was recorded" in capsys.readouterr().err


def test_a_collection_goes_on_and_lists_what_failed(
    images: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = (images / "v_4.png").read_bytes()
    (images / "v_4.png").write_bytes(good[:100])
    words = ["--images", images, "--model", model, "-o", tmp_path / "out", "--device", "null"]
    assert call(*words) == 0  # the others were judged
    out, err = capsys.readouterr()
    assert "collection: 9 of 10 files done, 1 failed" in out
    assert f"failed: {images / 'v_4.png'}: decode_error: the file is truncated" in out
    assert "--retry-failed" in out
    assert "already" not in err
    (images / "v_4.png").write_bytes(good)
    assert call(*words, "--retry-failed") == 0
    out, err = capsys.readouterr()
    assert "collection: 10 of 10 files done, 0 failed" in out
    assert "1 files have changed and are done again" in err
    assert call(*words, "--threshold", "0.7") == 0
    out, err = capsys.readouterr()
    assert "of another threshold: a new one is begun" in err
    with pytest.raises(SystemExit) as stopped:
        main(["journal", str(tmp_path / "out")])
    assert stopped.value.code == 0
    assert "10 of 10 files done" in capsys.readouterr().out


def test_what_has_no_journal_says_so(
    images: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    words = ["--model", model, "-o", output, "--device", "null"]
    assert call(*words, "--images", images, "--write", "npy") == 0
    assert "Without a journal, so it cannot be resumed: segm" in capsys.readouterr().err
    one = images / "v_1.png"
    assert call(*words, "--images", one, "--retry-failed") == 2
    assert "a single file needs none" in capsys.readouterr().err
    assert call(*words, "--images", one) == 0
    assert "ithout a journal" not in capsys.readouterr().err
    assert not (output / "journal.sqlite").exists()
    with pytest.raises(SystemExit) as stopped:
        main(["journal", str(output)])
    assert stopped.value.code == 2
    assert "There is no journal" in capsys.readouterr().err


def test_a_recording_without_replay_is_wrong_use(
    images: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = call("--images", images, "--model", model, "-o", tmp_path, "--recording", model)
    assert code == 2
    assert "add --device replay" in capsys.readouterr().err
    code = call("--images", images, "--model", model, "-o", tmp_path, "--device", "replay")
    assert code == 2
    assert "--recording FILE" in capsys.readouterr().err
