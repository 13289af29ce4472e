"""The exact test of dependence: patients' roles, permuted within the strata in which they were drawn.

Given how many patients of a stratum are members, every choice of them was equally likely when the roles were drawn. So
the observed roles and any number of permuted ones are exchangeable as long as the output does not depend on the roles,
whatever the output looks like, and a rank among them is an exact p-value.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from scipy.special import gammaln


def permute_roles(
    members: NDArray[np.bool_], strata: NDArray[np.generic], n: int, rng: np.random.Generator
) -> NDArray[np.bool_]:
    """`n` redrawn roles, (n, patients): per stratum as many members as `members` (one flag per patient) has there."""
    drawn = np.empty((n, len(members)), bool)
    for stratum in np.unique(strata):
        inside = np.flatnonzero(strata == stratum)
        drawn[:, inside] = rng.permuted(np.tile(members[inside], (n, 1)), axis=1)
    return drawn


def marginal_p(observed: NDArray[np.floating], null: NDArray[np.floating]) -> NDArray[np.float64]:
    """The one-sided p-value of every statistic (k,) among its permuted values (B, k): large values are evidence."""
    return np.asarray(_share_at_least(_rows(observed, null))[0], float)


def min_p(observed: NDArray[np.floating], null: NDArray[np.floating]) -> float:
    """The joint p-value of k statistics: the rank of the smallest marginal p-value among those of the permuted rows.

    The observed row is one of the B + 1 among which all p-values are ranked, its own and the others' alike. Only so
    are the B + 1 smallest p-values exchangeable under the null, which makes the result exact for every B and for any
    dependence between the statistics.
    """
    smallest = _share_at_least(_rows(observed, null)).min(axis=1)
    return float(np.mean(smallest <= smallest[0]))


def assignments(members: NDArray[np.bool_], strata: NDArray[np.generic]) -> float:
    """How many different choices of members the strata allow (infinite beyond floating point): 1 / it bounds p."""
    log = sum(_log_binomial(n, m) for n, m in _sizes(members, strata))
    return float(np.exp(log)) if log < 700 else float("inf")


def fewest_patients(
    members: NDArray[np.bool_],
    strata: NDArray[np.generic],
    alpha: float = 0.05,
    *,
    placed: Literal["best", "worst"] = "best",
) -> int | None:
    """The smallest number of copied members for which the test can be sure to reject, however often they are copied.

    Redrawn roles make all K of them members again with the probability prod C(n - k, m - k) / C(n, m) over strata of n
    patients, m members and k copied ones, and these draws look like the observed roles: only who else lies near tells
    them apart. While that is above `alpha`, a rejection is luck, of `highest_power`. `placed` says whether the K lie in
    the strata where it is smallest (with fewer it is always luck) or largest (any K will do). None where no number
    does.
    """
    enough = np.flatnonzero(_log_again(members, strata, placed) <= np.log(alpha) + 1e-12)
    return int(enough[0]) if len(enough) else None


def highest_power(members: NDArray[np.bool_], strata: NDArray[np.generic], copied: int, alpha: float = 0.05) -> float:
    """How often the test rejects at `alpha` at most when `copied` members are copied and nothing else depends on roles.

    Given that they are members, all other roles are as drawn: p is uniform up to the chance that a redraw makes them
    members again, or larger. The strata are those most favourable.
    """
    log = _log_again(members, strata, "best")
    if copied >= len(log):
        raise ValueError(f"{copied} copied members of {len(log) - 1}")
    return float(min(1.0, alpha / np.exp(log[copied])))


def _log_again(
    members: NDArray[np.bool_], strata: NDArray[np.generic], placed: Literal["best", "worst"]
) -> NDArray[np.float64]:
    """Log of the chance that a redraw makes K copied members (0, 1, ...) members again, over all ways to place them."""
    sizes = _sizes(members, strata)
    pick = np.fmin if placed == "best" else np.fmax
    start = np.inf if placed == "best" else -np.inf
    reached = np.zeros(1)
    for n, m in sizes:
        here = np.array([_log_binomial(n - k, m - k) - _log_binomial(n, m) for k in range(m + 1)])
        joined = np.full(len(reached) + m, start)
        for k, log in enumerate(here):
            span = slice(k, k + len(reached))
            joined[span] = pick(joined[span], reached + log)
        reached = joined
    return reached


def _rows(observed: NDArray[np.floating], null: NDArray[np.floating]) -> NDArray[np.float64]:
    rows = np.vstack([np.asarray(observed, float)[None], np.asarray(null, float)])
    if not np.isfinite(rows).all():
        raise ValueError("a statistic of the permutation test is not finite")
    return rows


def _share_at_least(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(stats.rankdata(-rows, method="max", axis=0)) / len(rows)


def _sizes(members: NDArray[np.bool_], strata: NDArray[np.generic]) -> list[tuple[int, int]]:
    found = [members[strata == stratum] for stratum in np.unique(strata)]
    return [(len(inside), int(inside.sum())) for inside in found]


def _log_binomial(n: int, k: int) -> float:
    return float(gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1))


def joint_p(values: NDArray[np.float64]) -> float:
    """The rank of the first row (rows, k) by its smallest marginal p-value, ties broken by the mean logarithm of all.

    With many statistics and few rows, several rows hold the smallest p-value there can be, each in another statistic:
    left tied, a leak that shows in some statistics only could never reject. All rows are ranked alike, as in `min_p`,
    so the result is exact.
    """
    return float(_joint_ranks(values)[0])


def joint_p_of_groups(groups: Sequence[NDArray[np.float64]], weights: Sequence[float]) -> float:
    """The joint p-value of several groups of statistics, (rows, k) each, of which none is diluted by a larger one.

    Each row gets its joint p-value in every group, divided by the group's weight, and counts by the smallest; ties are
    broken by the mean logarithm. All rows are ranked alike, so the result is exact for any weights.
    """
    p = np.stack([_joint_ranks(values) / weight for values, weight in zip(groups, weights, strict=True)], axis=1)
    return float(_ranks(np.log(p.min(axis=1)) + 1e-4 * np.log(p).mean(axis=1))[0])


def _joint_ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of every row its joint p-value: how many rows are as extreme."""
    p = stats.rankdata(-values, method="max", axis=0) / len(values)
    return _ranks(np.log(p.min(axis=1)) + 1e-4 * np.log(p).mean(axis=1))


def _ranks(keys: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.searchsorted(np.sort(keys), keys + 1e-12, side="right") / len(keys)
