"""The vendor's compiler driven: over the drop-in program, and over scripts that misbehave."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Callable, Dict, List, Tuple

import pytest

from deepfake_fpga.compile import vitis
from deepfake_fpga.compile.backend import Backend, SimBackend, select_backend
from deepfake_fpga.compile.compiler import CpuOperator, compile_xmodel
from deepfake_fpga.compile.options import CompilerOptions, output_ops_hint, parse_options
from deepfake_fpga.compile.targets import TARGETS, resolve_target
from deepfake_fpga.compile.vendor_log import FAILURES, VendorLog
from deepfake_fpga.compile.vendor_process import plain_line, run_program
from deepfake_fpga.compile.vitis import VitisBackend
from deepfake_fpga.compile.xir.diff import diff_graphs
from deepfake_fpga.compile.xir.graph import Graph
from deepfake_fpga.compile.xir.xmodel import read_xmodel
from deepfake_fpga.deploy.commands.compile import summary
from deepfake_fpga.deploy.simulate.host import SimulatedHost, package_home
from deepfake_fpga.deploy.simulate.options import SimulateOptions
from deepfake_fpga.errors import (
    FormatError,
    MismatchError,
    MissingError,
    ToolkitError,
    UnsupportedError,
    UsageError,
    WorkError,
)

TARGET = TARGETS[0]
RESULT = ["md5sum.txt", "meta.json", "net.xmodel"]


@pytest.fixture
def source(shared: Path) -> Path:
    return shared / "golden/micro_d_pool_linear_sigmoid/quantize_result/PoolLinear_int.xmodel"


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SimulatedHost:
    """A simulated host whose environment this process has."""
    return enter(SimulatedHost(SimulateOptions(), tmp_path / "host"), monkeypatch)


def enter(host: SimulatedHost, monkeypatch: pytest.MonkeyPatch) -> SimulatedHost:
    for name, value in host.environment().items():
        monkeypatch.setenv(name, value)
    return host


@pytest.fixture(params=["sim", "vitis"])
def backend(request: pytest.FixtureRequest, host: SimulatedHost) -> Backend:
    """Both implementations."""
    return select_backend(request.param)[0]


@pytest.fixture(scope="module")
def compiled(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A compiled model that fake programs can leave."""
    folder = tmp_path_factory.mktemp("compiled")
    source = shared / "golden/micro_d_pool_linear_sigmoid/quantize_result/PoolLinear_int.xmodel"
    return compile_xmodel(source, TARGET, folder, "net", silent).xmodel


def silent(line: str) -> None:
    del line


def files(folder: Path) -> List[str]:
    return sorted(path.name for path in folder.iterdir())


def lost(compiled: Graph, *names: str) -> List[str]:
    return vitis._lost_outputs(compiled, list(names))


# Both implementations.


def test_result_and_files(backend: Backend, source: Path, tmp_path: Path) -> None:
    lines: List[str] = []
    result = backend.compile(source, TARGET, tmp_path / "out", "net", lines.append)
    kept = ["compile.log"] if backend.name == "vitis" else []
    assert files(tmp_path / "out") == sorted([*kept, *RESULT])
    assert read_xmodel(result.xmodel).name == "PoolLinear"
    assert result.md5 in result.md5sum.read_text()
    assert (result.device_subgraphs, result.dpu_subgraphs) == (3, 1)
    assert [op.type for op in result.cpu] == ["sigmoid"]
    assert result.notes == ()
    assert "[UNILOG][INFO] Compile done." in lines
    assert result.to_json()["fingerprint"] == "0x501000000140fee"


def test_the_two_agree(host: SimulatedHost, source: Path, tmp_path: Path) -> None:
    theirs, ours = (
        select_backend(name)[0].compile(source, TARGET, tmp_path / name, "net", silent)
        for name in ("vitis", "sim")
    )
    assert diff_graphs(theirs.graph, ours.graph) == []
    assert theirs.cpu == ours.cpu
    assert json.loads(theirs.meta.read_text()) == json.loads(ours.meta.read_text())
    assert theirs.md5sum.read_text() == ours.md5sum.read_text()


