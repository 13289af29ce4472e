"""Bootstrap and exact intervals for shares and for anything else that is measured on patients.

A share's interval is Clopper and Pearson's, exact for independent trials. Images of one patient are not: what is
counted over images takes the bootstrap over patients.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import stats

LEVEL = 0.95
CONTROLS_LEVEL = 0.999
"""Controls void a report only beyond this bound: at 95 % five of them would void every fourth honest one."""


def clopper_pearson(hits: int, n: int, level: float = LEVEL) -> tuple[float, float]:
    """The two-sided interval of a share of which `hits` of `n` independent trials were seen."""
    if not 0 <= hits <= n or n < 1:
        raise ValueError(f"{hits} hits of {n} trials")
    half = (1 - level) / 2
    low = 0.0 if hits == 0 else float(stats.beta.ppf(half, hits, n - hits + 1))
    high = 1.0 if hits == n else float(stats.beta.isf(half, hits + 1, n - hits))
    return low, high


def zero_hit_bound(n: int, level: float = LEVEL) -> float:
    """The largest share that `n` trials without a hit leave standing: the upper end of the two-sided interval."""
    return clopper_pearson(0, n, level)[1]


def trials_for_bound(share: float, level: float = LEVEL) -> int:
    """The fewest trials whose `zero_hit_bound` is at most `share`."""
    if not 0 < share < 1:
        raise ValueError(f"a share between 0 and 1, not {share}")
    n = int(np.ceil(np.log((1 - level) / 2) / np.log1p(-share)))
    return n if zero_hit_bound(n, level) <= share else n + 1  # the logarithms may round to either side


def binomial_tail_bound(n: int, share: float, level: float = CONTROLS_LEVEL) -> int:
    """The largest number of hits in `n` trials that a true rate of `share` explains; more are a reason to object."""
    return int(stats.binom.ppf(level, n, share))


def patient_bootstrap(
    statistic: Callable[[NDArray[np.intp]], float],
    patients: NDArray[np.generic],
    rng: np.random.Generator,
    *,
    groups: NDArray[np.generic] | None = None,
    repeats: int = 1000,
    level: float = LEVEL,
) -> tuple[float, float]:
    """The percentile interval of `statistic` when whole patients are drawn again with replacement.

    `patients` names the patient of every row; `statistic` gets the rows that were drawn, repeated as drawn. Patients
    are drawn within `groups` (roles or sites; per row, one for all rows of a patient) where they are given. Draws of
    which the statistic is not finite are left out; the interval is (nan, nan) when they are more than a tenth.
    """
    named, patient_of = np.unique(patients, return_inverse=True)
    order = np.argsort(patient_of, kind="stable")
    rows_of = np.split(order, np.cumsum(np.bincount(patient_of, minlength=len(named)))[:-1])
    of_group = _groups_of_patients(rows_of, groups)
    drawn = [_finite(statistic(_draw(rows_of, of_group, rng))) for _ in range(repeats)]
    values = np.array([value for value in drawn if value is not None])
    if len(values) < 0.9 * repeats:
        return float("nan"), float("nan")
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _groups_of_patients(rows_of: list[NDArray[np.intp]], groups: NDArray[np.generic] | None) -> list[NDArray[np.intp]]:
    if groups is None:
        return [np.arange(len(rows_of))]
    if any(len(np.unique(groups[rows])) > 1 for rows in rows_of):
        raise ValueError("a patient lies in several groups")
    first = groups[[rows[0] for rows in rows_of]]
    return [np.flatnonzero(first == group) for group in np.unique(first)]


def _draw(
    rows_of: list[NDArray[np.intp]], of_group: list[NDArray[np.intp]], rng: np.random.Generator
) -> NDArray[np.intp]:
    chosen = np.concatenate([rng.choice(patients, len(patients)) for patients in of_group])
    return np.concatenate([rows_of[patient] for patient in chosen])


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
