"""What must be right before the first call into the vendor's libraries, which abort on the rest.

Each finding is a ``Check``: what was looked at, whether it is as it must be, what was seen, and
the command that mends it. Nothing here imports the vendor's modules into this process.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, List, Mapping, Optional, Sequence, Tuple

from ...board.vendor import State, find_package
from ...compile.targets import TARGETS, Target
from ...compile.weights import is_simulated
from ...compile.xir.graph import Graph, Subgraph
from ...errors import DeviceError

PYTHON_VARIABLE = "DEEPFAKE_FPGA_CARD_PYTHON"
"""Environment variable that names the interpreter in which ``xir`` and ``vart`` are."""

FIRMWARE_VARIABLE = "XLNX_VART_FIRMWARE"

SYSTEM_PYTHON = Path("/usr/bin/python3")
"""Where the vendor's containers have the runtime, beside a conda environment with the quantizer."""

PROBE_SECONDS = 60.0

_SETUP = "source board_setup/vck5000/setup.sh DPUCVDX8H_8pe_normal (2.5: setup/vck5000/setup.sh)"
_PROBE = (
    "import json, sys, numpy, vart, xir; "
    "assert hasattr(xir.Graph, 'deserialize') and hasattr(vart.Runner, 'create_runner'); "
    "print(json.dumps([sys.version.split()[0], str(getattr(xir, '__file__', '')), "
    "str(getattr(vart, '__file__', '')), str(getattr(vart, '__drop_in__', ''))]))"
)


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        name: what, in a word or two.
        ok: whether the card can be used as far as this goes.
        evidence: what was seen.
        fix: what to type where it is not ok, else empty.
    """

    name: str
    ok: bool
    evidence: str
    fix: str = ""


@dataclass(frozen=True)
class Runtime:
    """The interpreter that has the vendor's runtime.

    Attributes:
        python: the interpreter.
        check: what was found.
        drop_in: whether its ``vart`` is our drop-in module, so that no card is needed.
    """

    python: str
    check: Check
    drop_in: bool = False


def find_runtime(
    python: str = "", environment: Optional[Mapping[str, str]] = None, thorough: bool = True
) -> Runtime:
    """Looks for an interpreter that can import ``xir`` and ``vart``.

    The one asked for, else the one in ``DEEPFAKE_FPGA_CARD_PYTHON``, else this one, else the
    system's.

    Args:
        python: the interpreter asked for, empty for none.
        environment: of the interpreter; this process's own if not given.
        thorough: whether an interpreter is started where this one clearly has no runtime and no
            other was named.
    """
    environment = os.environ if environment is None else environment
    named = python or environment.get(PYTHON_VARIABLE, "")
    if named:
        return _probed(named, environment, f"named {named}")
    own = {name: find_package(name) for name in ("xir", "vart")}
    bad = [tool for tool in own.values() if tool.state is State.UNRELATED]
    seen = "; ".join(f"{name}: {tool.evidence}" for name, tool in own.items())
    elsewhere = environment.get("PYTHONPATH", "") != os.environ.get("PYTHONPATH", "")
    if elsewhere or all(tool.usable for tool in own.values()):
        runtime = _probed(sys.executable, environment, "this Python")
        if runtime.check.ok:
            return runtime
        seen = runtime.check.evidence
    if thorough and SYSTEM_PYTHON.exists() and str(SYSTEM_PYTHON) != sys.executable:
        runtime = _probed(str(SYSTEM_PYTHON), environment, "the system's Python, this one has none")
        if runtime.check.ok:
            return runtime
    fix = f"run inside the Vitis AI container, or export {PYTHON_VARIABLE}=/usr/bin/python3 there"
    if bad:
        fix = f"{sys.executable} -m pip uninstall {bad[0].name}, then {fix}"
    return Runtime(sys.executable, Check("xir and vart", False, seen, fix))


def check_firmware(environment: Optional[Mapping[str, str]] = None) -> Check:
    """Whether ``XLNX_VART_FIRMWARE`` names an xclbin, or a folder with some."""
    environment = os.environ if environment is None else environment
    value = environment.get(FIRMWARE_VARIABLE, "")
    if not value:
        return Check("firmware", False, f"{FIRMWARE_VARIABLE} is not set", _SETUP)
    found = firmware_files(value)
    if not found:
        what = "a folder without an xclbin" if Path(value).is_dir() else "not there"
        return Check("firmware", False, f"{FIRMWARE_VARIABLE}={value} is {what}", _SETUP)
    return Check("firmware", True, f"{FIRMWARE_VARIABLE}={value}")


def firmware_files(value: str) -> List[Path]:
    """The xclbin files that the runtime would consider: the file, or all in the folder."""
    path = Path(value)
    if path.is_dir():
        return sorted(path.glob("*.xclbin"))
    return [path] if path.is_file() else []


def check_nodes(drop_in: bool = False) -> Check:
    """Whether the kernel shows a card to this process."""
    if drop_in:
        return Check("device nodes", True, "not needed by the drop-in vart")
    nodes = sorted(str(path) for path in Path("/dev/dri").glob("renderD*"))
    if nodes:
        return Check("device nodes", True, ", ".join(nodes))
    return Check(
        "device nodes",
        False,
        "/dev/dri has no render node",
        "start the container with --device /dev/dri/renderD128 --device /dev/xclmgmt*"
        " (deepfake-fpga session prints the whole command)",
    )


def check_host(
    python: str = "", environment: Optional[Mapping[str, str]] = None
) -> Tuple[List[Check], Runtime]:
    """Whether this host can use a card.

    Returns:
        The checks, and the interpreter to use where all are ok. The system's is not started
        where something else is missing already.
    """
    firmware = check_firmware(environment)
    runtime = find_runtime(python, environment, thorough=firmware.ok)
    return [runtime.check, firmware, check_nodes(runtime.drop_in)], runtime


def check_model(
    graph: Graph,
    path: Path,
    drop_in: bool = False,
    environment: Optional[Mapping[str, str]] = None,
) -> List[Check]:
    """Whether a model can run on the card of this host.

    Args:
        graph: the model.
        path: its file, for messages.
        drop_in: whether the runtime is our drop-in, which also runs models of our own compiler.
        environment: with the firmware's variable; this process's own if not given.
    """
    environment = os.environ if environment is None else environment
    parts = graph.subgraphs("DPU")
    if not parts:
        return [
            Check(
                "model",
                False,
                f"{path} has no DPU subgraph, so it is not compiled",
                f"deepfake-fpga compile --backend vitis -x {path}",
            )
        ]
    checks = [Check("model", True, f"{path}: {len(parts)} DPU subgraph(s)")]
    checks.append(_check_mode(parts, path))
    checks.append(_check_instructions(graph, path, drop_in))
    checks.append(_check_fingerprint(parts, path, environment))
    return checks


def refuse(checks: Sequence[Check]) -> None:
    """Raises what is not ok.

    Raises:
        DeviceError: with the evidence of all that is wrong and what mends the first.
    """
    wrong = [check for check in checks if not check.ok]
    if wrong:
        raise DeviceError(
            f"The card cannot be used ({', '.join(check.name for check in wrong)})",
            sentence(checks),
            f"{wrong[0].fix}; --device sim computes the same integers on this machine",
        )


def sentence(checks: Sequence[Check]) -> str:
    """What is wrong, or that nothing is, in one line."""
    wrong = [f"{check.name}: {check.evidence}" for check in checks if not check.ok]
    return "; ".join(wrong) or "; ".join(check.evidence for check in checks)


def build_of(xclbin: Path) -> Optional[Target]:
    """The DPU build of an xclbin by its name, else its folder's; ``None`` if neither says."""
    for text in (xclbin.name, xclbin.parent.name):
        for pattern, variant in _BUILDS:
            if re.search(pattern, text, re.IGNORECASE):
                return next(target for target in TARGETS if target.variant == variant)
    return None


