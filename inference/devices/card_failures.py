"""What the vendor's runtime says before it aborts, in words that tell what to do.

Fatal errors are one line on standard error, ``F<date> <pid> <file>] [UNILOG][FATAL][<identifier>]
[<description>] <text>``; older runtimes throw C++ exceptions with a sentence of their own.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Optional, Sequence, Tuple

_SETUP = "source board_setup/vck5000/setup.sh DPUCVDX8H_8pe_normal (2.5: setup/vck5000/setup.sh)"
_EXAMINE = "xbutil examine"
_CHECKED = "deepfake-fpga doctor"


@dataclass(frozen=True)
class Failure:
    """The last fatal thing the vendor's libraries said.

    Attributes:
        line: the words themselves, without date and process number; empty if they said nothing.
        explanation: what it means; empty where the identifier is not known.
        next_step: what to type.
    """

    line: str
    explanation: str
    next_step: str

    @property
    def words(self) -> str:
        """Line and explanation, for an error's evidence."""
        said = f"the vendor's library said: {self.line}" if self.line else "it left no message"
        return f"{said} ({self.explanation})" if self.explanation else said


KNOWN: Tuple[Tuple[str, str, str], ...] = (
    (
        "VART_XCLBIN_PATH_INVALID|xclbinPath is not set",
        "XLNX_VART_FIRMWARE names no firmware: the set-up script was not sourced in this shell, "
        "or found no card and cleared the variable",
        _SETUP,
    ),
    (
        "VART_XRT_DEVICE_AVAILABLE_ERROR|No devices available",
        "XRT sees no card: it is not passed into the container, or its drivers are not loaded",
        _EXAMINE,
    ),
    (
        "VART_XCLBIN_DOWNLOAD_ERROR|err=-22",
        "the firmware cannot be loaded: it is for another shell than the card has, or the card "
        "needs a reset",
        _EXAMINE + " -r platform",
    ),
    (
        "VART_XRM_CREATE_CONTEXT_ERROR|VART_XRM_CONNECT_ERROR|Failed to connect to XRM",
        "the resource manager's daemon is not running or is of another version than the image's",
        "sudo systemctl restart xrmd, on the host",
    ),
    (
        "VART_XRM_ACQUIRE_CU_ERROR|VART_XRT_CU_AVAILABLE_ERROR|[Cc]ould not acquire CU|No CU avail",
        "the card's one compute unit is taken: by another process, or by one that was killed and "
        "did not give it back",
        "xrmadm list.json shows who has it; xbutil reset -d <bdf> frees a stale one",
    ),
    (
        "VART_VERSION_MISMATCH_ERROR|mismatch with xclbin|CHECK fingerprint fail|"
        "fingerprint check failure",
        "the model is compiled for another build of the DPU than the firmware has",
        "deepfake-fpga compile -a <the build in XLNX_VART_FIRMWARE>",
    ),
    (
        "VART_GRAPH_FINGERPRINT_ERROR",
        "the model's DPU subgraph carries no fingerprint, so it is no product of vai_c_xir",
        "deepfake-fpga compile --backend vitis",
    ),
    (
        "TARGET_FACTORY_UNREGISTERED_TARGET",
        "the model is compiled for a DPU that this release does not know; 0x0501000000000fee is "
        "that of the ES1 card and of release 1.4.1",
        "deepfake-fpga compile -a 8pe_normal",
    ),
    (
        "bad any_cast",
        "the model was compiled by another release than this runtime's",
        "compile it again in the same container: deepfake-fpga compile --backend vitis",
    ),
    (
        "cannot open library|librt-engine|libvart-dpu-runner",
        "the runtime's own library is not on the loader's path",
        "ldconfig -p | grep librt-engine, in the container",
    ),
    (
        "VART_RUNNER_CONSTRUCTION_FAIL",
        "the subgraph cannot be given to a runner: the model is not compiled, or not for this mode",
        "deepfake-fpga inspect MODEL",
    ),
    (
        "XIR_READ_PB_FAILURE",
        "the file is no xmodel: empty, cut off, a Git-LFS pointer, or not there",
        "deepfake-fpga inspect MODEL",
    ),
    (
        "VART_DPU_TIMEOUT_ERROR|DPU timeout|CU timeout",
        "the card did not finish a job within 15 seconds: it hangs, is too hot or lacks power",
        "xbutil examine -r thermal electrical; xbutil reset -d <bdf>",
    ),
    (
        "VART_DPU_EXEC_ERROR|DPU run fail",
        "the card ended a job with an error",
        _EXAMINE,
    ),
    (
        "VART_TENSOR_BUFFER_INVALID",
        "the runtime did not recognise a buffer's tensor",
        _CHECKED,
    ),
    (
        "XIR_UNREGISTERED_ATTR",
        "the model lacks an attribute the runtime wants: another release compiled it",
        "compile it again in the same container: deepfake-fpga compile --backend vitis",
    ),
)
"""Pattern of identifiers and sentences, what they mean, what to type; the first that fits."""

_FATAL = re.compile(r"\[UNILOG\]\[FATAL\].*")
_CHECK = re.compile(r"^F\d{4} [\d:.]+\s+\d+ \S+\] (.*)")
_THROWN = re.compile(r"^\s*what\(\):\s*(.*)")
_TIMEOUT = re.compile(r"(?:Error: )?CU timeout.*")


def explain(lines: Sequence[str]) -> Failure:
    """The last fatal line among ``lines`` and what is known of it.

    Args:
        lines: the end of a log, or the text of an exception.
    """
    line = _last(lines)
    for pattern, explanation, next_step in KNOWN:
        if re.search(pattern, line):
            return Failure(line, explanation, next_step)
    return Failure(line, "", "")


def _last(lines: Sequence[str]) -> str:
    for pattern in (_FATAL, _CHECK, _THROWN, _TIMEOUT):
        for line in reversed(lines):
            found: Optional[re.Match[str]] = pattern.search(line)
            if found:
                text = found.group(found.lastindex or 0)
                return _shortened(text.strip())
    # Nothing fatal: the last that was said, but not how the shell or a stack trace ends.
    spoken = [
        line
        for line in lines
        if not re.match(r"\s*(\*\*\*|@ |Aborted|Segmentation|Fatal Python|Thread 0x|File )", line)
    ]
    return _shortened(spoken[-1].strip()) if spoken else ""


def _shortened(text: str) -> str:
    return text if len(text) <= 400 else text[:400] + "..."
