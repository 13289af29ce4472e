"""Fitting a public pool to the noisy mean of bounded patient vectors: whitening, and an exponential tilt.

Everything is public or follows from the noisy mean alone; nothing here sees a patient.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import optimize

Values = NDArray[np.float64]

FLOOR = 0.02
"""Added to the deviation of each statistic: what hardly varies in the pool is not blown up."""
QUANTILE = 0.6
"""Of the norms in the pool: the radius that vectors are clipped to."""
RIDGE = 0.01
EFFECTIVE = 0.4
"""The least effective sample size of the tilted pool, as a share, in every stratum. A narrower pool is nearer to the
target and teaches less: 0.08 was never better (benchmarks/results/private_release.md)."""
STRONGER, STRONGEST = 1.6, 50.0


@dataclass(frozen=True, kw_only=True, eq=False)
class Whitening:
    """Public principal parts of patient vectors, divided by the clip radius: a pool's mean is 0.

    `mean` and `scale` are those of each statistic, `axes` (statistics, parts) turns and whitens. `radius` is the norm,
    in whitened units, that becomes 1.
    """

    mean: Values
    scale: Values
    axes: Values
    radius: float

    def __call__(self, statistics: Values) -> Values:
        """(n, statistics) as (n, parts), not clipped."""
        return np.asarray((statistics - self.mean) / self.scale @ self.axes / self.radius, np.float64)


def whiten(pool: Values, lengths: Sequence[int], parts: int) -> Whitening:
    """From the statistics of a pool's patients (n, statistics), in groups of those lengths.

    A group of k statistics weighs as much as the square root of k single ones would, so that no group drowns the
    others by its length.
    """
    mean = pool.mean(0)
    scale = (pool.std(0) + FLOOR) * np.repeat(np.power(lengths, 0.25), lengths)
    shown = (pool - mean) / scale
    _, values, axes = np.linalg.svd(shown, full_matrices=False)
    parts = int(min(parts, max(1, len(pool) // 4), (values > 1e-6 * values[0]).sum()))
    axes = axes[:parts] * np.sign(axes[:parts] @ np.arange(1.0, axes.shape[1] + 1))[:, None]  # or machines may differ
    turned = axes.T / (values[:parts] / np.sqrt(len(pool)))
    radius = float(np.quantile(np.linalg.norm(shown @ turned, axis=1), QUANTILE))
    return Whitening(mean=mean, scale=scale, axes=turned, radius=radius)


def clipped(vectors: Values) -> Values:
    """Vectors (n, parts) longer than 1 shortened to 1."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors * np.minimum(1, 1 / np.maximum(norms, 1e-12)), np.float64)


@dataclass(frozen=True, kw_only=True, eq=False)
class Target:
    """The mean that a pool is to have, in units where the clip norm is 1, and the `variance` of the noise on it.

    `radius` brings both to whitened units, in which the ridge is told.
    """

    mean: Values
    variance: float
    radius: float

    @property
    def ridge(self) -> float:
        """The least, in whitened units."""
        return self.variance * self.radius**2 + RIDGE


def tilt(vectors: Values, base: Values, target: Values, ridge: float) -> Values:
    """Weights (n,) nearest to `base` in relative entropy whose mean of `vectors` is about `target`.

    They are exponential in the vectors; the multipliers minimise the convex dual, whose ridge allows for noise in the
    target.
    """

    def dual(multipliers: Values) -> tuple[float, Values]:
        logs = vectors @ multipliers
        top = logs.max()
        weights = base * np.exp(logs - top)
        total = weights.sum()
        value = top + np.log(total) - multipliers @ target + 0.5 * ridge * multipliers @ multipliers
        return float(value), weights @ vectors / total - target + ridge * multipliers

    start = np.zeros(vectors.shape[1])
    found = optimize.minimize(dual, start, jac=True, method="L-BFGS-B", options={"maxiter": 200}).x
    logs = vectors @ found
    weights = base * np.exp(logs - logs.max())
    return np.asarray(weights / weights.sum(), np.float64)


def effective_share(weights: Values, strata: NDArray[np.integer]) -> float:
    """The least effective sample size within a stratum, as a share of its size; 1 where all weigh the same."""
    shares = []
    for stratum in np.unique(strata):
        own = weights[strata == stratum]
        shares.append(own.sum() ** 2 / max(float((own**2).sum()), 1e-300) / len(own))
    return float(min(shares))


def fitted_weights(vectors: Values, base: Values, strata: NDArray[np.integer], target: Target) -> Values:
    """`tilt` of clipped patient vectors (n, parts), its ridge raised until no stratum rests on too few."""
    shown, aim = clipped(vectors) * target.radius, target.mean * target.radius
    ridge = target.ridge
    while True:
        weights = tilt(shown, base, aim, ridge)
        if effective_share(weights, strata) >= EFFECTIVE or ridge > STRONGEST:
            return weights
        ridge *= STRONGER


def resample(
    weights: Values, strata: NDArray[np.integer], count: int, rng: np.random.Generator
) -> tuple[NDArray[np.int64], Values]:
    """`count` parents, as many of each stratum, and the base weights that give strata their shares back."""
    names = np.unique(strata)
    parents, base = [], []
    for k, stratum in enumerate(names):
        rows = np.flatnonzero(strata == stratum)
        number = count // len(names) + (k < count % len(names))
        share = weights[rows].sum()
        parents.append(rng.choice(rows, number, p=weights[rows] / share))
        base.append(np.full(number, share / max(number, 1)))
    return np.concatenate(parents), np.concatenate(base)
