"""Lower bounds on epsilon: closed forms, the published ceilings, and validity on randomized response itself."""

import numpy as np
import pytest
from scipy import stats

from fedsynth.evaluation.audit.epsilon_bounds import (
    best_bound,
    ceiling,
    corrected_level,
    count_right,
    one_run_bound,
    one_run_p,
)

DELTA = 1e-5
CEILINGS = {20: 1.05, 50: 2.06, 100: 2.78, 200: 3.49, 500: 4.40, 1000: 5.09, 2000: 5.76}
"""By canaries: what a perfect attack proves, as published with the design, which guesses only on the included half."""


@pytest.mark.parametrize("m", CEILINGS)
def test_the_published_ceilings(m):
    half = one_run_bound(canaries=m, guesses=m // 2, right=m // 2, delta=DELTA)
    assert half == pytest.approx(CEILINGS[m], abs=0.0051)
    assert ceiling(m, DELTA) > half, "guesses on both sides reach further"


def test_a_perfect_attack_by_hand():
    """Without delta all of r guesses are right with probability q^r, q = e^eps / (1 + e^eps)."""
    q = 0.05 ** (1 / 100)
    assert ceiling(100, 0.0) == pytest.approx(np.log(q / (1 - q)), abs=1e-5)
    assert one_run_p(0.0, canaries=9, guesses=3, right=3, delta=0) == pytest.approx(1 / 8)
    # alpha: P[3 > B >= 2] / 1 = 3/8, P[B >= 1] = 6/8 / 2, P[B >= 0] = 7/8 / 3: the first two are equal
    assert one_run_p(0.0, canaries=9, guesses=3, right=3, delta=0.01) == pytest.approx(1 / 8 + 18 * 0.01 * 3 / 8)


def test_the_p_value_against_a_slow_oracle():
    for epsilon, guesses, right in ((0.3, 20, 15), (2.0, 40, 38), (1.0, 10, 0), (0.0, 7, 7)):
        q = 1 / (1 + np.exp(-epsilon))
        alpha, total = 0.0, 0.0
        for i in range(1, right + 1):
            total += stats.binom.pmf(right - i, guesses, q)
            alpha = max(alpha, total / i)
        slow = min(1, stats.binom.sf(right - 1, guesses, q) + alpha * 1e-3 * 2 * 50)
        assert one_run_p(epsilon, canaries=50, guesses=guesses, right=right, delta=1e-3) == pytest.approx(slow)


def test_guessing_no_better_than_the_coin_bounds_nothing():
    assert one_run_bound(canaries=100, guesses=100, right=50, delta=DELTA) == 0
    assert one_run_bound(canaries=100, guesses=100, right=0, delta=DELTA) == 0


def test_impossible_counts_are_refused():
    with pytest.raises(ValueError):
        one_run_p(1.0, canaries=5, guesses=6, right=1, delta=0)
    with pytest.raises(ValueError):
        best_bound(np.array([np.nan]), np.array([True]), delta=0, rng=np.random.default_rng(0))


def test_the_level_is_shared_by_sites_and_views():
    assert corrected_level(0.95, 10) == pytest.approx(0.995)
    assert ceiling(200, DELTA, comparisons=6) < ceiling(200, DELTA)


def respond(rng, m, epsilon):
    """The worst mechanism that is epsilon-private on each canary: randomized response, seen as scores."""
    included = rng.random(m) < 0.5
    truthful = rng.random(m) < 1 / (1 + np.exp(-epsilon))
    return np.where(truthful, included, ~included).astype(float), included


@pytest.mark.parametrize("epsilon", [0.0, 2.0])
def test_the_bound_holds_over_the_true_epsilon(epsilon):
    """250 runs of randomized response, the mechanism for which the theorem is tight."""
    rng, above, fixed, m = np.random.default_rng(5), 0, 0, 100
    for _ in range(250):
        scores, included = respond(rng, m, epsilon)
        right = count_right(scores, included, m, rng)
        fixed += one_run_p(epsilon, canaries=m, guesses=m, right=right, delta=0.0) < 0.05  # the bound is above epsilon
        above += best_bound(scores, included, delta=0.0, rng=rng).epsilon > epsilon
    most = stats.binom.ppf(0.999, 250, 0.05)
    assert fixed <= most
    assert above <= most


def test_the_bound_finds_a_false_claim():
    rng = np.random.default_rng(6)
    scores, included = respond(rng, 400, 3.0)
    found = best_bound(scores, included, delta=DELTA, rng=rng, comparisons=4)
    assert 1.0 < found.epsilon < 3.0 < found.ceiling
    assert found.guesses >= found.right > found.guesses / 2
    perfect = best_bound(included.astype(float), included, delta=DELTA, rng=rng, comparisons=4)
    assert perfect.epsilon <= perfect.ceiling + 1e-9


def test_the_order_of_the_canaries_is_no_oracle():
    """All scores equal, canaries sorted by the coin: guesses must be no better than chance."""
    included = np.arange(1000) >= 500
    right = count_right(np.zeros(1000), included, 1000, np.random.default_rng(7))
    assert abs(right - 500) < 80
