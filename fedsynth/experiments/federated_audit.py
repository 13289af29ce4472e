"""The audit of a federation: the same rounds once more, in this process, with canary patients at every site."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from fedsynth import atomic_files
from fedsynth.data import ImageSet
from fedsynth.data.image_set import concatenate
from fedsynth.data.site_config import load_sites
from fedsynth.data.sites import Site
from fedsynth.errors import ConfigError
from fedsynth.evaluation.audit.canaries import Canaries, make_canaries
from fedsynth.experiments.canary_audit import (
    COINS,
    Audited,
    AuditSettings,
    Charging,
    OnStep,
    Scores,
    Step,
    claim_of,
    conclude,
    delta_of,
    refuse_unauditable,
    refuse_without_steps,
)
from fedsynth.experiments.white_box_audit import WhiteBoxObserver
from fedsynth.federation import site_observers
from fedsynth.federation.rounds import Progress
from fedsynth.federation.settings import FederationSettings
from fedsynth.federation.simulation import begin, open_hospitals, run_rounds
from fedsynth.federation.site_context import POLICY, SITES, simulated_federation
from fedsynth.privacy.plan import PrivatePlan
from fedsynth.privacy.secure_rng import Randomness, SecretRandomness
from fedsynth.runs import Run
from fedsynth.training.patient_batches import PatientBatches
from fedsynth.training.session import Prepared, plan_privacy, prepare, training_members
from fedsynth.training.settings import cpu_threads
from fedsynth.training.trainer import StepReport


def is_federated(run: Run) -> bool:
    """Whether several hospitals trained this run."""
    return "rounds" in run.settings()


def members_of(run: Run) -> list[Site]:
    """The members of every hospital of a simulated run, under the hospital's name."""
    return [
        Site(name=site.name, images=training_members(site.images)) for site in simulated_federation(run.folder).sites
    ]


def refuse_federation(settings: FederationSettings) -> None:
    """Only a federation with one generator can be audited as one."""
    refuse_unauditable(settings)
    if settings.federation == "none":
        remedy = "audit a hospital's own training: --real SET --generator NAME"
        raise ConfigError("these hospitals trained each for itself: there is no common generator", remedy=remedy)


def charged_sites(sites: Sequence[Site], settings: FederationSettings) -> list[Charging]:
    """Whom the rounds charge, hospital by hospital; nobody where they are plain, or show phantoms."""
    return [
        Charging(
            site=site.name, patients=PatientBatches(site.images).patients, planned=plan_of(site, settings).mechanism
        )
        for site in sites
        if settings.privacy is not None and not site.images.header.phantoms
    ]


def plan_of(site: Site, settings: FederationSettings) -> PrivatePlan:
    """The mechanism of one hospital of a private federation."""
    assert settings.privacy is not None
    declared = int(settings.declared.get(site.name, settings.privacy.patients))
    training = replace(settings.training(), privacy=replace(settings.privacy, patients=declared))
    with cpu_threads(1):
        rehearsed = prepare(site.images, training)
    return plan_privacy(training, rehearsed.trainer.family, rehearsed.trainer.total_steps)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Ears:
    """A watch at every hospital, and what each of their trainings claims."""

    audit: AuditSettings
    watches: dict[str, WhiteBoxObserver]
    claims: dict[str, tuple[float | None, str]]

    canaries: Canaries

    def joined(self, site: str, images: ImageSet) -> ImageSet:
        """What the hospital trains on: its members, and those of its canaries whose coin fell so. Nothing is copied."""
        return self.canaries.of(site).joined(training_members(images))

    def opened(self, site: str, prepared: Prepared) -> None:
        self.watches[site].attach(prepared)
        self.claims[site] = claim_of(prepared, self.audit)

    def claim(self) -> tuple[float | None, str]:
        """The federation's: the largest of the sites, whose patients are disjoint; none where one site has none."""
        for claim, why in self.claims.values():
            if claim is None:
                return None, why
        return max(claim for claim, _ in self.claims.values() if claim is not None), ""


def hold_federated_audit(
    audited: Run,
    settings: FederationSettings,
    audit: AuditSettings,
    run: Run,
    *,
    randomness: Randomness | None = None,
    step: Step = lambda text: None,
    on_step: OnStep = lambda report, total: None,
) -> Audited:
    """Hold the rounds of `audited` once more, in `run`, with canaries among every hospital's members; guess the coins.

    The hospitals' own policies bind here too. Canaries join their images in memory: a kill leaves no image behind.
    """
    refuse_without_steps(settings)
    started = time.monotonic()
    sites = members_of(audited)
    secret = SecretRandomness() if randomness is None else randomness
    step("making canaries")
    pooled = concatenate([site.images for site in sites], name="members")
    canaries = make_canaries(pooled, audit.canaries, seed=audit.seed, randomness=secret)
    canaries.record(run.folder / COINS)
    watches = {
        site.name: WhiteBoxObserver(canaries.of(site.name), PatientBatches(site.images), seed=audit.seed + i)
        for i, site in enumerate(sites)
    }
    ears = _Ears(audit=audit, watches=watches, claims={}, canaries=canaries)

    def told(progress: Progress) -> None:
        if progress.replies:
            total = progress.rounds * settings.local_steps
            on_step(StepReport(step=progress.round * settings.local_steps - 1, losses={}), total)

    step("training with canaries at every site")
    with open_hospitals(load_sites(audited.folder / SITES), run.folder) as hospitals:
        trained = begin(settings, hospitals, run.folder / "run")
    _bind_by_policies(audited, trained, sites)
    with site_observers.trainings(ears.opened, ears.joined):
        run_rounds(settings, trained, watch=told)
    step("guessing the coins")
    seen, delta = _joined(ears, canaries), delta_of(settings, audit)
    return conclude(canaries, seen, ears.claim(), audit, run, secret, delta=delta, started=started)


def _bind_by_policies(audited: Run, trained: Run, sites: Sequence[Site]) -> None:
    for site in sites:
        policy = audited.site(site.name) / POLICY
        if policy.exists():
            atomic_files.write_bytes(trained.site(site.name) / POLICY, policy.read_bytes())


def _joined(ears: _Ears, canaries: Canaries) -> tuple[Scores | None, str]:
    """The odds of all sites in the order of the canaries."""
    result = np.zeros(len(canaries))
    for site, watch in ears.watches.items():
        if watch.scores is None:
            return None, watch.why
        result[np.array(canaries.sites) == site] = watch.scores
    return result, ""
