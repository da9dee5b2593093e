"""Feature maps are resized to torch's values."""

from __future__ import annotations

import numpy as np
import pytest

from deepfake_fpga.inference.resizing import resize

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch


def by_torch(values: np.ndarray, scale: int, mode: str, align: bool) -> np.ndarray:
    moved = torch.from_numpy(np.ascontiguousarray(values.transpose(0, 3, 1, 2)))
    options = {} if mode == "nearest" else {"align_corners": align}
    done = torch.nn.functional.interpolate(moved, scale_factor=scale, mode=mode, **options)
    return np.asarray(done.numpy().transpose(0, 2, 3, 1))


def codes(size: tuple[int, ...], seed: int) -> np.ndarray:
    """Values on a fixed-point grid, as feature maps have."""
    rng = np.random.RandomState(seed)
    return (rng.randint(-128, 128, size) / 16.0).astype(np.float32)


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("size", [(1, 1), (5, 7), (28, 28)])
def test_nearest_and_half_pixel_bilinear_are_equal(scale: int, size: tuple[int, int]) -> None:
    x = codes((2, *size, 3), seed=scale)
    out = (size[0] * scale, size[1] * scale)
    assert np.array_equal(resize(x, out, "NEAREST"), by_torch(x, scale, "nearest", False))
    ours = resize(x, out, "BILINEAR", half_pixel_centers=True)
    theirs = by_torch(x, scale, "bilinear", False)
    if scale in (2, 4):  # the weights are exact in float32
        assert np.array_equal(ours, theirs)
    else:  # positions near 84 are 7.6e-6 apart in float32, and neighbours up to 16
        assert np.max(np.abs(ours - theirs)) <= 16 * 7.7e-6


def test_aligned_corners_are_equal_to_the_last_place() -> None:
    x = codes((1, 14, 9, 4), seed=1)
    ours = resize(x, (28, 18), "BILINEAR", align_corners=True)
    assert np.max(np.abs(ours - by_torch(x, 2, "bilinear", True))) <= 2e-6
    # The corners keep their places; with half-pixel centres they would too, the rest would not.
    assert np.array_equal(ours[:, [0, -1]][:, :, [0, -1]], x[:, [0, -1]][:, :, [0, -1]])
    other = resize(x, (28, 18), "BILINEAR", half_pixel_centers=True)
    assert np.max(np.abs(ours - other)) > 0.01


def test_another_mode_is_refused() -> None:
    with pytest.raises(ValueError, match="CUBIC"):
        resize(codes((1, 2, 2, 1), seed=0), (4, 4), "CUBIC")
