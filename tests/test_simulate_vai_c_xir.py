"""The drop-in ``vai_c_xir``: console, files and misuse against recordings of the genuine one."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, List

import pytest

from deepfake_fpga.compile.xir.xmodel import read_xmodel
from deepfake_fpga.deploy.simulate.options import SimulateOptions
from deepfake_fpga.deploy.simulate.programs import vai_c_xir

TARGET = "DPUCVDX8H_ISA1_F2W2_8PE"


@pytest.fixture
def source(shared: Path) -> Path:
    return shared / "golden/micro_d_pool_linear_sigmoid/quantize_result/PoolLinear_int.xmodel"


@pytest.fixture
def arch(tmp_path: Path) -> Path:
    path = tmp_path / "arch.json"
    path.write_text(json.dumps({"target": TARGET}))
    return path


@pytest.fixture
def behave(monkeypatch: pytest.MonkeyPatch) -> Any:
    def behave(**changes: Any) -> None:
        options = replace(SimulateOptions(), **changes)
        for name, value in options.to_environment().items():
            monkeypatch.setenv(name, value)

    behave()
    return behave


def call(*words: object) -> int:
    return vai_c_xir.main([str(word) for word in words])


def lines_of(text: str) -> List[str]:
    """Console lines with what differs from run to run taken out."""
    text = re.sub(r'"[^"]*/([^/"]+)"', r'"<out>/\1"', text)
    text = re.sub(r"\b[0-9a-f]{32}\b", "<md5>", text)
    text = re.sub(r"xcompiler-\d{8}-\d{6}-\d+", "xcompiler-<stamp>", text)
    return text.splitlines()


def recorded(shared: Path) -> List[str]:
    """The recorded success: its lines without remarks."""
    text = (shared / "samples" / "vai_c_xir_success.txt").read_text()
    lines = lines_of(text.partition("# ---")[0])
    return [line for line in lines if not line.startswith("#")]


def test_the_console_of_1_4_1_is_the_recorded_one(
    shared: Path, source: Path, tmp_path: Path, behave: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """The recording is of another network for another card; all else has to agree."""
    behave(release="1.4.1")
    arch = tmp_path / "arch.json"
    arch.write_text('{"target": "DPUCVDX8H_ISA1_F2W2"}')
    assert call("-x", source, "-a", arch, "-o", tmp_path / "out", "-n", "net") == 0
    ours = [line for line in lines_of(capsys.readouterr().out) if "WARNING" not in line]
    theirs = [
        line.replace("DPUCZDX8G_ISA0_B4096_MAX_BG2", "DPUCVDX8H_ISA1_F2W2")
        .replace("functional_1, with op num: 233", "PoolLinear, with op num: 24")
        .replace("<net>", "net")
        for line in recorded(shared)
    ]
    assert ours == theirs


@pytest.mark.parametrize(
    ("release", "debug", "saved"),
    [("2.0", "function", "and has been saved"), ("3.0", "null", "and has been saved")],
)
def test_the_words_follow_the_release(
    source: Path,
    arch: Path,
    tmp_path: Path,
    behave: Any,
    capsys: pytest.CaptureFixture[str],
    release: str,
    debug: str,
    saved: str,
) -> None:
    behave(release=release)
    assert call("--xmodel", source, "--arch", arch, "--output_dir", tmp_path, "-n", "net") == 0
    out = capsys.readouterr().out
    assert f"[UNILOG][INFO] Debug mode: {debug}\n" in out
    assert saved in out
    assert "compiler log will be dumped" not in out


def test_the_files_are_a_compiled_model(
    source: Path,
    arch: Path,
    tmp_path: Path,
    behave: Any,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call("-x", source, "-a", arch, "-o", "a/b", "-n", "net") == 0
    folder = tmp_path / "a" / "b"
    assert sorted(p.name for p in folder.iterdir()) == ["md5sum.txt", "meta.json", "net.xmodel"]
    digest = hashlib.md5((folder / "net.xmodel").read_bytes()).hexdigest()
    assert (folder / "md5sum.txt").read_text().split() == [digest, "net.xmodel"]
    assert f'is {digest}, and has been saved to "{folder}/md5sum.txt"' in capsys.readouterr().out
    graph = read_xmodel(folder / "net.xmodel")
    assert [s.get("dpu_fingerprint") for s in graph.subgraphs("DPU")] == [0x501000000140FEE]
    meta = json.loads((folder / "meta.json").read_text())
    assert meta["kernel"] == [s.name for s in graph.subgraphs("DPU")]


def test_what_falls_to_the_cpu_is_said(
    source: Path, arch: Path, tmp_path: Path, behave: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """The form of the recorded warning."""
    call("-x", source, "-a", arch, "-o", tmp_path, "-n", "net")
    warned = [line for line in capsys.readouterr().out.splitlines() if "WARNING" in line]
    form = r"\[UNILOG\]\[WARNING\] xir::Op\{name = \S+, type = (\S+)\} has been assigned to CPU:"
    found = [re.match(form + r" \[.+\]\.$", line) for line in warned]
    assert [match and match[1] for match in found] == ["sigmoid"]


def test_a_fingerprint_names_the_target(
    source: Path, tmp_path: Path, behave: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    arch = tmp_path / "arch.json"
    arch.write_text('{"fingerprint": "0x501000000160c2f"}')
    assert call("-x", source, "-a", arch, "-o", tmp_path, "-n", "net") == 0
    line = "Target architecture: DPUCVDX8H_ISA1_F2W4_6PE_aieDWC_0501000000160c2f\n"
    assert line in capsys.readouterr().out
    [dpu] = read_xmodel(tmp_path / "net.xmodel").subgraphs("DPU")
    assert dpu.get("dpu_fingerprint") == 0x501000000160C2F


def test_target_wins_over_fingerprint(source: Path, tmp_path: Path, behave: Any) -> None:
    arch = tmp_path / "arch.json"
    arch.write_text(json.dumps({"fingerprint": "0x501000000160c2f", "target": TARGET}))
    assert call("-x", source, "-a", arch, "-o", tmp_path, "-n", "net") == 0
    [dpu] = read_xmodel(tmp_path / "net.xmodel").subgraphs("DPU")
    assert dpu.get("dpu_fingerprint") == 0x501000000140FEE


MISUSE = {
    "no model": ("", TARGET, "", "ERROR: NO FRONT END SPECIFIED"),
    "quant_info as arch": ("x", '{"param": {}, "output": {}}', "", "ERROR: NO FRONT END SPECIFIED"),
    "syntax error": ("x", '{"target": ', "", "Unable to open file"),
    "unquoted key": ("x", TARGET, "{output_ops: 'a'}", "NameError: name 'output_ops' is not"),
    "lost brace": ("x", TARGET, "{'output_ops': 'a'", "SyntaxError: "),
    "another card": ("x", '{"target": "DPUCZDX8G"}', "", "TARGET_FACTORY_UNREGISTERED_TARGET"),
    "unknown code": ("x", '{"fingerprint": "0x1"}', "", "with fingerprint=0x1"),
}


@pytest.mark.parametrize("case", list(MISUSE))
def test_misuse(
    source: Path, tmp_path: Path, behave: Any, capsys: pytest.CaptureFixture[str], case: str
) -> None:
    model, arch_text, options, said = MISUSE[case]
    arch = tmp_path / "arch.json"
    arch.write_text(arch_text if arch_text.startswith("{") else json.dumps({"target": arch_text}))
    words: List[object] = ["-x", source] if model else []
    words += ["-a", arch, "-o", tmp_path / "out", "-n", "net"]
    words += ["-e", options] if options else []
    assert call(*words) != 0
    captured = capsys.readouterr()
    assert said in captured.out + captured.err
    assert not (tmp_path / "out").exists()


def test_a_file_that_is_no_model(
    arch: Path, tmp_path: Path, behave: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "broken.xmodel"
    broken.write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    assert call("-x", broken, "-a", arch, "-o", tmp_path / "out", "-n", "net") == 134
    captured = capsys.readouterr()
    assert f"[UNILOG][FATAL][XIR_READ_PB_FAILURE][failed to read pb file] file = {broken}" in (
        captured.out
    )
    assert captured.err.endswith("Aborted (core dumped)\n")
    assert not (tmp_path / "out").exists()


def test_a_compiled_model_is_no_input(
    source: Path, arch: Path, tmp_path: Path, behave: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    call("-x", source, "-a", arch, "-o", tmp_path, "-n", "net")
    assert call("-x", tmp_path / "net.xmodel", "-a", arch, "-o", tmp_path / "out") == 134
    assert "[UNILOG][FATAL]" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "identifier", ["XCOM_PM_FAIL", "XCOM_ACGEN_ERROR", "XCOM_ITEM_UNDEFINED", "XIR_OTHER"]
)
def test_a_failure_on_request(
    shared: Path,
    source: Path,
    arch: Path,
    tmp_path: Path,
    behave: Any,
    capsys: pytest.CaptureFixture[str],
    identifier: str,
) -> None:
    behave(compile_fails=identifier)
    assert call("-x", source, "-a", arch, "-o", tmp_path / "out", "-n", "net") == 134
    captured = capsys.readouterr()
    [fatal] = [line for line in captured.out.splitlines() if "FATAL" in line]
    known = (shared / "samples" / "vai_c_xir_failures.txt").read_text().splitlines()
    if identifier != "XIR_OTHER":
        assert fatal in known
    assert fatal.startswith(f"[UNILOG][FATAL][{identifier}]")
    assert "*** Check failure stack trace: ***" in captured.out
    assert "Compile done." not in captured.out
    assert not (tmp_path / "out").exists()


def test_output_ops_cut_the_network(source: Path, arch: Path, tmp_path: Path, behave: Any) -> None:
    quantized = read_xmodel(source)
    readers = quantized.consumers()
    # A tensor in the middle: others read it.
    middle = [
        op.name
        for op in quantized.ops.values()
        if op.type == "fix" and len(op.tensor.dims) == 4 and readers[op.name]
    ][-1]
    words = ("-x", source, "-a", arch, "-o", tmp_path, "-n", "net")
    assert call(*words, "-e", f"{{'output_ops': {middle!r}}}") == 0
    graph = read_xmodel(tmp_path / "net.xmodel")
    assert graph.get("return_ops") == (middle,)
    assert not [op for op in graph.ops.values() if op.type == "sigmoid"]
    [tail] = graph.tail_ops()
    assert tail.tensor.dims == quantized.op(middle).tensor.dims


def test_it_is_a_program(source: Path, arch: Path, tmp_path: Path) -> None:
    module = "deepfake_fpga.deploy.simulate.programs.vai_c_xir"
    words = ["-x", str(source), "-a", str(arch), "-o", str(tmp_path / "out"), "-n", "net"]
    done = subprocess.run([sys.executable, "-m", module, *words], stdout=subprocess.PIPE)
    assert done.returncode == 0
    assert b"Compile done." in done.stdout
    assert (tmp_path / "out" / "net.xmodel").is_file()


def test_the_containers_path_of_an_arch_file_is_found(
    source: Path, arch: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scripts name it absolutely, and a simulated host cannot put a file there."""
    named = "/opt/vitis_ai/compiler/arch/DPUCVDX8H/VCK50008PE/arch.json"
    words = ("-x", source, "-a", named, "-o", tmp_path / "out", "-n", "net")
    monkeypatch.setenv("VAI_ROOT", str(tmp_path))
    assert call(*words) != 0
    place = tmp_path / "compiler" / "arch" / "DPUCVDX8H" / "VCK50008PE"
    place.mkdir(parents=True)
    (place / "arch.json").write_bytes(arch.read_bytes())
    assert call(*words) == 0
