"""Portraits: a synthetic person in a pose, painted layer by layer into a picture.

OpenCV is imported where it is used.
"""

from __future__ import annotations

import math
from typing import Optional, Tuple, Union

import numpy as np

from ..preprocessing import Image
from .faces import (
    TEXTURE_SIZE,
    TEXTURE_SPAN,
    Colour,
    Identity,
    Placement,
    Pose,
    ellipse,
    outline,
)


class Sitter:
    """An identity ready to be drawn: its textures and background are made once.

    Args:
        who: the person.
        place: seed of the background.
        size: height and width of the pictures, in pixels.
    """

    def __init__(self, who: Identity, place: int = 0, size: int = 256) -> None:
        self.who, self.size = who, size
        rng = np.random.RandomState([who.seed & 0x7FFFFFFF, place & 0x7FFFFFFF, 23])
        self._background = _background(rng, size)
        texture_rng = np.random.RandomState([who.seed & 0x7FFFFFFF, 29])
        self._skin = _skin_texture(who, texture_rng)
        self._hair = _hair_texture(who, texture_rng)
        grid = np.linspace(-TEXTURE_SPAN, TEXTURE_SPAN, TEXTURE_SIZE // 2, dtype=np.float32)
        u, v = np.meshgrid(grid / 1.15, grid / 1.4)
        depth = np.sqrt(np.maximum(0.05, 1.0 - u * u - v * v))
        length = np.sqrt(u * u + v * v + depth * depth)
        self._normals = np.stack([u, v, depth], axis=2) / length[..., None]

    def draw(self, pose: Pose) -> Image:
        """The person in this pose: uint8 ``[size, size, 3]``, RGB, clean of camera effects."""
        who = self.who
        at = Placement(pose, self.size)
        canvas = _Canvas(self._background.copy(), at)
        light = np.asarray(pose.light, np.float32)
        shade = self._shade(light / np.linalg.norm(light))
        skin_map = _lit(self._skin, shade, at, self.size)
        skin = np.asarray(who.skin, np.float32) * float(shade.mean())
        hair_map = _lit(self._hair, 0.35 + 0.65 * shade, at, self.size)

        self._body(canvas, skin, hair_map)
        canvas.fill(outline(who), skin_map, sigma=0.008)
        self._shadows(canvas)
        self._eyes(canvas, pose, skin_map)
        self._nose(canvas)
        self._mouth(canvas, pose)
        self._front_hair(canvas, hair_map)
        if who.glasses:
            self._glasses(canvas)
        return np.clip(canvas.picture * pose.brightness + 0.5, 0, 255).astype(np.uint8)

    def _shade(self, light: np.ndarray) -> np.ndarray:
        import cv2

        lambert = np.maximum(self._normals @ light, 0.0)
        shade = (0.48 + 0.55 * lambert).astype(np.float32)
        return np.asarray(cv2.resize(shade, (TEXTURE_SIZE, TEXTURE_SIZE)))

    def _body(self, canvas: _Canvas, skin: Colour, hair_map: np.ndarray) -> None:
        who = self.who
        if who.hair_length > 0.2:
            width = who.width + who.hair_volume
            top = ellipse(0, -0.15, width, who.crown + who.hair_volume)
            fall = np.array([[-width, -0.2], [width, -0.2]])
            end = np.array([[width * 1.05, who.hair_length], [-width * 1.05, who.hair_length]])
            for part in (top, np.concatenate([fall, end])):
                canvas.fill(part, hair_map * 0.72, sigma=0.03, depth=-0.3)
        neck = np.array([[-0.48, 0.6], [0.48, 0.6], [0.55, 1.9], [-0.55, 1.9]])
        canvas.fill(neck, skin * 0.72, sigma=0.03, depth=-0.2)
        shoulders = np.array(
            [[-0.5, 1.55], [0, 1.75], [0.5, 1.55], [1.9, 1.9], [2.3, 3.5], [-2.3, 3.5], [-1.9, 1.9]]
        )
        canvas.fill(shoulders, np.asarray(who.shirt, np.float32), sigma=0.02, depth=-0.2)
        canvas.tone(np.array([[-0.3, 1.62], [0.2, 1.8], [0.5, 3.0], [-0.9, 3.0]]), 0.85, 0.1)
        for side in (-1, 1):
            canvas.fill(ellipse(side * who.width, 0.05, 0.11, 0.23), skin * 0.9, 0.012, depth=-0.1)
            canvas.tone(ellipse(side * who.width * 1.02, 0.05, 0.05, 0.13), 0.8, 0.03, depth=-0.1)

    def _shadows(self, canvas: _Canvas) -> None:
        who = self.who
        dark = np.asarray(who.skin, np.float32) * 0.55
        for side in (-1, 1):
            u = side * who.eye_u
            canvas.tone(ellipse(u, who.eye_v - 0.05, 0.26, 0.15), 0.84, 0.06, depth=0.15)
            canvas.tone(ellipse(u, who.eye_v + 0.17, 0.17, 0.03), 0.92, 0.03, depth=0.15)
            fold = np.array([[u * 0.62, 0.42], [u * 0.85, 0.55], [u * 0.98, 0.72]])
            canvas.stroke(fold, dark, 0.02, 0.25, 0.02, depth=0.2)
        below = who.mouth_v + who.lip_height * 2.2
        canvas.tone(ellipse(0, below, 0.16, 0.03), 0.82, 0.04, depth=0.2)
        canvas.tone(ellipse(0, -0.7, 0.5, 0.2), 1.06, 0.15, depth=0.1)

    def _eyes(self, canvas: _Canvas, pose: Pose, skin_map: np.ndarray) -> None:
        who = self.who
        dark = np.asarray(who.skin, np.float32) * 0.3
        opening = who.eye_height * (1.0 - 0.93 * pose.blink)
        for side in (-1, 1):
            u, v = side * who.eye_u, who.eye_v
            t = np.linspace(-1, 1, 13)
            lift = side * who.eye_tilt * t * who.eye_width
            lower = np.stack(
                [u + t * who.eye_width, v + 0.6 * opening * (1 - t * t) - lift], axis=1
            )
            upper = np.stack([u + t * who.eye_width, v - opening * (1 - t * t) - lift], axis=1)
            almond = np.concatenate([upper, lower[::-1]])
            mask = canvas.mask(almond, 0.006, depth=0.18)
            canvas.fill(almond, np.array([236, 232, 228], np.float32), 0.006, depth=0.18)
            iu = u + pose.gaze * 0.35 * who.eye_width
            iris = np.asarray(who.iris, np.float32)
            radius = who.eye_width * 0.5
            for r, colour in (
                (radius, iris * 0.55),
                (radius * 0.85, iris),
                (radius * 0.42, iris * 0.1),
            ):
                canvas.fill(ellipse(iu, v - 0.01, r, r), colour, 0.006, depth=0.18, within=mask)
            spark = ellipse(iu - 0.03, v - 0.045, 0.022, 0.022, n=10)
            canvas.fill(spark, np.full(3, 250, np.float32), 0.006, depth=0.18, within=mask)
            canvas.stroke(upper, dark, 0.028, 0.9, 0.006, depth=0.18)
            canvas.stroke(upper - np.array([0, 0.055]), dark * 1.6, 0.015, 0.4, 0.012, depth=0.18)
            canvas.stroke(lower, dark * 1.8, 0.012, 0.35, 0.008, depth=0.18)
            arch = who.brow_v - who.brow_arch * (1 - t * t) + side * 0.03 * t - 0.02 * pose.mouth
            bu = u * 1.02 + t * who.eye_width * 1.25
            taper = who.brow_thickness * (0.55 - 0.4 * side * t)
            brow = np.concatenate(
                [np.stack([bu, arch - taper], 1), np.stack([bu, arch + taper], 1)[::-1]]
            )
            canvas.fill(brow, np.asarray(who.hair, np.float32) * 0.75, 0.012, 0.85, depth=0.2)

    def _nose(self, canvas: _Canvas) -> None:
        who = self.who
        v, w = who.nose_v, who.nose_width
        ridge = np.array([[0.06, who.eye_v], [0.09, v * 0.5], [w * 0.95, v]])
        canvas.tone(np.concatenate([ridge, [[w * 0.4, v], [0.03, v * 0.5]]]), 0.82, 0.03, depth=0.3)
        canvas.tone(ellipse(-0.02, v * 0.45, 0.035, 0.26), 1.1, 0.03, depth=0.33)
        canvas.tone(ellipse(-0.02, v - 0.03, 0.07, 0.06), 1.14, 0.03, depth=0.36)
        canvas.tone(ellipse(0, v + 0.09, w * 1.05, 0.05), 0.76, 0.03, depth=0.3)
        for side in (-1, 1):
            canvas.tone(ellipse(side * w * 0.48, v + 0.055, 0.042, 0.022), 0.4, 0.012, depth=0.33)
            wing = ellipse(side * w * 0.92, v, 0.03, 0.06)
            canvas.tone(wing, 0.78, 0.02, depth=0.3)

    def _mouth(self, canvas: _Canvas, pose: Pose) -> None:
        who = self.who
        t = np.linspace(-1, 1, 17)
        bow = 1 - t * t
        width = who.mouth_width * (1.0 + 0.12 * pose.smile - 0.1 * pose.mouth)
        u = t * width
        middle = who.mouth_v - 0.07 * pose.smile * (t * t - 0.4)
        gap = 0.16 * pose.mouth * bow
        upper_in, lower_in = middle - 0.25 * gap, middle + gap
        cupid = 1.0 - 0.3 * np.exp(-((t / 0.14) ** 2))
        upper_out = upper_in - who.lip_height * bow * cupid
        lower_out = lower_in + 1.25 * who.lip_height * bow
        lips = np.asarray(who.lips, np.float32)

        def band(first: np.ndarray, second: np.ndarray) -> np.ndarray:
            return np.concatenate([np.stack([u, first], 1), np.stack([u, second], 1)[::-1]])

        inside = band(upper_in, lower_in)
        canvas.fill(inside, np.array([60, 22, 24], np.float32), 0.006, depth=0.22)
        if pose.mouth > 0.12:
            teeth = band(upper_in, upper_in + np.minimum(0.06, 0.6 * gap) * (np.abs(t) < 0.8))
            canvas.fill(teeth, np.array([226, 220, 210], np.float32), 0.008, depth=0.22)
        canvas.fill(band(upper_out, upper_in), lips * 0.86, 0.01, depth=0.22)
        canvas.fill(band(lower_in, lower_out), lips, 0.01, depth=0.22)
        shine = ellipse(0, float(lower_in[8]) + 0.5 * who.lip_height, width * 0.35, 0.02)
        canvas.tone(shine, 1.15, 0.02, depth=0.24)
        canvas.stroke(np.stack([u, upper_in], 1), lips * 0.45, 0.014, 0.8, 0.006, depth=0.22)

    def _front_hair(self, canvas: _Canvas, hair_map: np.ndarray) -> None:
        who = self.who
        if who.hair_volume <= 0:
            return
        width, top = who.width + who.hair_volume * 0.6, who.crown + who.hair_volume
        t = np.linspace(math.pi, 2 * math.pi, 25)
        outer = np.stack([width * np.cos(t), top * np.sin(t)], axis=1)
        side = min(0.35, max(-0.45, who.hair_length - 0.2))
        s = np.linspace(1, -1, 25)
        dip = 0.16 * np.exp(-(((s - who.parting) / 0.22) ** 2))
        line = (
            -who.hairline * np.sqrt(np.maximum(0.0, 1 - 0.75 * s**4))
            - dip
            + 0.05 * np.sin(9 * s + who.parting * 9)
        )
        inner = np.stack([s * who.width * 0.9, line], axis=1)
        right = np.array([[width * 1.0, side], [who.width * 0.95, side]])
        left = np.array([[-who.width * 0.95, side], [-width * 1.0, side]])
        cap = np.concatenate([outer, right, inner, left])
        canvas.tone(cap + np.array([0, 0.07]), 0.82, 0.05, depth=0.05)
        canvas.fill(cap, hair_map, sigma=0.018, depth=0.0)

    def _glasses(self, canvas: _Canvas) -> None:
        who = self.who
        frame = np.asarray(who.shirt, np.float32) * 0.25
        for side in (-1, 1):
            rim = ellipse(side * who.eye_u, who.eye_v + 0.02, 0.31, 0.23, n=28)
            canvas.stroke(np.concatenate([rim, rim[:1]]), frame, 0.035, 0.95, 0.006, depth=0.28)
            arm = np.array(
                [[side * (who.eye_u + 0.31), who.eye_v], [side * who.width, who.eye_v - 0.03]]
            )
            canvas.stroke(arm, frame, 0.035, 0.95, 0.006, depth=0.15)
        inner = who.eye_u - 0.31
        canvas.stroke(
            np.array([[-inner, who.eye_v], [inner, who.eye_v]]),
            frame,
            0.035,
            0.95,
            0.006,
            depth=0.3,
        )


class _Canvas:
    """A float picture and the few ways of painting on it, all in face coordinates."""

    def __init__(self, picture: np.ndarray, at: Placement) -> None:
        self.picture, self.at = picture, at

    def mask(self, points: np.ndarray, sigma: float, depth: float = 0.0) -> np.ndarray:
        """The soft shape over the whole picture, float32 ``[size, size]`` in 0..1."""
        whole = np.zeros(self.picture.shape[:2], np.float32)
        found = self._shape(points, sigma, depth, None)
        if found is not None:
            whole[found[0]] = found[1]
        return whole

    def fill(
        self,
        points: np.ndarray,
        colour: np.ndarray,
        sigma: float,
        opacity: float = 1.0,
        depth: float = 0.0,
        within: Optional[np.ndarray] = None,
    ) -> None:
        """Paints a polygon with a colour ``[3]`` or a picture ``[size, size, 3]``."""
        self._blend(self._shape(points, sigma, depth, None), colour, opacity, within)

    def stroke(
        self,
        points: np.ndarray,
        colour: Colour,
        thickness: float,
        opacity: float,
        sigma: float,
        depth: float = 0.0,
    ) -> None:
        """Paints an open line."""
        self._blend(self._shape(points, sigma, depth, thickness), colour, opacity, None)

    def tone(self, points: np.ndarray, factor: float, sigma: float, depth: float = 0.0) -> None:
        """Makes what is under a polygon darker or lighter."""
        found = self._shape(points, sigma, depth, None)
        if found is not None:
            window, alpha = found
            self.picture[window] *= (1.0 + (factor - 1.0) * alpha)[..., None]

    def _blend(
        self,
        found: Optional[Tuple[Tuple[slice, slice], np.ndarray]],
        colour: np.ndarray,
        opacity: float,
        within: Optional[np.ndarray],
    ) -> None:
        if found is None:
            return
        window, alpha = found
        alpha = alpha * np.float32(opacity)
        if within is not None:
            alpha = alpha * within[window]
        below = self.picture[window]
        paint = colour if colour.ndim == 1 else colour[window]
        self.picture[window] = below + (paint - below) * alpha[..., None]

    def _shape(
        self, points: np.ndarray, sigma: float, depth: float, thickness: Optional[float]
    ) -> Optional[Tuple[Tuple[slice, slice], np.ndarray]]:
        """The window a shape touches and its soft coverage there, or None if out of sight."""
        import cv2

        pixels = self.at.pixels(points, depth)
        blur = sigma * self.at.unit
        line = 0.0 if thickness is None else max(1.0, thickness * self.at.unit)
        rim = 2.0 + 3.0 * blur + line
        low = np.maximum(np.floor(pixels.min(0) - rim), 0).astype(int)
        high = np.minimum(np.ceil(pixels.max(0) + rim), self.at.size).astype(int)
        if (high <= low).any():
            return None
        shape = np.zeros((high[1] - low[1], high[0] - low[0]), np.uint8)
        fixed = np.round((pixels - low) * 16).astype(np.int32)[:, None]
        if thickness is None:
            cv2.fillPoly(shape, [fixed], 255, lineType=cv2.LINE_AA, shift=4)
        else:
            cv2.polylines(shape, [fixed], False, 255, int(line + 0.5), cv2.LINE_AA, shift=4)
        if blur > 0.4:
            shape = cv2.GaussianBlur(shape, (0, 0), blur)
        window = (slice(low[1], high[1]), slice(low[0], high[0]))
        return window, shape.astype(np.float32) * np.float32(1 / 255)


def noise(rng: np.random.RandomState, size: int, cells: Union[int, Tuple[int, int]]) -> np.ndarray:
    """Smooth noise of mean 0 and deviation about 1: float32 ``[size, size]``.

    Args:
        rng: source of randomness.
        size: height and width of the result.
        cells: grid points across (or rows and columns) that are interpolated between.
    """
    import cv2

    rows, columns = (cells, cells) if isinstance(cells, int) else cells
    coarse = rng.standard_normal((rows, columns)).astype(np.float32)
    return np.asarray(cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC))


