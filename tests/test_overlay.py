"""The overlay: what is drawn where, that it can be read, and that nothing else changes."""

from __future__ import annotations

from typing import Optional, Tuple

import numpy as np
import pytest

from deepfake_fpga.inference.overlay import draw, full_mask, placeholder, side_by_side
from deepfake_fpga.inference.records import Frame, FrameResult, Status

SIZES = [(256, 256), (1080, 1920), (90, 160)]


def result(
    image: Optional[np.ndarray], mask: Optional[np.ndarray], real: Optional[float] = 0.1
) -> FrameResult:
    status = Status.OK if image is not None else Status.DECODE_ERROR
    return FrameResult(Frame("x.mp4", 12, 0.6, image, status), real, mask, "sim")


def flat(size: Tuple[int, int], value: int) -> np.ndarray:
    return np.full((*size, 3), value, np.uint8)


def square() -> np.ndarray:
    mask = np.zeros((224, 224), np.uint8)
    mask[80:160, 64:176] = 1
    return mask


def luminance(colours: np.ndarray) -> np.ndarray:
    """Relative luminance of sRGB values, as the contrast rule of WCAG 2 defines it."""
    share = colours.astype(float) / 255
    linear = np.where(share <= 0.03928, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    weighted: np.ndarray = linear @ np.array([0.2126, 0.7152, 0.0722])
    return weighted


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("value", [0, 128, 255])
def test_the_marked_pixels_change_and_the_rest_does_not(size: Tuple[int, int], value: int) -> None:
    image = flat(size, value)
    before = image.copy()
    drawn = draw(result(image, square()))
    np.testing.assert_array_equal(image, before)
    assert drawn.shape == image.shape
    assert drawn.dtype == np.uint8
    height, width = size
    middle = drawn[height * 120 // 224, width * 120 // 224].astype(int)
    assert middle[0] - middle[1] > 60  # tinted: far more red than green
    # Between the captions at the top and the legend at the bottom, outside the region.
    row = drawn[height * 120 // 224]
    np.testing.assert_array_equal(row[: width * 55 // 224], before[0, : width * 55 // 224])
    np.testing.assert_array_equal(row[width * 185 // 224 :], before[0, width * 185 // 224 :])


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("value", [0, 128, 255])
def test_the_outline_has_a_bright_and_a_dark_line(size: Tuple[int, int], value: int) -> None:
    drawn = draw(result(flat(size, value), square()))
    height, width = size
    row = luminance(drawn[height * 120 // 224, width * 56 // 224 : width * 72 // 224])
    assert row.max() > 0.6
    assert row.min() < 0.05


@pytest.mark.parametrize("size", SIZES[:2])
@pytest.mark.parametrize("value", [0, 255])
@pytest.mark.parametrize("real", [0.1, 0.9, None])
def test_text_can_be_read(size: Tuple[int, int], value: int, real: Optional[float]) -> None:
    drawn = draw(result(flat(size, value), square(), real))
    height, width = size
    plates = [drawn[: max(10, height // 16), : width // 3], drawn[: height // 20, -width // 8 :]]
    if real is not None:
        plates.append(drawn[-max(10, height // 16) :, : width // 4])
    for plate in plates:
        light = luminance(plate).ravel()
        inside = light[light < 0.9] if value == 255 else light
        assert light.max() > 0.85  # letters
        ground = np.median(inside)
        assert (light.max() + 0.05) / (ground + 0.05) > 4.5  # WCAG AA for text


def test_verdicts_differ_in_colour_and_words() -> None:
    image = flat((256, 256), 90)
    fake, real, none = (draw(result(image, square(), value)) for value in (0.1, 0.9, float("nan")))
    corner = [picture[6, 5].astype(int) for picture in (fake, real, none)]
    assert corner[0][0] > corner[0][1] + 100  # red
    assert corner[1][1] > corner[1][0] + 60  # green
    assert np.ptp(corner[2]) < 40  # grey
    assert not np.array_equal(none[:30, 20:120], fake[:30, 20:120])


def test_probability_frame_and_share_are_shown() -> None:
    image = flat((256, 256), 90)
    base = result(image, square())
    other = FrameResult(Frame("x", 13, 0.6, image), 0.1, square(), "sim")
    assert not np.array_equal(draw(base)[:24, 128:], draw(other)[:24, 128:])
    np.testing.assert_array_equal(draw(base)[:24, :128], draw(other)[:24, :128])
    doubtful = result(image, square(), 0.2)
    assert not np.array_equal(draw(base)[:24, :128], draw(doubtful)[:24, :128])
    wider = square()
    wider[80:160, 50:176] = 1
    assert not np.array_equal(draw(base)[-24:], draw(result(image, wider))[-24:])


def test_a_hole_in_the_region_is_outlined_and_not_tinted() -> None:
    mask = square()
    mask[105:135, 105:135] = 0
    image = flat((224, 224), 128)
    drawn = draw(result(image, mask))
    np.testing.assert_array_equal(drawn[120, 120], image[120, 120])
    assert luminance(drawn[120, 100:112]).max() > 0.6


def test_no_region_leaves_the_middle_alone() -> None:
    image = flat((256, 256), 128)
    drawn = draw(result(image, np.zeros((224, 224), np.uint8)))
    np.testing.assert_array_equal(drawn[40:200], image[40:200])


@pytest.mark.parametrize("size", [(1, 1), (3, 500), (500, 3), (16, 16)])
def test_very_small_pictures_can_be_drawn_on(size: Tuple[int, int]) -> None:
    assert draw(result(flat(size, 90), square())).shape == (*size, 3)
    assert placeholder(result(None, None, None), *size).shape == (*size, 3)


def test_a_mask_is_resized_to_the_picture() -> None:
    mask = square()
    np.testing.assert_array_equal(full_mask(mask, 224, 224), mask * 255)
    big = full_mask(mask, 448, 672)
    assert big.shape == (448, 672)
    assert set(np.unique(big)) == {0, 255}
    rows, columns = np.nonzero(big)
    edges = [rows.min(), rows.max() + 1, columns.min(), columns.max() + 1]
    np.testing.assert_allclose(edges, [160, 320, 192, 528], atol=2)
    np.testing.assert_array_equal(full_mask(np.ones((224, 224), np.uint8), 37, 53), 255)


def test_side_by_side() -> None:
    left, right = flat((4, 6), 1), flat((4, 6), 2)
    both = side_by_side(left, right)
    np.testing.assert_array_equal(both[:, :6], left)
    np.testing.assert_array_equal(both[:, 6:], right)


def test_the_placeholder_says_something() -> None:
    empty = placeholder(result(None, None, None), 256, 256)
    middle = empty[110:146]
    assert luminance(middle).max() > 0.3 > 0.1 > np.median(luminance(middle))