def test_both_take_options(backend: Backend, source: Path, tmp_path: Path) -> None:
    graph = read_xmodel(source)
    readers = graph.consumers()
    fixes = [op for op in graph.ops.values() if op.type == "fix" and len(op.tensor.dims) == 4]
    middle = [op for op in fixes if readers[op.name]][-1].name
    options = CompilerOptions((1, *_input(graph)[1:]), (middle,))
    result = backend.compile(source, TARGET, tmp_path, "net", silent, options)
    assert result.graph.get("return_ops") == (middle,)
    assert result.notes == ()


def _input(graph: Graph) -> Tuple[int, ...]:
    [data] = [op for op in graph.ops.values() if op.type == "data"]
    return data.tensor.dims


REFUSED: Dict[str, Tuple[Callable[[Path, Path], Any], type]] = {
    "no file": (
        lambda source, tmp: (tmp / "no_int.xmodel", "net", CompilerOptions()),
        MissingError,
    ),
    "bad name": (lambda source, tmp: (source, "a/b", CompilerOptions()), UsageError),
    "shape": (lambda source, tmp: (source, "net", CompilerOptions((1, 7, 7, 3))), UsageError),
    "output": (
        lambda source, tmp: (source, "net", CompilerOptions(output_ops=("nowhere_fix",))),
        UsageError,
    ),
    "not quantized": (
        lambda source, tmp: (_compiled(source, tmp), "net", CompilerOptions()),
        FormatError,
    ),
    "no model": (lambda source, tmp: (_text(tmp), "net", CompilerOptions()), FormatError),
}


def _compiled(source: Path, folder: Path) -> Path:
    return compile_xmodel(source, TARGET, folder / "first", "net", silent).xmodel


def _text(folder: Path) -> Path:
    path = folder / "model.onnx"
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    return path


@pytest.mark.parametrize("case", list(REFUSED))
def test_both_refuse(backend: Backend, source: Path, tmp_path: Path, case: str) -> None:
    make, error = REFUSED[case]
    path, name, options = make(source, tmp_path)
    said: List[str] = []
    with pytest.raises(error):
        backend.compile(path, TARGET, tmp_path / "out", name, said.append, options)
    assert not (tmp_path / "out").exists()
    assert not [line for line in said if line.startswith("$")], "the program was not called"


# The adapter over the drop-in program.


def test_the_command_can_be_typed_again(host: SimulatedHost, source: Path, tmp_path: Path) -> None:
    lines: List[str] = []
    odd = tmp_path / "a folder"
    backend, reason = select_backend("auto")
    assert "our drop-in program" in reason
    result = backend.compile(source, TARGET, odd, "net.xmodel", lines.append)
    [line] = [line for line in lines if line.startswith("$ ")]
    assert line == f"$ {result.command}"
    words = shlex.split(result.command)
    assert words[0] == str(host.folder / "bin" / "vai_c_xir")
    assert words[words.index("-a") + 1] == str(
        host.folder / "opt/vitis_ai/compiler/arch/DPUCVDX8H/VCK50008PE/arch.json"
    )
    assert words[words.index("-n") + 1] == "net"
    shutil.rmtree(str(odd))
    again = subprocess.run(result.command, shell=True, stdout=subprocess.PIPE, cwd="/")
    assert b"Compile done." in again.stdout
    assert (Path(words[words.index("-o") + 1]) / "net.xmodel").is_file()


def test_the_log_is_kept(host: SimulatedHost, source: Path, tmp_path: Path) -> None:
    lines: List[str] = []
    result = select_backend("vitis")[0].compile(source, TARGET, tmp_path, "net", lines.append)
    assert result.log == tmp_path / "compile.log"
    kept = result.log.read_text().splitlines()
    assert [line for line in lines if not line.startswith("arch:")] == kept[:-1]
    assert kept[-1] == "# ended with status 0"