_BUILDS = (
    (r"6pe_?(aie)?dwc", "6pe_dwc"),
    (r"6pe_?(aie)?misc", "6pe_misc"),
    (r"(?<!\d)4pe", "4pe_miscdwc"),
    (r"(?<!\d)8pe", "8pe_normal"),
)


def model_build(subgraph: Subgraph) -> Optional[Target]:
    """The DPU build a subgraph is compiled for, by its fingerprint, else by its name."""
    fingerprint = subgraph.get("dpu_fingerprint")
    for target in TARGETS:
        if fingerprint is not None and target.fingerprint == int(fingerprint):
            return target
    if fingerprint is not None:
        return None
    name = subgraph.get("dpu_name")
    return next((target for target in TARGETS if target.dpu_name == name), None)


def _probed(python: str, environment: Mapping[str, str], how: str) -> Runtime:
    """Starts an interpreter that imports the vendor's modules, and may be aborted by them."""
    where = f"export {PYTHON_VARIABLE}=/usr/bin/python3, or run inside the Vitis AI container"

    def failed(evidence: str) -> Runtime:
        return Runtime(python, Check("xir and vart", False, f"{python}: {evidence}", where))

    try:
        done = subprocess.run(
            [python, "-c", _PROBE],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env=dict(environment),
            timeout=PROBE_SECONDS,
        )
    except OSError as error:
        return failed(f"cannot be started ({error.strerror})")
    except subprocess.TimeoutExpired:
        return failed(f"did not import them within {PROBE_SECONDS:g} s")
    lines = [line for line in done.stdout.decode("utf-8", "replace").splitlines() if line.strip()]
    try:
        version, xir, vart, drop_in = json.loads(lines[-1])
    except (IndexError, ValueError):
        said = done.stderr.decode("utf-8", "replace").strip().splitlines()
        return failed(said[-1] if said else f"ended with status {done.returncode}")
    kind = "our drop-in" if drop_in else "genuine"
    evidence = f"{how}: {python} ({version}) has {kind} vart {vart} and xir {xir}"
    return Runtime(python, Check("xir and vart", True, evidence), bool(drop_in))


