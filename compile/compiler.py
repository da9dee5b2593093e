"""Our compiler: a quantized ``*_int.xmodel`` to a compiled model that the simulated card runs.

The result has everything a compiled model for the VCK5000 has except instructions: they cannot be
made without the vendor's compiler. The graph says so in ``libs_info``, where the vendor's compiler
writes its own version, and ``is_simulated`` tells the two apart.

On the sample network of which both the quantized and the compiled file are public the result
equals the vendor's in everything but instructions. What that sample does not show is our choice:

* a value that enters a concatenation under another fix point passes an addition of one operand
  (``eltwise-fix``), and so does an operand that cannot be written in place;
* a ReLU by itself is such an addition too;
* kernel rows are packed into channels where a layer reads the DPU's input and they fit one group;
* a maximum pooling runs in the layer of the convolution that it alone reads.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Callable, Dict, Optional, Tuple

from .. import __version__
from ..errors import UnsupportedError, UsageError
from ..files import md5, publish, workspace, write_json, write_text
from .limits import CONVERSIONS
from .lowering import lower
from .options import NO_OPTIONS, CompilerOptions
from .partition import partition
from .targets import Target
from .weights import SIMULATED_STAMP, is_simulated
from .xir.attributes import map_string, strings
from .xir.graph import Graph
from .xir.opdefs import definitions, op_defs
from .xir.soundness import refuse_unsound
from .xir.xmodel import read_xmodel, write_xmodel

__all__ = [
    "CompileResult",
    "CpuOperator",
    "compile_graph",
    "compile_xmodel",
    "is_simulated",
]

META = "meta.json"
MD5SUM = "md5sum.txt"

Log = Callable[[str], None]


@dataclass(frozen=True)
class CpuOperator:
    """An operator that the DPU cannot run.

    Attributes:
        reason: one sentence in the words of the vendor's compiler.
    """

    name: str
    type: str
    reason: str


@dataclass(frozen=True)
class CompileResult:
    """What one compilation took and left.

    Attributes:
        source: the quantized model.
        target: the DPU it was compiled for.
        xmodel: the compiled model.
        meta: ``meta.json`` beside it.
        md5sum: ``md5sum.txt`` beside it.
        md5: of the compiled model.
        graph: the compiled graph.
        cpu: operators that the CPU has to run, conversions between float and int8 not counted.
        command: the vendor's program as it was called, quoted for a shell; empty for ours.
        log: its console output beside the result; ``None`` for ours.
        notes: what a person should know.
    """

    source: Path
    target: Target
    xmodel: Path
    meta: Path
    md5sum: Path
    md5: str
    graph: Graph
    cpu: Tuple[CpuOperator, ...]
    command: str = ""
    log: Optional[Path] = None
    notes: Tuple[str, ...] = ()

    @property
    def dpu_subgraphs(self) -> int:
        """How many parts of the model the card runs."""
        return len(self.graph.subgraphs("DPU"))

    @property
    def device_subgraphs(self) -> int:
        """How many parts there are in all, inputs included."""
        return len(self.graph.root.children)

    def to_json(self) -> Dict[str, Any]:
        """A JSON object for people and scripts."""
        return {
            "source": str(self.source),
            "xmodel": str(self.xmodel),
            "md5": self.md5,
            "target": self.target.dpu_name,
            "fingerprint": f"{self.target.fingerprint:#x}",
            "batch": self.target.engines,
            "simulated": is_simulated(self.graph),
            "device_subgraphs": self.device_subgraphs,
            "dpu_subgraphs": self.dpu_subgraphs,
            "workload": self.graph.root.get("workload"),
            "workload_on_arch": self.graph.root.get("workload_on_arch"),
            "outputs": list(self.graph.get("return_ops")),
            "cpu": [asdict(op) for op in self.cpu],
            "command": self.command,
            "log": None if self.log is None else str(self.log),
        }


def compile_graph(graph: Graph, target: Target, log: Optional[Log] = None) -> Graph:
    """Compiles a quantized graph.

    Args:
        graph: the quantizer's; it is not changed.
        target: the DPU.
        log: receives a line for each operator that falls to the CPU.

    Raises:
        FormatError: the graph is no quantizer's output.
    """
    refuse_unsound(graph, graph.ops.values())
    lowered = lower(graph, target)
    compiled = partition(lowered, target, log if log is not None else _silent)
    compiled.attrs["return_ops"] = strings(lowered.return_ops)
    compiled.attrs["libs_info"] = map_string({f"{SIMULATED_STAMP}{__version__}": "simulated"})
    known = definitions()
    compiled.op_defs = op_defs(known) + [d for d in graph.op_defs if d.name not in known]
    return compiled


def compile_xmodel(
    source: Path,
    target: Target,
    output_dir: Path,
    net_name: str,
    log: Log,
    options: CompilerOptions = NO_OPTIONS,
) -> CompileResult:
    """Compiles a file, as ``vai_c_xir -x source -a arch.json -o output_dir -n net_name`` does.

    Writes ``<net_name>.xmodel``, ``meta.json`` and ``md5sum.txt``, all of them or none.

    Args:
        source: the quantizer's ``*_int.xmodel``.
        target: the DPU.
        output_dir: made if it does not exist.
        net_name: the file's name; the suffix ``.xmodel`` may be there or not.
        log: receives console lines in the shape of the vendor's compiler.
        options: ``output_ops`` makes others than the model's own outputs.

    Raises:
        UsageError: ``net_name`` is no file name, or ``options`` do not fit the model.
        UnsupportedError: ``options`` ask for what only the vendor's compiler has.
        MissingError: there is no ``source``.
        FormatError: ``source`` is no quantized xmodel.
    """
    source, output_dir = Path(source), Path(output_dir)
    net_name = file_stem(net_name)
    _check_supported(options)
    rule = "*" * 50
    for line in (rule, "* deepfake-fpga Compilation - simulated card", rule):
        log(line)
    graph = read_xmodel(source)
    options.check(graph)
    if options.output_ops:
        graph.attrs["return_ops"] = strings(options.output_ops)
    for line in (
        "Compile mode: dpu",
        "Debug mode: function",
        f"Target architecture: {target.dpu_name}",
        f"Graph name: {graph.name}, with op num: {len(graph.ops)}",
        "Begin to compile...",
    ):
        log(f"[UNILOG][INFO] {line}")
    compiled = compile_graph(graph, target, log)
    # The vendor's compiler records the path too; a file should not tell where it was made.
    compiled.attrs["files_md5sum"] = map_string({source.name: md5(source)})
    cpu = tuple(
        CpuOperator(op.name, op.type, op.get("cpu_reason"))
        for op in compiled.ops.values()
        if op.get("cpu_reason") is not None and op.type not in CONVERSIONS
    )
    xmodel, meta, md5sum = (output_dir / n for n in (f"{net_name}.xmodel", META, MD5SUM))
    with workspace(output_dir) as folder:
        write_xmodel(compiled, folder / xmodel.name)
        digest = md5(folder / xmodel.name)
        write_json(folder / META, _meta(compiled, target, xmodel.name, digest))
        write_text(folder / MD5SUM, f"{digest}  {xmodel.name}\n")
        publish(folder, output_dir)
    result = CompileResult(source, target, xmodel, meta, md5sum, digest, compiled, cpu)
    for line in (
        f"Total device subgraph number {result.device_subgraphs},"
        f" DPU subgraph number {result.dpu_subgraphs}",
        "Compile done.",
        f'The meta json is saved to "{meta}"',
        f'The compiled xmodel is saved to "{xmodel}"',
        f'The compiled xmodel\'s md5sum is {digest}, and has been saved to "{md5sum}"',
    ):
        log(f"[UNILOG][INFO] {line}")
    return result


def _meta(graph: Graph, target: Target, filename: str, digest: str) -> Dict[str, Any]:
    """The vendor's keys, then what a card binary would not need to say."""
    return {
        "target": target.dpu_name,
        "lib": "librt-engine.so",
        "filename": filename,
        "kernel": [subgraph.name for subgraph in graph.subgraphs("DPU")],
        "md5": digest,
        "fingerprint": f"{target.fingerprint:#x}",
        "compiler": f"deepfake-fpga {__version__}",
        "simulated": True,
    }


def _check_supported(options: CompilerOptions) -> None:
    asked = [f"plugins {options.plugins!r}"] if options.plugins else []
    asked += [f"mode {options.mode!r}"] if options.mode not in ("", "normal") else []
    if asked:
        raise UnsupportedError(
            "Only the vendor's compiler has this option",
            ", ".join(asked),
            "leave it out, or compile in the container: deepfake-fpga compile --backend vitis",
        )


def file_stem(net_name: str) -> str:
    """The name of a compiled model without its suffix.

    Raises:
        UsageError: it is no plain file name.
    """
    stem = net_name[: -len(".xmodel")] if net_name.endswith(".xmodel") else net_name
    if not stem or stem.startswith(".") or set(stem) & set('/\\:\0*?"<>|'):
        raise UsageError(
            f"{net_name!r} cannot be the name of the compiled model",
            "a plain file name is wanted; the folder is given with -o",
            "deepfake-fpga compile -n YNET",
        )
    return stem


def _silent(line: str) -> None:
    del line
