"""What every comparator is given: features of members, holdout and synthetic images, and whose the real ones are.

The searches that several comparators need are done once. It knows rows of numbers, not images or spaces.
"""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from fedsynth.benchmark.leakage.neighbours import PatientDistances, nearest, patient_distances
from fedsynth.images.rows import Stack, take

NEIGHBOURS = 50


@dataclass(frozen=True, kw_only=True, eq=False)
class RealAndSynthetic:
    """Features (n, d) of three sets in one space; patients are numbers, no number is in both members and holdout."""

    members: Stack
    member_patients: NDArray[np.integer]
    holdout: Stack
    holdout_patients: NDArray[np.integer]
    synthetic: Stack

    @cached_property
    def to_members(self) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Of each synthetic image: distances to the nearest member images, and which these are."""
        return nearest(self.synthetic, self.members, NEIGHBOURS)

    @cached_property
    def to_holdout(self) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Of each synthetic image: the distance to the nearest holdout image, and which this is; (n, 1) each."""
        return nearest(self.synthetic, self.holdout, 1)

    @cached_property
    def to_member_patients(self) -> PatientDistances:
        """Of each synthetic image: its two nearest member patients."""
        return patient_distances(self.synthetic, self.members, self.member_patients, 2)

    @cached_property
    def holdout_to_members(self) -> NDArray[np.float32]:
        """Of each holdout image: the distance to the nearest member image."""
        return nearest(self.holdout, self.members, 1)[0][:, 0]

    @cached_property
    def among_members(self) -> NDArray[np.float32]:
        """Of each member image: the distance to the nearest other one, of the same patient or not."""
        distances = nearest(self.members, self.members, 2)[0]
        return distances[:, 1] if distances.shape[1] > 1 else np.full(len(distances), np.inf, np.float32)

    @cached_property
    def nearest_patients(self) -> NDArray[np.integer]:
        """Of each synthetic image: the real patient, of either role, whom it resembles most."""
        member = self.member_patients[self.to_members[1][:, 0]]
        holdout = self.holdout_patients[self.to_holdout[1][:, 0]]
        return np.where(self.to_members[0][:, 0] <= self.to_holdout[0][:, 0], member, holdout)

    def holdout_as_synthetic(self) -> "RealAndSynthetic":
        """The null of what looks at members only: the whole holdout in the synthetic set's place."""
        return replace(self, synthetic=self.holdout)

    def half_of_holdout_as_synthetic(self, rng: np.random.Generator) -> "RealAndSynthetic | None":
        """The null of what looks at the holdout too: one half of its patients in the synthetic set's place.

        The members are halved with it, since such numbers move with the ratio of the two. None where a half is empty.
        """
        (released, kept), (members, _) = _halves(self.holdout_patients, rng), _halves(self.member_patients, rng)
        if not (len(released) and len(kept) and len(members)):
            return None
        return RealAndSynthetic(
            members=take(self.members, members),
            member_patients=self.member_patients[members],
            holdout=take(self.holdout, kept),
            holdout_patients=self.holdout_patients[kept],
            synthetic=take(self.holdout, released),
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Measured:
    """One value per image or patient, whose mean is the number, and the patient that each belongs to."""

    values: NDArray[np.floating]
    patients: NDArray[np.integer]


def _halves(patients: NDArray[np.integer], rng: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows of one random half of the patients, and of the other."""
    named = rng.permutation(np.unique(patients))
    first = np.isin(patients, named[: len(named) // 2])
    return np.flatnonzero(first), np.flatnonzero(~first)
