"""Controls of membership attacks: where nothing was released about anybody, an attack must single out nobody.

Half of the holdout takes the synthetic set's place and members are compared with the other half; and members are split
at random and compared with each other. Each is repeated.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedsynth.benchmark.leakage.blind import centred_by_site
from fedsynth.benchmark.leakage.cohort import Cohort
from fedsynth.benchmark.leakage.curves import aucs
from fedsynth.benchmark.leakage.statistics.permutation import min_p, permute_roles

PERMUTATIONS = 999
LEVEL = 0.01
"""One honest report in a hundred is voided for nothing."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Control:
    """Scores (repeats, patients), not a number for those not asked, and who counts as a member: once or per repeat."""

    scores: NDArray[np.float64]
    member: NDArray[np.bool_]

    def repeat(self, number: int) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Scores and roles of one repeat."""
        return self.scores[number], self.member if self.member.ndim == 1 else self.member[number]


def random_halves(
    among: NDArray[np.bool_], strata: NDArray[np.int64], n: int, rng: np.random.Generator
) -> NDArray[np.bool_]:
    """`n` random halves of the patients `among`, each about half of every stratum; none where there are too few."""
    if among.sum() < 4:
        return np.zeros((0, len(among)), bool)
    chosen = np.zeros((n, len(among)), bool)
    for half in chosen:
        mixed = rng.permutation(np.flatnonzero(among))
        ordered = mixed[np.argsort(strata[mixed], kind="stable")]
        half[ordered[rng.integers(2) :: 2]] = True
    return chosen


def control_aucs(
    controls: Mapping[str, Control], cohort: Cohort, rng: np.random.Generator
) -> tuple[dict[str, NDArray[np.float64]], float]:
    """AUCs of every repeat, and one p-value for all: are they off 0.5, in either direction, more than redrawn roles?

    Repeats share patients, so their p-values are not independent and a binomial bound on how many fire would not hold.
    Twice their mean is a p-value whatever their dependence (Rüschendorf 1982); it is small only when nearly every
    repeat is, as it is where an attack is broken.
    """
    found: dict[str, list[float]] = {label: [] for label in controls}
    repeats = min((len(control.scores) for control in controls.values()), default=0)
    p_values = []
    for number in range(repeats):
        seed = int(rng.integers(2**62))  # all attacks of a repeat are judged under the same redrawn roles
        off = []
        for label, control in controls.items():
            reached = _reached(*control.repeat(number), cohort, np.random.default_rng(seed))
            found[label].append(float(reached[0]))
            off.append(np.abs(reached - 0.5))
        table = np.column_stack(off)
        p_values.append(min_p(table[0], table[1:]))
    p_value = min(1.0, 2 * float(np.mean(p_values))) if p_values else 1.0
    return {label: np.array(values) for label, values in found.items()}, p_value


def _reached(
    scores: NDArray[np.float64], member: NDArray[np.bool_], cohort: Cohort, rng: np.random.Generator
) -> NDArray[np.float64]:
    """The AUC among those who are asked, and under each redrawing of their roles."""
    asked = np.isfinite(scores)
    roles = permute_roles(member[asked], cohort.stratum[asked], PERMUTATIONS, rng)
    centred = centred_by_site(scores[asked], cohort.site[asked])
    return aucs(centred, np.vstack([member[asked][None], roles]))
