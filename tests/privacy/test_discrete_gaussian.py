"""Noise in whole steps of a grid: its distribution, its range, and that it is drawn from the randomness given."""

import numpy as np
import pytest
from scipy import stats

from fedsynth.privacy.discrete_gaussian import discrete_gaussian
from fedsynth.privacy.secure_rng import InsecureRandomness


@pytest.mark.parametrize("deviation", [1, 3])
def test_probabilities_are_those_of_the_discrete_gaussian(deviation: int) -> None:
    drawn = discrete_gaussian(InsecureRandomness(2), 1500, deviation).numpy()
    values = np.arange(-8 * deviation, 8 * deviation + 1)
    expected = np.exp(-(values**2) / (2 * deviation**2))
    expected = len(drawn) * expected / expected.sum()
    counts = np.array([(drawn == value).sum() for value in values])
    often = expected > 5
    rest = [counts[~often].sum()], [expected[~often].sum()]
    found = np.concatenate([counts[often], rest[0]]), np.concatenate([expected[often], rest[1]])
    assert stats.chisquare(*found, sum_check=False).pvalue > 0.01


def test_large_deviations_have_the_normal_form() -> None:
    deviation = 10**7
    drawn = discrete_gaussian(InsecureRandomness(1), 400, deviation).numpy() / deviation
    assert stats.kstest(drawn, "norm").pvalue > 0.01
    assert len(set(drawn % 1)) == len(drawn)


def test_the_same_randomness_gives_the_same_noise() -> None:
    first, again, other = (discrete_gaussian(InsecureRandomness(seed), 20, 1000).tolist() for seed in (3, 3, 4))
    assert first == again != other


def test_a_deviation_below_the_grid_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one step"):
        discrete_gaussian(InsecureRandomness(0), 1, 0)
