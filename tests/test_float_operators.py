"""Float operators on the host against PyTorch's own, in the layouts of an exported model."""

from __future__ import annotations

from typing import Any, Dict, List, Sequence

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402

from deepfake_fpga.compile.xir.attributes import boolean, int32, int32s, string  # noqa: E402
from deepfake_fpga.compile.xir.graph import Op, float32_tensor  # noqa: E402
from deepfake_fpga.errors import UnsupportedError  # noqa: E402
from deepfake_fpga.inference.float_operators import FLOAT_RULES  # noqa: E402

pytestmark = pytest.mark.torch


def attr(value: Any) -> Any:
    if isinstance(value, bool):
        return boolean(value)
    if isinstance(value, int):
        return int32(value)
    return string(value) if isinstance(value, str) else int32s(value)


def run(
    kind: str, dims: Sequence[int], attrs: Dict[str, Any], **operands: List[np.ndarray]
) -> np.ndarray:
    names = {arg: tuple(f"{arg}{i}" for i in range(len(x))) for arg, x in operands.items()}
    made = {key: attr(value) for key, value in attrs.items()}
    op = Op("op", kind, float32_tensor("op", dims), made, names)
    return FLOAT_RULES[kind](op, [array for arrays in operands.values() for array in arrays])


def noise(*shape: int) -> Any:
    return torch.randn(shape, generator=torch.Generator().manual_seed(len(shape)))


def nhwc(x: Any) -> np.ndarray:
    return np.ascontiguousarray(x.permute(0, 2, 3, 1).numpy())


