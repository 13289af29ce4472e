"""The shapes of the masks: a paired generator can emit a member's mask under a new image.

Where and how large the labelled regions are, on a coarse grid. A mask that is empty or of a few voxels shows nobody
and must not count as the copy of another one like it.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from fedsynth.benchmark.leakage.spaces.appearance import Grid, pooled
from fedsynth.benchmark.leakage.spaces.gridspace import Features, GridSpace, remembered
from fedsynth.errors import ImageSetError
from fedsynth.images import ImageSet
from fedsynth.images.rows import Stack, blocks
from fedsynth.images.tissue import tumour_labels

EDGE = {2: 32, 3: 16}
NUMBERS = 512
FEWEST = 0.003
"""A region that covers a smaller share of the frame has no shape of its own."""


class Masks(GridSpace):
    """Occupancy of cells by each label: by each lesion where the labels name lesions, otherwise by each tissue."""

    name = "masks"
    n_views = 4
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
            regions[regions[:, 0].reshape(len(block), -1).mean(axis=1) < FEWEST] = False
            yield start, pooled(regions.astype(np.float32), EDGE[block.ndim - 1])

    def embed(self, grid: Grid) -> Features:
        """Means over larger cells."""
        axes = grid.ndim - 2
        edge = max(2, min(EDGE[axes], int((NUMBERS / grid.shape[1]) ** (1 / axes))))
        cells: NDArray[np.float32] = pooled(grid, edge)
        return cells.reshape(len(cells), -1)
