"""How much single patients are told, by hand, and that the words come from the numbers."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from fedsynth.evaluation.bootstrap import clopper_pearson
from fedsynth.evaluation.memorization.effect import effect_of
from fedsynth.evaluation.memorization.replication import Copies
from fedsynth.evaluation.memorization.verdict import LEAST_POWER, bound, memorization_verdict
from fedsynth.evaluation.score import Score
from tests.evaluation.memorization.patients import cohort
from tests.evaluation.memorization.test_verdict import copies_of, dependence, findings

PEOPLE = cohort(100, 100, seed=1)
MEMBERS, OTHERS = np.flatnonzero(PEOPLE.member), np.flatnonzero(~PEOPLE.member)


def scored(above):
    """So many members above all but one of the holdout, the others below all."""
    scores = np.zeros(200)
    scores[OTHERS] = np.linspace(1, 2, 100)
    scores[OTHERS[:1]] = 5  # one of a hundred may be wrong
    scores[MEMBERS[:above]] = 3
    return scores


def copied(n_members, n_holdout) -> Copies:
    return copies_of(*MEMBERS[:n_members], *MEMBERS[:n_members], *OTHERS[:n_holdout])


def test_thirty_members_above_the_tenth_of_a_hundred():
    """A hundred holdout patients resolve 10 % of errors; the quantile lies between their ranks 4 and 18 (97.5 %)."""
    found = effect_of(scored(30), copied(12, 0), PEOPLE)
    assert (found.recognised.value, found.recognised.baseline) == (0.3, 0.1)
    assert found.recognised.low == pytest.approx(clopper_pearson(30, 100, 0.975)[0])
    assert found.recognised.high == pytest.approx(clopper_pearson(30, 100, 0.975)[1])
    assert found.certain == 12
    assert found.epsilon == pytest.approx(np.log(clopper_pearson(12, 100)[0] / clopper_pearson(0, 100)[1]))
    assert "recognises 30 % of the members" in str(found)
    assert "wrong about 10 % of the others; guessing gives 10 %" in str(found)
    assert "12 of 100 members" in str(found)
    assert f"epsilon below {found.epsilon:.2g} (delta = 0)" in str(found)


def test_few_holdout_patients_resolve_nothing():
    """Nine of fourteen members above the only holdout patient are no 64 % at 1 % of errors."""
    found = effect_of(np.arange(15.0)[::-1], copies_of(), cohort(14, 1))
    assert found.recognised.value is None
    assert "unknown: 1 holdout patients resolve" in str(found)


@pytest.mark.parametrize(("members", "holdout"), [(100, 100), (50, 400), (400, 2000)])
@pytest.mark.parametrize("shift", [0.0, 1.0, 2.5])
def test_the_interval_holds_the_true_share(members, holdout, shift):
    rng, sets, missed = np.random.default_rng(5), 300, 0
    people = cohort(members, holdout)
    truth = stats.norm.sf(stats.norm.isf(max(0.01, 10 / holdout)) - shift)
    for _ in range(sets):
        told = effect_of(rng.normal(size=members + holdout) + shift * people.member, copies_of(), people).recognised
        missed += not told.low <= truth <= told.high
    assert missed <= 0.05 * sets


def test_nobody_stands_out():
    found = effect_of(scored(0), copied(0, 0), PEOPLE)
    assert (found.recognised.value, found.certain, found.epsilon) == (0, 0, 0)
    assert "none of 100 members" in str(found)
    assert "epsilon" not in str(found)


def test_nothing_is_beyond_doubt_when_the_holdout_has_the_same():
    told = str(effect_of(scored(0), copied(10, 3), PEOPLE))
    assert "10 of 100 members have an image that counts as their copy, and 3 of 100 holdout patients" in told
    assert "Beyond doubt" not in told


def test_persons_of_both_roles_are_in_no_count():
    apart = np.isin(np.arange(200), [*MEMBERS[:14], *OTHERS[:14]])
    found = effect_of(scored(0), copied(14, 0), PEOPLE, apart=apart)
    assert (found.certain, found.members, found.holdout, found.epsilon) == (0, 86, 86, 0)


def test_copies_of_the_holdout_speak_against_an_epsilon():
    assert effect_of(scored(0), copied(5, 5), PEOPLE).epsilon == 0


def test_the_epsilon_is_seldom_above_the_true_one():
    """Evidence beyond doubt falls on 30 % of members and 5 % of the others: epsilon is log 6, above in 5 % at most."""
    rng, above = np.random.default_rng(3), 0
    for _ in range(1000):
        chosen = copies_of(*MEMBERS[rng.random(100) < 0.3], *OTHERS[rng.random(100) < 0.05])
        above += effect_of(scored(0), chosen, PEOPLE).epsilon > np.log(6)
    assert above <= 50


@pytest.mark.parametrize("verdict", ["depends", "leak", "pass"])
def test_the_sentence_stands_beside_the_verdict(verdict):
    effect = effect_of(scored(30), copied(0, 0), PEOPLE)
    given = {"depends": findings(dependence=dependence(0.001)), "leak": findings(0), "pass": findings()}[verdict]
    judged = memorization_verdict(replace(given, effect=effect))
    assert judged.verdict == verdict
    assert str(effect) in judged.sentences


@pytest.mark.parametrize("power", [0.0, 0.2, 0.9])
def test_what_is_inconclusive_says_what_would_decide_and_holds_one_bound(power):
    found = findings(power=power, share=Score(value=0.0, low=0.0, high=0.03))
    judged = memorization_verdict(found)
    assert judged.verdict == "inconclusive"
    assert sum("What would decide:" in sentence for sentence in judged.sentences) == 1
    said = " ".join(judged.sentences)
    assert ("no number of synthetic images" in said) == (power < LEAST_POWER) != ("synthetic images and" in said)
    assert "100 %" not in said
    assert all(" 3 %" not in sentence for sentence in judged.sentences if bound(found) != 0.03)


def test_a_power_near_zero_bounds_nothing():
    """One positive control of sixty found: a bound of 100 % is none, and 874,401 images would not do."""
    low = clopper_pearson(1, 60)[0]
    judged = memorization_verdict(findings(power=1 / 60, power_low=low, detectable=None))
    said = " ".join(judged.sentences)
    assert judged.verdict == "inconclusive"
    assert "nothing bounds the share" in said
    assert "100 %" not in said
    assert "synthetic images without a copy would do" not in said
