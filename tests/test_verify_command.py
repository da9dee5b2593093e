"""``verify``: any changed byte of any file is found, and what a hash cannot say is said."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any, List, Tuple

import pytest

from deepfake_fpga.deploy.cli import main
from deepfake_fpga.deploy.defaults import default_model
from deepfake_fpga.deploy.evidence.manifest import (
    own_hash,
    read_key,
    text_of,
    write_manifest,
)
from deepfake_fpga.deploy.evidence.verification import Verification, verify
from deepfake_fpga.errors import FormatError, MissingError, UsageError

from .evidence import BRIGHT, DARK, grey_clip, judged
from .needs import needs_sim

KEY = b"a key that nobody guesses\n"


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``one``: a video; ``two``: two of them; ``signed``: one, signed; ``clip.mp4``, ``key``."""
    folder = tmp_path_factory.mktemp("results")
    clip = grey_clip(folder / "clip.mp4", [DARK] * 8)
    other = grey_clip(folder / "other.mp4", [BRIGHT] * 8)
    judged([clip], folder / "one")
    judged([clip, other], folder / "two")
    judged([clip], folder / "signed", key=KEY)
    (folder / "key").write_bytes(KEY)
    return folder


@pytest.fixture
def copy(results: Path, tmp_path: Path) -> Path:
    """A copy of all of them, whose manifests still name the first place of the input."""
    shutil.copytree(str(results), str(tmp_path / "copy"))
    return tmp_path / "copy"


def flip(path: Path, place: int, by: int = 1) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= by
    path.write_bytes(bytes(data))


def found(result: Verification) -> List[Tuple[str, str]]:
    return [(finding.kind, finding.path) for finding in result.findings]


def call(*words: Any) -> int:
    with pytest.raises(SystemExit) as exit_info:
        main([str(word) for word in words])
    return int(exit_info.value.code or 0)


def test_what_was_not_changed_is_intact(copy: Path) -> None:
    one = verify(copy / "one")
    assert one.intact
    # The manifest, the files beside it, the input and the model.
    assert one.checked == 1 + (len(list((copy / "one").iterdir())) - 1) + 2
    two = verify(copy / "two")
    assert two.intact
    assert two.checked == 1 + 3 + 2 * one.checked


def test_a_flipped_bit_in_any_file_is_found(copy: Path) -> None:
    names = sorted(path.name for path in (copy / "one").iterdir() if path.name != "evidence.json")
    assert len(names) == 8
    for name in names:
        path = copy / "one" / name
        size = path.stat().st_size
        for place in (0, size // 2, size - 1):
            flip(path, place)
            assert found(verify(copy / "one")) == [("changed", name)]
            flip(path, place)
    assert verify(copy / "one").intact


def test_a_flipped_bit_anywhere_in_the_manifest_is_found(copy: Path) -> None:
    folder = copy / "signed"
    path = folder / "evidence.json"
    good = path.read_bytes()
    # Only the manifest matters here, so the other files need not be read 1,000 times.
    for name in os.listdir(str(folder)):
        if name != "evidence.json":
            (folder / name).write_bytes(b"")
    unrelated = len(verify(folder).findings)
    for place in range(0, len(good), 5):
        for bit in (1, 32):
            data = bytearray(good)
            data[place] ^= bit
            path.write_bytes(bytes(data))
            try:
                result = verify(folder)
            except FormatError:
                continue
            assert ("changed", "evidence.json") in found(result), (
                place,
                data[place - 9 : place + 9],
            )
            assert len(result.findings) > unrelated


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text + "\n",
        lambda text: text.replace("  ", " ", 1),
        lambda text: text.replace('"schema": 1,', '"schema": 1, "schema": 1,'),
        lambda text: json.dumps(json.loads(text)),
        lambda text: json.dumps(json.loads(text), indent=2, sort_keys=True) + "\n",
    ],
)
def test_the_manifest_written_otherwise_is_found(change: Any, copy: Path) -> None:
    path = copy / "one" / "evidence.json"
    text = path.read_text(encoding="utf-8")
    changed = change(text)
    assert changed != text
    path.write_text(changed, encoding="utf-8")
    assert found(verify(copy / "one")) == [("changed", "evidence.json")]


