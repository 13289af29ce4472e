"""What a federation leaves behind: the averaged sampler with its card, and the discriminator where the server saw
one.
"""

from pathlib import Path

from fedsynth import config
from fedsynth.federation.checkpoints import Checkpoint
from fedsynth.federation.handshake import Agreement, as_agreement
from fedsynth.federation.rounds import as_tensors
from fedsynth.federation.settings import FederationSettings
from fedsynth.models.downstream.tasks import NETWORKS
from fedsynth.privacy.lineage import PHANTOMS, Lineage, LineageRun, PatientGroup
from fedsynth.runs import Run
from fedsynth.training.checkpoint import DISCRIMINATOR, Card, save_sampler, save_tensors
from fedsynth.training.lineage import PATIENTS, lineage_before, promised

NETWORK = "network.safetensors"


def release(settings: FederationSettings, folder: Path, agreement: Agreement, end: Checkpoint, run: Run) -> None:
    """Write discriminator, generator and card, in this order: where the card is, everything is. Where every site kept
    its own there is nothing at the server to release.
    """
    if not end.ema:
        return
    if settings.generator in NETWORKS:  # a task network draws nothing and has no card
        save_tensors(folder / NETWORK, as_tensors(end.ema), {"network": settings.generator})
        return
    seen = {name: value for name, value in end.weights.items() if name.split(".")[0] not in agreement.family.sampler}
    if seen:
        save_tensors(folder / DISCRIMINATOR, as_tensors(seen), {"generator": settings.generator})
    save_sampler(folder, as_tensors(end.ema), card_of(settings, agreement, end, run))


def card_of(settings: FederationSettings, agreement: Agreement, end: Checkpoint, run: Run) -> Card:
    """The card of the released sampler; in private runs nothing on it was counted from patients."""
    agreement = as_agreement(agreement, settings, end.sites or agreement.sites)
    facts, n = agreement.facts, len(agreement.facts.classes)
    lineage = lineage_of(settings, agreement, end, run)
    return Card(
        generator=settings.generator,
        shape=agreement.family.shape,
        options=settings.options,
        pairing=settings.pairing,
        channels=facts.channels,
        classes=facts.classes,
        mask_labels=facts.mask_labels,
        spacing_mm=facts.spacing_mm,
        class_shares=tuple(round(share, 6) for share in end.shares) if end.shares else (1 / n,) * n if n else (),
        steps=lineage.runs[-1].steps,
        trained_on=_trained_on(agreement),
        privacy=lineage.claim(),
        lineage=lineage,
        private=settings.privacy is not None,
        mixture=tuple(round(share, 6) for share in end.mixture),
    )


def lineage_of(settings: FederationSettings, agreement: Agreement, end: Checkpoint, run: Run) -> Lineage:
    """What the run goes on from, and the run with a group of patients for every site."""
    training = settings.training()
    private = settings.privacy is not None and settings.privacy.insecure_seed is None
    return lineage_before(training, agreement.facts.shape, run=run.folder.name).then(
        LineageRun(
            run=run.folder.name,
            generator=settings.generator,
            images=_trained_on(agreement),
            steps=min(end.round * settings.exchange_steps, settings.total_steps),
            training="private" if private else "plain" if settings.privacy is None else "insecure",
            public=PHANTOMS if agreement.facts.phantoms else "",
            patients=_groups(agreement, run),
        )
    )


def _groups(agreement: Agreement, run: Run) -> tuple[PatientGroup, ...]:
    """The sites' patients; whom they share with others is known where the sites are simulated, in the run itself."""
    written = config.parse_toml(run.folder / PATIENTS)["group"] if (run.folder / PATIENTS).is_file() else []
    known = {group.site: group for group in (config.read_table(PatientGroup, table) for table in written)}
    groups = [known.get(site, PatientGroup(site=site)) for site in agreement.sites]
    return tuple(promised(one, agreement.plans[one.site]) if one.site in agreement.plans else one for one in groups)


def _trained_on(agreement: Agreement) -> str:
    return f"{len(agreement.sites)} sites: {', '.join(agreement.sites)}"
