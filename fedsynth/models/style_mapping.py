"""What the StyleGANs share: a latent becomes a style, two styles are mixed in training, and cut short in sampling."""

import torch
from torch import Tensor, nn

from fedsynth.models.base import RandomSource, SeededSource, Tensors
from fedsynth.models.layers import Mapping

ANCHORS = 128
"""Fixed latents whose mean style is the centre towards which sampling is truncated."""


class Styles(nn.Module):
    """The mapping network with style mixing and truncation.

    The centre of truncation is computed from fixed latents when it is needed: nothing has to be tracked in training,
    and it fits every class and every average of weights.
    """

    anchors: Tensor

    def __init__(
        self, *, latent: int, n_classes: int, style: int, depth: int, mixing: float = 0.9, truncation: float = 0.8
    ) -> None:
        super().__init__()
        self.latent, self.mixing, self.truncation = latent, mixing, truncation
        self.map = Mapping(latent, n_classes, style, depth)
        self.register_buffer("anchors", SeededSource(0).normal((ANCHORS, latent)), persistent=False)

    def noise(self, n: int, rng: RandomSource) -> Tensors:
        """A latent; where styles are mixed, a second one, and whether and where the mix changes over."""
        if not self.mixing:
            return {"z": rng.normal((n, self.latent))}
        return {
            "z": rng.normal((n, self.latent)),
            "second-z": rng.normal((n, self.latent)),
            "mix": rng.uniform((n, 2)),
        }

    def mixed(self, label: Tensor | None, noise: Tensors, n_layers: int) -> Tensor:
        """Styles (n, n_layers, style); in a share `mixing` of samples the second latent takes over at some layer."""
        style: Tensor = self.map(noise["z"], label)
        first = style[:, None].expand(-1, n_layers, -1)
        if not self.mixing:
            return first
        second = self.map(noise["second-z"], label)[:, None]
        chosen, place = noise["mix"][:, :1] < self.mixing, 1 + noise["mix"][:, 1:] * (n_layers - 1)
        taken = chosen & (torch.arange(n_layers, device=place.device)[None] >= place.floor())
        return torch.where(taken[..., None], second, first)

    def truncated(self, label: Tensor | None, noise: Tensors, n_layers: int) -> Tensor:
        """Styles (n, n_layers, style), drawn towards the mean style of their class."""
        style: Tensor = self.map(noise["z"], label)
        if self.truncation != 1:
            style = torch.lerp(self._centre(label, len(style)), style, self.truncation)
        return style[:, None].expand(-1, n_layers, -1)

    def _centre(self, label: Tensor | None, n: int) -> Tensor:
        labels = None if label is None else label.repeat_interleave(ANCHORS, 0)
        around: Tensor = self.map(self.anchors if label is None else self.anchors.repeat(n, 1), labels)
        return around.reshape(-1, ANCHORS, around.shape[1]).mean(1).expand(n, -1)
