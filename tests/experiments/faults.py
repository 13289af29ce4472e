"""Faults of the mechanism, each planted in the real code by replacing one of its functions."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from fedsynth.privacy.ledger import Ledger
from fedsynth.privacy.mechanism import GaussianMechanism
from fedsynth.privacy.per_patient_gradients import PatientGradients
from fedsynth.privacy.secure_rng import SecretRandomness

Plant = Callable[[pytest.MonkeyPatch], None]


@dataclass(frozen=True)
class Fault:
    """The property that is broken, and what breaks it."""

    broken: str
    make_positive_control: Plant


FAULTS: dict[str, Fault] = {}


def fault(broken: str) -> Callable[[Plant], Plant]:
    def kept(make_positive_control: Plant) -> Plant:
        FAULTS[make_positive_control.__name__] = Fault(broken, make_positive_control)
        return make_positive_control

    return kept


def around(patch: pytest.MonkeyPatch, owner: type, name: str, changed: Callable[..., Any]) -> None:
    """Replace a method by `changed(original, self, ...)`."""
    original = getattr(owner, name)
    patch.setattr(owner, name, lambda self, *given, **named: changed(original, self, *given, **named))


@fault("noise")
def half_noise(patch):
    around(
        patch, GaussianMechanism, "_noised", lambda real, self, value, scale, grid: real(self, value, scale / 2, grid)
    )


@fault("noise")
def one_tensor_without_noise(patch):
    calls = []

    def noised(real, self, value, scale, grid):
        calls.append(value)
        return real(self, value, scale if len(calls) % 3 else 0.0, grid)

    around(patch, GaussianMechanism, "_noised", noised)


@fault("contribution")
def twice_the_clip_norm(patch):
    def twice(real, self, *given):
        self = copy.copy(self)
        self.clip = 2 * self.clip
        return real(self, *given)

    around(patch, PatientGradients, "clipped_sum", twice)


@fault("sampling")
def twice_the_rate(patch):
    around(patch, SecretRandomness, "chosen", lambda real, self, n, rate: real(self, n, min(1.0, 2 * rate)))


def reused(patch, *, forget):
    kept: dict[Any, torch.Tensor] = {}

    def gaussian(real, self, shape, scale):
        if shape not in kept:
            kept[shape] = real(self, shape, scale)
        return kept[shape].clone()

    around(patch, SecretRandomness, "gaussian", gaussian)
    if forget:

        def chosen(real, self, n, rate):
            kept.clear()
            return real(self, n, rate)

        around(patch, SecretRandomness, "chosen", chosen)


@fault("reuse")
def one_noise_vector_for_all_steps(patch):
    reused(patch, forget=False)


@fault("reuse")
def one_noise_vector_for_equal_shapes(patch):
    reused(patch, forget=True)


def divided(patch, count):
    """`GaussianMechanism.step` with another divisor."""

    def step(self, phase, fetch, progress=1.0):
        self._prepaid[phase] -= 1
        assert self._prepaid[phase] >= 0 or not self._n, "the fault is in the division alone"
        settings = self.plan.settings
        drawn = self.randomness.chosen(self._n, settings.rate)
        sums = self._phases[phase].clipped_sum(drawn, fetch, progress)
        released = {
            name: self._noised(value, self.plan.noise * settings.clip, None) / count(self, drawn)
            for name, value in sums.items()
        }
        if self.on_release is not None:
            self.on_release(phase, released, progress)
        return released

    def guarded(real, self, phase, fetch, progress=1.0):
        return step(self, phase, fetch, progress) if self._prepaid[phase] > 0 else real(self, phase, fetch, progress)

    around(patch, GaussianMechanism, "step", guarded)


@fault("division")
def divided_by_the_sampled_count(patch):
    divided(patch, lambda mechanism, drawn: max(1, len(drawn)))


@fault("division")
def divided_by_the_true_number(patch):
    divided(patch, lambda mechanism, drawn: max(1, mechanism._n) * mechanism.plan.settings.rate)


@fault("charges")
def a_forgotten_charge(patch):
    calls = []

    def charge(real, self, *given, **named):
        calls.append(given)
        if len(calls) != 2:
            real(self, *given, **named)

    around(patch, Ledger, "charge", charge)


@fault("charges")
def steps_taken_twice(patch):
    def twice(real, self, phase, fetch, progress=1.0):
        real(self, phase, fetch, progress)
        self._prepaid[phase] += 1
        return real(self, phase, fetch, progress)

    around(patch, GaussianMechanism, "step", twice)


@fault("sampling")
def one_sample_for_both_phases(patch):
    kept = []

    def chosen(real, self, n, rate):
        kept[:] = [] if len(kept) > 1 else [*kept, kept[0] if kept else real(self, n, rate)]
        return kept[-1] if kept else chosen(real, self, n, rate)

    around(patch, SecretRandomness, "chosen", chosen)


@fault("sampling")
def batches_of_a_fixed_size(patch):
    around(
        patch, SecretRandomness, "chosen", lambda real, self, n, rate: torch.randperm(n)[: round(n * rate)].sort()[0]
    )


@fault("sampling")
def samples_that_follow_the_seed(patch):
    around(patch, SecretRandomness, "chosen", lambda real, self, n, rate: (torch.rand(n) < rate).nonzero().flatten())


@fault("contribution")
def every_tensor_clipped_for_itself(patch):
    def each(real, self, patients, fetch, progress=1.0):
        def part(number):
            def shown(indices):
                batch, noise = fetch(indices)
                rows = batch["rows"].clone()
                bounds = (0, 12 * rows.shape[-1] // 32, 24 * rows.shape[-1] // 32, rows.shape[-1])
                rows[..., : bounds[number]] = rows[..., bounds[number + 1] :] = 0.0
                return {**batch, "rows": rows}, noise

            return real(self, patients, shown, progress)

        parts = [part(number) for number in range(3)]
        return {name: parts[0][name] + parts[1][name] + parts[2][name] for name in parts[0]}

    around(patch, PatientGradients, "clipped_sum", each)


@fault("contribution")
def every_slice_clipped_for_itself(patch):
    def each(real, self, patients, fetch, progress=1.0):
        alone = copy.copy(self)
        alone.slices_per_patient, total = 1, None
        for view in range(self.slices_per_patient):

            def shown(indices, view=view):
                batch, noise = fetch(indices)
                return {name: value[:, view : view + 1] for name, value in batch.items()}, noise

            found = real(alone, patients, shown, progress)
            total = found if total is None else {name: total[name] + value for name, value in found.items()}
        return total

    around(patch, PatientGradients, "clipped_sum", each)
