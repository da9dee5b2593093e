"""Runs over a collection that are killed at any moment, interrupted, or share their work."""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, Sequence

import cv2
import numpy as np
import pytest

from deepfake_fpga.compile.xir.xmodel import dump_xmodel
from deepfake_fpga.inference.devices.handmade import uynet

from .clips import write_clip

DRIVER = """
import sys
from deepfake_fpga.inference.journal import blocks, workers
blocks.MOST = 10  # so that there is much to interrupt
from deepfake_fpga.deploy.cli import main
main(["run", *sys.argv[1:]])
"""

PATIENCE = 120.0


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "YNET.xmodel"
    path.write_bytes(dump_xmodel(uynet(4)))
    return path


def start(words: Sequence[Any], model: Path, output: Path) -> subprocess.Popen[str]:
    common = ("-o", output, "--model", model, "--device", "null", "-t", 2)
    return subprocess.Popen(
        [sys.executable, "-c", DRIVER, *(str(word) for word in (*words, *common))],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def ended(process: subprocess.Popen[str]) -> str:
    out, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, out
    return out


def until(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    limit = time.monotonic() + PATIENCE
    while not condition() and process.poll() is None:
        assert time.monotonic() < limit
        time.sleep(0.002)


def parts_of(output: Path) -> int:
    return len(list((output / "parts").glob("*.jsonl")))


def kill_somewhere(process: subprocess.Popen[str], output: Path, chance: random.Random) -> bool:
    """Lets a run get a little further, then kills it; whether it was still there."""
    wanted = parts_of(output) + chance.randint(0, 3)
    until(lambda: parts_of(output) >= wanted and (output / "journal.sqlite").exists(), process)
    time.sleep(chance.random() * 0.1)
    process.kill()
    process.communicate()
    return process.returncode == -signal.SIGKILL


def check_same(output: Path, wanted: Path) -> None:
    """The outcome of a disturbed run is that of an undisturbed one."""
    assert (output / "records.jsonl").read_bytes() == (wanted / "records.jsonl").read_bytes()
    for name in ("masks", "overlays"):
        if (wanted / name).exists():
            for path in (wanted / name).iterdir():
                assert (output / name / path.name).read_bytes() == path.read_bytes()
            assert len(list((output / name).iterdir())) == len(list((wanted / name).iterdir()))
    assert sorted(path.name for path in output.iterdir()) == sorted(
        path.name for path in wanted.iterdir()
    )
    ours, theirs = (json.loads((path / "summary.json").read_text()) for path in (output, wanted))
    for name in ("complete", "verdict", "frames", "verdicts", "frames_by_device"):
        assert ours[name] == theirs[name]
    lines = sum(
        len(path.read_bytes().splitlines()) - 1 for path in (output / "parts").glob("*.jsonl")
    )
    assert lines == len((output / "records.jsonl").read_bytes().splitlines())  # nothing twice
    base = sqlite3.connect(str(output / "journal.sqlite"))
    assert dict(base.execute("SELECT state, count(*) FROM items GROUP BY state")) == {
        "done": ours["journal"]["items"]["total"]
    }
    assert base.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
    base.close()


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images") / "in"
    folder.mkdir()
    for number in range(160):
        picture = np.full((24, 24, 3), number, np.uint8)
        assert cv2.imwrite(str(folder / f"i_{number}.png"), picture)
    return folder


@pytest.fixture(scope="module")
def undisturbed(images: Path, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("undisturbed") / "out"
    ended(start(["--images", images], model, output))
    return output


@pytest.mark.parametrize(("seed", "kills"), [(1, 4), pytest.param(2, 25, marks=pytest.mark.slow)])
def test_killed_anywhere_it_goes_on(
    seed: int, kills: int, images: Path, undisturbed: Path, model: Path, tmp_path: Path
) -> None:
    chance, output, killed = random.Random(seed), tmp_path / "out", 0
    for _ in range(kills):
        killed += kill_somewhere(start(["--images", images], model, output), output, chance)
    assert killed >= 2
    ended(start(["--images", images], model, output))
    check_same(output, undisturbed)


@pytest.mark.parametrize(("seed", "kills"), [(3, 2), pytest.param(4, 12, marks=pytest.mark.slow)])
def test_videos_are_whole_or_not_there(seed: int, kills: int, model: Path, tmp_path: Path) -> None:
    clips = [write_clip(tmp_path / f"{n}.mp4", 30) for n in range(8)]
    words = [word for clip in clips for word in ("--video", clip)] + ["--no-evidence"]
    wanted, output = tmp_path / "wanted", tmp_path / "out"
    ended(start(words, model, wanted))
    chance = random.Random(seed)
    for _ in range(kills):
        kill_somewhere(start(words, model, output), output, chance)
        for path in output.glob("*.mp4"):
            capture = cv2.VideoCapture(str(path))
            assert capture.get(cv2.CAP_PROP_FRAME_COUNT) == 30
            capture.release()
    ended(start(words, model, output))
    check_same(output, wanted)


def test_processes_share_the_work_and_outlive_one_that_dies(
    images: Path, undisturbed: Path, model: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    processes = [start(["--images", images], model, output) for _ in range(3)]
    until(lambda: parts_of(output) >= 2, processes[0])
    processes[0].kill()
    processes[0].communicate()
    texts = [ended(process) for process in processes[1:]]
    for text in texts:
        assert "160   100 %" in text
    check_same(output, undisturbed)
    base = sqlite3.connect(str(output / "journal.sqlite"))
    [(most,)] = base.execute(
        "SELECT max(count) FROM (SELECT count(*) AS count FROM blocks JOIN items "
        "ON items.block = blocks.number GROUP BY items.number)"
    )
    base.close()
    assert most == 1


def test_processes_that_end_together_leave_one_evidence(model: Path, tmp_path: Path) -> None:
    clips = [write_clip(tmp_path / f"{n}.mp4", 15) for n in range(6)]
    words = [word for clip in clips for word in ("--video", clip)]
    output = tmp_path / "out"
    processes = [start(words, model, output) for _ in range(2)]
    for process in processes:
        ended(process)
    checked = subprocess.run(
        [sys.executable, "-m", "deepfake_fpga", "verify", str(output)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout
    shown = [cv2.imread(str(output / f"{n}" / "contact.png")) for n in range(6)]
    assert {picture.shape for picture in shown} == {shown[0].shape}  # as many frames of each


def test_ctrl_c_keeps_what_is_done(
    images: Path, undisturbed: Path, model: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    process = start(["--images", images], model, output)
    until(lambda: parts_of(output) >= 2, process)
    process.send_signal(signal.SIGINT)
    text, _ = process.communicate(timeout=PATIENCE)
    if process.returncode != 0:  # else it was done before the signal came
        assert process.returncode == 130, text
        assert "the same command goes on from there" in text
        shown = subprocess.run(
            [sys.executable, "-m", "deepfake_fpga", "journal", str(output), "--json"],
            stdout=subprocess.PIPE,
            check=False,
        )
        state: Dict[str, Any] = json.loads(shown.stdout)
        assert shown.returncode == 1
        assert state["items"]["claimed"] == 0
        assert 0 < state["items"]["done"] < 160
        assert state["complete"] is False
        hidden: List[str] = [name for name in os.listdir(str(output)) if name.startswith(".")]
        assert not hidden
    assert "files are done already" in ended(start(["--images", images], model, output))
    check_same(output, undisturbed)
