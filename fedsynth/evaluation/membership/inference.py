"""Membership inference per patient: can members be told from the holdout by what was released?

Every attack is blind to roles, so that roles redrawn within the strata of their draw give its exact null. Beside each
stand the controls of `honest.py` and `blind.py`. It measures on features and scores; the verdict and the form of the
result are made elsewhere.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedsynth.data.lazy_arrays import Stack
from fedsynth.evaluation.blind_baseline import Blind, blind_baseline, centred_by_site
from fedsynth.evaluation.cohort import Cohort
from fedsynth.evaluation.membership.attacks import Attacked, Targets, attack_by_density, attack_by_distance
from fedsynth.evaluation.permutation_test import assignments, marginal_p, min_p, permute_roles
from fedsynth.evaluation.roc import aucs
from fedsynth.evaluation.settings import MembershipSettings

# Controls of membership attacks: where nothing was released about anybody, an attack must single out nobody.
#
# Half of the holdout takes the synthetic set's place and members are compared with the other half; and members are
# split at random and compared with each other. Each is repeated.


CONTROL_PERMUTATIONS = 999
CONTROL_LEVEL = 0.01
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

    Repeats share patients, so their p-values are not independent and a binomial bound on how many reject would not
    hold. Twice their mean is a p-value whatever their dependence (Rüschendorf 1982); it is small only when nearly every
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
    roles = permute_roles(member[asked], cohort.stratum[asked], CONTROL_PERMUTATIONS, rng)
    centred = centred_by_site(scores[asked], cohort.site[asked])
    return aucs(centred, np.vstack([member[asked][None], roles]))


LEVEL = 0.05
Z_POWER = 0.8416
"""80 % of a normal distribution lie below it."""
DISCRIMINATOR = "discriminator"
DENSITY_SPACE = "components"


@dataclass(frozen=True, kw_only=True, eq=False)
class Released:
    """One feature space: real and synthetic images, and where given the reference set that calibrates distances.

    `turned` gives further views of the real images.
    """

    real: Stack
    synthetic: Stack
    reference: Stack | None = None
    turned: Callable[[], Iterable[Stack]] = tuple


@dataclass(frozen=True, kw_only=True, eq=False)
class Attack:
    """One attack: scores (patients) less their site's mean, and its p-value taken alone.

    `honest` and `among_members` hold its AUCs in the repeats of two controls; they must lie about 0.5.
    """

    label: str
    scores: NDArray[np.float64]
    p_value: float
    honest: NDArray[np.float64]
    among_members: NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Membership:
    """All attacks on one release with their joint p-value, and what the controls say.

    `honest_p` and `members_p` are p-values of the controls: small ones mean that the attacks single out patients where
    nothing was released about them. `resolvable_auc` is the smallest AUC that would be found four times in five.
    """

    cohort: Cohort
    attacks: tuple[Attack, ...]
    blind: Blind
    p_value: float
    honest_p: float
    members_p: float
    resolvable_auc: float
    permutations: int


def infer_membership(
    spaces: Mapping[str, Released],
    cohort: Cohort,
    patients: NDArray[np.int64],
    facts: NDArray[np.floating],
    *,
    seed: int,
    discriminator: NDArray[np.floating] | None = None,
    halves: int = MembershipSettings.halves,
    permutations: int = MembershipSettings.permutations,
) -> Membership:
    """Attack every patient of `cohort` in every space.

    `patients` numbers the patient of each real image, `facts` (patients, d) is what the blind baseline looks at, and
    `discriminator` holds a score per real image that somebody with the trained networks computed, larger for members.
    P-values mean something only where the cohort's roles were drawn at random.
    """
    rng = np.random.default_rng([seed, *b"membership"])
    released = random_halves(~cohort.member, cohort.stratum, halves, rng)
    found = _attack(spaces, patients, released, seed)
    honest = {label: Control(scores=attacked.honest, member=cohort.member) for label, attacked in found.items()}
    on_honest, honest_p = control_aucs(honest, cohort, rng)
    if discriminator is not None:
        found[DISCRIMINATOR] = _discriminator(discriminator, patients, cohort, released)
        # It looks at no set: one half of the holdout against the other, shown beside it and not tested.
        control = Control(scores=found[DISCRIMINATOR].honest, member=released)
        on_honest |= control_aucs({DISCRIMINATOR: control}, cohort, rng)[0]
    scores = {label: centred_by_site(attacked.scores, cohort.site) for label, attacked in found.items()}
    among, members_p = _split_members(scores, cohort, halves, rng)
    observed, null = _redrawn(scores, cohort, permutations, rng)
    single = dict(zip(scores, marginal_p(observed, null).tolist(), strict=True))
    return Membership(
        cohort=cohort,
        attacks=tuple(
            Attack(
                label=label,
                scores=values,
                p_value=single[label],
                honest=on_honest[label],
                among_members=among[label],
            )
            for label, values in scores.items()
        ),
        blind=blind_baseline(facts, cohort, seed=seed),
        p_value=min_p(observed, null),
        honest_p=honest_p,
        members_p=members_p,
        resolvable_auc=_resolvable(null, cohort),
        permutations=permutations,
    )


def _attack(
    spaces: Mapping[str, Released], patients: NDArray[np.int64], released: NDArray[np.bool_], seed: int
) -> dict[str, Attacked]:
    """Distances in every space, densities in one."""
    found: dict[str, Attacked] = {}
    density_space = DENSITY_SPACE if DENSITY_SPACE in spaces else next(iter(spaces))
    for space, shown in spaces.items():
        targets = Targets(
            features=shown.real,
            patients=patients,
            n_patients=released.shape[1],
            released=released,
            turned=shown.turned,
        )
        attacked = attack_by_distance(targets, shown.synthetic, shown.reference)
        if space == density_space:
            attacked |= attack_by_density(targets, shown.synthetic, seed=seed)
        found |= {f"{name}@{space}": values for name, values in attacked.items()}
    return found


def _discriminator(
    per_image: NDArray[np.floating], patients: NDArray[np.int64], cohort: Cohort, released: NDArray[np.bool_]
) -> Attacked:
    scores = np.bincount(patients, weights=per_image, minlength=len(cohort)) / np.bincount(patients)
    holdout_only = np.where(cohort.member, np.nan, scores)
    return Attacked(scores=scores, honest=np.tile(holdout_only, (len(released), 1)))


def _split_members(
    scores: Mapping[str, NDArray[np.float64]], cohort: Cohort, n: int, rng: np.random.Generator
) -> tuple[dict[str, NDArray[np.float64]], float]:
    """The same scores, random halves of the members against each other."""
    halves = random_halves(cohort.member, cohort.stratum, n, rng)
    asked = {
        label: Control(scores=np.tile(np.where(cohort.member, values, np.nan), (len(halves), 1)), member=halves)
        for label, values in scores.items()
    }
    return control_aucs(asked, cohort, rng)


def _redrawn(
    scores: Mapping[str, NDArray[np.float64]], cohort: Cohort, n: int, rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The AUC of every attack, (attacks,), and under redrawn roles, (n, attacks).

    Only of patients whose stratum has both roles: nothing can be learnt from the others, and their fixed roles would
    make the test look sharper than it is.
    """
    asked = _in_mixed_strata(cohort)
    if not asked.any():
        return np.full(len(scores), 0.5), np.full((n, len(scores)), 0.5)
    member = cohort.member[asked]
    roles = np.vstack([member[None], permute_roles(member, cohort.stratum[asked], n, rng)])
    reached = np.column_stack([aucs(values[asked], roles) for values in scores.values()])
    return reached[0], reached[1:]


def _in_mixed_strata(cohort: Cohort) -> NDArray[np.bool_]:
    members = np.bincount(cohort.stratum[cohort.member], minlength=cohort.stratum.max() + 1)
    others = np.bincount(cohort.stratum[~cohort.member], minlength=cohort.stratum.max() + 1)
    return ((members > 0) & (others > 0))[cohort.stratum]


def _resolvable(null: NDArray[np.float64], cohort: Cohort) -> float:
    """The smallest AUC that the joint test at 5 % finds with 80 % power, by its own null; 1 where it cannot reject."""
    spread = float(null.std(axis=0).max())
    if assignments(cohort.member, cohort.stratum) < 1 / LEVEL or spread < 1e-9:
        return 1.0
    critical = float(np.quantile(null.max(axis=1), 1 - LEVEL))
    return min(1.0, critical + Z_POWER * spread)
