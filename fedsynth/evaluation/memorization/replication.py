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

from fedsynth.evaluation.nearest_neighbours import PatientDistances

MARGIN = 0.8
"""A ratio is extreme below this share of the smallest that a real image reaches."""
HALF = 0.5
"""Nor is one above this: a copy lies at least twice as near to one person as to any other. Small cohorts hold too few
extremes for their tail to show how far it reaches."""
LEVEL = 0.01
"""The chance that any of the synthetic images falls below the thresholds of all spaces together by chance."""
SMALLEST_COHORT = 10
TAIL = 0.1
FEWEST_IN_TAIL = 10
FLOOR = 1e-3
"""Distances below this share of the usual one to another patient count as no distance."""


@dataclass(frozen=True, kw_only=True)
class Threshold:
    """Below which ratio an image counts as a copy, from the leave-one-patient-out ratios of real images.

    `scale` is the mean of the tail of -log(ratio) beyond `start`, the share `beyond` of all real images.
    """

    ratio: float
    smallest_real: float
    start: float
    scale: float
    beyond: float

    def surprise(self, ratios: NDArray[np.floating]) -> NDArray[np.float64]:
        """-log of the chance that a real image's ratio is as small, by the tail; comparable between spaces."""
        depth = np.maximum(-np.log(np.maximum(ratios, 1e-30)) - self.start, 0)
        return np.asarray(depth / self.scale - np.log(self.beyond))


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
    """What real images reach against all but their own patient, per space: thresholds, floors, usual distances.

    `person` numbers the persons behind the patients; `twins` are pairs of patients that count as one person.
    """

    thresholds: Mapping[str, Threshold]
    floors: Mapping[str, float]
    usual: Mapping[str, float]
    person: NDArray[np.int64] = field(repr=False)
    twins: tuple[tuple[int, int], ...] = ()
    why: str = ""


def learn_reference(
    real: Mapping[str, PatientDistances], owners: NDArray[np.integer], n_patients: int, n_synthetic: int
) -> Reference:
    """Thresholds from real images: `real` are their distances to all patients but their own, which `owners` names.

    A threshold is `MARGIN` of the smallest ratio, at most `HALF`, and lower where the tail of the ratios says that one
    of `n_synthetic` images would otherwise fall below it by chance in more than `LEVEL` of all sets.
    """
    usual = {space: usual_distance(table) for space, table in real.items()}
    floors = {space: FLOOR * distance for space, distance in usual.items()}
    why = "" if n_patients >= SMALLEST_COHORT else f"{n_patients} patients; at least {SMALLEST_COHORT} are needed"
    twins = set() if why else {pair for space in real for pair in _twins(real[space], usual[space], owners)}
    person = _persons(twins, n_patients)
    thresholds = {}
    for space, table in real.items():
        ratios = nearest_two(table, usual[space], person, apart_from=owners).ratios
        thresholds[space] = _threshold(ratios, owners, n_synthetic * len(real))
    return Reference(
        thresholds=thresholds, floors=floors, usual=usual, person=person, twins=tuple(sorted(twins)), why=why
    )


