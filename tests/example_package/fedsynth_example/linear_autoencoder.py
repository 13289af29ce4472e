"""A linear autoencoder of image and mask: the shortest family that is whole."""

import math

import torch
from torch import Tensor, nn

from fedsynth.models.base import Family, ImageShape, Phase, RandomSource, Tensors, joined, parted
from fedsynth.models.generators.catalog import Entry, Recipe, register
from fedsynth.models.layers import with_label


class LinearAutoencoder(Family):
    """Codes are near to normal, so that images are drawn from normal codes."""

    phases = (Phase(net="autoencoder", reads_patients=True),)
    shared = sampler = ("autoencoder",)

    def __init__(self, shape: ImageShape, codes: int) -> None:
        pixels = shape.joint_channels * math.prod(shape.size)
        parts = {"encode": nn.Linear(pixels, codes), "decode": nn.Linear(codes + shape.n_classes, pixels)}
        super().__init__(shape, {"autoencoder": nn.ModuleDict(parts)})
        self.codes = codes

    def noise(self, n: int, rng: RandomSource) -> Tensors:
        return {"z": rng.normal((n, self.codes))}

    def real_loss(self, phase: Phase, batch: Tensors, noise: Tensors, progress: float) -> Tensor:
        """The only function that sees patients: one number per sample."""
        seen = joined(batch)
        code = self.nets["autoencoder"]["encode"](seen.flatten(1))
        error = (self._decoded(code + 0.1 * noise["z"], batch.get("label")) - seen).square().flatten(1).mean(1)
        return error + 0.01 * code.square().mean(1)

    def fake_loss(self, phase: Phase, condition: Tensors, noise: Tensors, progress: float) -> Tensor:
        return torch.zeros(len(noise["z"]))

    def sample(self, condition: Tensors, noise: Tensors) -> Tensors:
        return parted(self._decoded(noise["z"], condition.get("label")), self.shape)

    def _decoded(self, code: Tensor, label: Tensor | None) -> Tensor:
        pixels = self.nets["autoencoder"]["decode"](with_label(code, label))
        return torch.tanh(pixels).reshape(-1, self.shape.joint_channels, *self.shape.size)


def build(shape: ImageShape, *, private: bool = False, codes: int = 16) -> LinearAutoencoder:
    """A new one with so many `codes`."""
    return LinearAutoencoder(shape, codes)


register(
    Entry(
        name="linear-autoencoder",
        summary="one linear layer in, one out",
        kind="joint",
        not_private="nobody has measured it",
        build=build,
        recipe=Recipe(steps=200, rate=1e-3),
    )
)
