"""Manifests: written whole, read back equal, refused when they are something else."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from deepfake_fpga.deploy.build_folder import (
    BuildFolder,
    FileRecord,
    Manifest,
    changed_files,
    now,
    read_manifest,
    write_manifest,
)
from deepfake_fpga.errors import FormatError, MismatchError, MissingError, OrderError
from deepfake_fpga.preprocessing import Preprocessing


def example(folder: Path) -> Manifest:
    (folder / "quant_info.json").write_bytes(b"{}")
    return Manifest(
        stage="calib",
        backend="sim",
        backend_reason="asked for",
        model={"architecture": "UYNet", "width": 8},
        preprocessing=Preprocessing(margin=0.2),
        taken=(FileRecord("a.pth", "00", 1),),
        made=(FileRecord.of(folder / "quant_info.json", "quant_info.json"),),
        options={"batch_size": 8},
        outputs={"mask": "m", "classifier": "c"},
        results={"images": 16},
        warnings=("few images",),
        started=now(),
        finished=now(),
    )


def test_round_trip(tmp_path: Path) -> None:
    manifest = example(tmp_path)
    path = write_manifest(tmp_path, manifest)
    assert read_manifest(tmp_path) == manifest
    record = json.loads(path.read_text())
    assert record["schema"] == 1
    assert record["preprocessing"]["margin"] == 0.2
    assert record["outputs"] == {"mask": "m", "classifier": "c"}
    assert record["made"] == [
        {"path": "quant_info.json", "sha256": hashlib.sha256(b"{}").hexdigest(), "bytes": 2}
    ]
    assert set(record["versions"]) >= {"deepfake-fpga", "python", "numpy"}


def test_a_value_json_cannot_hold_leaves_the_old_manifest(tmp_path: Path) -> None:
    write_manifest(tmp_path, example(tmp_path))
    before = (tmp_path / "manifest.json").read_bytes()
    broken = Manifest("calib", "sim", "", {"width": float("nan")}, Preprocessing())
    with pytest.raises(ValueError, match="JSON"):
        write_manifest(tmp_path, broken)
    assert (tmp_path / "manifest.json").read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["manifest.json", "quant_info.json"]


def test_changed_files_are_found(tmp_path: Path) -> None:
    manifest = example(tmp_path)
    assert changed_files(tmp_path, manifest) == []
    (tmp_path / "quant_info.json").write_bytes(b"[]")
    assert changed_files(tmp_path, manifest) == ["quant_info.json"]
    (tmp_path / "quant_info.json").unlink()
    assert changed_files(tmp_path, manifest) == ["quant_info.json"]


def test_an_absent_manifest_names_the_command_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(OrderError, match="quant --mode calib"):
        read_manifest(tmp_path, made_by="deepfake-fpga quant --mode calib")
    with pytest.raises(MissingError):
        read_manifest(tmp_path)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"schema": 1, "tool": "x"}', "\x00"])
def test_other_content_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(FormatError, match=r"manifest\.json"):
        read_manifest(tmp_path)


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    path = write_manifest(tmp_path, example(tmp_path))
    path.write_text(path.read_text().replace('"schema": 1', '"schema": 2'))
    with pytest.raises(FormatError, match="schema 2"):
        read_manifest(tmp_path)


def test_unknown_preprocessing_is_refused(tmp_path: Path) -> None:
    path = write_manifest(tmp_path, example(tmp_path))
    path.write_text(path.read_text().replace('"bilinear"', '"nearest"'))
    with pytest.raises(MismatchError, match="interpolation"):
        read_manifest(tmp_path)


def test_the_checkpoint_of_a_build(tmp_path: Path) -> None:
    build = BuildFolder(tmp_path / "build")
    assert build.checkpoint() is None
    build.float_model.mkdir(parents=True)
    assert build.checkpoint() is None
    (build.float_model / "manifest.json").write_text("{}")
    (build.float_model / "a.pth").write_text("")
    assert build.checkpoint() == build.float_model / "a.pth"
    (build.float_model / "b.safetensors").write_text("")
    with pytest.raises(MismatchError, match="more than one") as caught:
        build.checkpoint()
    assert caught.value.evidence == "a.pth, b.safetensors"
