"""Classical augmentation for tasks: images turned, scaled, shifted and dimmed, and their masks with them.

Sampled into plain parameters first, which travel in `noise` like every other random number. No mirroring: left and
right differ.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from fedsynth.protocol import Draws, Tensors

TURN, SCALE, SHIFT, LIGHT = "view-turn", "view-scale", "view-shift", "view-light"


@dataclass(frozen=True, kw_only=True)
class Views:
    """How strong: the largest turn in degrees, and change of size, place (shares of the image), gamma and contrast."""

    turn: float = 15.0
    scale: float = 0.1
    shift: float = 0.06
    light: float = 0.25

    def noise(self, n: int, dimensions: int, draws: Draws) -> Tensors:
        """The parameters of `n` views, each in [0, 1)."""
        planes = 1 if dimensions == 2 else 3
        shapes = {TURN: (n, planes), SCALE: (n,), SHIFT: (n, dimensions), LIGHT: (n, 2)}
        return {name: draws.uniform(shape) for name, shape in shapes.items()}

    def __call__(self, batch: Tensors, noise: Tensors) -> Tensors:
        """The batch seen anew; what comes into the picture from outside is background."""
        image = batch["image"] + 1  # background becomes zero, which is what comes in from outside
        grid = functional.affine_grid(self._matrix(noise), list(image.shape), align_corners=False)
        moved = functional.grid_sample(image, grid, align_corners=False)
        seen = dict(batch, image=self._dimmed(moved, noise) - 1)
        if "mask" in batch:
            mask = functional.grid_sample(batch["mask"], grid, mode="nearest", align_corners=False)
            background = mask[:, :1] + (1 - mask.sum(1, keepdim=True))
            seen["mask"] = torch.cat([background, mask[:, 1:]], 1)
        return seen

    def _matrix(self, noise: Tensors) -> Tensor:
        """From places in the new picture to places in the old one, (n, d, d + 1)."""
        turns = (noise[TURN] * 2 - 1) * math.radians(self.turn)
        n, d = noise[SHIFT].shape
        matrix = torch.eye(d, device=turns.device).repeat(n, 1, 1)
        pairs = [(0, 1)] if d == 2 else [(0, 1), (0, 2), (1, 2)]
        for number, (i, j) in enumerate(pairs):
            turn = torch.eye(d, device=turns.device).repeat(n, 1, 1)
            cosine, sine = turns[:, number].cos(), turns[:, number].sin()
            turn[:, i, i], turn[:, j, j], turn[:, i, j], turn[:, j, i] = cosine, cosine, -sine, sine
            matrix = matrix @ turn
        scale = 1 + (noise[SCALE] * 2 - 1) * self.scale
        shift = (noise[SHIFT] * 2 - 1) * 2 * self.shift
        return torch.cat([matrix * scale[:, None, None], shift[:, :, None]], 2)

    def _dimmed(self, image: Tensor, noise: Tensors) -> Tensor:
        each = (-1, *[1] * (image.dim() - 1))
        gamma = torch.exp((noise[LIGHT][:, 0] * 2 - 1) * self.light).reshape(each)
        gain = (1 + (noise[LIGHT][:, 1] * 2 - 1) * self.light).reshape(each)
        return (2 * (image / 2).clamp(min=1e-6) ** gamma * gain).clamp(max=2)
