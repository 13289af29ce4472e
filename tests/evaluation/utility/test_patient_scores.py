"""Intervals and tests over patients and trainings: by hand, and how often they are wrong on arms that are equal."""

import numpy as np
import pytest
from scipy import stats

from fedsynth.evaluation.utility.patient_scores import (
    difference,
    mean_over_patients,
    paired_p,
    ratio,
    score,
    score_rows,
    skill,
)

NAN = np.nan


def arm(tables, **more):
    tables = np.asarray(tables, float)
    names = np.array([f"p{i:03}" for i in range(tables.shape[1])])
    return mean_over_patients(tables, names, np.where(np.arange(len(names)) % 2, "a", "b"), **more)


def equal_arms(rng, spread, *, seeds=3, patients=60):
    """Patients differ in how hard they are, and a little in which arm suits them; trainings differ by luck."""
    hard = rng.normal(0.7, 0.15, patients)

    def one():
        suited = hard + rng.normal(0, 0.03, patients)
        return arm(suited + rng.normal(0, spread, (seeds, 1)) + rng.normal(0, 0.03, (seeds, patients)))

    return one(), one()


def wrong(spread, trials, **more):
    """The shares of false p < 0.05, and of intervals of the ratio that hold 1."""
    rng = np.random.default_rng([int(1000 * spread), *b"equal"])
    found = []
    for number in range(trials):
        first, second = equal_arms(rng, spread, **more)
        interval = ratio(first, second, seed=number)
        found.append((paired_p(first, second) < 0.05, interval.low <= 1 <= interval.high))
    return np.mean(found, axis=0)


@pytest.mark.slow
@pytest.mark.parametrize("spread", [0.0, 0.005, 0.01, 0.02])
def test_equal_arms_are_seldom_distinguished(spread):
    """Seeded, so that it cannot fail by chance; of 1000 trials what the module's first lines say."""
    false, held = wrong(spread, 100)
    assert false <= 0.07
    assert held >= 0.9


def test_luck_of_training_is_no_difference():
    """Seeded. The signed-rank test over patients alone sees a difference in nearly half of these."""
    rng = np.random.default_rng(1)
    alone, found = [], []
    for _ in range(300):
        first, second = equal_arms(rng, 0.02)
        alone.append(stats.wilcoxon((first.each - second.each).mean(0)).pvalue < 0.05)
        found.append(paired_p(first, second) < 0.05)
    assert np.mean(alone) > 0.3
    assert np.mean(found) <= 0.07


def test_a_true_difference_is_found():
    first, second = equal_arms(np.random.default_rng(1), 0.005)
    worse = arm(second.each - 0.1)
    assert paired_p(first, worse) < 0.02
    assert ratio(worse, first, seed=0).high < 1


def test_the_p_value_asks_patients_and_trainings():
    level = arm(np.full((3, 8), 0.5))
    gaps = np.repeat([[0.01], [0.02], [0.03]], 8, axis=1)
    over_seeds = stats.ttest_1samp(gaps[:, 0], 0).pvalue  # over eight patients who all agree it is 2 / 2^8
    assert paired_p(arm(0.5 + gaps), level) == pytest.approx(over_seeds, rel=1e-6)
    alike = np.tile(np.linspace(-0.01, 0.03, 8), (3, 1))
    over_patients = max(stats.wilcoxon(alike[0]).pvalue, stats.ttest_1samp(alike[0], 0).pvalue)
    assert paired_p(arm(0.5 + alike), level) == pytest.approx(over_patients, rel=1e-6)
    both = alike - alike.mean() + gaps
    assert paired_p(arm(0.5 + both), level) > max(over_seeds, stats.ttest_1samp(both.mean(0), 0).pvalue)
    assert paired_p(level, level) == 1


def test_one_training_or_a_handful_of_patients_have_no_p_value():
    values = np.random.default_rng(0).random((3, 8))
    assert paired_p(arm(values[:1]), arm(values[1:2])) is None
    assert paired_p(arm(values[:, :5]), arm(values[:, :5] / 2)) is None


def test_an_interval_over_trainings_is_students():
    """Patients that are all alike leave the seeds: 0.5, 0.6, 0.7 of Dice, two degrees of freedom."""
    tables = np.repeat([[0.5], [0.6], [0.7]], 10, axis=1)
    found = score(arm(tables), seed=0)
    half = stats.t.ppf(0.975, 2) * 0.1 / np.sqrt(3)
    assert (found.low, found.high) == (pytest.approx(0.6 - half), pytest.approx(0.6 + half))
    beside = ratio(arm(tables), arm(np.full((3, 10), 0.6)), seed=0)
    assert (beside.low, beside.high) == (pytest.approx(1 - half / 0.6), pytest.approx(1 + half / 0.6))
    assert score(arm(np.repeat([[0.9], [1.0]], 10, axis=1)), seed=0).high == 1
    assert score(arm(np.repeat([[90], [100.0]], 10, axis=1), most=np.inf), seed=0).high > 100


