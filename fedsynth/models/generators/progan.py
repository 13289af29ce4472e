"""ProGAN (Karras et al. 2018): generator and discriminator grow from a coarse grid, under the WGAN-GP objective.

Equalised learning rates, pixel norm in the generator, and (in plain runs only) a channel of the batch's deviation.
Features are enlarged linearly instead of repeated, as StyleGAN later did: short runs leave no lattice in the picture.
"""

import math

from torch import Tensor, nn
from torch.nn import functional

from fedsynth.models.base import ImageShape, RandomSource, Tensors
from fedsynth.models.generators.catalog import Entry, Recipe, register
from fedsynth.models.layers import (
    EqualConv,
    EqualLinear,
    as_joint,
    double,
    halve,
    halving_problem,
    halvings,
    label_score,
    minibatch_deviation,
    pixel_norm,
    repeat,
    widths,
    with_label,
)
from fedsynth.models.objectives import WASSERSTEIN, unit_slope
from fedsynth.models.progressive_growing import GrowingGan, GrowingGenerator, Growth, faded


class PixelNorm(nn.Module):
    """`pixel_norm` within a chain."""

    def forward(self, x: Tensor) -> Tensor:
        """Features of unit mean square."""
        return pixel_norm(x)


def _step(dimensions: int, inputs: int, outputs: int) -> tuple[nn.Module, nn.Module]:
    return EqualConv(dimensions, inputs, outputs), nn.LeakyReLU(0.2)


class GrowingConvGenerator(GrowingGenerator):
    """A block of two convolutions per stage, and per stage a way out to image and mask."""

    def __init__(self, shape: ImageShape, growth: Growth, *, latent: int, channels: list[int]) -> None:
        super().__init__(growth)
        self.shape, self.latent = shape, latent
        self.start = (channels[0], *halvings(shape.size)[0])
        self.first = EqualLinear(latent + shape.n_classes, math.prod(self.start))
        before = [channels[0], *channels[:-1]]
        self.blocks = nn.ModuleList(
            nn.Sequential(*_step(shape.dimensions, i, o), PixelNorm(), *_step(shape.dimensions, o, o), PixelNorm())
            for i, o in zip(before, channels, strict=True)
        )
        self.out = nn.ModuleList(EqualConv(shape.dimensions, i, shape.joint_channels, 1) for i in channels)

    def noise(self, n: int, rng: RandomSource) -> Tensors:
        """A normal latent."""
        return {"z": rng.normal((n, self.latent))}

    def forward(self, label: Tensor | None, noise: Tensors, progress: float) -> Tensor:
        """Image and mask at the size of the stage."""
        stage, share = self.growth.at(progress)
        z = with_label(pixel_norm(noise["z"]), label)
        x = before = pixel_norm(self.first(z).reshape(-1, *self.start))
        for block in self.blocks[: stage + 1]:
            before, x = x, block(x if block is self.blocks[0] else double(x))
        made = self.out[stage](x)
        if share < 1:
            made = faded(made, repeat(self.out[stage - 1](before)), share)
        return as_joint(made, self.shape)


class GrowingDiscriminator(nn.Module):
    """The generator's mirror image; `deviation` adds the channel that mixes samples."""

    def __init__(self, shape: ImageShape, growth: Growth, *, channels: list[int], deviation: bool) -> None:
        super().__init__()
        self.growth, self.deviation = growth, deviation
        d, extra = shape.dimensions, int(deviation)
        after = [channels[0], *channels[:-1]]
        self.into = nn.ModuleList(EqualConv(d, shape.joint_channels, o, 1) for o in channels)
        self.blocks = nn.ModuleList(
            nn.Sequential(*_step(d, i + (extra if stage == 0 else 0), i), *_step(d, i, o))
            for stage, (i, o) in enumerate(zip(channels, after, strict=True))
        )
        self.score = EqualLinear(channels[0] * math.prod(halvings(shape.size)[0]), 1 + shape.n_classes)

    def forward(self, joint: Tensor, label: Tensor | None, progress: float) -> Tensor:
        """Scores (n,) of images at the size of the stage."""
        stage, share = self.growth.at(progress)
        x = self._read(joint, stage)
        for i in range(stage, -1, -1):
            if i == 0 and self.deviation:
                x = minibatch_deviation(x)
            x = self.blocks[i](x)
            x = halve(x) if i else x
            if i == stage and share < 1:
                x = faded(x, self._read(halve(joint), stage - 1), share)
        return label_score(self.score(x.flatten(1)), label)

    def _read(self, joint: Tensor, stage: int) -> Tensor:
        return functional.leaky_relu(self.into[stage](joint), 0.2)


def stage_widths(shape: ImageShape, base: int | None) -> list[int]:
    """Channels per stage from coarse to fine; `base` is the finest's (12 in 2-D, 6 in 3-D)."""
    width = base or (12 if shape.dimensions == 2 else 6)
    return widths(len(halvings(shape.size)), width, 6 * width)


def discriminator_widths(shape: ImageShape, base: int | None, private: bool) -> list[int]:
    """Channels per stage of the discriminator: half as many when it is private, and at most 32 (16 in 3-D)."""
    channels, most = stage_widths(shape, base), 32 if shape.dimensions == 2 else 16
    return [max(4, min(most, c // 2)) for c in channels] if private else channels


def build(
    shape: ImageShape, *, private: bool = False, latent: int = 64, base: int | None = None, grow: float = 0.5
) -> GrowingGan:
    """A new one. `base` is the number of channels at full size; `grow` the share of the run spent on growing."""
    growth = Growth(n_stages=len(halvings(shape.size)), share=grow)
    return GrowingGan(
        shape,
        generator=GrowingConvGenerator(shape, growth, latent=latent, channels=stage_widths(shape, base)),
        discriminator=GrowingDiscriminator(
            shape, growth, channels=discriminator_widths(shape, base, private), deviation=not private
        ),
        objective=WASSERSTEIN,
        penalty=unit_slope(),
        mixes_samples=not private,
    )


register(
    Entry(
        name="progan",
        summary="progressively growing GAN: learns coarse anatomy first",
        kind="joint",
        private="discriminator: vmap(grad)",
        build=build,
        recipe=Recipe(rate=2e-3, betas=(0.0, 0.99), augment=False),
        check_size=halving_problem,
    )
)
