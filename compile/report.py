"""What is inside an xmodel: target, inputs, outputs, subgraphs, and what stays on the CPU and why.

It reads any file, ours or the vendor's, quantized or compiled, and tells nothing that is not in
the file or follows from it.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, Iterable, List, Optional, Tuple, Union

from ..files import md5, sha256
from .drawing import sides, svg
from .targets import target_by_name
from .xir import Graph, Op, Subgraph
from .xir.diff import shape_text
from .xir.opdefs import is_built_in

__all__ = [
    "CpuOp",
    "Report",
    "SubgraphReport",
    "TargetReport",
    "TensorReport",
    "inspect_graph",
    "svg",
    "text",
]

CPU_REASON = "cpu_reason"
"""Operator attribute (string) in which our compiler leaves why it gave an operator to the CPU."""

# Types the DPU has an engine for; on the CPU, they are outside the target's limits.
_DPU_TYPES = frozenset(
    [
        "conv2d-fix",
        "depthwise-conv2d-fix",
        "transposed-conv2d-fix",
        "transposed-depthwise-conv2d-fix",
        "pool-fix",
        "eltwise-fix",
        "concat-fix",
    ]
)
_SOURCES = frozenset(["data", "data-fix", "placeholder"])
_CONSTANTS = frozenset(["const", "const-fix"])


@dataclass(frozen=True)
class TensorReport:
    """A tensor at a boundary.

    Attributes:
        tensor: its name, by which a runner's tensors are told apart.
        op: the operator that makes it.
        shape: NHWC for feature maps, -1 where unknown. Compiled files always say batch 1.
        dtype: ``XINT8``, ``FLOAT32`` and so on.
        fix_point: fraction bits, ``None`` where the tensor has none.
    """

    tensor: str
    op: str
    shape: Tuple[int, ...]
    dtype: str
    fix_point: Optional[int]


@dataclass(frozen=True)
class CpuOp:
    """An operator the CPU executes, and why."""

    name: str
    type: str
    reason: str


@dataclass(frozen=True)
class TargetReport:
    """The DPU a file is compiled for.

    Attributes:
        dpu_name: as in the file.
        fingerprint: what the runtime compares with the card, in hexadecimal.
        engines: processing engines, which is the card's batch; ``None`` for an unknown target.
    """

    dpu_name: str
    fingerprint: str
    engines: Optional[int]


@dataclass(frozen=True)
class SubgraphReport:
    """One child of the root.

    Attributes:
        name: as in the file; it means nothing, the vendor picks a member.
        device: ``USER``, ``DPU``, ``CPU`` or ``None``.
        ops: number of operators, constants included.
        inputs: tensors made outside and read here, in graph order.
        outputs: tensors made here and read outside or by nobody, in graph order.
        workload: operations of the network, ``None`` where the file does not say.
        workload_on_arch: operations the DPU does, padding of channels and rows included.
        utilisation: their quotient, 0 to 1.
        registers: address space to bytes (``REG_0`` holds the parameters).
        register_kinds: address space to ``CONST``, ``WORKSPACE`` or ``INTERFACE``.
        instruction_bytes: size of the DPU's program.
    """

    name: str
    device: Optional[str]
    ops: int
    inputs: Tuple[TensorReport, ...]
    outputs: Tuple[TensorReport, ...]
    workload: Optional[int]
    workload_on_arch: Optional[int]
    utilisation: Optional[float]
    registers: Dict[str, int]
    register_kinds: Dict[str, str]
    instruction_bytes: int


@dataclass(frozen=True)
class Report:
    """What ``inspect`` shows.

    Attributes:
        kind: ``compiled`` (operators are given to devices), ``quantized`` (float operators with
            fix points between them) or ``float``.
        path, size, md5, sha256: of the file; ``None`` for a graph that was not read from one.
        network: the graph's name.
        compiler: library to commit, as the vendor's compiler stamps it; empty if not compiled.
        target: of the first DPU subgraph.
        return_ops: outputs in the order of the model's ``forward``, where the file records it.
        operators: operator type to count, the most frequent first.
        parameters: elements of all constants.
        inputs, outputs: of the whole network; outputs in the order of ``return_ops`` if known.
        subgraphs: in file order.
        cpu_ops: operators on the CPU, constants left out.
        notes: what a user of the file should know.
    """

    kind: str
    path: Optional[str]
    size: Optional[int]
    md5: Optional[str]
    sha256: Optional[str]
    network: str
    compiler: Dict[str, str]
    target: Optional[TargetReport]
    return_ops: Tuple[str, ...]
    operators: Dict[str, int]
    parameters: int
    inputs: Tuple[TensorReport, ...]
    outputs: Tuple[TensorReport, ...]
    subgraphs: Tuple[SubgraphReport, ...]
    cpu_ops: Tuple[CpuOp, ...]
    notes: Tuple[str, ...]

    def to_json(self) -> str:
        """The report as a JSON object with the attributes' names as keys."""
        return json.dumps(dataclasses.asdict(self), indent=2, ensure_ascii=False)


