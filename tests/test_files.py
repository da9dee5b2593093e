"""Files are whole or absent; impostors are recognised."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from deepfake_fpga.errors import FormatError, MissingError
from deepfake_fpga.files import (
    impostor,
    publish,
    refuse_impostor,
    replacing,
    sha256,
    workspace,
    write_json,
)


def fail_after_writing(path: Path) -> None:
    path.write_text("half")
    raise RuntimeError


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 12\n"


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises(RuntimeError), replacing(target) as temporary:
        fail_after_writing(temporary)
    assert target.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_a_finished_write_replaces_and_makes_the_folder(tmp_path: Path) -> None:
    target = tmp_path / "sub" / "a.txt"
    with replacing(target) as temporary:
        assert temporary.parent == target.parent
        assert temporary.suffix == ".txt"
        temporary.write_text("new")
    assert [p.name for p in target.parent.iterdir()] == ["a.txt"]


def test_nan_never_reaches_a_json_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "a.json", {"x": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_a_workspace_is_published_whole_or_removed(tmp_path: Path) -> None:
    (tmp_path / "b").write_text("old")
    with workspace(tmp_path) as folder:
        (folder / "a").write_text("1")
        (folder / "b").write_text("2")
        publish(folder, tmp_path)
    assert sorted((p.name, p.read_text()) for p in tmp_path.iterdir()) == [("a", "1"), ("b", "2")]
    with pytest.raises(RuntimeError), workspace(tmp_path) as folder:
        fail_after_writing(folder / "c")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b"]


def test_a_failed_workspace_removes_the_folder_it_made(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), workspace(tmp_path / "new") as folder:
        fail_after_writing(folder / "c")
    assert not (tmp_path / "new").exists()
    with workspace(tmp_path / "new") as folder:
        (folder / "a").write_text("")
        publish(folder, tmp_path / "new", last="a")
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["a"]


def test_the_last_file_is_moved_after_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = []
    monkeypatch.setattr("os.replace", lambda old, new: order.append(Path(new).name))
    (tmp_path / "work").mkdir()
    for name in ("a", "m", "z"):
        (tmp_path / "work" / name).write_text("")
    publish(tmp_path / "work", tmp_path / "target", last="m")
    assert order == ["a", "z", "m"]


def test_digest(tmp_path: Path) -> None:
    content = bytes(range(256)) * 5000
    (tmp_path / "a").write_bytes(content)
    assert sha256(tmp_path / "a") == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize(
    ("head", "word"),
    [
        (b"", "empty"),
        (LFS, "Git-LFS"),
        (b"\n <!DOCTYPE html><html>", "HTML"),
        (b"<?xml version='1.0'?><Error>", "XML"),
        (bytes(64), "zero"),
    ],
)
def test_impostors_are_named(head: bytes, word: str, tmp_path: Path) -> None:
    found = impostor(head)
    assert found is not None
    assert word in found
    (tmp_path / "m.xmodel").write_bytes(head)
    with pytest.raises(FormatError, match=word):
        refuse_impostor(tmp_path / "m.xmodel", "model")


def test_real_content_passes(tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes(b"\x0a\x05model")
    refuse_impostor(tmp_path / "m", "model")
    with pytest.raises(MissingError, match="does not exist"):
        refuse_impostor(tmp_path / "n", "model")
    with pytest.raises(MissingError, match="is a folder"):
        refuse_impostor(tmp_path, "model")
