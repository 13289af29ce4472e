"""SPADE, also called GauGAN (Park et al. 2019): an image for a label map (or any source), many images for the same one.

Written from the paper. The source enters every layer as a scale and a shift per voxel that pass through no
normalisation, so what a label does to a voxel does not depend on how large the labelled region is.
"""

import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from fedsynth.models.base import Family, ImageShape, Phase, RandomSource, Tensors, joined, parted
from fedsynth.models.generators.catalog import Entry, Recipe, register
from fedsynth.models.image_to_image import PatchGanDiscriminator, feature_distance, over_patches, patch_problem
from fedsynth.models.layers import CONVOLUTION, as_joint, double, halve, halvings, widths, with_label
from fedsynth.models.objectives import HINGE

LATENT = 64


class Modulation(nn.Module):
    """Instance-normalised features, scaled and shifted per voxel by what the source says there (equation 1)."""

    def __init__(self, dimensions: int, channels: int, sources: int, hidden: int) -> None:
        super().__init__()
        conv = CONVOLUTION[dimensions]
        self.read = conv(sources, hidden, 3, padding=1)
        self.write = conv(hidden, 2 * channels, 3, padding=1)

    def scale_and_shift(self, source: Tensor) -> tuple[Tensor, Tensor]:
        """Gamma and beta of equation 1, one per voxel and channel."""
        gamma, beta = self.write(functional.relu(self.read(source))).chunk(2, 1)
        return gamma, beta

    def forward(self, x: Tensor, source: Tensor) -> Tensor:
        """The modulated features."""
        gamma, beta = self.scale_and_shift(source)
        return functional.instance_norm(x) * (1 + gamma) + beta


class Block(nn.Module):
    """Two modulated convolutions around a shortcut (figure 4 of the paper, without spectral norm)."""

    def __init__(self, dimensions: int, inputs: int, outputs: int, sources: int, hidden: int) -> None:
        super().__init__()
        conv, middle = CONVOLUTION[dimensions], min(inputs, outputs)
        self.modulations = nn.ModuleList(Modulation(dimensions, c, sources, hidden) for c in (inputs, middle))
        self.convolutions = nn.ModuleList(conv(i, o, 3, padding=1) for i, o in ((inputs, middle), (middle, outputs)))
        self.shortcut = conv(inputs, outputs, 1, bias=False) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor, source: Tensor) -> Tensor:
        """Features on the same grid."""
        y = x
        for modulation, layer in zip(self.modulations, self.convolutions, strict=True):
            y = layer(functional.leaky_relu(modulation(y, source), 0.2))
        shortcut: Tensor = self.shortcut(x)
        return shortcut + y


class Generator(nn.Module):
    """Latent and class start the coarsest grid; every grid up to the full one sees the source at its own size."""

    def __init__(self, shape: ImageShape, base: int, hidden: int) -> None:
        super().__init__()
        grids = halvings(shape.size)
        channels = widths(len(grids), base, 8 * base)
        self.shape, self.start = shape, (channels[0], *grids[0])
        self.begin = nn.Linear(LATENT + shape.n_classes, math.prod(self.start))
        steps = [(channels[0], channels[0]), *pairwise(channels)]
        self.blocks = nn.ModuleList(Block(shape.dimensions, i, o, shape.source_channels, hidden) for i, o in steps)
        self.last = CONVOLUTION[shape.dimensions](channels[-1], shape.joint_channels, 3, padding=1)

    def forward(self, latent: Tensor, condition: Tensors) -> Tensor:
        """Image (and mask, if that is to be made) in [-1, 1]."""
        sources = [condition["source"].to(latent.dtype)]
        while len(sources) < len(self.blocks):
            sources.insert(0, halve(sources[0]))  # shares of labels, so that small lesions do not vanish
        x = self.begin(with_label(latent, condition.get("label"))).reshape(-1, *self.start)
        for number, (block, source) in enumerate(zip(self.blocks, sources, strict=True)):
            x = block(double(x) if number else x, source)
        return as_joint(self.last(functional.leaky_relu(x, 0.2)), self.shape, bounded=True)


