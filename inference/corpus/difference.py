"""Where a fake differs from its original: structure and colour, thresholded and cleaned.

Structure is compared by the structural-similarity index, colour by the difference of the two
pictures after a blur, in which the noise of codecs averages out and a tint stays. The index is
that of Wang, Bovik, Sheikh and Simoncelli, "Image quality assessment: from error visibility to
structural similarity", IEEE Transactions on Image Processing 13(4), 2004, equation 13 with the
constants given there: a Gaussian window of 11 x 11 with a deviation of 1.5 pixels, K1 = 0.01,
K2 = 0.03, L = 255. OpenCV is imported where it is used.
"""

from __future__ import annotations

import enum
from dataclasses import asdict, dataclass
from typing import Any, Dict, Tuple

import numpy as np

from ...errors import UsageError
from ...preprocessing import Image

WINDOW = 11
DEVIATION = 1.5
C1 = (0.01 * 255) ** 2
C2 = (0.03 * 255) ** 2

COLOUR_UNIT = 40.0
"""Levels of 255 that count as much as a complete loss of structure."""


class Threshold(enum.Enum):
    """How the limit between changed and unchanged is found."""

    OTSU = "otsu"
    FIXED = "fixed"


@dataclass(frozen=True)
class MaskOptions:
    """How a mask is made; lengths are shares of the picture's shorter side.

    Attributes:
        threshold: Otsu's limit for each picture, or ``level`` for all.
        level: dissimilarity from which a pixel counts as changed, for ``FIXED``.
        floor: Otsu's limit is not taken below this, since it also divides a pair that differs
            in nothing but compression.
        colour: counts a difference of brightness and colour (``COLOUR_UNIT`` levels of Y, Cr and
            Cb are 1) beside that of structure; of the two the larger.
        denoise: deviation in pixels of the blur before the index: in flat skin the index would
            compare nothing but noise.
        smooth: deviation of the blur over the dissimilarities.
        opening: radius of what is removed as specks.
        closing: radius of the gaps that are closed.
        smallest: components below this share of the picture are removed.
        fill: whether holes are filled.

    Raises:
        UsageError: a number is out of its range.
    """

    threshold: Threshold = Threshold.OTSU
    level: float = 0.2
    floor: float = 0.2
    colour: bool = True
    denoise: float = 1.5
    smooth: float = 0.02
    opening: float = 0.012
    closing: float = 0.06
    smallest: float = 0.004
    fill: bool = True

    def __post_init__(self) -> None:
        for name in ("level", "floor", "smooth", "opening", "closing", "smallest"):
            value = getattr(self, name)
            if not 0 <= value < 1:
                raise UsageError(
                    f"The mask option {name} is out of its range", f"{value}", "from 0 to 1"
                )

    def to_json(self) -> Dict[str, Any]:
        """A JSON object."""
        return dict(asdict(self), threshold=self.threshold.value)


@dataclass(frozen=True, eq=False)
class Difference:
    """What was found of one pair of pictures.

    Attributes:
        mask: bool ``[H, W]``, True where changed.
        limit: the dissimilarity from which a pixel counted.
        similarity: mean index over the whole picture, 1 for equal pictures.
        outside: the mean where nothing counted as changed; 0 where everything did. Low means that
            the two pictures are not of the same moment.
    """

    mask: np.ndarray
    limit: float
    similarity: float
    outside: float


