"""Lower bounds on epsilon from canaries that a fair coin put into training or left out.

A bound above the claimed epsilon refutes the claim. One below it proves nothing: so many canaries cannot show more
than their `ceiling`, whatever was trained.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtr, bdtrc

from fedsynth.evaluation.bootstrap import LEVEL

SHARES_GUESSED = (0.05, 0.1, 0.25, 0.5, 1.0)
"""The shares of the canaries on which guesses are made; fixed before any score is seen, and corrected for."""
_LARGEST_EPSILON = 60.0
_TOLERANCE = 1e-6


@dataclass(frozen=True, kw_only=True)
class EpsilonBound:
    """A lower bound, the guesses (of so many canaries, so many right) that gave it, and what perfect ones would."""

    epsilon: float
    ceiling: float
    canaries: int
    guesses: int
    right: int


def one_run_p(epsilon: float, *, canaries: int, guesses: int, right: int, delta: float) -> float:
    """How likely at least `right` of `guesses` are right by chance under (epsilon, delta)-privacy, at most.

    Steinke, Nasr and Jagielski 2023 (arXiv 2305.08846), theorem 5.2: W right guesses of r on m canaries, each included
    by a fair coin, satisfy P[W >= v] <= beta + 2 m delta alpha with beta = P[B >= v], B ~ Bin(r, e^eps / (1 + e^eps)),
    and alpha = max_i P[v > B >= v - i] / i.
    """
    if not 0 <= right <= guesses <= canaries or not 0 <= delta <= 1 or epsilon < 0:
        raise ValueError(f"{right} right of {guesses} guesses on {canaries} canaries at ({epsilon}, {delta})")
    if right == 0:
        return 1.0
    share = 1 / (1 + np.exp(-epsilon))
    beta = bdtrc(right - 1, guesses, share)
    at_most = bdtr(np.arange(right), guesses, share)  # P[B <= 0], ..., P[B <= v - 1]
    below = at_most[-1] - np.append(at_most[-2::-1], 0.0)  # P[v > B >= v - i], i = 1, ..., v
    alpha = np.max(below / np.arange(1, right + 1))
    return float(min(1.0, beta + 2 * canaries * delta * alpha))


def one_run_bound(*, canaries: int, guesses: int, right: int, delta: float, level: float = LEVEL) -> float:
    """The largest epsilon that so many right guesses refute at `level`; how many are guessed is fixed beforehand."""

    def refuted(epsilon: float) -> bool:
        return one_run_p(epsilon, canaries=canaries, guesses=guesses, right=right, delta=delta) < 1 - level

    if not refuted(0.0):
        return 0.0
    low, high = 0.0, _LARGEST_EPSILON
    while high - low > _TOLERANCE:
        middle = (low + high) / 2
        low, high = (middle, high) if refuted(middle) else (low, middle)
    return low


def ceiling(canaries: int, delta: float, level: float = LEVEL, comparisons: int = 1) -> float:
    """The bound that a perfect attack on so many canaries would give: no audit of them can show more.

    It guesses on all of them; guessing only on those included (half) reaches what guessing on half as many reaches.
    """
    level = corrected_level(level, comparisons)
    return one_run_bound(canaries=canaries, guesses=canaries, right=canaries, delta=delta, level=level)


def corrected_level(level: float, comparisons: int) -> float:
    """The level of each of `comparisons` bounds (sites, views, numbers of guesses) so that all hold together at
    `level`.
    """
    return 1 - (1 - level) / max(comparisons, 1)


def count_right(
    scores: NDArray[np.floating], included: NDArray[np.bool_], guesses: int, rng: np.random.Generator
) -> int:
    """Right guesses when the highest scores are guessed included, the lowest left out; ties are broken at random.

    At random, because an order of canaries that has to do with the coin would otherwise be an oracle.
    """
    shuffled = rng.permutation(len(scores))
    order = shuffled[np.argsort(np.asarray(scores, float)[shuffled], kind="stable")]
    lowest = guesses // 2
    highest = guesses - lowest
    return int((~included[order[:lowest]]).sum() + included[order[len(order) - highest :]].sum())


def best_bound(
    scores: NDArray[np.floating],
    included: NDArray[np.bool_],
    *,
    delta: float,
    rng: np.random.Generator,
    level: float = LEVEL,
    comparisons: int = 1,
    shares: Sequence[float] = SHARES_GUESSED,
) -> EpsilonBound:
    """The best one-run bound over fixed numbers of guesses, corrected for trying them and for `comparisons` such
    audits.

    `scores` (m,) are larger for canaries that look included; `comparisons` counts the sites and views that are tried.
    """
    if np.isnan(scores).any():
        raise ValueError("a canary's score is not a number")
    m = len(scores)
    numbers = sorted({max(1, round(share * m)) for share in shares})
    comparisons *= len(numbers)
    highest = ceiling(m, delta, level, comparisons=comparisons)
    level = corrected_level(level, comparisons)
    found = []
    for guesses in numbers:
        right = count_right(scores, included, guesses, rng)
        epsilon = one_run_bound(canaries=m, guesses=guesses, right=right, delta=delta, level=level)
        found.append(EpsilonBound(epsilon=epsilon, ceiling=highest, canaries=m, guesses=guesses, right=right))
    return max(found, key=lambda bound: bound.epsilon)
