"""The guarded door: charge, draw, clip, add noise, divide by a public number. The only way from patients to a network.

Knows nothing of families, optimisers or images: `fetch` brings tensors for the patients it is asked for.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from fedsynth.errors import RefusedError
from fedsynth.privacy.accounting import Budget
from fedsynth.privacy.gradients import Fetch, PatientGradients
from fedsynth.privacy.layers import Sums
from fedsynth.privacy.ledger import Charge, Ledger, refuse_above
from fedsynth.privacy.plan import PrivatePlan
from fedsynth.privacy.randomness import Randomness


class Door:
    """One holder's guard for one run. `turns` holds each private turn's gradients; `patients` names the members.

    Without a ledger (phantoms) charges are counted in this object alone. `run` must be unlike any other run's name:
    it finds this run's earlier charges after a restart. With a `cap`, the whole rest of the run must fit under it.
    """

    def __init__(
        self,
        plan: PrivatePlan,
        turns: Mapping[str, PatientGradients],
        *,
        patients: Sequence[str],
        randomness: Randomness,
        run: str,
        ledger: Ledger | None = None,
        cap: Budget | None = None,
    ) -> None:
        _check_turns(plan, turns)
        if len(set(patients)) < len(patients):
            raise ValueError("every patient stands once in `patients`, whatever the number of images")
        if "" in patients:
            raise RefusedError("private training needs the patient of every image: who has no name has no protection")
        self.plan, self.randomness = plan, randomness
        self._turns, self._n = dict(turns), len(patients)
        self._ledger, self._run, self._cap = ledger, run, cap
        self._prepaid = dict.fromkeys(turns, 0)
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
        """Pay for a block: so many steps of each turn. On disk when this returns.

        Refused where the plan has fewer steps left. Steps of an earlier block that were not taken are lost. An insecure
        run that repeats a round repeats its numbers too, and pays once.
        """
        total = sum(steps.values())
        if not set(steps) <= set(self._turns) or min(steps.values(), default=0) < 0:
            raise ValueError(f"charged {dict(steps)} where the private turns are {sorted(self._turns)}")
        replayed = round in self._replayed
        if not replayed:
            refuse_above(self._remaining, total)
            self._remaining -= total
            self._charged += total
            for turn in sorted(steps):
                self._write(steps[turn], round)
            if not self.private:
                self._replayed.add(round)
        self._prepaid = {turn: steps.get(turn, 0) for turn in self._turns}
        for gradients in self._turns.values():
            gradients.renew()  # a block begins: the weights may be others than before

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
        remedy = "name the store that it was charged in (--store or $FEDSYNTH_STORE), or start a new run"
        raise RefusedError(problem, file=self._ledger.path, remedy=remedy)

    def copy_charges(self, path: Path) -> None:
        """Write this run's lines of the ledger to `path`, for its run directory; nothing where there is no ledger."""
        if self._ledger is not None:
            self._ledger.copy(self._run, path)

    def step(self, turn: str, fetch: Fetch, progress: float = 1.0) -> Sums:
        """One private gradient of a turn: draw patients, clip and sum, add noise, divide by the public batch size.

        Each call draws anew. The result may be used without further care; add the free half to it and step.
        Parameters that this stage of growth does not use are not among the keys. `on_release` is shown a copy of what
        leaves, and nothing else: an auditor stands there.
        """
        if self._prepaid[turn] < 1:
            raise RuntimeError(f"a private step of {turn!r} was not charged")
        self._prepaid[turn] -= 1
        settings = self.plan.settings
        drawn = self.randomness.chosen(self._n, settings.rate)
        sums = self._turns[turn].clipped_sum(drawn, fetch, progress)
        scale = self.plan.noise * settings.clip
        released = {name: self._noised(value, scale) / settings.batch for name, value in sums.items()}
        if self.on_release is not None:
            self.on_release(turn, {name: value.clone() for name, value in released.items()}, progress)
        return released

    def _noised(self, value: Tensor, scale: float) -> Tensor:
        """Added in float64, so that the noise is not cut to the few digits of the sum before it has hidden it."""
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
        )
        self._ledger.charge(charge, self._group, cap=self._cap, most=self.plan.steps)


def draw_views(randomness: Randomness, n_slices: Sequence[int], views: int) -> Tensor:
    """Which slices of each patient are shown: (patients, views) indices, all different while a patient has enough."""
    rows = []
    for n in n_slices:
        order = randomness.uniform((max(n, 1),)).argsort()
        rows.append(order.repeat(-(-views // len(order)))[:views])
    return torch.stack(rows) if rows else torch.empty((0, views), dtype=torch.int64)


def _refuse_better_claim(plan: PrivatePlan, earlier: Sequence[Charge], *, insecure: bool) -> None:
    """A run promises what its weakest steps keep: none of them may have had less noise than the plan says."""
    for charge in earlier:
        weaker = charge.noise < plan.noise or charge.rate > plan.settings.rate or charge.delta > plan.settings.delta
        if weaker or charge.insecure != insecure:
            stamp = ", insecure" if charge.insecure else ""
            was = f"noise {charge.noise:g}, rate {charge.rate:g}, delta {charge.delta:g}{stamp}"
            remedy = "resume with the settings that it was started with, or start a new run"
            raise RefusedError(f"this run was charged under other settings ({was})", remedy=remedy)


def _check_turns(plan: PrivatePlan, turns: Mapping[str, PatientGradients]) -> None:
    for name, gradients in turns.items():
        if (gradients.clip, gradients.views) != (plan.settings.clip, plan.settings.views):
            raise ValueError(f"turn {name!r} clips or views otherwise than the plan: the noise would not fit")
