"""``simulate``: what the command below it sees, its status, and that nothing is left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, List

import pytest

from deepfake_fpga.board.vendor import find_program
from deepfake_fpga.deploy.simulate.host import PROGRAMS, SimulatedHost, choose_python
from deepfake_fpga.deploy.simulate.installing import MODULES
from deepfake_fpga.deploy.simulate.options import SimulateOptions, active_options
from deepfake_fpga.errors import MissingError, UsageError

ROOT = Path(__file__).resolve().parent.parent


def simulate(*words: str, **kwargs: Any) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    return subprocess.run(
        [sys.executable, "-m", "deepfake_fpga", "simulate", *words],
        capture_output=True,
        text=True,
        env=env,
        **kwargs,
    )


def test_a_script_finds_modules_programs_and_firmware(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import json, os, shutil, sys\n"
        "import xir, vart\n"
        "from importlib.util import find_spec\n"
        f"programs = [shutil.which(name) for name in {PROGRAMS!r}]\n"
        "print(json.dumps({'argv': sys.argv[1:], 'xir': xir.__drop_in__, 'vart': vart.__drop_in__,"
        " 'nndct': find_spec('pytorch_nndct') is not None, 'programs': programs,"
        " 'firmware': os.path.isfile(os.environ['XLNX_VART_FIRMWARE'])}))\n"
    )
    done = simulate("--", sys.executable, str(script), "--threads", "4", "-m")
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen["argv"] == ["--threads", "4", "-m"]
    assert seen["xir"] == seen["vart"] == "deepfake-fpga"
    assert seen["nndct"]
    assert seen["firmware"]
    assert all(seen["programs"])
    assert "Simulated: Vitis AI 3.0, production VCK5000" in done.stderr
    folder = Path(seen["programs"][0]).parent.parent
    assert not folder.exists()


def test_the_status_is_the_commands(tmp_path: Path) -> None:
    assert simulate("-q", "--", sys.executable, "-c", "raise SystemExit(7)").returncode == 7
    kill = f"import os; os.kill(os.getpid(), {int(signal.SIGABRT)})"
    assert simulate("--", sys.executable, "-c", kill, cwd=str(tmp_path)).returncode == 134


def test_a_missing_program_is_named() -> None:
    done = simulate("--", "no-such-program")
    assert done.returncode == 2
    assert "no-such-program" in done.stderr


def test_a_wrong_word_is_refused() -> None:
    done = simulate("--variant", "9pe", "--", "true")
    assert done.returncode == 2
    assert "9pe" in done.stderr


def test_the_environment_carries_the_options_and_hides_a_card(tmp_path: Path) -> None:
    options = SimulateOptions(firmware=False, hot_after=3, release="2.5")
    with SimulatedHost(options, tmp_path / "host") as host:
        env = host.environment({"PATH": "/bin", "XLNX_VART_FIRMWARE": "/genuine.xclbin"})
        assert "XLNX_VART_FIRMWARE" not in env
        assert active_options(env) == host.options
        assert host.options.state == str(tmp_path / "host" / "state")
        assert "hot_after 3" in host.describe()
        assert env["PATH"].endswith(os.pathsep + "/bin")
    assert (tmp_path / "host").is_dir()  # it was asked for, so it stays


@pytest.mark.parametrize(
    ("release", "variant", "ends"),
    [
        ("3.0", "8pe_normal", "8PE/dpu_DPUCVDX8H_8PE_350M_xilinx_vck5000_gen4x8_qdma_base_2"),
        ("2.5", "6pe_dwc", "6PE_aieDWC/dpu_DPUCVDX8H_6PE_aieDWC_350M_xilinx_vck5000_gen3x16_xdma"),
        ("2.0", "6pe_dwc", "6pedwc/dpu_DPUCVDX8H_6PE_aieDWC_350M_xilinx_vck5000_gen3x16_xdma"),
        ("1.4.1", "8pe", "8pe/dpu_DPUCVDX8H_8PE_350M_xilinx_vck5000-es1_gen3x16_base_2"),
    ],
)
def test_firmware_and_arch_files_stand_where_the_release_puts_them(
    tmp_path: Path, release: str, variant: str, ends: str
) -> None:
    host = SimulatedHost(SimulateOptions(release=release, variant=variant), tmp_path)
    assert f"/opt/xilinx/overlaybins/DPUCVDX8H/{ends}" in str(host.firmware)
    root = Path(host.environment()["VAI_ROOT"]) / "compiler" / "arch"
    arch = root / "DPUCVDX8H" / host.target.folder / "arch.json"
    assert json.loads(arch.read_text()) == {"target": host.target.dpu_name}


def test_wrappers_are_known_as_drop_ins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = SimulatedHost(SimulateOptions(), tmp_path)
    monkeypatch.setenv("PATH", host.environment()["PATH"])
    assert {find_program(name).state.value for name in PROGRAMS} == {"simulated"}
    assert {path.stem for path in (tmp_path / "modules").glob("*.py")} == set(MODULES)


def test_python_is_the_one_on_the_path_if_it_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def words(command: List[str]) -> str:
        return choose_python(command)[0][0]

    lacking = tmp_path / "python3"
    lacking.write_text("#!/bin/sh\nexit 1\n")
    lacking.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert words(["python3", "x.py"]) == sys.executable
    lacking.write_text("#!/bin/sh\necho \"['torch']\"\n")
    assert words(["python3", "x.py"]) == sys.executable
    assert "lacks torch" in choose_python(["python3", "x.py"])[1]
    lacking.write_text("#!/bin/sh\necho '[]'\n")
    assert words(["python3", "x.py"]) == "python3"
    assert words(["python", "x.py"]) == sys.executable
    assert choose_python(["xbutil"]) == (["xbutil"], "")


def test_unknown_programs_are_our_error(tmp_path: Path) -> None:
    with SimulatedHost(SimulateOptions(), tmp_path) as host, pytest.raises(MissingError):
        host.run(["no-such-program"])
    with pytest.raises(UsageError):
        SimulatedHost(SimulateOptions(variant="9pe"), tmp_path)
    with pytest.raises(UsageError, match=r"2\.0 has no DPU variant '6pe_misc'"):
        SimulatedHost(SimulateOptions(release="2.0", variant="6pe_misc"), tmp_path)
