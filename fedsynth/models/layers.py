"""Layers that several families share, for images and volumes alike: written from the papers, knowing no family.

Every layer works on one sample as on many, so that gradients can be taken sample by sample; the one exception,
`minibatch_deviation`, says so.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from fedsynth.models.base import ImageShape

CONVOLUTION: dict[int, type[nn.Conv2d] | type[nn.Conv3d]] = {2: nn.Conv2d, 3: nn.Conv3d}


def halvings(size: tuple[int, ...]) -> list[tuple[int, ...]]:
    """The grids from coarse to fine that lead to `size` by doubling; the coarsest has sides of 4 or more."""
    grids = [size]
    while all(side % 2 == 0 and side >= 8 for side in grids[0]):
        grids.insert(0, tuple(side // 2 for side in grids[0]))
    return grids


def halving_problem(size: tuple[int, ...]) -> str:
    """Why a network that doubles its grid cannot make `size`; empty where it can."""
    if min(size) < 8:
        return "sides below 8 are too small"
    if max(halvings(size)[0]) > 12:
        return "halving all sides must lead to 4 to 12 (32, 48, 64, 80, 96, 128 ... do, alike on every axis)"
    return ""


def widths(n_grids: int, base: int, cap: int) -> list[int]:
    """Channels per grid from coarse to fine: `base` at the finest, doubled at every coarser one up to `cap`."""
    return [min(cap, base * 2 ** (n_grids - 1 - i)) for i in range(n_grids)]


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None = None, padding: int = 0) -> Tensor:
    """A plain convolution in two or three dimensions."""
    return (functional.conv2d if x.dim() == 4 else functional.conv3d)(x, weight, bias, padding=padding)


def spread(values: Tensor, like: Tensor) -> Tensor:
    """Values per sample and channel (n, C), shaped to multiply the grid of `like` (n, C, ...)."""
    return values.reshape(*values.shape, *[1] * (like.dim() - 2))


def double(x: Tensor) -> Tensor:
    """Twice the grid, linear in between: inside the image equal to zeros inserted and filtered by [1, 3, 3, 1]."""
    return functional.interpolate(
        x, scale_factor=2, mode="bilinear" if x.dim() == 4 else "trilinear", align_corners=False
    )


def repeat(x: Tensor) -> Tensor:
    """Twice the grid, each value repeated."""
    return functional.interpolate(x, scale_factor=2, mode="nearest")


def halve(x: Tensor) -> Tensor:
    """Half the grid, averaged. Axis by axis, which is faster on a CPU than pooling."""
    for axis in range(2, x.dim()):
        even, odd = x.reshape(*x.shape[:axis], -1, 2, *x.shape[axis + 1 :]).unbind(axis + 1)
        x = (even + odd) / 2
    return x


def local_mean(x: Tensor) -> Tensor:
    """The mean over three voxels along every axis."""
    pool = functional.avg_pool2d if x.dim() == 4 else functional.avg_pool3d
    return pool(x, 3, 1, 1, count_include_pad=False)


def leaky(x: Tensor) -> Tensor:
    """Leaky rectifier that keeps the variance (gain of the square root of two, as in StyleGAN2)."""
    return functional.leaky_relu(x, 0.2) * math.sqrt(2)


def pixel_norm(x: Tensor) -> Tensor:
    """Every pixel's feature vector scaled to unit mean square (ProGAN, section 4.2)."""
    return x * torch.rsqrt(x.square().mean(1, keepdim=True) + 1e-8)


def minibatch_deviation(x: Tensor) -> Tensor:
    """One more channel holding the batch's mean deviation (ProGAN, section 3). MIXES SAMPLES: never in private runs."""
    deviation = (x.var(0, unbiased=False) + 1e-8).sqrt().mean()
    return torch.cat([x, deviation.expand(x.shape[0], 1, *x.shape[2:])], 1)


