"""How well a score tells members from the holdout: ROC, AUC, true-positive rates, each with its patient bootstrap.

A score is one number per patient, larger for a member. It knows numbers and roles, not where a score comes from.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from fedsynth.evaluation.bootstrap import LEVEL

FALSE_POSITIVE_RATES = (0.1, 0.01, 0.001)
RESOLVED_BY = 10
"""A false-positive rate counts as resolved when so many holdout patients are expected beyond the threshold."""
AT_ONCE = 2**22


@dataclass(frozen=True, kw_only=True, eq=False)
class Curve:
    """The ROC of one score over patients: every threshold's false- and true-positive rate, from (0, 0) to (1, 1)."""

    false_positive: NDArray[np.float64]
    true_positive: NDArray[np.float64]


def roc(scores: NDArray[np.floating], members: NDArray[np.bool_]) -> Curve:
    """The ROC with a point per distinct score."""
    thresholds = np.unique(scores)[::-1]
    true = _share_at_least(scores[members], thresholds)
    false = _share_at_least(scores[~members], thresholds)
    return Curve(false_positive=np.concatenate([[0.0], false]), true_positive=np.concatenate([[0.0], true]))


def auc(scores: NDArray[np.floating], members: NDArray[np.bool_]) -> float:
    """The chance that a random member scores above a random holdout patient, ties counted half."""
    return float(aucs(scores, members[None])[0])


def aucs(scores: NDArray[np.floating], roles: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The AUC under every assignment of `roles` (n, patients)."""
    ranks = stats.rankdata(scores)
    members = roles.sum(axis=1)
    if not ((members > 0) & (members < roles.shape[1])).all():
        raise ValueError("an AUC needs members and holdout")
    above = roles @ ranks - members * (members + 1) / 2
    return np.asarray(above / (members * (roles.shape[1] - members)))


def auc_interval(
    scores: NDArray[np.floating],
    members: NDArray[np.bool_],
    rng: np.random.Generator,
    *,
    repeats: int = 1000,
    level: float = LEVEL,
) -> tuple[float, float]:
    """The percentile interval of the AUC when members and holdout patients are each drawn again."""
    values, place = np.unique(scores, return_inverse=True)
    drawn = []
    step = max(1, AT_ONCE // (len(values) + len(scores)))
    for start in range(0, repeats, step):
        n = min(step, repeats - start)
        member = _histograms(place[members], len(values), n, rng)
        other = _histograms(place[~members], len(values), n, rng)
        below = np.cumsum(other, axis=1) - 0.5 * other
        drawn.append((member * below).sum(axis=1) / (members.sum() * (~members).sum()))
    low, high = np.quantile(np.concatenate(drawn), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def resolvable(n_holdout: int, false_positive_rate: float) -> bool:
    """Whether so many holdout patients can carry a statement at this false-positive rate."""
    return n_holdout * false_positive_rate >= RESOLVED_BY - 1e-9


def true_positive_rate(scores: NDArray[np.floating], members: NDArray[np.bool_], false_positive_rate: float) -> float:
    """The share of members above the score that at most this share of the holdout exceeds."""
    holdout = np.sort(scores[~members])[::-1]
    allowed = min(int(false_positive_rate * len(holdout) + 1e-9), len(holdout) - 1)
    return float(np.mean(scores[members] > holdout[allowed]))


def true_positive_interval(
    scores: NDArray[np.floating],
    members: NDArray[np.bool_],
    false_positive_rate: float,
    rng: np.random.Generator,
    *,
    repeats: int = 1000,
    level: float = LEVEL,
) -> tuple[float, float]:
    """Its percentile interval when members and holdout patients are each drawn again, the threshold with them."""
    ours, others = np.sort(scores[members]), scores[~members]
    allowed = min(int(false_positive_rate * len(others) + 1e-9), len(others) - 1)
    drawn = np.empty(repeats)
    for repeat in range(repeats):
        again = rng.choice(others, len(others))
        threshold = np.partition(again, len(again) - 1 - allowed)[len(again) - 1 - allowed]
        above = len(ours) - np.searchsorted(ours, threshold, side="right")
        drawn[repeat] = rng.binomial(len(ours), above / len(ours)) / len(ours)  # drawing the members again
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _histograms(places: NDArray[np.intp], bins: int, n: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """`n` resamples of `places`, as counts per bin (n, bins)."""
    drawn = rng.integers(len(places), size=(n, len(places)))
    flat = places[drawn] + bins * np.arange(n)[:, None]
    return np.bincount(flat.ravel(), minlength=n * bins).reshape(n, bins).astype(np.float64)


def _share_at_least(values: NDArray[np.floating], thresholds: NDArray[np.floating]) -> NDArray[np.float64]:
    return 1 - np.searchsorted(np.sort(values), thresholds, side="left") / len(values)
