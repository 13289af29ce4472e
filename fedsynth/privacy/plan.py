"""The mechanism of one site's whole run, fixed before any image is read: declared numbers in, a frozen plan out.

Knows declared public numbers only. The true number of patients cannot enter: nothing here takes it.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from fedsynth.errors import ConfigError
from fedsynth.privacy.accounting import Budget, Mechanism, Spent, calibrate, compose


@dataclass(frozen=True, kw_only=True)
class PrivateSettings:
    """What is declared in public before the run. `patients` is a round number near the truth, never counted from data.

    `batch` is the expected number of patients in a draw; `clip` bounds a patient's gradient; `slices_per_patient`
    slices or augmentations of each sampled patient are averaged before the clip, at no cost.
    """

    epsilon: float
    delta: float
    patients: int
    batch: int
    clip: float = 1.0
    slices_per_patient: int = 1

    def __post_init__(self) -> None:
        _ = self.budget  # checks the ranges
        if self.patients < 1:
            raise ConfigError("a private run needs a declared number of patients", value=self.patients)
        if self.delta * self.patients >= 1:
            remedy = f"take at most {0.1 / self.patients:.1g}"
            raise ConfigError("delta allows one patient to be published whole", value=self.delta, remedy=remedy)
        if not 1 <= self.batch <= self.patients:
            remedy = f"take 1 to {self.patients}; {self.patients} is the full batch"
            raise ConfigError("the batch must lie within the declared patients", value=self.batch, remedy=remedy)
        if self.slices_per_patient < 1:
            raise ConfigError("every sampled patient shows at least one slice", value=self.slices_per_patient)
        if not (self.clip > 0 and math.isfinite(self.clip)):
            raise ConfigError("the clip norm must be a positive number", value=self.clip)

    @property
    def budget(self) -> Budget:
        """Epsilon and delta."""
        return Budget(epsilon=self.epsilon, delta=self.delta)

    @property
    def rate(self) -> float:
        """The probability with which a draw takes each patient."""
        return self.batch / self.patients


@dataclass(frozen=True, kw_only=True)
class PrivatePlan:
    """The calibrated mechanism: `steps` private updates of all phases together, `noise` times the clip norm on each.

    A `release` takes one bounded vector of every patient, once, instead of gradients.

    `claim` holds epsilon by the numerical accountant, the Renyi bound and the replace-one epsilon beside it.
    """

    settings: PrivateSettings
    steps: int
    noise: float
    claim: Spent
    release: bool = False

    @property
    def mechanism(self) -> Mechanism:
        """All private steps of the run."""
        return self.steps_of(self.steps)

    def steps_of(self, steps: int) -> Mechanism:
        """The same mechanism for another number of steps."""
        return Mechanism(rate=self.settings.rate, noise=self.noise, steps=steps)

    def summary(self) -> dict[str, float | int | str]:
        """Plain values for records, cards and tables; adjacency and unit included."""
        settings = self.settings
        return {
            "unit": "patient",
            "adjacency": "add/remove",
            "epsilon": self.claim.epsilon,
            "delta": settings.delta,
            "epsilon-renyi": self.claim.renyi,
            "epsilon-replace-one": self.claim.replace_one,
            "accountant": self.claim.accountant,
            "declared-patients": settings.patients,
            "batch": settings.batch,
            "rate": settings.rate,
            "noise": self.noise,
            "clip": settings.clip,
            "slices_per_patient": settings.slices_per_patient,
            "private-steps": self.steps,
        }


def make_plan(settings: PrivateSettings, steps: Mapping[str, int]) -> PrivatePlan:
    """Calibrate the noise once for every private step of the whole run, `steps` by phase, over all its rounds.

    Each turn of a step draws and is charged on its own, so the phases' steps add.
    """
    total = sum(steps.values())
    noise = calibrate(settings.budget, rate=settings.rate, steps=total)
    claim = compose([Mechanism(rate=settings.rate, noise=noise, steps=total)], settings.delta)
    return PrivatePlan(settings=settings, steps=total, noise=noise, claim=claim)
