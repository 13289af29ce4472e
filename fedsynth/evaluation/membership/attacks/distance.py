"""Attacks by distance: whoever lies near to what was released is taken for a member.

A release is the synthetic set or, for the control, part of the holdout. Scores never depend on roles; the reference
that calibrates them is every other real patient, members and holdout alike, or a set that the caller hands in.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedsynth.data.lazy_arrays import Stack
from fedsynth.evaluation.nearest_neighbours import PatientDistances, nearest, patient_distances

# What every attack is given and what it returns: scores of patients, larger for those it takes for members.


@dataclass(frozen=True, kw_only=True, eq=False)
class Targets:
    """Features (n, d) of the images of members and holdout in one space, and the number of each image's patient.

    `released` (repeats, patients) are the holdout patients whose images take the synthetic set's place in the control.
    `turned` gives further views of the same images (mirrored, say); what was released is looked for in every view.
    """

    features: Stack
    patients: NDArray[np.int64]
    n_patients: int
    released: NDArray[np.bool_]
    turned: Callable[[], Iterable[Stack]] = tuple

    def without(self, half: NDArray[np.bool_], scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """Scores of patients with those who were released taken out (not a number)."""
        return np.where(half, np.nan, scores)


@dataclass(frozen=True, kw_only=True, eq=False)
class Attacked:
    """Scores of patients against the synthetic set, and against each honest half of the holdout (repeats, patients).

    Patients who were released are not a number in `honest`: nobody asks whether they are members.
    """

    scores: NDArray[np.float64]
    honest: NDArray[np.float64]


def by_patient(scores: NDArray[np.floating], targets: Targets) -> NDArray[np.float64]:
    """The mean over each patient's images: neither more images nor a single outlying one make a member."""
    counts = np.bincount(targets.patients, minlength=targets.n_patients)
    totals = np.bincount(targets.patients, weights=scores, minlength=targets.n_patients)
    return np.asarray(totals / counts)


FLOOR = 0.01
MISSED = 1e-4
"""The table of distances is deep enough that the nearest released patient is missed as rarely as this."""


def attack_by_distance(targets: Targets, synthetic: Stack, reference: Stack | None = None) -> dict[str, Attacked]:
    """`distance` (GAN-Leaks, Chen et al. 2020) and `calibrated`, which divides by what an image of its kind has anyway.

    The logarithm of the distance to the nearest released image, smaller for members; with `reference`, calibrated by
    the nearest image of that set, otherwise by the nearest of another real patient.
    """
    table = to_other_patients(targets)
    floor = _floor(table)
    released = np.log(np.maximum(to_nearest(targets, synthetic), floor))
    everybody = np.ones(targets.n_patients, bool)
    others = to_allowed(table, everybody) if reference is None else to_nearest(targets, reference)
    others = np.log(np.maximum(others, floor))
    plain, calibrated = [], []
    for half in targets.released:
        near = np.log(np.maximum(to_allowed(table, half), floor))
        rest = np.log(np.maximum(to_allowed(table, ~half), floor)) if reference is None else others
        plain.append(targets.without(half, by_patient(-near, targets)))
        calibrated.append(targets.without(half, by_patient(rest - near, targets)))
    return {
        "distance": Attacked(scores=by_patient(-released, targets), honest=_stacked(plain, targets)),
        "calibrated": Attacked(scores=by_patient(others - released, targets), honest=_stacked(calibrated, targets)),
    }


def _floor(table: PatientDistances) -> float:
    """A small part of what lies between patients, so that a copy is no infinity."""
    between = table.distances[:, 0][table.distances[:, 0] > 0]
    return FLOOR * float(np.median(between[np.isfinite(between)])) if np.isfinite(between).any() else 1.0


def to_nearest(targets: Targets, release: Stack) -> NDArray[np.float64]:
    """The distance of every real image, in any of its views, to the nearest of `release`."""
    found = nearest(targets.features, release, 1)[0][:, 0]
    for view in targets.turned():
        np.minimum(found, nearest(view, release, 1)[0][:, 0], out=found)
    return found.astype(float)


def to_other_patients(targets: Targets) -> PatientDistances:
    """Of every real image the nearest other patients: deep enough to hold a released one in every honest half."""
    share = min((float(half.mean()) for half in targets.released), default=1.0)
    depth = np.ceil(np.log(MISSED) / np.log(1 - share)) if 0 < share < 1 else 1
    depth = int(np.clip(depth, 1, targets.n_patients - 1))
    return patient_distances(
        targets.features, targets.features, targets.patients, depth, targets.patients.astype(np.int32)
    )


def to_allowed(table: PatientDistances, allowed: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The distance to the nearest patient that is `allowed`; the last distance where the table ends before one."""
    known = table.patients >= 0
    fits = known & allowed[table.patients]
    first = fits.argmax(axis=1)
    last = known.sum(axis=1) - 1
    column = np.where(fits.any(axis=1), first, last)
    return np.take_along_axis(table.distances, column[:, None], axis=1)[:, 0].astype(float)


def _stacked(rows: Sequence[NDArray[np.float64]], targets: Targets) -> NDArray[np.float64]:
    return np.array(rows).reshape(len(rows), targets.n_patients)
