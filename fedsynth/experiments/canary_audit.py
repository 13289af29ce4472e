"""The end-to-end audit: one more training, with canary patients, and the epsilon that guessing their coins proves.

It finds patients who bypass the mechanism and noise that is nearly absent. Weaker faults are found by
`mechanism_audit`, whose canaries are gradients and not images.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedsynth.data import ImageSet
from fedsynth.errors import ConfigError
from fedsynth.evaluation.audit.canaries import FEWEST, Canaries, make_canaries
from fedsynth.evaluation.audit.epsilon_bounds import EpsilonBound, best_bound
from fedsynth.evaluation.bootstrap import LEVEL
from fedsynth.evaluation.score import Input, Result, Score, Verdict
from fedsynth.experiments.white_box_audit import WhiteBoxObserver
from fedsynth.federation.settings import FederationSettings
from fedsynth.models.generators.catalog import find
from fedsynth.privacy.accounting import Mechanism, epsilon_of
from fedsynth.privacy.ledger import Ledger, default_store
from fedsynth.privacy.secure_rng import Randomness, SecretRandomness
from fedsynth.runs import Run
from fedsynth.training.centralised import run_training
from fedsynth.training.patient_batches import PatientBatches
from fedsynth.training.session import Prepared, prepare, training_members
from fedsynth.training.settings import TrainSettings, cpu_threads
from fedsynth.training.site_storage import CENTRALISED
from fedsynth.training.trainer import StepReport

NAME = "audit"
COINS = "canaries.csv"
EVERYWHERE = "all sites"

Scores = NDArray[np.float64]
Step = Callable[[str], None]
OnStep = Callable[[StepReport, int], None]


@dataclass(frozen=True, kw_only=True)
class AuditSettings:
    """How an audit is held: `claim` is what is claimed of runs without plan."""

    canaries: int = 200
    seed: int = 0
    claim: float | None = None
    delta: float = 1e-5

    def __post_init__(self) -> None:
        if self.canaries < FEWEST:
            remedy = "fewer can hardly contradict any claim: a perfect attack on 20 proves epsilon 1"
            raise ConfigError(f"--canaries must be at least {FEWEST}", value=self.canaries, remedy=remedy)
        if self.claim is not None and not self.claim >= 0:
            raise ConfigError("a claimed epsilon is not negative", value=self.claim)
        if not 0 <= self.delta < 1:
            raise ConfigError("delta must lie in [0, 1)", value=self.delta)


@dataclass(frozen=True, kw_only=True, eq=False)
class Audited:
    """What one training showed: a bound for all sites and for each; none where nothing was seen, and `unseen` says why.

    `control` is the largest bound for coins that had no part in it; it should be zero. `above` is how often a canary
    that took part scores above one that did not: 0.5 is chance.
    """

    claim: float | None
    why_no_claim: str
    delta: float
    bounds: Mapping[str, EpsilonBound]
    unseen: str
    control: float
    above: float
    canaries: Canaries
    run: Run
    seconds: float

    @property
    def lower(self) -> float:
        """The largest epsilon that is proven at any place."""
        return max((one.epsilon for one in self.bounds.values()), default=0.0)

    @property
    def ceiling(self) -> float:
        """What a perfect attack on all these canaries would have proved."""
        return self.bounds[EVERYWHERE].ceiling if self.bounds else 0.0

    @property
    def reach(self) -> str:
        """What this audit can and cannot show, before what it showed."""
        return (
            f"{len(self.canaries)} canaries prove at most epsilon {self.ceiling:.2f}, and images under noise far less: "
            "this finds patients who bypass the mechanism and noise that is all but absent; it cannot find half the "
            "noise, twice the clip norm or twice the rate, which --mechanism finds"
        )

    @property
    def verdict(self) -> Verdict:
        """A contradiction, none, or nothing that could be contradicted or seen."""
        if self.claim is None or not self.bounds:
            return "inconclusive"
        return "fail" if self.lower > self.claim else "no contradiction found"

    @property
    def sentences(self) -> list[str]:
        """The verdict for people."""
        if not self.bounds:
            return [f"nothing could be seen: {self.unseen}"]
        proved = f"at least epsilon {self.lower:.2f} was spent, with {LEVEL:.0%} confidence"
        if self.claim is None:
            return [f"nothing is claimed ({self.why_no_claim}), so nothing can be contradicted; {proved}"]
        if self.verdict == "fail":
            return [f"the claimed epsilon {self.claim:g} is false: {proved}"]
        said = f"the guesses prove epsilon {self.lower:.2f}, and {self.claim:g} is claimed: no contradiction"
        return [said, "an audit can only contradict a claim; it never confirms one"]


def refuse_unauditable(settings: TrainSettings | FederationSettings) -> None:
    """What has no claim by its nature is not audited."""
    entry = find(settings.generator)
    if settings.pairing or entry.not_private or entry.kind in ("paired", "training-free"):
        problem = f"{settings.generator} is not audited: it is never private"
        raise ConfigError(problem, remedy="`fedsynth benchmark membership` measures what they leak")


def refuse_without_steps(settings: TrainSettings | FederationSettings) -> None:
    """Canary patients are looked for in the gradients of steps: a release has none."""
    if find(settings.generator).kind == "fitted":
        problem = f"{settings.generator} takes no steps that canary patients could be seen in"
        raise ConfigError(problem, remedy="`fedsynth benchmark audit --mechanism` audits its release")


def rehearse(images: ImageSet, settings: TrainSettings) -> Prepared:
    """Refuse what cannot work before anything is written or charged."""
    refuse_unauditable(settings)
    with cpu_threads(settings.threads):
        return prepare(images, settings)


@dataclass(frozen=True, kw_only=True)
class Charging:
    """One site's patients, and the training that they would be charged for."""

    site: str
    patients: Sequence[str]
    planned: Mechanism