def test_missing_added_and_replaced_files_are_named(copy: Path) -> None:
    folder = copy / "one"
    (folder / "overlay.mp4").unlink()
    (folder / ".hidden").write_text("x")
    (folder / "more").mkdir()
    (folder / "more" / "file").write_text("x")
    (folder / "contact.png").replace(folder.parent / "contact.png")
    (folder / "contact.png").symlink_to(folder.parent / "contact.png")
    assert sorted(found(verify(folder))) == [
        ("added", ".hidden"), ("added", "more/file"), ("changed", "contact.png"),
        ("missing", "overlay.mp4"),
    ]  # fmt: skip


def test_changes_inside_of_several_videos_are_found(copy: Path) -> None:
    folder = copy / "two"
    flip(folder / "clip" / "records.jsonl", 7)
    (folder / "other" / "new.txt").write_text("x")
    (folder / "index.html").unlink()
    assert sorted(found(verify(folder))) == [
        ("added", "other/new.txt"), ("changed", "clip/records.jsonl"), ("missing", "index.html"),
    ]  # fmt: skip


def test_a_video_of_several_that_was_replaced_as_a_whole_is_found(copy: Path) -> None:
    folder = copy / "two"
    shutil.rmtree(str(folder / "clip"))
    shutil.copytree(str(copy / "one"), str(folder / "clip"))
    assert verify(folder / "clip").intact
    assert found(verify(folder)) == [("changed", "clip/evidence.json")]
    shutil.rmtree(str(folder / "clip"))
    assert found(verify(folder)) == [("missing", "clip/evidence.json")]


def test_the_input_is_compared_where_it_was_or_where_it_is_named(
    results: Path, tmp_path: Path
) -> None:
    shutil.copytree(str(results / "one"), str(tmp_path / "one"))
    moved = tmp_path / "moved.mp4"
    shutil.copy(str(results / "clip.mp4"), str(moved))
    assert verify(tmp_path / "one", original=moved).intact
    flip(moved, 100)
    assert found(verify(tmp_path / "one", original=moved)) == [("changed", "input")]
    assert found(verify(tmp_path / "one", model=moved)) == [("changed", "model")]
    assert verify(tmp_path / "one", model=default_model()).intact
    with pytest.raises(MissingError):
        verify(tmp_path / "one", original=tmp_path / "gone.mp4")


def test_an_input_that_is_gone_is_said_and_one_that_changed_is_found(tmp_path: Path) -> None:
    clip = grey_clip(tmp_path / "clip.mp4", [DARK] * 8)
    judged([clip], tmp_path / "out")
    flip(clip, clip.stat().st_size - 1)
    assert found(verify(tmp_path / "out")) == [("changed", "input")]
    clip.unlink()
    result = verify(tmp_path / "out")
    assert result.intact
    assert any("the input was not compared" in note for note in result.notes)


def forge(folder: Path) -> None:
    """Changes a file and writes the manifest anew, as anybody can."""
    path = folder / "evidence.json"
    record = json.loads(path.read_text(encoding="utf-8"))
    (folder / "records.jsonl").write_text("forged\n")
    for entry in record["files"]:
        if entry["path"] == "records.jsonl":
            entry["sha256"] = hashlib.sha256(b"forged\n").hexdigest()
            entry["bytes"] = 7
    record["manifest_sha256"] = own_hash(record)
    path.write_text(text_of(record), encoding="utf-8")


def test_a_forged_manifest_is_found_by_the_noted_hash_or_the_key_only(copy: Path) -> None:
    noted = verify(copy / "one").manifest_sha256
    assert verify(copy / "one", expected=noted.upper()).intact
    forge(copy / "one")
    result = verify(copy / "one")
    assert result.intact  # a hash is no signature,
    assert any("no signature" in note for note in result.notes)  # and that is said
    assert found(verify(copy / "one", expected=noted)) == [("changed", "evidence.json")]
    assert verify(copy / "signed", key=KEY).intact
    forge(copy / "signed")
    assert verify(copy / "signed").intact
    assert found(verify(copy / "signed", key=KEY)) == [("refused", "evidence.json")]


