"""U-YNet: a U-Net for the manipulation mask with a classifier branch for the verdict.

Parameter names are those of the published checkpoints, so their ``state_dict`` loads unchanged.
The order of operations in ``forward`` (classifier before decoder) is part of the contract: the
quantizer numbers nodes by it.

Importing this module imports torch.
"""

from __future__ import annotations

from typing import Dict, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

INPUT_SIZE = 224
"""Height and width of the network's input, in pixels."""


class DoubleConv(nn.Module):
    """(3x3 convolution, batch norm, ReLU) twice."""

    def __init__(self, in_channels: int, out_channels: int, mid_channels: int = 0) -> None:
        super().__init__()
        mid = mid_channels or out_channels
        self.double_conv = nn.Sequential(
            nn.Conv2d(in_channels, mid, kernel_size=3, padding=1),
            nn.BatchNorm2d(mid),
            nn.ReLU(inplace=True),
            nn.Conv2d(mid, out_channels, kernel_size=3, padding=1),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
        )

    def forward(self, x: Tensor) -> Tensor:
        """``[N, in, H, W]`` to ``[N, out, H, W]``."""
        out: Tensor = self.double_conv(x)
        return out


class Down(nn.Module):
    """2x2 max-pool, then a double convolution."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.maxpool_conv = nn.Sequential(nn.MaxPool2d(2), DoubleConv(in_channels, out_channels))

    def forward(self, x: Tensor) -> Tensor:
        """``[N, in, H, W]`` to ``[N, out, H/2, W/2]``."""
        out: Tensor = self.maxpool_conv(x)
        return out


class Up(nn.Module):
    """Doubles the resolution, joins the skip connection, then a double convolution."""

    def __init__(self, in_channels: int, out_channels: int, bilinear: bool) -> None:
        super().__init__()
        self.up: nn.Module
        if bilinear:
            self.up = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
            self.conv = DoubleConv(in_channels, out_channels, in_channels // 2)
        else:
            self.up = nn.ConvTranspose2d(in_channels, in_channels // 2, kernel_size=2, stride=2)
            self.conv = DoubleConv(in_channels, out_channels)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """``x`` at half the resolution of ``skip``; returns ``[N, out, H, W]`` at skip's."""
        out: Tensor = self.conv(torch.cat([skip, self.up(x)], dim=1))
        return out


class OutConv(nn.Module):
    """1x1 convolution to the mask classes."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        """``[N, in, H, W]`` to ``[N, classes, H, W]``, unnormalised logits."""
        out: Tensor = self.conv(x)
        return out


class UYNet(nn.Module):
    """The network; input sides must be 224 (the classifier pools 14x14 to one pixel).

    Args:
        n_channels: input channels (3, RGB scaled to 0..1).
        n_classes: mask classes (2: 0 authentic, 1 manipulated).
        bilinear: upsample by interpolation instead of transposed convolution.
        width: channels of the first level; 64 is the original (64..1024, linear 1024-512-1).
    """

    def __init__(
        self, n_channels: int = 3, n_classes: int = 2, bilinear: bool = False, width: int = 64
    ) -> None:
        super().__init__()
        self.n_channels, self.n_classes = n_channels, n_classes
        self.bilinear, self.width = bilinear, width
        factor = 2 if bilinear else 1
        self.inc = DoubleConv(n_channels, width)
        self.down1 = Down(width, width * 2)
        self.down2 = Down(width * 2, width * 4)
        self.down3 = Down(width * 4, width * 8)
        self.down4 = Down(width * 8, width * 16 // factor)
        self.up1 = Up(width * 16, width * 8 // factor, bilinear)
        self.up2 = Up(width * 8, width * 4 // factor, bilinear)
        self.up3 = Up(width * 4, width * 2 // factor, bilinear)
        self.up4 = Up(width * 2, width, bilinear)
        self.outc = OutConv(width, n_classes)
        bottom = width * 16 // factor
        self.linear_1 = nn.Linear(bottom, bottom // 2)
        self.linear_2 = nn.Linear(bottom // 2, 1)

    def forward(self, x: Tensor) -> Tuple[Tensor, Tensor]:
        """Mask logits and the probability that the face is real.

        Args:
            x: float32 ``[N, 3, 224, 224]``, RGB in 0..1.

        Returns:
            ``(logits, real)``: ``[N, classes, 224, 224]`` and ``[N, 1]`` in 0..1 (1 = REAL).
        """
        x1 = self.inc(x)
        x2 = self.down1(x1)
        x3 = self.down2(x2)
        x4 = self.down3(x3)
        x5 = self.down4(x4)
        c = F.max_pool2d(x5, kernel_size=[2, 2])
        c = F.max_pool2d(c, kernel_size=[7, 7])
        c = torch.flatten(c, start_dim=1)
        c = F.relu(self.linear_1(c))
        real = torch.sigmoid(self.linear_2(c))
        y = self.up1(x5, x4)
        y = self.up2(y, x3)
        y = self.up3(y, x2)
        y = self.up4(y, x1)
        return self.outc(y), real

    def describe(self) -> Dict[str, object]:
        """The arguments that rebuild this network, for manifests."""
        return {
            "architecture": "UYNet",
            "width": self.width,
            "bilinear": self.bilinear,
            "n_channels": self.n_channels,
            "n_classes": self.n_classes,
        }
