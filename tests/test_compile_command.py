"""The command ``compile``: defaults, what it prints, and its refusals."""

from __future__ import annotations

import json
import shutil
from inspect import signature
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from deepfake_fpga.compile.backend import select_backend
from deepfake_fpga.deploy.commands.compile import command
from deepfake_fpga.errors import (
    MismatchError,
    MissingError,
    OrderError,
    ToolkitError,
    UsageError,
)


@pytest.fixture
def source(shared: Path) -> Path:
    return shared / "golden/uynet_w8/quantize_result/UYNet_int.xmodel"


def call(*args: object, apart: bool = False) -> Result:
    """Runs the command; an error of ours is raised as it is."""
    # Newer releases of click always keep standard output apart.
    mixes = "mix_stderr" in signature(CliRunner).parameters
    runner = CliRunner(mix_stderr=False) if apart and mixes else CliRunner()
    result = runner.invoke(command, [str(arg) for arg in args])
    if isinstance(result.exception, ToolkitError):
        raise result.exception
    return result


@pytest.fixture
def build(tmp_path: Path, source: Path) -> Path:
    folder = tmp_path / "build"
    (folder / "quant_model").mkdir(parents=True)
    shutil.copy(str(source), str(folder / "quant_model" / "UYNet_int.xmodel"))
    return folder


def test_without_options_the_build_folder_is_compiled(build: Path) -> None:
    result = call("-d", build)
    assert result.exit_code == 0, result.output
    assert (build / "compiled" / "YNET.xmodel").is_file()
    assert "1 DPU subgraph," in result.output
    assert "sigmoid" in result.output
    assert "[UNILOG][INFO] Compile done." in result.output


def test_json_is_the_only_thing_on_standard_output(build: Path, tmp_path: Path) -> None:
    result = call(
        "-d", build, "-a", "VCK50004PE", "-o", tmp_path / "o", "-n", "N", "--json", apart=True
    )
    record = json.loads(result.stdout)
    assert record["target"] == "DPUCVDX8H_ISA1_F2W4_4PE"
    assert record["batch"] == 4
    assert record["simulated"] is True
    assert record["backend"] == "sim"
    assert record["dpu_subgraphs"] == 1
    assert [op["type"] for op in record["cpu"]] == ["sigmoid"]
    assert Path(record["xmodel"]) == tmp_path / "o" / "N.xmodel"
    assert (tmp_path / "o" / "N.xmodel").is_file()


def test_quiet_prints_only_warnings(build: Path) -> None:
    lines = call("-d", build, "-q").output.splitlines()
    assert len(lines) == 1
    assert "has been assigned to CPU" in lines[0]


def test_an_arch_json_with_two_keys_is_warned_of(build: Path, tmp_path: Path) -> None:
    arch = tmp_path / "arch.json"
    arch.write_text('{"target": "DPUCVDX8H_ISA1_F2W2_8PE", "fingerprint": "0x1"}')
    assert "'fingerprint' is ignored" in call("-d", build, "-a", arch).output


def test_sources_that_are_missing_or_many(tmp_path: Path, source: Path) -> None:
    with pytest.raises(OrderError, match="quant --mode test"):
        call("-d", tmp_path)
    folder = tmp_path / "quant_model"
    folder.mkdir()
    shutil.copy(str(source), str(folder / "A_int.xmodel"))
    assert call("-d", tmp_path).exit_code == 0
    shutil.copy(str(source), str(folder / "B_int.xmodel"))
    with pytest.raises(MismatchError, match=r"A_int\.xmodel, B_int\.xmodel"):
        call("-d", tmp_path)
    with pytest.raises(MissingError):
        call("-x", tmp_path / "absent_int.xmodel", "-d", tmp_path)
    with pytest.raises(UsageError, match="no DPU target"):
        call("-d", tmp_path, "-a", "ZCU102", "-x", source)


def test_backends_say_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def found(answer: Any) -> None:
        monkeypatch.setattr("shutil.which", lambda name: answer)

    found(None)
    seen = [select_backend(choice) for choice in ("auto", "sim")]
    with pytest.raises(MissingError, match="vai_c_xir is not on PATH"):
        select_backend("vitis")
    found("/opt/vitis_ai/bin/vai_c_xir")
    seen += [select_backend(choice) for choice in ("auto", "vitis", "sim")]
    assert [(backend.name, reason) for backend, reason in seen] == [
        ("sim", "vai_c_xir is not on PATH"),
        ("sim", "named with --backend"),
        ("vitis", "vai_c_xir is at /opt/vitis_ai/bin/vai_c_xir"),
        ("vitis", "vai_c_xir is at /opt/vitis_ai/bin/vai_c_xir"),
        ("sim", "named with --backend"),
    ]
    with pytest.raises(UsageError, match="no backend 'gpu'"):
        select_backend("gpu")


def test_options_reach_the_compiler_and_the_manifest(build: Path) -> None:
    call("-d", build, "-q", "-e", '{"input_shape": "1,224,224,3"}')
    manifest = json.loads((build / "compiled" / "manifest.json").read_text())
    assert manifest["options"]["options"] == {"input_shape": "1,224,224,3"}
    with pytest.raises(UsageError, match="no quotes around input_shape"):
        call("-d", build, "-e", "{input_shape: 1}")
