"""Whitened principal components of ranks: every direction in which real images differ counts alike.

The channels of a cell are sorted, so that mixed-up channels hide nothing. Robust to noise and blur, which lie outside
the leading components. Fitted on members and holdout together.
"""

import numpy as np

from fedsynth.benchmark.leakage.spaces.appearance import Grid, appearances
from fedsynth.benchmark.leakage.spaces.gridspace import Features, GridSpace, remembered
from fedsynth.images import ImageSet

MOST = 64
"""Components at most; also no more than a quarter of the images, nor such as hold almost no variance."""
FEWEST, LEAST = 2, 1e-3
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
        """Ranks of the images as they lie."""
        return remembered(images, "appearance", lambda: appearances(images.images))

    def fit(self, real: ImageSet, *, seed: int) -> None:
        """Find the components of `real`, or of an even sample where there are many images."""
        rng = np.random.default_rng([seed, *b"components"])
        chosen = np.sort(rng.permutation(len(real))[:SAMPLE])
        rows = _sorted(self.grids(real)[chosen])
        self._mean = rows.mean(axis=0)
        rows -= self._mean
        _, spread, axes = np.linalg.svd(rows, full_matrices=False)
        kept = max(FEWEST, min(MOST, len(rows) // 4, int((spread > LEAST * spread[0]).sum())))
        deviation = np.maximum(spread[:kept], 1e-6 * max(1.0, float(spread[0]))) / np.sqrt(len(rows))
        self._basis = np.ascontiguousarray((axes[:kept] / deviation[:, None]).T, np.float32)
        super().fit(real, seed=seed)

    def embed(self, grid: Grid) -> Features:
        """The components of the sorted ranks."""
        return np.asarray((_sorted(grid) - self._mean) @ self._basis, np.float32)


def _sorted(grid: Grid) -> Features:
    """The values of each cell over the channels in descending order, flat."""
    return np.sort(grid, axis=1)[:, ::-1].reshape(len(grid), -1)
