"""R3GAN (Huang et al. 2024): residual networks without any norm, a relativistic objective, R1 and R2.

Its discriminator compares each real image with one generated image, so the pair is one patient's loss. The paper's
generator compares too, and so reads patients: a private run gives it the non-saturating term instead.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from fedsynth.models.base import ImageShape, Phase, RandomSource, Tensors, joined
from fedsynth.models.generators.catalog import Entry, Recipe, register
from fedsynth.models.generators.progan import discriminator_widths, stage_widths
from fedsynth.models.joint_gan import DISCRIMINATOR, GENERATOR, Generator, JointGan
from fedsynth.models.layers import (
    CONVOLUTION,
    as_joint,
    double,
    halve,
    halving_problem,
    halvings,
    label_score,
    spread,
    with_label,
)
from fedsynth.models.objectives import NON_SATURATING, scores_and_slopes

GROUP = 16
"""Channels per group of the middle convolution; volumes are not grouped, for that is slow."""


class ResidualBlock(nn.Module):
    """Widen, convolve in groups, narrow. The last convolution starts at zero, so a deep network starts as identity."""

    def __init__(self, dimensions: int, channels: int, n_blocks: int) -> None:
        super().__init__()
        conv, inner = CONVOLUTION[dimensions], 2 * channels
        groups = max(1, inner // GROUP) if dimensions == 2 and inner % GROUP == 0 else 1
        self.widen = conv(channels, inner, 1)
        self.mix = conv(inner, inner, 3, padding=1, groups=groups)
        self.narrow = conv(inner, channels, 1, bias=False)
        for layer in (self.widen, self.mix):
            nn.init.kaiming_normal_(layer.weight, 0.2)
            layer.weight.data *= n_blocks**-0.25  # Fix-up: the square root of 1/sqrt(blocks) for each of two layers
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        nn.init.zeros_(self.narrow.weight)

    def forward(self, x: Tensor) -> Tensor:
        """`x` and what the block adds."""
        inner = functional.leaky_relu(self.mix(functional.leaky_relu(self.widen(x), 0.2)), 0.2)
        added: Tensor = self.narrow(inner)
        return x + added


def _blocks(dimensions: int, channels: int, n_stages: int, per_stage: int) -> list[nn.Module]:
    return [ResidualBlock(dimensions, channels, n_stages * per_stage) for _ in range(per_stage)]


def _change(dimensions: int, inputs: int, outputs: int) -> nn.Module:
    return CONVOLUTION[dimensions](inputs, outputs, 1, bias=False) if inputs != outputs else nn.Identity()


class ResidualGenerator(Generator):
    """A learned grid scaled by latent and class, then residual stages with doubling between."""

    def __init__(self, shape: ImageShape, *, latent: int, channels: list[int], blocks: int) -> None:
        super().__init__()
        d, n = shape.dimensions, len(channels)
        self.shape, self.latent = shape, latent
        self.basis = nn.Parameter(torch.randn(1, channels[0], *halvings(shape.size)[0]))
        self.scale = nn.Linear(latent + shape.n_classes, channels[0], bias=False)
        before = [channels[0], *channels[:-1]]
        self.stages = nn.ModuleList(
            nn.Sequential(_change(d, i, o), *_blocks(d, o, n, blocks)) for i, o in zip(before, channels, strict=True)
        )
        self.out = CONVOLUTION[d](channels[-1], shape.joint_channels, 1)

    def noise(self, n: int, rng: RandomSource) -> Tensors:
        """A normal latent."""
        return {"z": rng.normal((n, self.latent))}

    def forward(self, label: Tensor | None, noise: Tensors, progress: float) -> Tensor:
        """Image and mask."""
        x = self.basis * spread(self.scale(with_label(noise["z"], label)), self.basis)
        for index, stage in enumerate(self.stages):
            x = stage(double(x) if index else x)
        return as_joint(self.out(x), self.shape)


class ResidualDiscriminator(nn.Module):
    """The generator's mirror image, ending in one learned average per channel and a linear score."""

    def __init__(self, shape: ImageShape, *, channels: list[int], blocks: int) -> None:
        super().__init__()
        d, n, top = shape.dimensions, len(channels), channels[0]
        self.into = CONVOLUTION[d](shape.joint_channels, channels[-1], 1)
        after = [channels[0], *channels[:-1]]
        pairs: Sequence[tuple[int, int]] = list(zip(channels, after, strict=True))[::-1]
        self.stages = nn.ModuleList(nn.Sequential(*_blocks(d, i, n, blocks), _change(d, i, o)) for i, o in pairs)
        grid = halvings(shape.size)[0]
        self.average = nn.Parameter(torch.randn(top, *grid) / math.sqrt(math.prod(grid)))
        self.score = nn.Linear(top, 1 + shape.n_classes)

    def forward(self, joint: Tensor, label: Tensor | None, progress: float) -> Tensor:
        """Scores (n,)."""
        x = self.into(joint)
        for index, stage in enumerate(self.stages):
            x = stage(halve(x) if index else x)
        return label_score(self.score((x * self.average).flatten(2).sum(2)), label)


