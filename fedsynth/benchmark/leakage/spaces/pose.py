"""Images moved so that the body lies in the middle, has one size and lies along one axis.

A copy that was shifted, turned by a few degrees or cropped a little comes to lie where the original does. Turns by a
half and mirrors remain open; the orbit of views settles them. It knows single images only.
"""

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter1d
from torch import Tensor

from fedsynth.benchmark.leakage.spaces.appearance import Grid, body_of, coarse, medians, ranks
from fedsynth.images.rows import Stack, blocks

SPREAD = 0.44
"""The root mean square of a body's coordinates along an axis, of a frame from -1 to 1, after posing."""
LONG = 0.1
"""A body less elongated than this has no axis to turn to."""
SMOOTH = 3
"""Cells that are averaged before a body is looked for in noisy images."""
WHOLE = 0.97
"""A body that covers more than this is not seen whole: it stays as it is."""


def posed(images: Stack, *, n_bytes: int = 2**24) -> Iterator[tuple[int, Grid]]:
    """The appearances of a stack after posing, in pieces, each with the number of its first row."""
    for start, block in blocks(images, n_bytes=n_bytes * images.dtype.itemsize // 4):
        values = torch.from_numpy(coarse(block, 2))
        body, level = body_of(coarse(values.numpy()))
        background = level[(slice(None), slice(None)) + (None,) * (values.ndim - 2)]
        yield start, ranks(coarse(_moved(values, body, level).numpy() + background))


def posed_intensities(images: Stack, *, n_bytes: int = 2**24) -> Iterator[tuple[int, Grid]]:
    """The intensities above the background after posing by a body that speckles and noise do not move."""
    for start, block in blocks(images, n_bytes=n_bytes * images.dtype.itemsize // 4):
        values = torch.from_numpy(coarse(medians(block), 2))
        rough = coarse(values.numpy())
        for axis in range(2, rough.ndim):
            rough = uniform_filter1d(rough, SMOOTH, axis)
        body, level = body_of(rough)
        yield start, coarse(_moved(values, body, level).numpy())


def _moved(values: Tensor, body: NDArray[np.bool_], level: Grid) -> Tensor:
    """What differs from the background, the body in its pose."""
    background = torch.from_numpy(level[(slice(None), slice(None)) + (None,) * (values.ndim - 2)])
    places = F.affine_grid(_movement(body, values.shape[2:]), list(values.shape), align_corners=False)
    return F.grid_sample(values - background, places, align_corners=False)


def _movement(body: NDArray[np.bool_], size: torch.Size) -> Tensor:
    """The affine map (n, axes, axes + 1) from the posed frame to the image, in the order width, height[, depth]."""
    weight = torch.from_numpy(body.astype(np.float32))
    n, axes = len(body), body.ndim - 1
    covered = weight.flatten(1).mean(dim=1)
    total = weight.flatten(1).sum(dim=1).clamp(min=1)
    along = [((torch.arange(cells) + 0.5) * 2 / cells - 1) for cells in body.shape[1:]]
    frame = torch.meshgrid(*along, indexing="ij")
    at = torch.stack([(weight * place).flatten(1).sum(1) / total for place in frame], dim=1)
    away = [place - at[:, axis].view(n, *[1] * axes) for axis, place in enumerate(frame)]
    moment = [[(weight * a * b).flatten(1).sum(1) / total for a in away] for b in away]
    scale = torch.stack([moment[axis][axis] for axis in range(axes)]).mean(0).sqrt() / SPREAD
    high, wide, both = moment[0][0], moment[1][1], moment[0][1]
    angle = torch.atan2(2 * both, wide - high) / 2
    long = torch.sqrt((wide - high) ** 2 + 4 * both**2) / (wide + high).clamp(min=1e-6)
    angle = torch.where((long > LONG) & (size[0] == size[1]), angle, 0)
    stays = (covered == 0) | (covered > WHOLE)
    angle, scale = torch.where(stays, 0, angle), torch.where(stays, 1, scale)
    movement = torch.zeros(n, axes, axes + 1)
    movement[:, :, -1] = torch.where(stays[:, None], 0, at).flip(1)
    for axis in range(axes):
        movement[:, axis, axis] = scale
    movement[:, 0, 0], movement[:, 0, 1] = scale * angle.cos(), -scale * angle.sin()
    movement[:, 1, 0], movement[:, 1, 1] = scale * angle.sin(), scale * angle.cos()
    return movement
