"""What a federation leaves behind: the averaged sampler with its card, and the critic where the server saw one."""

from pathlib import Path

from safetensors.torch import save

from fedsynth import files
from fedsynth.federation.checkpoints import Checkpoint
from fedsynth.federation.meeting import Met, as_met
from fedsynth.federation.server import as_tensors
from fedsynth.federation.settings import FederationSettings
from fedsynth.tasks.catalog import NETWORKS
from fedsynth.training.checkpoint import Card, save_sampler
from fedsynth.training.preparing import INSECURE, PLAIN, claim_text

CRITIC, NETWORK = "critic.safetensors", "network.safetensors"


def release(settings: FederationSettings, folder: Path, met: Met, end: Checkpoint) -> None:
    """Write critic, generator and card, in this order: where the card is, everything is. Where every site kept its own
    there is nothing at the server to release."""
    if not end.average:
        return
    if settings.generator in NETWORKS:  # a task network draws nothing and has no card
        content = save(as_tensors(end.average), {"network": settings.generator})
        files.write_bytes(folder / NETWORK, content)
        return
    seen = {name: value for name, value in end.weights.items() if name.split(".")[0] not in met.family.sampler}
    if seen:
        files.write_bytes(folder / CRITIC, save(as_tensors(seen), {"generator": settings.generator}))
    save_sampler(folder, as_tensors(end.average), card_of(settings, met, end))


def card_of(settings: FederationSettings, met: Met, end: Checkpoint) -> Card:
    """The card of the released sampler; in private runs nothing on it was counted from patients."""
    met = as_met(met, settings, end.sites or met.sites)
    facts, n = met.facts, len(met.facts.classes)
    return Card(
        generator=settings.generator,
        shape=met.family.shape,
        options=settings.options,
        pairing=settings.pairing,
        channels=facts.channels,
        classes=facts.classes,
        mask_labels=facts.mask_labels,
        spacing_mm=facts.spacing_mm,
        class_shares=tuple(round(share, 6) for share in end.shares) if end.shares else (1 / n,) * n if n else (),
        steps=min(end.round * settings.exchange_steps, settings.total_steps),
        trained_on=f"{len(met.sites)} sites: {', '.join(met.sites)}",
        privacy=claim(settings, met),
        private=settings.privacy is not None,
        public=facts.phantoms,
        mixture=tuple(round(share, 6) for share in end.mixture),
    )


def claim(settings: FederationSettings, met: Met) -> str:
    """What was promised to every patient of every site."""
    if settings.privacy is None or met.plan is None:
        return PLAIN
    if settings.privacy.insecure_seed is not None:
        return INSECURE
    return f"{claim_text(met.plan)}; at every site alike, where no patient is in two of them"
