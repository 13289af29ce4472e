"""StyleGAN2 (Karras et al. 2020): modulated convolutions, a generator that sums its outputs, a residual discriminator.

The path-length regulariser is a phase of its own for the generator. It reads generated images only.
"""

import math
from itertools import pairwise

import torch
from torch import Tensor, nn

from fedsynth.models.base import ImageShape, Phase, RandomSource, Tensors
from fedsynth.models.generators.catalog import Entry, Recipe, register
from fedsynth.models.generators.progan import discriminator_widths, stage_widths
from fedsynth.models.joint_gan import DISCRIMINATOR, GENERATOR, Generator, JointGan
from fedsynth.models.layers import (
    EqualConv,
    EqualLinear,
    ModulatedConv,
    as_joint,
    double,
    halve,
    halving_problem,
    halvings,
    label_score,
    leaky,
    minibatch_deviation,
)
from fedsynth.models.objectives import NON_SATURATING, r1
from fedsynth.models.style_mapping import Styles

PATHS = Phase(net="generator", reads_patients=False, interval=8)
"""The lazy phase of the path-length regulariser; its weight is multiplied by its interval."""


class SkipGenerator(Generator):
    """A learned constant, modulated convolutions with noise, and at every grid an addition to the picture."""

    path_mean: Tensor

    def __init__(self, shape: ImageShape, styles: Styles, *, style: int, channels: list[int]) -> None:
        super().__init__()
        self.shape, self.styles, self.grids = shape, styles, halvings(shape.size)
        d, pairs = shape.dimensions, [(channels[0], channels[0])]
        for coarse, fine in pairwise(channels):
            pairs += [(coarse, fine), (fine, fine)]
        self.constant = nn.Parameter(torch.randn(1, channels[0], *self.grids[0]))
        self.layers = nn.ModuleList(ModulatedConv(d, i, o, style) for i, o in pairs)
        self.strength = nn.Parameter(torch.zeros(len(pairs)))
        self.out = nn.ModuleList(
            ModulatedConv(d, c, shape.joint_channels, style, kernel=1, demodulate=False) for c in channels
        )
        self.register_buffer("path_mean", torch.zeros(()))
        self.last_length: Tensor | None = None

    def noise(self, n: int, rng: RandomSource) -> Tensors:
        """Latents, a noise picture for every layer, and one for the direction in which paths are measured."""
        grids = [self.grids[(layer + 1) // 2] for layer in range(len(self.layers))]
        pictures = {f"layer-{layer}": rng.normal((n, 1, *grid)) for layer, grid in enumerate(grids)}
        path = rng.normal((n, self.shape.joint_channels, *self.shape.size))
        return {**self.styles.noise(n, rng), **pictures, "path": path}

    def forward(self, label: Tensor | None, noise: Tensors, progress: float) -> Tensor:
        """Image and mask, styles mixed among the layers."""
        return self.synthesize(self.styles.mixed(label, noise, len(self.layers) + 1), noise)

    def draw(self, label: Tensor | None, noise: Tensors) -> Tensor:
        """Image and mask in one truncated style."""
        return self.synthesize(self.styles.truncated(label, noise, len(self.layers) + 1), noise)

    def synthesize(self, ws: Tensor, noise: Tensors) -> Tensor:
        """Image and mask from styles (n, layers + 1, style); each way out takes the style after its last layer's."""
        x = self.constant.expand(len(ws), *self.constant.shape[1:])
        made: Tensor | None = None
        for index, layer in enumerate(self.layers):
            x = layer(double(x) if index % 2 else x, ws[:, index])
            x = leaky(x + self.strength[index] * noise[f"layer-{index}"])
            if index % 2 == 0:
                added = self.out[index // 2](x, ws[:, index + 1])
                made = added if made is None else double(made) + added
        assert made is not None
        return as_joint(made, self.shape)

    def path_lengths(self, label: Tensor | None, noise: Tensors) -> Tensor:
        """How far a picture moves per step in style space, in a random direction of pixels (n,) (section 3.2)."""
        ws = self.styles.mixed(label, noise, len(self.layers) + 1)
        direction = noise["path"] / math.sqrt(math.prod(self.shape.size))
        slope = torch.func.grad(lambda w: (self.synthesize(w, noise) * direction).sum())(ws)
        lengths: Tensor = (slope.square().sum(2).mean(1) + 1e-8).sqrt()
        return lengths

    def settle(self) -> None:
        """Move the mean path length a little towards the last ones; the first sets it."""
        if self.last_length is not None:
            self.path_mean.lerp_(self.last_length, 0.05 if self.path_mean > 0 else 1.0)
            self.last_length = None


class ResidualBlock(nn.Module):
    """Two convolutions and a straight path, both down to half the grid."""

    def __init__(self, dimensions: int, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first = EqualConv(dimensions, inputs, inputs)
        self.second = EqualConv(dimensions, inputs, outputs)
        self.straight = EqualConv(dimensions, inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Both paths added, of unit variance again."""
        inner: Tensor = leaky(self.second(halve(leaky(self.first(x))))) + self.straight(halve(x))
        return inner / math.sqrt(2)


class ResidualDiscriminator(nn.Module):
    """Residual blocks down to the coarsest grid; `deviation` adds the channel that mixes samples."""

    def __init__(self, shape: ImageShape, *, channels: list[int], deviation: bool) -> None:
        super().__init__()
        d, top = shape.dimensions, channels[0]
        self.deviation = deviation
        self.into = EqualConv(d, shape.joint_channels, channels[-1], 1)
        self.blocks = nn.ModuleList(ResidualBlock(d, i, o) for i, o in pairwise(reversed(channels)))
        self.last = EqualConv(d, top + int(deviation), top)
        self.dense = EqualLinear(top * math.prod(halvings(shape.size)[0]), top)
        self.score = EqualLinear(top, 1 + shape.n_classes)

    def forward(self, joint: Tensor, label: Tensor | None, progress: float) -> Tensor:
        """Scores (n,)."""
        x = leaky(self.into(joint))
        for block in self.blocks:
            x = block(x)
        if self.deviation:
            x = minibatch_deviation(x)
        x = leaky(self.dense(leaky(self.last(x)).flatten(1)))
        return label_score(self.score(x), label)


class StyleGan2(JointGan):
    """A joint GAN with a third phase, which keeps the path lengths of the generator near their mean."""

    phases = (DISCRIMINATOR, GENERATOR, PATHS)
    path_weight: float = 2.0

    def fake_loss(self, phase: Phase, condition: Tensors, noise: Tensors, progress: float) -> Tensor:
        """As any joint GAN's, and the path-length regulariser (equation 4)."""
        if phase != PATHS:
            return super().fake_loss(phase, condition, noise, progress)
        generator = self.generator
        assert isinstance(generator, SkipGenerator)
        lengths = generator.path_lengths(condition.get("label"), noise)
        generator.last_length = lengths.detach().mean()
        return self.path_weight * phase.interval * (lengths - generator.path_mean).square()


def build(
    shape: ImageShape,
    *,
    private: bool = False,
    latent: int = 64,
    base: int | None = None,
    depth: int = 4,
    gamma: float = 1.0,
    truncation: float = 0.8,
    paths: float = 2.0,
) -> StyleGan2:
    """A new one; options as in stylegan, with `paths` the weight of the path-length regulariser."""
    styles = Styles(latent=latent, n_classes=shape.n_classes, style=latent, depth=depth, truncation=truncation)
    family = StyleGan2(
        shape,
        generator=SkipGenerator(shape, styles, style=latent, channels=stage_widths(shape, base)),
        discriminator=ResidualDiscriminator(
            shape, channels=discriminator_widths(shape, base, private), deviation=not private
        ),
        objective=NON_SATURATING,
        penalty=r1(gamma),
        mixes_samples=not private,
    )
    family.path_weight = paths
    return family


register(
    Entry(
        name="stylegan2",
        summary="StyleGAN2: modulated convolutions and path-length regularisation",
        kind="joint",
        private="discriminator: vmap(grad)",
        build=build,
        recipe=Recipe(rate=3e-3, betas=(0.0, 0.99), augment=False),
        check_size=halving_problem,
    )
)
