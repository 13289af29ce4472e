"""Distances between two clouds of features: Frechet distance (as in FID), kernel distance (KID) and coverage.

Pure arithmetic on (n, features) arrays. None of these is a measure of privacy: copies of the members score best.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

Features = NDArray[np.float64]
MANIFOLD_K, COVERAGE_K = 3, 5


def frechet(first: Features, second: Features) -> float:
    """Frechet distance of the normal distributions fitted to both (Heusel et al. 2017).

    It falls with the number of images: compare at one number only.
    """
    a, b = np.atleast_2d(np.cov(first, rowvar=False)), np.atleast_2d(np.cov(second, rowvar=False))
    root = _root(a)
    values = np.linalg.eigvalsh(root @ b @ root)  # as those of a b, and real
    roots = np.sqrt(np.maximum(values, 0)).sum()
    return float(np.square(first.mean(0) - second.mean(0)).sum() + np.trace(a) + np.trace(b) - 2 * roots)


def kernel(first: Features, second: Features) -> Features:
    """KID's cubic kernel (Binkowski et al. 2018), of every pair."""
    return np.asarray((first @ second.T / first.shape[1] + 1) ** 3)


@dataclass(frozen=True, kw_only=True)
class KernelDistance:
    """The unbiased squared maximum mean discrepancy; its blocks of kernel values are computed once.

    Within a cloud only pairs of different patients count: images of one patient are alike, which would pass for a
    distance. `apart_*` says which pairs these are.
    """

    real: Features
    between: Features
    generated: Features
    spread_real: Features
    spread_generated: Features

    @classmethod
    def of(
        cls,
        real: Features,
        generated: Features,
        *,
        patients: NDArray[np.str_] | None = None,
        generated_patients: NDArray[np.str_] | None = None,
    ) -> "KernelDistance":
        """Both clouds, brought to the mean and spread of the real one: the kernel has a scale of its own.

        What hardly changes from one real image to the next is not blown up to the size of what does. Without
        `generated_patients` every generated image stands for itself.
        """
        mean, spread = real.mean(0), real.std(0)
        spread = np.maximum(spread, 0.1 * np.sqrt(np.square(spread).mean()) + 1e-12)
        a, b = (real - mean) / spread, (generated - mean) / spread
        spread_real, spread_generated = _apart(len(a), patients), _apart(len(b), generated_patients)
        return cls(
            real=kernel(a, a) * spread_real,
            between=kernel(a, b),
            generated=kernel(b, b) * spread_generated,
            spread_real=spread_real,
            spread_generated=spread_generated,
        )

    def value(self, real: NDArray[np.float64] | None = None, generated: NDArray[np.float64] | None = None) -> float:
        """The distance, each image counted as often as the weights say (drawn again with replacement, say)."""
        r = np.ones(len(self.real)) if real is None else real
        m = np.ones(len(self.generated)) if generated is None else generated
        own = _mean(self.real, self.spread_real, r) + _mean(self.generated, self.spread_generated, m)
        return float(own - 2 * (r @ self.between @ m) / (r.sum() * m.sum()))


@dataclass(frozen=True, kw_only=True)
class Cover:
    """How two clouds lie over each other (Kynkaanniemi et al. 2019, Naeem et al. 2020)."""

    precision: float
    recall: float
    density: float
    coverage: float


def cover(real: Features, generated: Features) -> Cover:
    """Shares of images that lie within the neighbourhoods of the other cloud's images."""
    within_real, within_generated, between = cdist(real, real), cdist(generated, generated), cdist(real, generated)
    near_real, near_generated = _radius(within_real, MANIFOLD_K), _radius(within_generated, MANIFOLD_K)
    near = _radius(within_real, COVERAGE_K)
    return Cover(
        precision=float((between <= near_real[:, None]).any(0).mean()),
        recall=float((between <= near_generated[None, :]).any(1).mean()),
        density=float((between <= near[:, None]).sum(0).mean() / COVERAGE_K),
        coverage=float((between.min(1) <= near).mean()),
    )


def _radius(distances: Features, k: int) -> Features:
    """Of each image the distance to its k-th neighbour, itself not counted."""
    k = min(k, len(distances) - 1)
    return np.asarray(np.partition(distances, k, axis=1)[:, k])


def _apart(n: int, patients: NDArray[np.str_] | None) -> Features:
    names = np.arange(n) if patients is None else np.unique(patients, return_inverse=True)[1]
    return np.asarray(names[:, None] != names[None, :], np.float64)


def _mean(values: Features, apart: Features, weights: NDArray[np.float64]) -> float:
    return float(weights @ values @ weights) / max(float(weights @ apart @ weights), 1e-12)


def _root(matrix: Features) -> Features:
    values, vectors = np.linalg.eigh(matrix)
    return np.asarray((vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T)
