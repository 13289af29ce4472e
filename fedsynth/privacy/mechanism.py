"""The subsampled Gaussian mechanism of DP-SGD (Abadi et al. 2016), the only way from patients to a network.

One step charges the ledger, takes patients by Poisson sampling, clips and sums their gradients, adds noise and divides
by a public expected batch size.

Knows nothing of families, optimisers or images: `fetch` brings tensors for the patients it is asked for.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from fedsynth.errors import LostChargesError, RefusedError
from fedsynth.privacy.accounting import Budget
from fedsynth.privacy.discrete_gaussian import discrete_gaussian
from fedsynth.privacy.ghost_norm import Sums
from fedsynth.privacy.ledger import Charge, Ledger, refuse_above
from fedsynth.privacy.per_patient_gradients import Fetch
from fedsynth.privacy.plan import PrivatePlan
from fedsynth.privacy.secure_rng import Randomness


class ClippedSum(Protocol):
    """What noise is added to: a sum that one patient changes by at most `clip`. Sums on a `grid` get discrete noise."""

    clip: float
    slices_per_patient: int
    grid: float | None

    def renew(self) -> None:
        """A block begins: the weights may be others than before."""

    def clipped_sum(self, patients: Tensor, fetch: Fetch, progress: float = 1.0) -> Sums:
        """The sum over these patients, in float64."""


class GaussianMechanism:
    """One site's guard for one run. `phases` holds each private phase's sums; `patients` names the members.

    Without a ledger (phantoms) charges are counted in this object alone. `run` must be unlike any other run's name:
    it finds this run's earlier charges after a restart. With a `cap`, the whole rest of the run must fit under it.
    `joint` names the sum over sites that a plan with shares is for.
    """

    def __init__(
        self,
        plan: PrivatePlan,
        phases: Mapping[str, ClippedSum],
        *,
        patients: Sequence[str],
        randomness: Randomness,
        run: str,
        ledger: Ledger | None = None,
        cap: Budget | None = None,
        joint: str = "",
    ) -> None:
        _check_phases(plan, phases)
        if len(set(patients)) < len(patients):
            raise ValueError("every patient stands once in `patients`, whatever the number of images")
        if "" in patients:
            raise RefusedError("private training needs the patient of every image: who has no name has no protection")
        self.plan, self.randomness = plan, randomness
        self._phases, self._n = dict(phases), len(patients)
        self._ledger, self._run, self._cap = ledger, run, cap
        if bool(joint) != (plan.shares is not None and ledger is not None):
            raise ValueError("shares of noise are charged under the name of their sum, and nothing else is")
        self._joint = joint
        self._prepaid = dict.fromkeys(phases, 0)
        self.on_release: Callable[[str, Sums, float], None] | None = None
        self._group = None if ledger is None else ledger.group(patients)
        earlier = [] if ledger is None else ledger.charges(run)
        _refuse_better_claim(plan, earlier, insecure=not randomness.private)
        self._charged = sum(charge.steps for charge in earlier)
        self._remaining = max(0, plan.steps - self._charged)
        self._replayed = set() if randomness.private else {charge.round for charge in earlier}
        if cap is not None and ledger is not None and self._group is not None:
            ledger.check(self._group, [plan.steps_of(self._remaining)], cap)

    @property
    def private(self) -> bool:
        """False where the randomness can be repeated: such a run is stamped NOT PRIVATE wherever it shows."""
        return self.randomness.private

    @property
    def remaining(self) -> int:
        """Private steps that may still be charged; a block that a crash lost is not among them."""
        return self._remaining

    def left_for(self, round: int) -> int:  # noqa: A002
        """Private steps that may be charged in `round`; an insecure run repeats what it has paid for."""
        return self.plan.steps if round in self._replayed else self._remaining

    def charge(self, steps: Mapping[str, int], *, round: int) -> None:  # noqa: A002
        """Pay for a block: so many steps of each phase. On disk when this returns.

        Refused where the plan has fewer steps left. Steps of an earlier block that were not taken are lost. An insecure
        run that repeats a round repeats its numbers too, and pays once.
        """
        total = sum(steps.values())
        if not set(steps) <= set(self._phases) or min(steps.values(), default=0) < 0:
            raise ValueError(f"charged {dict(steps)} where the private phases are {sorted(self._phases)}")
        replayed = round in self._replayed
        if total and not replayed:
            refuse_above(self._remaining, total)
            self._remaining -= total
            self._charged += total
            for phase in sorted(steps):
                self._write(steps[phase], round)
            if not self.private:
                self._replayed.add(round)
        self._prepaid = {phase: steps.get(phase, 0) for phase in self._phases}
        for sums in self._phases.values():
            sums.renew()

    def check_resumed(self, steps: int) -> None:
        """Refuse to go on from networks that have taken more private steps than the ledger knows of this run.

        Without a ledger (phantoms) these steps are counted on from.
        """
        if steps <= self._charged:
            return
        if self._ledger is None:
            self._charged, self._remaining = steps, max(0, self.plan.steps - steps)
            return
        problem = f"the run has taken {steps} private steps and the ledger knows {self._charged} of them"
        remedy = (
            "name the store that it was charged in (--store or $FEDSYNTH_STORE), put its ledger back, or start anew"
        )
        raise LostChargesError(problem, file=self._ledger.path, remedy=remedy)

    def copy_charges(self, path: Path) -> None:
        """Write this run's lines of the ledger to `path`, for its run directory; nothing where there is no ledger."""
        if self._ledger is not None:
            self._ledger.copy(self._run, path)

    def step(self, phase: str, fetch: Fetch, progress: float = 1.0) -> Sums:
        """One private sum of a phase: draw patients, clip and sum, add noise, divide by the public batch size.

        Each call draws anew. The result may be used without further care; add the fake half to it and step.
        Parameters that this stage of growth does not use are not among the keys. `on_release` is shown a copy of what
        leaves, and nothing else: an auditor stands there.
        """
        if self._prepaid[phase] < 1:
            raise RuntimeError(f"a private step of {phase!r} was not charged")
        self._prepaid[phase] -= 1
        settings = self.plan.settings
        drawn = self.randomness.chosen(self._n, settings.rate)
        sums = self._phases[phase].clipped_sum(drawn, fetch, progress)
        scale, grid = self.plan.added * settings.clip, self._phases[phase].grid
        noised = {name: self._noised(value, scale, grid) for name, value in sums.items()}
        released = {name: value / settings.batch for name, value in noised.items()}
        if self.on_release is not None:
            self.on_release(phase, {name: value.clone() for name, value in released.items()}, progress)
        return released

    def _noised(self, value: Tensor, scale: float, grid: float | None) -> Tensor:
        """Added in float64, so that the noise is not cut to the few digits of the sum before it has hidden it.

        A sum on a grid stays there, exactly; its noise has at least the planned deviation.
        """
        if grid is not None:
            steps = discrete_gaussian(self.randomness, value.numel(), math.ceil(scale / grid))
            return value + steps.reshape(value.shape).double() * grid
        noise = self.randomness.gaussian(tuple(value.shape), scale).to(value.device)
        return noise.add_(value).float()

    def _write(self, steps: int, round: int) -> None:  # noqa: A002
        if self._ledger is None or self._group is None or not steps:
            return
        settings = self.plan.settings
        charge = Charge(
            rate=settings.rate,
            noise=self.plan.noise,
            steps=steps,
            delta=settings.delta,
            run=self._run,
            round=round,
            patients=self._group.digest,
            insecure=not self.private,
            assumption=self.plan.assumption,
            joint=self._joint,
        )
        self._ledger.charge(charge, self._group, cap=self._cap, most=self.plan.steps)


