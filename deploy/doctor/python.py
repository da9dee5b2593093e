"""Checks of the interpreter, its packages and the vendor's modules and programs."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import Dict, FrozenSet, Iterator, List, Tuple

from ...board.vendor import PACKAGES as VENDOR_PACKAGES
from ...board.vendor import PROGRAMS as VENDOR_PROGRAMS
from ...board.vendor import State as VendorState
from ..container import download_command
from .facts import Facts, Place
from .findings import EVERYTHING, Finding, Purpose, needs
from .firmware import setup_folder

OLDEST = (3, 7)
IMPORT_SECONDS = 120.0

_IMPORT = """
import importlib, json, sys
sys.path[:] = json.loads(sys.argv[1])
for name in sys.argv[2:]:
    print(json.dumps([name, "?", ""]), flush=True)
    try:
        module = importlib.import_module(name)
        said = ["ok", str(getattr(module, "__version__", ""))]
    except ModuleNotFoundError as error:
        missing = str(error.name or "")
        said = ["absent", ""] if missing and (name + ".").startswith(missing + ".") else [
            "broken", str(error)]
    except BaseException as error:
        said = ["broken", type(error).__name__ + ": " + str(error)]
    print(json.dumps([name] + said), flush=True)
"""
"""Says a module's name before it is imported, so that one that kills the process is known."""


@dataclass(frozen=True)
class Package:
    """A package of ours.

    Attributes:
        module: what is imported.
        install: its name for pip.
        use: what it is for.
        needed: purposes that cannot be had without it.
    """

    module: str
    install: str
    use: str
    needed: FrozenSet[Purpose] = frozenset()


PACKAGES: Tuple[Package, ...] = (
    Package("numpy", "numpy", "everything", EVERYTHING),
    Package("click", "click", "the command line", EVERYTHING),
    Package("yaml", "PyYAML", "configuration files", EVERYTHING),
    Package("tqdm", "tqdm", "progress bars; plain lines do without"),
    Package(
        "cv2",
        "'opencv-python-headless>=4.5,<5'",
        "pictures",
        needs(Purpose.RUN, Purpose.QUANT, Purpose.CARD),
    ),
    Package("onnx", "onnx", "the device sim at speed"),
    Package("onnxruntime", "onnxruntime", "the device sim at speed"),
    Package("av", "av", "sound in videos, GIF masks; OpenCV does the rest"),
    Package("torch", "torch", "quant", needs(Purpose.QUANT)),
    Package("safetensors", "safetensors", ".safetensors checkpoints in quant"),
)


def check_python(facts: Facts) -> Iterator[Finding]:
    """Whether the interpreter is new enough."""
    version = facts.host.python
    shown = ".".join(map(str, version))
    yield Finding(
        "Python",
        version[:2] >= OLDEST,
        f"{shown} ({facts.host.executable})",
        "conda create -n deepfake python=3.11  # any of 3.7 to 3.13 will do",
        EVERYTHING,
    )


def check_packages(facts: Facts) -> Iterator[Finding]:
    """Whether each package can be imported, tried in a process of its own."""
    found = _imported(facts, [package.module for package in PACKAGES])
    for package in PACKAGES:
        state, said = found.get(package.module, ("broken", "its import was not tried"))
        seen = {"ok": said or "no version given", "absent": "not installed"}.get(state, said)
        yield Finding(
            package.module.rpartition(".")[2],
            state == "ok",
            f"{seen} (for {package.use})",
            _install(facts, package, state),
            package.needed,
        )


def _install(facts: Facts, package: Package, state: str) -> str:
    if facts.place is Place.VITIS and facts.release is not None:
        download = download_command(facts.release, package.install)
        return f"{download} && deepfake-fpga session --wheels wheels  # both on the host"
    again = "--force-reinstall " if state == "broken" else ""
    if package.module == "av" and facts.host.python[:2] == OLDEST:
        return "conda install -c conda-forge av"
    return f"{facts.host.executable} -m pip install {again}{package.install}"


