"""The plain GAN of fully connected layers (Goodfellow et al. 2014): the simplest thing that could work."""

import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from fedsynth.models.base import ImageShape, RandomSource, Tensors
from fedsynth.models.generators.catalog import Entry, Recipe, register
from fedsynth.models.joint_gan import Generator, JointGan
from fedsynth.models.layers import as_joint, with_label
from fedsynth.models.objectives import NON_SATURATING

LOOK = 16
"""The private discriminator sees images averaged down to at most this many pixels a side: noise grows with its
inputs.
"""


class DenseGenerator(Generator):
    """Linear layers from latent and class to all pixels at once."""

    def __init__(self, shape: ImageShape, *, latent: int, hidden: tuple[int, ...]) -> None:
        super().__init__()
        self.shape, self.latent = shape, latent
        sizes = (latent + shape.n_classes, *hidden)
        layers = [(nn.Linear(i, o), nn.LayerNorm(o), nn.LeakyReLU(0.2)) for i, o in pairwise(sizes)]
        self.layers = nn.Sequential(*[module for layer in layers for module in layer])
        self.last = nn.Linear(hidden[-1], shape.joint_channels * math.prod(shape.size))
        start_flat(self.last)

    def noise(self, n: int, rng: RandomSource) -> Tensors:
        """A normal latent."""
        return {"z": rng.normal((n, self.latent))}

    def forward(self, label: Tensor | None, noise: Tensors, progress: float) -> Tensor:
        """Image and mask, both within [-1, 1]."""
        pixels = self.last(self.layers(with_label(noise["z"], label)))
        return as_joint(pixels.reshape(-1, self.shape.joint_channels, *self.shape.size), self.shape, bounded=True)


class DenseDiscriminator(nn.Module):
    """Linear layers from all pixels (averaged in blocks of side `pool`) and the class to a score."""

    def __init__(self, shape: ImageShape, *, hidden: tuple[int, ...], pool: int) -> None:
        super().__init__()
        self.pool = pool
        n_pixels = math.prod(side // pool for side in shape.size)
        sizes = (shape.joint_channels * n_pixels + shape.n_classes, *hidden)
        self.layers = nn.Sequential()
        for inputs, outputs in pairwise(sizes):
            self.layers.extend([nn.Linear(inputs, outputs), nn.LeakyReLU(0.2)])
        self.layers.append(nn.Linear(hidden[-1], 1))
        start_flat(self.layers[0])

    def forward(self, joint: Tensor, label: Tensor | None, progress: float) -> Tensor:
        """Scores (n,)."""
        if self.pool > 1:
            joint = (functional.avg_pool2d if joint.dim() == 4 else functional.avg_pool3d)(joint, self.pool)
        scores: Tensor = self.layers(with_label(joint.flatten(1), label))
        return scores[:, 0]


def start_flat(pixels: nn.Module) -> None:
    """Small first weights where a layer meets pixels: random ones are a grain in the picture that never quite goes."""
    assert isinstance(pixels, nn.Linear)
    with torch.no_grad():
        pixels.weight.mul_(0.05)


def build(
    shape: ImageShape,
    *,
    private: bool = False,
    latent: int = 64,
    hidden: tuple[int, ...] = (64, 128),
    discriminator_hidden: tuple[int, ...] = (128, 64),
) -> JointGan:
    """A new one; the private discriminator looks at a smaller picture through fewer units."""
    pool = math.ceil(max(shape.size) / (LOOK if shape.dimensions == 2 else LOOK // 2)) if private else 1
    generator = DenseGenerator(shape, latent=latent, hidden=tuple(hidden))
    discriminator = DenseDiscriminator(shape, hidden=(32,) if private else tuple(discriminator_hidden), pool=pool)
    return JointGan(shape, generator=generator, discriminator=discriminator, objective=NON_SATURATING)


register(
    Entry(
        name="mlp",
        summary="fully connected GAN: the oldest baseline, grainy pictures",
        kind="joint",
        private="discriminator: fast path",
        build=build,
        recipe=Recipe(steps=10_000, rate=1e-3, augment=False),
    )
)
