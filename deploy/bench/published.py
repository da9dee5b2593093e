"""Frame rates others have published for the card. None of them was measured here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Tuple

from ...inference.devices.pace import UYNET_FRAMES


@dataclass(frozen=True)
class Published:
    """One published figure.

    Attributes:
        label: model and card.
        frames: per second, end to end.
        source: who published it.
    """

    label: str
    frames: float
    source: str


PUBLISHED: Tuple[Published, ...] = (
    Published(
        "VCK5000 8PE, U-YNet width 64, 224x224", UYNET_FRAMES, "DeepYNet, 5001 images in 15.8 s"
    ),
    Published("VCK5000 8PE, chaos-CT U-Net 512x512", 247.9, "Vitis AI 2.5 model zoo"),
    Published("VCK5000 4PE, chaos-CT U-Net 512x512", 128.6, "Vitis AI 2.5 model zoo"),
)