def inspect_graph(graph: Graph, path: Union[str, Path, None] = None) -> Report:
    """The report on ``graph``; with ``path``, the file it was read from, also its checksums."""
    file = None if path is None else Path(path)
    subgraphs = tuple(_subgraph(graph, child) for child in graph.root.children)
    target = _target(graph)
    return_ops = tuple(graph.get("return_ops", ()))
    outputs = _outputs(graph, return_ops)
    counts = Counter(op.type for op in graph.ops.values())
    return Report(
        kind=_kind(graph),
        path=None if file is None else str(file),
        size=None if file is None else file.stat().st_size,
        md5=None if file is None else md5(file),
        sha256=None if file is None else sha256(file),
        network=graph.name,
        compiler=dict(graph.get("libs_info", {})),
        target=target,
        return_ops=return_ops,
        operators=dict(sorted(counts.items(), key=lambda item: (-item[1], item[0]))),
        parameters=sum(op.tensor.elements for op in graph.ops.values() if op.type in _CONSTANTS),
        inputs=tuple(_tensor(op) for op in graph.ops.values() if op.type in _SOURCES),
        outputs=tuple(map(_tensor, outputs)),
        subgraphs=subgraphs,
        cpu_ops=_cpu_ops(graph),
        notes=tuple(_notes(graph, subgraphs, return_ops, outputs)),
    )


def text(report: Report) -> str:
    """The report as lines for a terminal."""
    lines = [f"{report.path or report.network}: {_KINDS[report.kind]}", ""]
    lines += _columns(_facts(report), "  ")
    lines += _tensor_lines("Inputs", report.inputs)
    order = ", in the order of the model's forward" if report.return_ops else ""
    lines += _tensor_lines(f"Outputs{order}", report.outputs)
    lines += ["", "Operators"]
    lines += _wrapped([f"{count} {name}" for name, count in report.operators.items()])
    if report.subgraphs:
        lines += ["", "Subgraphs"]
        for number, subgraph in enumerate(report.subgraphs, 1):
            lines += _subgraph_lines(number, subgraph)
    if report.cpu_ops:
        lines += ["", "On the CPU"]
        for op in report.cpu_ops:
            lines += [f"  {op.type}  {op.name}", f"      {op.reason}"]
    if report.notes:
        lines += ["", "Notes"] + [f"  {note}" for note in report.notes]
    return "\n".join(lines) + "\n"


# ---------------------------------------------------------------- finding out


def _kind(graph: Graph) -> str:
    if graph.root.children:
        return "compiled"
    return "quantized" if any(op.type == "fix" for op in graph.ops.values()) else "float"


def _tensor(op: Op) -> TensorReport:
    fix_point = op.tensor.fix_point
    if fix_point is None and op.type == "fix":
        fix_point = op.get("fix_point")
    return TensorReport(op.tensor.name, op.name, op.tensor.dims, op.tensor.type_name, fix_point)


