"""Small networks, one per behaviour of the quantizer, whose genuine calibrations are recorded.

Module names are those of the recorded weights; a class's name is the name of its graph.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ConvBnRelu(nn.Module):
    """Batch norm to fold; input 3x32x32."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, kernel_size=3, padding=1)
        self.bn = nn.BatchNorm2d(8)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        x = self.bn(x)
        out: Tensor = self.relu(x)
        return out


class ConvBias(nn.Module):
    """A convolution whose own output is quantized; input 3x32x32."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, kernel_size=3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(x)
        return out


class UpConcat(nn.Module):
    """A transposed convolution quantized only as part of a concat; input 3x32x32."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, kernel_size=3, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.pool = nn.MaxPool2d(kernel_size=2)
        self.up = nn.ConvTranspose2d(8, 4, kernel_size=2, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        skip = self.relu(self.conv(x))
        return torch.cat([skip, self.up(self.pool(skip))], dim=1)


class PoolLinear(nn.Module):
    """Functional pools, linear layers and a float sigmoid at the end; input 16x14x14."""

    def __init__(self) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(16, 8)
        self.linear_2 = nn.Linear(8, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(x, kernel_size=[2, 2])
        x = F.max_pool2d(x, kernel_size=[7, 7])
        x = torch.flatten(x, start_dim=1)
        x = F.relu(self.linear_1(x))
        return torch.sigmoid(self.linear_2(x))


class _ResAvg(nn.Module):
    """A residual sum and an average pool."""

    def __init__(self, window: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, kernel_size=3, padding=1)
        self.relu = nn.ReLU(inplace=False)
        self.conv2 = nn.Conv2d(8, 8, kernel_size=3, padding=1)
        self.pool = nn.AvgPool2d(window)

    def forward(self, x: Tensor) -> Tensor:
        first = self.relu(self.conv1(x))
        out: Tensor = self.pool(first + self.conv2(first))
        return out


class ResAvg7(_ResAvg):
    """A window the DPU averages with a factor of its own; input 3x14x14."""

    def __init__(self) -> None:
        super().__init__(7)


class ResAvg2(_ResAvg):
    """A window whose average is a plain shift; input 3x16x16."""

    def __init__(self) -> None:
        super().__init__(2)


class Cle(nn.Module):
    """Three pairs of layers to equalize; input 3x16x16."""

    def __init__(self) -> None:
        super().__init__()
        self.c1 = nn.Conv2d(3, 8, kernel_size=3, padding=1)
        self.b1 = nn.BatchNorm2d(8)
        self.c2 = nn.Conv2d(8, 12, kernel_size=3, padding=1)
        self.up = nn.ConvTranspose2d(12, 6, kernel_size=2, stride=2)
        self.c3 = nn.Conv2d(6, 4, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.b1(self.c1(x)))
        x = F.max_pool2d(x, 2)
        x = F.relu(self.c2(x))
        x = F.relu(self.up(x))
        out: Tensor = self.c3(x)
        return out
