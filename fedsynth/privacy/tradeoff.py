"""The trade-off curve of Poisson-subsampled Gaussian steps: what an attack's error rates prove about the epsilon spent.

Any attack on a mechanism with the curve f and the false-positive rate a misses at least a share f(a) (Dong, Roth and
Su 2022). Nasr et al. 2023 (arXiv 2302.07956) turn this round: error rates below f refute the noise that f belongs to.
"""

import math
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq

from fedsynth.privacy.accounting import LARGEST_EPSILON, Mechanism

if TYPE_CHECKING:
    from dp_accounting.pld.privacy_loss_distribution import PrivacyLossDistribution

_EPSILONS = np.linspace(0.0, 3.0, 91) ** 2
"""Where the curve is supported; fewer only make it lower, so that less is refuted."""
FURTHEST, STRONGEST = 16.0, 7.0
"""The noise is doubled until it passes so many times the declared one, and halved to so many deviations in all."""
_CLOSE = 2e-4
"""Of the logarithm of the noise: how closely the largest that is not refuted is found."""


def least_false_negatives(mechanism: Mechanism, false_positives: float) -> float:
    """f(a) of the curve: max over epsilon of 1 - delta - e^epsilon a and of e^-epsilon (1 - delta - a), at least 0."""
    grown = np.exp(_EPSILONS)
    left = 1 - _deltas(mechanism)
    return float(max(0.0, np.max(left - grown * false_positives), np.max((left - false_positives) / grown)))


def advantage(mechanism: Mechanism) -> float:
    """The largest difference that any attack can have between its true- and its false-positive rate."""
    return float(_deltas(mechanism)[0])


def proven_epsilon(mechanism: Mechanism, delta: float, *, false_positives: float, false_negatives: float) -> float:
    """The epsilon at `delta` that error rates of at most these prove for such steps, whatever noise they had.

    The largest noise multiplier that is not refuted counts, up to epsilon 50; rate and number of steps are those of
    `mechanism`.
    """

    def excess(times: float) -> float:
        """How far the curve lies above the error rates at so many times the noise; above 0, that noise is refuted."""
        noisier = replace(mechanism, noise=mechanism.noise * times)
        return least_false_negatives(noisier, false_positives) - false_negatives

    low = high = 1.0
    while excess(low) > 0 and low * mechanism.noise > mechanism.rate * math.sqrt(mechanism.steps) / STRONGEST:
        low, high = low / 2, low
    while excess(high) <= 0:
        if high > FURTHEST:
            return 0.0
        low, high = high, high * 2
    if excess(low) > 0:
        high = low
    else:
        below_zero = -1e-12  # where it is 0 the noise is not refuted
        near = brentq(lambda log: excess(math.exp(log)) or below_zero, math.log(low), math.log(high), xtol=_CLOSE)
        high = math.exp(near + _CLOSE)
        while excess(high) <= 0:
            high *= 1 + _CLOSE
    loss = _loss(replace(mechanism, noise=mechanism.noise * high), rounded_up=False)
    return min(LARGEST_EPSILON, float(loss.get_epsilon_for_delta(delta)))


@lru_cache(maxsize=256)
def _deltas(mechanism: Mechanism) -> NDArray[np.float64]:
    loss = _loss(mechanism)
    return np.array([loss.get_delta_for_epsilon(float(epsilon)) for epsilon in _EPSILONS])


def _loss(mechanism: Mechanism, *, rounded_up: bool = True) -> "PrivacyLossDistribution":
    """Rounded up between grid points (Doroshenko et al. 2022) for a curve that lies nowhere above the true one; down
    for an epsilon that is not above the true one."""
    from dp_accounting.pld import privacy_loss_distribution as pld

    grid = max(1e-4, 1e-2 / math.sqrt(mechanism.steps)) / (1 if rounded_up else 8)
    one = pld.from_gaussian_mechanism(
        mechanism.noise,
        sampling_prob=mechanism.rate,
        value_discretization_interval=grid,
        pessimistic_estimate=rounded_up,
        use_connect_dots=rounded_up,
    )
    return one.self_compose(mechanism.steps)
