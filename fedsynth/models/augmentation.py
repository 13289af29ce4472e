"""Differentiable augmentation: the discriminator sees real and generated images shifted, dimmed and with a patch cut
out.

Stateless (nothing to federate, nothing to account) and sampled into plain parameters first, which travel in `noise`
like every other random number, so it also runs sample by sample under vmap. No mirroring: left and right differ.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from fedsynth.models.base import RandomSource, Tensors

SHIFT, CUT, LIGHT = "augment-shift", "augment-cut", "augment-light"


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """How strong: the largest shift and the cut-out side as shares of the image, and the change of brightness.

    `image_channels` says how many leading channels are intensities; brightness and contrast leave masks alone.
    """

    image_channels: int
    shift: float = 0.125
    cut: float = 0.25
    light: float = 0.1

    def noise(self, n: int, dimensions: int, rng: RandomSource) -> Tensors:
        """The parameters of `n` augmentations, each in [0, 1)."""
        return {
            SHIFT: rng.uniform((n, dimensions)),
            CUT: rng.uniform((n, dimensions)),
            LIGHT: rng.uniform((n, 2)),
        }

    def __call__(self, joint: Tensor, noise: Tensors) -> Tensor:
        """The augmented images; outside the picture everything is background (-1, and label 0 is not restored)."""
        dimensions = joint.dim() - 2
        shown = joint + 1  # background becomes zero, so that shifting and cutting fill with background
        for axis in range(dimensions):
            shown = _shift(shown, axis + 2, (noise[SHIFT][:, axis] * 2 - 1) * self.shift)
        shown = shown * _cut_out(shown, noise[CUT], self.cut)
        gain = 1 + (noise[LIGHT][:, 0] * 2 - 1) * self.light
        offset = (noise[LIGHT][:, 1] * 2 - 1) * self.light
        image, mask = shown[:, : self.image_channels], shown[:, self.image_channels :]
        each = (-1, *[1] * (dimensions + 1))
        image = image * gain.reshape(each) + offset.reshape(each)
        return torch.cat([image, mask], 1) - 1


def _shift(images: Tensor, axis: int, share: Tensor) -> Tensor:
    size = images.shape[axis]
    place = torch.arange(size, device=images.device)
    moved = place[None, :] - torch.round(share * size).to(place.dtype)[:, None]
    matrix = (moved[:, :, None] == place[None, None, :]).to(images.dtype)
    return torch.einsum("nc...s,nts->nc...t", images.movedim(axis, -1), matrix).movedim(-1, axis)


def _cut_out(images: Tensor, centre: Tensor, share: float) -> Tensor:
    inside = None
    for axis in range(images.dim() - 2):
        size = images.shape[axis + 2]
        place = (torch.arange(size, device=images.device) + 0.5) / size
        near = ((place[None, :] - centre[:, axis, None]).abs() < share / 2).to(images.dtype)
        near = near.reshape(-1, 1, *[size if a == axis else 1 for a in range(images.dim() - 2)])
        inside = near if inside is None else inside * near
    return 1 - inside if inside is not None else torch.ones_like(images)