def charging_of(rehearsed: Prepared) -> list[Charging]:
    """Whom a centralised training charges: nobody where it is plain, or shows phantoms."""
    if rehearsed.plan is None or rehearsed.images.header.phantoms:
        return []
    return [Charging(site=CENTRALISED, patients=rehearsed.dataset.patients, planned=rehearsed.plan.mechanism)]


def cost_of(charged: Sequence[Charging], store: Path | None, delta: float) -> tuple[float, float] | None:
    """The most that any patient has spent and would have after the audit; None where nobody is charged."""
    if not charged:
        return None
    home = default_store() if store is None else store
    if not home.is_dir():  # nothing was ever spent, and looking must not make a store
        return 0.0, max(epsilon_of([one.planned], delta) for one in charged)
    ledgers = [(Ledger(one.site, home), one) for one in charged]
    pairs = [ledger.forecast(ledger.group(one.patients), [one.planned], delta) for ledger, one in ledgers]
    return max(before for before, _ in pairs), max(after for _, after in pairs)


def hold_audit(
    images: ImageSet,
    settings: TrainSettings,
    audit: AuditSettings,
    run: Run,
    *,
    randomness: Randomness | None = None,
    step: Step = lambda text: None,
    on_step: OnStep = lambda report, total: None,
) -> Audited:
    """Train once in `run` as `settings` say, with canaries among the members of `images`, and guess their coins.

    The coins are written to the run directory before the training. `randomness` flips them, for tests; else the
    operating system does.
    """
    refuse_unauditable(settings)
    refuse_without_steps(settings)
    started = time.monotonic()
    secret = SecretRandomness() if randomness is None else randomness
    members = training_members(images)
    step("making canaries")
    canaries = make_canaries(members, audit.canaries, seed=audit.seed, randomness=secret)
    canaries.record(run.folder / COINS)
    watch = WhiteBoxObserver(canaries, PatientBatches(members), seed=audit.seed)
    claims: list[tuple[float | None, str]] = []

    def prepared(one: Prepared) -> None:
        watch.attach(one)
        claims.append(claim_of(one, audit))

    step("training with canaries")
    run_training(canaries.joined(members), settings, run, on_step=on_step, on_prepared=prepared)
    step("guessing the coins")
    seen = (watch.scores, watch.why)
    return conclude(canaries, seen, claims[0], audit, run, secret, delta=delta_of(settings, audit), started=started)


