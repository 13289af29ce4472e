"""How much nearer an image lies to one person than to every other, and below which ratio that is no chance.

The ratio of the distances to the nearest and the second-nearest person; what real images reach against everybody but
their own patient says how small it gets by chance. It reads tables of distances and knows no images or roles.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

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
TAIL = 0.1
FEWEST_IN_TAIL = 10
SAME = 1e-3
"""Distances that differ by a smaller share are to the same image under two names."""
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
class Nearest:
    """For each image its nearest patient, the distance, and its ratio to that of the next person or the usual one."""

    patients: NDArray[np.int64]
    distances: NDArray[np.float64]
    ratios: NDArray[np.float64]


def nearest_persons(
    tables: Mapping[str, PatientDistances],
    usual: Mapping[str, float],
    person: NDArray[np.int64],
    *,
    apart_from: NDArray[np.integer] | None = None,
) -> dict[str, Nearest]:
    """`nearest_two` of every space, with its `usual` distance; all spaces in one go."""
    enough = min(columns_read(person), max(table.distances.shape[1] for table in tables.values()))
    rows = [len(table.distances) for table in tables.values()]
    found = nearest_two(
        PatientDistances(
            distances=np.concatenate([_first(table.distances, enough, np.inf) for table in tables.values()]),
            patients=np.concatenate([_first(table.patients, enough, -1) for table in tables.values()]),
        ),
        np.repeat([usual[space] for space in tables], rows).astype(np.float32),
        person,
        apart_from=None if apart_from is None else np.tile(apart_from, len(tables)),
    )
    ends = np.cumsum(rows)
    return {
        space: Nearest(
            patients=found.patients[end - n : end],
            distances=found.distances[end - n : end],
            ratios=found.ratios[end - n : end],
        )
        for space, n, end in zip(tables, rows, ends, strict=True)
    }


def columns_read(person: NDArray[np.int64]) -> int:
    """As many as hold the patients of the nearest person and of the one left out, and one more."""
    return 2 * int(np.bincount(person).max()) + 1


def _first(values: NDArray[Any], columns: int, missing: float) -> NDArray[Any]:
    """So many columns, filled up where there are fewer."""
    more = columns - values.shape[1]
    return values[:, :columns] if more <= 0 else np.pad(values, ((0, 0), (0, more)), constant_values=missing)


def nearest_two(
    table: PatientDistances,
    usual: float | NDArray[np.float32],
    person: NDArray[np.int64],
    *,
    apart_from: NDArray[np.integer] | None = None,
) -> Nearest:
    """The two nearest different persons of every row; 1 is the ratio where there is no second one.

    `usual` is the distance that is usual to the next patient, one for all or one for each row.
    `person` numbers the persons behind the patients; with `apart_from`, the person of that patient is left out. Where
    a row ends before a second person, its last distance stands for his. Patients who were joined to one person may be
    a family of look-alikes: what is no nearer to one of them than half as far as to the next is one more of them, and
    its ratio is 1. Entries at one distance are the same image.
    """
    enough, floor = columns_read(person), FLOOR * usual
    patients, distances = table.patients[:, :enough], table.distances[:, :enough]
    who = np.where(patients >= 0, person[patients], -1)
    usable = patients >= 0
    if apart_from is not None:
        usable &= who != person[apart_from][:, None]
    first = np.argmax(usable, axis=1)[:, None]
    others = usable & (who != np.take_along_axis(who, first, axis=1))
    second = np.argmax(others, axis=1)[:, None]
    near = np.maximum(np.take_along_axis(distances, first, axis=1)[:, 0], floor).astype(float)
    known = usable.any(axis=1)
    last = usable.shape[1] - 1 - np.argmax(usable[:, ::-1], axis=1)[:, None]
    second = np.where(others.any(axis=1)[:, None], second, last)
    far = np.clip(np.take_along_axis(distances, second, axis=1)[:, 0], floor, usual).astype(float)
    same = usable & ~others & (distances > (1 + SAME) * near[:, None])
    following = np.take_along_axis(distances, np.argmax(same, axis=1)[:, None], axis=1)[:, 0]
    one_more = same.any(axis=1) & (near > HALF * following)
    ratios = np.where(known & ~one_more, np.minimum(near / np.where(known, far, 1), 1), 1)
    nearest = np.take_along_axis(patients, first, axis=1)[:, 0]
    return Nearest(patients=nearest.astype(np.int64), distances=near, ratios=ratios)


def usual_distance(real: PatientDistances) -> float:
    """The median distance between a real image and the nearest other patient where it is not zero; blind to roles."""
    found = real.distances[:, 0]
    telling = found[(found > 0) & np.isfinite(found)]
    return float(np.median(telling)) if len(telling) else 1.0


def threshold_of(ratios: NDArray[np.float64], owners: NDArray[np.integer], n_comparisons: int) -> Threshold:
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
