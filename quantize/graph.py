"""The quantizer's graph: operators in the vendor's vocabulary, their order, names and parameters.

Nothing here needs torch; parameters are float32 numpy arrays in PyTorch's layout. The graph is
changed in place by folding and equalization; ``number`` then fixes the running numbers on which
all recorded names rest.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field
from typing import Any, Dict, Iterator, List, Optional, Tuple

import numpy as np

from ..errors import UnsupportedError
from .releases import DEFAULT, Release

INPUT = "nndct_input"
CONV2D = "nndct_conv2d"
DEPTHWISE_CONV2D = "nndct_depthwise_conv2d"
CONV_TRANSPOSE2D = "nndct_conv_transpose_2d"
DEPTHWISE_CONV_TRANSPOSE2D = "nndct_depthwise_conv_transpose_2d"
DENSE = "nndct_dense"
BATCH_NORM = "nndct_batch_norm"
RELU = "nndct_relu"
RELU6 = "nndct_relu6"
LEAKY_RELU = "nndct_leaky_relu"
SIGMOID = "nndct_sigmoid"
TANH = "nndct_tanh"
HARDSIGMOID = "nndct_hsigmoid"
HARDSWISH = "nndct_hswish"
SOFTMAX = "nndct_softmax"
MAXPOOL = "nndct_maxpool"
AVGPOOL = "nndct_avgpool"
ADAPTIVE_AVGPOOL = "nndct_adaptive_avg_pool2d"
ADD = "nndct_elemwise_add"
SUB = "nndct_elemwise_sub"
MUL = "nndct_elemwise_mul"
CONCAT = "nndct_concat"
RESIZE = "nndct_resize"
FLATTEN = "nndct_flatten"
RESHAPE = "nndct_reshape"
DROPOUT = "nndct_dropout"
CONST = "nndct_const"
SHAPE = "nndct_shape"
DIV = "nndct_elemwise_div"
RSUB = "nndct_rsub"
MAX = "nndct_max"
MIN = "nndct_min"
MATMUL = "nndct_matmul"
MEAN = "nndct_mean"
PAD = "nndct_pad"
PAD_ND = "nndct_pad_nd"
PRELU = "nndct_prelu"
GELU = "nndct_gelu"
MISH = "nndct_mish"
HARDTANH = "nndct_hardtanh"
PERMUTE = "nndct_permute"
TRANSPOSE = "nndct_transpose"
SQUEEZE = "nndct_squeeze"
UNSQUEEZE = "nndct_unsqueeze"
CONTIGUOUS = "nndct_contiguous"
PIXEL_SHUFFLE = "nndct_pixel_shuffle"
STRIDED_SLICE = "nndct_strided_slice"
CHUNK = "nndct_chunk"
EXPAND = "nndct_expand"
EXPAND_AS = "nndct_expand_as"
REPEAT = "nndct_repeat"
EXP = "nndct_elemwise_exp"

CONVOLUTIONS = frozenset({CONV2D, DEPTHWISE_CONV2D, CONV_TRANSPOSE2D, DEPTHWISE_CONV_TRANSPOSE2D})
TRANSPOSED = frozenset({CONV_TRANSPOSE2D, DEPTHWISE_CONV_TRANSPOSE2D})
WEIGHTED = CONVOLUTIONS | {DENSE}
"""Operators with weights whose accumulator is shifted, and whose bias is corrected."""


@dataclass(eq=False)
class Node:
    """One operator; compared by identity.

    Attributes:
        op: type in the vendor's vocabulary, one of this module's constants.
        scope: module classes and attribute names down to the call, e.g.
            ``UYNet/DoubleConv[inc]/Sequential[double_conv]/Conv2d[0]``; ``input_0`` for inputs.
        inputs: producers in operand order.
        shape: of the result for the traced example (NCHW feature maps).
        attrs: what the operator needs beside its operands; plain Python values.
        params: role (``weight``, ``bias``) to the key in ``QuantizerGraph.params``.
        index: running number in execution order, set by ``QuantizerGraph.number``.
        is_float: whether the result holds float numbers; sizes and masks do not.
        twin: the first result of the operator this is a further result of.
    """

    op: str
    scope: str
    inputs: List[Node]
    shape: Tuple[int, ...]
    attrs: Dict[str, Any] = field(default_factory=dict)
    params: Dict[str, str] = field(default_factory=dict)
    index: int = -1
    is_float: bool = True
    twin: Optional[Node] = None

    @property
    def custom(self) -> bool:
        """Whether the vendor's quantizer does not know the operator and runs it in float."""
        return not self.op.startswith("nndct_")

    def __repr__(self) -> str:
        return f"Node({self.op}_{self.index}, {self.scope!r})"


