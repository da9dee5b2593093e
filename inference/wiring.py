"""Which tensors of a model can be compared with another's, in what order, and what feeds them.

The same tensor is called differently along the chain: the compiler appends ``_upload_0``,
``_download_0`` and ``(MoveReshape)``, tracing leaves numbers that depend on the torch release.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Collection, Dict, Iterable, List, Optional, Sequence, Tuple

from ..compile.xir.diff import without_trace_label
from ..compile.xir.graph import Graph, Op

_SUFFIX = re.compile(r"(_upload_0|_download_0|\(MoveReshape\)|\(TransferMatMulToConv2d\))")
_TO_FLOAT = ("fix2float", "softmax", "sigmoid")


@dataclass(frozen=True)
class Step:
    """One operator.

    Attributes:
        name: of the operator.
        type: of the operator.
        reads: names of the operators it reads, constants left out.
        tensor: common name of the tensor it makes; ``None`` where that is no fixed-point tensor.
        constants: common names of the parameters it reads.
    """

    name: str
    type: str
    reads: Tuple[str, ...]
    tensor: Optional[str]
    constants: Tuple[str, ...] = ()


@dataclass(frozen=True)
class Wiring:
    """A model's operators in topological order.

    Attributes:
        steps: the operators.
        mask: common name of the mask logits' tensor, ``None`` where the model has none.
        classifier: common name of the classifier's tensor before its sigmoid.
    """

    steps: Tuple[Step, ...]
    mask: Optional[str] = None
    classifier: Optional[str] = None

    @property
    def tensors(self) -> List[str]:
        """Common names in topological order, each once."""
        return list(dict.fromkeys(step.tensor for step in self.steps if step.tensor is not None))

    def before(self, tensor: str, known: Collection[str]) -> Tuple[List[str], List[str], List[str]]:
        """What a tensor is made from.

        Args:
            tensor: common name.
            known: tensors at which to stop.

        Returns:
            The nearest of ``known`` that it is computed from, the parameters read on the way, and
            the types of the operators passed, in topological order.
        """
        by_name = {step.name: step for step in self.steps}
        start = next((step for step in self.steps if step.tensor == tensor), None)
        sources: Dict[str, None] = {}
        passed = set()
        waiting = [] if start is None else [start.name]
        while waiting:
            step = by_name.get(waiting.pop())
            if step is None or step.name in passed:
                continue
            if step.tensor is not None and step.tensor != tensor and step.tensor in known:
                sources[step.tensor] = None
                continue
            passed.add(step.name)
            waiting.extend(step.reads)
        order = {name: at for at, name in enumerate(self.tensors)}
        ops = [step for step in self.steps if step.name in passed]
        return (
            sorted(sources, key=lambda name: order[name]),
            list(dict.fromkeys(name for step in ops for name in step.constants)),
            [step.type for step in ops if step.type not in ("fix", "upload", "download")],
        )


def common_name(tensor: str) -> str:
    """A tensor's name without what the compiler appended."""
    return _SUFFIX.sub("", tensor)


def graph_wiring(graph: Graph) -> Wiring:
    """The wiring of an XIR graph, quantized or compiled."""
    consts = {o.name for o in graph.ops.values() if _is_constant(graph, o)}
    steps = []
    for op in graph.ops.values():
        if op.name in consts or op.type == "const":
            continue
        fixed = op.type == "fix" or op.tensor.fix_point is not None
        steps.append(
            Step(
                op.name,
                op.type,
                tuple(name for name in op.input_names if name not in consts),
                common_name(op.tensor.name) if fixed else None,
                tuple(graph.ops[n].tensor.name for n in op.input_names if n in consts),
            )
        )
    mask, classifier = _roles(graph)
    return Wiring(tuple(steps), mask, classifier)


def align(left: Iterable[str], right: Iterable[str]) -> Dict[str, str]:
    """Tensors of the one side to their counterparts on the other.

    By name; what is left over by name without the numbers that tracing leaves, in order, where
    both sides have as many of it.
    """
    mine, theirs = list(left), list(right)
    pairs = {name: name for name in mine if name in set(theirs)}
    rest: Dict[str, Tuple[List[str], List[str]]] = {}
    for side, names in enumerate((mine, theirs)):
        for name in names:
            if name not in pairs:
                rest.setdefault(without_trace_label(name), ([], []))[side].append(name)
    for lefts, rights in rest.values():
        if len(lefts) == len(rights):
            pairs.update(zip(lefts, rights))
    order = {name: at for at, name in enumerate(mine)}
    return dict(sorted(pairs.items(), key=lambda pair: order[pair[0]]))


def roles_by_shape(
    tails: Sequence[Tuple[str, Sequence[int]]],
) -> Tuple[Optional[str], Optional[str]]:
    """The mask (a map of two or more classes) and the classifier (one value) among outputs."""
    masks = [name for name, dims in tails if len(dims) == 4 and dims[3] >= 2 and dims[1] > 1]
    classifiers = [name for name, dims in tails if tuple(dims[1:]) == (1,)]
    if len(masks) != 1 or len(classifiers) != 1:
        return None, None
    return masks[0], classifiers[0]


def _is_constant(graph: Graph, op: Op) -> bool:
    if op.type == "const-fix":
        return True
    return op.type == "fix" and graph.input_ops(op)[0].type == "const"


def _roles(graph: Graph) -> Tuple[Optional[str], Optional[str]]:
    tails: List[Tuple[str, Any]] = []
    for op in graph.tail_ops():
        if op.type.startswith(("const", "data", "stack")):
            continue
        source = op
        while source.type in _TO_FLOAT:
            source = graph.input_ops(source)[0]
        if source.type == "fix" or source.tensor.fix_point is not None:
            tails.append((common_name(source.tensor.name), op.tensor.dims))
    return roles_by_shape(tails)
