"""What ``create_runner`` demands of a subgraph, the environment and the card, in their order.

Every refusal has the text of the genuine libraries (``vart`` and, for the card, ``rt-engine``).
"""

from __future__ import annotations

import enum
import os
from pathlib import Path
from typing import Mapping, Optional

from ...compile.targets import TARGETS, Target, target_by_name
from ...compile.xir.attributes import AttrKind
from ...compile.xir.graph import Subgraph
from ...errors import UsageError
from .abort import abort
from .card_state import CardState
from .options import SimulateOptions

FAIL = ("VART_RUNNER_CONSTRUCTION_FAIL", "Cannot create runner")
"""Identifier and description of what ``vart`` itself refuses."""

_DPU_FAMILY = 5
_CARD_LIBRARIES = ("librt-engine.so", "libvart-dpu-runner.so")
_CPU_LIBRARY = "libvart-cpu-runner.so"
_DUMMY_LIBRARY = "libvart-dummy-runner.so"


class Library(enum.Enum):
    """What stands behind a runner's library."""

    CARD = "card"
    CPU = "cpu"


def choose_library(subgraph: Subgraph, mode: str) -> Library:
    """The library that the subgraph names for ``mode``.

    Raises:
        XirAbort: it names none, or one that is not on this host.
    """
    name = subgraph.name
    runner = subgraph.attrs.get("runner")
    if runner is None:
        raise abort(
            *FAIL,
            "Cannot find runner attr, this subgraph may not be compiled! subgraph name: " + name,
        )
    if runner.kind is not AttrKind.MAP_STRING or not isinstance(runner.value, dict):
        raise abort("", "", "Should never run here with exception bad any_cast")
    if mode not in runner.value:
        raise abort(*FAIL, f"Cannot find runner for mode {mode}! subgraph name: {name}")
    library = str(runner.value[mode])
    if library in _CARD_LIBRARIES:
        return Library.CARD
    if library == _CPU_LIBRARY:
        return Library.CPU
    if library == _DUMMY_LIBRARY:
        raise abort(*FAIL, "cannot load symbol 'create_runner'! lib=" + library)
    raise missing_library(library)


def missing_library(library: str = _CPU_LIBRARY) -> Exception:
    """Aborts as where ``library`` is not installed."""
    return abort(
        *FAIL,
        f"cannot open library! lib={library}, error={library}: cannot open shared object file:"
        " No such file or directory",
    )


def check_card(
    subgraph: Subgraph,
    options: SimulateOptions,
    state: CardState,
    environment: Optional[Mapping[str, str]] = None,
) -> Target:
    """Makes sure that this subgraph can run on this card; returns the DPU on it.

    Raises:
        XirAbort: there is no firmware or no card, or it has another DPU.
        RuntimeError: what the genuine library reports in that way.
    """
    env = os.environ if environment is None else environment
    checked = env.get("XLNX_ENABLE_FINGERPRINT_CHECK", "1") != "0"
    fingerprint = subgraph.get("dpu_fingerprint")
    if fingerprint is not None:
        _check_registered(int(fingerprint), str(subgraph.get("dpu_name", "")), options.release)
    elif checked:
        raise abort("VART_GRAPH_FINGERPRINT_ERROR", "no hardware info in subgraph")
    _check_firmware(options.release, env)
    if options.card in ("absent", "unbound") or state.dead:
        raise abort("VART_XRT_DEVICE_AVAILABLE_ERROR", "No devices available")
    if subgraph.device != "DPU":
        raise RuntimeError("Error: subgraph is not supported in DPURunner")
    target = card_target(options)
    if checked and fingerprint != target.fingerprint:
        raise abort("VART_VERSION_MISMATCH_ERROR", "subgraph's version is mismatch with xclbin")
    return target


def card_target(options: SimulateOptions) -> Target:
    """The build of the DPU on the simulated card.

    Raises:
        UsageError: the options name none.
    """
    # Only one build was ever made for ES1 silicon.
    name = "DPUCVDX8H_ISA1_F2W2" if options.card == "es1" else options.variant
    target = target_by_name(name)
    if target is None:
        known = ", ".join(t.variant for t in TARGETS)
        raise UsageError(f"{name!r} is no variant of a simulated card", f"known are {known}")
    return target


def _check_registered(fingerprint: int, dpu_name: str, release: str) -> None:
    if fingerprint >> 56 != _DPU_FAMILY:
        # Known to the image, but no controller of rt-engine drives it.
        raise RuntimeError(f"Error: no DpuController found for {dpu_name.partition('_')[0]}")
    # 3.5 no longer supports the card, but its list of targets is the one of 3.0.
    release = "3.0" if release == "3.5" else release
    known = {target.fingerprint for target in TARGETS if release in target.released}
    if fingerprint not in known:
        raise abort(
            "TARGET_FACTORY_UNREGISTERED_TARGET",
            "Unregistered target!",
            f"Cannot find or create target with fingerprint=0x{fingerprint:016x}",
        )


def _check_firmware(release: str, env: Mapping[str, str]) -> None:
    sentence = "xclbinPath is not set, please consider setting XLNX_VART_FIRMWARE."
    text = env.get("XLNX_VART_FIRMWARE", "")
    if not text:
        if release in ("1.4.1", "2.0"):
            raise RuntimeError("Error: " + sentence)
        raise abort("VART_XCLBIN_PATH_INVALID", sentence)
    path = Path(text)
    if not (path.is_file() or (path.is_dir() and any(path.glob("*.xclbin")))):
        raise abort("VART_XCLBIN_READ_ERROR", "Failed to open xclbin file for reading", text)
