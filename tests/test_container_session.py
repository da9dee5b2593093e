"""Sessions in the vendor's container: the docker command, and its script run by a real bash."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any, Dict, List, Optional

import pytest
from click.testing import CliRunner

from deepfake_fpga.board.cards import Card, CardSearch
from deepfake_fpga.board.releases import Silicon
from deepfake_fpga.deploy.cli import cli
from deepfake_fpga.deploy.commands.session import command
from deepfake_fpga.deploy.container import (
    PACKAGE,
    SessionPlan,
    SessionRequest,
    docker_command,
    download_command,
    plan_session,
)
from deepfake_fpga.deploy.container_start import run_session, shell_text
from deepfake_fpga.deploy.host import Host, Outcome
from deepfake_fpga.errors import DeviceError, MissingError, UsageError, WorkError

ROOT = Path(__file__).resolve().parent.parent
IMAGE_30 = "xilinx/vitis-ai-pytorch-cpu:ubuntu2004-3.0.0.106"
XCLBIN = "dpu_DPUCVDX8H_8PE_350M_xilinx_vck5000_gen4x8_qdma_base_2.xclbin"

FAKE_DOCKER = r'''
"""Stands for docker: keeps its words, answers questions, and runs the script of a session."""
import json, os, re, subprocess, sys

words = sys.argv[1:]
with open(os.environ["FAKE_DOCKER_LOG"], "a") as log:
    log.write(json.dumps(words) + "\n")
if words[0] == "version":
    print("24.0.7")
    sys.exit(0)
if words[:2] == ["image", "inspect"]:
    sys.exit(0 if words[-1] in os.environ["FAKE_IMAGES"].split() else 1)
assert words[0] == "run", words
if os.environ.get("FAKE_DOCKER_FAILS"):
    sys.stderr.write("docker: error gathering device information\n")
    sys.exit(125)
container, env, at = os.environ["FAKE_CONTAINER"], {"PATH": os.environ["PATH"]}, 1
while words[at].startswith("-"):
    option = words[at]
    if option in ("--mount", "-e", "-w", "--gpus"):
        at += 1
        if option == "-e":
            name, _, value = words[at].partition("=")
            env[name] = value
        elif option == "--mount":
            fields = dict(f.partition("=")[::2] for f in words[at].split(","))
            place = container + fields["target"]
            if not os.path.lexists(place):
                os.makedirs(os.path.dirname(place), exist_ok=True)
                os.symlink(fields["source"], place)
    at += 1
# The start script of the image takes the words apart at spaces, and may lose the status.
program = " ".join(words[at + 1 :]).split()
inside = r"(?<![\w/.])(?=/(?:opt|workspace|vitis_ai_home|data|tmp/\.X)\b)"
with open(container + program[-1]) as stream:
    script = re.sub(inside, lambda m: container, stream.read())
with open(container + "/script.sh", "w") as stream:
    stream.write(script)
env["HOME"] = container
status = subprocess.call([program[0], container + "/script.sh"], env=env)
sys.exit(0 if os.environ.get("FAKE_LOSES_STATUS") else status)
'''

CONDA = """
conda() {
    [ "$1" = activate ] || return 1
    [ "$2" = vitis-ai-pytorch ] || { echo "Could not find conda environment: $2" >&2; return 1; }
    export CONDA_DEFAULT_ENV=$2 PATH="%s:$PATH"
}
"""

SETUP = """
echo "VAI_HOME = $VAI_HOME"
case $1 in
    DPUCVDX8H_8pe_normal)
        export XCLBIN_PATH={bins}/8PE XLNX_VART_FIRMWARE={bins}/8PE/{xclbin} ;;
    DPUCVDX8H_6pe_dwc)
        export XCLBIN_PATH={bins}/6PE_aieDWC XLNX_VART_FIRMWARE={bins}/6PE_aieDWC/absent.xclbin ;;
    *) echo "Invalid argument $1!!!!" ;;