class QuantizerGraph:
    """A traced model.

    Attributes:
        name: class name of the model.
        release: the vendor's release whose rules and names hold.
        bits: of every code.
        nodes: in execution order.
        params: parameter key (``UYNet::outc.conv.weight``) to float32 array, PyTorch layout.
        outputs: the model's result in its own structure, with a ``Node`` for every tensor.
        notes: where the graph computes something else than the model, in words.
    """

    def __init__(self, name: str, release: Release = DEFAULT) -> None:
        self.name = name
        self.release = release
        self.bits = 8
        self.nodes: List[Node] = []
        self.params: Dict[str, np.ndarray] = {}
        self.outputs: Any = None
        self.notes: List[str] = []

    @property
    def inputs(self) -> List[Node]:
        """The network inputs in argument order."""
        return [node for node in self.nodes if node.op == INPUT]

    @property
    def output_nodes(self) -> List[Node]:
        """The nodes the model returns, in the order of its result; one may stand twice."""
        return list(leaves(self.outputs))

    def consumers(self) -> Dict[Node, List[Node]]:
        """Node to the nodes that read it, in execution order, each once."""
        table: Dict[Node, List[Node]] = {node: [] for node in self.nodes}
        for node in self.nodes:
            for source in dict.fromkeys(node.inputs):
                table[source].append(node)
        return table

    def uses(self) -> Dict[Node, int]:
        """Node to the number of its consumers; being returned by the model counts as one."""
        counts = {
            node: len({reader.twin or reader for reader in readers})
            for node, readers in self.consumers().items()
        }
        for node in set(self.output_nodes):
            counts[node] += 1
        whole: Dict[Node, int] = {}
        for node in self.nodes:
            first = node.twin or node
            whole[first] = whole.get(first, 0) + counts[node]
        return {node: whole[node.twin or node] for node in self.nodes}

    def number(self) -> None:
        """Gives every node its running number in execution order."""
        index = -1
        for node in self.nodes:
            index += node.twin is None
            node.index = index if node.twin is None else node.twin.index

    def node_name(self, node: Node) -> str:
        """The name we use, and result files of release 3.5, e.g. ``UYNet::nndct_conv2d_1``."""
        kind = re.sub("[^0-9A-Za-z]", "_", node.op.replace("::", "_"))
        return f"{self.name}::{kind}_{node.index}"

    def debug_name(self, node: Node) -> str:
        """The name the exported model and result files of releases before 3.5 use.

        The exported model replaces some of its characters. The vendor's name ends in a number of
        its tracer, which depends on the torch release; ours ends in the node's own running number.
        """
        if node.op == INPUT:
            return f"{self.name}::{node.scope}"
        if node.op == CONST:
            return f"{self.name}::{node.index}"
        return f"{self.name}::{node.scope}/ret.{node.index}"

    def file_name(self, node: Node) -> str:
        """The name result files of the graph's release use."""
        return self.node_name(node) if self.release.plain_names else self.debug_name(node)

    def by_name(self) -> Dict[str, Node]:
        """``node_name`` to node, in execution order."""
        return {self.node_name(node): node for node in self.nodes}

    def remove(self, node: Node) -> None:
        """Takes ``node`` out; its readers read its only input instead."""
        (source,) = node.inputs
        for reader in self.nodes:
            reader.inputs = [source if n is node else n for n in reader.inputs]
        self.outputs = substitute(self.outputs, {node: source})
        self.nodes.remove(node)

    def weight(self, node: Node, role: str = "weight") -> Optional[np.ndarray]:
        """The parameter of ``node`` in ``role``, or ``None`` where it has none."""
        key = node.params.get(role)
        return None if key is None else self.params[key]

    def md5(self) -> str:
        """Digest of the structure alone (types and wiring), equal to the vendor's ``graph_md5``.

        It is taken over the indented JSON text of one record per node, in execution order, with
        the types of its producers and of its consumers; a return node closes the list.
        """
        consumers = self.consumers()
        returned = self.output_nodes
        records = []
        further: Dict[Node, List[Node]] = {}
        for node in self.nodes:
            if node.twin is not None:
                further.setdefault(node.twin, []).append(node)
        for node in self.nodes:
            if node.twin is not None:
                continue
            results = [node, *further.get(node, [])]
            readers = [
                c.op
                for result in results
                for c in consumers[result]
                if c.twin is None
                for i in c.inputs
                if i is result
            ]
            records.append(
                {
                    "op": node.op,
                    "input_ops": [i.op for i in node.inputs],
                    "output_ops": readers + ["nndct_return"] * any(r in returned for r in results),
                }
            )
        records.append(
            {"op": "nndct_return", "input_ops": [n.op for n in returned], "output_ops": []}
        )
        text = json.dumps({"nodes": records}, indent=2)
        return hashlib.md5(text.encode("utf-8")).hexdigest()


def remove_dropout(graph: QuantizerGraph) -> None:
    """Takes dropout, which does nothing in evaluation, out of ``graph``; numbers what is left."""
    for node in [n for n in graph.nodes if n.op == DROPOUT]:
        graph.remove(node)
    graph.number()


def leaves(structure: Any) -> Iterator[Node]:
    """The nodes in a nested result, in order.

    Raises:
        UnsupportedError: something in it is neither a node nor a tuple, list or dict of such.
    """
    if isinstance(structure, Node):
        yield structure
    elif isinstance(structure, (tuple, list)):
        for item in structure:
            yield from leaves(item)
    elif isinstance(structure, dict):
        for item in structure.values():
            yield from leaves(item)
    elif structure is not None:
        raise UnsupportedError(
            "The model returns something that is neither a tensor nor a tuple, list or dict of "
            "tensors",
            f"a {type(structure).__name__}: {structure!r}",
            "return only what is computed from the input",
        )


def substitute(structure: Any, values: Dict[Node, Any]) -> Any:
    """``structure`` with every node found in ``values`` replaced; containers keep their type."""
    if isinstance(structure, Node):
        return values.get(structure, structure)
    if isinstance(structure, tuple):
        items = [substitute(item, values) for item in structure]
        return type(structure)(*items) if hasattr(structure, "_fields") else tuple(items)
    if isinstance(structure, list):
        return [substitute(item, values) for item in structure]
    if isinstance(structure, dict):
        return {key: substitute(item, values) for key, item in structure.items()}
    return structure
