"""The p-values of the mechanism's checks: uniform or larger for an honest mechanism, small for each fault."""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from fedsynth.experiments.mechanism_checks import (
    binomial,
    contribution,
    equal_variance,
    independent,
    largest_cosine,
    normal,
    sampling,
    smallest,
    variance,
)

RNG = np.random.default_rng(0)


def coins(steps: int = 40, n: int = 300, rate: float = 0.3) -> NDArray[np.bool_]:
    return RNG.random((steps, n)) < rate


def fixed(steps: int = 40, n: int = 300, rate: float = 0.3) -> NDArray[np.bool_]:
    return np.array([RNG.permutation(n) < rate * n for _ in range(steps)])


def in_turn(steps: int = 40, n: int = 300, rate: float = 0.3) -> NDArray[np.bool_]:
    """Shuffled batches: every patient is taken once before anybody is taken again."""
    order = np.concatenate([RNG.permutation(n) for _ in range(int(steps * rate) + 1)])
    drawn = np.zeros((steps, n), bool)
    for step in range(steps):
        drawn[step, order[step * int(n * rate) :][: int(n * rate)]] = True
    return drawn


FALSE: dict[str, Callable[[], float]] = {
    "rate": lambda: sampling(coins(rate=0.4), 0.3),
    "fixed size": lambda: sampling(fixed(), 0.3),
    "in turn": lambda: sampling(in_turn(), 0.3),
    "one patient always": lambda: sampling(coins() | (np.arange(300) == 7), 0.3),
    "one sample twice": lambda: sampling(np.repeat(coins(20), 2, 0), 0.3),
    "variance": lambda: smallest(variance(1.1 * 10_000, 10_000)),
    "two variances": lambda: equal_variance(10_000.0, 10_000, 0.8 * 10_000, 10_000),
    "uniform noise": lambda: normal(RNG.uniform(-(3**0.5), 3**0.5, 5000)),
    "no noise": lambda: normal(np.zeros(5000)),
    "noise that is no number": lambda: normal(np.full(5000, np.nan)),
    "reuse": lambda: cosine_p(np.concatenate([noise := RNG.normal(size=(20, 200)), -noise[3:4]])),
    "half reuse": lambda: cosine_p(RNG.normal(size=(20, 200)) + RNG.normal(size=200)),
    "long gradient": lambda: contribution(1100.0, 1000.0, 1.0, 500),
    "short gradient": lambda: contribution(500.0, 1000.0, 1.0, 500),
}

TRUE: dict[str, Callable[[], float]] = {
    "sampling": lambda: sampling(coins(), 0.3),
    "rare sampling": lambda: sampling(coins(rate=0.01), 0.01),
    "full batches": lambda: sampling(np.ones((5, 20), bool), 1.0),
    "one step": lambda: sampling(coins(steps=1), 0.3),
    "variance": lambda: smallest(variance(stats.chi2.rvs(500, size=20, random_state=RNG), 500)),
    "two variances": lambda: equal_variance(*(float(stats.chi2.rvs(900, random_state=RNG)), 900) * 2),
    "normal": lambda: normal(RNG.normal(size=5000)),
    "independent": lambda: cosine_p(RNG.normal(size=(20, 60))),
    "contribution": lambda: contribution(1000 + 30 * RNG.normal(), 1000.0, 1.0, 900),
}


def cosine_p(vectors: NDArray[np.float64]) -> float:
    return independent(largest_cosine(vectors), *vectors.shape)


@pytest.mark.parametrize("name", FALSE)
def test_a_fault_has_a_small_p_value(name: str) -> None:
    assert FALSE[name]() < 1e-4


@pytest.mark.parametrize("name", TRUE)
def test_an_honest_mechanism_is_rejected_no_more_often_than_promised(name: str) -> None:
    rejected = sum(TRUE[name]() < 0.05 for _ in range(200))
    assert rejected <= stats.binom.ppf(0.999, 200, 0.05)


def test_a_binomial_p_value_by_hand() -> None:
    assert binomial(3, 3, 0.5) == pytest.approx(2 / 8)
    assert binomial(1, 2, 0.5) == 1
    assert smallest([0.02, 0.5]) == pytest.approx(0.04)
    assert smallest(0.02, 10) == pytest.approx(0.2)
    assert smallest([np.nan, 0.5]) == 0
    assert smallest([]) == 1


def test_a_cosine_of_two_vectors_of_three_values_by_hand() -> None:
    """On a sphere in three dimensions a cosine is uniform."""
    assert independent(0.9, 2, 3) == pytest.approx(0.1)