def _target(graph: Graph) -> Optional[TargetReport]:
    for child in graph.subgraphs("DPU"):
        name = str(child.get("dpu_name", ""))
        if name:
            known = target_by_name(name)
            count = re.search(r"_(\d+)PE", name)
            engines = known.engines if known else int(count.group(1)) if count else None
            return TargetReport(name, hex(child.get("dpu_fingerprint", 0)), engines)
    return None


def _subgraph(graph: Graph, child: Subgraph) -> SubgraphReport:
    inputs, outputs = graph.boundary(child)
    ideal, real = child.get("workload"), child.get("workload_on_arch")
    return SubgraphReport(
        name=child.name,
        device=child.device,
        ops=len(child.all_ops()),
        inputs=tuple(map(_tensor, inputs)),
        outputs=tuple(map(_tensor, outputs)),
        workload=ideal,
        workload_on_arch=real,
        utilisation=ideal / real if ideal is not None and real else None,
        registers=dict(child.get("reg_id_to_size", {})),
        register_kinds=dict(
            child.get("reg_id_to_context_type_v2", child.get("reg_id_to_context_type", {}))
        ),
        instruction_bytes=len(child.get("mc_code", b"")),
    )


def _outputs(graph: Graph, return_ops: Iterable[str]) -> List[Op]:
    """Operators whose results leave the network, in the order of ``return_ops`` where it helps."""
    tails = [op for op in graph.tail_ops() if op.type not in _CONSTANTS]
    ordered: List[Op] = []
    for name in return_ops:
        ordered += [op for op in tails if _is_output(op, name) and op not in ordered]
    return ordered + [op for op in tails if op not in ordered]


def _is_output(op: Op, name: str) -> bool:
    # The compiler appends an underscore to the conversion to float that it puts behind an output.
    return name in (op.name, op.tensor.name) or op.name == name + "_"


def _cpu_ops(graph: Graph) -> Tuple[CpuOp, ...]:
    found = []
    for child in graph.subgraphs("CPU"):
        for name in child.all_ops():
            op = graph.op(name)
            if op.type not in _CONSTANTS:
                found.append(CpuOp(name, op.type, _reason(op)))
    return tuple(found)


def _reason(op: Op) -> str:
    recorded = op.get(CPU_REASON)
    if recorded:
        return str(recorded)
    if op.type == "fix2float":
        return "conversion of the DPU's 8-bit result to float"
    if op.type == "float2fix":
        return "conversion of float to the DPU's 8-bit input"
    if op.type == "fix":
        return "rounding to a fix point between operators that the CPU computes in float"
    if op.type in _DPU_TYPES:
        pairs = [(key, sides(op, key)) for key in ("kernel", "stride", "dilation")]
        seen = ", ".join(f"{key} {value}" for key, value in pairs if value)
        return f"outside what this DPU does with {op.type}: {seen or 'its inputs'}"
    if not is_built_in(op.type):
        return "custom operator: the runtime calls the user's own library for it"
    return f"the DPU has no {op.type}"


def _notes(
    graph: Graph,
    subgraphs: Tuple[SubgraphReport, ...],
    return_ops: Tuple[str, ...],
    outputs: List[Op],
) -> List[str]:
    notes = []
    dpus = [s for s in subgraphs if s.device == "DPU"]
    if len(dpus) > 1:
        notes.append(
            f"{len(dpus)} DPU subgraphs: data returns to the host between them, each needs a runner"
        )
    names = {child.get("dpu_name") for child in graph.subgraphs("DPU")}
    if len(names) > 1:
        notes.append(f"the DPU subgraphs name different targets: {', '.join(map(str, names))}")
    for child in graph.subgraphs("DPU"):
        known = target_by_name(str(child.get("dpu_name", "")))
        code = child.get("dpu_fingerprint")
        if known is not None and code is not None and code != known.fingerprint:
            notes.append(f"{known.dpu_name} has fingerprint {known.fingerprint:#x}, not {code:#x}")
            break
    for name in return_ops:
        if not any(_is_output(op, name) for op in outputs):
            notes.append(f"output {name!r} of the model is the result of no last operator")
    for subgraph in dpus:
        shapes = [t.shape for t in subgraph.outputs]
        if len(set(shapes)) < len(shapes):
            notes.append("outputs of one DPU subgraph share a shape: tell them apart by name")
            break
    return notes


