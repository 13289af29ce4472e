"""Opacus's numerical accountant (Gopi et al. 2021): another library and another method than the claim's."""

import math
import warnings
from dataclasses import replace

import numpy as np
from opacus.accountants.analysis import prv
from scipy.special import ndtr

from fedsynth.privacy.accounting import _renyi


class Removal:
    """The privacy loss of one draw when the patient is in: the mixture against the normal. Also for rate 1."""

    def __init__(self, rate, noise):
        self.rate, self.noise = rate, noise

    def cdf(self, t):
        x = self.output_at(t)
        return self.rate * ndtr((x - 1) / self.noise) + (1 - self.rate) * ndtr(x / self.noise)

    def output_at(self, t):
        """The output x whose loss log(1 - q + q exp((2x - 1) / 2s^2)) is `t`; minus infinity below its range."""
        inside = np.expm1(t) / self.rate
        with np.errstate(divide="ignore", invalid="ignore"):
            return self.noise**2 * np.where(inside > -1, np.log1p(np.maximum(inside, -1)), -np.inf) + 0.5


class Addition(Removal):
    """The normal against the mixture: the negative of the other's loss, under the normal."""

    def cdf(self, t):
        return ndtr(-self.output_at(-np.asarray(t)) / self.noise)


def prv_bounds(mechanisms, delta, error=0.002):
    """Lower and upper bound of epsilon, the larger of the two directions; `error` is relative."""
    both = [_bounds(mechanisms, delta, direction, error) for direction in (Removal, Addition)]
    return max(low for low, _ in both), max(high for _, high in both)


def _bounds(mechanisms, delta, direction, error):
    steps, delta_error = [one.steps for one in mechanisms], delta / 1000
    error *= _renyi(tuple(mechanisms), delta)
    parts = [mechanisms, *([replace(one, steps=1)] for one in mechanisms)]
    tails = [_renyi(tuple(part), delta_error / (8 * sum(steps))) for part in parts]  # the width of the loss axis
    mesh = error / math.sqrt(sum(steps) * math.log(12 / delta_error) / 2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its integrals warn where they are merely loose
        domain = prv.Domain.create_aligned(-max(tails) - 3, max(tails) + 3, mesh)
        losses = [direction(one.rate, one.noise) for one in mechanisms]
        cut = [prv.TruncatedPrivacyRandomVariable(loss, domain.t_min, domain.t_max) for loss in losses]
        composed = prv.compose_heterogeneous([prv.discretize(one, domain) for one in cut], steps)
        low, _, high = composed.compute_epsilon(delta, delta_error, error)
    return low, high
