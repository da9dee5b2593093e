"""Compiled graphs made by hand, with constants inside: for benchmarks and for tests of devices.

``GraphBuilder`` makes any small ``*-fix`` graph; ``uynet`` makes a whole U-YNet of any width with
random int8 parameters, shaped and named as the compiler shapes it, without a checkpoint and
without calibration.
"""

from __future__ import annotations

import math
from typing import Any, Dict, List, Optional, Sequence, Tuple

import numpy as np

from ...compile.xir.attributes import Attr, blob, boolean, floats, int32, int32s, string
from ...compile.xir.graph import Graph, Op, Subgraph, float32_tensor, int8_tensor

Pair = Tuple[int, int]


class GraphBuilder:
    """Adds operators to one USER, one DPU and one CPU subgraph.

    Attributes:
        graph: the graph so far; call ``finish`` before using it.
    """

    def __init__(self, name: str = "handmade", dpu_name: str = "DPUCVDX8H_ISA1_F2W2_8PE") -> None:
        self.graph = Graph(name)
        self._dpu_name = dpu_name
        self._members: Dict[str, List[str]] = {"USER": [], "DPU": [], "CPU": []}

    def input(self, dims: Sequence[int], fix_point: int, name: str = "image") -> str:
        """A ``data-fix`` with its upload; returns the upload's operator name."""
        attrs = {"shape": int32s(dims), "data_type": string("XINT8")}
        self._add("USER", Op(name, "data-fix", int8_tensor(name + "_fix", dims, fix_point), attrs))
        upload = name + "_upload_0"
        tensor = int8_tensor(name + "_fix_upload_0", dims, fix_point)
        self._add("DPU", Op(upload, "upload", tensor, {}, {"input": (name,)}))
        return upload

    def output(self, source: str) -> str:
        """A download of ``source``."""
        op = self.graph.op(source)
        name = source + "_download_0"
        tensor = int8_tensor(name + "_fix", op.tensor.dims, op.tensor.fix_point or 0)
        return self._add("DPU", Op(name, "download", tensor, {}, {"input": (source,)}))

    def constant(self, name: str, codes: np.ndarray, fix_point: int) -> str:
        """A ``const-fix`` with its bytes."""
        attrs = {
            "shape": int32s(codes.shape),
            "data_type": string("XINT8"),
            "data": blob(np.ascontiguousarray(codes, np.int8).tobytes()),
        }
        return self._add(
            "DPU", Op(name, "const-fix", int8_tensor(name, codes.shape, fix_point), attrs)
        )

    def add(
        self,
        name: str,
        kind: str,
        dims: Sequence[int],
        fix_point: int,
        inputs: Sequence[str],
        weights: Optional[str] = None,
        bias: Optional[str] = None,
        **attrs: Any,
    ) -> str:
        """A ``*-fix`` operator in the DPU subgraph; attributes as plain Python values."""
        arguments = {"input": tuple(inputs)}
        if weights is not None:
            arguments["weights"] = (weights,)
        if bias is not None:
            arguments["bias"] = (bias,)
        typed = {key: _attr(value) for key, value in attrs.items()}
        tensor = int8_tensor(name + "_fix", dims, fix_point)
        return self._add("DPU", Op(name, kind, tensor, typed, arguments))

    def on_host(self, name: str, kind: str, dims: Sequence[int], source: str, **attrs: Any) -> str:
        """A float operator in the CPU subgraph."""
        typed = {key: _attr(value) for key, value in attrs.items()}
        if kind in ("fix2float", "float2fix"):
            typed.update(
                bit_width=int32(8), round_mode=string("DPU_ROUND"), if_signed=boolean(True)
            )
        tensor = float32_tensor(name, dims)
        return self._add("CPU", Op(name, kind, tensor, typed, {"input": (source,)}))

    def convolution(
        self,
        name: str,
        source: str,
        weights: np.ndarray,
        bias: Optional[np.ndarray],
        fix_points: Tuple[int, int, int],
        dims: Sequence[int],
        kind: str = "conv2d-fix",
        **attrs: Any,
    ) -> str:
        """A convolution of any kind with its constants.

        Args:
            name: of the operator.
            source: operator read.
            weights: int8 ``OHWI`` (``MHWC`` where depthwise).
            bias: int8 ``[O]`` or ``None``.
            fix_points: of weights, bias and output.
            dims: of the output.
            kind: operator type.
            attrs: ``stride``, ``dilation``, ``pad``, ``nonlinear`` where not the default.
        """
        fw, fb, fo = fix_points
        given = {"stride": (1, 1), "kernel": (weights.shape[2], weights.shape[1])}
        given.update(attrs)
        weight_op = self.constant(name + "_weight", weights, fw)
        bias_op = None if bias is None else self.constant(name + "_bias", bias, fb)
        return self.add(name, kind, dims, fo, [source], weight_op, bias_op, **given)

    def finish(self) -> Graph:
        """Writes the subgraph tree and returns the graph."""
        self.graph.root.children = [
            Subgraph(
                f"subgraph_{device.lower()}",
                {"device": string(device), "dpu_name": string(self._dpu_name)},
                names,
            )
            for device, names in self._members.items()
            if names
        ]
        return self.graph

    def _add(self, device: str, op: Op) -> str:
        self.graph.add(op)
        self._members[device].append(op.name)
        return op.name


