"""What a run asks of a site, read off its settings: what the site's policy is held against."""

import torch

from fedsynth.federation.exchange import Facts
from fedsynth.federation.handshake import shape_of
from fedsynth.federation.policy import Asked
from fedsynth.federation.settings import FederationSettings
from fedsynth.models.facts import is_fitted
from fedsynth.training.session import fresh_family, recipe_of

LARGEST_SHARE = 0.9
"""An average in which one site weighs more than this counts as that site's own sampler."""


def asked_of(
    settings: FederationSettings, site: str, *, networks: tuple[str, ...] = (), metrics: tuple[str, ...] = ()
) -> Asked:
    """Of the site of that name, by the settings that the server sent."""
    privacy = settings.privacy
    private = privacy is not None and privacy.insecure_seed is None
    return Asked(
        generator=settings.generator,
        private=private,
        epsilon=privacy.epsilon if privacy is not None else None,
        delta=privacy.delta if privacy is not None else None,
        patients=settings.patients_of(site) if privacy is not None else None,
        networks=networks,
        metrics=metrics,
        secure_sum=settings.secure_sum,
        released_alone=_released_alone(settings, site),
        rounds=settings.rounds,
        local_steps=settings.local_steps,
        batch=_images_per_step(settings),
    )


def count_parameters(settings: FederationSettings, facts: Facts) -> int:
    """The weights of the networks, counted without making them: those too large for a policy may be too large for the
    memory. A fitted family trains none."""
    if is_fitted(settings.generator):
        return 0
    with torch.device("meta"):
        family = fresh_family(settings.training(), shape_of(settings, facts))
    return sum(value.numel() for value in family.nets.parameters())


def _released_alone(settings: FederationSettings, site: str) -> bool:
    """Whether the plan allows a release that is the site's own sampler, or an average that is nearly that.

    Declared sizes count against the smallest of the others that the least quorum needs: those alone may answer.
    """
    if settings.federation in ("one-shot", "none"):
        return settings.federation == "one-shot"
    own = settings.declared.get(site, 0.0)
    others = sorted(size for name, size in settings.declared.items() if name != site)[: settings.quorum - 1]
    return settings.quorum == 1 or own > LARGEST_SHARE * (own + sum(others))


def _images_per_step(settings: FederationSettings) -> int:
    """Real or synthetic, whichever are more; a fit takes no steps."""
    if is_fitted(settings.generator):
        return 0
    if settings.privacy is None:
        return recipe_of(settings.training()).batch
    declared = settings.privacy.settings()
    return max(declared.batch * declared.slices_per_patient, settings.privacy.fakes)
