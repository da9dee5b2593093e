"""The quantized model as an XIR graph: the ``<Name>_int.xmodel`` of the graph's release.

Operators are float, NHWC, with a ``fix`` operator behind every tensor that is quantized; constants
hold values that lie on their grid already (rule 9 of the vendor's quantizer). Conversion to
integers is the compiler's work.
"""

from __future__ import annotations

from typing import Dict, List, Mapping, Optional, Sequence, Tuple

import numpy as np

from ..compile.xir.attributes import Attr, boolean, int32, int32s, string, strings
from ..compile.xir.attributes import blob as raw_bytes
from ..compile.xir.graph import Graph, Op, float32_tensor
from ..errors import UnsupportedError
from . import graph as g
from .graph import Node, QuantizerGraph
from .layout import SINK, SWIM, channels_last, takes_maps
from .releases import Flattening
from .xir_operators import EMIT, NHWC_AXIS, drops_maps, unknown, xir_name

__all__ = ["Exporter", "to_xir", "xir_name"]


def to_xir(
    graph: QuantizerGraph,
    outputs: Mapping[Node, int],
    params: Mapping[str, int],
    values: Mapping[str, np.ndarray],
    batch: int = 1,
) -> Graph:
    """The XIR graph of ``graph``.

    Args:
        graph: the quantizer's graph.
        outputs: fix position of every tensor that is quantized.
        params: fix position of every parameter, by key.
        values: float32 values of every parameter on their grid, by key, in PyTorch's layout.
        batch: images at a time; the compiler takes 1.

    Raises:
        UnsupportedError: an operator or layout that has no counterpart.
    """
    return Exporter(graph, outputs, params, values, batch).export()


