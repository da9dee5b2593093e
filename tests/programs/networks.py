"""Networks and data for the programs in this folder: small, seeded, made up."""

import numpy as np
import torch
from torch import nn


class Classifier(nn.Module):
    """Ten classes of 28x28 pictures of one channel."""

    shape = (1, 28, 28)

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 8, 3, stride=2, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 16, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(16, 10, 7),
        )

    def forward(self, x):
        return torch.flatten(self.features(x), start_dim=1)


class Segmenter(nn.Module):
    """Two classes of each pixel; one skip connection."""

    shape = (3, 32, 48)

    def __init__(self):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.down = nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(8, 16, 3, padding=1), nn.ReLU())
        self.up = nn.ConvTranspose2d(16, 8, 2, stride=2)
        self.last = nn.Sequential(nn.Conv2d(16, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 2, 1))

    def forward(self, x):
        skip = self.first(x)
        return self.last(torch.cat([skip, self.up(self.down(skip))], dim=1))


class TwoHeads(nn.Module):
    """A mask and a probability, as U-YNet gives them."""

    shape = (3, 32, 32)

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU()
        )
        self.mask = nn.Conv2d(8, 2, 1)
        self.pool = nn.MaxPool2d(2)
        self.deep = nn.Sequential(nn.Conv2d(8, 16, 3, stride=4), nn.ReLU(), nn.MaxPool2d(2))
        self.dense = nn.Linear(64, 1)

    def forward(self, x):
        x = self.body(x)
        deep = torch.flatten(self.deep(self.pool(x)), start_dim=1)
        return self.mask(x), torch.sigmoid(self.dense(deep))


NETWORKS = {net.__name__: net for net in (Classifier, Segmenter, TwoHeads)}


def network(name):
    """A network with seeded weights and batch-norm statistics that are not the initial ones."""
    torch.manual_seed(7)
    net = NETWORKS[name]()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.2, 0.2)
            module.running_var.uniform_(0.5, 1.5)
    return net.eval()


def pictures(name, count, seed=3):
    """uint8 [count, H, W, C]."""
    channels, height, width = NETWORKS[name].shape
    return np.random.RandomState(seed).randint(
        0, 256, (count, height, width, channels), dtype=np.uint8
    )


class Pictures(torch.utils.data.Dataset):
    """Float pictures [C, H, W] in 0..1 for a data loader."""

    def __init__(self, name, count):
        self.images = pictures(name, count)

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        image = torch.from_numpy(self.images[index]).permute(2, 0, 1).float() / 255
        return image, index % 10
