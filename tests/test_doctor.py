"""The doctor, on computers made up for it: well ones, ill ones, and ones it was not made for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Sequence, Set, Tuple

import pytest
from click.testing import CliRunner

from deepfake_fpga.board.cards import Card, CardSearch
from deepfake_fpga.board.health import CardHealth
from deepfake_fpga.board.lspci import PciFunction
from deepfake_fpga.board.releases import Silicon
from deepfake_fpga.board.vendor import State as VendorState
from deepfake_fpga.board.vendor import VendorTool
from deepfake_fpga.compile.xir.attributes import map_string
from deepfake_fpga.compile.xir.xmodel import read_xmodel, write_xmodel
from deepfake_fpga.deploy.commands.doctor import command
from deepfake_fpga.deploy.defaults import default_model
from deepfake_fpga.deploy.doctor import model as model_checks
from deepfake_fpga.deploy.doctor import python as python_checks
from deepfake_fpga.deploy.doctor.examination import CHECKS, examine
from deepfake_fpga.deploy.doctor.facts import Choice, Facts, Place, Request, find_place
from deepfake_fpga.deploy.doctor.findings import Finding, Line, Purpose, Report, State, needs
from deepfake_fpga.deploy.doctor.table import summary, table
from deepfake_fpga.deploy.host import Host, Outcome, current_user, run_program
from deepfake_fpga.deploy.simulate.host import SimulatedHost
from deepfake_fpga.deploy.simulate.options import SimulateOptions
from deepfake_fpga.errors import DeviceError
from deepfake_fpga.inference.devices.preflight import Check, Runtime

GIB = 1 << 30
QDMA = "xilinx_vck5000_gen4x8_qdma_base_2"
XDMA = "xilinx_vck5000_gen3x16_xdma_base_1"
ES1 = "xilinx_vck5000-es1_gen3x16_base_2"
BINS = "/opt/xilinx/overlaybins/DPUCVDX8H"
IMAGE_30 = "xilinx/vitis-ai-pytorch-cpu:ubuntu2004-3.0.0.106"
CPU = "processor\t: 0\nflags\t\t: fpu avx2 avx512_vnni\n\nprocessor\t: 1\nflags\t\t: fpu\n"


def card(silicon: Silicon = Silicon.PRODUCTION, shell: str = QDMA, **more: Any) -> Card:
    fields: Dict[str, Any] = {
        "management_bdf": "0000:0b:00.0",
        "user_bdf": "0000:0b:00.1",
        "silicon": silicon,
        "shell": shell,
        "management_driver": "xclmgmt",
        "user_driver": "xocl",
        "ready": True,
        **more,
    }
    return Card("0000:0b:00", **fields)


def health(celsius: float = 36.0, warnings: Sequence[str] = (), stops: Any = ()) -> CardHealth:
    return CardHealth(
        bdf="0000:0b:00.1", shell=QDMA, celsius=celsius, power_watts=26.25, max_watts=225.0,
        power_warning=False, sensors=(), rails=(), warnings=tuple(warnings), stops=tuple(stops),
        notes=(), evidence="made up",
    )  # fmt: skip


class Computer:
    """A computer made of a folder and answers; ``doctor`` examines it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.root = folder, folder / "root"
        self.env: Dict[str, str] = {"PATH": str(folder / "bin"), "LANG": "en_US.UTF-8"}
        self.tools: Dict[str, VendorTool] = {}
        self.packages: Dict[str, Tuple[str, str]] = {
            p.module: ("ok", "1.0") for p in python_checks.PACKAGES
        }
        self.answers: Dict[str, Outcome] = {}
        self.search = CardSearch((), evidence="`lspci`")
        self.health: Any = health()
        self.runtime: Optional[Runtime] = None
        self.python = (3, 7, 16)
        self.free = 100 * GIB
        self.asked: List[List[str]] = []
        for path, text in (
            ("/proc/meminfo", "MemTotal: 99 kB\nMemAvailable: 33554432 kB\n"),
            ("/proc/cpuinfo", CPU),
        ):
            self.write(path, text)
        (self.root / "tmp").mkdir()

    def write(self, path: str, text: str = "") -> Path:
        file = self.root / path[1:]
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return file

    def remove(self, path: str) -> None:
        (self.root / path[1:]).unlink()

    def install(self, name: str) -> None:
        file = self.folder / "bin" / name
        file.parent.mkdir(exist_ok=True)
        file.write_text("")
        file.chmod(0o755)

    def tool(self, name: str, state: VendorState, evidence: str = "seen") -> None:
        self.tools[name] = VendorTool(name, state, self.folder / name, "", evidence)

    def run(self, argv: Sequence[str], seconds: float) -> Outcome:
        self.asked.append(list(argv))
        if argv[1:2] == ["-c"] and "importlib" in argv[2]:
            lines = [
                json.dumps([name, *self.packages.get(name, ("absent", ""))]) for name in argv[4:]
            ]
            return Outcome(0, "\n".join(lines))
        words = " ".join([Path(argv[0]).name, *argv[1:]])
        for start, outcome in self.answers.items():
            if words.startswith(start):
                return outcome
        return Outcome(1, "", f"no answer made up for {words}")

    def find(self, name: str) -> VendorTool:
        absent = VendorTool(name, VendorState.ABSENT, None, "", "not here")
        return self.tools.get(name, absent)

    def read_health(self, bdf: Optional[str]) -> CardHealth:
        assert bdf == "0000:0b:00.1"
        if isinstance(self.health, Exception):
            raise self.health
        found: CardHealth = self.health
        return found

    def host(self) -> Host:
        def runtime() -> Runtime:
            assert self.runtime is not None
            return self.runtime

        return Host(
            env=self.env,
            root=self.root,
            run=self.run,
            package=self.find,
            program=self.find,
            cards=lambda: self.search,
            health=self.read_health,
            runtime=runtime,
            free_bytes=lambda path: self.free,
            python=self.python,
            executable="python3",
            user=("ana", 1000, 1000),
        )

    def examine(self, purpose: Optional[Purpose] = None, **request: Any) -> Report:
        build = request.pop("build_dir", self.folder / "build")
        return examine(
            Request(purpose, build_dir=build, **request),
            self.host(),
            lambda: (Choice("run", "sim", "made up"),),
        )


