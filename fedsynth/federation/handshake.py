"""How a training begins: the server sends a handshake to every site, and agrees with who is willing on what the images
are like.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Protocol

from fedsynth.errors import ConfigError, FedSynthError
from fedsynth.federation.error_codes import SAME_POOL, ErrorCode
from fedsynth.federation.exchange import Arrays, Facts, Order
from fedsynth.federation.messages import Hello, Reply
from fedsynth.federation.settings import FederationSettings
from fedsynth.models.base import ImageShape, Model
from fedsynth.models.pairing import read_pairing
from fedsynth.privacy.plan import PrivatePlan
from fedsynth.training.lineage import start_networks
from fedsynth.training.pretraining import pretrain
from fedsynth.training.session import fresh_family, plan_privacy


class Sites(Protocol):
    """Everybody who may take part, however they are reached."""

    def handshake(self) -> list[Hello]:
        """Handshakes of all who can be reached, in the order of names."""

    def ask(self, orders: Mapping[str, Order], arrays: Arrays) -> list[Reply]:
        """A round's replies of the sites named, one each, in the order of names; silence is a reply with a reason."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Agreement:
    """The federation as the server knows it when it begins. `plan` claims what holds at every site of `plans`.

    `refused` are the sites that will not take part, and why.
    """

    sites: tuple[str, ...]
    facts: Facts
    family: Model
    plan: PrivatePlan | None = None
    plans: Mapping[str, PrivatePlan] = field(default_factory=dict)
    refused: Mapping[str, ErrorCode] = field(default_factory=dict)


def handshake(settings: FederationSettings, sites: Sites) -> Agreement:
    """Greet everybody and agree on what the images are like; too few who are willing is an error that says why."""
    hellos = sites.handshake()
    willing = {hello.site: hello.facts for hello in hellos if hello.facts is not None}
    if len(willing) < settings.quorum:
        raise FedSynthError(
            f"{len(willing)} of {settings.sites} sites take part and {settings.quorum} must{_why(hellos)}",
            remedy="see the log in the sites' own folders",
        )
    first = next(iter(sorted(willing)))
    facts = willing[first]
    for name, other in willing.items():
        if (differs := _difference(facts, other)) is not None:
            raise ConfigError(f"the sites {first!r} and {name!r} differ in {differs}: import their images alike first")
    facts = replace(facts, phantoms=all(one.phantoms for one in willing.values()))
    family = fresh_family(settings.training(), shape_of(settings, facts))
    for name, other in willing.items():
        if other.public != family.public:
            pools = f"{other.public or 'none'} and {family.public or 'none'}"
            raise ConfigError(f"the site {name!r} and the server differ in the public pool ({pools})", remedy=SAME_POOL)
    pretrain(settings.training(), facts.shape)
    start_networks(family, settings.training(), facts.shape)
    plans = _plans(settings, sorted(willing), family)
    return Agreement(
        sites=tuple(sorted(willing)),
        facts=facts,
        family=family,
        plan=_weakest(plans),
        plans=plans,
        refused=_refused(hellos, willing),
    )


def shape_of(settings: FederationSettings, facts: Facts) -> ImageShape:
    """What the family is built for."""
    if not settings.pairing:
        return facts.shape
    return read_pairing(settings.pairing, facts.channels, facts.mask_labels).shape(facts.shape, facts.mask_labels)


def as_agreement(agreement: Agreement, settings: FederationSettings, sites: Sequence[str]) -> Agreement:
    """The same federation as if those `sites` had been met, whether or not they are there now."""
    known = {site: plan for site, plan in agreement.plans.items() if site in sites}
    known |= _plans(settings, sorted(set(sites) - known.keys()), agreement.family)
    plans = {site: known[site] for site in sorted(known)}
    return replace(agreement, sites=tuple(sorted(sites)), plan=_weakest(plans), plans=plans)


def _plans(settings: FederationSettings, sites: Sequence[str], family: Model) -> dict[str, PrivatePlan]:
    """Each site's mechanism, by the public size that was declared for it; none in plain runs."""
    if settings.declared and (missing := set(sites) - settings.declared.keys()):
        raise ConfigError("--weighting declares no size of a site", value=sorted(missing))
    if settings.privacy is None:
        return {}
    training, privacy = settings.training(), settings.privacy
    sizes = {site: settings.patients_of(site) for site in sites}
    by_size = {
        size: plan_privacy(
            replace(training, privacy=replace(privacy, patients=size)), family, settings.total_steps, settings.shares
        )
        for size in sorted(set(sizes.values()))
    }
    return {site: by_size[size] for site, size in sizes.items()}


def _weakest(plans: Mapping[str, PrivatePlan]) -> PrivatePlan | None:
    """A plan whose claim is no better than any site's."""
    if not plans:
        return None
    claims = [plan.claim for plan in plans.values()]
    worst = {name: max(getattr(claim, name) for claim in claims) for name in ("epsilon", "renyi", "replace_one")}
    plan = next(iter(plans.values()))
    return replace(plan, claim=replace(plan.claim, **worst))


def _difference(first: Facts, other: Facts) -> str | None:
    for name in ("channels", "size", "classes", "mask_labels", "spacing_mm"):
        if getattr(first, name) != getattr(other, name):
            return f"{name.replace('_', '-')} ({list(getattr(first, name))} and {list(getattr(other, name))})"
    return None


def _refused(hellos: Sequence[Hello], willing: Collection[str]) -> dict[str, ErrorCode]:
    """Why each of the others will not take part; those without a name are counted."""
    others = [hello for hello in hellos if hello.site not in willing]
    nameless = (f"unnamed-{i}" for i in count(1))
    return {hello.site or next(nameless): hello.refused for hello in others if hello.refused is not None}


def _why(hellos: Sequence[Hello]) -> str:
    refused = [f"{hello.site or 'a site'}: {hello.refused.value}" for hello in hellos if hello.refused is not None]
    return f" ({', '.join(refused)})" if refused else ""