def similarity_map(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The structural similarity of two pictures of one channel, pixel by pixel.

    Args:
        first: ``[H, W]``, 0..255, of any number type.
        second: the same.

    Returns:
        float32 ``[H, W]``, -1 to 1; borders are mirrored.
    """
    a, b = first.astype(np.float32), second.astype(np.float32)
    mean_a, mean_b = _window(a), _window(b)
    product = mean_a * mean_b
    squares = mean_a * mean_a + mean_b * mean_b
    variances = _window(a * a + b * b) - squares
    covariance = _window(a * b) - product
    index = (2 * product + C1) * (2 * covariance + C2)
    index /= (squares + C1) * (np.maximum(variances, 0) + C2)
    return np.asarray(np.clip(index, -1, 1), np.float32)


def dissimilarity(fake: Image, original: Image, options: MaskOptions) -> np.ndarray:
    """How different two pictures are around each pixel: float32 ``[H, W]``, 0 where equal.

    1 stands for no common structure, or for a colour that is ``COLOUR_UNIT`` levels away.
    """
    ours, theirs = _channels(fake), _channels(original)
    sigma = options.smooth * min(ours[0].shape)
    first, second = _blurred(ours[0], options.denoise), _blurred(theirs[0], options.denoise)
    found = _blurred(1 - similarity_map(first, second), sigma)
    if options.colour:
        squares = np.zeros_like(found)
        for one, other in zip(ours, theirs):
            # Blurred with its sign: noise goes to zero, a tint does not.
            squares += _blurred(one.astype(np.float32) - other, sigma) ** 2
        np.maximum(found, np.sqrt(squares) / COLOUR_UNIT, out=found)
    return found


def difference(fake: Image, original: Image, options: MaskOptions) -> Difference:
    """The mask of a pair.

    Args:
        fake: uint8 ``[H, W, 3]``, RGB.
        original: the same size, the same moment.
        options: how the mask is made.
    """
    index = similarity_map(_channels(fake)[0], _channels(original)[0])
    found = dissimilarity(fake, original, options)
    limit = options.level
    if options.threshold is Threshold.OTSU:
        limit = max(options.floor, otsu(found))
    mask = clean(found > limit, options)
    outside = float(index[~mask].mean()) if not mask.all() else 0.0
    return Difference(mask, limit, float(index.mean()), outside)


def otsu(values: np.ndarray) -> float:
    """The limit that divides values (0..2) into two classes of the largest variance between them.

    N. Otsu, "A threshold selection method from gray-level histograms", IEEE Transactions on
    Systems, Man and Cybernetics 9(1), 1979.
    """
    counts, edges = np.histogram(np.clip(values, 0, 1), 256, (0, 1))
    centres = (edges[1:] + edges[:-1]) / 2
    below = np.cumsum(counts)[:-1].astype(float)
    above = counts.sum() - below
    sums = np.cumsum(counts * centres)
    with np.errstate(divide="ignore", invalid="ignore"):
        means = sums[:-1] / below - (sums[-1] - sums[:-1]) / above
        between = np.where((below > 0) & (above > 0), below * above * means**2, -1.0)
    best = np.flatnonzero(between >= between.max() - 1e-9 * abs(between.max()))
    return float(edges[1 + round(float(best.mean()))])  # the middle of an empty valley


def clean(mask: np.ndarray, options: MaskOptions) -> np.ndarray:
    """Removes specks, closes gaps, drops small components, fills holes: bool ``[H, W]``."""
    import cv2

    side = min(mask.shape)
    found = np.asarray(mask, np.uint8)
    for share, operation in (
        (options.opening, cv2.MORPH_OPEN),
        (options.closing, cv2.MORPH_CLOSE),
    ):
        radius = round(share * side)
        if radius:
            found = np.asarray(_padded(found, operation, radius))
    if options.fill:
        outlines = cv2.findContours(found, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)[0]
        filled = cv2.drawContours(np.zeros_like(found), outlines, -1, 1, cv2.FILLED)
        found = np.asarray(filled, np.uint8)
    count, labels, measures, _ = cv2.connectedComponentsWithStats(found, connectivity=8)
    areas = measures[:, cv2.CC_STAT_AREA]
    kept = areas >= max(1.0, options.smallest * mask.size)
    kept[0] = False  # the background
    return np.asarray(kept[labels], bool) if count > 1 else np.zeros(mask.shape, bool)


def overlap(mask: np.ndarray, truth: np.ndarray) -> float:
    """Intersection over union of two masks; 1 where both are empty."""
    union = int(np.count_nonzero(mask | truth))
    return 1.0 if union == 0 else int(np.count_nonzero(mask & truth)) / union


def _padded(mask: np.ndarray, operation: int, radius: int) -> np.ndarray:
    import cv2

    # Closing joins shapes to the border unless there is room around.
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    room = cv2.copyMakeBorder(mask, radius, radius, radius, radius, cv2.BORDER_REPLICATE)
    done = cv2.morphologyEx(room, operation, disc)
    return np.ascontiguousarray(done[radius:-radius, radius:-radius], np.uint8)


def _blurred(picture: np.ndarray, sigma: float) -> np.ndarray:
    import cv2

    floats = np.asarray(picture, np.float32)
    if sigma < 0.3:  # narrower than a pixel
        return floats
    blurred = cv2.GaussianBlur(floats, (0, 0), sigma, borderType=cv2.BORDER_REFLECT_101)
    return np.asarray(blurred, np.float32)


def _window(picture: np.ndarray) -> np.ndarray:
    import cv2

    return np.asarray(
        cv2.GaussianBlur(
            picture, (WINDOW, WINDOW), DEVIATION, borderType=cv2.BORDER_REFLECT_101
        )
    )  # fmt: skip


def _channels(picture: Image) -> Tuple[np.ndarray, ...]:
    import cv2

    return tuple(cv2.split(cv2.cvtColor(picture, cv2.COLOR_RGB2YCrCb)))
