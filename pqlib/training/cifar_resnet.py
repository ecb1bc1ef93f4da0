"""The residual nets for CIFAR-10: ResNet-20 and ResNet-32, a tenth of a megabyte per ten layers."""

import torch
from torch import nn
from torch.nn import functional


class CifarResNet(nn.Module):
    """He et al.'s net for 32 x 32 pixels, 6n + 2 layers deep, with shortcuts without weights.

    Parameters
    ----------
    n_blocks : int
        n: blocks in each of the three stages of 16, 32 and 64 channels.
    n_classes : int, default 10

    Notes
    -----
    Where the channels double, the shortcut takes every second pixel and pads zeros on both sides
    of the channels (option A). Names of layers are those of akamaster/pytorch_resnet_cifar10, whose
    trained weights fit; they belong to images of 32 x 32 pixels, normalized as for ImageNet.

    References
    ----------
    He, Zhang, Ren, Sun: Deep residual learning for image recognition, CVPR 2016, section 4.2.
    """

    def __init__(self, n_blocks: int, n_classes: int = 10):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = nn.Sequential(*(_Block(16, 16) for _ in range(n_blocks)))
        self.layer2 = nn.Sequential(_Block(16, 32), *(_Block(32, 32) for _ in range(n_blocks - 1)))
        self.layer3 = nn.Sequential(_Block(32, 64), *(_Block(64, 64) for _ in range(n_blocks - 1)))
        self.linear = nn.Linear(64, n_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits of shape (batch, n_classes) from images of shape (batch, 3, height, width)."""
        x = functional.relu(self.bn1(self.conv1(images)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(x.mean((2, 3)))


class _Block(nn.Module):
    def __init__(self, n_in: int, n_out: int):
        super().__init__()
        self.stride, self.n_added = n_out // n_in, n_out - n_in
        self.conv1 = nn.Conv2d(n_in, n_out, 3, stride=self.stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(n_out)
        self.conv2 = nn.Conv2d(n_out, n_out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(n_out)

    def forward(self, x):
        residual = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        if self.n_added:
            half = self.n_added // 2
            x = functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, half, half))
        return functional.relu(x + residual)
