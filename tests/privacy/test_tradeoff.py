"""The trade-off curve: the Gaussian closed form, and what its own points prove."""

import math

import pytest
from scipy.stats import norm

from fedsynth.privacy import tradeoff
from fedsynth.privacy.accounting import Mechanism, epsilon_of
from fedsynth.privacy.tradeoff import advantage, least_false_negatives, proven_epsilon

GAUSSIAN = Mechanism(rate=1.0, noise=5.0, steps=25)  # one Gaussian mechanism of mu = 1
SUBSAMPLED = Mechanism(rate=0.2, noise=1.5, steps=60)


@pytest.mark.parametrize("alpha", [0.001, 0.05, 0.3, 0.5, 0.9])
def test_without_subsampling_it_is_the_gaussian_curve(alpha: float) -> None:
    """Dong, Roth and Su 2022: G_mu(a) = Phi(Phi^-1(1 - a) - mu); supporting lines lie below it."""
    exact = norm.cdf(norm.isf(alpha) - 1)
    assert exact - 3e-4 < least_false_negatives(GAUSSIAN, alpha) <= exact
    assert 0 <= advantage(GAUSSIAN) - (2 * norm.cdf(0.5) - 1) < 1e-5, "rounded up, and hardly"


@pytest.mark.parametrize(
    ("mechanism", "alpha"), [(GAUSSIAN, 0.02), (GAUSSIAN, 0.3), (GAUSSIAN, 0.6), (SUBSAMPLED, 0.02), (SUBSAMPLED, 0.6)]
)
def test_a_point_of_the_curve_proves_its_epsilon_and_no_more(mechanism: Mechanism, alpha: float) -> None:
    missed, true = least_false_negatives(mechanism, alpha), epsilon_of([mechanism], 1e-5)
    for declared in (mechanism, Mechanism(rate=mechanism.rate, noise=3 * mechanism.noise, steps=mechanism.steps)):
        proven = proven_epsilon(declared, 1e-5, false_positives=alpha, false_negatives=missed)
        assert 0.995 * true < proven <= true


def test_less_is_proven_than_was_declared_where_the_attack_shows_less() -> None:
    """Error rates of five times the noise: the search must go up from the declared one."""
    missed, less = least_false_negatives(GAUSSIAN, 0.3), Mechanism(rate=1.0, noise=1.0, steps=25)
    proven, true = proven_epsilon(less, 1e-5, false_positives=0.3, false_negatives=missed), epsilon_of([GAUSSIAN], 1e-5)
    assert 0.995 * true < proven <= true


@pytest.mark.parametrize(("times", "looked_for"), [(24, True), (48, False)])
def test_the_noise_is_looked_for_in_doublings_until_sixteen_times_is_passed(times: int, looked_for: bool) -> None:
    """The doubling that passes 16 times the declared noise is the last: 24 times lies below it, 48 times beyond."""
    declared = Mechanism(rate=1.0, noise=0.2, steps=1)
    true = Mechanism(rate=1.0, noise=0.2 * times, steps=1)
    missed = least_false_negatives(true, 0.3)
    proven = proven_epsilon(declared, 1e-5, false_positives=0.3, false_negatives=missed)
    assert (0.99 * epsilon_of([true], 1e-5) < proven) == looked_for
    assert (proven > 0) == looked_for


def test_no_more_is_proven_than_the_largest_epsilon_that_is_ever_promised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tradeoff, "LARGEST_EPSILON", 2.0)
    missed = least_false_negatives(GAUSSIAN, 0.3)  # the rates prove about 5
    assert proven_epsilon(GAUSSIAN, 1e-5, false_positives=0.3, false_negatives=missed) == 2.0


def test_guessing_proves_nothing_and_certainty_much() -> None:
    assert proven_epsilon(GAUSSIAN, 1e-5, false_positives=0.5, false_negatives=0.5) == 0
    assert proven_epsilon(GAUSSIAN, 1e-5, false_positives=0.05, false_negatives=0.05) > 15
    assert math.isclose(least_false_negatives(SUBSAMPLED, 1.0), 0.0)