def as_joint(values: Tensor, shape: ImageShape, *, bounded: bool = False) -> Tensor:
    """Last channels as image and mask: labels by softmax, scaled to [-1, 1]; `bounded` squashes the image."""
    image = values[:, : shape.channels]
    image = torch.tanh(image) if bounded else image
    if not shape.n_labels:
        return image
    return torch.cat([image, values[:, shape.channels :].softmax(1) * 2 - 1], 1)


def with_label(values: Tensor, label: Tensor | None) -> Tensor:
    """Values (n, C) followed by the one-hot label, where there are classes."""
    return values if label is None else torch.cat([values, label], 1)


def label_score(scores: Tensor, label: Tensor | None) -> Tensor:
    """A projection head: a score for any image plus one for its class, from outputs (n, 1 + K)."""
    return scores[:, 0] if label is None else scores[:, 0] + (scores[:, 1:] * label).sum(1)


class EqualLinear(nn.Module):
    """Linear layer with an equalised learning rate: unit weights, scaled when used (ProGAN, section 4.1)."""

    def __init__(self, inputs: int, outputs: int, *, bias: float = 0.0, rate: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / rate)
        self.bias = nn.Parameter(torch.full((outputs,), bias / rate))
        self.gain, self.rate = rate / math.sqrt(inputs), rate

    def forward(self, x: Tensor) -> Tensor:
        """Values (n, outputs)."""
        return functional.linear(x, self.weight * self.gain, self.bias * self.rate)


class EqualConv(nn.Module):
    """Convolution with an equalised learning rate that keeps the grid."""

    def __init__(self, dimensions: int, inputs: int, outputs: int, kernel: int = 3) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, *[kernel] * dimensions))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.gain, self.padding = 1 / math.sqrt(inputs * kernel**dimensions), kernel // 2

    def forward(self, x: Tensor) -> Tensor:
        """Features (n, outputs, ...)."""
        return convolve(x, self.weight * self.gain, self.bias, self.padding)


class ModulatedConv(nn.Module):
    """Convolution whose input channels a style scales and whose outputs are brought back to unit variance.

    Scaling input and output around one shared convolution equals StyleGAN2's convolution by per-sample weights
    (section 2.2, equations 1 and 3), and needs no grouping.
    """

    def __init__(
        self, dimensions: int, inputs: int, outputs: int, style: int, *, kernel: int = 3, demodulate: bool = True
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, *[kernel] * dimensions))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.style = EqualLinear(style, inputs, bias=1.0)
        self.gain = 1 / math.sqrt(inputs * kernel**dimensions)
        self.padding, self.demodulate = kernel // 2, demodulate

    def forward(self, x: Tensor, w: Tensor, padding: int | None = None) -> Tensor:
        """Features (n, outputs, ...) of `x` (n, inputs, ...) in the style `w` (n, style), bias added."""
        style, weight = self.style(w), self.weight * self.gain
        y = convolve(x * spread(style, x), weight, padding=self.padding if padding is None else padding)
        if self.demodulate:
            power = style.square() @ weight.square().flatten(2).sum(2).T
            y = y * spread(torch.rsqrt(power + 1e-8), y)
        return y + spread(self.bias[None], y)


class Mapping(nn.Module):
    """StyleGAN's mapping network: a normalised latent and an embedded class become a style."""

    def __init__(self, latent: int, n_classes: int, style: int, depth: int) -> None:
        super().__init__()
        self.embed = EqualLinear(n_classes, latent) if n_classes else None
        inputs = [latent * (2 if n_classes else 1), *[style] * (depth - 1)]
        self.layers = nn.ModuleList(EqualLinear(i, style, rate=0.01) for i in inputs)

    def forward(self, z: Tensor, label: Tensor | None) -> Tensor:
        """Styles (n, style)."""
        x = pixel_norm(z)
        if self.embed is not None and label is not None:
            x = torch.cat([x, pixel_norm(self.embed(label))], 1)
        for layer in self.layers:
            x = leaky(layer(x))
        return x
