"""ROC curves by hand, AUC against a slow oracle, and intervals that cover as often as they say."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from fedsynth.evaluation.roc import auc, auc_interval, aucs, resolvable, roc, true_positive_interval, true_positive_rate

SCORES = np.array([5.0, 3.0, 3.0, 1.0, 4.0, 3.0, 2.0])
MEMBERS = np.array([1, 1, 1, 1, 0, 0, 0], bool)


def test_the_curve_by_hand() -> None:
    curve = roc(SCORES, MEMBERS)
    # thresholds 5, 4, 3, 2, 1
    assert curve.true_positive == pytest.approx([0, 1 / 4, 1 / 4, 3 / 4, 3 / 4, 1])
    assert curve.false_positive == pytest.approx([0, 0, 1 / 3, 2 / 3, 1, 1])
    # of 12 pairs 5 wins three, each 3 wins one and ties one, 1 wins none
    assert auc(SCORES, MEMBERS) == pytest.approx((3 + 2 * 1.5) / 12)
    assert np.trapezoid(curve.true_positive, curve.false_positive) == pytest.approx(auc(SCORES, MEMBERS))


def test_true_positives_by_hand() -> None:
    assert true_positive_rate(SCORES, MEMBERS, 0.0) == 1 / 4  # above 4
    assert true_positive_rate(SCORES, MEMBERS, 0.34) == 1 / 4  # one of three may exceed 3; ties do not count
    assert true_positive_rate(SCORES, MEMBERS, 0.99) == 3 / 4  # two of three exceed 2
    assert true_positive_rate(SCORES, MEMBERS, 1.0) == 3 / 4


@pytest.mark.parametrize(("holdout", "rate", "expected"), [(100, 0.1, True), (99, 0.1, False), (1000, 0.01, True)])
def test_a_rate_needs_ten_expected_false_positives(holdout: int, rate: float, expected: bool) -> None:
    assert resolvable(holdout, rate) == expected


def test_aucs_of_many_roles_equal_those_one_by_one() -> None:
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 9, 40).astype(float)
    roles = rng.permuted(np.tile(np.arange(40) < 15, (20, 1)), axis=1)
    assert aucs(scores, roles) == pytest.approx([roc_auc_score(role, scores) for role in roles])


def test_one_role_has_no_auc() -> None:
    with pytest.raises(ValueError, match="members and holdout"):
        aucs(SCORES, np.ones((1, 7), bool))


@pytest.mark.parametrize("shift", [0.0, 0.8])
def test_intervals_cover_as_often_as_they_say(shift: float) -> None:
    """Two normal populations a shift apart: their AUC is the normal distribution at shift / sqrt(2)."""
    truth = {0.0: 0.5, 0.8: 0.7142}[shift]
    members = np.arange(110) < 60
    covered = 0
    for seed in range(150):
        rng = np.random.default_rng(seed)
        low, high = auc_interval(rng.normal(size=110) + shift * members, members, rng, repeats=200)
        covered += low <= truth <= high
    assert 0.90 <= covered / 150 <= 0.99


def test_the_interval_of_the_true_positive_rate_holds_the_truth() -> None:
    members = np.arange(300) < 150
    covered = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        scores = rng.normal(size=300) + 1.0 * members
        low, high = true_positive_interval(scores, members, 0.1, rng, repeats=200)
        assert low <= true_positive_rate(scores, members, 0.1) <= high
        covered += low <= 0.3891 <= high  # 1 - Phi(1.2816 - 1)
    assert covered >= 88
