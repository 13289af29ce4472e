"""Intervals: closed forms by hand, published bounds, and coverage where it matters."""

import numpy as np
import pytest
from scipy import stats

from fedsynth.evaluation.bootstrap import (
    binomial_tail_bound,
    clopper_pearson,
    patient_bootstrap,
    trials_for_bound,
    zero_hit_bound,
)


def test_clopper_pearson_by_hand():
    assert clopper_pearson(0, 10) == pytest.approx((0, 1 - 0.025 ** (1 / 10)))
    assert clopper_pearson(10, 10) == pytest.approx((0.025 ** (1 / 10), 1))
    assert clopper_pearson(1, 1, level=0.9) == pytest.approx((0.05, 1))


@pytest.mark.parametrize(("hits", "n"), [(0, 7), (3, 7), (50, 200), (7, 7)])
def test_clopper_pearson_agrees_with_scipy(hits, n):
    expected = stats.binomtest(hits, n).proportion_ci(0.95, "exact")
    assert clopper_pearson(hits, n) == pytest.approx((expected.low, expected.high))


@pytest.mark.parametrize(("n", "published"), [(200, 0.018), (1000, 0.0037), (5000, 0.0007)])
def test_zero_hit_bounds_as_published(n, published):
    digits = len(str(published)) - 2
    assert round(zero_hit_bound(n), digits) == published


@pytest.mark.parametrize("share", [0.5, 0.1, 0.01, 0.001])
def test_trials_for_a_bound_are_the_fewest(share):
    n = trials_for_bound(share)
    assert zero_hit_bound(n) <= share < zero_hit_bound(n - 1)


def test_a_percent_takes_368_images():
    assert trials_for_bound(0.01) == 368


def test_the_tail_bound_by_hand():
    # Bin(5, .05): P[X > 2] = .00116 > .001, P[X > 3] = .00003
    assert binomial_tail_bound(5, 0.05) == 3
    assert binomial_tail_bound(5, 0.05, 0.95) == 1
    assert binomial_tail_bound(10, 0.0) == 0


def test_five_silent_controls_demanded_would_void_every_fourth_honest_report():
    assert 1 - stats.binom.pmf(0, 5, 0.05) == pytest.approx(0.226, abs=1e-3)
    assert stats.binom.sf(binomial_tail_bound(5, 0.05), 5, 0.05) < 0.001


def test_the_bootstrap_draws_whole_patients_within_their_groups():
    patients = np.array(["b", "a", "a", "c", "c", "c"])
    groups = np.array([1, 0, 0, 1, 1, 1])
    seen = []

    def watch(rows):
        seen.append(np.bincount(rows, minlength=6))
        return 0.0

    assert patient_bootstrap(watch, patients, np.random.default_rng(0), groups=groups, repeats=50) == (0, 0)
    counts = np.array(seen)
    assert (counts[:, 1:3] == 1).all(), "patient a is alone in its group"
    assert (counts[:, 3] == counts[:, 4]).all()
    assert (counts[:, 3] == counts[:, 5]).all()
    assert (counts[:, 0] + counts[:, 3] == 2).all()
    assert set(counts[:, 0]) == {0, 1, 2}


def test_a_patient_in_two_groups_is_refused():
    with pytest.raises(ValueError):
        patient_bootstrap(len, np.zeros(2), np.random.default_rng(0), groups=np.arange(2))


def test_the_bootstrap_of_patients_covers_where_that_of_images_does_not():
    """60 patients with 5 equal images each: the mean's interval must know of 60 values, not of 300."""
    rng, covered, naive = np.random.default_rng(1), 0, 0
    patients = np.repeat(np.arange(60), 5)
    for _ in range(100):
        values = np.repeat(rng.normal(size=60), 5)
        low, high = patient_bootstrap(lambda rows, v=values: v[rows].mean(), patients, rng, repeats=100)
        covered += low <= 0 <= high
        low, high = patient_bootstrap(lambda rows, v=values: v[rows].mean(), np.arange(300), rng, repeats=100)
        naive += low <= 0 <= high
    assert covered >= stats.binom.ppf(0.001, 100, 0.92)  # the percentile interval is a little short at 60
    assert naive < 75


def test_a_statistic_that_is_often_not_finite_has_no_interval():
    rng = np.random.default_rng(0)
    low, high = patient_bootstrap(lambda rows: 1.0 if len(set(rows)) > 1 else np.inf, np.arange(2), rng, repeats=50)
    assert np.isnan(low)
    assert np.isnan(high)
