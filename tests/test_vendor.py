"""The vendor's tools are found without importing them, and lookalikes are recognised."""

from __future__ import annotations

import importlib.machinery
import sys
from pathlib import Path

import pytest

from deepfake_fpga.board.vendor import PACKAGES, State, detect_vendor, find_package, find_program

BOOM = "raise SystemExit('imported')\n"
SUFFIX = importlib.machinery.EXTENSION_SUFFIXES[0]


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is all of the search path, so the host's own packages do not matter."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.setattr(sys, "path", [str(folder)])
    monkeypatch.setattr(sys, "path_importer_cache", {})
    for name in PACKAGES:
        monkeypatch.delitem(sys.modules, name, raising=False)
    return folder


def package(folder: Path, *files: str) -> None:
    folder.mkdir()
    for name in ("__init__.py", *files):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(BOOM)


def test_nothing_is_there(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(site))
    found = detect_vendor()
    assert {tool.state for tool in found.values()} == {State.ABSENT}
    assert set(found) == {"pytorch_nndct", "xir", "vart", "vai_c_xir", "xbutil"}
    assert all(tool.evidence and not tool.usable for tool in found.values())


def test_the_public_index_xir_is_recognised(site: Path) -> None:
    """The layout and metadata of version 0.0.3 on the public index."""
    package(site / "xir", "bonsai.py", "constraint.py", "unit.py", "xir.py")
    info = site / "xir-0.0.3.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: xir\nVersion: 0.0.3\n"
        "Summary: Experiment Model Intermediate Representation\n\nText: not a field\n"
    )
    found = find_package("xir")
    assert found.state is State.UNRELATED
    assert found.version == "0.0.3"
    assert "Experiment Model" in found.evidence
    assert "native extension" in found.evidence
    assert "xir" not in sys.modules


@pytest.mark.parametrize("name", ["xir", "vart"])
def test_native_modules_are_genuine(site: Path, name: str) -> None:
    (site / f"{name}{SUFFIX}").write_bytes(b"\x7fELF")
    found = find_package(name)
    assert found.usable
    assert found.path == site / f"{name}{SUFFIX}"
    assert name not in sys.modules


def test_a_package_around_a_native_module_is_genuine(site: Path) -> None:
    package(site / "xir", "lib/wrapper.cpython-37m-x86_64-linux-gnu.so")
    assert find_package("xir").usable


def test_a_module_for_another_python_is_said(site: Path) -> None:
    (site / "xir.cpython-27m-x86_64-linux-gnu.so").write_bytes(b"\x7fELF")
    found = find_package("xir")
    assert found.state is State.ABSENT
    assert "another Python" in found.evidence


def test_a_stray_folder_is_not_the_quantizer(site: Path) -> None:
    (site / "pytorch_nndct").mkdir()
    assert find_package("pytorch_nndct").state is State.UNRELATED


def test_the_quantizer_is_found_but_not_imported(site: Path) -> None:
    package(site / "pytorch_nndct", "apis.py")
    info = site / "pytorch_nndct-2.5.0.egg-info"
    info.mkdir()
    (info / "PKG-INFO").write_text("Name: pytorch-nndct\nVersion: 2.5.0\n")
    found = find_package("pytorch_nndct")
    assert found.usable
    assert found.version == "2.5.0"
    assert "pytorch_nndct" not in sys.modules


def test_programs_on_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_program("vai_c_xir").state is State.ABSENT
    (tmp_path / "vai_c_xir").write_text("#!/bin/sh\nexit 3\n")
    (tmp_path / "vai_c_xir").chmod(0o755)
    assert find_program("vai_c_xir").path == tmp_path / "vai_c_xir"


def test_a_drop_in_is_told_from_the_genuine_and_from_the_unrelated(
    site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (site / "xir.py").write_text('__drop_in__ = "deepfake-fpga"\n' + BOOM)
    found = find_package("xir")
    assert found.state is State.SIMULATED
    assert found.usable
    program = site / "vai_c_xir"
    program.write_text("#!/bin/sh\n# __drop_in__ deepfake-fpga\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(site))
    assert find_program("vai_c_xir").state is State.SIMULATED
