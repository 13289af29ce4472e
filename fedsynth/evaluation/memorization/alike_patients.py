"""Patients who are so alike that they may be one person: a patient under two names, or with a second recording.

They are looked for among real images alone, blind to roles and to the output, and count as one person wherever images
are compared: no image can lie nearer to one of them than to everybody else.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from fedsynth.evaluation.memorization.combined_evidence import FEWEST_SPACES, combine, learn_scales
from fedsynth.evaluation.memorization.ratios import (
    FEWEST_IN_TAIL,
    FLOOR,
    HALF,
    LEVEL,
    TAIL,
    Nearest,
    nearest_persons,
)
from fedsynth.evaluation.nearest_neighbours import PatientDistances

MOST_ENTRIES = 8
"""So many other entries of a person are looked for in one space."""
ROUNDS = 3
"""Pairs that were found no longer hide others, so it is looked again so often at most."""
MOST_JOINED = 0.15
"""Where a larger share of the patients has a double, people look alike here, and nobody counts as another."""
MIDDLE = (0.6, 0.9)
"""Between these quantiles combined evidence is that of strangers, even where a tenth of all images has a double."""
EXPECTED = 0.05
"""So many images are expected by chance beyond the evidence from which two patients count as one."""


def alike_patients(
    real: Mapping[str, PatientDistances], usual: Mapping[str, float], owners: NDArray[np.integer], n_patients: int
) -> set[tuple[int, int]]:
    """Pairs of patients that single spaces, or all spaces together, show to be incomparably alike.

    `real` are the distances of real images to all patients but their own, which `owners` names.
    """
    found = {pair for space in real for pair in _twins(real[space], usual[space], owners)}
    for _ in range(ROUNDS if len(real) >= FEWEST_SPACES else 0):
        person = persons(found, n_patients)
        more = _of_all_spaces(nearest_persons(real, usual, person, apart_from=owners), usual, person, owners)
        if not more:
            break
        found |= more
    joined = {patient for pair in found for patient in pair}
    return found if len(joined) <= MOST_JOINED * n_patients else set()


def persons(pairs: set[tuple[int, int]], n_patients: int) -> NDArray[np.int64]:
    """Patients joined by `pairs` get one number."""
    person = np.arange(n_patients)
    for first, second in pairs:
        person[person == person[second]] = person[first]
    return person


def _of_all_spaces(
    real: Mapping[str, Nearest], usual: Mapping[str, float], person: NDArray[np.int64], owners: NDArray[np.integer]
) -> set[tuple[int, int]]:
    """Pairs of different persons who lie nearest to each other, both, by evidence that strangers do not reach."""
    seen = combine(real, learn_scales(real, usual), person)
    low, high = np.quantile(seen.depths, MIDDLE)
    beyond = seen.depths > low
    below = int((seen.depths[beyond] < high).sum())
    scale = max(float((np.minimum(seen.depths[beyond], high) - low).sum()) / max(below, 1), 1e-6)  # the rest is cut off
    # Where all spaces tell the same, the mean of their depths has the tail of one, and the largest is log(n). That two
    # patients reach it of each other is rarer.
    extreme = max(low + scale * np.log(max(1.0, beyond.sum() / EXPECTED)), float(np.log(len(owners))))
    chosen = seen.depths > extreme
    pairs = set(zip(owners[chosen].tolist(), seen.patients[chosen].tolist(), strict=True))
    mutual = {(person[one], person[other]) for one, other in pairs}
    return {(min(pair), max(pair)) for pair in pairs if (person[pair[1]], person[pair[0]]) in mutual}


def _twins(real: PatientDistances, usual: float, owners: NDArray[np.integer]) -> set[tuple[int, int]]:
    """Pairs of patients of which an image of the one lies incomparably nearer to the other than anything does else.

    A person with several entries shows at the last of them: the gap after the first neighbour is what pairs have, one
    after the j-th joins all j. By chance gaps are j times smaller there, so that one threshold does for all.
    """
    steps = _gaps(real, usual)
    depths = steps[:, 0]
    ranked = np.sort(depths)
    n_tail = min(len(ranked) - 1, max(FEWEST_IN_TAIL, round(TAIL * len(ranked))))
    start = ranked[len(ranked) - 1 - n_tail]
    typical = max(float(np.median(ranked[len(ranked) - n_tail :] - start)) / np.log(2), 1e-6)  # outliers do not move it
    extreme = start + typical * 2 * np.log(n_tail / LEVEL)
    found = _pairs_before_gaps(owners, real, steps > max(extreme, -np.log(HALF)))
    # Where a tail holds many pairs they hide each other: those who are nearest to each other, both, by all the ratios.
    mutual = _pairs_before_gaps(owners, real, steps > max(_extreme_of_all(depths), -np.log(HALF)))
    both = {pair for pair in mutual if pair[::-1] in mutual}
    return {(min(pair), max(pair)) for pair in found | both}


def _gaps(real: PatientDistances, usual: float) -> NDArray[np.float64]:
    """-log of the ratio of the distances to the j-th and the next patient, or the usual distance, (n, j)."""
    known = real.patients[:, 1 : MOST_ENTRIES + 1] >= 0
    distances = np.clip(real.distances[:, : MOST_ENTRIES + 1], FLOOR * usual, usual).astype(float)
    following = np.where(known, distances[:, 1:], distances[:, :-1])
    return np.asarray(np.log(following) - np.log(distances[:, :-1]))


def _pairs_before_gaps(
    owners: NDArray[np.integer], real: PatientDistances, chosen: NDArray[np.bool_]
) -> set[tuple[int, int]]:
    last = np.where(chosen, np.arange(1, chosen.shape[1] + 1), 0).max(axis=1)
    rows = np.flatnonzero(last)
    return {(int(owners[row]), int(other)) for row in rows for other in real.patients[row, : last[row]]}


def _extreme_of_all(depths: NDArray[np.float64]) -> float:
    """As far out as no ratio should be, from the middle of those below 1: a third of them may be of pairs."""
    telling = depths[depths > 0]
    if len(telling) < FEWEST_IN_TAIL:
        return np.inf
    low, high = np.quantile(telling, [0.3, 0.6])
    scale = max(float(high - low) / np.log(0.7 / 0.4), 1e-6)
    return float(low + scale * 1.25 * np.log(len(telling) / LEVEL))
