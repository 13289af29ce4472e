"""Numbers over the holdout's patients and an arm's trainings: value, interval, ratio, skill, difference, p-value.

Two things could have come out otherwise: which patients the holdout holds, and how each training went. Seeds are
paired across arms: seed k of one arm stands beside seed k of the other.

An interval is that of drawing the patients again (bootstrap), widened by that of training again (Student's t over the
seeds): the two half-widths are added in squares (MOVER, Zou and Donner 2008). Drawing three seeds again as one draws
patients would not do, for it never looks beyond the best and the worst of the three, which hold the truth in three of
four cases. How often two equal arms of three seeds on 60 patients were wrongly distinguished in 1000 trials, and
how many intervals of their ratio held 1 (`tests/evaluation/utility/test_patient_scores.py`), by the spread of trainings
in Dice: spread                    0       0.005   0.01    0.02
    distinguished at p < 0.05    1.6 %   0.9 %   1.8 %   5.4 %
    interval held 1           98 %    99 %    98 %    95 %
With one training the interval is over patients alone, and no p-value is given.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats

from fedsynth.evaluation.bootstrap import LEVEL, patient_bootstrap
from fedsynth.evaluation.score import Score

Rows = NDArray[np.intp]
Values = NDArray[np.float64]
REPEATS = 500
FEWEST_PATIENTS = 6
"""Fewer can never reach five per cent in a signed-rank test."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Measure:
    """One measure of one arm. `patients` and `sites` name whose each row is; `of_seeds` gives a number per training.

    Arms that are compared have the same rows in the same order, and the same seeds. `each` is (seeds, patients) where a
    mean over patients makes sense, in the order of their names, NaN where a patient has nothing to be scored: what
    paired tests are made on. No value is below 0 or above `most`.
    """

    patients: NDArray[np.str_]
    sites: NDArray[np.str_]
    of_seeds: Callable[[Rows], Values]
    each: Values | None = None
    most: float = 1.0

    @property
    def rows(self) -> Rows:
        """All of them."""
        return np.arange(len(self.patients))

    def at(self, site: str) -> Rows:
        """The rows of one hospital."""
        return np.flatnonzero(self.sites == site)

    def scored(self, rows: Rows) -> Rows:
        """Those of `rows` whose patient has something to be scored: a patient without a lesion has no Dice."""
        if self.each is None:
            return rows
        names = np.unique(self.patients)[np.isfinite(self.each).any(0)]
        return rows[np.isin(self.patients[rows], names)]

    def value(self, rows: Rows) -> float:
        """Of given rows, the mean over the trainings; NaN where there is nothing to be scored."""
        return float(self.of_seeds(rows).mean()) if len(rows) else np.nan


def score(measure: Measure, *, seed: int, baseline: float | None = None, control: Measure | None = None) -> Score:
    """The measure over all patients, with the interval that other patients and other trainings would give."""
    return score_rows(measure, measure.rows, seed=seed, baseline=baseline, control=control)


def score_rows(
    measure: Measure, rows: Rows, *, seed: int, baseline: float | None = None, control: Measure | None = None
) -> Score:
    """`score`, of some rows only. `n` are the patients who have something to be scored."""
    rows = measure.scored(rows)
    value, n = measure.value(rows), _count(measure, rows)
    if not np.isfinite(value):
        return Score(value=None, why="no patient of the holdout has what it takes", n=n)
    half = _half_over_seeds(measure.of_seeds(rows))
    low, high = _interval(measure.value, value, half, measure.patients, rows, seed, measure.most)
    beside = None if control is None else control.value(control.scored(rows))
    return Score(value=value, low=low, high=high, baseline=baseline, control=beside, n=n)


def ratio(measure: Measure, to: Measure, *, seed: int, rows: Rows | None = None) -> Score:
    """How much of `to` is reached: patients drawn again for both together, trainings of one seed side by side."""
    rows = to.scored(measure.scored(measure.rows if rows is None else rows))
    above, below, n = measure.value(rows), to.value(rows), _count(measure, rows)
    if not (np.isfinite(below) and below > 0 and np.isfinite(above)):
        return Score(value=None, why="the arm on real images reaches nothing to compare with", n=n)
    value = above / below
    half = _half_over_seeds((measure.of_seeds(rows) - value * to.of_seeds(rows)) / below)  # to first order

    def divided(drawn: Rows) -> float:
        reached = to.value(drawn)
        return measure.value(drawn) / reached if reached > 0 else np.nan

    low, high = _interval(divided, value, half, measure.patients, rows, seed, np.inf)
    return Score(value=value, low=low, high=high, baseline=1.0, n=n)


