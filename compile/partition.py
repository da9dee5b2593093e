"""Which device runs what: USER, DPU and CPU subgraphs with the vendor's names and attributes.

The tree is the one of genuine compiled models: under the root one USER subgraph per input, DPU
subgraphs with one grandchild per layer between uploads and downloads, CPU subgraphs for the rest.
"""

from __future__ import annotations

from typing import Callable, Dict, Iterable, List, Mapping, Sequence, Set, Tuple

import numpy as np

from .borders import CONSTANTS, add_borders, copy_unplaceable_operands, sort_for_file
from .limits import CONVERSIONS, reason_for_cpu
from .lowering import Lowered
from .memory import (
    INPUTS,
    OUTPUTS,
    PARAMETERS,
    WORKSPACE,
    fused_pooling,
    plan_memory,
)
from .targets import Target
from .workload import set_workloads
from .xir.attributes import (
    Attr,
    blob,
    boolean,
    map_bytes,
    map_int32,
    map_string,
    string,
    strings,
    uint64,
)
from .xir.graph import Graph, Subgraph

Log = Callable[[str], None]

_CPU_RUNNER = dict.fromkeys(("ref", "run", "sim"), "libvart-cpu-runner.so")
_DPU_RUNNER = {
    "ref": "libvart-cpu-runner.so",
    "run": "librt-engine.so",
    "sim": "libvart-sim-runner.so",
}
_VIEWS = ("reshape-fix", "concat-fix")
"""Operators without work of their own: they only say where bytes stand."""


def partition(lowered: Lowered, target: Target, log: Log) -> Graph:
    """The compiled graph: operators with devices, the subgraph tree, memory and parameters.

    Args:
        lowered: from ``lowering.lower``; its graph is used up.
        target: the DPU.
        log: receives one line per operator that the CPU has to run for lack of support.
    """
    graph = lowered.graph
    devices, reasons = assign_devices(graph, target)
    groups = find_groups(graph, devices)
    for op in graph.ops.values():
        op.attrs["device"] = string(devices[op.name])
        if op.name in reasons:
            op.attrs["cpu_reason"] = string(reasons[op.name])
            if op.type not in CONVERSIONS:
                log(
                    f"[UNILOG][WARNING] xir::Op{{name = {op.name}, type = {op.type}}} has been"
                    f" assigned to CPU: [{reasons[op.name]}]."
                )
    copy_unplaceable_operands(graph, groups)
    add_borders(graph, groups)
    sort_for_file(graph, lowered.ranks)
    for names in _in_order(graph, groups):
        device = graph.ops[names[0]].get("device")
        if device == "DPU":
            graph.root.children.append(_dpu_subgraph(graph, names, target, lowered.constants))
        else:
            graph.root.children.append(_leaf_subgraph(graph, names, device, lowered.constants))
    set_workloads(graph)
    return graph


def assign_devices(graph: Graph, target: Target) -> Tuple[Dict[str, str], Dict[str, str]]:
    """Device of every operator, and why of those that the CPU runs.

    A group on the DPU without any work of its own is given to the CPU as well.
    """
    devices: Dict[str, str] = {}
    reasons: Dict[str, str] = {}
    for op in graph.ops.values():
        if op.type in ("data", "data-fix"):
            devices[op.name] = "USER"
        elif op.type not in CONSTANTS:
            reason = reason_for_cpu(graph, op, target, devices)
            devices[op.name] = "DPU" if reason is None else "CPU"
            if reason is not None:
                reasons[op.name] = reason
    members: Dict[int, List[str]] = {}
    for name, group in find_groups(graph, devices).items():
        if devices.get(name) == "DPU":
            members.setdefault(group, []).append(name)
    for names in members.values():
        if all(graph.ops[name].type in _VIEWS for name in names):
            for name in names:
                devices[name] = "CPU"
                reasons[name] = "there is no DPU operator beside it to work for"
    for name, readers in graph.consumers().items():
        if graph.ops[name].type in CONSTANTS:
            devices[name] = devices[readers[0].name] if readers else "CPU"
    return devices, reasons


def find_groups(graph: Graph, devices: Mapping[str, str]) -> Dict[str, int]:
    """Number of the subgraph of every operator.

    Operators are together if they are on one device, connected, and no path between them leaves
    the device: each change of device along a path is one level up, and groups keep to a level.
    """
    level: Dict[str, int] = {}
    parent: Dict[str, str] = {name: name for name in graph.ops}

    def find(name: str) -> str:
        while parent[name] != name:
            parent[name] = parent[parent[name]]
            name = parent[name]
        return name

    for op in graph.ops.values():
        if op.type in CONSTANTS:
            continue
        before = [name for name in op.input_names if name in level]
        level[op.name] = max(
            (level[name] + (devices[name] != devices[op.name]) for name in before), default=0
        )
        for name in before:
            if level[name] == level[op.name] and devices[name] == devices[op.name]:
                parent[find(op.name)] = find(name)
    for name, readers in graph.consumers().items():
        if graph.ops[name].type in CONSTANTS and readers:
            parent[find(name)] = find(readers[0].name)
    numbers: Dict[str, int] = {}
    return {name: numbers.setdefault(find(name), len(numbers)) for name in graph.ops}