def find_copies(
    tables: Mapping[str, PatientDistances], reference: Reference, *, blank: NDArray[np.bool_] | None = None
) -> Copies:
    """The images of `tables` whose ratio lies below the threshold in any space; `blank` ones show nothing to copy."""
    seen = most_striking(tables, reference)
    copied = seen.copied if blank is None else seen.copied & ~blank
    rows = np.flatnonzero(copied & (reference.why == ""))
    rows = rows[np.argsort(-seen.surprise[rows], kind="stable")]
    names = list(tables)
    return Copies(
        rows=rows,
        patients=seen.patients[rows],
        spaces=tuple(names[number] for number in seen.spaces[rows]),
        ratios=seen.ratios[rows],
        surprise=seen.surprise[rows],
        thresholds=reference.thresholds,
        twins=reference.twins,
        why=reference.why,
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class Striking:
    """Of every image (n,): whether it counts as a copy, and how near it comes to whom in the space that shows it most.

    `spaces` are numbers in the order of the tables.
    """

    copied: NDArray[np.bool_]
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
    for number, (space, table) in enumerate(tables.items()):
        threshold = reference.thresholds[space]
        near = nearest_two(table, reference.usual[space], reference.person)
        below = near.ratios < threshold.ratio
        found = threshold.surprise(near.ratios)
        better = (below & ~copied) | ((below == copied) & (found > surprise))
        spaces[better], surprise[better] = number, found[better]
        patients[better], ratios[better] = near.patients[better], near.ratios[better]
        copied |= below
    return Striking(copied=copied, patients=patients, spaces=spaces, ratios=ratios, surprise=surprise)


def with_equal(copies: Copies, equal: Sequence[tuple[int, int]]) -> Copies:
    """The copies and those images that are the same bytes as a patient's, (row, patient), whatever the spaces say."""
    new = [(row, patient) for row, patient in dict(equal).items() if row not in set(copies.rows.tolist())]
    known = dict(equal)
    patients = [known.get(int(row), int(patient)) for row, patient in zip(copies.rows, copies.patients, strict=True)]
    return replace(
        copies,
        rows=np.array([row for row, _ in new] + copies.rows.tolist(), np.int64),
        patients=np.array([patient for _, patient in new] + patients, np.int64),
        spaces=("bytes",) * len(new) + copies.spaces,
        ratios=np.concatenate([np.zeros(len(new)), copies.ratios]),
        surprise=np.concatenate([np.full(len(new), np.inf), copies.surprise]),
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class Nearest:
    """For each image its nearest patient, the distance, and its ratio to that of the next person or the usual one."""

    patients: NDArray[np.int64]
    distances: NDArray[np.float64]
    ratios: NDArray[np.float64]


def nearest_two(
    table: PatientDistances,
    usual: float,
    person: NDArray[np.int64],
    *,
    apart_from: NDArray[np.integer] | None = None,
) -> Nearest:
    """The two nearest different persons of every row; 1 is the ratio where there is no second one.

    `person` numbers the persons behind the patients; with `apart_from`, the person of that patient is left out.
    """
    who = np.where(table.patients >= 0, person[table.patients], -1)
    usable = table.patients >= 0
    if apart_from is not None:
        usable &= who != person[apart_from][:, None]
    first = np.argmax(usable, axis=1)[:, None]
    others = usable & (who != np.take_along_axis(who, first, axis=1))
    second = np.argmax(others, axis=1)[:, None]
    near = np.maximum(np.take_along_axis(table.distances, first, axis=1)[:, 0], FLOOR * usual).astype(float)
    far = np.clip(np.take_along_axis(table.distances, second, axis=1)[:, 0], FLOOR * usual, usual).astype(float)
    known = others.any(axis=1)
    ratios = np.where(known, np.minimum(near / np.where(known, far, 1), 1), 1)
    patients = np.take_along_axis(table.patients, first, axis=1)[:, 0]
    return Nearest(patients=patients.astype(np.int64), distances=near, ratios=ratios)


def usual_distance(real: PatientDistances) -> float:
    """The median distance between a real image and the nearest other patient where it is not zero; blind to roles."""
    found = real.distances[:, 0]
    telling = found[(found > 0) & np.isfinite(found)]
    return float(np.median(telling)) if len(telling) else 1.0


def _threshold(ratios: NDArray[np.float64], owners: NDArray[np.integer], n_comparisons: int) -> Threshold:
    """From the ratios of real images, for `n_comparisons` images times spaces.

    With points spread evenly in d dimensions, -log(ratio) is exponential with mean 1/d; the tail shows d where it
    counts. That its mean is known from only so many patients is in the quantile, which is that of a prediction. A
    ratio of 1 is the limit of what is looked at and has no part in it.
    """
    depths = -np.log(ratios)
    order = np.argsort(depths, kind="stable")
    telling = max(1, int((depths > 0).sum()))
    n_tail = min(len(order) - 1, telling, max(FEWEST_IN_TAIL, round(TAIL * len(order))))
    tail = order[len(order) - n_tail :]
    start = float(depths[order[len(order) - n_tail - 1]])
    scale = max(float((depths[tail] - start).mean()), 1e-6)
    beyond, known = n_tail / len(order), len(np.unique(owners[tail]))
    deepest = start + scale * known * (max(1.0, n_comparisons * beyond / LEVEL) ** (1 / known) - 1)
    smallest = float(np.exp(-depths[order[-1]]))
    ratio = min(MARGIN * smallest, float(np.exp(-deepest)), HALF)
    if len(np.unique(owners[depths > 0])) < FEWEST_IN_TAIL:
        ratio = 0.0  # what so few patients are like tells nothing of a tail: here only equal images are copies
    return Threshold(ratio=ratio, smallest_real=smallest, start=start, scale=scale, beyond=beyond)


def _twins(real: PatientDistances, usual: float, owners: NDArray[np.integer]) -> set[tuple[int, int]]:
    """Pairs of patients of which an image of the one lies incomparably nearer to the other than anything does else."""
    alone = np.arange(int(max(owners.max(), real.patients.max())) + 1)
    near = nearest_two(real, usual, alone, apart_from=owners)
    depths = -np.log(near.ratios)
    ranked = np.sort(depths)
    n_tail = min(len(ranked) - 1, max(FEWEST_IN_TAIL, round(TAIL * len(ranked))))
    start = ranked[len(ranked) - 1 - n_tail]
    typical = max(float(np.median(ranked[len(ranked) - n_tail :] - start)) / np.log(2), 1e-6)  # outliers do not move it
    extreme = start + typical * 2 * np.log(n_tail / LEVEL)
    found = _nearest_pairs(owners, near, depths > max(extreme, -np.log(0.5)))
    # Where a tail holds many pairs they hide each other: those who are nearest to each other, both, by all the ratios.
    mutual = _nearest_pairs(owners, near, depths > max(_extreme_of_all(depths), -np.log(0.5)))
    both = {pair for pair in mutual if pair[::-1] in mutual}
    return {(min(pair), max(pair)) for pair in found | both}


def _nearest_pairs(owners: NDArray[np.integer], near: Nearest, chosen: NDArray[np.bool_]) -> set[tuple[int, int]]:
    return set(zip(owners[chosen].tolist(), near.patients[chosen].tolist(), strict=True))


def _extreme_of_all(depths: NDArray[np.float64]) -> float:
    """As far out as no ratio should be, from the middle of those below 1: a third of them may be of pairs."""
    telling = depths[depths > 0]
    if len(telling) < FEWEST_IN_TAIL:
        return np.inf
    low, high = np.quantile(telling, [0.3, 0.6])
    scale = max(float(high - low) / np.log(0.7 / 0.4), 1e-6)
    return float(low + scale * 1.25 * np.log(len(telling) / LEVEL))


def _persons(twins: set[tuple[int, int]], n_patients: int) -> NDArray[np.int64]:
    """Patients joined by `twins` get one number."""
    person = np.arange(n_patients)
    for first, second in twins:
        person[person == person[second]] = person[first]
    return person
