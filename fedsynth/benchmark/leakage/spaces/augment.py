"""Random changes that leave a patient the same patient: what the encoder learns to look past.

Each image gets its own movement, warp, blur, noise and contrast, drawn from one generator. 2-D and 3-D.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Generator, Tensor


@dataclass(frozen=True, kw_only=True)
class Changes:
    """How much at most. Shares of the frame, degrees, of ranks from -0.5 to 0.5."""

    degrees: float = 15.0
    zoom: float = 0.25
    shift: float = 0.06
    warp: float = 0.02
    noise: float = 0.07
    curve: float = 0.5
    blurred: float = 0.3
    mirrored: float = 0.0


def augment(images: Tensor, changes: Changes, generator: Generator) -> Tensor:
    """Changed copies of `images` (n, channels, *cells)."""
    n, axes = len(images), images.ndim - 2

    def draw(low: float, high: float, *shape: int) -> Tensor:
        return torch.rand(n, *(shape or (1,) * (axes + 1)), generator=generator) * (high - low) + low

    movement = _movements(n, axes, changes, draw(-1, 1, 2 + axes), draw(0, 1, 1))
    places = F.affine_grid(movement, list(images.shape), align_corners=False)
    rough = torch.randn(n, axes, *(5,) * axes, generator=generator) * changes.warp
    warp = F.interpolate(rough, size=images.shape[2:], mode="bilinear" if axes == 2 else "trilinear")
    moved = F.grid_sample(images, places + warp.movedim(1, -1), align_corners=False)
    pool = F.avg_pool2d if axes == 2 else F.avg_pool3d
    blurred = torch.nonzero(draw(0, 1, 1)[:, 0] < changes.blurred)[:, 0]
    moved[blurred] = pool(moved[blurred], 3, 1, 1)
    curved = moved + draw(-changes.curve, changes.curve) * (0.25 - moved.square()) * (moved != 0)
    noise = torch.randn(images.shape, generator=generator) * draw(0, changes.noise)
    return curved + noise


def _movements(n: int, axes: int, changes: Changes, drawn: Tensor, mirror: Tensor) -> Tensor:
    """Affine maps: a turn in the first plane, a zoom, mostly in, a shift and sometimes a mirror."""
    angle = drawn[:, 0] * changes.degrees * torch.pi / 180
    scale = 1 + changes.zoom * torch.where(drawn[:, 1] < 0, drawn[:, 1], drawn[:, 1] / 3)
    movement = torch.zeros(n, axes, axes + 1)
    for axis in range(axes):
        movement[:, axis, axis] = scale
    movement[:, 0, 0], movement[:, 0, 1] = scale * angle.cos(), -scale * angle.sin()
    movement[:, 1, 0], movement[:, 1, 1] = scale * angle.sin(), scale * angle.cos()
    movement[:, :, 0] *= torch.where(mirror < changes.mirrored, -1.0, 1.0)
    movement[:, :, -1] = drawn[:, 2:] * 2 * changes.shift
    return movement
