"""Whether a budget can work for so many patients, said before it is spent: the size of the noise against a gradient.

Knows a plan and the number of parameters that the noise falls on; nothing of data.
"""

import math
from dataclasses import dataclass, replace

from fedsynth.privacy.accounting import renyi_noise
from fedsynth.privacy.plan import PrivatePlan, PrivateSettings

LARGE_DELTA = 0.1  # times the declared patients; at 1 the plan is refused
CLEAR = 0.3  # of a release
INSTEAD = "With few patients a private release does: --public phantoms, or --public SET; `fedsynth plan` compares."
GOOD, DEGRADED = 5.0, 36.0
"""Published runs on 28 x 28 digits: good images at a ratio of 5, degraded ones at 36 (Bie et al. 2023)."""


@dataclass(frozen=True, kw_only=True)
class Feasibility:
    """`ratio`: the norm of one step's noise over the largest norm of the averaged gradient (1 clip norm).

    `verdict` is "likely", "doubtful" or "hopeless"; `sentence` says why; `advice` what would bring the ratio down.
    """

    ratio: float
    verdict: str
    sentence: str
    advice: tuple[str, ...]

    def __str__(self) -> str:
        return " ".join([self.sentence, *self.advice])


def gauge(plan: PrivatePlan, parameters: int, *, sites: int = 1) -> Feasibility:
    """Gauge a plan whose private networks have so many `parameters`, averaged over so many equal `sites`."""
    settings = plan.settings
    if plan.release:
        return _gauge_release(plan, parameters, sites)
    ratio = noise_ratio(plan.noise, settings.batch, parameters, sites)
    verdict = "likely" if ratio <= GOOD else "doubtful" if ratio <= DEGRADED else "hopeless"
    budget = f"epsilon {settings.epsilon:g} for {settings.patients} declared patients"
    sentence = {
        "likely": f"{budget} can work: the noise of a step is {ratio:.2g} times the clip norm (good runs had up to 5).",
        "doubtful": f"{budget} may give poor images: the noise of a step is {ratio:.2g} times the clip norm "
        "(good runs had up to 5, poor ones 36).",
        "hopeless": f"{budget} will train on noise: the noise of a step is {ratio:.2g} times the clip norm "
        "(good runs had up to 5, poor ones 36).",
    }[verdict]
    advice = () if verdict == "likely" else tuple(_advice(plan, parameters, sites, ratio))
    advice += tuple(_about_delta(settings))
    return Feasibility(ratio=ratio, verdict=verdict, sentence=sentence, advice=advice)


def _gauge_release(plan: PrivatePlan, numbers: int, sites: int) -> Feasibility:
    """A release is read once: its noise is set against the longest that the patients' mean can be."""
    settings = plan.settings
    ratio = noise_ratio(plan.added, settings.patients, numbers, sites)
    verdict = "likely" if ratio <= CLEAR else "doubtful" if ratio <= 1 else "hopeless"
    patients = f"{settings.patients} declared patients" + (f" at each of {sites} sites" if sites > 1 else "")
    meant = {"likely": "can work", "doubtful": "tells little", "hopeless": "tells noise alone"}[verdict]
    sentence = (
        f"epsilon {settings.epsilon:g} for {patients} {meant}: the noise on the patients' mean is {ratio:.2g} times "
        "the longest that it can be."
    )
    enough = math.ceil(settings.patients * ratio / CLEAR)
    advice = () if verdict == "likely" else (f"{enough:,} declared patients would bring it to {CLEAR:g}.",)
    return Feasibility(ratio=ratio, verdict=verdict, sentence=sentence, advice=advice + tuple(_about_delta(settings)))


def _about_delta(settings: PrivateSettings) -> list[str]:
    """With probability delta the promise may fail for a patient: over all patients that should be next to nothing."""
    share = settings.delta * settings.patients
    if share <= LARGE_DELTA:
        return []
    return [
        f"Warning: delta times the declared patients is {share:.2g}, above {LARGE_DELTA:g}: with that probability such "
        f"a promise lets one patient be published whole; take delta at most {LARGE_DELTA / settings.patients:.1g}."
    ]


def noise_ratio(noise: float, batch: int, parameters: int, sites: int = 1) -> float:
    """Noise multiplier times the root of the parameters, over batch and the root of the sites."""
    return noise * math.sqrt(parameters) / batch / math.sqrt(sites)


def _advice(plan: PrivatePlan, parameters: int, sites: int, ratio: float) -> list[str]:
    settings, said = plan.settings, []
    full = replace(settings, batch=settings.patients)
    if settings.batch < settings.patients:
        said.append(_line("the full batch", _ratio_of(full, plan.steps, parameters, sites), ratio))
    few = max(1, plan.steps // 4)
    said.append(_line(f"{few} private steps in full batches", _ratio_of(full, few, parameters, sites), ratio))
    small = int(parameters * (GOOD / ratio) ** 2)
    if small >= 1000:
        said.append(f"A discriminator of {small:,} parameters instead of {parameters:,} would bring it to 5.")
    said.append(_enough_patients(full, few, parameters, sites))
    said.append(INSTEAD)
    return [line for line in said if line]


def _line(what: str, reached: float, ratio: float) -> str:
    return f"With {what} it would be {reached:.2g}." if reached < 0.95 * ratio else ""


def _ratio_of(settings: PrivateSettings, steps: int, parameters: int, sites: int) -> float:
    return noise_ratio(renyi_noise(settings.budget, settings.rate, steps), settings.batch, parameters, sites)


def _enough_patients(settings: PrivateSettings, steps: int, parameters: int, sites: int) -> str:
    """In full batches the noise does not depend on the patients, and the ratio falls with their number."""
    enough = settings.patients * _ratio_of(settings, steps, parameters, sites) / GOOD
    unit = 10 ** max(0, math.floor(math.log10(enough)) - 1)
    wanted = math.ceil(enough / unit) * unit
    where = "a site" if sites > 1 else "in all"
    return f"{wanted:,} patients {where} would do with {steps} full-batch steps." if wanted > settings.patients else ""
