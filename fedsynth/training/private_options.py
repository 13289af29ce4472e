"""What a hospital could do with so many patients and such a budget, from declared numbers alone: nothing is charged."""

from dataclasses import dataclass, replace

from fedsynth.models.base import ImageShape
from fedsynth.models.fitted_family import PARTS, PARTS_WITH_CLASSES
from fedsynth.models.generators.catalog import build, find
from fedsynth.privacy.feasibility import Feasibility, gauge
from fedsynth.privacy.patient_statistics import RELEASE
from fedsynth.privacy.plan import PrivatePlan, PrivateSettings, make_plan
from fedsynth.training.dp_gradients import private_parameters, steps_by_phase
from fedsynth.training.settings import PlanSettings

TRAINED = ("vae", "dcgan")
"""Families whose private recipes were measured at many patient numbers."""


@dataclass(frozen=True, kw_only=True)
class PrivateOption:
    """One way to spend the budget: how often patients are read, what noise that needs, and whether it can work."""

    way: str
    generator: str
    reads: int
    noise: float
    feasibility: Feasibility

    @property
    def works(self) -> bool:
        """Whether the noise is small enough to learn under."""
        return self.feasibility.verdict == "likely"


def private_options(declared: PlanSettings) -> list[PrivateOption]:
    """The private release, and DP-SGD with the families that were measured, best chances first."""
    shape = ImageShape(
        channels=declared.channels,
        size=(declared.size, declared.size),
        n_labels=declared.labels,
        n_classes=declared.classes,
    )
    found = [_release(declared), *(_trained(name, shape, declared) for name in TRAINED)]
    return sorted(found, key=lambda one: not one.works)


def recommended(options: list[PrivateOption]) -> str:
    """What to do, in a sentence."""
    by_sgd = [one for one in options if one.works and one.reads > 1]
    if by_sgd:
        said = f"Train {by_sgd[0].generator} by DP-SGD: with so many patients it can learn what no simulator knows."
    elif options[0].works:
        said = "Take the private release: patients are read once, and one sum of them is told to a public pool."
    else:
        said = (
            "Spend nothing: under so much noise the patients tell nothing, and public images cost no patient anything."
        )
    return f"{said} Measure first what public images teach alone (`fedsynth benchmark segmentation`, arm *public*)."


def _declared(settings: PlanSettings, batch: int) -> PrivateSettings:
    return PrivateSettings(epsilon=settings.epsilon, delta=settings.delta, patients=settings.patients, batch=batch)


def _release(settings: PlanSettings) -> PrivateOption:
    plan = replace(make_plan(_declared(settings, settings.patients), {RELEASE: 1}), release=True)
    numbers = (PARTS_WITH_CLASSES if settings.classes else PARTS) + 1  # and the count of patients
    return _option("private release", "fitted-simulator or fitted-pool", plan, numbers, settings.sites)


def _trained(name: str, shape: ImageShape, settings: PlanSettings) -> PrivateOption:
    family, recipe = build(name, shape, private=True), find(name).private_recipe
    batch = max(1, round(settings.patients / 4))
    plan = make_plan(_declared(settings, batch), steps_by_phase(family, recipe.steps))
    return _option(f"DP-SGD, {recipe.steps} steps", name, plan, private_parameters(family), settings.sites)


def _option(way: str, generator: str, plan: PrivatePlan, numbers: int, sites: int) -> PrivateOption:
    feasibility = gauge(plan, numbers, sites=sites)
    return PrivateOption(way=way, generator=generator, reads=plan.steps, noise=plan.noise, feasibility=feasibility)