def test_a_release_without_the_target(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Release 2.0 has no folder for the 4PE build, and its compiler does not know it."""
    enter(SimulatedHost(SimulateOptions(release="2.0"), tmp_path / "host"), monkeypatch)
    lines: List[str] = []
    four = resolve_target("4pe_miscdwc").target
    backend = select_backend("vitis")[0]
    with pytest.raises(UnsupportedError, match="does not know the target"):
        backend.compile(source, four, tmp_path / "out", "net", lines.append)
    assert "was written for it" in lines[0]
    assert json.loads((tmp_path / "out/arch.json").read_text()) == {"target": four.dpu_name}
    assert files(tmp_path / "out") == ["arch.json", "compile.log"]


def test_a_target_without_a_folder_gets_an_arch_json(
    host: SimulatedHost, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VAI_ROOT", str(tmp_path / "nowhere"))
    result = select_backend("vitis")[0].compile(source, TARGET, tmp_path / "out", "net", silent)
    assert len(result.notes) == 1
    assert str(tmp_path / "nowhere") in result.notes[0]
    assert "arch.json" in files(tmp_path / "out")
    words = shlex.split(result.command)
    assert words[words.index("-a") + 1] == str(tmp_path / "out" / "arch.json")


def test_folders_of_unknown_names_are_read(
    host: SimulatedHost, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the folder of release 2.0 is called is not known; what its file says is."""
    root = tmp_path / "root"
    for name, text in {
        "AAA": "{not json",
        "BBB": '{"target": "DPUCVDX8H_ISA1_F2W4_4PE"}',
        "VCK5000": json.dumps({"fingerprint": f"{TARGET.fingerprint:#x}"}),
    }.items():
        (root / "compiler/arch/DPUCVDX8H" / name).mkdir(parents=True)
        (root / "compiler/arch/DPUCVDX8H" / name / "arch.json").write_text(text)
    monkeypatch.setenv("VAI_ROOT", str(root))
    result = select_backend("vitis")[0].compile(source, TARGET, tmp_path / "out", "net", silent)
    assert "DPUCVDX8H/VCK5000/arch.json" in result.command
    assert result.notes == ()


def test_the_users_arch_json_is_taken(host: SimulatedHost, source: Path, tmp_path: Path) -> None:
    arch = tmp_path / "mine.json"
    arch.write_text('{"target": "DPUCVDX8H_ISA1_F2W4_4PE"}')
    resolved = resolve_target(arch)
    backend = select_backend("vitis", resolved.arch)[0]
    result = backend.compile(source, resolved.target, tmp_path / "out", "net", silent)
    assert str(arch) in result.command
    assert result.target.engines == 4


@pytest.mark.parametrize("identifier", sorted(i for i in FAILURES if i.startswith("XCOM")))
def test_failures_on_request_are_explained(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, identifier: str
) -> None:
    options = replace(SimulateOptions(), compile_fails=identifier)
    enter(SimulatedHost(options, tmp_path / "host"), monkeypatch)
    with pytest.raises(UnsupportedError) as caught:
        select_backend("vitis")[0].compile(source, TARGET, tmp_path / "out", "net", silent)
    assert caught.value.cause == FAILURES[identifier].cause
    assert f"[{identifier}]" in caught.value.evidence
    assert str(tmp_path / "out" / "compile.log") in caught.value.evidence
    assert "[FATAL]" in (tmp_path / "out" / "compile.log").read_text()
    assert files(tmp_path / "out") == ["compile.log"]


# The console.


def test_the_recorded_success_is_read(shared: Path) -> None:
    seen = VendorLog()
    text = (shared / "samples/vai_c_xir_success.txt").read_text().partition("# ---")[0]
    for line in text.splitlines():
        seen.add(line)
    assert seen.done
    assert seen.fatal is None
    assert seen.architecture == "DPUCZDX8G_ISA0_B4096_MAX_BG2"
    assert (seen.graph_name, seen.operators) == ("functional_1", 233)
    assert (seen.device_subgraphs, seen.dpu_subgraphs) == (3, 1)
    assert seen.md5 == "504761973848a4c8729dae40947d78ab"
    assert seen.cpu == []


def test_every_recorded_failure_is_explained(shared: Path) -> None:
    lines = (shared / "samples/vai_c_xir_failures.txt").read_text().splitlines()
    explained = []
    for line in lines:
        if not line.startswith("#") and ("[FATAL]" in line or "ERROR" in line):
            seen = VendorLog()
            seen.add(line)
            failure, evidence = seen.failure()
            assert not seen.done
            assert evidence == line
            assert "without saying why" not in failure.cause
            assert "no public source" not in failure.cause
            assert failure.next_step
            explained.append(failure.cause)
    assert len(explained) == len(set(explained)) == 7


def test_the_recorded_cpu_assignment_is_read(shared: Path) -> None:
    seen = VendorLog()
    for line in (shared / "samples/vai_c_xir_failures.txt").read_text().splitlines():
        seen.add(line)
    assert seen.cpu == [
        CpuOperator(
            "Inception3__...",
            "conv2d-fix",
            'DPU only supports "pad_left"(1) less than "kernel_width"(1)',
        )
    ]


def test_a_failure_nobody_explained() -> None:
    seen = VendorLog()
    seen.add("[UNILOG][FATAL][XCOM_NEW_ONE][What is this!] text")
    assert "XCOM_NEW_ONE" in seen.failure()[0].cause
    seen = VendorLog()
    assert seen.failure()[1] == "it printed nothing"
    seen.add("Traceback (most recent call last):")
    seen.add("NameError: name 'output_ops' is not defined")
    seen.add("bye")
    assert seen.failure()[1].startswith("NameError")


def test_noise_is_taken_off() -> None:
    raw = b"\x1b[0;32m[UNILOG][INFO] \x1b[1mCompile done.\x1b[0m\x07\r\n"
    assert plain_line(raw) == "[UNILOG][INFO] Compile done."
    assert plain_line(b" 10%\r 50%\r100% caf\xc3\xa9 \xff\n") == "100% caf\u00e9 \ufffd"


# Programs that misbehave.

PREAMBLE = """\
#!{python}
import os, shutil, subprocess, sys, time
words = sys.argv[1:]
out = words[words.index("-o") + 1]
net = os.path.join(out, words[words.index("-n") + 1] + ".xmodel")
compiled = {compiled!r}
"""
SUCCESS = """\
os.makedirs(out, exist_ok=True)
shutil.copy(compiled, net)
print("[UNILOG][INFO] Compile done.")
"""


@pytest.fixture
def scripted(tmp_path: Path, compiled: Path) -> Callable[..., VitisBackend]:
    def scripted(body: str, time_limit: float = 60) -> VitisBackend:
        path = tmp_path / "bin" / "vai_c_xir"
        path.parent.mkdir(exist_ok=True)
        text = PREAMBLE.format(python=sys.executable, compiled=str(compiled))
        path.write_text(text + textwrap.dedent(body))
        path.chmod(0o755)
        return VitisBackend(path, None, time_limit)

    return scripted


Scripted = Callable[..., VitisBackend]


def refused(
    error: type, backend: Backend, source: Path, folder: Path, before: bool = False
) -> ToolkitError:
    """Compiles, expects the error and that no model is left or an earlier one is as it was."""
    if before:
        folder.mkdir()
        (folder / "net.xmodel").write_bytes(b"earlier")
    with pytest.raises(error) as caught:
        backend.compile(source, TARGET, folder, "net", silent)
    assert set(files(folder)) - {"arch.json", "compile.log"} == (
        {"net.xmodel"} if before else set()
    )
    if before:
        assert (folder / "net.xmodel").read_bytes() == b"earlier"
    found: ToolkitError = caught.value
    return found


def test_status_is_not_believed(scripted: Scripted, source: Path, tmp_path: Path) -> None:
    """Neither a good one after a failure, nor a bad one after success."""
    fatal = 'print("[UNILOG][FATAL][XCOM_PM_FAIL][x] y")\n'
    refused(
        UnsupportedError,
        scripted(SUCCESS.replace("Compile done.", "") + fatal),
        source,
        tmp_path / "a",
    )
    result = scripted(SUCCESS + "sys.exit(3)\n").compile(
        source, TARGET, tmp_path / "b", "net", silent
    )
    assert files(tmp_path / "b") == ["arch.json", "compile.log", *RESULT]
    assert json.loads(result.meta.read_text())["md5"] == result.md5
    assert "# ended with status 3" in (tmp_path / "b" / "compile.log").read_text()


def test_an_earlier_result_does_not_pass_for_success(
    scripted: Scripted, source: Path, tmp_path: Path
) -> None:
    body = 'print("[UNILOG][INFO] Compile done.")\n'
    found = refused(WorkError, scripted(body), source, tmp_path / "out", before=True)
    assert "says it is done, but there is no net.xmodel" in found.cause


def test_a_file_without_the_word_is_no_success(
    scripted: Scripted, source: Path, tmp_path: Path
) -> None:
    body = SUCCESS.replace("Compile done.", "Begin to compile...")
    found = refused(WorkError, scripted(body), source, tmp_path / "out", before=True)
    assert "without saying why" in found.cause
    assert "Begin to compile..." in found.evidence


def test_a_silent_end(scripted: Scripted, source: Path, tmp_path: Path) -> None:
    found = refused(WorkError, scripted("sys.exit(0)"), source, tmp_path / "out")
    assert "printed nothing" in found.evidence


def test_no_front_end(scripted: Scripted, source: Path, tmp_path: Path) -> None:
    found = refused(
        WorkError, scripted('print("ERROR: NO FRONT END SPECIFIED")'), source, tmp_path / "out"
    )
    assert "arch.json after -a" in found.cause


def test_noise_around_success(scripted: Scripted, source: Path, tmp_path: Path) -> None:
    body = SUCCESS.replace(
        'print("', 'sys.stdout.buffer.write(b"\\xff\\xfe 10%\\r\\x1b[31m");'
        'sys.stdout.flush();print("\\x1b[0m'
    )  # fmt: skip
    result = scripted(body).compile(source, TARGET, tmp_path / "out", "net", silent)
    assert result.xmodel.is_file()


def test_another_target(scripted: Scripted, source: Path, tmp_path: Path) -> None:
    other = compile_xmodel(source, TARGETS[1], tmp_path / "other", "net", silent).xmodel
    body = f"compiled = {str(other)!r}\n" + SUCCESS
    found = refused(MismatchError, scripted(body), source, tmp_path / "out", before=True)
    assert "0x501000000160c2f" in found.evidence
    assert "0x501000000140fee" in found.evidence


def test_another_file_than_the_log_speaks_of(
    scripted: Scripted, source: Path, tmp_path: Path
) -> None:
    body = SUCCESS + f'print("The compiled xmodel\'s md5sum is {"0" * 32}, and been saved")\n'
    refused(MismatchError, scripted(body), source, tmp_path / "out")


def test_a_damaged_result(scripted: Scripted, source: Path, tmp_path: Path) -> None:
    body = SUCCESS + 'open(net, "r+b").truncate(1000)\n'
    found = refused(FormatError, scripted(body), source, tmp_path / "out")
    assert "vendor's compiler left a file" in found.cause


def test_what_else_it_writes_is_not_published(
    scripted: Scripted, source: Path, tmp_path: Path
) -> None:
    body = SUCCESS + 'os.mkdir(out + "/dump"); open(out + "/tmp.bin", "w").close()\n'
    scripted(body).compile(source, TARGET, tmp_path / "out", "net", silent)
    assert files(tmp_path / "out") == ["arch.json", "compile.log", *RESULT]


def test_a_program_that_cannot_start(source: Path, tmp_path: Path) -> None:
    path = tmp_path / "vai_c_xir"
    path.write_text("#!/nowhere/python\n")
    path.chmod(0o755)
    refused(WorkError, VitisBackend(path), source, tmp_path / "out")


HANG = """\
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
open({pids!r}, "w").write("%d %d" % (os.getpid(), child.pid))
print("Begin to compile...", flush=True)
time.sleep(600)
"""


def gone(pid: int) -> bool:
    """Whether a process has ended (a zombie has)."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return True
    return state in "ZX"


def all_gone(path: Path) -> bool:
    """Whether the processes whose numbers are in a file end; waits for the kernel to do it."""
    pids = [int(word) for word in path.read_text().split()]
    assert len(pids) == 2
    for _ in range(200):
        if all(map(gone, pids)):
            return True
        time.sleep(0.05)
    return False


def test_a_hang_is_stopped_with_its_children(
    scripted: Scripted, source: Path, tmp_path: Path
) -> None:
    pids = tmp_path / "pids"
    backend = scripted(HANG.format(pids=str(pids)), time_limit=2)
    found = refused(WorkError, backend, source, tmp_path / "out", before=True)
    assert "did not end within 2 seconds" in found.cause
    assert "Begin to compile..." in found.evidence
    assert all_gone(pids)


def test_ctrl_c_stops_it_with_its_children(
    scripted: Scripted, source: Path, tmp_path: Path
) -> None:
    pids = tmp_path / "pids"
    backend = scripted(HANG.format(pids=str(pids)))

    def log(line: str) -> None:
        if "Begin" in line:
            raise KeyboardInterrupt  # as the signal's handler does, wherever it strikes

    with pytest.raises(KeyboardInterrupt):
        backend.compile(source, TARGET, tmp_path / "out", "net", log)
    assert all_gone(pids)
    assert set(files(tmp_path / "out")) == {"arch.json", "compile.log"}


def test_a_child_that_keeps_the_console_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deepfake_fpga.compile.vendor_process._LINGER", 0.5)
    lines: List[str] = []
    command = ["/bin/sh", "-c", "sleep 600 & echo $! $$; exit 4"]
    assert run_program(command, lines.append, 60) == 4
    (tmp_path / "pids").write_text(lines[0])
    assert all_gone(tmp_path / "pids")


def test_a_daemon_of_its_own_session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is out of reach and holds the console; it does not hold us."""
    monkeypatch.setattr("deepfake_fpga.compile.vendor_process._LINGER", 0.2)
    lines: List[str] = []
    code = "import os, sys, time; os.setsid(); print(os.getpid(), flush=True); time.sleep(600)"
    command = ["/bin/sh", "-c", f"{shlex.quote(sys.executable)} -c {shlex.quote(code)} & sleep 1"]
    assert run_program(command, lines.append, 60) == 0
    os.kill(int(lines[0]), signal.SIGKILL)


CHATTY = "while :; do echo more; sleep 0.05; done"
CLOSED = "exec >&- 2>&-; sleep 600"


@pytest.mark.parametrize("script", [CHATTY, CLOSED])
def test_a_program_that_never_ends(script: str) -> None:
    """Neither one that always prints, nor one that has closed its console."""
    with pytest.raises(WorkError, match="did not end within 1 seconds"):
        run_program(["/bin/sh", "-c", script], silent, 1)


def test_the_status_is_the_programs() -> None:
    assert run_program(["/bin/sh", "-c", "exit 7"], silent, 60) == 7
    assert run_program(["/bin/sh", "-c", "kill -ABRT $$"], silent, 60) == -signal.SIGABRT


# Lost outputs.


def test_outputs_are_found_in_genuine_models(shared: Path) -> None:
    for path in sorted((shared / "xmodels").glob("vck5000_*pointpillars*.xmodel")):
        graph = read_xmodel(path)
        names = graph.get("return_ops")
        assert len(names) == 3
        assert lost(graph, *names) == []
        [note] = lost(graph, *names, "VoxelNet__gone_fix")
        assert "lost the output VoxelNet__gone_fix" in note
        assert output_ops_hint((*names, "VoxelNet__gone_fix")) in note


def test_a_genuine_pair(
    scripted: Scripted, shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A model the vendor quantized, and what the vendor's compiler made of it."""
    made = shared / "xmodels" / "vck5000_8pe_pointpillars_v2.5.xmodel"
    backend = scripted(f"compiled = {str(made)!r}\n" + SUCCESS)
    source = shared / "xmodels" / "quantized_voxelnet.xmodel"
    result = backend.compile(source, TARGET, tmp_path / "out", "net", silent)
    assert len(result.notes) == 1, result.notes
    assert "arch.json" in result.notes[0], "and no output is missed"
    assert (result.device_subgraphs, result.dpu_subgraphs) == (8, 2)
    assert result.to_json()["simulated"] is False
    text = summary(result)
    assert "no instructions" not in text
    assert "2 DPU subgraphs" in text


def test_a_value_inside_the_dpu_is_no_output(compiled: Path) -> None:
    graph = read_xmodel(compiled)
    [dpu] = graph.subgraphs("DPU")
    inside = [n for n in dpu.all_ops() if graph.op(n).type == "pool-fix"]
    assert inside
    assert len(lost(graph, graph.op(inside[0]).tensor.name)) == 1


# Options.


def test_options_are_read() -> None:
    text = '{"input_shape": "1,224,224,3", "output_ops": "a_fix, b_fix", "mode": "normal"}'
    found = parse_options(text)
    assert found == CompilerOptions((1, 224, 224, 3), ("a_fix", "b_fix"), "", "normal")
    assert parse_options(repr(found.to_dict())) == found
    assert parse_options("") == parse_options("{}") == CompilerOptions()


BAD_OPTIONS = {
    "{output_ops: 'a_fix'}": "no quotes around output_ops",
    "{'output_ops': a_fix, 'mode': b}": "no quotes around a_fix, b",
    "{'output_ops': 'a_fix'": "quote the whole",
    "['mode']": "no dict",
    "{'outputs': 'a'}": "no option 'outputs'",
    "{'input_shape': '8,224,224,3'}": "batch of 8",
    "{'input_shape': '1,x'}": "cannot be '1,x'",
    "{'input_shape': 7}": "cannot be 7",
    "{'output_ops': 'a,,b'}": "cannot be 'a,,b'",
    "{'output_ops': 'a,a'}": "each once",
    "{'mode': ''}": "cannot be ''",
    "__import__('os').system('true')": "no quotes around __import__",
    "{'mode': 'a'.join(['b'])}": "no plain dict",
}


@pytest.mark.parametrize("text", list(BAD_OPTIONS))
def test_bad_options(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_options(text)
    assert BAD_OPTIONS[text] in str(caught.value)


def test_an_output_without_its_fix_is_corrected(source: Path) -> None:
    graph = read_xmodel(source)
    plain = next(n for n in graph.ops if f"{n}_fix" in graph.ops and "pool" not in n)
    with pytest.raises(UsageError) as caught:
        CompilerOptions(output_ops=(plain,)).check(graph)
    assert f"{plain}_fix" in caught.value.next_step
    assert parse_options(shlex.split(caught.value.next_step)[1]).output_ops == (f"{plain}_fix",)


@pytest.mark.parametrize("text", ["{'plugins': 'mine.so'}", "{'mode': 'debug'}"])
def test_ours_refuses_what_only_the_vendors_has(source: Path, tmp_path: Path, text: str) -> None:
    with pytest.raises(UnsupportedError, match="Only the vendor's compiler"):
        SimBackend().compile(source, TARGET, tmp_path / "o", "net", silent, parse_options(text))
    assert not (tmp_path / "o").exists()


def test_the_command_line_over_the_drop_in(
    host: SimulatedHost, source: Path, tmp_path: Path
) -> None:
    """A process of its own, as a user starts it; an interrupt ends it and leaves no model."""
    words = ["-x", str(source), "-o", str(tmp_path / "out"), "-n", "net", "--backend", "vitis"]
    command = [sys.executable, "-m", "deepfake_fpga", "compile", *words, "--json"]
    env = {**os.environ, "PYTHONPATH": str(package_home())}
    done = subprocess.run(command, capture_output=True, env=env)
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    assert record["backend"] == "vitis"
    assert "our drop-in program" in record["backend_reason"]
    assert record["command"].startswith(str(host.folder / "bin"))
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert [made["path"] for made in manifest["made"]] == [
        "net.xmodel",
        "meta.json",
        "md5sum.txt",
        "compile.log",
    ]


def test_sigint_to_the_command(scripted: Scripted, source: Path, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    program = scripted(HANG.format(pids=str(pids))).program
    env = {**os.environ, "PYTHONPATH": str(package_home())}
    env["PATH"] = f"{program.parent}{os.pathsep}{env['PATH']}"
    words = ["-x", str(source), "-o", str(tmp_path / "out"), "--backend", "vitis"]
    process = subprocess.Popen(
        [sys.executable, "-m", "deepfake_fpga", "compile", *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=env,
    )
    assert process.stderr is not None
    stopper = threading.Timer(60, process.kill)
    stopper.start()
    for line in process.stderr:
        if b"Begin to compile" in line:
            break
    process.send_signal(signal.SIGINT)
    process.communicate()
    stopper.cancel()
    assert process.returncode not in (0, -signal.SIGKILL)
    assert all_gone(pids)
    assert not (tmp_path / "out" / "YNET.xmodel").exists()
