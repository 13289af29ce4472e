"""What every attack is given and what it returns: scores of patients, larger for those it takes for members."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedsynth.images.rows import Stack


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
