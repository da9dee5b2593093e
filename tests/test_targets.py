"""Targets are found by every name users and tools have for them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from deepfake_fpga.compile.targets import TARGETS, Target, resolve_target, target_by_name
from deepfake_fpga.errors import FormatError, MissingError, UsageError

# The decimal fingerprints of genuine compiled files and their batch.
GENUINE = {
    "DPUCVDX8H_ISA1_F2W2_8PE": (360569445167665134, 8),
    "DPUCVDX8H_ISA1_F2W4_6PE_aieDWC": (360569445167795247, 6),
    "DPUCVDX8H_ISA1_F2W4_6PE_aieMISC": (360569445168318510, 6),
    "DPUCVDX8H_ISA1_F2W4_4PE": (360569445168318511, 4),
    "DPUCVDX8H_ISA1_F2W2": (360569445166354414, 8),
}


@pytest.mark.parametrize("target", TARGETS, ids=lambda t: t.folder)
def test_every_name_of_a_target_finds_it(target: Target) -> None:
    names = [
        target.dpu_name,
        target.dpu_name.lower(),
        target.folder,
        f"DPUCVDX8H/{target.folder}",
        target.variant,
        f"DPUCVDX8H_{target.variant}",
        hex(target.fingerprint),
        f"{target.fingerprint:016X}",
    ]
    for name in names:
        assert resolve_target(name).target is target, name


@pytest.mark.parametrize("name", GENUINE)
def test_fingerprint_and_batch_are_those_of_genuine_files(name: str) -> None:
    target = target_by_name(name)
    assert target is not None
    assert (target.fingerprint, target.engines) == GENUINE[name]
    assert target.fingerprint >> 48 == 0x501


def test_genuine_models_name_our_targets(shared: Path) -> None:
    from deepfake_fpga.compile.xir.xmodel import read_xmodel

    seen = set()
    for path in sorted((shared / "xmodels").glob("vck5000_*.xmodel")):
        for subgraph in read_xmodel(path).subgraphs("DPU"):
            target = target_by_name(subgraph.get("dpu_name"))
            assert target is not None, path
            assert target.fingerprint == subgraph.get("dpu_fingerprint"), path
            seen.add(target.folder)
    assert seen == {"VCK50008PE", "VCK50006PEDWC"}


@pytest.mark.parametrize(
    ("record", "folder", "note"),
    [
        ({"target": "DPUCVDX8H_ISA1_F2W4_4PE"}, "VCK50004PE", ""),
        ({"fingerprint": "0x501000000160c2f"}, "VCK50006PEDWC", ""),
        (
            {"fingerprint": "0x501000000160c2f", "target": "DPUCVDX8H_ISA1_F2W2_8PE"},
            "VCK50008PE",
            "stands for another target",
        ),
        (
            {"target": "DPUCVDX8H_ISA1_F2W2_8PE", "fingerprint": "0x501000000140fee"},
            "VCK50008PE",
            "'fingerprint' is ignored",
        ),
    ],
)
def test_arch_json_of_either_form(tmp_path: Path, record: object, folder: str, note: str) -> None:
    path = tmp_path / "arch.json"
    path.write_text(json.dumps(record))
    for given in (path, tmp_path):
        resolved = resolve_target(given)
        assert resolved.target.folder == folder
        assert note in resolved.note
        assert bool(note) == bool(resolved.note)


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ('{"param": {}, "output": {}, "input": {}}', FormatError, "quant_info.json"),
        ('{"filename": "a.xmodel", "kernel": []}', FormatError, "meta.json"),
        ('{"a.mp4": {"label": "REAL"}}', FormatError, "metadata.json"),
        ("{}", FormatError, "keys are none"),
        ("[1]", FormatError, "no object"),
        ('{"target": ', FormatError, "not valid JSON"),
        ('{"target": "DPUCZDX8G_ISA0_B4096_MAX_BG2"}', UsageError, "VCK50006PEMISC"),
        ('{"fingerprint": "0x101000016010407"}', UsageError, "DPUCVDX8H_ISA1_F2W2_8PE"),
        ('{"target": 8}', UsageError, "no VCK5000 target"),
    ],
)
def test_wrong_files_are_named(tmp_path: Path, text: str, error: type, words: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(error) as caught:
        resolve_target(path)
    assert words in str(caught.value)


def test_unknown_name_lists_the_known_and_a_missing_file_is_a_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        resolve_target("VCK190")
    assert all(t.dpu_name in str(caught.value) for t in TARGETS)
    with pytest.raises(MissingError):
        resolve_target(tmp_path / "arch.json")
    with pytest.raises(MissingError):
        resolve_target("arch.json")