def _in_order(graph: Graph, groups: Mapping[str, int]) -> List[List[str]]:
    """Members of each subgraph in file order; inputs first, then so that each follows its sources.

    Among those that may come next, the one with the earliest work in the file does.
    """
    place = {name: index for index, name in enumerate(graph.ops)}
    members: Dict[int, List[str]] = {}
    for name in graph.ops:
        members.setdefault(groups[name], []).append(name)
    sources: Dict[int, Set[int]] = {group: set() for group in members}
    for op in graph.ops.values():
        read = {groups[n] for n in op.input_names if graph.ops[n].type not in CONSTANTS}
        sources[groups[op.name]] |= read - {groups[op.name]}

    def start(group: int) -> Tuple[int, int]:
        names = members[group]
        if graph.ops[names[0]].get("device") == "USER":
            return 0, -place[names[0]]
        return 1, min(place[name] for name in names if graph.ops[name].type not in CONSTANTS)

    waiting = sorted(members, key=start)
    done: List[int] = []
    while waiting:
        following = next(group for group in waiting if sources[group] <= set(done))
        waiting.remove(following)
        done.append(following)
    return [members[group] for group in done]


def _leaf_subgraph(
    graph: Graph, names: Sequence[str], device: str, constants: Mapping[str, np.ndarray]
) -> Subgraph:
    """A USER or CPU subgraph; fixed constants on the CPU keep their bytes beside them."""
    for name in names:
        if graph.ops[name].type == "const-fix":
            graph.ops[name].attrs["data"] = blob(constants[name].tobytes())
    attrs: Dict[str, Attr] = {"device": string(device)}
    if device == "CPU":
        attrs["runner"] = map_string(_CPU_RUNNER)
    return Subgraph(f"subgraph_{min(names)}", attrs, list(names))


def _dpu_subgraph(
    graph: Graph, names: Sequence[str], target: Target, constants: Mapping[str, np.ndarray]
) -> Subgraph:
    """A DPU subgraph: its layers, its memory, its parameters, and no instructions."""
    plan = plan_memory(graph, names, constants)
    own = [n for n in names if graph.ops[n].type not in ("upload", "download")]
    layers = _layers(graph, names)
    spaces = {f"REG_{space}": space for space in plan.sizes}
    contexts = {
        PARAMETERS: "CONST",
        WORKSPACE: "WORKSPACE",
        INPUTS: "INTERFACE",
        OUTPUTS: "INTERFACE",
    }
    attrs: Dict[str, Attr] = {
        "device": string("DPU"),
        "dpu_name": string(target.dpu_name),
        "dpu_fingerprint": uint64(target.fingerprint),
        "debug_mode": string("function"),
        "if_prefetch": boolean(False),
        "runner": map_string(_DPU_RUNNER),
        "mc_code": blob(b""),
        "mc_code_preload": blob(b""),
        "reg_id_to_size": map_int32({reg: plan.sizes[space] for reg, space in spaces.items()}),
        "reg_id_to_context_type": map_string(
            {reg: "CONST" if space == PARAMETERS else "DATA" for reg, space in spaces.items()}
        ),
        "reg_id_to_context_type_v2": map_string(
            {reg: contexts[space] for reg, space in spaces.items()}
        ),
        "reg_id_to_hw_segment": map_string(
            {reg: "W0" if space == PARAMETERS else "D0" for reg, space in spaces.items()}
        ),
        "reg_id_to_parameter_value": map_bytes({f"REG_{PARAMETERS}": plan.parameters}),
        "children_topological_sort": strings(
            layer.name
            for layer in layers
            if not {graph.ops[n].type for n in layer.ops} & {"upload", "download"}
        ),
    }
    return Subgraph(f"subgraph_{min(own)}", attrs, children=layers)


def _layers(graph: Graph, names: Sequence[str]) -> List[Subgraph]:
    """The grandchildren: one per border or layer, a layer with its constants and fused pooling."""
    consumers = graph.consumers()
    inside = set(names)
    layers: Dict[str, Subgraph] = {}
    for name in _by_inputs(graph, names):
        op = graph.ops[name]
        if op.type == "const-fix":
            continue
        source = op.inputs["input"][0]
        if source in layers and fused_pooling(graph, consumers, graph.ops[source]):
            layers[source].ops.append(name)
            continue
        constants = [n for n in op.input_names if n in inside and graph.ops[n].type == "const-fix"]
        attrs: Dict[str, Attr] = {}
        if op.type == "upload" or op.type in _VIEWS:
            attrs["skip_code_gen"] = boolean(True)
        elif op.type != "download":
            attrs["mc_code"] = blob(b"")
            attrs["mc_code_preload"] = blob(b"")
        ops = sorted(constants, key=list(names).index)
        layers[name] = Subgraph(f"subgraph_{name}", attrs, [*ops, name])
    return list(layers.values())


def _by_inputs(graph: Graph, names: Iterable[str]) -> List[str]:
    """Operators so that each comes right after what it needs, from the last ones in file order."""
    inside = list(names)
    members = set(inside)
    read = {n for name in inside for n in graph.ops[name].input_names}
    done: Dict[str, None] = {}
    for tail in [name for name in inside if name not in read]:
        stack = [tail]
        while stack:
            missing = [
                n for n in graph.ops[stack[-1]].input_names if n in members and n not in done
            ]
            if missing:
                stack.append(missing[0])
            else:
                done.setdefault(stack.pop())
    return list(done)
