"""The folder ``deploy_check_data_int``: every tensor of one forward, to compare a board with."""

from __future__ import annotations

from pathlib import Path
from typing import Dict, List, Sequence

import numpy as np
from torch import Tensor

from ....compile.xir.graph import Op
from ....files import replacing, write_text
from ....quantize import graph as g
from ....quantize.graph import Node
from ....quantize.quantized import QuantizedModel
from ....quantize.xir_operators import xir_name


def dump(model: QuantizedModel, inputs: Sequence[Tensor], folder: Path) -> None:
    """Runs ``inputs`` and writes what every tensor and parameter holds.

    Each has ``<name>.bin`` (float32) and, where it is quantized, ``<name>_fix.bin`` (int8);
    ``shape.txt`` holds the shapes of tensors. Feature maps are NHWC, convolutions OHWI; transposed
    convolutions are turned round as in the exported model.
    """
    folder.mkdir(parents=True, exist_ok=True)
    shapes: List[str] = []
    maps: Dict[Node, Tensor] = {}
    model.execute(inputs, lambda node, result: maps.update({node: result.clone()}))
    for op in model.to_xir().ops.values():
        if op.type == "const":
            _write_parameter(model, op, folder)
    for node, tensor in maps.items():
        if node.op in (g.SHAPE, g.CONST):
            continue
        value = tensor.numpy()
        if value.ndim == 4:
            value = value.transpose(0, 2, 3, 1)
        debug = model.graph.debug_name(node)
        _write(folder, xir_name(debug), value, model.node_positions.get(node))
        shapes.append(f"{list(value.shape)}: {debug}")
    write_text(folder / "shape.txt", "\n".join(shapes) + "\n")


def _write_parameter(model: QuantizedModel, op: Op, folder: Path) -> None:
    positions = {xir_name(key): position for key, position in model.info.params.items()}
    if op.name in positions:
        value = np.frombuffer(op.get("data"), "<f4").reshape(op.tensor.dims)
        _write(folder, op.name, value, positions[op.name])


def _write(folder: Path, name: str, value: np.ndarray, position: object) -> None:
    with replacing(folder / f"{name}.bin") as part:
        part.write_bytes(np.ascontiguousarray(value, "<f4").tobytes())
    if isinstance(position, int):
        codes = np.rint(value * np.float32(2.0**position)).astype(np.int8)
        with replacing(folder / f"{name}_fix.bin") as part:
            part.write_bytes(np.ascontiguousarray(codes).tobytes())
