"""Corrections and lists: by hand, against each other, and their rates over simulated truths."""

import numpy as np
import pytest
from scipy import stats

from fedsynth.evaluation.multiple_testing import (
    conformal_p,
    fewest_discoveries,
    holm,
    target_decoy,
)


def test_holm_by_hand():
    # sorted .01 .02 .03 .04 times 4 3 2 1 = .04 .06 .06 .04, made increasing
    assert holm(np.array([0.03, 0.01, 0.04, 0.02])) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm(np.array([0.9, 0.8])) == pytest.approx([1, 1])
    assert len(holm(np.array([]))) == 0


def test_holm_is_never_above_bonferroni_and_keeps_order():
    p = np.random.default_rng(0).random(50) ** 3
    assert (holm(p) <= np.minimum(p * 50, 1) + 1e-12).all()
    assert (np.diff(holm(p)[np.argsort(p)]) >= 0).all()


def test_target_decoy_by_hand():
    scores = np.array([9.0, 8, 7, 6, 5, 4, 3, 2, 1, 0])
    target = np.array([1, 1, 1, 1, 0, 1, 1, 0, 0, 0], bool)
    # six targets, four decoys: factor 6 / 5. Above 6 no decoy: 1 x 1.2 / 4 = .3; above 3 one: 2.4 / 6 = .4
    assert target_decoy(scores, target, 0.3).tolist() == [True] * 4 + [False] * 6
    assert target_decoy(scores, target, 0.4).tolist() == (target & (scores >= 3)).tolist()
    assert not target_decoy(scores, target, 0.29).any()


def test_decoys_are_never_chosen_and_ties_count_for_both():
    scores, target = np.ones(40), np.arange(40) < 20
    assert not target_decoy(scores, target, 0.5).any()
    assert target_decoy(scores, target, 1.0).tolist() == target.tolist()


def test_unscored_patients_count():
    scores, target = np.array([3.0, 2, 1]), np.array([True, True, False])
    assert target_decoy(scores, target, 0.5, n_targets=2, n_decoys=9).sum() == 2  # 1 x .2 / 2 = .1
    assert target_decoy(scores, target, 0.5, n_targets=20, n_decoys=9).sum() == 0  # 1 x 2 / 2 = 1
    with pytest.raises(ValueError):
        target_decoy(scores, target, 0.5, n_targets=1)


def test_target_decoy_is_benjamini_hochberg_on_conformal_p_values():
    rng = np.random.default_rng(1)
    for _ in range(50):
        scores = rng.integers(0, 30, 60).astype(float)
        target = rng.random(60) < 0.6
        scores[target] += 8 * (rng.random(target.sum()) < 0.4)
        p = conformal_p(scores[target], scores[~target])
        assert (target_decoy(scores, target, 0.25)[target] == (stats.false_discovery_control(p) <= 0.25 + 1e-12)).all()


@pytest.mark.parametrize(("n_members", "n_holdout"), [(70, 30), (50, 50), (20, 80)])
def test_the_rate_holds_for_unequal_numbers(n_members, n_holdout):
    """600 simulated sites, 15 true discoveries among the members."""
    rng, rate = np.random.default_rng(2), 0.1
    share = []
    target = np.arange(n_members + n_holdout) < n_members
    for _ in range(600):
        scores = rng.normal(size=len(target))
        scores[:15] += 5
        chosen = target_decoy(scores, target, rate)
        share.append(chosen[15:].sum() / max(1, chosen.sum()))
    error = np.std(share) / np.sqrt(len(share))
    assert np.mean(share) <= rate + 3 * error


def test_without_the_factor_a_split_of_70_to_30_breaks_the_rate():
    rng, rate, shares = np.random.default_rng(3), 0.1, []
    for _ in range(600):
        members, holdout = rng.normal(size=70), rng.normal(size=30)
        members[:15] += 5
        thresholds = np.sort(members)
        fits = [t for t in thresholds if (1 + (holdout >= t).sum()) / (members >= t).sum() <= rate]
        chosen = members >= (fits[0] if fits else np.inf)
        shares.append(chosen[15:].sum() / max(1, chosen.sum()))
    assert np.mean(shares) > rate + 5 * np.std(shares) / np.sqrt(len(shares))


def test_honest_sites_have_empty_lists_nearly_always():
    rng, hits = np.random.default_rng(4), 0
    for _ in range(1000):
        hits += target_decoy(rng.normal(size=100), np.arange(100) < 50, 0.1).any()
    assert hits <= stats.binom.ppf(0.999, 1000, 0.1)


def test_the_shortest_possible_list():
    assert fewest_discoveries(100, 99, 0.1) == 10
    assert fewest_discoveries(70, 29, 0.1) == 24
    assert fewest_discoveries(5, 99, 0.1) == 1
    assert fewest_discoveries(9, 8, 0.1) is None
    scores = np.concatenate([np.full(10, 9.0), np.zeros(90), np.zeros(99)])
    target = np.arange(199) < 100
    assert target_decoy(scores, target, 0.1).sum() == 10
    scores[0] = -1
    assert not target_decoy(scores, target, 0.1).any()
