"""Networks of the kinds people bring: one class per kind, small, with unequal random weights."""

from __future__ import annotations

from typing import Dict, List, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def shaken(model: nn.Module, seed: int = 3) -> nn.Module:
    """``model`` in evaluation mode with channels and statistics of unequal size."""
    generator = torch.Generator().manual_seed(seed)

    def draw(like: Tensor, low: float, high: float) -> Tensor:
        return torch.rand(like.shape, generator=generator) * (high - low) + low

    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
                fan = module.weight[0].numel()
                module.weight.copy_(draw(module.weight, -1, 1) * (3.0 / fan) ** 0.5)
                module.weight.mul_(
                    draw(module.weight[:, :1].flatten(1)[:, 0], 0.5, 2).reshape(
                        (-1,) + (1,) * (module.weight.dim() - 1)
                    )
                )
                if module.bias is not None:
                    module.bias.copy_(draw(module.bias, -0.2, 0.2))
            elif isinstance(module, nn.BatchNorm2d):
                module.running_mean.copy_(draw(module.running_mean, -0.3, 0.3))
                module.running_var.copy_(draw(module.running_var, 0.4, 1.6))
                module.weight.copy_(draw(module.weight, 0.6, 1.4))
                module.bias.copy_(draw(module.bias, -0.2, 0.2))
    return model.eval()