def uynet(width: int, size: int = 224, seed: int = 0) -> Graph:
    """A U-YNet with random parameters.

    Args:
        width: channels of the first level.
        size: sides of the input, a multiple of 112 (the classifier pools by 2 and 7).
        seed: of the parameters.

    Returns:
        A graph with one DPU subgraph of two outputs: mask logits ``[1, size, size, 2]`` and,
        through a sigmoid on the host, ``[1, 1]``.
    """
    random = np.random.default_rng(seed)
    build = GraphBuilder(f"uynet_w{width}")

    def conv(name: str, source: str, outputs: int, kernel: int, relu: bool = True) -> str:
        _, height, wide, channels = build.graph.op(source).tensor.dims
        weights, cut = _weights(random, (outputs, kernel, kernel, channels))
        bias = random.integers(-128, 128, outputs).astype(np.int8)
        pad = kernel // 2
        return build.convolution(
            name,
            source,
            weights,
            bias,
            (cut, cut + 4, 5),
            (1, height, wide, outputs),
            pad=(pad, pad, pad, pad),
            nonlinear="RELU" if relu else "NONE",
        )

    def double(name: str, source: str, outputs: int) -> str:
        return conv(name + "_1", conv(name + "_0", source, outputs, 3), outputs, 3)

    def pool(name: str, source: str, kernel: int) -> str:
        _, height, wide, channels = build.graph.op(source).tensor.dims
        dims = (1, height // kernel, wide // kernel, channels)
        pair = (kernel, kernel)
        return build.add(name, "pool-fix", dims, 5, [source], kernel=pair, stride=pair, type="MAX")

    def up(name: str, source: str, skip: str) -> str:
        _, height, wide, channels = build.graph.op(source).tensor.dims
        outputs = channels // 2
        weights, cut = _weights(random, (outputs, 2, 2, channels), terms=channels)
        bias = random.integers(-128, 128, outputs).astype(np.int8)
        dims = (1, height * 2, wide * 2, outputs)
        raised = build.convolution(
            name + "_up",
            source,
            weights,
            bias,
            (cut, cut + 4, 5),
            dims,
            "transposed-conv2d-fix",
            stride=(2, 2),
        )
        joined = build.add(
            name + "_concat",
            "concat-fix",
            (*dims[:3], outputs * 2),
            5,
            [skip, raised],
            axis=3,
        )
        return double(name, joined, outputs)

    levels = [double("inc", build.input((1, size, size, 3), 5), width)]
    for level in range(1, 5):
        pooled = pool(f"down{level}_pool", levels[-1], 2)
        levels.append(double(f"down{level}", pooled, width << level))
    small = pool("classifier_pool7", pool("classifier_pool2", levels[-1], 2), size // 32)
    hidden = conv("linear_1", small, width * 8, 1)
    verdict = conv("linear_2", hidden, 1, 1, relu=False)
    flat = build.add("flat", "reshape-fix", (1, 1), 5, [verdict], shape=(1, 1))
    top = levels[-1]
    for level in range(4):
        top = up(f"up{level + 1}", top, levels[3 - level])
    mask = build.output(conv("outc", top, 2, 1, relu=False))
    real = build.on_host("real", "fix2float", (1, 1), build.output(flat), fix_point=5)
    build.on_host("sigmoid", "sigmoid", (1, 1), real)
    build.on_host("mask", "fix2float", (1, size, size, 2), mask, fix_point=5)
    return build.finish()


def _weights(
    random: np.random.Generator, shape: Tuple[int, ...], terms: int = 0
) -> Tuple[np.ndarray, int]:
    """Random int8 weights and a shift that keeps their sums near the range of the input."""
    weights = np.clip(np.round(random.normal(0.0, 32.0, shape)), -128, 127).astype(np.int8)
    count = terms or int(np.prod(shape[1:]))
    return weights, round(math.log2(32.0 * math.sqrt(count / 2)))


def _attr(value: Any) -> Attr:
    if isinstance(value, bool):
        return boolean(value)
    if isinstance(value, int):
        return int32(value)
    if isinstance(value, str):
        return string(value)
    if any(isinstance(item, float) for item in value):
        return floats(value)
    return int32s(value)
