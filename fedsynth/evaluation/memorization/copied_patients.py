"""Who was copied, and how much: a list of patients with a stated rate of false discoveries, and the copied share.

Holdout patients cannot have been copied, so they say how many of the flagged would be there by chance. It reads tables
of distances and knows no images.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedsynth.evaluation.bootstrap import clopper_pearson, patient_bootstrap
from fedsynth.evaluation.cohort import Cohort
from fedsynth.evaluation.memorization.replication import Copies, Reference
from fedsynth.evaluation.multiple_testing import conformal_p, fewest_discoveries, smallest_p, target_decoy
from fedsynth.evaluation.nearest_neighbours import PatientDistances
from fedsynth.evaluation.score import Score

RATE = 0.1
REPEATS = 1000


@dataclass(frozen=True, kw_only=True, eq=False)
class FlaggedPatients:
    """The members that stand out above the holdout, by site, with the false-discovery rate of each site's list.

    `scores` tell of every patient how much nearer the output comes to him than other patients do, in units of how much
    patients differ in that. `shortest` is the smallest number that a list could have, None where it must stay empty.
    """

    by_site: Mapping[str, tuple[str, ...]]
    shortest: Mapping[str, int | None]
    scores: NDArray[np.float64]
    rate: float


def flag_patients(
    tables: Mapping[str, PatientDistances],
    real: Mapping[str, PatientDistances],
    owners: NDArray[np.integer],
    reference: Reference,
    cohort: Cohort,
    *,
    rate: float = RATE,
) -> FlaggedPatients:
    """Each site's members whom the output comes strikingly near to, at the false-discovery `rate`."""
    scores = patient_scores(tables, real, owners, reference, len(cohort))
    by_site, shortest = {}, {}
    for number, site in enumerate(cohort.sites):
        here = np.flatnonzero(cohort.site == number)
        member = cohort.member[here]
        shortest[site] = fewest_discoveries(int(member.sum()), int((~member).sum()), rate) if member.any() else None
        chosen = here[target_decoy(scores[here], member, rate)] if member.any() and not member.all() else here[:0]
        ranked = chosen[np.argsort(-scores[chosen], kind="stable")]
        by_site[site] = tuple(cohort.names[patient] for patient in ranked)
    return FlaggedPatients(by_site=by_site, shortest=shortest, scores=scores, rate=rate)


def patient_scores(
    tables: Mapping[str, PatientDistances],
    real: Mapping[str, PatientDistances],
    owners: NDArray[np.integer],
    reference: Reference,
    n_patients: int,
) -> NDArray[np.float64]:
    """Of every patient: log of the distance to the nearest other patient over that to the nearest synthetic image.

    Standardised over all patients in each space, blind to roles, and the largest of the spaces.
    """
    best = np.full(n_patients, -np.inf)
    for space, table in tables.items():
        floor = reference.floors[space]
        to_output = _smallest(table.distances, table.patients, n_patients)
        own = np.repeat(owners[:, None], 1, axis=1)
        to_others = _smallest(real[space].distances[:, :1], own, n_patients)
        ratio = np.log(np.maximum(to_others, floor)) - np.log(np.maximum(to_output, floor))
        known = np.isfinite(ratio)
        if not known.any():
            continue
        middle = np.median(ratio[known])
        spread = np.median(np.abs(ratio[known] - middle)) * 1.4826
        standard = (ratio - middle) / max(spread, 1e-6)
        best = np.maximum(best, np.where(known, standard, -np.inf))
    return best


def copied_share(copies: Copies, cohort: Cohort, n_synthetic: int, *, seed: int, distinct: int | None = None) -> Score:
    """The share of the output that copies members, less what the holdout says is there by chance.

    The interval is the bootstrap over copied patients, and never narrower than the binomial one of the images, of
    which only `distinct` differ: an image that is handed in five times is looked at once.
    """
    looked_at = n_synthetic if distinct is None else distinct
    members, holdout = copies.of(cohort.member), copies.of(~cohort.member)
    expected = holdout * cohort.n_members / cohort.n_holdout
    value = max(0.0, members - expected) / n_synthetic
    low, high = clopper_pearson(int(np.ceil(members * looked_at / n_synthetic)), looked_at)
    if members + holdout > 0:
        weight = np.where(cohort.member, 1.0, -cohort.n_members / cohort.n_holdout)
        per_patient = np.bincount(copies.patients, minlength=len(cohort)) * weight
        rng = np.random.default_rng([seed, *b"share"])
        found = patient_bootstrap(
            lambda rows: float(per_patient[rows].sum()) / n_synthetic,
            np.arange(len(cohort)),
            rng,
            groups=cohort.member,
            repeats=REPEATS,
        )
        low, high = min(low, found[0]), max(high, found[1])
        low -= expected / n_synthetic
    return Score(
        value=value,
        low=max(0.0, low),
        high=min(1.0, high),
        baseline=0.0,
        control=holdout / n_synthetic,
        n=n_synthetic,
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class Annotation:
    """The conformal p-value of every synthetic image, and the smallest that so many holdout patients allow."""

    p: NDArray[np.float64]
    smallest: float


def annotate(
    table: PatientDistances, real: PatientDistances, owners: NDArray[np.integer], cohort: Cohort
) -> Annotation:
    """How unusual it is for an image to lie so near to a member, against one image of each holdout patient."""
    near = _to_nearest_member(table, cohort)
    own = _to_nearest_member(real, cohort)
    held = [int(rows[len(rows) // 2]) for rows in _rows_of(owners, np.flatnonzero(~cohort.member))]
    return Annotation(p=conformal_p(-near, -own[held]), smallest=smallest_p(len(held)))


def _to_nearest_member(table: PatientDistances, cohort: Cohort) -> NDArray[np.float64]:
    """Where a row of the table has no member, its last distance."""
    known = table.patients >= 0
    is_member = known & cohort.member[table.patients]
    first = np.where(is_member.any(axis=1), np.argmax(is_member, axis=1), known.sum(axis=1) - 1)
    found: NDArray[np.float64] = np.take_along_axis(table.distances, first[:, None], axis=1)[:, 0].astype(float)
    return found


def _rows_of(owners: NDArray[np.integer], patients: NDArray[np.integer]) -> list[NDArray[np.intp]]:
    return [np.flatnonzero(owners == patient) for patient in patients]


def _smallest(distances: NDArray[np.floating], patients: NDArray[np.integer], n_patients: int) -> NDArray[np.float64]:
    """The smallest distance that stands beside each patient; infinite where none does."""
    found = np.full(n_patients, np.inf)
    known = patients.ravel() >= 0
    np.minimum.at(found, patients.ravel()[known], distances.ravel()[known].astype(float))
    return found
