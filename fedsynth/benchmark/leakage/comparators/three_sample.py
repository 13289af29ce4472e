"""C_T, the three-sample test of data copying (Meehan, Chaudhuri, Dasgupta 2020), computed as published.

It asks whether synthetic images are nearer to the members than the holdout is: blurred honest output is, too.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from sklearn.cluster import KMeans

from fedsynth.benchmark.leakage.comparators.sets import RealAndSynthetic
from fedsynth.images.rows import Stack, blocks

CELLS = 3
FEWEST = 20
FITTED_ON = 5000


@dataclass(frozen=True, kw_only=True, eq=False)
class ThreeSample:
    """Distances to the nearest member, of synthetic and of holdout images, and the cell that each image lies in."""

    synthetic: NDArray[np.float32]
    holdout: NDArray[np.float32]
    synthetic_cells: NDArray[np.integer]
    holdout_cells: NDArray[np.integer]
    patients: NDArray[np.integer]

    @classmethod
    def of(cls, sets: RealAndSynthetic, *, cells: int = CELLS, seed: int = 0) -> "ThreeSample":
        """Cells are k-means clusters of the members."""
        rng = np.random.default_rng([seed, *b"cells"])
        fitted_on = np.asarray(sets.members[np.sort(rng.permutation(len(sets.members))[:FITTED_ON])], np.float64)
        clusters = KMeans(min(cells, len(fitted_on)), n_init=3, random_state=seed).fit(fitted_on)
        return cls(
            synthetic=sets.to_members[0][:, 0],
            holdout=sets.holdout_to_members,
            synthetic_cells=_cells(clusters, sets.synthetic),
            holdout_cells=_cells(clusters, sets.holdout),
            patients=sets.nearest_patients,
        )

    def statistic(self, rows: NDArray[np.intp] | None = None) -> float:
        """C_T of the synthetic images `rows` (all of them by default): far below 0 is copying, far above underfitting.

        The mean over cells of the Mann-Whitney Z, weighted by the holdout's share of the cell; cells with at most 20
        synthetic images do not count. Its null has mean 0 and, for independent images, the variance sum(weights^2)
        (1 with one cell). Not a number when no cell counts.
        """
        rows = np.arange(len(self.synthetic)) if rows is None else rows
        total, weights = 0.0, 0.0
        for cell in np.unique(self.holdout_cells):
            holdout = self.holdout[self.holdout_cells == cell]
            synthetic = self.synthetic[rows][self.synthetic_cells[rows] == cell]
            if len(synthetic) > FEWEST:
                total += len(holdout) * mann_whitney_z(synthetic, holdout)
                weights += len(holdout)
        return total / weights if weights else float("nan")


def mann_whitney_z(first: NDArray[np.floating], second: NDArray[np.floating]) -> float:
    """(U - mean) / sd of the number of pairs in which `first` is the larger, ties counted half and corrected for."""
    m, n = len(first), len(second)
    ranks = stats.rankdata(np.concatenate([first, second]))
    _, ties = np.unique(ranks, return_counts=True)
    total = m + n
    variance = m * n / 12 * (total + 1 - (ties**3 - ties).sum() / (total * (total - 1)))
    if variance <= 0:
        return 0.0
    return float((ranks[:m].sum() - m * (m + 1) / 2 - m * n / 2) / np.sqrt(variance))


def _cells(clusters: KMeans, rows: Stack) -> NDArray[np.integer]:
    return np.concatenate([clusters.predict(block.astype(np.float64)) for _, block in blocks(rows)])