def states(report: Report) -> Dict[str, State]:
    return {line.finding.name: line.state for line in report.lines}


def line(report: Report, name: str) -> Line:
    (found,) = [line for line in report.lines if line.finding.name == name]
    return found


def bad(report: Report) -> Dict[str, State]:
    return {n: s for n, s in states(report).items() if s in (State.WARN, State.FAIL)}


@pytest.fixture(scope="module")
def vendor_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A compiled model that does not say it is ours, as from the vendor's compiler."""
    graph = read_xmodel(default_model())
    graph.attrs["libs_info"] = map_string({"xcompiler 3.0.0": "made up"})
    path = tmp_path_factory.mktemp("model") / "build" / "compiled" / "YNET.xmodel"
    path.parent.mkdir(parents=True)
    write_xmodel(graph, path)
    return path


@pytest.fixture(autouse=True)
def _read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same model is looked at in most tests; reading it each time takes most of their time."""
    monkeypatch.setattr(model_checks, "read_xmodel", _read)


_MODELS: Dict[Path, Any] = {}


def _read(path: Path) -> Any:
    if path.stat().st_size < 1 << 16 or path.name != "YNET.xmodel":
        return read_xmodel(path)
    if path not in _MODELS:
        _MODELS[path] = read_xmodel(path)
    return _MODELS[path]


@pytest.fixture
def laptop(tmp_path: Path) -> Computer:
    return Computer(tmp_path / "laptop")


@pytest.fixture
def container(tmp_path: Path) -> Computer:
    """A Vitis AI 3.0 container on a host with a production card, all well."""
    made = Computer(tmp_path / "container")
    made.write("/.dockerenv")
    made.write("/etc/os-release", 'NAME="Ubuntu"\nVERSION_ID="20.04"\n')
    arch = "/opt/vitis_ai/compiler/arch/DPUCVDX8H/VCK50008PE/arch.json"
    made.write(arch, '{"target": "DPUCVDX8H_ISA1_F2W2_8PE"}')
    made.write("/opt/vitis_ai/conda/envs/vitis-ai-pytorch/lib/python3.7/os.py")
    made.write("/opt/xilinx/xrt/version.json", '{"BUILD_VERSION": "2.14.354"}')
    xclbin = f"{BINS}/8PE/dpu_DPUCVDX8H_8PE_350M_{QDMA}.xclbin"
    made.write(xclbin, "xclbin2")
    made.write("/dev/xclmgmt2816")
    made.write("/dev/dri/renderD128")
    made.env.update(
        VERSION="3.0.0.001",
        CONDA_DEFAULT_ENV="vitis-ai-pytorch",
        XLNX_VART_FIRMWARE=xclbin,
        XCLBIN_PATH=f"{BINS}/8PE",
        XILINX_XRT="/opt/xilinx/xrt",
    )
    for name in ("xir", "vart", "pytorch_nndct", "vai_c_xir", "xbutil"):
        made.tool(name, VendorState.GENUINE)
    made.install("dpkg-query")
    made.answers["dpkg-query -W -f ${Version} xrm"] = Outcome(0, "1.5.212")
    made.search = CardSearch((card(),), evidence="`lspci`")
    made.runtime = Runtime("python3", Check("xir and vart", True, "genuine"))
    return made


@pytest.fixture
def server(tmp_path: Path) -> Computer:
    """A host with a production card and docker, from which a 3.0 container can be started."""
    made = Computer(tmp_path / "server")
    made.write(f"{BINS}/8PE/dpu_DPUCVDX8H_8PE_350M_{QDMA}.xclbin")
    made.write("/dev/xclmgmt2816")
    made.write("/dev/dri/renderD128")
    made.write("/proc/77/comm", "xrmd\n")
    made.write("/opt/xilinx/xrt/version.json", '{"BUILD_VERSION": "2.14.354"}')
    made.write("/var/lib/docker/info")
    made.env["XILINX_XRT"] = "/opt/xilinx/xrt"
    made.tool("xbutil", VendorState.GENUINE)
    made.install("docker")
    made.install("dpkg-query")
    made.answers = {
        "docker version": Outcome(0, "24.0.7\n"),
        f"docker image inspect --format {{{{.Id}}}} {IMAGE_30}": Outcome(0, "sha256:1"),
        "docker info": Outcome(0, "/var/lib/docker\n"),
        "dpkg-query -W -f ${Version} xrm": Outcome(0, "1.5.212"),
    }
    made.search = CardSearch((card(),), evidence="`lspci`")
    return made


# Well computers


def test_a_healthy_container_is_fit_for_everything(container: Computer, vendor_model: Path) -> None:
    build = vendor_model.parent.parent
    for purpose in (None, *Purpose):
        report = container.examine(purpose, build_dir=build)
        assert bad(report) == {}, purpose
    report = container.examine(build_dir=build)
    assert report.wanted == needs(Purpose.RUN, Purpose.CARD)
    found = states(report)
    for name in (
        "Vitis AI", "XRT", "XRM", "card", "card's state", "/dev/dri/renderD*", "health", "variant",
        "XLNX_VART_FIRMWARE", "xclbin's shell", "arch folder", "fingerprint", "instructions",
        "card runtime",
    ):  # fmt: skip
        assert found[name] is State.OK, name
    assert "36 °C, 26.2 W" in line(report, "health").finding.seen
    assert found["docker"] is State.SKIPPED


def test_a_healthy_host_is_fit_for_the_card(server: Computer, vendor_model: Path) -> None:
    report = server.examine(build_dir=vendor_model.parent.parent)
    assert bad(report) == {}
    found = states(report)
    for name in ("docker", "image", "xclbins", "xrmd", "disk", "docker's disk", "XRT", "XRM"):
        assert found[name] is State.OK, name
    assert "3.0 is the one to use" in line(report, "Vitis AI").finding.seen
    assert found["XLNX_VART_FIRMWARE"] is State.SKIPPED, "it is set inside the container"


def test_a_laptop_without_anything_is_fit_to_run(laptop: Computer) -> None:
    for name in ("torch", "safetensors", "onnx", "onnxruntime", "av"):
        laptop.packages[name] = ("absent", "")
    report = laptop.examine()
    assert not report.failed
    assert report.wanted == needs(Purpose.RUN)
    assert set(bad(report)) == {"torch", "safetensors", "onnx", "onnxruntime", "av"}
    assert states(report)["docker"] is State.SKIPPED
    assert states(report)["card"] is State.SKIPPED
    # The same computer is not fit for what it lacks.
    assert [x.finding.name for x in laptop.examine(Purpose.QUANT).failed] == ["torch"]
    failed = {x.finding.name for x in laptop.examine(Purpose.CARD).failed}
    assert {"card", "docker", "/dev/dri/renderD*", "xbutil"} <= failed


# Python


@pytest.mark.parametrize(
    ("state", "seen"), [("absent", "not installed"), ("broken", "libGL.so.1: cannot open")]
)
def test_a_package_that_cannot_be_imported(laptop: Computer, state: str, seen: str) -> None:
    laptop.packages["cv2"] = (state, seen if state == "broken" else "")
    found = line(laptop.examine(), "cv2")
    assert found.state is State.FAIL
    assert seen in found.finding.seen
    assert "python3 -m pip install" in found.finding.fix
    assert ("--force-reinstall" in found.finding.fix) == (state == "broken")
    assert line(laptop.examine(Purpose.COMPILE), "cv2").state is State.WARN


def test_a_bare_computer_is_fit_to_run(laptop: Computer) -> None:
    """numpy, click, PyYAML and OpenCV are enough; what else is missing is only named."""
    for name in ("tqdm", "onnx", "onnxruntime", "av", "torch", "safetensors"):
        laptop.packages[name] = ("absent", "")
    report = laptop.examine(Purpose.RUN)
    assert not report.failed
    assert line(report, "tqdm").state is State.WARN


def test_a_package_missing_in_a_container_comes_as_a_wheel(container: Computer) -> None:
    container.packages["yaml"] = ("absent", "")
    found = line(container.examine(), "yaml")
    assert found.state is State.FAIL
    assert (
        "pip download -d wheels --only-binary=:all: --python-version 3.7 click PyYAML"
        in found.finding.fix
    )


def test_modules_are_imported_in_another_process(tmp_path: Path) -> None:
    """By a real interpreter: a good, an absent, a broken, a deadly and another good module."""
    modules = {
        "good_one": "__version__ = '3.2'\nprint('hello')\n",
        "broken_one": "import absent_dependency\n",
        "deadly_one": "import os\nos._exit(134)\n",
        "after_it": "",
    }
    for name, text in modules.items():
        (tmp_path / f"{name}.py").write_text(text)
    host = replace(Host(), run=run_program)
    names = ["good_one", "absent_one", "broken_one", "deadly_one", "after_it", "absent_one.part"]
    facts = Facts(host, Request(), Place.HOST, "")
    sys.path.insert(0, str(tmp_path))
    try:
        found = python_checks._imported(facts, names)
    finally:
        sys.path.remove(str(tmp_path))
    assert found["good_one"] == ("ok", "3.2")
    assert found["absent_one"][0] == "absent"
    assert found["absent_one.part"][0] == "absent"
    assert found["broken_one"] == ("broken", "No module named 'absent_dependency'")
    assert found["deadly_one"][0] == "broken"
    assert "ends the process: status 134" in found["deadly_one"][1]
    assert found["after_it"] == ("ok", "")
    assert not [name for name in modules if name in sys.modules]


def test_the_wrong_xir_is_named(laptop: Computer, server: Computer, container: Computer) -> None:
    evidence = "/site/xir is not the vendor's: it is Python only"
    laptop.tool("xir", VendorState.UNRELATED, evidence)
    found = line(laptop.examine(), "xir")
    assert found.state is State.WARN, "the simulated device does without"
    assert found.finding.seen == evidence
    assert found.finding.fix == "python3 -m pip uninstall xir"
    server.tool("xir", VendorState.UNRELATED, evidence)
    assert line(server.examine(), "xir").state is State.WARN, "the container has its own"
    container.tool("xir", VendorState.UNRELATED, evidence)
    assert line(container.examine(), "xir").state is State.FAIL


def test_an_old_python(laptop: Computer) -> None:
    laptop.python = (3, 6, 9)
    assert line(laptop.examine(), "Python").state is State.FAIL


# Container and release


@pytest.mark.parametrize(
    ("version", "ubuntu", "python", "release"),
    [
        ("3.0.0.001", "20.04", "3.7", "3.0"),
        ("ubuntu2004-3.0.0.106", "20.04", "3.7", "3.0"),
        ("2.5.0.1260", "18.04", "3.7", "2.5"),
        ("2.5", "18.04", "3.7", "2.5"),
        ("2.0.0.1103", "18.04", "3.6", "2.0"),
        ("1.4.1.978", "18.04", "3.6", "1.4.1"),
        ("latest", "18.04", "3.7", "2.5"),
        ("", "20.04", "3.7", "3.0"),
    ],
)
def test_the_release_of_a_container(
    container: Computer, version: str, ubuntu: str, python: str, release: str
) -> None:
    container.env["VERSION"] = version
    container.write("/etc/os-release", f'VERSION_ID="{ubuntu}"\n')
    lib = container.root / "opt/vitis_ai/conda/envs/vitis-ai-pytorch/lib"
    (lib / "python3.7").rename(lib / f"python{python}")
    found = line(container.examine(Purpose.RUN), "Vitis AI")
    assert found.finding.seen.startswith(f"{release} (")


def test_a_container_that_has_dropped_the_card(container: Computer) -> None:
    container.env["VERSION"] = "3.5.0.001-b2b227921"
    found = line(container.examine(), "Vitis AI")
    assert found.state is State.FAIL
    assert "does not support the VCK5000" in found.finding.seen
    assert "deepfake-fpga session" in found.finding.fix


def test_an_es1_card_in_a_3_0_container(container: Computer) -> None:
    container.search = CardSearch((card(Silicon.ES1, ES1),), evidence="`lspci`")
    report = container.examine()
    found = line(report, "card's make")
    assert found.state is State.FAIL
    assert found.finding.seen == "es1, Vitis AI 3.0 wants production"
    assert found.finding.fix == "deepfake-fpga session --release 1.4.1"


def test_an_old_shell_under_a_3_0_container(container: Computer) -> None:
    container.search = CardSearch((card(shell=XDMA),), evidence="`lspci`")
    report = container.examine()
    assert line(report, "shell").state is State.FAIL
    assert "migrate.sh" in line(report, "shell").finding.fix
    assert "err=-22" in line(report, "xclbin's shell").finding.seen


def test_a_2_5_container_without_setup_sh(container: Computer) -> None:
    container.env.update(VERSION="2.5.0.1260")
    for name in ("XLNX_VART_FIRMWARE", "XCLBIN_PATH", "XILINX_XRT"):
        del container.env[name]
    container.search = CardSearch((card(shell=XDMA),), evidence="`lspci`")
    container.write("/opt/xilinx/xrt/version.json", '{"BUILD_VERSION": "2.12.427"}')
    container.answers["dpkg-query -W -f ${Version} xrm"] = Outcome(0, "1.3.29")
    report = container.examine()
    found = line(report, "XLNX_VART_FIRMWARE")
    assert found.state is State.FAIL
    assert "ends with status 0 all the same" in found.finding.seen
    assert found.finding.fix.startswith(
        "source /vitis_ai_home/setup/vck5000/setup.sh DPUCVDX8H_8pe_normal"
    )
    assert line(report, "XILINX_XRT").finding.fix == "source /opt/xilinx/xrt/setup.sh"


def test_other_versions_of_xrt_and_xrm(container: Computer) -> None:
    container.write("/opt/xilinx/xrt/version.json", '{"BUILD_VERSION": "2.12.427"}')
    container.answers["dpkg-query -W -f ${Version} xrm"] = Outcome(0, "1.3.29")
    report = container.examine()
    assert line(report, "XRT").state is State.FAIL
    assert line(report, "XRM").state is State.FAIL
    assert "xrm_202220.1.5.212" in line(report, "XRM").finding.fix


def test_no_arch_folder_for_the_variant(container: Computer) -> None:
    container.remove("/opt/vitis_ai/compiler/arch/DPUCVDX8H/VCK50008PE/arch.json")
    other = "/opt/vitis_ai/compiler/arch/DPUCVDX8H/VCK50006PEDWC/arch.json"
    container.write(other, '{"target": "DPUCVDX8H_ISA1_F2W4_6PE_aieDWC"}')
    found = line(container.examine(Purpose.COMPILE), "arch folder")
    assert found.state is State.FAIL
    assert "there are DPUCVDX8H/VCK50006PEDWC" in found.finding.seen
    assert line(container.examine(Purpose.RUN), "arch folder").state is State.WARN


def test_no_environment_is_active(container: Computer) -> None:
    container.env["CONDA_DEFAULT_ENV"] = "base"
    found = line(container.examine(), "conda")
    assert found.state is State.WARN
    assert "conda activate vitis-ai-pytorch" in found.finding.fix


# Firmware


@pytest.mark.parametrize(
    ("value", "seen"),
    [
        (f"{BINS}/8PE/absent.xclbin", "is not there"),
        ("/opt/vitis_ai", "is a folder without an xclbin"),
    ],
)
def test_firmware_that_is_not_there(container: Computer, value: str, seen: str) -> None:
    container.env["XLNX_VART_FIRMWARE"] = value
    found = line(container.examine(), "XLNX_VART_FIRMWARE")
    assert found.state is State.FAIL
    assert seen in found.finding.seen


def test_variables_of_two_setups(container: Computer) -> None:
    container.env["XCLBIN_PATH"] = f"{BINS}/6PE_aieDWC"
    assert line(container.examine(), "XCLBIN_PATH").state is State.WARN


def test_a_folder_of_several_variants(container: Computer) -> None:
    container.write(f"{BINS}/8PE/dpu_DPUCVDX8H_6PE_aieDWC_350M_{QDMA}.xclbin")
    container.env["XLNX_VART_FIRMWARE"] = f"{BINS}/8PE"
    found = line(container.examine(), "variant")
    assert found.state is State.WARN
    assert "6pe_dwc, 8pe_normal" in found.finding.seen


# The card


def test_a_missing_render_node(server: Computer, container: Computer) -> None:
    server.remove("/dev/dri/renderD128")
    found = line(server.examine(), "/dev/dri/renderD*")
    assert found.state is State.FAIL
    assert "modprobe xocl" in found.finding.fix
    container.remove("/dev/dri/renderD128")
    found = line(container.examine(), "/dev/dri/renderD*")
    assert found.state is State.FAIL
    assert "deepfake-fpga session" in found.finding.fix


def test_a_graphics_card_has_render_nodes_too(server: Computer) -> None:
    server.write("/sys/class/drm/renderD128/device/vendor", "0x8086\n")
    found = line(server.examine(), "/dev/dri/renderD*")
    assert found.state is State.FAIL
    assert "only another card's" in found.finding.seen
    server.write("/dev/dri/renderD129")
    server.write("/sys/class/drm/renderD129/device/vendor", "0x10ee\n")
    assert line(server.examine(), "/dev/dri/renderD*").state is State.OK


@pytest.mark.skipif(os.geteuid() == 0, reason="root may use every file")
def test_a_render_node_one_may_not_use(server: Computer) -> None:
    (server.root / "dev/dri/renderD128").chmod(0)
    assert "usermod -aG render" in line(server.examine(), "permission").finding.fix


def test_a_card_without_drivers(server: Computer) -> None:
    note = "0000:0b:00.1 has no driver (xocl): XRT is not installed"
    server.search = CardSearch((card(user_driver="", ready=False, notes=(note,)),))
    report = server.examine()
    found = line(report, "card's state")
    assert found.state is State.FAIL
    assert "dkms status" in found.finding.fix
    assert states(report)["health"] is State.SKIPPED, "it would only hang"


def test_another_card_is_named(laptop: Computer) -> None:
    laptop.search = CardSearch((), (PciFunction("0000:0b:00.0", "5094"),), evidence="`lspci`")
    found = line(laptop.examine(), "card")
    assert found.state is State.WARN
    assert "a V70" in found.finding.seen


def test_a_hot_card_fails_and_a_warm_one_warns(server: Computer) -> None:
    server.health = health(96.0, ["the FPGA is at 96 °C"], ["the FPGA is at 96 °C"])
    assert line(server.examine(), "health").state is State.FAIL
    server.health = health(89.0, ["the FPGA is at 89 °C"])
    assert line(server.examine(), "health").state is State.WARN
    server.health = DeviceError("xbutil hangs", "20 s", "restart the host")
    found = line(server.examine(), "health")
    assert found.finding.seen == "xbutil hangs: 20 s"
    assert found.finding.fix == "restart the host"


def test_xrm_does_not_run(server: Computer) -> None:
    server.write("/proc/77/comm", "bash\n")
    assert line(server.examine(), "xrmd").state is State.FAIL
    server.env["RTE_ACQUIRE_DEVICE_UNMANAGED"] = "1"
    assert line(server.examine(), "xrmd").state is State.SKIPPED


# The model


def test_our_own_model_on_a_real_card(container: Computer, tmp_path: Path) -> None:
    ours = container.folder / "build" / "compiled" / "YNET.xmodel"
    ours.parent.mkdir(parents=True)
    ours.write_bytes(default_model().read_bytes())
    report = container.examine()
    found = line(report, "instructions")
    assert found.state is State.FAIL
    assert found.finding.fix == "deepfake-fpga compile --backend vitis -a 8pe_normal"
    # Nothing compiled yet is no illness; the simulated runtime needs no instructions.
    ours.unlink()
    assert line(container.examine(), "instructions").state is State.WARN


def test_a_model_for_another_variant(container: Computer, vendor_model: Path) -> None:
    xclbin = f"{BINS}/6PE_aieDWC/dpu_DPUCVDX8H_6PE_aieDWC_350M_{QDMA}.xclbin"
    container.write(xclbin)
    container.env.update(XLNX_VART_FIRMWARE=xclbin, XCLBIN_PATH=xclbin.rpartition("/")[0])
    found = line(container.examine(model=vendor_model), "fingerprint")
    assert found.state is State.FAIL
    assert "0x501000000140fee" in found.finding.seen
    assert "VCK50006PEDWC" in found.finding.seen
    assert found.finding.fix.startswith("deepfake-fpga compile --backend vitis -a 6pe_dwc")


def test_a_model_that_is_none(laptop: Computer, tmp_path: Path) -> None:
    pointer = tmp_path / "model.xmodel"
    pointer.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:1\n")
    found = line(laptop.examine(model=pointer), "model")
    assert found.state is State.FAIL
    assert "Git-LFS" in found.finding.seen
    assert line(laptop.examine(model=tmp_path / "absent"), "model").state is State.FAIL


# Docker


@pytest.mark.parametrize(
    ("answer", "fix"),
    [
        (Outcome(1, "", "Got permission denied while trying to connect"), "usermod -aG docker"),
        (Outcome(1, "", "Cannot connect to the Docker daemon"), "systemctl enable --now docker"),
        (Outcome(None, "", "docker did not answer within 20 s"), "docker version"),
    ],
)
def test_docker_that_does_not_answer(server: Computer, answer: Outcome, fix: str) -> None:
    server.answers["docker version"] = answer
    report = server.examine()
    found = line(report, "docker")
    assert found.state is State.FAIL
    assert fix in found.finding.fix
    assert "image" not in states(report)


def test_no_image(server: Computer) -> None:
    del server.answers[f"docker image inspect --format {{{{.Id}}}} {IMAGE_30}"]
    found = line(server.examine(), "image")
    assert found.state is State.FAIL
    assert found.finding.fix == f"docker pull {IMAGE_30}"


def test_no_docker_permission_on_a_laptop_is_only_a_warning(laptop: Computer) -> None:
    laptop.install("docker")
    laptop.answers["docker version"] = Outcome(1, "", "permission denied")
    report = laptop.examine()
    assert line(report, "docker").state is State.WARN
    assert not report.failed


# The computer


def test_a_full_disk(server: Computer, laptop: Computer) -> None:
    laptop.free = 100 << 20
    found = line(laptop.examine(), "disk")
    assert found.state is State.FAIL
    assert found.finding.seen.startswith("0.1 GiB free in ")
    server.free = 10 * GIB
    report = server.examine()
    assert states(report)["disk"] is State.OK
    assert states(report)["docker's disk"] is State.WARN


def test_little_memory_and_an_old_processor(laptop: Computer) -> None:
    laptop.write("/proc/meminfo", "MemAvailable: 1048576 kB\n")
    laptop.write("/proc/cpuinfo", "processor\t: 0\nflags\t\t: sse2\n")
    report = laptop.examine()
    assert line(report, "memory").state is State.WARN
    assert "no AVX2" in line(report, "processor").finding.seen


@pytest.mark.parametrize(
    ("env", "state"),
    [
        ({"LANG": "en_US.UTF-8"}, State.OK),
        ({"LANG": "en_US.UTF-8", "LC_ALL": "de_DE.ISO-8859-1"}, State.WARN),
        ({"LANG": "de_DE"}, State.WARN),
        ({"LANG": "C"}, State.OK),
        ({"LANG": "xx.nonsense"}, State.WARN),
        ({"LANG": "de_DE", "PYTHONUTF8": "1"}, State.OK),
    ],
)
def test_text_encodings(laptop: Computer, env: Dict[str, str], state: State) -> None:
    laptop.env.update(env)
    assert line(laptop.examine(), "text encoding").state is state


def test_no_temporary_folder(laptop: Computer) -> None:
    laptop.env["TMPDIR"] = "/absent"
    found = line(laptop.examine(), "temporary folder")
    assert found.state is State.FAIL
    assert "/absent takes no file" in found.finding.seen


def test_the_screen_is_looked_at_only_if_asked_for(laptop: Computer) -> None:
    assert "DISPLAY" not in states(laptop.examine())
    report = laptop.examine(display=True)
    assert line(report, "DISPLAY").state is State.FAIL
    laptop.env.update(DISPLAY=":1", HOME="/home/ana")
    laptop.write("/tmp/.X11-unix/X1")
    laptop.write("/home/ana/.Xauthority")
    laptop.install("xauth")
    laptop.answers["python3 -c import cv2"] = Outcome(0, "  GUI:                 GTK3\n")
    assert not laptop.examine(display=True).failed
    laptop.answers["python3 -c import cv2"] = Outcome(0, "  GUI:                 NONE\n")
    found = line(laptop.examine(display=True), "OpenCV windows")
    assert found.state is State.FAIL
    assert "opencv-python<5" in found.finding.fix


# Whatever happens, a table


def test_a_check_that_fails_itself_is_a_line(laptop: Computer) -> None:
    def check_first(facts: Facts) -> Iterator[Finding]:
        yield Finding("kept", True, "before")
        raise ZeroDivisionError("oh")

    def check_second(facts: Facts) -> Iterator[Finding]:
        yield Finding("after", True, "it")

    report = examine(
        Request(), laptop.host(), lambda: (), (("made up", (check_first, check_second)),)
    )
    assert [x.finding.name for x in report.lines] == ["kept", "first", "after"]
    assert report.lines[1].state is State.FAIL
    assert "ZeroDivisionError: oh" in report.lines[1].finding.seen
    assert report.failed


@pytest.mark.parametrize("broken", ["cards", "package", "program", "run", "free_bytes", "health"])
def test_a_computer_on_which_everything_raises(server: Computer, broken: str) -> None:
    def fail(*_: Any) -> Any:
        raise OSError("sick")

    report = examine(
        Request(Purpose.CARD), replace(server.host(), **{broken: fail}), lambda: (), CHECKS
    )
    assert report.failed
    assert "sick" in table(report)


def test_choices_that_cannot_be_made_are_a_line(laptop: Computer) -> None:
    def choose() -> Any:
        raise RuntimeError("no choice")

    report = examine(Request(), laptop.host(), choose)
    assert "no choice" in line(report, "choices").finding.seen
    assert line(report, "choices").state is State.FAIL


def test_where_it_runs(laptop: Computer, container: Computer) -> None:
    assert find_place(laptop.host())[0] is Place.HOST
    laptop.write("/proc/1/cgroup", "0::/docker/0123\n")
    assert find_place(laptop.host())[0] is Place.CONTAINER
    assert find_place(container.host())[0] is Place.VITIS


def test_the_table_fits_80_columns_and_has_no_colour_in_a_log(server: Computer) -> None:
    server.answers["docker version"] = Outcome(1, "", "permission denied")
    report = server.examine()
    text = table(report)
    assert "\x1b" not in text
    wide = [
        row for row in text.splitlines()
        if len(row) > 80 and "fix: " not in row and " " in row.strip() and row[:3] == "   "
    ]  # fmt: skip
    assert wide == []
    names = [x.finding.name for x in report.failed]
    assert summary(report).startswith("Not fit for card, run (there is a VCK5000")
    assert all(name in summary(report) for name in names)
    coloured = table(report, colour=True)
    assert "\x1b[31mfail" in coloured
    # Each finding begins one line, and a fix is one line that can be copied.
    for found in report.lines:
        rows = [row for row in text.splitlines() if row[10:30].strip() == found.finding.name]
        assert len(rows) == 1, found.finding.name
        if found.state in (State.WARN, State.FAIL):
            assert f"fix: {found.finding.fix}\n" in text


def test_every_line_that_is_not_well_says_what_to_type(
    server: Computer, laptop: Computer, tmp_path: Path
) -> None:
    bare = Computer(tmp_path / "bare")
    bare.packages = {}
    bare.root.joinpath("tmp").rmdir()
    for report in (server.examine(Purpose.CARD), bare.examine(Purpose.CARD, display=True)):
        for found in report.lines:
            if found.state in (State.WARN, State.FAIL):
                assert found.finding.fix, found.finding.name
                assert found.finding.seen, found.finding.name
                # What is to be typed can be typed.
                subprocess.run(["bash", "-n", "-c", found.finding.fix], check=True)


def test_under_sudo_the_caller_counts() -> None:
    if os.getuid() != 0:
        assert current_user({"USER": "ana"}) == ("ana", os.getuid(), os.getgid())
        return
    env = {"USER": "root", "SUDO_USER": "ana", "SUDO_UID": "1000", "SUDO_GID": "1001"}
    assert current_user(env) == ("ana", 1000, 1001)


# A simulated host


@pytest.mark.parametrize(
    ("options", "failed", "seen"),
    [
        ({}, set(), "production"),
        ({"card": "es1"}, {"card's make", "xclbin's shell"}, "es1"),
        ({"card": "absent"}, {"card"}, "no card"),
        ({"firmware": False}, {"XLNX_VART_FIRMWARE"}, "production"),
        ({"variant": "6pe_dwc"}, {"fingerprint"}, "production"),
    ],
)
def test_a_simulated_host(
    options: Dict[str, Any],
    failed: Set[str],
    seen: str,
    tmp_path: Path,
    vendor_model: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(python_checks, "PACKAGES", python_checks.PACKAGES[:3])
    with SimulatedHost(SimulateOptions(**options), tmp_path / "host") as simulated:
        env = simulated.environment()
        for name in ("XLNX_VART_FIRMWARE", "XCLBIN_PATH"):
            monkeypatch.delenv(name, raising=False)
        for name, value in env.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(sys, "path", [str(simulated.folder / "modules"), *sys.path])
        request = Request(Purpose.CARD, vendor_model, tmp_path / "build")
        report = examine(request, Host(), lambda: ())
    assert {line.finding.name for line in report.failed} == failed, table(report)
    assert seen in line(report, "card").finding.seen
    assert "3.0" in line(report, "Vitis AI").finding.seen


# The command


def test_the_command_gives_json_and_a_status(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Importing torch in the other process takes seconds.
    monkeypatch.setattr(python_checks, "PACKAGES", python_checks.PACKAGES[:3])
    runner = CliRunner()
    words = ["--for", "compile", "--json", "--build-dir", str(tmp_path / "build")]
    result = runner.invoke(command, words)
    record = json.loads(result.output[result.output.index("{") :])
    assert record["ok"] == (result.exit_code == 0)
    assert record["wanted_for"] == ["compile"]
    assert {"check", "state", "seen", "fix", "group", "needed_for"} == set(record["checks"][0])
    assert sum(record["counts"].values()) == len(record["checks"])
    result = runner.invoke(command, ["--model", str(tmp_path / "absent.xmodel")])
    assert result.exit_code == 1
    assert "Not fit for run" in result.output or "Not fit for card" in result.output
