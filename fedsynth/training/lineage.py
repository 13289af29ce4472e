"""The lineage of a run as it begins: that of the run which it goes on from, checked, and its own patients.

It knows cards, stores and declarations; what they promise together is reckoned in `privacy`.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from fedsynth.config import load_toml
from fedsynth.data import Header
from fedsynth.errors import FedSynthError, RefusedError
from fedsynth.models.base import ImageShape, Model
from fedsynth.privacy.ledger import Ledger, default_store
from fedsynth.privacy.lineage import DECLARED, PHANTOMS, Lineage, LineageRun, PatientGroup, Training
from fedsynth.privacy.patient_tags import Identities
from fedsynth.privacy.plan import PrivatePlan
from fedsynth.runs import Run
from fedsynth.training.checkpoint import CARD, Card, start_from, start_from_release
from fedsynth.training.patient_batches import PatientBatches
from fedsynth.training.public_start import start_run
from fedsynth.training.settings import TrainSettings
from fedsynth.training.site_storage import CENTRALISED, STATE, SiteStorage

PATIENTS = "patients.toml"
"""In a simulated run: the group of each site's patients, and what is known of whom it shares with earlier runs."""


@dataclass(frozen=True, kw_only=True)
class Origin:
    """What a run begins with: its name, the lineage `before` it, and the group of patients that it reads."""

    run: str = ""
    before: Lineage = field(default_factory=Lineage)
    patients: PatientGroup

    def lineage(
        self, settings: TrainSettings, header: Header, *, steps: int, training: Training, plan: PrivatePlan | None
    ) -> Lineage:
        """With the run itself as the last one, after so many `steps`."""
        return self.before.then(
            LineageRun(
                run=self.run,
                generator=settings.generator,
                images=header.name,
                steps=steps,
                training=training,
                public=PHANTOMS if header.phantoms else "",
                patients=(self.patients if plan is None else promised(self.patients, plan),),
            )
        )


def origin_of(dataset: PatientBatches, settings: TrainSettings, storage: SiteStorage | None) -> Origin:
    """Of a run of one site; refused where it must not go on from there.

    Without a disk nothing is written, and its patients have no name.
    """
    told = None if settings.privacy is None else settings.privacy.store
    store = told if storage is None or storage.store is None else storage.store
    run, phantoms = "" if storage is None else storage.run, dataset.images.header.phantoms
    patients = () if phantoms else dataset.patients
    before = lineage_before(settings, dataset.shape, run=run, patients=patients, store=store)
    site = CENTRALISED if storage is None else storage.site
    known = storage is not None and not phantoms
    group = group_of(site, dataset.patients, before, store) if known else PatientGroup(site=site)
    return Origin(run=run, before=before, patients=group)


def start_networks(family: Model, settings: TrainSettings, shape: ImageShape) -> None:
    """Give the family the networks that the run with images of this shape goes on from, if it goes on from any."""
    if settings.start is None:
        return
    remedy = "train that run with --private-networks, and the same --option" if settings.privacy else ""
    run = start_run(settings, shape)
    if (state := run.site(CENTRALISED) / STATE).exists():
        start_from(state, family, settings.generator, remedy=remedy)
    else:
        start_from_release(run.checkpoints, family, settings.generator, remedy=remedy)


def lineage_of(run: Run) -> Lineage:
    """The lineage on the card of a finished run; where the card has none, nobody knows what the run cost whom."""
    card = load_toml(Card, run.checkpoints / CARD)
    if card.lineage.runs:
        return card.lineage
    name, images = run.folder.name, card.trained_on
    unknown = LineageRun(run=name, generator=card.generator, images=images, steps=card.steps, training="unknown")
    return Lineage(runs=(unknown,))


def lineage_before(
    settings: TrainSettings,
    shape: ImageShape,
    *,
    run: str = "",
    patients: Iterable[str] = (),
    store: Path | None = None,
) -> Lineage:
    """What a run with images of this shape goes on from, with what its user declares public; refused where that cannot
    be.

    `patients` are those whom the run will read, as far as they are known.
    """
    if settings.start is None:
        return Lineage()
    before = lineage_of(start_run(settings, shape))
    if settings.public_start:
        before = before.declared_public(by=run)
    if shared := _declared_with(before, list(patients), store):
        problem = f"run {shared.run!r} learnt from patients of this set, who are not public ({shared.public})"
        remedy = f"leave out {DECLARED}" if settings.public_start else "start from another run"
        remedy += "; if they are other people, give them other names"
        raise RefusedError(problem, file=settings.start, remedy=remedy)
    if settings.privacy is not None and before.exposed:
        problem = f"a private run cannot start from one that was trained without privacy ({before.exposed[0]})"
        remedy = f"start from phantoms, or declare with {DECLARED} that those images are public"
        raise RefusedError(problem, file=settings.start, remedy=remedy)
    return before


def group_of(site: str, patients: Iterable[str], before: Lineage, store: Path | None) -> PatientGroup:
    """The patients of a site under a keyed name, kept in its store so that later runs can be compared with them.

    Where that cannot be, nobody will be able to tell them from others.
    """
    names, ledger = list(patients), Ledger(site, store)
    if "" in names:
        return PatientGroup(site=site)
    try:
        digest = ledger.remember(names).digest
        known = dict.fromkeys(before.digests)
        apart = tuple(one for one in known if ledger.identities.shares(names, one) is False)
    except FedSynthError:
        return PatientGroup(site=site)
    return PatientGroup(site=site, digest=digest, disjoint_from=apart)


def promised(group: PatientGroup, plan: PrivatePlan) -> PatientGroup:
    """The group with what a run of this plan promises each of its patients."""
    claim = plan.claim
    return replace(
        group,
        mechanisms=(plan.mechanism,),
        epsilon=claim.epsilon,
        replace_one=claim.replace_one,
        renyi=claim.renyi,
        delta=claim.delta,
        assumption=plan.assumption,
    )


def _declared_with(before: Lineage, patients: list[str], store: Path | None) -> LineageRun | None:
    """The run whose images are declared public although some of the `patients` are among them."""
    identities = Identities(default_store() if store is None else store)
    groups = ((run, group) for run in before.declared for group in run.patients if patients)
    return next((run for run, group in groups if identities.shares(patients, group.digest)), None)