def _imported(facts: Facts, names: List[str]) -> Dict[str, Tuple[str, str]]:
    """Module name to (``ok``, ``absent`` or ``broken``, what was said)."""
    found: Dict[str, Tuple[str, str]] = {}
    left = list(names)
    while left:
        words = [facts.host.executable, "-c", _IMPORT, json.dumps(sys.path), *left]
        outcome = facts.host.run(words, IMPORT_SECONDS)
        for line in outcome.output.splitlines():
            try:
                name, state, said = json.loads(line)
            except (ValueError, TypeError):  # a module that prints when it is imported
                continue
            found[name] = (state, said)
        at = next((name for name in left if found.get(name, ("",))[0] == "?"), None)
        if at is None:
            break
        ended = outcome.error.strip().splitlines()[-1:] or [f"status {outcome.status}"]
        found[at] = ("broken", f"importing it ends the process: {ended[0]}")
        left = left[left.index(at) + 1 :]
    return found


def check_vendor(facts: Facts) -> Iterator[Finding]:
    """The vendor's modules and programs, and what else has their names."""
    needed = {
        "xir": needs(Purpose.CARD),
        "vart": needs(Purpose.CARD),
        "xbutil": needs(Purpose.CARD),
    }
    for name in VENDOR_PACKAGES:
        tool = facts.host.package(name)
        if tool.state is VendorState.UNRELATED:
            fix = f"{facts.host.executable} -m pip uninstall {name}"
            # Outside, the card is used from a container, which has its own.
            blocks = needed.get(name, frozenset()) if facts.inside else frozenset()
            yield Finding(name, False, tool.evidence, fix, blocks)
        elif tool.usable:
            yield Finding(name, True, f"{tool.state.value}: {tool.evidence}")
        elif name == "pytorch_nndct" and facts.place is Place.VITIS:
            yield Finding(name, False, tool.evidence, "conda activate vitis-ai-pytorch")
        elif name == "pytorch_nndct" or facts.runtime is not None or not facts.inside:
            # Where the runtime is looked for, check_runtime says more.
            yield Finding(name, None, f"{tool.evidence}; it comes with the Vitis AI container")
        else:
            yield Finding(name, False, tool.evidence, "conda activate vitis-ai-pytorch")
    for name in VENDOR_PROGRAMS:
        tool = facts.host.program(name)
        if tool.usable:
            yield Finding(name, True, f"{tool.state.value}: {tool.evidence}")
        elif name == "xbutil" and facts.card_matters:
            fix = "source /opt/xilinx/xrt/setup.sh"
            if not facts.host.exists("/opt/xilinx/xrt") and facts.place is Place.HOST:
                fix = f"cd Vitis-AI/{setup_folder(facts)} && source ./install.sh"
            yield Finding(name, False, tool.evidence, fix, needed[name])
        elif name == "vai_c_xir" and facts.place is Place.VITIS:
            yield Finding(name, False, tool.evidence, "conda activate vitis-ai-pytorch")
        else:
            yield Finding(name, None, f"{tool.evidence}; our own compiler and device do without")


def check_runtime(facts: Facts) -> Iterator[Finding]:
    """Whether some interpreter can import ``xir`` and ``vart``."""
    if facts.runtime is not None:
        check = facts.runtime.check
        yield Finding("card runtime", check.ok, check.evidence, check.fix, needs(Purpose.CARD))
    elif facts.card_matters:
        yield Finding(
            "card runtime",
            None if facts.place is Place.HOST else False,
            "xir and vart are in the Vitis AI container",
            "deepfake-fpga session -- deepfake-fpga doctor --for card",
            needs(Purpose.CARD),
        )


def check_choices(facts: Facts) -> Iterator[Finding]:
    """What ``auto`` takes here, and why."""
    for choice in facts.choices:
        yield Finding(f"auto {choice.stage}", True, f"takes {choice.taken}: {choice.reason}")