def conclude(
    canaries: Canaries,
    seen: tuple[Scores | None, str],
    claim: tuple[float | None, str],
    audit: AuditSettings,
    run: Run,
    secret: Randomness,
    *,
    delta: float,
    started: float,
) -> Audited:
    """Guess the coins, and fresh ones that had no part in the training: the control."""
    scores, why = seen
    unrelated = secret.integers(2, (len(canaries),)).numpy() == 1
    bounds, control = (
        {} if scores is None else prove(scores, coins, canaries.sites, delta=delta, seed=audit.seed)
        for coins in (canaries.included, unrelated)
    )
    return Audited(
        claim=claim[0],
        why_no_claim=claim[1],
        delta=delta,
        bounds=bounds,
        unseen=why if scores is None else "",
        control=max((one.epsilon for one in control.values()), default=0.0),
        above=0.5 if scores is None else _above(scores, canaries.included),
        canaries=canaries,
        run=run,
        seconds=time.monotonic() - started,
    )


def _above(scores: Scores, included: NDArray[np.bool_]) -> float:
    inside, outside = scores[included][:, None], scores[~included]
    return float((inside > outside).mean() + (inside == outside).mean() / 2)


def prove(
    scores: Scores, included: NDArray[np.bool_], sites: Sequence[str], *, delta: float, seed: int = 0
) -> dict[str, EpsilonBound]:
    """The bound over all canaries and site by site, corrected so that all of them hold together."""
    places = {EVERYWHERE: np.ones(len(included), bool)}
    if len(set(sites)) > 1:
        places |= {site or "(no site)": np.array(sites) == site for site in sorted(set(sites))}
    rng = np.random.default_rng([seed, *b"ties"])
    return {
        place: best_bound(scores[here], included[here], delta=delta, rng=rng, comparisons=len(places))
        for place, here in places.items()
    }


def as_result(
    one: Audited,
    images: ImageSet,
    settings: TrainSettings | FederationSettings,
    audit: AuditSettings,
    spent: tuple[float, float] | None = None,
) -> Result:
    """The result in its common form; `spent` is what patients had spent before and have after."""
    scores = {
        place: {"epsilon_lower_bound": Score(value=bound.epsilon, low=bound.epsilon, baseline=0.0, n=bound.canaries)}
        for place, bound in one.bounds.items()
    }
    found = {"value": one.lower, "low": one.lower, "baseline": 0.0, "control": one.control, "n": len(one.canaries)}
    largest = Score(**found) if one.bounds else Score(value=None, why=one.unseen)  # type: ignore[arg-type]
    return Result(
        benchmark=NAME,
        verdict=one.verdict,
        scores={"epsilon_lower_bound": largest},
        per_site={place: of for place, of in scores.items() if place != EVERYWHERE},
        details=_described(one) | {"spent": spent},
        inputs={"real": Input.of(images)},
        seed=audit.seed,
        settings={"generator": settings.generator, "level": LEVEL, "claim": audit.claim, "run_seed": settings.seed},
        seconds=one.seconds,
    )


def exit_code(verdict: Verdict) -> int:
    """0 where no contradiction was found, 1 for a contradiction, 3 where nothing could be told."""
    return {"no contradiction found": 0, "fail": 1}.get(verdict, 3)


def claim_of(prepared: Prepared, audit: AuditSettings) -> tuple[float | None, str]:
    """What is claimed of a training: `--claim`, or what its plan promises."""
    if audit.claim is not None:
        return audit.claim, ""
    if prepared.plan is None or prepared.mechanism is None:
        return None, "the run is not private"
    if not prepared.mechanism.private:
        return None, "its randomness can be repeated (--insecure-seed)"
    return prepared.plan.claim.epsilon, ""


def delta_of(settings: TrainSettings | FederationSettings, audit: AuditSettings) -> float:
    """The delta beside the claim: a claim made by hand has its own, and is not refuted at the plan's."""
    return audit.delta if settings.privacy is None or audit.claim is not None else settings.privacy.delta


def _described(one: Audited) -> dict[str, Any]:
    return {
        "reach": one.reach,
        "sentences": one.sentences,
        "claimed": one.claim,
        "delta": one.delta,
        "lower_bound": one.lower,
        "ceiling": one.ceiling,
        "bounds": {place: asdict(bound) for place, bound in one.bounds.items()},
        "unseen": one.unseen,
        "in_above_out": one.above,
        "canaries": {"all": len(one.canaries), "included": int(one.canaries.included.sum())},
        "run": str(one.run.folder),
    }
