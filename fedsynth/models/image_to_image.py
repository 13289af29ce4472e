"""A U-Net from image to image and the residual block it is made of.

MONAI's U-Net ends in a transposed convolution whose few output channels are normalised, which shows as stripes on
small images; this one doubles its grid by interpolation and ends in a plain convolution.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from fedsynth.models.base import ImageShape, Tensors
from fedsynth.models.layers import CONVOLUTION, double, halve, halving_problem, halvings, spread, widths
from fedsynth.models.objectives import Term

# A discriminator of patches for paired families: is every part of this image a true answer to its source?


SMALLEST = 16


def patch_problem(size: tuple[int, ...]) -> str:
    """Why a generator that doubles its grid, scored by patches, cannot make `size`; empty where it can."""
    if min(size) < SMALLEST:
        return f"sides below {SMALLEST} leave nothing to tell patches apart"
    return halving_problem(size)


class PatchGanDiscriminator(nn.Module):
    """Scores of overlapping patches (PatchGAN, Isola et al. 2017), with the features that led to them.

    Instance norm looks at one sample only; private runs go without norm, which wastes less of the clipped gradient.
    """

    def __init__(self, shape: ImageShape, base: int, *, norm: bool) -> None:
        super().__init__()
        from monai.networks.nets.patchgan_discriminator import PatchDiscriminator

        self.layers = PatchDiscriminator(
            spatial_dims=shape.dimensions,
            channels=base,
            in_channels=shape.joint_channels + shape.source_channels + shape.n_classes,
            num_layers_d=2,
            norm="INSTANCE" if norm else None,  # type: ignore[arg-type]  # MONAI takes None, unlike its annotation
        )
        for module in self.modules():
            if hasattr(module, "inplace"):
                setattr(module, "inplace", False)  # noqa: B010  (a plain assignment is typed as a tensor or module)

    def forward(self, pair: Tensor, condition: Tensors) -> list[Tensor]:
        """Features of each layer for `pair` (image, mask and source as channels); the last are the scores."""
        if "label" in condition:
            label = spread(condition["label"].to(pair.dtype), pair).expand(-1, -1, *pair.shape[2:])
            pair = torch.cat([pair, label], 1)
        features: list[Tensor] = self.layers(pair)
        return features


def over_patches(term: Term, features: list[Tensor]) -> Tensor:
    """The mean of a loss over the patches of each sample (n,)."""
    return term(features[-1]).flatten(1).mean(1)


def feature_distance(made: list[Tensor], real: list[Tensor]) -> Tensor:
    """How far the discriminator's features of a generated image lie from the real one's (n,): feature matching (Wang et
    al. 2018).

    The real features are a target and pass no gradient.
    """
    apart = [(m - r.detach()).abs().flatten(1).mean(1) for m, r in zip(made[:-1], real[:-1], strict=True)]
    return torch.stack(apart).mean(0)


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