class Block(nn.Module):
    def __init__(self, given: int, made: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(given, made, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(made)
        self.conv2 = nn.Conv2d(made, made, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(made)
        self.relu = nn.ReLU(inplace=True)
        self.short = None
        if stride != 1:
            self.short = nn.Sequential(
                nn.Conv2d(given, made, 1, stride, bias=False), nn.BatchNorm2d(made)
            )

    def forward(self, x: Tensor) -> Tensor:
        kept = x if self.short is None else self.short(x)
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.bn2(self.conv2(x))
        x += kept
        out: Tensor = self.relu(x)
        return out


class Residual(nn.Module):
    """7x7 stem, padded max-pool, strides, shortcuts, global average; input 3x32x32."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.layer1 = nn.Sequential(Block(8, 8, 1), Block(8, 16, 2))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.avgpool(self.layer1(x))
        out: Tensor = self.fc(torch.flatten(x, 1))
        return out


class Squeeze(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc1 = nn.Conv2d(channels, 4, 1)
        self.fc2 = nn.Conv2d(4, channels, 1)
        self.gate = nn.Hardsigmoid()

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(self.fc2(F.relu(self.fc1(self.pool(x)))))


class Mobile(nn.Module):
    """Depthwise, ReLU6 in both forms, hard swish, squeeze and excitation; input 3x16x16."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.Hardswish()
        )
        self.expand = nn.Sequential(
            nn.Conv2d(8, 16, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU6(inplace=True)
        )
        self.depth = nn.Sequential(
            nn.Conv2d(16, 16, 3, 1, 1, groups=16, bias=False),
            nn.BatchNorm2d(16),
            nn.ReLU6(inplace=True),
        )
        self.squeeze = Squeeze(16)
        self.project = nn.Sequential(nn.Conv2d(16, 8, 1, bias=False), nn.BatchNorm2d(8))
        self.head = nn.Conv2d(8, 12, 1)
        self.drop = nn.Dropout(0.2)
        self.fc = nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + self.project(self.squeeze(self.depth(self.expand(x))))
        x = F.relu6(self.head(x))
        x = F.adaptive_avg_pool2d(x, 1)
        x = x.view(x.size(0), -1)
        out: Tensor = self.fc(self.drop(x))
        return out


class Decoder(nn.Module):
    """Skips, nearest and bilinear upsampling, transposed convolution; input 3x16x16."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 8, 3, padding=1)
        self.b = nn.Conv2d(8, 8, 3, 2, 1)
        self.c = nn.Conv2d(8, 8, 3, 2, 1)
        self.near = nn.Upsample(scale_factor=2, mode="nearest")
        self.d = nn.Conv2d(16, 8, 3, padding=1)
        self.up = nn.ConvTranspose2d(8, 8, 4, 2, 1)
        self.e = nn.Conv2d(16, 6, 1)
        self.out = nn.Conv2d(6, 2, 1)

    def forward(self, x: Tensor) -> Dict[str, Tensor]:
        a = F.relu(self.a(x))
        b = F.relu(self.b(a))
        c = F.relu(self.c(b))
        d = F.relu(self.d(torch.cat([self.near(c), b], 1)))
        e = F.relu(self.e(torch.cat([self.up(d), a], 1)))
        wide = F.interpolate(d, scale_factor=2, mode="bilinear", align_corners=False)
        return {"mask": self.out(e), "wide": wide}


class Branches(nn.Module):
    """Leaky ReLU, concats of several and nested, average pools, groups; input 3x12x12."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.leaky = nn.LeakyReLU(0.1)
        self.a = nn.Conv2d(8, 4, 1)
        self.b = nn.Conv2d(8, 4, 3, padding=2, dilation=2)
        self.c = nn.Conv2d(8, 4, 3, padding=1, groups=2)
        self.join = nn.Conv2d(20, 6, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.leaky(self.stem(x))
        inner = torch.cat([self.a(x), F.relu(self.b(x))], 1)
        x = torch.cat([inner, self.c(x), F.avg_pool2d(x, 3, 1, 1)], 1)
        out: Tensor = F.avg_pool2d(self.join(x), 6)
        return out


class Shared(nn.Module):
    """A block called twice and a linear layer used twice; input 3x8x8."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.conv = nn.Conv2d(6, 6, 3, padding=1)
        self.fc = nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        x = F.relu(self.conv(F.relu(self.conv(x))))
        x = F.avg_pool2d(x, 8).flatten(1)
        out: Tensor = self.fc(F.relu(self.fc(x)))
        return out


class Tokens(nn.Module):
    """Permute and reshape before a linear layer, softmax at the end; input 3x6x4."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.fc = nn.Linear(24, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv(x)).permute(0, 2, 3, 1).reshape(x.size(0), 4, 24)
        return torch.softmax(self.fc(x), -1)


class Mapped(nn.Module):
    """A linear layer on a flattened map of several pixels; input 3x4x6."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.fc = nn.Linear(24, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.conv(x)), 2)
        out: Tensor = self.fc(x.view(-1, 24))
        return out


class Scalars(nn.Module):
    """Numbers and parameters as operands, both sides; input 3x8x8."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.scale = nn.Parameter(torch.tensor([0.5, 1.5, 0.75, 1.25]).reshape(1, 4, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        y = torch.sigmoid(self.conv(x * 2 + 0.5))
        return (1 - y) * self.scale - y / 4


class Padded(nn.Module):
    """Padding by function, even and uneven; input 3x9x9."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 4, 3)
        self.b = nn.Conv2d(4, 4, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.a(F.pad(x, (1, 1, 1, 1))))
        out: Tensor = self.b(F.pad(x, (0, 1, 0, 1)))
        return out


class Averaged(nn.Module):
    """The mean over the map's pixels before a linear layer; input 3x6x6."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 3, padding=1)
        self.fc = nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc(F.relu(self.conv(x)).mean([2, 3]))
        return out


class LeftOver(nn.Module):
    """A batch norm with nothing to fold into; input 3x8x8."""

    def __init__(self) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(3)
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(F.relu(self.bn(x)))
        return out


class Swish(nn.Module):
    """An operator the DPU does not have, between convolutions; input 3x8x8."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 4, 3)
        self.b = nn.Conv2d(4, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.b(F.silu(self.a(x)))
        return out


ZOO: List[Tuple[type, Tuple[int, ...]]] = [
    (Residual, (3, 32, 32)),
    (Mobile, (3, 16, 16)),
    (Decoder, (3, 16, 16)),
    (Branches, (3, 12, 12)),
    (Shared, (3, 8, 8)),
    (Tokens, (3, 6, 4)),
    (Mapped, (3, 4, 6)),
    (Scalars, (3, 8, 8)),
    (Padded, (3, 9, 9)),
    (Averaged, (3, 6, 6)),
    (LeftOver, (3, 8, 8)),
    (Swish, (3, 8, 8)),
]
"""Networks and the shape of one input."""
