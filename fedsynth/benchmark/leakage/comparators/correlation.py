"""Comparators made of correlations: how alike two rows are when brightness and contrast do not count."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedsynth.benchmark.leakage.comparators.sets import Measured, RealAndSynthetic
from fedsynth.benchmark.leakage.neighbours import nearest
from fedsynth.images.rows import Rows, Stack

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
