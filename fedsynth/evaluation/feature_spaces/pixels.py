"""Pixels compared cell by cell, whatever their contrast and pose: finds copies, not identities.

Intensities become ranks within the body, so that windowing and gamma hide nothing; the body is moved to one pose, so
that shifts, small turns and small crops hide little. A region of the frame by itself, unposed, finds collages and
pasted pieces, whose other parts are of somebody else.
"""

from collections.abc import Iterator
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from fedsynth.data import ImageSet
from fedsynth.data.lazy_arrays import Stack, blocks
from fedsynth.data.mask_anatomy import tumour_labels
from fedsynth.errors import ImageSetError
from fedsynth.evaluation.feature_spaces.appearance import Grid, appearances, pooled, posed
from fedsynth.evaluation.feature_spaces.grid_space import Features, GridSpace, principal_axes, remembered

# Whitened principal components of ranks: every direction in which real images differ counts alike.
#
# The channels of a cell are sorted, so that mixed-up channels hide nothing. Robust to noise and blur, which lie outside
# the leading components. Fitted on members and holdout together.


MOST = 64
"""Components at most; also no more than a quarter of the images, nor such as hold almost no variance."""
SAMPLE = 4000
"""Components are found from so many real images at most."""


class Components(GridSpace):
    """Sixty-four numbers per image, each of variance one over the real images."""

    name = "components"

    def __init__(self) -> None:
        super().__init__()
        self._mean = np.zeros(1, np.float32)
        self._basis = np.zeros((1, 1), np.float32)

    def grids(self, images: ImageSet) -> Grid:
        """Ranks of the images as they lie, those of each cell over the channels in descending order."""
        ranks = remembered(images, "appearance", lambda: appearances(images.images))
        descending = ((start, np.sort(grid, axis=1)[:, ::-1]) for start, grid in blocks(ranks))
        return remembered(images, "descending", lambda: descending)

    def inverted(self, grid: Grid) -> Grid:
        """Inverted contrast inverts the order as well."""
        return -grid[:, ::-1]

    def fit(self, real: ImageSet, *, seed: int) -> None:
        """Find the components of `real`, or of an even sample where there are many images."""
        rng = np.random.default_rng([seed, *b"components"])
        chosen = np.sort(rng.permutation(len(real))[:SAMPLE])
        rows = _flat(self.grids(real)[chosen])
        self._mean = rows.mean(axis=0)
        spread, axes = principal_axes(rows - self._mean, min(MOST, len(rows) // 4))
        deviation = np.maximum(spread, 1e-6 * max(1.0, float(spread[0]))) / np.sqrt(len(rows))
        self._basis = np.ascontiguousarray(axes / deviation, np.float32)
        super().fit(real, seed=seed)

    def embed(self, grid: Grid) -> Features:
        """The components of the ordered ranks."""
        return np.asarray((_flat(grid) - self._mean) @ self._basis, np.float32)


# The shapes of the masks: a paired generator can emit a member's mask under a new image.
#
# Where and how large the labelled regions are, on a coarse grid. A mask that is empty or of a few voxels shows nobody
# and must not count as the copy of another one like it.


EDGE = {2: 32, 3: 16}
MASK_NUMBERS = 512
FEWEST_MASKS = 0.003
"""A region that covers a smaller share of the frame has no shape of its own."""


class Masks(GridSpace):
    """Occupancy of cells by each label: by each lesion where the labels name lesions, otherwise by each tissue."""

    name = "masks"
    n_orientations = 4
    n_inverted = 0

    def __init__(self) -> None:
        super().__init__()
        self._labels: tuple[int, ...] = ()

    def fit(self, real: ImageSet, *, seed: int) -> None:
        """Choose the labels by their names."""
        labels = real.header.mask_labels
        self._labels = tumour_labels(labels) or tuple(range(1, len(labels)))
        super().fit(real, seed=seed)

    def grids(self, images: ImageSet) -> Grid:
        """Nested regions, one channel each, so that a voxel that differs in its label only differs by a little."""
        masks = images.masks
        if masks is None:
            remedy = "leave the space masks out"
            raise ImageSetError("the set has no masks to compare", file=images.folder, remedy=remedy)
        return remembered(images, f"masks {self._labels}", lambda: self._regions(masks))

    def _regions(self, masks: Stack) -> Iterator[tuple[int, Grid]]:
        for start, block in blocks(masks, n_bytes=2**22):
            regions = np.stack([np.isin(block, self._labels[first:]) for first in range(len(self._labels))], axis=1)
            regions[regions[:, 0].reshape(len(block), -1).mean(axis=1) < FEWEST_MASKS] = False
            yield start, pooled(regions.astype(np.float32), EDGE[block.ndim - 1])

    def embed(self, grid: Grid) -> Features:
        """Means over larger cells."""
        axes = grid.ndim - 2
        edge = max(2, min(EDGE[axes], int((MASK_NUMBERS / grid.shape[1]) ** (1 / axes))))
        cells: NDArray[np.float32] = pooled(grid, edge)
        return cells.reshape(len(cells), -1)


Region = Literal["left", "right", "upper", "lower", "centre"]
REGIONS: tuple[Region, ...] = get_args(Region)
NUMBERS, FINEST = 512, 16
"""About so many numbers per image, and at most so many cells along an axis."""


class Pixels(GridSpace):
    """The ranks of the posed image, a few hundred cells of it."""

    name = "pixels"

    def grids(self, images: ImageSet) -> Grid:
        """Ranks of the posed images, means over larger cells."""
        cells = ((start, pooled(grid, _edge(grid))) for start, grid in posed(images.images))
        return remembered(images, "posed", lambda: cells)

    def embed(self, grid: Grid) -> Features:
        """The cells."""
        return _flat(grid)


class RegionPixels(GridSpace):
    """The ranks of one part of the frame, as it is and mirrored."""

    whole = False
    n_orientations = 2
    n_inverted = 0

    def __init__(self, region: Region) -> None:
        super().__init__()
        self.name, self.region = region, region

    def grids(self, images: ImageSet) -> Grid:
        """Ranks of the images as they lie, means over larger cells."""
        ranks = remembered(images, "appearance", lambda: appearances(images.images))
        cells = ((start, pooled(grid, min(FINEST, 2 * _edge(grid)) // 2 * 2)) for start, grid in blocks(ranks))
        return remembered(images, "regions", lambda: cells)

    def embed(self, cells: Grid) -> Features:
        """The cells of the region; volumes are cut along their first two axes."""
        height, width = cells.shape[2:4]
        rows, columns = {
            "left": (slice(None), slice(None, width // 2)),
            "right": (slice(None), slice(width // 2, None)),
            "upper": (slice(None, height // 2), slice(None)),
            "lower": (slice(height // 2, None), slice(None)),
            "centre": (slice(height // 4, -(height // 4)), slice(width // 4, -(width // 4))),
        }[self.region]
        return _flat(cells[:, :, rows, columns])


def _edge(grid: Grid) -> int:
    return max(2, min(FINEST, int((NUMBERS / grid.shape[1]) ** (1 / (grid.ndim - 2)))))


def _flat(cells: Grid) -> Features:
    return np.ascontiguousarray(cells).reshape(len(cells), -1)
