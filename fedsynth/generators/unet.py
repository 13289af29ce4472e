"""A U-Net from image to image and the residual block it is made of.

MONAI's U-Net ends in a transposed convolution whose few output channels are normalised, which shows as stripes on
small images; this one doubles its grid by interpolation and ends in a plain convolution.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from fedsynth.generators.layers import CONVOLUTION, double, halve, halvings, widths

GROUPS = 4


class ResidualBlock(nn.Module):
    """Group norm and convolution twice, around a shortcut. Group norm looks at one sample only."""

    def __init__(self, dimensions: int, inputs: int, outputs: int) -> None:
        super().__init__()
        conv = CONVOLUTION[dimensions]
        self.norms = nn.ModuleList(nn.GroupNorm(GROUPS, channels) for channels in (inputs, outputs))
        self.convolutions = nn.ModuleList(conv(i, outputs, 3, padding=1) for i in (inputs, outputs))
        self.shortcut = conv(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Features (n, outputs, ...) on the same grid."""
        inner = x
        for norm, layer in zip(self.norms, self.convolutions, strict=True):
            inner = layer(functional.silu(norm(inner)))
        shortcut: Tensor = self.shortcut(x)
        return shortcut + inner


class UNet(nn.Module):
    """Down to a grid of 4 or more and up again, with a bridge at every grid. Channels must be multiples of four."""

    def __init__(self, size: tuple[int, ...], inputs: int, outputs: int, base: int) -> None:
        super().__init__()
        dimensions, conv = len(size), CONVOLUTION[len(size)]
        channels = widths(len(halvings(size)), base, 8 * base)[::-1]  # fine to coarse
        pairs = list(pairwise(channels))
        self.read = conv(inputs, base, 3, padding=1)
        self.down = nn.ModuleList(ResidualBlock(dimensions, fine, coarse) for fine, coarse in pairs)
        self.middle = ResidualBlock(dimensions, channels[-1], channels[-1])
        self.up = nn.ModuleList(ResidualBlock(dimensions, coarse + fine, fine) for fine, coarse in reversed(pairs))
        self.norm = nn.GroupNorm(GROUPS, base)
        self.write = conv(base, outputs, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Values (n, outputs, ...) on the grid of `x` (n, inputs, ...)."""
        bridges = [self.read(x)]
        for block in self.down:
            bridges.append(block(halve(bridges[-1])))
        inner: Tensor = self.middle(bridges.pop())
        for block in self.up:
            inner = block(torch.cat([double(inner), bridges.pop()], 1))
        values: Tensor = self.write(functional.silu(self.norm(inner)))
        return values
