"""What the console of ``vai_c_xir`` says, and what its failures mean.

The compiler's errors are not documented; each answer in public threads is "send us the model". The
explanations here say what the models in those threads had in common.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Dict, List, Optional, Tuple

from .compiler import CpuOperator

DONE = "Compile done."

_CPU = re.compile(
    r"xir::Op\{name = (?P<name>.+), type = (?P<type>[^{},]+)\} has been assigned to CPU:"
    r" \[(?P<reason>.*)\]\.?\s*$"
)
_FATAL = re.compile(r"\[UNILOG\]\[FATAL\]\[(?P<id>\w+)\](?P<text>.*)$")
_COUNTS = re.compile(r"Total device subgraph number (\d+), DPU subgraph number (\d+)")
_GRAPH = re.compile(r"Graph name: (.*), with op num: (\d+)")
_MD5 = re.compile(r"md5sum is ([0-9a-f]{32})\b")
_ARCHITECTURE = "Target architecture: "
_PYTHON_ERROR = re.compile(r"^(?:\w+\.)*\w*(?:Error|Exception)(?::|$)")


@dataclass(frozen=True)
class Failure:
    """One known way to fail.

    Attributes:
        cause: one sentence for people.
        next_step: the nearest known workaround.
    """

    cause: str
    next_step: str


_OTHER_BUILD = "another build of the DPU: deepfake-fpga compile -a VCK50006PEDWC"
_NAME_THEM = "deepfake-fpga compile --backend sim names the operators that the DPU cannot run"

FAILURES: Dict[str, Failure] = {
    "XCOM_PM_FAIL": Failure(
        "The vendor's compiler failed while it wrote instructions, mostly for a layer at the edge "
        "of what the DPU can hold",
        f"{_NAME_THEM}; or try {_OTHER_BUILD}",
    ),
    "XCOM_ACGEN_ERROR": Failure(
        "The vendor's compiler could not write instructions for a layer that it had given to the "
        "DPU",
        "look for very wide layers, kernels over 16 and strides over 4; or try " + _OTHER_BUILD,
    ),
    "XCOM_ITEM_UNDEFINED": Failure(
        "The vendor's compiler did not find something that the model refers to, mostly an output "
        "or an operator that a rewrite has removed",
        'name the outputs (--options \'{"output_ops": "NAME_fix"}\'), and quantize with the '
        "release whose compiler this is",
    ),
    "XCOM_OPERATION_FAILED": Failure(
        "The vendor's compiler could not place a tensor in the DPU's memory; an operator that was "
        "assigned to the CPU shortly before is usually the reason",
        "change that operator (padding below the kernel's side, pools up to 7), or try "
        + _OTHER_BUILD,
    ),
    "XCOM_UNEXPECTED_VALUE": Failure(
        "The vendor's compiler met a value that it does not expect, mostly a shape or an attribute "
        "that an operator of the model cannot have",
        f"{_NAME_THEM}; then try input sizes that 2 divides at each pooling",
    ),
    "XIR_UNREGISTERED_ATTR": Failure(
        "An operator of the model lacks an attribute: quantizer and compiler are of different "
        "releases, or the file was compiled already",
        "quantize in the same container: deepfake-fpga quant --mode calib --data DIR",
    ),
    "XIR_INVALID_ARG_OCCUR": Failure(
        "Two tensors that are joined have different sizes: the picture's size is not divisible at "
        "every pooling, so upsampling does not meet its skip connection",
        "use an input size that 16 divides (224x224), or pad inside the network",
    ),
    "XIR_INVALID_DATA_TYPE": Failure(
        "The model has a tensor of a type that the compiler does not know",
        "quantize with 8 bits in the same container: deepfake-fpga quant --mode calib --data DIR",
    ),
    "XIR_READ_PB_FAILURE": Failure(
        "The vendor's compiler could not read the quantized model",
        "deepfake-fpga inspect UYNet_int.xmodel; then quantize again in the same container",
    ),
    "TARGET_FACTORY_UNREGISTERED_TARGET": Failure(
        "This release of the compiler does not know the target",
        "deepfake-fpga doctor says which release has which build; name one of them with -a",
    ),
}
"""Error identifiers of public threads."""

_TEXTS: Tuple[Tuple[str, Failure], ...] = (
    (
        "NO FRONT END SPECIFIED",
        Failure(
            "vai_c_xir did not take its input: it wants a quantized .xmodel after -x and an "
            "arch.json after -a, both readable to the container's user",
            "ls -l both files of the command in the log",
        ),
    ),
    (
        "Unable to open file",
        Failure(
            "vai_c_xir could not read the arch.json; it says the same of a syntax error in it",
            "python3 -m json.tool arch.json; or name the target: deepfake-fpga compile -a "
            "VCK50008PE",
        ),
    ),
    (
        "bad any_cast",
        Failure(
            "An attribute of the model has another type than this compiler expects: quantizer and "
            "compiler are of different releases",
            "quantize in the same container: deepfake-fpga quant --mode calib --data DIR",
        ),
    ),
    (
        "No space left on device",
        Failure("The disk is full", "df -h . /tmp"),
    ),
    (
        "Segmentation fault",
        Failure(
            "The vendor's compiler crashed",
            f"{_NAME_THEM}; or try {_OTHER_BUILD}",
        ),
    ),
)

_UNKNOWN = Failure(
    "The vendor's compiler failed without saying why",
    f"{_NAME_THEM}; or try {_OTHER_BUILD}",
)


@dataclass
class VendorLog:
    """What has been read so far.

    Attributes:
        architecture: the last ``Target architecture`` line's value.
        graph_name: of the model.
        operators: of the model.
        device_subgraphs, dpu_subgraphs: parts of the compiled model; ``None`` before they are said.
        md5: of the compiled model.
        cpu: operators given to the CPU, each once.
        fatal: error identifier and the rest of its line.
        done: whether the compiler said that it is done.
        lines: all lines that are not empty.
    """

    architecture: str = ""
    graph_name: str = ""
    operators: Optional[int] = None
    device_subgraphs: Optional[int] = None
    dpu_subgraphs: Optional[int] = None
    md5: str = ""
    cpu: List[CpuOperator] = field(default_factory=list)
    fatal: Optional[Tuple[str, str]] = None
    done: bool = False
    lines: List[str] = field(default_factory=list)

    def add(self, line: str) -> None:
        """Reads one line without colours and line end."""
        if not line.strip():
            return
        self.lines.append(line)
        if DONE in line:
            self.done = True
        self.architecture = line.partition(_ARCHITECTURE)[2].strip() or self.architecture
        assigned = _CPU.search(line)
        if assigned:
            found = CpuOperator(assigned["name"], assigned["type"].strip(), assigned["reason"])
            if found not in self.cpu:
                self.cpu.append(found)
        fatal = _FATAL.search(line)
        if fatal and self.fatal is None:
            self.fatal = (fatal["id"], line[line.index("[UNILOG]") :])
        counts = _COUNTS.search(line)
        if counts:
            self.device_subgraphs, self.dpu_subgraphs = int(counts[1]), int(counts[2])
        graph = _GRAPH.search(line)
        if graph:
            self.graph_name, self.operators = graph[1], int(graph[2])
        digest = _MD5.search(line)
        self.md5 = digest[1] if digest else self.md5

    def failure(self) -> Tuple[Failure, str]:
        """What went wrong, and the line that says it."""
        if self.fatal is not None:
            identifier, line = self.fatal
            known = FAILURES.get(identifier)
            if known is not None:
                return known, line
            return Failure(
                f"The vendor's compiler failed with {identifier}, which no public source explains",
                _UNKNOWN.next_step,
            ), line
        for line in reversed(self.lines):
            for text, failure in _TEXTS:
                if text in line:
                    return failure, line
        errors = [line for line in self.lines if _PYTHON_ERROR.search(line)]
        if errors:
            return (
                Failure("vai_c_xir itself failed, before or after the compiler", "see the log"),
                errors[-1],
            )
        said = self.lines[-1] if self.lines else "it printed nothing"
        return _UNKNOWN, f"its last line: {said}" if self.lines else said
