"""The shipped model belongs to the shipped checkpoint, runs, and is chosen when none is named."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from deepfake_fpga.deploy.build_folder import BuildFolder, changed_files, read_manifest
from deepfake_fpga.deploy.defaults import (
    DATA,
    DEMO_CHECKPOINT,
    choose_checkpoint,
    choose_model,
    default_model,
)
from deepfake_fpga.errors import MissingError
from deepfake_fpga.files import sha256
from deepfake_fpga.inference.artifact import load_artifact
from deepfake_fpga.inference.session import Session


def test_the_shipped_model_is_made_from_the_shipped_checkpoint() -> None:
    manifest = read_manifest(DATA)
    assert manifest.stage == "compile"
    assert manifest.model["sha256"] == sha256(DEMO_CHECKPOINT)
    assert [f for f in changed_files(DATA, manifest) if f.endswith(".xmodel")] == []
    assert set(manifest.outputs) == {"mask", "classifier"}
    assert all(not Path(record.path).is_absolute() for record in manifest.taken)
    assert DEMO_CHECKPOINT.stat().st_size <= 8 * 2**20


def test_the_shipped_model_runs() -> None:
    with Session(load_artifact(default_model()), "sim", threads=1) as session:
        pictures = np.zeros((2, 224, 224, 3), np.uint8)
        prediction = session.run(pictures)
    assert prediction.mask.shape == (2, 224, 224)
    assert np.all((prediction.real >= 0) & (prediction.real <= 1))


def test_a_named_model_then_the_build_folders_then_the_shipped(tmp_path: Path) -> None:
    build = BuildFolder(tmp_path / "build")
    path, reason = choose_model(None, build.path)
    assert path == default_model()
    assert "shipped" in reason
    assert choose_checkpoint(path, build.path) == DEMO_CHECKPOINT
    build.compiled.mkdir(parents=True)
    built = build.compiled / "YNET.xmodel"
    built.write_bytes(b"x")
    path, reason = choose_model(None, build.path)
    assert path == built
    assert "build folder" in reason
    assert choose_checkpoint(path, build.path) is None
    named = tmp_path / "n.xmodel"
    named.write_bytes(b"x")
    assert choose_model(named, build.path) == (named, "named with --model")
    with pytest.raises(MissingError, match="absent"):
        choose_model(tmp_path / "absent.xmodel", build.path)


def test_the_shipped_manifest_is_json_for_people() -> None:
    text = (DATA / "manifest.json").read_text(encoding="utf-8")
    assert json.loads(text)["preprocessing"]["classifier_one"] == "REAL"
