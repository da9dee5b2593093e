"""Shapes that convolutions and poolings make.

Feature maps are NHWC; kernels, strides and dilations go width first, pads left, right, top,
bottom. A one-dimensional window has the width only, a three-dimensional one goes on with the
depth, over NHWDC.
"""

from __future__ import annotations

from typing import Callable, List

from ..abort import abort
from .shape_case import Case, Dims


def _windowed(length: int, kernel: int, stride: int, pads: int, mode: str) -> int:
    if mode == "SAME":
        return -(-length // stride)
    if mode == "VALID":
        return -(-(length - kernel + 1) // stride)
    room = length + pads - kernel
    return (-(-room // stride) if mode == "CEIL" else room // stride) + 1


def _transposed(length: int, kernel: int, stride: int, pads: int, mode: str) -> int:
    if mode == "SAME":
        return length * stride
    return (length - 1) * stride + kernel - (0 if mode == "VALID" else pads)


def _spatial(case: Case, count: int, rule: Callable[[int, int, int, int, str], int]) -> List[int]:
    """Lengths of the ``count`` spatial axes, in the tensor's order."""
    if len(case.dims) != count + 2:
        raise case.fail(f"the input {list(case.dims)} has not {count + 2} axes")
    mode = case.get("pad_mode", "FLOOR")
    if mode not in ("FLOOR", "CEIL", "SAME", "VALID"):
        raise abort("XIR_UNEXPECTED_VALUE", "Unexpected value!", f"pad_mode {mode}")
    kernel, stride = case.get("kernel"), case.get("stride")
    dilation = case.get("dilation") or (1,) * count
    pad = case.get("pad") or (0,) * (2 * count)
    if not (len(kernel) == len(stride) == len(dilation) == count and len(pad) == 2 * count):
        raise case.fail(f"kernel {kernel}, stride {stride}, dilation {dilation}, pad {pad}")
    # Attributes begin with the width, tensors with the height.
    places = {1: (1,), 2: (2, 1), 3: (2, 1, 3)}[count]
    result = [0] * count
    for at, place in enumerate(places):
        reach = (kernel[at] - 1) * dilation[at] + 1
        pads = pad[2 * at] + pad[2 * at + 1]
        result[place - 1] = rule(case.dims[place], reach, stride[at], pads, mode)
    if min(result) < 1:
        raise case.fail(f"of {list(case.dims)} would become {result}")
    return result


def convolution(
    count: int, depthwise: bool = False, transposed: bool = False
) -> Callable[[Case], Dims]:
    """The rule of convolutions over ``count`` axes.

    Weights are ``[outputs, *kernel, inputs]``, of depthwise ones ``[multiplier, *kernel, inputs]``.
    """

    def rule(case: Case) -> Dims:
        sides = _spatial(case, count, _transposed if transposed else _windowed)
        weights = case.inputs["weights"][0].dims
        if len(weights) != count + 2:
            raise case.fail(f"weights {list(weights)}")
        kernel = tuple(case.get("kernel"))
        expected = kernel[1::-1] + kernel[2:]
        if weights[1:-1] != expected:
            raise case.fail(f"kernel {list(kernel)} with weights {list(weights)}")
        group = 1 if depthwise else int(case.get("group", 1))
        if case.dims[-1] != weights[-1] * group:
            raise case.fail(f"{case.dims[-1]} channels with weights {list(weights)}")
        channels = weights[0] * weights[-1] if depthwise else weights[0]
        return (case.dims[0], *sides, channels)

    return rule


def pool(count: int) -> Callable[[Case], Dims]:
    """The rule of poolings over ``count`` axes; with ``global``, over all of each."""

    def rule(case: Case) -> Dims:
        everything = case.get("global", False)
        sides = [1] * count if everything else _spatial(case, count, _windowed)
        return (case.dims[0], *sides, case.dims[-1])

    return rule