class Spade(Family):
    """Hinge objective on patches; in plain runs also feature matching, which compares with the real image.

    In private runs the generator never reads a patient: its sources and the fakes' come from `condition`, which must
    be public or synthetic, and only the discriminator's real half goes through the mechanism.
    """

    shared = ("generator", "discriminator")

    def __init__(self, shape: ImageShape, *, private: bool, base: int, hidden: int, matching: float) -> None:
        nets = {
            "generator": Generator(shape, base, hidden),
            "discriminator": PatchGanDiscriminator(shape, base, norm=not private),
        }
        super().__init__(shape, nets)
        self.private, self.matching = private, matching
        self.phases = (
            Phase(net="discriminator", reads_patients=True),
            Phase(net="generator", reads_patients=not private),
        )

    def noise(self, n: int, rng: RandomSource) -> Tensors:
        """The latent."""
        return {"latent": rng.normal((n, LATENT))}

    def real_loss(self, phase: Phase, batch: Tensors, noise: Tensors, progress: float) -> Tensor:
        """Plain: the whole phase, with fakes for the batch's own sources. Private: the discriminator's real half
        alone.
        """
        if self.private:
            return over_patches(HINGE.real, self._score(joined(batch), batch, noise))
        if phase.net == "discriminator":
            real = over_patches(HINGE.real, self._score(joined(batch), batch, noise))
            return real + self._on_fakes(phase, batch, noise)
        made = self._score(self._make(batch, noise), batch, noise)
        with torch.no_grad():
            real_features = self._score(joined(batch), batch, noise)
        return over_patches(HINGE.generator, made) + self.matching * feature_distance(made, real_features)

    def fake_loss(self, phase: Phase, condition: Tensors, noise: Tensors, progress: float) -> Tensor:
        """Private: everything that judges fakes, made for public sources. Plain: nothing is left to do."""
        if not self.private:
            return torch.zeros_like(noise["latent"][:, 0])
        return self._on_fakes(phase, condition, noise)

    def sample(self, condition: Tensors, noise: Tensors) -> Tensors:
        """An image for each source."""
        return parted(self._make(condition, noise), self.shape)

    def _on_fakes(self, phase: Phase, condition: Tensors, noise: Tensors) -> Tensor:
        """The discriminator's loss on fakes, or the generator's."""
        if phase.net == "generator":
            return over_patches(HINGE.generator, self._score(self._make(condition, noise), condition, noise))
        with torch.no_grad():
            made = self._make(condition, noise)
        return over_patches(HINGE.fake, self._score(made, condition, noise))

    def _make(self, condition: Tensors, noise: Tensors) -> Tensor:
        made: Tensor = self.nets["generator"](noise["latent"], condition)
        return made

    def _score(self, joint: Tensor, condition: Tensors, noise: Tensors) -> list[Tensor]:
        pair = self.seen(torch.cat([joint, condition["source"].to(joint.dtype)], 1), noise)
        features: list[Tensor] = self.nets["discriminator"](pair, condition)
        return features


def build(
    shape: ImageShape,
    *,
    private: bool = False,
    base: int | None = None,
    hidden: int | None = None,
    matching: float = 10.0,
) -> Spade:
    """A new one; volumes start from fewer channels, for their cost grows with the third side."""
    chosen = base or (16 if shape.dimensions == 2 else 8)
    return Spade(shape, private=private, base=chosen, hidden=hidden or 2 * chosen, matching=matching)


register(
    Entry(
        name="spade",
        summary="GauGAN: many sharp images for one label map; privately it needs public or synthetic maps",
        kind="paired",
        build=build,
        recipe=Recipe(rate=2e-4, rates={"discriminator": 4e-4}, betas=(0.0, 0.99), augment=True),
        check_size=patch_problem,
    )
)