def skill(measure: Measure, real: Measure, controls: Sequence[Measure], *, seed: int) -> Score:
    """Where the arm lies between the best control (0) and real images (1), as in Murphy's skill score (1988).

    The best control is that of the holdout, in every draw of patients anew: the choice can only lower the skill.
    """
    rows = measure.rows
    for one in (measure, real, *controls):
        rows = one.scored(rows)
    n = _count(measure, rows)
    if not controls or not len(rows):
        return Score(value=None, why="there is no control to compare with", n=n)
    best = max(controls, key=lambda control: control.value(rows))
    gap = real.value(rows) - best.value(rows)
    if not gap > 0:
        return Score(value=None, why="training on real images does no better than the best control", n=n)
    value = (measure.value(rows) - best.value(rows)) / gap
    floor = best.of_seeds(rows)
    half = _half_over_seeds((measure.of_seeds(rows) - floor - value * (real.of_seeds(rows) - floor)) / gap)

    def between(drawn: Rows) -> float:
        low = max(control.value(drawn) for control in controls)
        above = real.value(drawn) - low
        return (measure.value(drawn) - low) / above if above > 0 else np.nan

    low, high = _interval(between, value, half, measure.patients, rows, seed, np.inf, least=-np.inf)
    return Score(value=value, low=low, high=high, baseline=0.0, control=1.0, n=n)


def difference(measure: Measure, to: Measure, *, seed: int) -> Score:
    """By how much the arm lies above `to`: the same patients and the trainings of one seed side by side."""
    rows = to.scored(measure.scored(measure.rows))
    value, n = measure.value(rows) - to.value(rows), _count(measure, rows)
    if not np.isfinite(value):
        return Score(value=None, why="no patient of the holdout has what it takes", n=n)
    half = _half_over_seeds(measure.of_seeds(rows) - to.of_seeds(rows))

    def gap(drawn: Rows) -> float:
        return measure.value(drawn) - to.value(drawn)

    low, high = _interval(gap, value, half, measure.patients, rows, seed, np.inf, least=-np.inf)
    return Score(value=value, low=low, high=high, baseline=0.0, n=n)


def paired_p(measure: Measure, to: Measure) -> float | None:
    """Whether two arms differ: the larger of two p-values.

    One is Wilcoxon's signed-rank test over patients, whose trainings are averaged. The other is the level at which an
    interval of the mean gap made like all others here, over patients and over trainings, would just hold 0: with few
    seeds a gap must stand out from luck of training as well. None with one training, or too few patients.
    """
    if measure.each is None or to.each is None:
        return None
    gaps = measure.each - to.each
    gaps = gaps[:, np.isfinite(gaps).all(0)]
    if len(gaps) < 2 or gaps.shape[1] < FEWEST_PATIENTS:
        return None
    of_patient = gaps.mean(0)
    over_patients = 1.0 if not of_patient.any() else float(stats.wilcoxon(of_patient).pvalue)
    return max(over_patients, _p_of_both(gaps))


def mean_over_patients(
    tables: Values, patients: NDArray[np.str_], sites: NDArray[np.str_], *, most: float = 1.0
) -> Measure:
    """A measure that is a mean over patients: `tables` is (seeds, patients), NaN where a patient has no value.

    `patients` come in the order of their names.
    """

    def of_seeds(rows: Rows) -> Values:
        chosen = tables[:, rows]
        known = np.isfinite(chosen)
        total = np.where(known, chosen, 0).sum(1)
        return np.asarray(np.divide(total, known.sum(1), out=np.full(len(total), np.nan), where=known.any(1)))

    return Measure(patients=patients, sites=sites, of_seeds=of_seeds, each=tables, most=most)


def _count(measure: Measure, rows: Rows) -> int:
    return len(np.unique(measure.patients[rows]))


def _half_over_seeds(values: Values) -> float:
    """Half the interval of their mean by Student's t; of one training nothing is known."""
    n = len(values)
    return 0.0 if n < 2 else float(stats.t.ppf((1 + LEVEL) / 2, n - 1) * values.std(ddof=1) / np.sqrt(n))


def _p_of_both(gaps: Values) -> float:
    """The level whose interval of the mean of (seeds, patients) has 0 at its edge."""
    ways = [(values.std(ddof=1) / np.sqrt(len(values)), len(values) - 1) for values in (gaps.mean(1), gaps.mean(0))]

    def beyond(p: float) -> float:
        return float(np.hypot(*(error * stats.t.isf(p / 2, df) for error, df in ways)) - abs(gaps.mean()))

    smallest = 1e-9
    return smallest if beyond(smallest) < 0 else float(optimize.brentq(beyond, smallest, 1.0, xtol=1e-12))


def _interval(
    statistic: Callable[[Rows], float],
    value: float,
    over_seeds: float,
    patients: NDArray[np.str_],
    rows: Rows,
    seed: int,
    most: float,
    *,
    least: float = 0.0,
) -> tuple[float | None, float | None]:
    """Around `value`, with half the width that the seeds give; None where patients cannot be drawn again."""
    named, rng = patients[rows], np.random.default_rng(seed)
    if len(np.unique(named)) < 2:
        return None, None
    low, high = patient_bootstrap(lambda drawn: statistic(rows[drawn]), named, rng, repeats=REPEATS)
    if not (np.isfinite(low) and np.isfinite(high)):
        return None, None
    below, above = np.hypot(max(value - low, 0), over_seeds), np.hypot(max(high - value, 0), over_seeds)
    return max(float(value - below), least), min(float(value + above), most)
