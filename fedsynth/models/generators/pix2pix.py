"""pix2pix (Isola et al. 2017): from one image to another, or to a label map, with a U-Net and a discriminator of
patches.

The loss compares with the real target, so generator and discriminator both read patients and both are private when the
run is. Variety comes from noise channels beside the source; the paper's dropout would be randomness outside `noise`.
"""

import torch
from torch import Tensor
from torch.nn import functional

from fedsynth.models.base import Family, ImageShape, Phase, RandomSource, Tensors, joined, parted
from fedsynth.models.generators.catalog import Entry, Recipe, register
from fedsynth.models.image_to_image import PatchGanDiscriminator, UNet, over_patches, patch_problem
from fedsynth.models.layers import as_joint, spread
from fedsynth.models.objectives import LEAST_SQUARES

NOISE_CHANNELS = 1


class Pix2Pix(Family):
    """Least squares on patches, plus `closeness` times the distance to the target.

    The distance is the mean absolute difference for intensities and the cross-entropy for labels.
    """

    phases = (Phase(net="discriminator", reads_patients=True), Phase(net="generator", reads_patients=True))
    shared = ("generator", "discriminator")

    def __init__(self, shape: ImageShape, *, private: bool, base: int, closeness: float) -> None:
        inputs = shape.source_channels + NOISE_CHANNELS + shape.n_classes
        generator = UNet(shape.size, inputs, shape.joint_channels, base)
        super().__init__(
            shape, {"generator": generator, "discriminator": PatchGanDiscriminator(shape, base, norm=not private)}
        )
        self.closeness = closeness

    def noise(self, n: int, rng: RandomSource) -> Tensors:
        """A noise channel beside the source."""
        return {"channel": rng.normal((n, NOISE_CHANNELS, *self.shape.size))}

    def real_loss(self, phase: Phase, batch: Tensors, noise: Tensors, progress: float) -> Tensor:
        """The whole phase: real and generated answers are scored beside the patient's own source."""
        if phase.net == "generator":
            values = self._values(batch, noise)
            made = self._score(as_joint(values, self.shape, bounded=True), batch, noise)
            return over_patches(LEAST_SQUARES.generator, made) + self.closeness * self._distance(values, batch)
        with torch.no_grad():
            fake = as_joint(self._values(batch, noise), self.shape, bounded=True)
        real = over_patches(LEAST_SQUARES.real, self._score(joined(batch), batch, noise))
        return (real + over_patches(LEAST_SQUARES.fake, self._score(fake, batch, noise))) / 2

    def fake_loss(self, phase: Phase, condition: Tensors, noise: Tensors, progress: float) -> Tensor:
        """Nothing is learnt without patients."""
        return torch.zeros_like(noise["channel"].flatten(1)[:, 0])

    def sample(self, condition: Tensors, noise: Tensors) -> Tensors:
        """The answer to each source."""
        return parted(as_joint(self._values(condition, noise), self.shape, bounded=True), self.shape)

    def _distance(self, values: Tensor, batch: Tensors) -> Tensor:
        apart = torch.zeros_like(values.flatten(1)[:, 0])
        if self.shape.channels:
            made = torch.tanh(values[:, : self.shape.channels])
            apart = apart + (made - batch["image"]).abs().flatten(1).mean(1)
        if self.shape.n_labels:
            likelihood = functional.log_softmax(values[:, self.shape.channels :], 1)
            apart = apart - (batch["mask"] * likelihood).sum(1).flatten(1).mean(1)
        return apart

    def _values(self, condition: Tensors, noise: Tensors) -> Tensor:
        """What the U-Net says before it is squashed: intensities and logits of labels."""
        source = condition["source"]
        parts = [source, noise["channel"].to(source.dtype)]
        if "label" in condition:
            parts.append(spread(condition["label"].to(source.dtype), source).expand(-1, -1, *source.shape[2:]))
        values: Tensor = self.nets["generator"](torch.cat(parts, 1))
        return values

    def _score(self, joint: Tensor, condition: Tensors, noise: Tensors) -> list[Tensor]:
        pair = self.seen(torch.cat([joint, condition["source"].to(joint.dtype)], 1), noise)
        features: list[Tensor] = self.nets["discriminator"](pair, condition)
        return features


def build(shape: ImageShape, *, private: bool = False, base: int | None = None, closeness: float = 100.0) -> Pix2Pix:
    """A new one; volumes start from fewer channels, for their cost grows with the third side."""
    chosen = base or (16 if shape.dimensions == 2 else 8)
    return Pix2Pix(shape, private=private, base=chosen, closeness=closeness)


register(
    Entry(
        name="pix2pix",
        summary="one image to another, or to a label map: close to its source, little variety",
        kind="paired",
        build=build,
        recipe=Recipe(rate=5e-4, rates={"discriminator": 2e-4}, betas=(0.5, 0.99), augment=False),
        check_size=patch_problem,
    )
)
