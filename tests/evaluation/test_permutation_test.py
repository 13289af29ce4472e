"""The permutation test: exact by enumeration and under simulated nulls, for every dependence between statistics."""

from itertools import combinations
from math import comb

import numpy as np
import pytest
from scipy import stats

from fedsynth.evaluation.permutation_test import (
    assignments,
    fewest_patients,
    highest_power,
    joint_p,
    joint_p_of_groups,
    marginal_p,
    min_p,
    permute_roles,
)


def members_of(*sizes):
    """Roles and strata from pairs of (patients, members) per stratum."""
    members = np.concatenate([np.arange(n) < m for n, m in sizes])
    return members, np.repeat(np.arange(len(sizes)), [n for n, _ in sizes])


def test_roles_keep_their_numbers_in_every_stratum():
    members, strata = members_of((5, 2), (4, 4), (1, 0))
    drawn = permute_roles(members, strata, 200, np.random.default_rng(0))
    assert (drawn[:, strata == 0].sum(axis=1) == 2).all()
    assert drawn[:, strata == 1].all()
    assert not drawn[:, strata == 2].any()


def test_every_assignment_is_equally_likely():
    members, strata = members_of((4, 2), (2, 1))
    drawn = permute_roles(members, strata, 6000, np.random.default_rng(0))
    _, counts = np.unique(drawn, axis=0, return_counts=True)
    assert len(counts) == assignments(members, strata) == pytest.approx(comb(4, 2) * 2)
    assert stats.chisquare(counts).pvalue > 0.001


def test_strata_may_be_names_and_need_not_be_sorted():
    members = np.array([True, False, True, False, False])
    strata = np.array(["b", "a", "a", "b", "a"])
    drawn = permute_roles(members, strata, 50, np.random.default_rng(0))
    assert (drawn[:, [0, 3]].sum(axis=1) == 1).all()
    assert (drawn[:, [1, 2, 4]].sum(axis=1) == 1).all()


def test_p_values_by_hand():
    null = np.array([[0.0, 5.0], [1.0, 1.0], [3.0, 2.0]])
    observed = np.array([2.0, 3.0])
    assert marginal_p(observed, null) == pytest.approx([2 / 4, 2 / 4])
    # smallest p of the rows: observed 2/4; (0, 5): 1/4; (1, 1): 3/4; (3, 2): 1/4
    assert min_p(observed, null) == pytest.approx(3 / 4)


def test_ties_count_against_firing():
    assert min_p(np.zeros(2), np.zeros((9, 2))) == 1
    assert min_p(np.ones(2), np.zeros((9, 2))) == pytest.approx(1 / 10)


def test_min_p_against_a_slow_oracle():
    rng = np.random.default_rng(3)
    rows = rng.integers(0, 6, (30, 4)).astype(float)
    p = np.array([[np.mean(rows[:, j] >= rows[i, j]) for j in range(4)] for i in range(30)]).min(axis=1)
    assert min_p(rows[0], rows[1:]) == pytest.approx(np.mean(p <= p[0]))


def test_equal_statistics_cost_nothing():
    """The joint p of a statistic given three times is its own: no correction is paid twice."""
    rng = np.random.default_rng(4)
    value, null = rng.normal(size=1), rng.normal(size=(99, 1))
    assert min_p(np.repeat(value, 3), np.repeat(null, 3, axis=1)) == min_p(value, null) == marginal_p(value, null)[0]


def test_statistics_that_are_not_finite_are_refused():
    with pytest.raises(ValueError):
        min_p(np.array([np.inf]), np.zeros((3, 1)))


@pytest.mark.parametrize("correlation", [0.0, 0.9, -0.9])
def test_the_joint_p_is_exact_for_few_permutations_and_any_dependence(correlation):
    """P[p <= a] = a at the multiples of 1 / (B + 1): 4,000 nulls with B = 19, four statistics."""
    rng = np.random.default_rng(5)
    mix = np.linalg.cholesky(np.array([[1, correlation], [correlation, 1]]))
    p = np.empty(4000)
    for i in range(len(p)):
        pairs = rng.normal(size=(20, 2, 2)) @ mix.T
        rows = pairs.reshape(20, 4) ** 3
        p[i] = min_p(rows[0], rows[1:])
    for alpha in (0.05, 0.2):
        hits = int((p <= alpha + 1e-9).sum())
        assert hits <= stats.binom.ppf(0.999, len(p), alpha)
    # ties of the smallest p-values make it conservative, no more than by a little at alpha = 0.2
    assert (p <= 0.2 + 1e-9).mean() > 0.1


def test_leaving_the_observed_row_out_would_not_be_exact():
    """Why the docstring insists: ranking the null rows among themselves and the observed among the null rejects
    more.
    """
    rng, hits = np.random.default_rng(6), 0
    for _ in range(1000):
        rows = rng.normal(size=(20, 6))
        null = rows[1:]
        own = np.array([[np.mean(null[:, j] >= null[i, j]) for j in range(6)] for i in range(19)]).min(axis=1)
        observed = ((null >= rows[0]).mean(axis=0)).min()
        hits += np.mean(np.append(own, observed) <= observed) <= 0.05
    assert hits > stats.binom.ppf(0.9999, 1000, 0.05)


