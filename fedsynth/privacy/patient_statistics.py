"""One bounded vector per patient, summed: what a Gaussian release of statistics takes from patients, and nothing more.

A patient's vector is the mean over all of the patient's images, clipped to norm 1, with a constant appended by which
the noised sum tells how many patients it holds, so that no number of patients is taken as public. Both parts together
have norm 1 at most. They lie on a grid, so that sums are exact and the noise can be discrete.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from fedsynth.privacy.ghost_norm import Sums
from fedsynth.privacy.per_patient_gradients import Fetch

RELEASE = "statistics"
"""The one private step, as the ledger and the plan name it."""
COUNT = 0.5
"""Of the appended constant, where a vector is clipped to 1."""
GRID = 2.0**-24
LARGEST = math.sqrt(1 + COUNT**2)


class PatientStatistics:
    """The clipped sum over patients of `statistics`, which gives the (images, length) vectors of a batch."""

    clip = 1.0
    slices_per_patient = 1  # all images of a patient are read, whatever their number
    grid: float | None = GRID

    def __init__(self, statistics: Callable[[dict[str, Tensor]], Tensor], *, length: int) -> None:
        self.statistics, self.length = statistics, length

    def renew(self) -> None:
        """Nothing depends on weights."""

    def clipped_sum(self, patients: Tensor, fetch: Fetch, progress: float = 1.0) -> Sums:
        """The sum over `patients`; a patient whose vector is not finite adds to the count alone."""
        total = torch.zeros(self.length + 1, dtype=torch.float64)
        for patient in patients:
            batch, _ = fetch(patient[None])
            images = {name: value.flatten(0, 1) for name, value in batch.items()}
            total += bounded(self.statistics(images).mean(0))
        return {RELEASE: total}


def bounded(vector: Tensor) -> Tensor:
    """A patient's vector as it is summed: of norm 1 at most, the constant included, on the grid."""
    vector = vector.double().cpu()
    norm = torch.linalg.vector_norm(vector)
    kept = vector / norm.clamp(min=1.0) if torch.isfinite(norm) else torch.zeros_like(vector)
    whole = torch.cat([kept, torch.tensor([COUNT], dtype=torch.float64)]) / LARGEST
    return torch.trunc(whole / GRID) * GRID  # towards zero: no norm grows


@dataclass(frozen=True, kw_only=True)
class NoisedSum:
    """A sum in units where a patient's vector has norm 1: its statistics, the number of patients, and the variance of
    the noise on each number of the statistics. All three are released; the first two are noised."""

    total: Tensor
    patients: float
    variance: float


def read_sum(released: Tensor, noise: float) -> NoisedSum:
    """Undo the scaling of `bounded`. `noise` is the deviation that was added to the scaled sum."""
    values = released.double() * LARGEST
    return NoisedSum(total=values[:-1], patients=float(values[-1]) / COUNT, variance=(noise * LARGEST) ** 2)