# ---------------------------------------------------------------- writing it down

_KINDS = {
    "compiled": "compiled",
    "quantized": "quantized, not compiled",
    "float": "neither quantized nor compiled",
}


def _facts(report: Report) -> List[Tuple[str, ...]]:
    facts: List[Tuple[str, ...]] = [
        ("network", f"{report.network}, {_count(sum(report.operators.values()))}"),
        ("constants", f"{report.parameters:,} elements"),
    ]
    if report.target is not None:
        engines = f", {report.target.engines} engines" if report.target.engines else ""
        facts.append(("target", f"{report.target.dpu_name}{engines}"))
        facts.append(("fingerprint", report.target.fingerprint))
    if report.compiler:
        # "xcompiler.2.5.0 : xir.2.5.0" is a library within the compiler.
        parts = [key.rpartition(" : ")[2].replace(".", " ", 1) for key in report.compiler]
        facts.append(("compiled by", ", ".join(parts)))
    if report.size is not None:
        facts.append(("size", f"{report.size:,} bytes"))
    for name, value in (("md5", report.md5), ("sha256", report.sha256)):
        if value is not None:
            facts.append((name, value))
    return facts


def _tensor_lines(title: str, tensors: Tuple[TensorReport, ...]) -> List[str]:
    return ["", title, *_columns([_tensor_row(t) for t in tensors], "  ")]


def _tensor_row(tensor: TensorReport) -> Tuple[str, ...]:
    fix_point = "" if tensor.fix_point is None else f"fix point {tensor.fix_point}"
    return shape_text(tensor.shape), tensor.dtype, fix_point, tensor.tensor


def _subgraph_lines(number: int, subgraph: SubgraphReport) -> List[str]:
    head = f"  {number} {subgraph.device or 'no device'}, {_count(subgraph.ops)}"
    if subgraph.workload:
        head += f", {_amount(subgraph.workload)} operations"
    if subgraph.device == "DPU" and subgraph.utilisation is not None:
        real = _amount(subgraph.workload_on_arch or 0)
        head += f" ({subgraph.utilisation:.1%} of the {real} the DPU does)"
    lines = [head, f"    {subgraph.name}"]
    rows = [("in", *_tensor_row(t)) for t in subgraph.inputs]
    rows += [("out", *_tensor_row(t)) for t in subgraph.outputs]
    lines += _columns(rows, "    ")
    spaces = [
        f"{name} {subgraph.register_kinds.get(name, '')} {size:,}".replace("  ", " ")
        for name, size in sorted(subgraph.registers.items())
    ]
    if spaces:
        lines.append(f"    bytes: {', '.join(spaces)}, program {subgraph.instruction_bytes:,}")
    return lines


def _count(ops: int) -> str:
    return f"{ops} operator{'' if ops == 1 else 's'}"


def _amount(count: int) -> str:
    for unit, size in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if count >= size:
            return f"{count / size:.2f} {unit}"
    return str(count)


def _columns(rows: List[Tuple[str, ...]], indent: str) -> List[str]:
    """Rows with their cells aligned to the left; empty columns vanish."""
    if not rows:
        return [indent + "none"]
    used = [i for i in range(len(rows[0])) if any(row[i] for row in rows)]
    widths = {i: max(len(row[i]) for row in rows) for i in used}
    return [(indent + "  ".join(row[i].ljust(widths[i]) for i in used)).rstrip() for row in rows]


def _wrapped(items: List[str], width: int = 96) -> List[str]:
    lines = [" "]
    for item in items:
        piece = f" {item},"
        if len(lines[-1]) + len(piece) > width:
            lines.append(" ")
        lines[-1] += piece
    lines[-1] = lines[-1].rstrip(",")
    return lines
