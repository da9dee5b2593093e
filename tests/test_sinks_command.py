"""``run --write``, ``--show`` and ``--serve``: from the words typed to the files and the page."""

from __future__ import annotations

import csv
import json
import socket
import sqlite3
from pathlib import Path
from typing import Any, Iterator

import click
import cv2
import numpy as np
import pytest

from deepfake_fpga.deploy.commands import run as run_command
from deepfake_fpga.deploy.parameters import address, list_of
from deepfake_fpga.inference.devices.handmade import uynet
from deepfake_fpga.inference.sinks import Format

from .calling import exit_code
from .sink_cases import slow_decode
from .standins import stand_in


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that loads as a small compiled U-YNet."""
    return stand_in(tmp_path, uynet(4), monkeypatch)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "faces"
    folder.mkdir()
    for number in range(5):
        image = np.full((64, 48, 3), 20 * number, np.uint8)
        assert cv2.imwrite(str(folder / f"v_{number}.png"), image)
    (folder / "v_5.png").write_text("no picture")
    return folder


def call(*words: Any) -> int:
    return exit_code("run", "--device", "null", *words)


def records(output: Path) -> Iterator[Any]:
    return map(json.loads, (output / "records.jsonl").read_text().splitlines())


def test_the_names_are_those_of_the_formats() -> None:
    assert [form.value for form in Format] == run_command.FORMATS
    files = [name for form in Format for name in form.files]
    assert len(files) == len(set(files))
    epilog = run_command.command.epilog
    assert epilog is not None
    for name in files:
        assert name in epilog


def test_every_form_is_written_and_listed(
    images: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    words = ["--images", images, "-o", output, "--model", model, "--no-overlay"]
    assert call(*words, "--write", "csv,sqlite", "--write", "npy, rle,csv,rle-list") == 0
    files = {name for form in Format for name in form.files}
    assert {path.name for path in output.iterdir()} == {"records.jsonl", "summary.json"} | files
    summary = json.loads((output / "summary.json").read_text())
    assert summary["outputs"][0] == str(output / "records.jsonl")
    assert set(summary["outputs"]) == {str(path) for path in output.iterdir()}
    listed = capsys.readouterr().out.rsplit("written: ", 1)[1]
    assert all(name in listed for name in files)

    given = list(records(output))
    with (output / "records.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["source"] for row in rows] == [record["source"] for record in given]
    assert [row["fake_probability"] for row in rows] == ["0.5"] * 5 + [""]
    base = sqlite3.connect(str(output / "records.sqlite"))
    (run,) = base.execute("SELECT model, device, threshold, complete FROM runs")
    assert run == (str(model), "null", 0.5, 1)
    assert base.execute("SELECT source, status FROM frames ORDER BY number").fetchall() == [
        (record["source"], record["status"]) for record in given
    ]
    base.close()
    for name in ("masks.rle.jsonl", "masks.counts.jsonl"):
        lines = [json.loads(line) for line in (output / name).read_text().splitlines()]
        assert [line["source"] for line in lines] == [record["source"] for record in given]
        assert [line["size"] for line in lines] == [[64, 48]] * 5 + [None]
        assert not slow_decode(lines[0]["counts"], 64, 48).any()
    scores = np.load(str(output / "classification_output_array.npy"))
    assert scores[:5].tolist() == [[0.0]] * 5
    assert np.isnan(scores[5:]).all()
    masks = np.load(str(output / "segmentation_output_array.npy"))
    assert masks.shape == (6, 224, 224, 2)


def test_run_lengths_at_the_size_of_the_network(images: Path, model: Path, tmp_path: Path) -> None:
    words = ["--images", images, "-o", tmp_path / "out", "--model", model, "-q"]
    assert call(*words, "--write", "rle", "--rle-size", "network") == 0
    lines = (tmp_path / "out" / "masks.rle.jsonl").read_text().splitlines()
    assert json.loads(lines[0])["size"] == [224, 224]


def test_a_foreign_database_ends_the_run_and_the_records_stay(
    images: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    output.mkdir()
    (output / "records.sqlite").write_text("mine " * 100)
    (output / "records.jsonl").write_text("of an earlier run")
    words = ["--images", images, "-o", output, "--model", model]
    assert call(*words, "--write", "sqlite") == 1
    assert "is no SQLite database" in capsys.readouterr().err
    assert (output / "records.sqlite").read_text() == "mine " * 100
    assert (output / "records.jsonl").read_text() == "of an earlier run"


def test_the_page_is_announced_and_a_wider_address_warned_of(
    images: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--images", images, "-o", tmp_path / "out", "--model", model]
    assert call(*words, "--serve", "0") == 0
    err = capsys.readouterr().err
    assert "Watch: http://127.0.0.1:" in err
    assert "Warning" not in err
    assert call(*words, "--serve", "0.0.0.0:0", "--side-by-side") == 0
    err = capsys.readouterr().err
    assert "Warning: whoever reaches 0.0.0.0" in err


def test_a_taken_port_is_wrong_use(
    images: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        words = ["--images", images, "-o", tmp_path / "out", "--model", model]
        assert call(*words, "--serve", port) == 2
    assert f"cannot be served at 127.0.0.1:{port}" in capsys.readouterr().err
    assert not (tmp_path / "out" / "records.jsonl").exists()


def test_without_a_screen_nothing_is_begun(
    images: Path,
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(cv2, "getBuildInformation", lambda: "  GUI:     NONE\n")
    words = ["--images", images, "-o", tmp_path / "out", "--model", model]
    assert call(*words, "--show") == 1
    assert "No window can be shown" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_names_that_are_no_utf8_come_through(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "f\udcff"
    folder.mkdir()
    (folder / "a\udcfe.png").write_bytes(cv2.imencode(".png", np.zeros((9, 9), np.uint8))[1])
    output = tmp_path / "out"
    forms = ",".join(form.value for form in Format)
    assert call("--images", folder, "-o", output, "--model", model, "--write", forms) == 0
    assert "f\\udcff" in capsys.readouterr().out
    assert [record["source"] for record in records(output)] == [str(folder / "a\udcfe.png")]
    summary = json.loads((output / "summary.json").read_bytes().decode("utf-8"))
    assert summary["sources"][0]["source"] == str(folder)
    assert "a\\udcfe.png" in (output / "records.csv").read_bytes().decode("utf-8")
    assert len(list((output / "masks").iterdir())) == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--write", "csv,xml"], "'xml' is none of csv, sqlite, npy, rle, rle-list"),
        (["--write", ""], "none of"),
        (["--serve", "here"], "does not end in a port"),
        (["--serve", "65536"], "does not end in a port"),
        (["--serve", "::1:80"], "[::1]:8080"),
        (["--rle-size", "half"], "half"),
    ],
)
def test_wrong_use_is_status_2(
    words: Any, said: str, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("--images", images, "-o", tmp_path / "out", *words) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("8080", ("127.0.0.1", 8080)),
        (":0", ("127.0.0.1", 0)),
        ("box.local:80", ("box.local", 80)),
        ("[::1]:9000", ("::1", 9000)),
    ],
)
def test_addresses(text: str, found: Any) -> None:
    assert address(text) == found
    assert address(found) == found


def test_lists_of_names_have_each_once() -> None:
    names = list_of(["a", "b", "c"])
    assert names("b, a,b") == ("b", "a")
    assert names(("b", "a")) == ("b", "a")
    with pytest.raises(click.BadParameter, match="'d' is none of a, b, c"):
        names("a,d")
