"""Comparators made of distances to the nearest images: what synthetic-data tools print as proof of privacy.

None of them has a null of its own, and all of them move with how sharp or noisy the output is.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from sklearn.cluster import KMeans

from fedsynth.data.lazy_arrays import Rows, Stack, blocks, take
from fedsynth.evaluation.nearest_neighbours import PatientDistances, nearest, patient_distances

# What every comparator is given: features of members, holdout and synthetic images, and whose the real ones are.
#
# The searches that several comparators need are done once. It knows rows of numbers, not images or spaces.


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


# Comparators made of correlations: how alike two rows are when brightness and contrast do not count.


PERCENTILE = 95
CONSTANT = 1e-6


def largest_correlation(sets: RealAndSynthetic) -> Measured:
    """Akbar et al. (2025): the largest correlation of each synthetic image with any member's, in the mean."""
    return Measured(values=_largest(sets.synthetic, sets.members), patients=sets.nearest_patients)


def patients_memorized(sets: RealAndSynthetic) -> Measured:
    """Dar et al. (2024): the share of member patients with an image that a synthetic one is a copy of.

    A copy correlates more than the 95th percentile of what members' images reach with the holdout's. So about 5 % of
    the images of an honest set are copies by construction, and the more synthetic images, the more patients.
    """
    copied = _largest(sets.members, sets.synthetic) > _threshold(sets)
    patients, of = np.unique(sets.member_patients, return_inverse=True)
    return Measured(values=(np.bincount(of, weights=copied) > 0).astype(float), patients=patients)


def samples_copies(sets: RealAndSynthetic) -> Measured:
    """Dar et al. (2024): the share of synthetic images that are a copy of a member's, by the same threshold."""
    copies = _largest(sets.synthetic, sets.members) > _threshold(sets)
    return Measured(values=copies.astype(float), patients=sets.nearest_patients)


class Standardised(Rows):
    """Rows with mean 0 and length 1, made when read: half the squared distance of two is 1 - their correlation.

    Constant rows correlate with nothing: each side has a further axis of its own for them.
    """

    def __init__(self, rows: Stack, *, side: int) -> None:
        super().__init__([rows])
        self._raw, self._side = rows, side
        self.dtype = np.dtype(np.float32)
        self.shape = (len(rows), rows.shape[1] + 2)

    def __getitem__(self, which: Any) -> NDArray[Any]:
        raw = np.atleast_2d(self._raw[which]).astype(np.float64)
        raw -= raw.mean(axis=1, keepdims=True)
        length = np.linalg.norm(raw, axis=1)
        constant = length <= CONSTANT * np.sqrt(raw.shape[1])
        made = np.zeros((len(raw), self.shape[1]), np.float32)
        made[:, :-2] = raw / np.where(constant, 1, length)[:, None]
        made[constant] = 0
        made[constant, self._side - 2] = 1
        return made


def _largest(queries: Stack, references: Stack) -> NDArray[np.float64]:
    distances, _ = nearest(Standardised(queries, side=0), Standardised(references, side=1), 1)
    return np.asarray(1 - np.square(distances[:, 0].astype(float)) / 2)


def _threshold(sets: RealAndSynthetic) -> float:
    return float(np.percentile(_largest(sets.members, sets.holdout), PERCENTILE))


# C_T, the three-sample test of data copying (Meehan, Chaudhuri, Dasgupta 2020), computed as published.
#
# It asks whether synthetic images are nearer to the members than the holdout is: blurred honest output is, too.


CELLS = 3
FEWEST = 20
FITTED_ON = 5000


@dataclass(frozen=True, kw_only=True, eq=False)
class ThreeSample:
    """Distances to the nearest member, of synthetic and of holdout images, and the cell that each image lies in."""

    synthetic: NDArray[np.float32]
    holdout: NDArray[np.float32]
    synthetic_cells: NDArray[np.integer]
    holdout_cells: NDArray[np.integer]
    patients: NDArray[np.integer]

    @classmethod
    def of(cls, sets: RealAndSynthetic, *, cells: int = CELLS, seed: int = 0) -> "ThreeSample":
        """Cells are k-means clusters of the members."""
        rng = np.random.default_rng([seed, *b"cells"])
        fitted_on = np.asarray(sets.members[np.sort(rng.permutation(len(sets.members))[:FITTED_ON])], np.float64)
        clusters = KMeans(min(cells, len(fitted_on)), n_init=3, random_state=seed).fit(fitted_on)
        return cls(
            synthetic=sets.to_members[0][:, 0],
            holdout=sets.holdout_to_members,
            synthetic_cells=_cells(clusters, sets.synthetic),
            holdout_cells=_cells(clusters, sets.holdout),
            patients=sets.nearest_patients,
        )

    def statistic(self, rows: NDArray[np.intp] | None = None) -> float:
        """C_T of the synthetic images `rows` (all of them by default): far below 0 is copying, far above underfitting.

        The mean over cells of the Mann-Whitney Z, weighted by the holdout's share of the cell; cells with at most 20
        synthetic images do not count. Its null has mean 0 and, for independent images, the variance sum(weights^2)
        (1 with one cell). Not a number when no cell counts.
        """
        rows = np.arange(len(self.synthetic)) if rows is None else rows
        total, weights = 0.0, 0.0
        for cell in np.unique(self.holdout_cells):
            holdout = self.holdout[self.holdout_cells == cell]
            synthetic = self.synthetic[rows][self.synthetic_cells[rows] == cell]
            if len(synthetic) > FEWEST:
                total += len(holdout) * mann_whitney_z(synthetic, holdout)
                weights += len(holdout)
        return total / weights if weights else float("nan")


def mann_whitney_z(first: NDArray[np.floating], second: NDArray[np.floating]) -> float:
    """(U - mean) / sd of the number of pairs in which `first` is the larger, ties counted half and corrected for."""
    m, n = len(first), len(second)
    ranks = stats.rankdata(np.concatenate([first, second]))
    _, ties = np.unique(ranks, return_counts=True)
    total = m + n
    variance = m * n / 12 * (total + 1 - (ties**3 - ties).sum() / (total * (total - 1)))
    if variance <= 0:
        return 0.0
    return float((ranks[:m].sum() - m * (m + 1) / 2 - m * n / 2) / np.sqrt(variance))


def _cells(clusters: KMeans, rows: Stack) -> NDArray[np.integer]:
    return np.concatenate([clusters.predict(block.astype(np.float64)) for _, block in blocks(rows)])


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
