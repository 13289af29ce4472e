"""DCGAN (Radford et al. 2016), and LSGAN (Mao et al. 2017) on the same two plain networks.

No batch normalisation: it mixes samples, and its running statistics travel badly between hospitals. The generator
enlarges by repeating pixels before it convolves, so that no checkerboard can arise. The discriminator is a plain chain
without any norm, which the private path differentiates sample by sample at little cost.
"""

import math
from dataclasses import replace
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn

from fedsynth.models.base import ImageShape, RandomSource, Tensors
from fedsynth.models.generators.catalog import PRIVATE, Entry, Recipe, register
from fedsynth.models.joint_gan import Generator, JointGan
from fedsynth.models.layers import CONVOLUTION, as_joint, halving_problem, halvings, spread, widths, with_label
from fedsynth.models.objectives import LEAST_SQUARES, NON_SATURATING, Objective


class ConvGenerator(Generator):
    """Latent and class to a coarse grid, then doubling and convolution. Group norm looks at one sample only."""

    def __init__(self, shape: ImageShape, *, latent: int, base: int) -> None:
        super().__init__()
        grids, conv = halvings(shape.size), CONVOLUTION[shape.dimensions]
        channels = widths(len(grids), base, 8 * base)
        self.shape, self.latent, self.start = shape, latent, (channels[0], *grids[0])
        self.first = nn.Linear(latent + shape.n_classes, math.prod(self.start))
        self.grow = nn.Sequential(*self._stage(channels[0], channels[0], doubled=False))
        for coarse, fine in pairwise(channels):
            self.grow.extend(self._stage(coarse, fine, doubled=True))
        self.last = conv(channels[-1], shape.joint_channels, 3, padding=1)

    def _stage(self, inputs: int, outputs: int, *, doubled: bool) -> list[nn.Module]:
        conv = CONVOLUTION[self.shape.dimensions](inputs, outputs, 3, padding=1)
        enlarge: list[nn.Module] = [nn.Upsample(scale_factor=2, mode="nearest")] if doubled else []
        return [*enlarge, conv, nn.GroupNorm(math.gcd(4, outputs), outputs), nn.LeakyReLU(0.2)]

    def noise(self, n: int, rng: RandomSource) -> Tensors:
        """A normal latent."""
        return {"z": rng.normal((n, self.latent))}

    def forward(self, label: Tensor | None, noise: Tensors, progress: float) -> Tensor:
        """Image and mask, both within [-1, 1]."""
        x = self.first(with_label(noise["z"], label)).reshape(-1, *self.start)
        return as_joint(self.last(self.grow(x)), self.shape, bounded=True)


class ConvDiscriminator(nn.Module):
    """Convolutions of stride two down to a coarse grid, and a linear score. The class enters as constant channels."""

    def __init__(self, shape: ImageShape, *, base: int) -> None:
        super().__init__()
        grids, conv = halvings(shape.size), CONVOLUTION[shape.dimensions]
        channels = [shape.joint_channels + shape.n_classes, *reversed(widths(len(grids) - 1, base, 4 * base))]
        self.layers = nn.Sequential()
        for inputs, outputs in pairwise(channels):
            self.layers.extend([conv(inputs, outputs, 4, stride=2, padding=1), nn.LeakyReLU(0.2)])
        self.layers.extend([nn.Flatten(), nn.Linear(channels[-1] * math.prod(grids[0]), 1)])

    def forward(self, joint: Tensor, label: Tensor | None, progress: float) -> Tensor:
        """Scores (n,)."""
        if label is not None:
            joint = torch.cat([joint, spread(label, joint).expand(-1, -1, *joint.shape[2:])], 1)
        scores: Tensor = self.layers(joint)
        return scores[:, 0]


def start_small(net: nn.Module) -> None:
    """The paper's initialisation: weights from N(0, 0.02), biases zero."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Conv3d | nn.Linear):
            nn.init.normal_(module.weight, 0, 0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def networks(
    shape: ImageShape, private: bool, latent: int, base: int | None
) -> tuple[ConvGenerator, ConvDiscriminator]:
    """Generator and discriminator; the private discriminator is small, for noise grows with the number of its
    parameters.
    """
    width = base or (32 if shape.dimensions == 2 else 16)
    generator = ConvGenerator(shape, latent=latent, base=width // 2)
    discriminator = ConvDiscriminator(shape, base=width // 2 if private else width)
    start_small(generator)
    start_small(discriminator)
    return generator, discriminator


def build(
    objective: Objective, shape: ImageShape, *, private: bool = False, latent: int = 64, base: int | None = None
) -> JointGan:
    """A new one. `base` is the width of the discriminator's first layer: 32 in 2-D, 16 in 3-D, half of it when
    private.
    """
    generator, discriminator = networks(shape, private, latent, base)
    return JointGan(shape, generator=generator, discriminator=discriminator, objective=objective)


register(
    Entry(
        name="dcgan",
        summary="plain convolutional GAN: small, fast, and private at the lowest cost",
        kind="joint",
        private="discriminator: fast path",
        build=partial(build, NON_SATURATING),
        recipe=Recipe(rate=1e-3, augment=False),
        check_size=halving_problem,
    )
)
register(
    Entry(
        name="lsgan",
        summary="the networks of dcgan with a least-squares objective",
        kind="joint",
        private="discriminator: fast path",
        build=partial(build, LEAST_SQUARES),
        recipe=Recipe(rate=1e-3, augment=False),
        private_recipe=replace(PRIVATE, steps=700, rates={"discriminator": 2e-3, "generator": 1e-3}),
        check_size=halving_problem,
    )
)
