"""Is any image a copy? A synthetic image that lies far nearer to one patient than to every other.

The ratio of the distances to the nearest and the second-nearest patient is compared with what real images reach against
everybody but their own patient: no copy can be among those. Where the second is far away, the usual distance between a
real image and the nearest other patient stands for it: what lies near a patient whom nobody resembles, but no nearer
than others are to each other, is no copy of him. Holdout patients cannot have been copied, so their own count is the
control. It reads tables of distances and knows no images.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from fedsynth.evaluation.memorization.alike_patients import alike_patients, persons
from fedsynth.evaluation.memorization.combined_evidence import (
    FEWEST_SPACES,
    TOGETHER,
    Scales,
    combine,
    combined_threshold,
    learn_scales,
)
from fedsynth.evaluation.memorization.ratios import (
    FLOOR,
    LEVEL,
    Threshold,
    nearest_persons,
    threshold_of,
    usual_distance,
)
from fedsynth.evaluation.nearest_neighbours import PatientDistances

__all__ = [
    "LEVEL",
    "Copies",
    "Reference",
    "Striking",
    "find_copies",
    "in_both_roles",
    "learn_reference",
    "most_striking",
    "with_equal",
    "without",
]

SMALLEST_COHORT = 10
BYTES = "bytes"
"""Stands for a space where an image is the same bytes as a patient's."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Copies:
    """The synthetic images that count as copies, (k,) each, the most striking first.

    `rows` are their numbers, `patients` whom they copy, `spaces` where it shows most and `ratios` how clearly there.
    `twins` are pairs of patients so alike that they may be one person; the two count as one.
    """

    rows: NDArray[np.int64]
    patients: NDArray[np.int64]
    spaces: tuple[str, ...]
    ratios: NDArray[np.float64]
    surprise: NDArray[np.float64]
    thresholds: Mapping[str, Threshold]
    twins: tuple[tuple[int, int], ...] = ()
    why: str = ""

    def of(self, chosen: NDArray[np.bool_]) -> int:
        """How many copy one of the `chosen` patients (one flag per patient)."""
        return int(chosen[self.patients].sum())


@dataclass(frozen=True, kw_only=True, eq=False)
class Reference:
    """What real images reach against all but their own patient, per space: thresholds, floors, usual depths.

    `person` numbers the persons behind the patients; `twins` are pairs of patients that count as one person.
    """

    thresholds: Mapping[str, Threshold]
    floors: Mapping[str, float]
    scales: Scales = field(repr=False)
    person: NDArray[np.int64] = field(repr=False)
    twins: tuple[tuple[int, int], ...] = ()
    why: str = ""


def learn_reference(
    real: Mapping[str, PatientDistances],
    owners: NDArray[np.integer],
    n_patients: int,
    n_synthetic: int,
    *,
    person: NDArray[np.int64] | None = None,
) -> Reference:
    """Thresholds from real images: `real` are their distances to all patients but their own, which `owners` names.

    `person` numbers the persons behind the patients where that is known already; otherwise alike patients are joined.
    A threshold is `MARGIN` of the smallest ratio, at most `HALF`, and lower where the tail of the ratios says that one
    of `n_synthetic` images would otherwise fall below it by chance in more than `LEVEL` of all sets.
    """
    usual = {space: usual_distance(table) for space, table in real.items()}
    floors = {space: FLOOR * distance for space, distance in usual.items()}
    why = "" if n_patients >= SMALLEST_COHORT else f"{n_patients} patients; at least {SMALLEST_COHORT} are needed"
    twins = set() if why or person is not None else alike_patients(real, usual, owners, n_patients)
    person = persons(twins, n_patients) if person is None else person
    near = nearest_persons(real, usual, person, apart_from=owners)
    scales = learn_scales(near, usual)
    together = len(real) >= FEWEST_SPACES
    # half of the level is for single spaces, half for all together
    n_comparisons = n_synthetic * (2 if together else 1)
    thresholds = {}
    for space, found in near.items():
        thresholds[space] = threshold_of(found.ratios, owners, n_comparisons * len(real))
    if together:
        depths = combine(near, scales, person).depths
        thresholds[TOGETHER] = combined_threshold(depths, owners, n_comparisons)
    return Reference(
        thresholds=thresholds, floors=floors, scales=scales, person=person, twins=tuple(sorted(twins)), why=why
    )