@pytest.mark.parametrize(("patients", "members", "copied"), [(6, 3, 2), (7, 3, 1), (8, 6, 4)])
def test_the_floor_of_p_by_enumeration(patients, members, copied):
    """The copied are members again in C(n - k, m - k) of the C(n, m) choices."""
    again = sum(set(range(copied)) <= set(chosen) for chosen in combinations(range(patients), members))
    floor = again / comb(patients, members)
    roles = members_of((patients, members))
    assert fewest_patients(*roles, alpha=floor) <= copied
    assert (fewest_patients(*roles, alpha=floor - 1e-9) or copied + 1) > copied


def test_half_members_need_five_copied_patients():
    """In the limit p = f^K: .5^5 = .031; with 200 patients a little less."""
    roles = members_of((200, 100))
    assert fewest_patients(*roles) == 5
    assert fewest_patients(*roles, alpha=0.01) == 7


def test_seven_tenths_need_more():
    assert fewest_patients(*members_of((2000, 1400))) == 9  # .7^8 = .058, .7^9 = .040


def test_where_the_copied_lie_matters():
    members, strata = members_of((40, 36), (40, 4), (10, 10))
    assert fewest_patients(members, strata) == 2  # both of the stratum of few members: 4 / 40 x 3 / 39
    # ten in the stratum without holdout and fifteen where nine of ten are members prove nothing
    worst = fewest_patients(members, strata, placed="worst")
    product = np.cumprod([(36 - i) / (40 - i) for i in range(36)])
    assert worst == 10 + np.flatnonzero(product <= 0.05)[0] + 1


def test_too_few_patients_can_never_fire():
    assert fewest_patients(*members_of((4, 2))) is None
    assert fewest_patients(*members_of((6, 3))) == 3  # 1 / 20, exactly alpha
    assert fewest_patients(*members_of((9, 9))) is None


def test_the_test_rejects_from_that_number_on_and_not_below():
    """Extreme copying of k of 20 patients, ten members: the statistic is the number of copied members."""
    members, strata = members_of((20, 10))
    needed = fewest_patients(members, strata)
    null = permute_roles(members, strata, 4999, np.random.default_rng(7))

    def p(copied):
        return min_p(np.array([float(copied)]), null[:, :copied].sum(axis=1, keepdims=True).astype(float))

    assert needed == 4
    assert p(needed - 1) > 0.05 >= p(needed)


def test_below_that_number_firing_is_luck_of_a_known_size():
    """Three of 20 copied exactly, ten members; the ratio moves with who else lies near, so p is spread below .105."""
    rng, alpha, hits = np.random.default_rng(8), 0.05, 0
    members, strata = members_of((20, 10))
    again = comb(17, 7) / comb(20, 10)
    assert highest_power(members, strata, 3, alpha) == pytest.approx(alpha / again)
    for _ in range(300):
        roles = rng.permutation(members)[None]
        copied = rng.permutation(np.flatnonzero(roles[0]))[:3]
        near = rng.normal(size=20)
        null = permute_roles(roles[0], strata, 199, rng)

        def statistic(drawn, copied=copied, near=near):
            return 100 * drawn[:, copied].sum(axis=1, keepdims=True) + (drawn @ near)[:, None]

        hits += min_p(statistic(roles)[0], statistic(null)) <= alpha
    expected = alpha / again
    assert abs(hits / 300 - expected) < 4 * np.sqrt(expected * (1 - expected) / 300)
    assert highest_power(members, strata, 0) == pytest.approx(0.05)
    assert highest_power(members, strata, 10) == 1
    with pytest.raises(ValueError):
        highest_power(members, strata, 11)


def test_groups_of_statistics_are_ranked_exactly_whatever_their_sizes_and_weights():
    """Every row of exchangeable values is the first one once: p <= 1/n for one of n rows, 2/n for two, and so on."""
    rng = np.random.default_rng(4)
    groups = [rng.normal(size=(40, 30)), rng.normal(size=(40, 2))]
    found = []
    for first in range(40):
        order = np.r_[first, np.delete(np.arange(40), first)]
        found.append(joint_p_of_groups([values[order] for values in groups], (1, 3)))
    assert sorted(found) == pytest.approx(np.arange(1, 41) / 40)


def test_a_large_group_of_noise_does_not_drown_a_small_one():
    rng = np.random.default_rng(5)
    noise, small = rng.normal(size=(1000, 60)), rng.normal(size=(1000, 1))
    small[0] = np.sort(small[:, 0])[-10]
    assert joint_p(np.hstack([noise, small])) > 0.2
    assert joint_p_of_groups([noise, small], (1, 3)) < 0.05