@pytest.mark.parametrize("groups", [1, 2])
def test_convolution(groups: int) -> None:
    x, w, b = noise(2, 4, 9, 8), noise(6, 4 // groups, 3, 2), noise(6)
    expected = nhwc(F.conv2d(x, w, b, (2, 1), (2, 1), (1, 2), groups))
    attrs = {
        "kernel": (2, 3), "stride": (1, 2), "dilation": (2, 1), "pad": (1, 1, 2, 2),
        "group": groups,
    }  # fmt: skip
    found = run(
        "conv2d", expected.shape, attrs, input=[nhwc(x)], weights=[nhwc(w)], bias=[b.numpy()]
    )
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_depthwise_convolution() -> None:
    x, w = noise(2, 3, 6, 6), noise(6, 1, 3, 3)
    expected = nhwc(F.conv2d(x, w, None, 1, 1, 1, 3))
    weights = w.reshape(3, 2, 3, 3).permute(1, 2, 3, 0).numpy()
    attrs = {"kernel": (3, 3), "stride": (1, 1), "dilation": (1, 1), "pad": (1, 1, 1, 1)}
    found = run("depthwise-conv2d", expected.shape, attrs, input=[nhwc(x)], weights=[weights])
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_transposed_convolution() -> None:
    x, w, b = noise(2, 4, 5, 4), noise(4, 3, 4, 3), noise(3)
    expected = nhwc(F.conv_transpose2d(x, w, b, (2, 3), (1, 2)))
    weights = w.permute(1, 2, 3, 0).flip(1, 2).numpy()
    attrs = {"kernel": (3, 4), "stride": (3, 2), "dilation": (1, 1), "pad": (2, 2, 1, 1)}
    found = run(
        "transposed-conv2d", expected.shape, attrs, input=[nhwc(x)], weights=[weights],
        bias=[b.numpy()],
    )  # fmt: skip
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("kind", ["maxpool2d", "avgpool2d"])
def test_pools(kind: str) -> None:
    x = noise(2, 3, 7, 8) - 5
    pool = F.max_pool2d if kind == "maxpool2d" else F.avg_pool2d
    expected = nhwc(pool(x, (3, 2), (2, 1), (1, 1)))
    attrs = {"kernel": (2, 3), "stride": (1, 2), "pad": (1, 1, 1, 1), "pad_mode": "FLOOR"}
    found = run(kind, expected.shape, attrs, input=[nhwc(x)])
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_ceiling_lets_a_pool_reach_over_the_edge() -> None:
    x = noise(1, 2, 6, 6) - 5
    expected = nhwc(F.max_pool2d(x, 3, 2, ceil_mode=True))
    attrs = {"kernel": (3, 3), "stride": (2, 2), "pad": (0, 0, 0, 0), "pad_mode": "CEIL"}
    found = run("maxpool2d", expected.shape, attrs, input=[nhwc(x)])
    assert np.array_equal(found, expected)


def test_matrix_product() -> None:
    x, w, b = noise(2, 5, 4), noise(3, 4), noise(3)
    attrs = {"transpose_a": False, "transpose_b": True}
    found = run("matmul", (2, 5, 3), attrs, input=[x.numpy(), w.numpy()], bias=[b.numpy()])
    np.testing.assert_allclose(found, F.linear(x, w, b).numpy(), atol=1e-6)


def test_pixel_shuffle() -> None:
    x = noise(2, 12, 3, 4)
    expected = nhwc(F.pixel_shuffle(x, 2))
    attrs = {"scale": 2, "upscale": True}
    assert np.array_equal(run("pixel-shuffle", expected.shape, attrs, input=[nhwc(x)]), expected)


def test_padding_and_slices() -> None:
    x = noise(1, 3, 4, 5)
    expected = nhwc(F.pad(x, (1, 2, 3, 0), "reflect"))
    attrs = {"paddings": (0, 0, 3, 0, 1, 2, 0, 0), "mode": "REFLECT"}
    assert np.array_equal(run("pad", expected.shape, attrs, input=[nhwc(x)]), expected)
    expected = nhwc(x[:, 1:, ::2])
    attrs = {
        "begin": (0, 0, 0, 1), "end": (1, 4, 5, 3), "strides": (1, 2, 1, 1), "begin_mask": 0b0111,
        "end_mask": 0b0111,
    }  # fmt: skip
    assert np.array_equal(run("strided_slice", expected.shape, attrs, input=[nhwc(x)]), expected)


def test_element_by_element() -> None:
    a, b = noise(2, 3), noise(3)
    assert np.array_equal(run("sub", (2, 3), {}, input=[a.numpy(), b.numpy()]), (a - b).numpy())
    found = run("aten::silu", (2, 3), {}, input=[a.numpy()])
    np.testing.assert_allclose(found, F.silu(a).numpy(), atol=1e-6)
    for kind, function in (
        ("gelu", F.gelu), ("mish", F.mish), ("exp", torch.exp), ("aten::abs", torch.abs),
        ("aten::neg", torch.neg), ("aten::reciprocal", torch.reciprocal),
    ):  # fmt: skip
        found = run(kind, (2, 3), {}, input=[a.numpy()])
        np.testing.assert_allclose(found, function(a).numpy(), rtol=1e-5, atol=1e-6)
    found = run("prelu", (2, 3), {}, input=[a.numpy()], weight=[b.numpy()])
    np.testing.assert_allclose(found, F.prelu(a, b).numpy(), atol=1e-6)


@pytest.mark.parametrize(
    ("shape", "dims", "keep"),
    [((2, 3, 4, 5), (2, 3), False), ((2, 3, 4, 5), (2, 3), True), ((2, 3, 4, 4), (1,), True)],
)
def test_mean_whose_axes_only_the_shapes_tell(shape: Any, dims: Any, keep: bool) -> None:
    x = noise(*shape)
    expected = x.mean(dims, keepdim=keep).numpy()
    found = run("aten::mean", (1, *expected.shape[1:]), {}, input=[x.numpy()])
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_mean_whose_axes_nothing_tells() -> None:
    with pytest.raises(UnsupportedError, match="cannot be told"):
        run("aten::mean", (1, 4), {}, input=[noise(2, 4, 4, 4).numpy()])