class R3Gan(JointGan):
    """Relativistic pairs. `gamma` falls from ten times its value over the first fifth of the run (the burn-in)."""

    gamma: float = 1.0

    def real_loss(self, phase: Phase, batch: Tensors, noise: Tensors, progress: float) -> Tensor:
        """The discriminator's loss on pairs of a real and a generated image; in plain runs also the generator's."""
        label = batch.get("label")
        scorer, real = self.scorer(label, progress), self.seen(joined(batch), noise)
        if phase.net == "generator":
            return functional.softplus(scorer(real) - scorer(self.made(label, noise, progress)))
        real_scores, real_slopes = scores_and_slopes(scorer, real)
        fake_scores, fake_slopes = scores_and_slopes(scorer, self.fakes(label, noise, progress))
        penalty = self.burnt_in(progress) / 2 * (real_slopes + fake_slopes)
        return functional.softplus(fake_scores - real_scores) + penalty

    def fake_loss(self, phase: Phase, condition: Tensors, noise: Tensors, progress: float) -> Tensor:
        """In private runs the generator's non-saturating loss; everything else compares with patients."""
        if phase.reads_patients:
            return torch.zeros_like(noise["z"][:, 0])
        return super().fake_loss(phase, condition, noise, progress)

    def burnt_in(self, progress: float) -> float:
        """The weight of R1 and R2: a cosine in the exponent, from ten times `gamma` to `gamma`."""
        left = (1 + math.cos(math.pi * min(1.0, progress / 0.2))) / 2
        return self.gamma * float(10**left)


def build(
    shape: ImageShape,
    *,
    private: bool = False,
    latent: int = 64,
    base: int | None = None,
    blocks: int = 1,
    gamma: float = 1.0,
) -> R3Gan:
    """A new one. `base` is the number of channels at full size (12 in 2-D, 6 in 3-D), `gamma` weighs R1 and R2.

    The paper has two residual `blocks` per stage; one halves the time of a step.
    """
    family = R3Gan(
        shape,
        generator=ResidualGenerator(shape, latent=latent, channels=stage_widths(shape, base), blocks=blocks),
        discriminator=ResidualDiscriminator(shape, channels=discriminator_widths(shape, base, private), blocks=blocks),
        objective=NON_SATURATING,
    )
    family.gamma = gamma
    family.phases = (DISCRIMINATOR, GENERATOR if private else Phase(net="generator", reads_patients=True))
    return family


register(
    Entry(
        name="r3gan",
        summary="R3GAN: relativistic pairs, no normalisation, every mode covered",
        kind="joint",
        private="discriminator: vmap(grad)",
        build=build,
        recipe=Recipe(rate=1e-3, betas=(0.0, 0.99), augment=False),
        check_size=halving_problem,
    )
)
