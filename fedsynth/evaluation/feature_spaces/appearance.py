"""What an image shows whatever its window, gamma or brightness: ranks within the body, on a coarse grid.

Ranks do not change under any increasing change of intensities, and only their sign under a decreasing one; what lies
outside the body does not count. Mirroring the image mirrors the grid, so the views of an image cost nothing. It knows
single images, nothing of sets, patients or roles.
"""

from collections.abc import Iterator
from itertools import product

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter1d
from torch import Tensor

from fedsynth.data.lazy_arrays import Stack, blocks

EDGE = {2: 32, 3: 16}
"""Cells along an axis, by number of dimensions."""
LEVELS = 1024
BRIGHT, SHARE, MOST_NOISE = 0.98, 0.25, 0.25
"""Of the difference from the background that 98 % of cells stay below: the body is above a quarter of it; a border
with more noise than a quarter of it is no background."""
BODY = 0.01
"""An image whose body covers a smaller share shows nothing."""

Grid = NDArray[np.float32]


def appearances(images: Stack, *, n_bytes: int = 2**24) -> Iterator[tuple[int, Grid]]:
    """One grid (channels, *cells) per image, in pieces, each with the number of its first row.

    Ranks from -0.5 to 0.5 within the body, 0 outside; all 0 where the image is blank.
    """
    for start, block in blocks(images, n_bytes=n_bytes * images.dtype.itemsize // 4):
        yield start, ranks(coarse(block))


def views(grid: Grid) -> Iterator[Grid]:
    """The grids mirrored along every set of axes, and turned by a quarter in the first plane where that is square.

    Together these are all turns and mirrors of a square. The first is the grid itself.
    """
    axes = range(2, grid.ndim)
    for turned in (False, True):
        if turned and grid.shape[2] != grid.shape[3]:
            return
        for mirrored in product((False, True), repeat=len(axes)):
            chosen = tuple(axis for axis, flip in zip(axes, mirrored, strict=True) if flip)
            yield np.flip(grid.swapaxes(2, 3) if turned else grid, chosen)


def pooled(grid: Grid, edge: int) -> Grid:
    """Means over larger cells, `edge` along each axis at most."""
    values = torch.from_numpy(np.ascontiguousarray(grid))
    cells = [min(edge, size) for size in values.shape[2:]]
    pool = F.adaptive_avg_pool2d if values.ndim == 4 else F.adaptive_avg_pool3d
    means: Grid = pool(values, cells).numpy()  # type: ignore[arg-type]
    return means


def despeckled(images: Stack, *, n_bytes: int = 2**24) -> Iterator[tuple[int, Grid]]:
    """The intensities of a stack on the cells, single odd voxels taken out, in pieces with their first row."""
    for start, block in blocks(images, n_bytes=n_bytes * images.dtype.itemsize // 4):
        yield start, coarse(medians(block))


def medians(block: NDArray[np.generic]) -> Grid:
    """The median of every three voxels in a line, along one axis after the other, as floats."""
    values = intensities(block)
    for axis in range(2, values.ndim):
        places = np.arange(values.shape[axis])
        before = np.take(values, np.maximum(places - 1, 0), axis)
        after = np.take(values, np.minimum(places + 1, len(places) - 1), axis)
        low, high = np.minimum(before, after), np.maximum(before, after)
        values = np.maximum(low, np.minimum(high, values))
    return values


def intensities(block: NDArray[np.generic]) -> Grid:
    """Voxels as floats from 0 to 1."""
    values = np.asarray(block, np.float32)
    return values / np.float32(255) if block.dtype == np.uint8 else values


def coarse(block: NDArray[np.generic], finer: int = 1) -> Grid:
    """Images as floats on the cells, or on `finer` times as many along each axis; fewer where the images are small."""
    return pooled(intensities(block), finer * EDGE[block.ndim - 2])


def ranks(values: Grid) -> Grid:
    """Middle ranks within the body of each image and channel, by a histogram of each."""
    flat = values.reshape(-1, int(np.prod(values.shape[2:])))
    body = np.repeat(body_of(values)[0].reshape(len(values), 1, -1), values.shape[1], axis=1).reshape(flat.shape)
    low = np.where(body, flat, np.inf).min(axis=1, keepdims=True)
    high = np.where(body, flat, -np.inf).max(axis=1, keepdims=True)
    scale = np.where(high > low, (LEVELS - 1) / np.maximum(high - low, 1e-6), 0)
    level = np.where(body, (flat - np.where(np.isfinite(low), low, 0)) * scale, 0).astype(np.int64)
    level += np.arange(len(flat))[:, None] * LEVELS
    counts = np.bincount(level[body], minlength=len(flat) * LEVELS).reshape(len(flat), LEVELS)
    below = counts.cumsum(axis=1)
    middle = (below - counts / 2) / np.maximum(below[:, -1:], 1) - 0.5
    ranks = np.where(body, middle.ravel()[level], 0)
    return ranks.astype(np.float32).reshape(values.shape)


def body_of(values: Grid) -> tuple[NDArray[np.bool_], Grid]:
    """Where any channel differs clearly from its background, small gaps closed, (n, *cells); and that background.

    A quarter of what the brightest tissue differs by: noise stays below it, and a blur hardly moves it.
    Where the border shows no background, everything is body.
    """
    border = np.ones(values.shape[2:], bool)
    border[(slice(1, -1),) * border.ndim] = False
    around = values[:, :, border]
    level = np.median(around, axis=2)
    noise = np.median(np.abs(around - level[:, :, None]), axis=2)
    spread = (slice(None), slice(None)) + (None,) * border.ndim
    away = np.abs(values - level[spread])
    brightest = np.quantile(away.reshape(*level.shape, -1), BRIGHT, axis=2)
    step = np.where(noise < MOST_NOISE * brightest, SHARE * brightest, -1)
    found = torch.from_numpy((away > step[spread]).any(axis=1, keepdims=True).astype(np.float32))
    pool = F.max_pool2d if border.ndim == 2 else F.max_pool3d
    grown = pool(F.pad(found, (4,) * 2 * border.ndim), 5, 1)
    body: NDArray[np.bool_] = (-pool(-grown, 5, 1))[:, 0].numpy() > 0
    constant = np.ptp(values.reshape(len(values), -1), axis=1) == 0
    small = body.reshape(len(body), -1).mean(axis=1) < BODY
    body[small | constant] = False
    return body, level


# Images moved so that the body lies in the middle, has one size and lies along one axis.
#
# A copy that was shifted, turned by a few degrees or cropped a little comes to lie where the original does. Turns by a
# half and mirrors remain open; the orbit of views settles them. It knows single images only.


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