def _muted(rng: np.random.RandomState) -> Colour:
    """A colour of a room, mostly of low saturation."""
    grey, colour = rng.uniform(20, 230), rng.uniform(10, 245, 3)
    return np.asarray(grey + (colour - grey) * rng.uniform(0.0, 0.8), np.float32)


def _background(rng: np.random.RandomState, size: int) -> np.ndarray:
    """An out-of-focus room: a colour gradient, soft noise, a few blurred shapes."""
    import cv2

    first, second = _muted(rng), _muted(rng)
    ramp = np.linspace(0, 1, size, dtype=np.float32)
    ramp = ramp[:, None] if rng.uniform() < 0.5 else ramp[None, :]
    picture = first + (second - first) * np.broadcast_to(ramp, (size, size))[..., None]
    picture = picture + 8.0 * noise(rng, size, int(rng.randint(3, 12)))[..., None]
    picture = np.ascontiguousarray(picture, np.float32)
    for _ in range(rng.randint(0, 7)):
        colour = [float(c) for c in _muted(rng)]
        x, y, w, h = (int(n) for n in rng.uniform(0, size, 4))
        if rng.uniform() < 0.5:
            cv2.rectangle(picture, (x, y), (x + w // 2, y + h // 2), colour, -1)
        else:
            cv2.circle(picture, (x, y), 4 + w // 5, colour, -1)
    return np.asarray(cv2.GaussianBlur(picture, (0, 0), rng.uniform(1.0, 6.0)))


def _skin_texture(who: Identity, rng: np.random.RandomState) -> np.ndarray:
    """Skin colour over the texture square: pores, blotches, freckles, blush, beard."""
    size = TEXTURE_SIZE
    span = np.linspace(-TEXTURE_SPAN, TEXTURE_SPAN, size, dtype=np.float32)
    u, v = np.meshgrid(span, span)
    skin = np.empty((size, size, 3), np.float32)
    skin[:] = np.asarray(who.skin, np.float32)
    rough = who.roughness
    skin += (noise(rng, size, 96) * 0.6 * rough + noise(rng, size, 24) * 0.4 * rough)[..., None]
    skin += (noise(rng, size, 7) * 1.5)[..., None] * np.array([1.0, -0.4, -0.6], np.float32)
    cheeks = np.exp(-(((np.abs(u) - 0.5) / 0.22) ** 2) - ((v - 0.3) / 0.25) ** 2)
    skin += (who.blush * cheeks)[..., None] * np.array([22, -22, -14], np.float32)
    if who.freckles:
        spots = np.clip(noise(rng, size, 64) - 1.1, 0, 1) * np.exp(-((v - 0.15) ** 2) / 0.12)
        skin *= 1.0 - (0.35 * who.freckles * spots)[..., None] * np.array(
            [0.6, 0.9, 1.0], np.float32
        )
    if who.beard:
        edge = v - (who.mouth_v - 0.22) - 0.55 * np.clip(0.45 - np.abs(u), 0, 0.25)
        cover = (
            1
            / (1 + np.exp(-edge * 16))
            * who.beard
            * np.clip(0.8 + 0.25 * noise(rng, size, 128), 0, 1)
        )
        skin += (np.asarray(who.hair, np.float32) * 0.8 - skin) * cover[..., None]
    return skin


def _hair_texture(who: Identity, rng: np.random.RandomState) -> np.ndarray:
    """Hair colour over the texture square: strands, fine across and long downwards."""
    size = TEXTURE_SIZE
    strands = 0.6 * noise(rng, size, (5, 120)) + 0.5 * noise(rng, size, (4, 40))
    factor = np.clip(1.0 + 0.2 * strands, 0.4, 1.7)[..., None]
    return np.asarray(
        np.asarray(who.hair, np.float32) * factor + 4.0 * strands[..., None], np.float32
    )


def _lit(texture: np.ndarray, shade: np.ndarray, at: Placement, size: int) -> np.ndarray:
    """A texture under the light, moved to where the head is: float32 ``[size, size, 3]``."""
    import cv2

    lit = texture * shade[..., None]
    return np.asarray(
        cv2.warpAffine(
            lit,
            at.texture_to_pixels(),
            (size, size),
            flags=cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        )
    )