class Exporter:
    """The XIR graph while it is made; ``to_xir`` runs it."""

    def __init__(
        self,
        graph: QuantizerGraph,
        outputs: Mapping[Node, int],
        params: Mapping[str, int],
        values: Mapping[str, np.ndarray],
        batch: int = 1,
    ) -> None:
        self.graph, self.params, self.values, self.batch = graph, params, values, batch
        self.outputs = dict(outputs)
        self.consumers = graph.consumers()
        self.maps = channels_last(graph)
        self.xir = Graph(graph.name)
        self.last: Dict[Node, str] = {}
        """What readers of a node connect to: its fix operator where it has one."""
        self.reordered: Dict[Tuple[Node, Tuple[int, ...]], str] = {}
        """A node and an order of axes to the operator that puts it in that order."""
        self.merged = {node for node in graph.nodes if self._merges(node)}
        """Paddings that become part of their reader."""

    def export(self) -> Graph:
        """Parameters first, then the nodes in order, each with its fix."""
        self._move_positions()
        for node in self.graph.nodes:
            for role, key in node.params.items():
                if xir_name(key) not in self.xir.ops:
                    self.const(xir_name(key), self._laid_out(node, role, self.values[key]))
                    self.fix(xir_name(key), self.params[key])
        for node in self.graph.nodes:
            name = xir_name(self.graph.debug_name(node))
            if node.op == g.SHAPE:
                continue
            if node in self.merged:
                self.last[node] = self.last[node.inputs[0]]
                continue
            self.last[node] = EMIT.get(node.op, unknown)(self, node, name)
            if node in self.outputs:
                self.last[node] = self.fix(name, self.outputs[node], self.last[node])
        if self.graph.release.return_ops:
            returned = tuple(self.last[node] for node in self.graph.output_nodes)
            self.xir.attrs["return_ops"] = strings(returned)
        self.xir.root.ops = list(self.xir.ops)
        return self.xir

    def _move_positions(self) -> None:
        """Fix positions of tensors that the exported model does not have, and of one it adds."""
        for node in self.graph.nodes:
            readers = self.consumers[node]
            if node in self.merged and node in self.outputs:
                self.outputs.setdefault(node.inputs[0], self.outputs.pop(node))
            concat = readers[0] if len(readers) == 1 and readers[0].op == g.CONCAT else None
            if node.op == g.HARDSWISH and concat in self.outputs and node not in self.outputs:
                self.outputs[node] = self.outputs[concat]

    def _merges(self, node: Node) -> bool:
        """Whether a padding with zeros, the same on opposite sides, goes into its one reader."""
        if node.op not in (g.PAD, g.PAD_ND) or len(node.shape) != 4:
            return False
        widths = [*node.attrs["padding"], 0, 0]
        plain = node.attrs["mode"] == "constant" and node.attrs["value"] == 0
        even = widths[0] == widths[1] >= 0 and widths[2] == widths[3] >= 0 and not any(widths[4:])
        readers, windows = (
            self.consumers[node],
            (g.CONV2D, g.DEPTHWISE_CONV2D, g.MAXPOOL, g.AVGPOOL),
        )
        alone = len(readers) == 1 and self.graph.uses()[node] == 1
        return plain and even and alone and readers[0].op in windows

    def padding(self, node: Node) -> Tuple[int, int]:
        """The padding (height, width) of a window operator, with one merged into it."""
        high, wide = node.attrs.get("padding", (0, 0))
        if node.inputs[0] in self.merged:
            widths = [*node.inputs[0].attrs["padding"], 0, 0]
            high, wide = high + widths[2], wide + widths[0]
        return high, wide

    # --- layout ---

    def dims(self, node: Node) -> Tuple[int, ...]:
        """Shape of the result in XIR: feature maps NHWC."""
        shape = (self.batch, *node.shape[1:]) if node.shape else ()
        return (shape[0], shape[2], shape[3], shape[1]) if node in self.maps else shape

    def axis(self, node: Node, axis: int) -> int:
        """An axis of the model's, as the exported node counts it."""
        return NHWC_AXIS[axis] if node in self.maps else axis

    def given(self, node: Node, index: int = 0) -> str:
        """What ``node`` reads as its operand ``index``, in the order of axes it takes."""
        source = node.inputs[index]
        wants_map = takes_maps(node) and node in self.maps
        if node.op == g.MEAN and source in self.maps and drops_maps(node):
            wants_map = True
        if len(source.shape) != 4 or (source in self.maps) == wants_map:
            return self.last[source]
        if source in self.maps:
            return self.reorder(source, SINK, f"{self.graph.debug_name(source)}_sink_transpose_0")
        several = any(other in self.maps for other in node.inputs)
        of, how = (node, "neighbor") if several else (source, "swim")
        return self.reorder(source, SWIM, f"{self.graph.debug_name(of)}_{how}_transpose_0")

    def reorder(self, source: Node, order: Tuple[int, ...], name: str) -> str:
        """``source`` with its axes in another order; a mere reshape where no value moves."""
        key = (source, order)
        if key not in self.reordered:
            before = self.dims(source)
            after = tuple(before[axis] for axis in order)
            moving = [axis for axis in order if before[axis] != 1]
            if moving == sorted(moving):
                self.reordered[key] = self.reshape(xir_name(name), after, self.last[source])
            else:
                self.reordered[key] = self.add(
                    xir_name(name),
                    "transpose",
                    after,
                    {"order": int32s(order)},
                    {"input": [self.last[source]]},
                )
        return self.reordered[key]

    def reshape(self, name: str, sizes: Sequence[int], source: str) -> str:
        """``source`` in another shape, which stands beside it as a stack of constants."""
        parts = [
            self.const(f"{name}_shape_attr_{i}_", np.array([size], np.float32))
            for i, size in enumerate(sizes)
        ]
        shape = self.add(
            f"{name}_shape_i0", "stack", (len(sizes), 1), {"axis": int32(0)}, {"input": parts}
        )
        self.xir.ops[shape].tensor.attrs["shape_info"] = int32s(sizes)
        inputs = {"input": [source], "shape": [shape]}
        return self.add(name, "reshape", sizes, {"shape": int32s((0,))}, inputs)

    # --- building blocks ---

    def add(
        self,
        name: str,
        kind: str,
        dims: Sequence[int],
        attrs: Mapping[str, Attr],
        inputs: Mapping[str, Sequence[str]],
    ) -> str:
        """Adds an operator; arguments without an operand are left out."""
        given = {argument: tuple(names) for argument, names in inputs.items() if names}
        self.xir.add(Op(name, kind, float32_tensor(name, dims), dict(attrs), given))
        return name

    def simple(self, node: Node, name: str, kind: str, attrs: Mapping[str, Attr]) -> str:
        """An operator that reads its operands as ``input`` and nothing else."""
        read = [i for i, source in enumerate(node.inputs) if source.op != g.SHAPE]
        inputs = {"input": [self.given(node, i) for i in read]}
        return self.add(name, kind, self.dims(node), attrs, inputs)

    def product(self, node: Node, name: str, factor: float, inner: str) -> str:
        """``inner`` times a constant, under the node's own name."""
        const = self.const(f"{name}_i1", np.array([factor], np.float32))
        return self.add(name, "mul", self.dims(node), {}, {"input": [inner, const]})

    def const(self, name: str, value: np.ndarray) -> str:
        """Adds a float constant."""
        value = np.ascontiguousarray(value, np.float32)
        attrs = {
            "data": raw_bytes(value.astype("<f4").tobytes()),
            "data_type": string("float32"),
            "shape": int32s(value.shape),
        }
        return self.add(name, "const", value.shape, attrs, {})

    def fix(self, name: str, position: int, reads: Optional[str] = None) -> str:
        """Adds the fix called after ``name``, behind it or behind ``reads``."""
        attrs = {
            "fix_point": int32(position),
            "bit_width": int32(self.graph.bits),
            "round_mode": string("DPU_ROUND"),
            "if_signed": boolean(True),
        }
        source = name if reads is None else reads
        dims = self.xir.ops[source].tensor.dims
        return self.add(f"{name}_fix", "fix", dims, attrs, {"input": [source]})

    def param(self, node: Node, role: str) -> List[str]:
        """What to read for a parameter of ``node``; nothing where it has none."""
        key = node.params.get(role)
        return [] if key is None else [f"{xir_name(key)}_fix"]

    def unsupported(self, node: Node, reason: str) -> UnsupportedError:
        """The error for ``node``."""
        return UnsupportedError(f"{node.op} cannot be exported to an .xmodel: {reason}", node.scope)

    # --- parameter layouts ---

    def _laid_out(self, node: Node, role: str, value: np.ndarray) -> np.ndarray:
        laid_out = value
        if role != "weight" or node.op == g.BATCH_NORM:
            pass
        elif node.op == g.CONV2D:
            laid_out = value.transpose(0, 2, 3, 1)
        elif node.op == g.DEPTHWISE_CONV2D:
            channels = node.attrs["in_channels"]
            laid_out = value.reshape((channels, -1, *value.shape[2:])).transpose(1, 2, 3, 0)
        elif node.op in g.TRANSPOSED:
            # The vendor's library runs the kernel the other way round.
            laid_out = value.transpose(1, 2, 3, 0)[:, ::-1, ::-1, :]
        elif self.graph.release.flattening is not Flattening.REORDERED:
            pass
        elif node.op == g.DENSE and self.columns_follow(node.inputs[0]):
            # Columns from (C, H, W) to (H, W, C), since the map it reads is flattened as NHWC.
            shape = node.inputs[0].inputs[0].shape
            columns = value.reshape((value.shape[0], *shape[1:])).transpose(0, 2, 3, 1)
            laid_out = columns.reshape(value.shape)
        return laid_out

    def columns_follow(self, node: Node) -> bool:
        """Whether ``node`` flattens a map for one linear layer, whose columns are put in order."""
        if node.op not in _RESHAPING or len(node.shape) != 2:
            return False
        readers = self.consumers[node]
        alone = self.graph.uses()[node] == 1 and len(readers) == 1 and readers[0].op == g.DENSE
        if not alone or node.inputs[0] not in self.maps:
            return False
        key = readers[0].params["weight"]
        if sum(key in other.params.values() for other in self.graph.nodes) > 1:
            # Its columns cannot be in two orders.
            return False
        return self.graph.release.flattening is Flattening.REORDERED


_RESHAPING = (g.FLATTEN, g.RESHAPE, g.SQUEEZE, g.UNSQUEEZE)