def find_copies(
    tables: Mapping[str, PatientDistances], reference: Reference, *, blank: NDArray[np.bool_] | None = None
) -> Copies:
    """The images of `tables` whose ratio lies below the threshold in any space; `blank` ones show nothing to copy."""
    seen = most_striking(tables, reference)
    copied = seen.copied if blank is None else seen.copied & ~blank
    rows = np.flatnonzero(copied & (reference.why == ""))
    rows = rows[np.argsort(-seen.surprise[rows], kind="stable")]
    names = [*tables, TOGETHER]
    shown = np.where(seen.together, len(tables), seen.spaces)
    return Copies(
        rows=rows,
        patients=seen.patients[rows],
        spaces=tuple(names[number] for number in shown[rows]),
        ratios=seen.ratios[rows],
        surprise=seen.surprise[rows],
        thresholds=reference.thresholds,
        twins=reference.twins,
        why=reference.why,
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class Striking:
    """Of every image (n,): whether it counts as a copy, and how near it comes to whom in the space that shows it most.

    `spaces` are numbers in the order of the tables. `together` says that all spaces together show the copy and none
    does alone: then the ratio is theirs, and the space the one that shows it most.
    """

    copied: NDArray[np.bool_]
    together: NDArray[np.bool_]
    patients: NDArray[np.int64]
    spaces: NDArray[np.int64]
    ratios: NDArray[np.float64]
    surprise: NDArray[np.float64]


def most_striking(tables: Mapping[str, PatientDistances], reference: Reference) -> Striking:
    """Every image in the space where its ratio is below the threshold, or else where it is most surprising."""
    n = len(next(iter(tables.values())).distances)
    surprise, ratios = np.full(n, -np.inf), np.ones(n)
    spaces, patients = np.zeros(n, np.int64), np.zeros(n, np.int64)
    copied = np.zeros(n, bool)
    everywhere = nearest_persons(tables, reference.scales.usual, reference.person)
    for number, (space, near) in enumerate(everywhere.items()):
        threshold = reference.thresholds[space]
        below = near.ratios < threshold.ratio
        found = threshold.surprise(near.ratios)
        better = (below & ~copied) | ((below == copied) & (found > surprise))
        spaces[better], surprise[better] = number, found[better]
        patients[better], ratios[better] = near.patients[better], near.ratios[better]
        copied |= below
    together = np.zeros(n, bool)
    if TOGETHER in reference.thresholds:
        seen, threshold = combine(everywhere, reference.scales, reference.person), reference.thresholds[TOGETHER]
        found = np.exp(-seen.depths)
        together = (found < threshold.ratio) & ~copied
        patients[together], spaces[together] = seen.patients[together], seen.spaces[together]
        ratios[together], surprise[together] = found[together], threshold.surprise(found[together])
        copied |= together
    return Striking(
        copied=copied, together=together, patients=patients, spaces=spaces, ratios=ratios, surprise=surprise
    )


def with_equal(copies: Copies, equal: Sequence[tuple[int, int]]) -> Copies:
    """The copies and those images that are the same bytes as a patient's, (row, patient), whatever the spaces say."""
    known = dict(equal)
    others = [number for number, row in enumerate(copies.rows.tolist()) if row not in known]
    return replace(
        copies,
        rows=np.array([*known, *copies.rows[others].tolist()], np.int64),
        patients=np.array([*known.values(), *copies.patients[others].tolist()], np.int64),
        spaces=(BYTES,) * len(known) + tuple(copies.spaces[number] for number in others),
        ratios=np.concatenate([np.zeros(len(known)), copies.ratios[others]]),
        surprise=np.concatenate([np.full(len(known), np.inf), copies.surprise[others]]),
    )


def in_both_roles(person: NDArray[np.int64], member: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Of every patient whether his person, or who looks like him, stands among members and holdout both.

    For them the roles decide nothing: their images count neither as copies of members nor as the control.
    """
    return np.isin(person, np.intersect1d(person[member], person[~member]))


def without(copies: Copies, apart: NDArray[np.bool_]) -> Copies:
    """The copies of all but the patients `apart`; what is the same bytes as an image of theirs stays."""
    kept = ~apart[copies.patients] | (np.array(copies.spaces, dtype=object) == BYTES)
    return replace(
        copies,
        rows=copies.rows[kept],
        patients=copies.patients[kept],
        spaces=tuple(space for space, chosen in zip(copies.spaces, kept, strict=True) if chosen),
        ratios=copies.ratios[kept],
        surprise=copies.surprise[kept],
    )