def test_keys(copy: Path, tmp_path: Path) -> None:
    good = verify(copy / "signed", key=KEY)
    assert good.signed
    assert found(verify(copy / "signed", key=b"another key, also long")) == [
        ("refused", "evidence.json")
    ]
    assert found(verify(copy / "one", key=KEY)) == [("refused", "evidence.json")]
    assert any("not checked without --key" in note for note in verify(copy / "signed").notes)
    assert KEY.decode().strip() not in (copy / "signed" / "evidence.json").read_text()
    short = tmp_path / "short"
    short.write_text("  secret  \n")
    with pytest.raises(UsageError, match="too short"):
        read_key(short)
    with pytest.raises(MissingError):
        read_key(tmp_path / "none")


@pytest.mark.parametrize("name", ["../clip.mp4", "/etc/hostname", "a/../../clip.mp4", ".."])
def test_a_manifest_that_names_other_places_is_refused(name: str, copy: Path) -> None:
    folder = copy / "one"
    record = json.loads((folder / "evidence.json").read_text(encoding="utf-8"))
    for field in ("schema", "tool", "manifest_sha256"):
        del record[field]
    record["files"].append({"path": name, "sha256": "0" * 64, "bytes": 1})
    write_manifest(folder, record)
    assert found(verify(folder)) == [("refused", name)]


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"schema": 2}', '{"schema": 1, "x": NaN}', "[" * 100000, "\xff"]
)
def test_what_is_no_manifest_is_a_clear_error(text: str, tmp_path: Path) -> None:
    (tmp_path / "evidence.json").write_text(text, encoding="latin-1")
    with pytest.raises(FormatError, match="evidence"):
        verify(tmp_path)
    with pytest.raises(MissingError, match="no"):
        verify(tmp_path / "nowhere")


def test_an_empty_manifest_is_not_intact(tmp_path: Path) -> None:
    write_manifest(tmp_path, {"files": []})
    assert found(verify(tmp_path)) == [("refused", "evidence.json")]


def test_the_command(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = copy / "one"
    assert call("verify", folder) == 0
    out = capsys.readouterr().out
    digest = json.loads((folder / "evidence.json").read_text())["manifest_sha256"]
    assert "Nothing was changed" in out
    assert digest in out
    assert call("verify", folder, "--expect", digest, "--input", copy / "clip.mp4") == 0
    capsys.readouterr()
    flip(folder / "report.html", 5)
    assert call("verify", folder) == 1
    assert "changed  report.html: SHA-256 is" in capsys.readouterr().out
    assert call("verify", folder, "--json") == 1
    record = json.loads(capsys.readouterr().out)
    assert record["intact"] is False
    assert [(f["kind"], f["path"]) for f in record["findings"]] == [("changed", "report.html")]
    assert call("verify", copy / "signed", "--key", copy / "key") == 0
    assert "signed with key" in capsys.readouterr().out
    assert call("verify", copy / "nowhere") == 2


@needs_sim
def test_run_writes_what_verify_reads(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    words = ["run", "--video", results / "clip.mp4", "-o", output, "--device", "sim"]
    assert call(*words, "--threads", 1, "--key", results / "key") == 0
    out = capsys.readouterr().out
    digest = json.loads((output / "evidence.json").read_text())["manifest_sha256"]
    assert f"evidence: SHA-256 {digest}" in out
    assert call("verify", output, "--key", results / "key", "--expect", digest) == 0
    record = json.loads((output / "evidence.json").read_text())
    assert record["options"]["device"] == "sim"
    assert record["rules"]["aggregation"] == "top-k"
    assert record["rules"]["calibration"]["calibrated"] is True
    capsys.readouterr()
    # A run over the same folder that writes less does not leave the old evidence standing.
    assert call(*words, "--no-evidence", "--no-overlay", "-q") == 0
    assert call("verify", output) == 1