def _check_mode(parts: Sequence[Subgraph], path: Path) -> Check:
    for part in parts:
        runner = part.get("runner")
        if not isinstance(runner, dict) or "run" not in runner:
            return Check(
                "runner",
                False,
                f"DPU subgraph {part.name!r} of {path} names no library for the mode 'run'",
                f"compile the quantized model again: {_compile_command(None)}",
            )
    libraries: Dict[str, None] = dict.fromkeys(str(part.get("runner")["run"]) for part in parts)
    return Check("runner", True, f"mode 'run' is {', '.join(libraries)}")


def _check_instructions(graph: Graph, path: Path, drop_in: bool) -> Check:
    if not is_simulated(graph):
        return Check("instructions", True, f"{path} is compiled by the vendor's compiler")
    if drop_in:
        return Check("instructions", True, "none, and the drop-in vart needs none")
    return Check(
        "instructions",
        False,
        f"{path} was made by our own compiler: it holds no instructions for a card",
        _compile_command(model_build(graph.subgraphs("DPU")[0])),
    )


def _check_fingerprint(
    parts: Sequence[Subgraph], path: Path, environment: Mapping[str, str]
) -> Check:
    name = "fingerprint"
    xclbins = firmware_files(environment.get(FIRMWARE_VARIABLE, ""))
    builds = [build for build in map(build_of, xclbins) if build is not None]
    shown = ", ".join(str(xclbin) for xclbin in xclbins) or "no xclbin"
    wanted = builds[0] if builds else None
    for part in parts:
        target = model_build(part)
        said = _hexadecimal(part)
        if target is None:
            return Check(
                name,
                False,
                f"{path} is compiled for {part.get('dpu_name', 'an unnamed DPU')} ({said}), "
                f"which is no build for the VCK5000; the firmware is {shown}",
                _compile_command(wanted),
            )
        if target.released == ("1.4.1",):
            if any("es1" in xclbin.name.lower() for xclbin in xclbins):
                continue
            return Check(
                name,
                False,
                f"{path} is compiled for the ES1 card of release 1.4.1 ({said}, feature code "
                f"0xfee); the firmware is {shown}, and releases from 2.0 on know production cards",
                _compile_command(wanted),
            )
        if builds and target not in builds:
            if environment.get("XLNX_ENABLE_FINGERPRINT_CHECK", "") == "0":
                return Check(
                    name,
                    True,
                    f"{said} is not {builds[0].dpu_name}'s, but the check is switched off",
                )
            return Check(
                name,
                False,
                f"{path} is compiled for {target.dpu_name} ({said}, arch folder "
                f"DPUCVDX8H/{target.folder}); the firmware {shown} has {builds[0].dpu_name} "
                f"(0x{builds[0].fingerprint:x}, arch folder DPUCVDX8H/{builds[0].folder})",
                f"{_compile_command(builds[0])}, or source setup.sh DPUCVDX8H_{target.variant}",
            )
    first = model_build(parts[0])
    assert first is not None
    if not builds:
        return Check(
            name, True, f"{first.dpu_name}; the name of {shown} does not tell, the runtime compares"
        )
    return Check(name, True, f"{first.dpu_name} ({_hexadecimal(parts[0])}), as {shown}")


def _hexadecimal(part: Subgraph) -> str:
    fingerprint = part.get("dpu_fingerprint")
    return "no fingerprint" if fingerprint is None else f"0x{int(fingerprint):x}"


def _compile_command(target: Optional[Target]) -> str:
    return f"deepfake-fpga compile --backend vitis -a {target.variant if target else '8pe_normal'}"
