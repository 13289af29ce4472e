"""How much single patients are told, by hand, and that the words come from the numbers."""

from dataclasses import replace

import numpy as np
import pytest

from fedsynth.evaluation.bootstrap import clopper_pearson
from fedsynth.evaluation.memorization.effect import effect_of
from fedsynth.evaluation.memorization.replication import Copies
from fedsynth.evaluation.memorization.verdict import bound, memorization_verdict
from fedsynth.evaluation.score import Score
from tests.evaluation.memorization.patients import cohort
from tests.evaluation.memorization.test_verdict import copies_of, dependence, findings

PEOPLE = cohort(100, 100, seed=1)
MEMBERS, OTHERS = np.flatnonzero(PEOPLE.member), np.flatnonzero(~PEOPLE.member)


def scored(above):
    """So many members above every holdout patient but one, the others below."""
    scores = np.zeros(200)
    scores[OTHERS] = np.linspace(1, 2, 100)
    scores[OTHERS[:1]] = 5  # one of a hundred may be wrong
    scores[MEMBERS[:above]] = 3
    return scores


def copied(n_members, n_holdout) -> Copies:
    return copies_of(*MEMBERS[:n_members], *MEMBERS[:n_members], *OTHERS[:n_holdout])


def test_thirty_members_above_all_but_one_of_a_hundred():
    found = effect_of(scored(30), copied(12, 0), PEOPLE, seed=0)
    assert found.recognised.value == 0.3
    low, high = clopper_pearson(30, 100)
    assert found.recognised.low <= low < 0.3 < high <= found.recognised.high
    assert found.certain == 12
    assert found.epsilon == pytest.approx(np.log(clopper_pearson(12, 100)[0] / clopper_pearson(0, 100)[1]))
    assert "recognises 30 % of the members" in str(found)
    assert "12 of 100 members" in str(found)
    assert f"epsilon below {found.epsilon:.2g}" in str(found)


def test_nobody_stands_out():
    found = effect_of(scored(0), copied(0, 0), PEOPLE, seed=0)
    assert (found.recognised.value, found.certain, found.epsilon) == (0, 0, 0)
    assert "none of 100 members" in str(found)
    assert "epsilon" not in str(found)


def test_copies_of_the_holdout_speak_against_an_epsilon():
    assert effect_of(scored(0), copied(5, 5), PEOPLE, seed=0).epsilon == 0


def test_the_epsilon_is_seldom_above_the_true_one():
    """Evidence beyond doubt falls on 30 % of members and 5 % of the others: epsilon is log 6, above in 5 % at most."""
    rng, above = np.random.default_rng(3), 0
    for _ in range(200):
        chosen = copies_of(*MEMBERS[rng.random(100) < 0.3], *OTHERS[rng.random(100) < 0.05])
        above += effect_of(scored(0), chosen, PEOPLE, seed=0).epsilon > np.log(6)
    assert above <= 18


@pytest.mark.parametrize("verdict", ["depends", "leak", "pass"])
def test_the_sentence_stands_beside_the_verdict(verdict):
    effect = effect_of(scored(30), copied(0, 0), PEOPLE, seed=0)
    given = {"depends": findings(dependence=dependence(0.001)), "leak": findings(0), "pass": findings()}[verdict]
    judged = memorization_verdict(replace(given, effect=effect))
    assert judged.verdict == verdict
    assert str(effect) in judged.sentences


@pytest.mark.parametrize("power", [0.0, 0.2, 0.9])
def test_what_is_inconclusive_says_what_would_decide_and_holds_one_bound(power):
    found = findings(power=power, share=Score(value=0.0, low=0.0, high=0.03))
    judged = memorization_verdict(found)
    assert judged.verdict == "inconclusive"
    assert sum("What would decide: at least" in sentence for sentence in judged.sentences) == 1
    assert all(" 3 %" not in sentence for sentence in judged.sentences if bound(found) != 0.03)