esac
{end}
echo "XLNX_VART_FIRMWARE = $XLNX_VART_FIRMWARE"
"""
NO_CARD = """
echo "Error: Can't find the supported xilinx Visual card"
export XCLBIN_PATH= XLNX_VART_FIRMWARE=
"""


def program(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


class Place:
    """A host with a fake docker on its PATH, an image and a workspace with a space in its name."""

    def __init__(self, folder: Path) -> None:
        self.root, self.container = folder / "host", folder / "container"
        self.work = folder / "my work"
        self.work.mkdir()
        self.container.mkdir()
        bin_ = folder / "bin"
        program(bin_ / "docker", f"#!{sys.executable}\n{FAKE_DOCKER}")
        self.log = folder / "docker.log"
        self.log.write_text("")
        self.env = {
            "PATH": f"{bin_}:{os.environ['PATH']}",
            "FAKE_DOCKER_LOG": str(self.log),
            "FAKE_IMAGES": IMAGE_30,
            "FAKE_CONTAINER": str(self.container),
        }
        for node in ("dev/xclmgmt256", "dev/dri/renderD128"):
            self.root.joinpath(node).parent.mkdir(parents=True, exist_ok=True)
            self.root.joinpath(node).write_text("")
        self.bins = self.container / "opt/xilinx/overlaybins/DPUCVDX8H"
        self.bins.joinpath("8PE").mkdir(parents=True)
        self.bins.joinpath("8PE", XCLBIN).write_text("xclbin2")
        (self.root / "opt/xilinx/overlaybins").mkdir(parents=True)
        env_bin = self.container / "opt/vitis_ai/conda/envs/vitis-ai-pytorch/bin"
        program(env_bin / "python", f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
        conda = self.container / "opt/vitis_ai/conda/etc/profile.d/conda.sh"
        conda.parent.mkdir(parents=True)
        conda.write_text(CONDA % env_bin)
        self.python = env_bin / "python"

    def setup(self, end: str = "", release: str = "board_setup") -> Path:
        """A Vitis-AI folder; ``end`` stands near the end of its setup.sh."""
        home = self.work.parent / "Vitis-AI"
        text = SETUP.format(bins=self.bins, xclbin=XCLBIN, end=end)
        program(home / release / "vck5000/setup.sh", text)
        return home

    def host(self, **changes: Any) -> Host:
        def run(argv: Any, seconds: float) -> Outcome:
            done = subprocess.run(list(argv), env=self.env, capture_output=True, check=False)
            return Outcome(done.returncode, done.stdout.decode(), done.stderr.decode())

        return replace(
            Host(
                env=self.env,
                root=self.root,
                run=run,
                cards=lambda: CardSearch(()),
                user=("ana", os.getuid(), os.getgid()),
            ),
            **changes,
        )

    def request(self, *words: str, **changes: Any) -> SessionRequest:
        fields: Dict[str, Any] = {"release": "3.0", "command": words, **changes}
        return SessionRequest(self.work / "build", self.work, **fields)

    def start(self, *words: str, **changes: Any) -> int:
        return run_session(plan_session(self.request(*words, **changes), self.host()), 7, self.env)

    def docker_words(self) -> List[str]:
        """The words of the last ``docker run``."""
        lines = [json.loads(line) for line in self.log.read_text().splitlines()]
        (words,) = [line for line in lines if line[0] == "run"]
        return list(words)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


# The docker command


def test_the_command_of_a_card_session_word_by_word(place: Place) -> None:
    work = str(place.work)
    plan = plan_session(place.request("true", terminal=True), place.host())
    user = os.getuid(), os.getgid()
    assert docker_command(plan) == [
        "docker", "run", "--rm", "-it", "--network=host",
        "--device=/dev/xclmgmt256", "--device=/dev/dri/renderD128",
        "--mount", "type=bind,source=/dev/shm,target=/dev/shm",
        "--mount", f"type=bind,source={work},target=/workspace",
        "--mount", f"type=bind,source={work}/build,target=/workspace/build",
        "--mount", f"type=bind,source={work}/build/.session,target=/opt/deepfake_fpga/session",
        "--mount",
        f"type=bind,source={ROOT},target=/opt/deepfake_fpga/deepfake_fpga,readonly",
        "--mount",
        "type=bind,source=/opt/xilinx/overlaybins,target=/opt/xilinx/overlaybins,readonly",
        "-e", "USER=ana", "-e", f"UID={user[0]}", "-e", f"GID={user[1]}",
        "-e", "VERSION=ubuntu2004-3.0.0.106",
        "-w", "/workspace", IMAGE_30, "bash", "/opt/deepfake_fpga/session/session.sh",
    ]  # fmt: skip


def test_two_cards_a_gpu_image_data_wheels_and_a_screen(place: Place) -> None:
    for node in ("dev/xclmgmt512", "dev/dri/renderD129"):
        (place.root / node).write_text("")
    (place.root / "tmp/.X11-unix").mkdir(parents=True)
    (place.root / "home/ana").mkdir(parents=True)
    (place.root / "home/ana/.Xauthority").write_text("cookie")
    (place.root / "opt/xilinx/dsa").mkdir()
    data = place.work.parent / 'faces, "all": here'
    data.mkdir()
    wheels = place.work.parent / "wheels"
    wheels.mkdir()
    (wheels / "click-8.1.7-py3-none-any.whl").write_text("")
    place.env.update(DISPLAY=":0", HOME="/home/ana", FAKE_IMAGES="me/vitis-ai-gpu:mine")
    request = place.request(
        image="me/vitis-ai-gpu:mine",
        data=data,
        wheels=wheels,
        vitis_ai=place.setup(),
        display=True,
        docker_arguments=("--pid=host",),
    )
    plan = plan_session(request, place.host())
    words = docker_command(plan)
    assert [w for w in words if w.startswith("--device=")] == [
        "--device=/dev/xclmgmt256",
        "--device=/dev/xclmgmt512",
        "--device=/dev/dri/renderD128",
        "--device=/dev/dri/renderD129",
    ]
    assert words[words.index("--gpus") + 1] == "all"
    assert "-i" in words
    mounts = [words[i + 1] for i, word in enumerate(words) if word == "--mount"]
    quoted = str(data).replace('"', '""')
    assert f'type=bind,"source={quoted}",target=/data,readonly' in mounts
    assert f"type=bind,source={wheels},target=/opt/deepfake_fpga/wheels,readonly" in mounts
    assert "type=bind,source=/opt/xilinx/dsa,target=/opt/xilinx/dsa,readonly" in mounts
    assert "type=bind,source=/tmp/.X11-unix,target=/tmp/.X11-unix" in mounts
    assert "type=bind,source=/home/ana/.Xauthority,target=/tmp/.Xauthority,readonly" in mounts
    assert any(mount.endswith("target=/vitis_ai_home") for mount in mounts)
    assert "DISPLAY=:0" in words
    assert "session_display=:0" in plan.script.splitlines()
    assert words[-4:] == [
        "--pid=host",
        "me/vitis-ai-gpu:mine",
        "bash",
        "/opt/deepfake_fpga/session/session.sh",
    ]


def test_without_a_card_there_are_no_devices(place: Place) -> None:
    words = docker_command(plan_session(place.request(card=False), place.host()))
    assert not [word for word in words if "/dev/dri" in word or "xilinx/overlay" in word]


@pytest.mark.parametrize(
    ("release", "variant", "image", "argument", "xclbins"),
    [
        ("1.4.1", None, "xilinx/vitis-ai-cpu:1.4.1.978", "", "8pe"),
        ("2.0", None, "xilinx/vitis-ai-cpu:2.0.0.1103", "DPUCVDX8H", "8pe"),
        ("2.0", "6pe_dwc", "xilinx/vitis-ai-cpu:2.0.0.1103", "DPUCVDX8H-DWC", "6pedwc"),
        ("2.5", None, "xilinx/vitis-ai-cpu:2.5", "DPUCVDX8H_8pe_normal", "8PE"),
        ("2.5", "4pe_miscdwc", "xilinx/vitis-ai-cpu:2.5", "DPUCVDX8H_4pe_miscdwc", "4PE"),
        ("3.0", "6pe_misc", IMAGE_30, "DPUCVDX8H_6pe_misc", "6PE_aieMISC"),
    ],
)
def test_each_release_has_its_image_and_its_argument(
    place: Place, release: str, variant: Optional[str], image: str, argument: str, xclbins: str
) -> None:
    place.env["FAKE_IMAGES"] = image
    plan = plan_session(place.request(release=release, variant=variant), place.host())
    assert plan.image == image
    lines = plan.script.splitlines()
    assert f"session_argument={shlex.quote(argument)}" in lines
    assert f"session_xclbins=/opt/xilinx/overlaybins/DPUCVDX8H/{xclbins}" in lines
    assert bool([w for w in plan.warnings if "3.6" in w]) == (release in ("1.4.1", "2.0"))


def test_an_image_under_its_other_name_is_taken(place: Place) -> None:
    place.env["FAKE_IMAGES"] = "xilinx/vitis-ai-cpu:2.5.0.1260"
    plan = plan_session(place.request(release="2.5"), place.host())
    assert plan.image == "xilinx/vitis-ai-cpu:2.5.0.1260"


@pytest.mark.parametrize(
    ("silicon", "shell", "release"),
    [
        (Silicon.PRODUCTION, "xilinx_vck5000_gen3x16_xdma_base_1", "2.5"),
        (Silicon.PRODUCTION, "xilinx_vck5000_gen4x8_qdma_base_2", "3.0"),
        (Silicon.ES1, "", "1.4.1"),
    ],
)
def test_the_card_decides_the_release(
    place: Place, silicon: Silicon, shell: str, release: str
) -> None:
    place.env["FAKE_IMAGES"] += " xilinx/vitis-ai-cpu:2.5 xilinx/vitis-ai-cpu:1.4.1.978"
    card = Card("0000:0b:00", silicon=silicon, shell=shell)
    plan = plan_session(
        place.request(release="auto"), place.host(cards=lambda: CardSearch((card,)))
    )
    assert plan.release.name == release
    assert any(f"Vitis AI {release}: the card 0000:0b:00 has" in text for text in plan.reasons)


def test_without_a_card_to_ask_the_last_release_is_taken_and_said(place: Place) -> None:
    plan = plan_session(place.request(release="auto", card=False), place.host())
    assert plan.release.name == "3.0"
    assert "Vitis AI 3.0: the last release for this card (there is no card)" in plan.reasons


@pytest.mark.parametrize("release", ["3.5", "9"])
def test_a_release_without_the_card_is_refused(place: Place, release: str) -> None:
    with pytest.raises(UsageError):
        plan_session(place.request(release=release), place.host())


def test_only_the_package_is_mounted_from_an_installation(tmp_path: Path) -> None:
    assert PACKAGE == ROOT, "in a checkout the link src/deepfake_fpga leads to the root"
    assert (PACKAGE / "deploy" / "data" / "session.sh").is_file()
    site = tmp_path / "site-packages"
    installed = site / "deepfake_fpga"
    installed.mkdir(parents=True)
    for path in ROOT.glob("*.py"):
        shutil.copy(str(path), str(installed))
    for area in ("board", "compile", "deploy", "inference", "quantize"):
        unwanted = shutil.ignore_patterns("__pycache__")
        shutil.copytree(str(ROOT / area), str(installed / area), ignore=unwanted)
    code = "from deepfake_fpga.deploy.container import PACKAGE; print(PACKAGE)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(site)},
        cwd=str(tmp_path),
        stdout=subprocess.PIPE,
        check=True,
    )
    assert done.stdout.decode().strip() == str(installed)


# What is missing


def without_docker(place: Place, tmp_path: Path) -> Host:
    return place.host(env={**place.env, "PATH": str(tmp_path / "nothing")})


def test_no_docker(place: Place, tmp_path: Path) -> None:
    with pytest.raises(MissingError, match=r"no docker on PATH.*apt-get install docker"):
        plan_session(place.request(), without_docker(place, tmp_path))


@pytest.mark.parametrize(
    ("said", "fix"),
    [
        ("permission denied while trying to connect to the Docker daemon socket", "usermod -aG"),
        ("Cannot connect to the Docker daemon at unix:///var/run/docker.sock.", "systemctl"),
    ],
)
def test_docker_that_may_not_be_used(place: Place, said: str, fix: str) -> None:
    host = place.host(run=lambda argv, seconds: Outcome(1, "", said))
    with pytest.raises(DeviceError) as caught:
        plan_session(place.request(), host)
    assert fix in caught.value.next_step


def test_no_image(place: Place) -> None:
    place.env["FAKE_IMAGES"] = ""
    with pytest.raises(MissingError) as caught:
        plan_session(place.request(), place.host())
    assert f"docker pull {IMAGE_30}" in caught.value.next_step


@pytest.mark.parametrize(
    ("gone", "seen", "fix"),
    [
        ("dev/xclmgmt256", "/dev/xclmgmt", "modprobe xclmgmt"),
        ("dev/dri/renderD128", "/dev/dri/renderD", "modprobe xocl"),
        ("opt/xilinx/overlaybins", "overlaybins", "install.sh in board_setup/vck5000"),
    ],
)
def test_no_card(place: Place, gone: str, seen: str, fix: str) -> None:
    path = place.root / gone
    path.rmdir() if path.is_dir() else path.unlink()
    with pytest.raises(DeviceError) as caught:
        plan_session(place.request(), place.host())
    assert seen in caught.value.evidence
    assert fix in caught.value.next_step
    assert "--no-card" in caught.value.next_step
    plan = plan_session(place.request(card=False), place.host())
    assert not plan.devices


def test_a_dry_run_shows_what_is_missing_and_goes_on(place: Place, tmp_path: Path) -> None:
    (place.root / "dev/xclmgmt256").unlink()
    plan = plan_session(place.request(), without_docker(place, tmp_path), dry=True)
    assert [w for w in plan.warnings if "docker" in w]
    assert [w for w in plan.warnings if "xclmgmt" in w]
    assert plan.image == IMAGE_30


def test_folders_that_are_not_there(place: Place) -> None:
    for name in ("data", "wheels", "vitis_ai"):
        with pytest.raises(MissingError, match="does not exist"):
            plan_session(place.request(**{name: place.work / "absent"}), place.host())
    (place.work / "empty").mkdir()
    with pytest.raises(MissingError, match=r"pip download -d wheels .* --python-version 3.7"):
        plan_session(place.request(wheels=place.work / "empty"), place.host())


def test_a_screen_that_is_not_there(place: Place) -> None:
    with pytest.raises(UsageError, match="DISPLAY is not set"):
        plan_session(place.request(display=True), place.host())


# What happens inside


def say(name: str) -> str:
    return f'print({name!r}, repr(__import__("os").environ.get({name!r})))'


def test_a_command_runs_with_everything_set(
    place: Place, capfd: pytest.CaptureFixture[str]
) -> None:
    code = ";".join(say(n) for n in ("XLNX_VART_FIRMWARE", "CONDA_DEFAULT_ENV", "USER", "VERSION"))
    code += ";import os;print(os.getcwd())"
    status = place.start("python", "-c", code, vitis_ai=place.setup())
    out, err = capfd.readouterr()
    assert status == 0, err
    assert out.splitlines() == [
        f"XLNX_VART_FIRMWARE '{place.bins}/8PE/{XCLBIN}'",
        "CONDA_DEFAULT_ENV 'vitis-ai-pytorch'",
        "USER 'ana'",
        "VERSION 'ubuntu2004-3.0.0.106'",
        str(place.work),
    ]
    assert "sourcing" in err
    assert "DPUCVDX8H_8pe_normal" in err


def test_words_with_spaces_quotes_and_dollars_arrive_whole(
    place: Place, capfd: pytest.CaptureFixture[str]
) -> None:
    words = ["my faces/a b.png", "it's", '"quoted"', "$HOME", "*", "a;b", "", "line\nline", "é"]
    code = "import sys, json; print(json.dumps(sys.argv[1:]))"
    assert place.start("python", "-c", code, *words, card=False) == 0
    assert json.loads(capfd.readouterr().out) == words


@pytest.mark.parametrize("loses", ["", "yes"])
@pytest.mark.parametrize("status", [0, 3, 130])
def test_the_status_comes_out(place: Place, status: int, loses: str) -> None:
    place.env["FAKE_LOSES_STATUS"] = loses
    assert place.start("sh", "-c", f"exit {status}", card=False) == status
    assert not list((place.work / "build").glob(".session*")), "the session's folder is gone"


def test_our_own_command_is_there_without_installing(
    place: Place, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("yaml")
    # A file of the user's with a module's name must not get in the way.
    (place.work / "click.py").write_text("raise SystemExit('wrong click')\n")
    assert place.start("deepfake-fpga", "--version", card=False) == 0
    assert "deepfake-fpga, version" in capfd.readouterr().out


def test_an_image_with_an_old_python_says_so(
    place: Place, capfd: pytest.CaptureFixture[str]
) -> None:
    old = f'#!/bin/sh\ncase "$2" in *version_info*) exit 1;; esac\nexec "{sys.executable}" "$@"\n'
    program(place.python, old)
    assert place.start("echo", "vendor's own", card=False) == 0
    out, err = capfd.readouterr()
    assert out == "vendor's own\n"
    assert "older than 3.7" in err


def test_setup_that_finds_no_card_is_an_error_though_its_status_is_0(
    place: Place, capfd: pytest.CaptureFixture[str]
) -> None:
    status = place.start("echo", "started", vitis_ai=place.setup(NO_CARD))
    out, err = capfd.readouterr()
    assert status == 1
    assert "started" not in out
    assert "Can't find the supported" in err, "what setup.sh said is shown"
    assert "error: setup.sh found no card" in err
    assert "deepfake-fpga doctor --for card" in err


def test_setup_of_another_release_does_not_know_the_argument(
    place: Place, capfd: pytest.CaptureFixture[str]
) -> None:
    # A value from before would survive the vendor's script.
    status = place.start("echo", "started", variant="4pe_miscdwc", vitis_ai=place.setup())
    out, err = capfd.readouterr()
    assert (status, out) == (1, "")
    assert "setup.sh does not know 'DPUCVDX8H_4pe_miscdwc'" in err


def test_setup_that_names_a_file_that_is_not_there(
    place: Place, capfd: pytest.CaptureFixture[str]
) -> None:
    status = place.start("echo", "started", variant="6pe_dwc", vitis_ai=place.setup())
    out, err = capfd.readouterr()
    assert (status, out) == (1, "")
    assert "absent.xclbin, which is not there" in err
    assert "install.sh in board_setup/vck5000" in err


def test_setup_that_ends_the_shell_is_noticed(
    place: Place, capfd: pytest.CaptureFixture[str]
) -> None:
    status = place.start("echo", "started", vitis_ai=place.setup("exit 0"))
    out, err = capfd.readouterr()
    assert (status, out) == (1, "")
    assert "ended the session before the command was started" in err


def test_without_the_vitis_ai_folder_the_only_xclbin_is_taken(
    place: Place, capfd: pytest.CaptureFixture[str]
) -> None:
    for name in ("xrt", "xrm"):
        script = place.container / "opt/xilinx" / name / "setup.sh"
        program(script, f"export XILINX_{name.upper()}=/opt/xilinx/{name}\n")
    code = ";".join(say(n) for n in ("XLNX_VART_FIRMWARE", "XCLBIN_PATH", "XILINX_XRT"))
    assert place.start("python", "-c", code) == 0
    out = capfd.readouterr().out.splitlines()
    assert out == [
        f"XLNX_VART_FIRMWARE '{place.bins}/8PE/{XCLBIN}'",
        f"XCLBIN_PATH '{place.bins}/8PE'",
        "XILINX_XRT '/opt/xilinx/xrt'",
    ]


def test_without_the_vitis_ai_folder_two_xclbins_are_too_many(
    place: Place, capfd: pytest.CaptureFixture[str]
) -> None:
    (place.bins / "8PE" / "older.xclbin").write_text("")
    assert place.start("echo", "started") == 1
    out, err = capfd.readouterr()
    assert out == ""
    assert "several xclbins" in err
    assert "--vitis-ai" in err


def test_an_image_that_is_not_the_vendors(place: Place, capfd: pytest.CaptureFixture[str]) -> None:
    (place.container / "opt/vitis_ai/conda/etc/profile.d/conda.sh").unlink()
    assert place.start("echo", "started", card=False) == 1
    out, err = capfd.readouterr()
    assert out == ""
    assert "this is no Vitis AI image" in err


def test_wheels_are_installed_without_a_network(
    place: Place, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("pip")
    wheels = place.work.parent / "the wheels"
    wheels.mkdir()
    info = "lonely_module-1.0.dist-info"
    with zipfile.ZipFile(str(wheels / "lonely_module-1.0-py3-none-any.whl"), "w") as wheel:
        wheel.writestr("lonely_module.py", "ANSWER = 42\n")
        wheel.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: lonely-module\nVersion: 1.0\n"
        )
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")
    # The image has click: the broken wheel of another must not even be opened.
    (wheels / "Click-99.0-py3-none-any.whl").write_text("not a wheel")
    code = "import lonely_module, click; print(lonely_module.ANSWER, click.__file__)"
    status = place.start("python", "-c", code, card=False, wheels=wheels)
    out, err = capfd.readouterr()
    assert status == 0, err
    assert out.startswith("42 ")
    assert str(wheels) not in out


def test_wheels_for_another_python_are_an_error(
    place: Place, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("pip")
    wheels = place.work.parent / "wheels"
    wheels.mkdir()
    (wheels / "lonely-1.0-cp26-cp26m-win32.whl").write_text("")
    assert place.start("echo", "started", card=False, wheels=wheels) == 1
    out, err = capfd.readouterr()
    assert out == ""
    assert "cannot be installed" in err
    assert "pip download -d wheels" in err


def test_docker_that_cannot_start_the_container(place: Place) -> None:
    place.env["FAKE_DOCKER_FAILS"] = "yes"
    with pytest.raises(DeviceError, match="could not start the container"):
        place.start("true")
    assert not list((place.work / "build").glob(".session*"))


def test_a_container_that_ends_early_is_no_success(place: Place) -> None:
    plan = plan_session(place.request("true", card=False), place.host())
    place.env["FAKE_LOSES_STATUS"] = "yes"
    with pytest.raises(WorkError, match="ended before"):
        run_session(replace(plan, script="trap - EXIT\nexit 0\n"), 7, place.env)


def test_a_folder_that_cannot_be_made(place: Place) -> None:
    (place.work / "build").write_text("a file")
    plan = plan_session(place.request("true", card=False), place.host())
    with pytest.raises(WorkError, match="folder cannot be made"):
        run_session(plan, 7, place.env)


def test_files_made_inside_belong_to_who_typed(place: Place) -> None:
    assert place.start("sh", "-c", "echo done >build/made", card=False) == 0
    assert (place.work / "build/made").read_text() == "done\n"
    words = place.docker_words()
    assert f"UID={os.getuid()}" in words
    assert f"GID={os.getgid()}" in words


# The command line


def test_the_printed_script_does_what_the_command_does(
    place: Place, capfd: pytest.CaptureFixture[str]
) -> None:
    request = place.request("python", "-c", "print('a  b'); raise SystemExit(5)", card=False)
    text = shell_text(plan_session(request, place.host()))
    script = program(place.work.parent / "start.sh", text)
    done = subprocess.run(["bash", str(script)], env=place.env, stdout=subprocess.PIPE, check=False)
    assert done.returncode == 5
    assert done.stdout == b"a  b\n"


def test_without_a_command_there_is_a_shell(place: Place) -> None:
    text = shell_text(plan_session(place.request(vitis_ai=place.setup()), place.host()))
    script = program(place.work.parent / "start.sh", text)
    typed = b'echo "$CONDA_DEFAULT_ENV $XLNX_VART_FIRMWARE"; command -v deepfake-fpga; exit 4\n'
    done = subprocess.run(
        ["bash", str(script)], input=typed, env=place.env, stdout=subprocess.PIPE, check=False
    )
    assert done.returncode == 4
    lines = done.stdout.decode().splitlines()
    assert lines[0] == f"vitis-ai-pytorch {place.bins}/8PE/{XCLBIN}"
    assert lines[1].endswith("/bin/deepfake-fpga")


@pytest.fixture
def docker_here(place: Place, monkeypatch: pytest.MonkeyPatch) -> Place:
    for name, value in place.env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(str(place.work))
    monkeypatch.delenv("VAI_HOME", raising=False)
    return place


def test_dry_run_starts_nothing(docker_here: Place) -> None:
    words = ["session", "--no-card", "--dry-run", "--json", "--release", "3.0", "--", "ls", "a b"]
    result = CliRunner().invoke(cli, words)
    assert result.exit_code == 0, result.output
    text = result.stdout if hasattr(result, "stdout") else result.output
    record = json.loads(text[text.index("{") :])
    assert record["image"] == IMAGE_30
    assert record["command"][0] == "docker"
    assert "session_command='ls '\"'\"'a b'\"'\"''" in record["script"]
    assert "run" not in [json.loads(line)[0] for line in docker_here.log.read_text().splitlines()]
    assert not (docker_here.work / "build").exists()


def test_the_status_inside_is_the_commands(docker_here: Place) -> None:
    words = ["session", "--no-card", "--release", "3.0", "--", "sh", "-c", "exit 9"]
    assert CliRunner().invoke(cli, words).exit_code == 9


def test_json_without_dry_run_is_wrong_use(docker_here: Place) -> None:
    result = CliRunner().invoke(command, ["--json"])
    assert isinstance(result.exception, UsageError)


def test_the_help_names_the_download(place: Place) -> None:
    plan = plan_session(place.request(card=False), place.host())
    assert isinstance(plan, SessionPlan)
    text = (command.epilog or "").replace("\\\n", "")
    assert download_command(plan.release) in " ".join(text.split())
