"""The command ``run`` with inputs of any kind and with a choice of frames."""

from __future__ import annotations

import io
import json
import sys
import tarfile
import threading
from pathlib import Path
from typing import Any, Dict, List

import cv2
import numpy as np
import pytest

from deepfake_fpga.compile.xir.graph import Graph
from deepfake_fpga.inference.devices.handmade import uynet

from .calling import exit_code
from .clips import write_clip
from .standins import stand_in
from .test_sources_live import Server, mjpeg


@pytest.fixture(scope="session")
def graph() -> Graph:
    return uynet(4)


@pytest.fixture(autouse=True)
def model(tmp_path: Path, graph: Graph, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that loads as a small compiled U-YNet."""
    return stand_in(tmp_path, graph, monkeypatch)


@pytest.fixture
def things(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "things"
    (folder / "faces").mkdir(parents=True)
    for number in range(5):
        image = np.full((64, 64, 3), 20 * number, np.uint8)
        assert cv2.imwrite(str(folder / "faces" / f"v_{number}.png"), image)
    write_clip(folder / "clip.avi", 12, codec="mjpeg", pix_fmt="yuvj420p")
    with tarfile.open(str(folder / "t.tar.gz"), "w:gz") as tar:
        tar.add(str(folder / "clip.avi"), "in/clip.avi")
        tar.add(str(folder / "faces" / "v_3.png"), "in/v_3.png")
    (folder / "names.txt").write_text("faces/v_2.png\nfaces/v_0.png\n")
    monkeypatch.chdir(folder)
    return folder


def call(*words: Any) -> int:
    return exit_code("run", *words, "--model", "../model/YNET.xmodel", "--device", "null")


def records(output: str = "out") -> List[Dict[str, Any]]:
    text = Path(output, "records.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def summary(output: str = "out") -> Dict[str, Any]:
    found: Dict[str, Any] = json.loads(Path(output, "summary.json").read_text(encoding="utf-8"))
    return found


def test_inputs_of_all_kinds_share_one_device(
    things: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["names.txt", "t.tar.gz", "faces", "faces/*_4.png"]
    assert call(*(w for word in words for w in ("--input", word)), "-o", "out") == 0
    err = capsys.readouterr().err
    assert "Input: names.txt (a list of files: text by its first bytes)" in err
    assert "Input: t.tar.gz (a tar: gzip by its first bytes)" in err
    assert "Input: faces (a folder)" in err
    found = [(record["source"], record["frame"]) for record in records()]
    assert found == [
        *(("faces/v_2.png", 0), ("faces/v_0.png", 0)),
        *(("t.tar.gz/in/clip.avi", number) for number in range(12)),
        ("t.tar.gz/in/v_3.png", 0),
        *((f"faces/v_{number}.png", 0) for number in range(5)),
        ("faces/v_4.png", 0),
    ]
    whole = summary()
    assert [source["frames"] for source in whole["sources"]] == [2, 13, 5, 1]
    assert whole["batch"]["submitted"] == 3  # 21 pictures, packed across all inputs
    assert whole["selection"] is None
    assert len(list(Path("out", "overlays").iterdir())) == 9


def test_a_tar_comes_through_standard_input(things: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Stdin(io.TextIOWrapper):
        def fileno(self) -> int:
            raise OSError

    stdin = Stdin(io.BytesIO((things / "t.tar.gz").read_bytes()))
    monkeypatch.setattr(sys, "stdin", stdin)
    assert call("--input", "-", "-o", "out", "--stdin-format", "tar", "--no-overlay") == 0
    assert [record["source"] for record in records()] == [
        *["stdin/in/clip.avi"] * 12, "stdin/in/v_3.png"
    ]  # fmt: skip


def test_streams_and_files_together(things: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Server([mjpeg(0, 12)]) as server:
        url = server.url.replace("//", "//me:secret@")
        code = call("--input", url, "--input", "faces", "--silence", "0.3", "-o", "out")
    assert code == 0
    shown = url.replace("secret", "***")
    found = records()
    frames = [record["frame"] for record in found if record["source"] == shown]
    assert 10 <= len(frames) <= 12
    assert frames == list(range(len(frames)))
    assert [r["source"] for r in found if r["source"] != shown] == [
        f"faces/v_{number}.png" for number in range(5)
    ]
    assert "given up after 0.3 s" in " ".join(summary()["notes"])
    out, err = capsys.readouterr()
    assert "secret" not in out + err
    for path in Path("out").rglob("*"):
        assert not path.is_file() or b"secret" not in path.read_bytes(), path


def test_a_choice_of_frames_is_counted(things: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--video", "clip.avi", "--start", "0:00.1", "--duration", "0.3", "--every", "2")
    assert call(*words, "-o", "out") == 0
    assert [record["frame"] for record in records()] == [2, 4, 6]
    assert "3 frames left out, 0 inherited" in capsys.readouterr().out
    chosen = summary()["selection"]
    assert (chosen["start"], chosen["every"], chosen["left_out"]) == (0.1, 2, 3)
    assert chosen["end"] == pytest.approx(0.4)


@pytest.mark.parametrize("option", ["--images", "--input"])
def test_unchanged_pictures_inherit(option: str, things: Path) -> None:
    still = np.full((64, 64, 3), 90, np.uint8)
    Path("still").mkdir()
    for number in range(6):
        cv2.imwrite(f"still/{number}.png", still)
    words = (option, "still", "--skip-static", "--static-threshold", 5)
    assert call(*words, "-o", "out", "--no-overlay") == 0
    assert [record["inherited_from"] for record in records()] == [None, *["still/0.png"] * 5]
    assert summary()["selection"]["static_threshold"] == 5
    assert summary()["selection"]["inherited"] == 5


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--input", "absent.png"], "absent.png does not exist"),
        (["--input", "faces", "--images", "faces"], "both --images and --input"),
        (["--input", "faces", "--stdin-format", "tar"], "--stdin-format is for standard input"),
        (["--input", "faces", "--silence", "3"], "--silence is for streams"),
        (["--input", "clip.avi", "--end", "3", "--duration", "2"], "both say where to stop"),
        (["--input", "clip.avi", "--every", "3", "--fps", "2"], "--every and --fps"),
        (["--input", "clip.avi", "--start", "3", "--end", "2"], "ends before it begins"),
        (["--input", "clip.avi", "--start", "soon"], "is no time"),
        (["--input", "clip.avi", "--every", "0"], "--every"),
        (["--input", "clip.avi", "--fps", "0"], "--fps"),
        (["--input", "clip.avi", "--static-threshold", "9"], "--skip-static"),
        (["--input", "faces", "--fps", "2"], "no times"),
        (["--input", "camera:987"], "no camera"),
        (["--input", "gopher://x"], "gopher"),
        (["--images", "rtsp://x"], "--video rtsp://x"),
    ],
)
def test_wrong_use_is_status_2(
    words: List[str], said: str, things: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(*words, "-o", "out") == 2
    assert said in capsys.readouterr().err


def test_the_run_ends_and_no_thread_is_left(things: Path) -> None:
    before = set(threading.enumerate())
    with Server([mjpeg(0, 5)]) as server:
        words = ("--input", server.url, "--input", "faces", "--silence", "0.2")
        assert call(*words, "-o", "out", "-q") == 0
    for thread in set(threading.enumerate()) - before:
        thread.join(5)
        assert not thread.is_alive()


def test_a_video_comes_through_standard_input(
    things: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Stdin(io.TextIOWrapper):
        def fileno(self) -> int:
            raise OSError

    stdin = Stdin(io.BytesIO((things / "clip.avi").read_bytes()))
    monkeypatch.setattr(sys, "stdin", stdin)
    call("--input", "-", "--input", "clip.avi", "-o", "out", "--every", "4")
    found = [(record["source"], record["frame"]) for record in records()]
    assert sorted(found) == [(name, n) for name in ("clip.avi", "stdin") for n in (0, 4, 8)]
    assert "Input: stdin (a video: AVI by its first bytes)" in capsys.readouterr().err


def test_a_video_that_two_inputs_name_has_one_folder(things: Path) -> None:
    Path("both.txt").write_text("clip.avi\n")
    call("--input", "both.txt", "--input", "t.tar.gz", "--input", "clip.avi", "-o", "out")
    assert len(records()) == 12 + 13 + 12
    folders = [path.parent.name for path in Path("out").glob("*/report.html")]
    assert sorted(folders) == ["clip", "clip-2"]
