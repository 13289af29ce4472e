"""Numbers over the holdout's patients: a value of any rows of a table, its bootstrap interval, its ratio to another."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from fedsynth.benchmark.leakage.statistics.intervals import patient_bootstrap
from fedsynth.benchmark.score import Score

Rows = NDArray[np.intp]
REPEATS = 500


@dataclass(frozen=True, kw_only=True, eq=False)
class Measure:
    """One measure of one arm. `patients` and `sites` name whose each row is; `value` gives the number of given rows.

    Arms that are compared have the same rows in the same order. `each` is one value per patient where a mean over
    patients makes sense, in the order of their names: what paired tests are made on.
    """

    patients: NDArray[np.str_]
    sites: NDArray[np.str_]
    value: Callable[[Rows], float]
    each: NDArray[np.float64] | None = None

    @property
    def rows(self) -> Rows:
        """All of them."""
        return np.arange(len(self.patients))

    def at(self, site: str) -> Rows:
        """The rows of one hospital."""
        return np.flatnonzero(self.sites == site)


def score(measure: Measure, *, seed: int, baseline: float | None = None, control: Measure | None = None) -> Score:
    """The measure over all patients, with the interval that drawing other patients would give."""
    return score_rows(measure, measure.rows, seed=seed, baseline=baseline, control=control)


def score_rows(
    measure: Measure, rows: Rows, *, seed: int, baseline: float | None = None, control: Measure | None = None
) -> Score:
    """`score`, of some rows only."""
    patients = measure.patients[rows]
    value = measure.value(rows) if len(rows) else np.nan
    n = len(set(patients.tolist()))
    if not np.isfinite(value):
        return Score(value=None, why="no patient of the holdout has what it takes", n=n)
    low, high = _interval(lambda drawn: measure.value(rows[drawn]), patients, seed)
    beside = None if control is None else control.value(rows)
    return Score(value=value, low=low, high=high, baseline=baseline, control=beside, n=n)


def ratio(measure: Measure, to: Measure, *, seed: int, rows: Rows | None = None) -> Score:
    """How much of `to` is reached, patients drawn again for both together."""
    rows = measure.rows if rows is None else rows
    patients, below = measure.patients[rows], to.value(rows) if len(rows) else np.nan
    n = len(set(patients.tolist()))
    if not (np.isfinite(below) and below > 0 and np.isfinite(measure.value(rows))):
        return Score(value=None, why="the arm on real images reaches nothing to compare with", n=n)
    low, high = _interval(lambda drawn: _divided(measure.value(rows[drawn]), to.value(rows[drawn])), patients, seed)
    return Score(value=measure.value(rows) / below, low=low, high=high, baseline=1.0, n=n)


def paired_p(measure: Measure, to: Measure) -> float | None:
    """Wilcoxon's signed-rank test over patients of two arms; None where no patient can be compared."""
    if measure.each is None or to.each is None:
        return None
    gap = measure.each - to.each
    gap = gap[np.isfinite(gap)]
    if len(gap) < 6:  # fewer can never reach five per cent
        return None
    return 1.0 if not gap.any() else float(stats.wilcoxon(gap).pvalue)


def mean_over_seeds(tables: NDArray[np.float64], patients: NDArray[np.str_], sites: NDArray[np.str_]) -> Measure:
    """A measure that is a mean over patients: `tables` is (seeds, patients), NaN where a patient has no value."""
    each = np.full(tables.shape[1], np.nan)
    known = np.isfinite(tables).any(0)
    each[known] = np.nanmean(tables[:, known], axis=0)

    def value(rows: Rows) -> float:
        chosen = each[rows]
        return float(np.nanmean(chosen)) if np.isfinite(chosen).any() else np.nan

    return Measure(patients=patients, sites=sites, value=value, each=each)


def _divided(above: float, below: float) -> float:
    return above / below if below > 0 else np.nan


def _interval(
    statistic: Callable[[Rows], float], patients: NDArray[np.str_], seed: int
) -> tuple[float | None, float | None]:
    if len(set(patients.tolist())) < 2:
        return None, None
    return patient_bootstrap(statistic, patients, np.random.default_rng(seed), repeats=REPEATS)
