"""Pixels compared cell by cell, whatever their contrast and pose: finds copies, not identities.

Intensities become ranks within the body, so that windowing and gamma hide nothing; the body is moved to one pose, so
that shifts, small turns and small crops hide little. A region of the frame by itself, unposed, finds collages and
pasted pieces, whose other parts are of somebody else.
"""

from typing import Literal, get_args

import numpy as np

from fedsynth.benchmark.leakage.spaces.appearance import Grid, appearances, pooled
from fedsynth.benchmark.leakage.spaces.gridspace import Features, GridSpace, remembered
from fedsynth.benchmark.leakage.spaces.pose import posed
from fedsynth.images import ImageSet

Region = Literal["left", "right", "upper", "lower", "centre"]
REGIONS: tuple[Region, ...] = get_args(Region)
NUMBERS, FINEST = 512, 16
"""About so many numbers per image, and at most so many cells along an axis."""


class Pixels(GridSpace):
    """The ranks of the posed image, a few hundred cells of it."""

    name = "pixels"

    def grids(self, images: ImageSet) -> Grid:
        """Ranks of the posed images."""
        return remembered(images, "posed", lambda: posed(images.images))

    def embed(self, grid: Grid) -> Features:
        """Means over larger cells."""
        return _flat(pooled(grid, _edge(grid)))


class RegionPixels(GridSpace):
    """The ranks of one part of the frame, as it is and mirrored."""

    whole = False
    n_views = 2
    n_inverted = 0

    def __init__(self, region: Region) -> None:
        super().__init__()
        self.name, self.region = region, region

    def grids(self, images: ImageSet) -> Grid:
        """Ranks of the images as they lie."""
        return remembered(images, "appearance", lambda: appearances(images.images))

    def embed(self, grid: Grid) -> Features:
        """Means over the cells of the region; volumes are cut along their first two axes."""
        cells = pooled(grid, min(FINEST, 2 * _edge(grid)) // 2 * 2)
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