def test_luck_that_both_arms_share_cancels():
    luck = np.array([[-0.1], [0.0], [0.1]])
    first = arm(0.4 + luck + np.zeros(10))
    found = ratio(arm(2 * first.each), first, seed=0)
    assert (found.value, found.low, found.high) == (pytest.approx(2),) * 3


def test_one_training_leaves_the_interval_over_patients():
    values = np.random.default_rng(0).random((1, 40))
    once, thrice = score(arm(values), seed=0), score(arm(np.repeat(values, 3, axis=0)), seed=0)
    assert (once.low, once.high) == (pytest.approx(thrice.low), pytest.approx(thrice.high))
    assert once.low < values.mean() < once.high


def test_patients_without_the_label_are_not_counted():
    values = np.tile([0.5, NAN, 0.7, NAN, 0.6, NAN, 0.8, 0.9], (2, 1))
    found = score(arm(values), seed=0)
    assert found.n == 5
    assert found.value == pytest.approx(0.7)
    assert ratio(arm(values), arm(np.ones((2, 8))), seed=0).n == 5
    measure = arm(values)
    at_a = score_rows(measure, measure.at("a"), seed=0)  # one patient of four can be scored there
    assert (at_a.n, at_a.value, at_a.low) == (1, pytest.approx(0.9), None)
    assert score(arm(np.full((2, 4), NAN)), seed=0).n == 0


def test_skill_is_nought_at_the_best_control_and_one_at_real_images():
    hard = np.tile(np.linspace(-0.1, 0.1, 10), (3, 1))
    real, worse, better = arm(0.8 + hard), arm(0.2 + hard), arm(0.4 + hard)

    def of(value):
        return skill(arm(value + hard), real, [worse, better], seed=0)

    assert [of(value).value for value in (0.8, 0.6, 0.4, 0.3)] == pytest.approx([1, 0.5, 0, -0.25])
    assert (of(0.3).low, of(0.3).high) == (pytest.approx(-0.25), pytest.approx(-0.25))  # patients cancel, all paired
    assert "no better" in skill(better, worse, [better], seed=0).why
    assert "no control" in skill(better, real, [], seed=0).why


def test_skill_knows_the_luck_of_all_three_arms():
    luck = np.array([[-0.01], [0.0], [0.01]])
    level = np.zeros(10)
    real, control = arm(0.8 + level + 0 * luck), arm(0.4 + level + 0 * luck)
    half = stats.t.ppf(0.975, 2) * 0.01 / np.sqrt(3) / 0.4
    assert skill(arm(0.6 + level + luck), real, [control], seed=0).high == pytest.approx(0.5 + half)
    lucky = skill(arm(0.6 + level + 0 * luck), arm(0.8 + level + luck), [control], seed=0)
    assert lucky.high == pytest.approx(0.5 + 0.5 * half)
    assert skill(arm(0.6 + level + luck), arm(0.8 + level + luck), [arm(0.4 + level + luck)], seed=0).high < 0.501


def test_intervals_shrink_with_patients_and_with_trainings():
    rng = np.random.default_rng(0)

    def width(patients, seeds):
        first, second = equal_arms(rng, 0.02, seeds=seeds, patients=patients)
        control = arm(np.full((seeds, patients), 0.2))
        found = [skill(first, second, [control], seed=0), difference(first, second, seed=0), score(first, seed=0)]
        return np.array([one.high - one.low for one in found])

    few, more = (np.mean([width(*size) for _ in range(4)], axis=0) for size in ((20, 3), (80, 12)))
    assert (more < 0.7 * few).all()


def test_a_difference_is_paired():
    hard = np.tile(np.linspace(0, 0.5, 12), (3, 1))
    gap = np.tile(np.linspace(0.01, 0.05, 12), (3, 1))
    found = difference(arm(0.4 + hard + gap), arm(0.4 + hard), seed=0)
    assert found.value == pytest.approx(0.03)
    assert 0 < found.low < 0.03 < found.high < 0.05
    assert difference(arm(0.4 + hard), arm(0.4 + hard + gap), seed=0).high < 0