def sample_slices(randomness: Randomness, n_slices: Sequence[int], slices_per_patient: int) -> Tensor:
    """Which slices of each patient are shown: (patients, slices) indices, all different while a patient has enough."""
    rows = []
    for n in n_slices:
        order = randomness.uniform((max(n, 1),)).argsort()
        rows.append(order.repeat(-(-slices_per_patient // len(order)))[:slices_per_patient])
    return torch.stack(rows) if rows else torch.empty((0, slices_per_patient), dtype=torch.int64)


def _refuse_better_claim(plan: PrivatePlan, earlier: Sequence[Charge], *, insecure: bool) -> None:
    """A run promises what its weakest steps keep: none of them may have had less noise than the plan says."""
    for charge in earlier:
        weaker = charge.noise < plan.noise or charge.rate > plan.settings.rate or charge.delta > plan.settings.delta
        if weaker or charge.insecure != insecure or charge.assumption != plan.assumption:
            stamp = ", insecure" if charge.insecure else ""
            stamp += f", against {charge.assumption}" if charge.assumption else ""
            was = f"noise {charge.noise:g}, rate {charge.rate:g}, delta {charge.delta:g}{stamp}"
            remedy = "resume with the settings that it was started with, or start a new run"
            raise RefusedError(f"this run was charged under other settings ({was})", remedy=remedy)


def _check_phases(plan: PrivatePlan, phases: Mapping[str, ClippedSum]) -> None:
    for name, gradients in phases.items():
        if (gradients.clip, gradients.slices_per_patient) != (plan.settings.clip, plan.settings.slices_per_patient):
            raise ValueError(
                f"phase {name!r} clips or averages slices otherwise than the plan: the noise would not fit"
            )
