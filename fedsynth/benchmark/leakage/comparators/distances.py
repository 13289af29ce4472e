"""Comparators made of distances to the nearest images: what synthetic-data tools print as proof of privacy.

None of them has a null of its own, and all of them move with how sharp or noisy the output is.
"""

import numpy as np

from fedsynth.benchmark.leakage.comparators.sets import Measured, RealAndSynthetic

THIRD = 1 / 3
ALPHA = 0.5


def authenticity(sets: RealAndSynthetic) -> Measured:
    """AuthPct (Alaa et al. 2022): x is authentic when its nearest member t has another member nearer than x.

    Nothing but copies gives 0. Shipped implementations that take the wrong row of the members' distances give up to 1.
    """
    distances, which = sets.to_members
    authentic = sets.among_members[which[:, 0]] < distances[:, 0]
    return Measured(values=authentic.astype(float), patients=sets.nearest_patients)


def closer_to_members(sets: RealAndSynthetic) -> Measured:
    """The share of images nearer to a member's image than to a holdout's, ties counted half ("DCR share")."""
    member, holdout = sets.to_members[0][:, 0], sets.to_holdout[0][:, 0]
    return Measured(values=(member < holdout) + 0.5 * (member == holdout), patients=sets.nearest_patients)


def share_of_members(sets: RealAndSynthetic) -> float:
    """What `closer_to_members` is for an honest set: members' images over all, not a half."""
    return len(sets.members) / (len(sets.members) + len(sets.holdout))


def distance_ratio(sets: RealAndSynthetic) -> Measured:
    """The mean ratio of the distances to the nearest and second-nearest member patient ("NNDR")."""
    return Measured(values=_ratios(sets), patients=sets.nearest_patients)


def ratio_below_third(sets: RealAndSynthetic) -> Measured:
    """The share of images whose distance ratio is below 1/3 (Yoon et al. 2023), the second from another patient.

    With the second-nearest *image* it misses every copy of a patient who has two similar slices.
    """
    return Measured(values=(_ratios(sets) < THIRD).astype(float), patients=sets.nearest_patients)


def adaptive_extraction(sets: RealAndSynthetic) -> Measured:
    """The share that Carlini et al. (2023) call extracted: d(x, t) < 0.5 x mean distance to the 50 nearest members."""
    distances = sets.to_members[0]
    extracted = distances[:, 0] < ALPHA * distances.mean(axis=1)
    return Measured(values=extracted.astype(float), patients=sets.nearest_patients)


def _ratios(sets: RealAndSynthetic) -> "np.ndarray":
    """Two patients at distance zero are no copy of one of them: the ratio is 1."""
    distances = sets.to_member_patients.distances.astype(float)
    if distances.shape[1] < 2:
        return np.ones(len(distances))
    ratios: np.ndarray = np.divide(
        distances[:, 0], distances[:, 1], out=np.ones(len(distances)), where=distances[:, 1] > 0
    )
    return ratios
