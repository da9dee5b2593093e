"""Networks of many kinds as xmodels, executed without torch, against the quantized model."""

from __future__ import annotations

from typing import Any, Tuple

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from deepfake_fpga.compile.xir.xmodel import dump_xmodel, parse_xmodel  # noqa: E402
from deepfake_fpga.inference.quantized_graph import QuantizedGraph  # noqa: E402
from deepfake_fpga.quantize.export import xir_name  # noqa: E402
from deepfake_fpga.quantize.quantizer import QuantizeOptions, Quantizer  # noqa: E402

from .zoo import ZOO, shaken  # noqa: E402

pytestmark = pytest.mark.torch


def nhwc(array: np.ndarray) -> np.ndarray:
    return array.transpose(0, 2, 3, 1) if array.ndim == 4 else array


@pytest.mark.parametrize(("kind", "shape"), ZOO, ids=[kind.__name__ for kind, _ in ZOO])
def test_networks_of_all_kinds_give_the_quantized_models_codes(
    kind: Any, shape: Tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    model = shaken(kind())
    images = torch.rand(10, *shape) * 2 - 0.9
    # The newest release leaves a mean in float, of a kind no file can say how to run.
    options = QuantizeOptions(release="3.0" if kind.__name__ == "Averaged" else "3.5")
    quantizer = Quantizer(model, images[:1], options)
    quantized = quantizer.quantized(quantizer.calibrate([images[:5], images[5:]]))
    graph = parse_xmodel(dump_xmodel(quantized.to_xir()), kind.__name__)
    source = next(op.name for op in graph.ops.values() if op.type == "data")
    found = QuantizedGraph(graph).run({source: nhwc(images[:3].numpy())})
    compared = 0
    for name, codes in quantized.codes(images[:3]).items():
        node = quantized.graph.by_name()[name]
        fix = xir_name(quantized.graph.debug_name(node)) + "_fix"
        if fix in found:
            compared += 1
            # Behind an operator that XIR does not know, maps keep torch's layout.
            expected = codes if node.op.startswith("aten::") else nhwc(codes)
            assert np.array_equal(found[fix].reshape(expected.shape), expected), fix
    assert compared > 2
