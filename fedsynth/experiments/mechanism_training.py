"""One training of Dirac canaries through a run's own mechanism, and everything that an auditor sees of it.

A canary's gradient is a coordinate of its own, so that each is a separate trial. Everything is in clip norms. It
decides nothing.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fedsynth.errors import BudgetSpentError
from fedsynth.models.base import Tensors, global_randomness
from fedsynth.privacy.ledger import Charge, Ledger
from fedsynth.privacy.mechanism import GaussianMechanism
from fedsynth.privacy.per_patient_gradients import PatientGradients
from fedsynth.privacy.plan import PrivatePlan, PrivateSettings
from fedsynth.privacy.secure_rng import SecretRandomness
from fedsynth.training.centralised import BLOCK

UNIT, COLUMNS, ROWS = 1_024, 64, np.array([12, 12, 8])
"""For every 1,024 canaries three tensors of 64 columns and so many rows; every other row no canary ever touches."""
PHASES = ("first", "second")
KEPT = 150
"""Steps, of either half of the training, whose samples and noise are compared with each other."""
LARGE = 10.0
"""Gradients before clipping, in clip norms."""
EMPTY_STEPS = 4

Floats = NDArray[np.float64]


class Observer:
    """Stands where outputs leave the mechanism, and knows who was sampled.

    Per canary: `odds`, the log likelihood ratio of being in, the best test of Gaussian noise; `sampled`, how often it
    was; `sums`, its coordinate over the steps in which it was sampled and over the others. Per step: `samples` (the
    first `KEPT` of each half), `squares` of the untouched noise by tensor, in declared deviations, and some `noise`.
    """

    def __init__(self, plan: PrivatePlan, units: int) -> None:
        self.plan, self.sizes = plan, units * ROWS // 2 * COLUMNS
        self.included = SecretRandomness().integers(2, (units * UNIT,)).numpy() == 1
        self.members = np.flatnonzero(self.included)
        self.tensor = np.repeat(np.arange(len(ROWS)), self.sizes)
        self.sampled, self.odds = np.zeros(len(self.included), np.int64), np.zeros(len(self.included))
        self.sums = np.zeros((2, len(self.included)))
        self.samples: list[NDArray[np.bool_]] = []
        self.noise: list[NDArray[np.float32]] = []
        self.squares: list[Floats] = []
        self._now: NDArray[np.bool_] = np.zeros(0, bool)
        self._room = KEPT

    def begin(self, n: int) -> None:
        """A training of `n` patients begins, or goes on after a restart."""
        self._now, self._room = np.zeros(n, bool), KEPT

    def fetched(self, patients: NDArray[np.int64]) -> None:
        """Who was sampled in this step."""
        self._now[patients] = True

    def released(self, phase: str, sums: Mapping[str, Tensor], progress: float) -> None:
        """See `GaussianMechanism.on_release`."""
        settings, noise = self.plan.settings, self.plan.noise
        values = in_clip_norms(sums, settings)
        seen, now = values[1::2].ravel().astype(np.float64), np.zeros(len(self.included), bool)
        now[self.members] = self._now[: len(self.members)]
        with np.errstate(all="ignore"):
            ratio = np.log(settings.rate) + (2 * seen - 1) / (2 * noise**2)
            self.odds += np.nan_to_num(np.logaddexp(np.log1p(-settings.rate), ratio))
        self.sampled += now
        self.sums += np.where([now, ~now], seen, 0.0)
        blank = np.split(values[0::2] / np.float32(noise), np.cumsum(self.sizes // COLUMNS)[:-1])
        self.squares.append(np.array([np.square(part, dtype=np.float64).sum() for part in blank]))
        if self._room:
            self._room -= 1
            self.samples.append(self._now.copy())
            rows = len(blank[-1]) // 2  # halves: the two outputs of a Box-Muller pair lie half a tensor apart
            self.noise.append(np.array([half[:rows].ravel() for part in blank for half in np.split(part, 2)]))
        self._now[:] = False


class Training:
    """The plan's steps in two phases that alternate, and what they left: an observer's view and the ledger's lines.

    It is restarted in the middle, with the same public seed, and charged in blocks as every training is. `complaint`
    says what was granted and must not be; `lone` is the most that one patient moved the sum; `nobody` holds the squares
    of the noise that left when there was no patient at all.
    """

    def __init__(self, plan: PrivatePlan, units: int, ledger: Ledger) -> None:
        self.plan, self.rows, self.complaint = plan, int(units * ROWS.sum()), ""
        self.seen = Observer(plan, units)
        members, declared = len(self.seen.members), plan.settings.patients
        blank = members if declared / 2 < members < 2 * declared else 0
        self.patients = [f"canary-{i}" for i in range(members + blank)]  # not as many as are declared
        self._gradients = {phase: self._gradients_of(_Network(units)) for phase in PHASES}
        self._train(ledger)
        self.charges: list[Charge] = ledger.charges("audit")
        self.lone = max(self._alone(seed) for seed in range(3))
        self.nobody: list[float] = []
        self._train_on_nobody()

    def _train(self, ledger: Ledger) -> None:
        half, block = self.plan.steps // 2, 0
        for first, last in ((0, half), (half, self.plan.steps)):
            self.seen.begin(len(self.patients))
            with global_randomness(0):  # what follows a public seed is the same in both halves
                mechanism = self._mechanism(self.patients, ledger)
                mechanism.on_release = self.seen.released
                for start in range(first, last, BLOCK):
                    block += 1
                    phases = [PHASES[step % 2] for step in range(start, min(start + BLOCK, last))]
                    mechanism.charge({phase: phases.count(phase) for phase in PHASES}, round=block)
                    for phase in phases:
                        mechanism.step(phase, self._fetch)
        mechanism.on_release = None
        try:
            mechanism.step(PHASES[0], self._fetch)
        except RuntimeError:
            pass
        else:
            self.complaint = "a step was taken that was not charged"
        try:
            mechanism.charge({PHASES[0]: 1}, round=block + 1)
        except BudgetSpentError:
            pass
        else:
            self.complaint = "more steps than planned were granted"

    def _train_on_nobody(self) -> None:
        def released(phase: str, sums: Mapping[str, Tensor], progress: float) -> None:
            noise = in_clip_norms(sums, self.plan.settings)[0::2] / self.plan.noise
            self.nobody.append(float(np.square(noise, dtype=np.float64).sum()))

        mechanism, steps = self._mechanism([], None), min(EMPTY_STEPS, self.plan.steps)
        mechanism.on_release = released
        mechanism.charge({PHASES[0]: steps}, round=1)
        try:
            for _ in range(steps):
                mechanism.step(PHASES[0], self._fetch)
        except ArithmeticError:
            self.nobody.append(np.inf)

    def _alone(self, seed: int) -> float:
        """The norm of what one patient with large gradients in all tensors adds."""
        rng, settings = np.random.default_rng(seed), self.plan.settings
        columns, rows = (rng.normal(size=(1, n)).astype(np.float32) for n in (COLUMNS, self.rows))
        batch = self._views_of(columns * np.float32(LARGE * settings.clip), rows)
        sums = self._gradients[PHASES[0]].clipped_sum(torch.tensor([0]), lambda patients: (batch, {}))
        return float(sum(value.double().square().sum() for value in sums.values()) ** 0.5) / settings.clip

    def _mechanism(self, patients: Sequence[str], ledger: Ledger | None) -> GaussianMechanism:
        return GaussianMechanism(
            self.plan, self._gradients, patients=patients, randomness=SecretRandomness(), run="audit", ledger=ledger
        )

    def _gradients_of(self, net: "_Network") -> PatientGradients:
        settings = self.plan.settings
        probe = {"columns": torch.randn(4, COLUMNS), "rows": torch.randn(4, self.rows)}

        def loss(batch: Tensors, noise: Tensors, progress: float) -> Tensor:
            return torch.as_tensor((net(batch["columns"]) * batch["rows"]).sum(1))

        return PatientGradients(
            net, loss, clip=settings.clip, slices_per_patient=settings.slices_per_patient, probe=(probe, {})
        )

    def _fetch(self, patients: Tensor) -> tuple[Tensors, Tensors]:
        """The canaries' inputs; patients beyond the canaries have no gradient."""
        chosen = patients.numpy()
        self.seen.fetched(chosen)
        columns, rows = (np.zeros((len(chosen), n), np.float32) for n in (COLUMNS, self.rows))
        here = np.flatnonzero(chosen < len(self.seen.members))
        canary = self.seen.members[chosen[here]]
        columns[here, canary % COLUMNS] = LARGE * self.plan.settings.clip
        rows[here, 2 * (canary // COLUMNS) + 1] = 1.0
        return self._views_of(columns, rows), {}

    def _views_of(self, columns: NDArray[np.float32], rows: NDArray[np.float32]) -> Tensors:
        """Every view of a patient shows the same."""
        shown = {"columns": torch.from_numpy(columns), "rows": torch.from_numpy(rows)}
        return {
            key: value[:, None].expand(-1, self.plan.settings.slices_per_patient, -1) for key, value in shown.items()
        }


class _Network(nn.Module):
    """Three tensors, two of one shape. The gradient of a row times a column is one in that place."""

    def __init__(self, units: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(COLUMNS, int(units * rows), bias=False) for rows in ROWS])

    def forward(self, columns: Tensor) -> Tensor:
        return torch.cat([layer(columns) for layer in self.layers], 1)


def in_clip_norms(sums: Mapping[str, Tensor], settings: PrivateSettings) -> NDArray[np.float32]:
    """What left, all rows of the three tensors, with division and clip norm undone."""
    rows = torch.cat([sums[f"layers.{i}.weight"] for i in range(len(ROWS))])
    return np.asarray(rows.double().numpy() * (settings.batch / settings.clip), np.float32)
