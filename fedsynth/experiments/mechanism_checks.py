"""Goodness of fit of a DP-SGD mechanism to what it declares: the p-values of its samples, noise and contributions.

Every p-value is valid for an honest mechanism (exact, or exact under Gaussian noise); a fault has to make it small.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from scipy.special import betainc

Array = NDArray[np.floating[Any]]
SHAPE_TESTED = 20_000
"""Noise values that are held against the normal distribution."""
ROUNDING = 0.01
"""A clipped gradient may be shorter than the clip norm by so much: the bound on rounding costs no privacy."""


def smallest(values: Any, tests: int | None = None) -> float:
    """The smallest of several p-values, corrected for their number or for `tests`; what is no number counts as zero."""
    found = np.nan_to_num(np.ravel(values).astype(float), nan=0.0)
    return float(min(1.0, (tests or len(found)) * found.min())) if len(found) else 1.0


def binomial(hits: Any, n: Any, rate: float) -> Array:
    """Exact two-sided p-values of counts."""
    low, high = stats.binom.cdf(hits, n, rate), stats.binom.sf(np.asarray(hits) - 1, n, rate)
    return np.asarray(np.minimum(1.0, 2 * np.minimum(low, high)))


def sampling(drawn: NDArray[np.bool_], rate: float) -> float:
    """Whether `drawn` (steps, patients) are independent coins of this rate.

    Counts in all, by step and by patient; their scatter (batches of a fixed size, or every patient in turn, have too
    little); and the overlap of every two steps.
    """
    steps, n = drawn.shape
    by_step, by_patient = drawn.sum(1), drawn.sum(0)
    common = drawn.astype(np.float32) @ drawn.T.astype(np.float32)
    pairs = common[np.triu_indices(steps, 1)]
    return smallest(
        [
            binomial(drawn.sum(), steps * n, rate),
            smallest(binomial(by_step, n, rate)),
            smallest(binomial(by_patient, steps, rate)),
            _scatter(by_step, n, rate),
            _scatter(by_patient, steps, rate),
            smallest(binomial(np.unique(pairs), n, rate**2), len(pairs)),
        ]
    )


def _scatter(counts: NDArray[np.int64], n: int, rate: float) -> float:
    """How many counts lie in the middle half of the binomial distribution."""
    low, high = stats.binom.ppf([0.25, 0.75], n, rate)
    inside = stats.binom.cdf(high, n, rate) - stats.binom.cdf(low - 1, n, rate)
    return float(binomial(((counts >= low) & (counts <= high)).sum(), len(counts), inside))


def variance(squares: Any, n: Any) -> Array:
    """Two-sided p-values of sums of `n` squares of standard normal values, each with its own `n`."""
    low, high = stats.chi2.cdf(squares, n), stats.chi2.sf(squares, n)
    return np.asarray(np.minimum(1.0, 2 * np.minimum(low, high)))


def equal_variance(squares: float, n: int, others: float, m: int) -> float:
    """Two-sided p-value of two sums of squares having one variance."""
    ratio = (squares / n) / (others / m)
    return smallest(2 * min(stats.f.cdf(ratio, n, m), stats.f.sf(ratio, n, m)))


def normal(values: Array) -> float:
    """Kolmogorov and Smirnov's test of standard normal values."""
    finite = values[np.isfinite(values)][:SHAPE_TESTED]
    return float(stats.kstest(finite, "norm").pvalue) if len(finite) else 0.0


def largest_cosine(vectors: Array) -> float:
    """Of any two of the `vectors` (many, values), whatever their signs."""
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return float(np.abs(np.triu(unit @ unit.T, 1)).max())


def independent(cosine: float, many: int, values: int) -> float:
    """Whether independent normal vectors, so many of so many values, have a largest cosine like this; exact for two."""
    return smallest(betainc((values - 1) / 2, 0.5, max(0.0, 1 - cosine**2)), many * (many - 1) // 2)


def contribution(total: float, count: float, noise: float, cells: float) -> float:
    """Whether `count` contributions of one clip norm each, up to rounding, explain a sum over so many noisy values."""
    excess = max(0.0, total - count) + min(0.0, total - (1 - ROUNDING) * count)
    return float(2 * stats.norm.sf(abs(excess) / (noise * np.sqrt(max(cells, 1)))))
