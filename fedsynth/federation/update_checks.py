"""Updates and sums that no honest site can send: far larger than the others', or than the optimiser and the plan allow.

The checks catch garbage (a broken site, a file of another scale), not an adversary who stays within the bounds: robust
strategies and fewer trusted parties are for that. Pure of Flower; it sees weights and sums, no images.
"""

import math
import statistics
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import numpy as np

from fedsynth.federation.error_codes import ErrorCode
from fedsynth.federation.exchange import Arrays, Sent
from fedsynth.federation.messages import Reply
from fedsynth.federation.settings import FederationSettings
from fedsynth.models.base import Model
from fedsynth.privacy.patient_statistics import COUNT, LARGEST
from fedsynth.privacy.plan import PrivatePlan
from fedsynth.training.fitting import FITTED
from fedsynth.training.session import recipe_of

FACTOR = 30.0
"""How much longer than the usual update one may be.

Adam moves every weight by about its rate per step, so that k steps move it by rate times sqrt(k) where they wander and
by rate times k where they agree: honest sites differ by sqrt(k) at most, 7 at 50 steps and 14 at 200.
"""
GRADIENT_FACTOR = 1000.0
"""The same for gradients, which follow the scale of the loss."""
KEPT = 5  # rounds whose usual norm is remembered
ENOUGH = 3  # sites whose median says what is usual
MARGIN = 10.0  # a declared number of patients is a round number near the truth
LARGEST_SUM = 1e30  # buffers are float32


class UpdateChecks:
    """The norms of updates: what was usual in the last rounds (`norms`), and what is too large beside it."""

    def __init__(self, settings: FederationSettings, family: Model, norms: Sequence[float]) -> None:
        self._settings, self._family, self.norms = settings, family, tuple(norms)
        self._gradients = settings.federation == "central-generator"
        self._parameters = frozenset(name for name, _ in family.nets.named_parameters())
        self._measured: dict[str, tuple[float, float]] = {}  # of the replies that were looked at last
        self._factor = GRADIENT_FACTOR if self._gradients else FACTOR

    def refused(self, replies: Mapping[str, Reply], old: Arrays) -> dict[str, Reply]:
        """The replies of a round, those with too large an update refused."""
        self._measured = {name: self._norms(reply.outcome.arrays, old) for name, reply in _answered(replies).items()}
        most = self._usual_limit([norm for norm, _ in self._measured.values()], old)
        longest = self._longest(old)
        too_large = {name for name, (norm, own) in self._measured.items() if norm > most or own > longest}
        return _without(replies, too_large)

    def remember(self, replies: Sequence[Reply], old: Arrays) -> None:
        """A round has ended with these."""
        moved = [norm for reply in replies if (norm := self._measured_or_new(reply, old)) > 0]
        if moved:
            self.norms = (*self.norms, statistics.median_low(moved))[-KEPT:]

    def _measured_or_new(self, reply: Reply, old: Arrays) -> float:
        found = self._measured.get(reply.site)
        return (self._norms(reply.outcome.arrays, old) if found is None else found)[0]

    def _norms(self, sent: Sent, old: Arrays) -> tuple[float, float]:
        """The length of the update: of all that is averaged, and of the parameters. A gradient is one by itself."""
        total = own = 0.0
        for name, value in sent.items():
            if value.dtype.kind != "f":
                continue
            is_own = name in self._parameters
            with np.errstate(over="ignore", invalid="ignore"):  # longer than any limit then
                change = (value if self._gradients and is_own else value - old[name]).ravel()
                square = float(np.dot(change, change))
            total += square
            own += square if is_own else 0.0
        return (math.sqrt(total), math.sqrt(own)) if math.isfinite(total) else (math.inf, math.inf)

    def _usual_limit(self, norms: Sequence[float], old: Arrays) -> float:
        """By this round's median and that of the last rounds, whichever is larger; sites that took no step count not.

        Two sites alone, in a first round: the larger may be as long as all weights are, whatever the other sent.
        """
        moved = [norm for norm in norms if norm > 0]
        usual = [statistics.median_low(moved)] if len(moved) >= ENOUGH else []
        usual += [statistics.median(self.norms)] if self.norms else []
        if usual:
            return self._factor * max(usual)
        return max(self._factor * min(moved), _length(old)) if len(moved) > 1 else math.inf

    def _longest(self, old: Arrays) -> float:
        """What Adam can do in a round, whatever its gradients: noise of a private run included. Clipping weights, as a
        Wasserstein GAN does, moves them towards zero, by no more than their own length."""
        if self._gradients:
            return math.inf
        recipe = recipe_of(self._settings.training())
        first, second = recipe.betas
        most = 1 / math.sqrt((1 - second) * max(1e-9, 1 - first**2 / second))  # of a weight in a step, in rates
        total = 0.0
        for name in self._parameters & old.keys():
            net = name.split(".")[0]
            rate = recipe.rates.get(net, recipe.rates.get(net.partition("-")[0], recipe.rate))
            turns = sum(phase.net == net for phase in self._family.phases)
            total += old[name].size * (most * rate * turns * self._settings.exchange_steps) ** 2
        return math.sqrt(total) + _length(_of(self._parameters, old))


def refused_sums(replies: Mapping[str, Reply], plans: Mapping[str, PrivatePlan]) -> dict[str, Reply]:
    """Replies of an exchange of sums, those refused whose sums no patients and no noise can have made."""
    wrong = {name for name, reply in _answered(replies).items() if not _possible(reply.outcome.arrays, plans.get(name))}
    return _without(replies, wrong)


def refused_samplers(replies: Mapping[str, Reply], first: Arrays, parameters: Collection[str]) -> dict[str, Reply]:
    """Replies of sites that trained apart, those refused whose sampler's weights are far longer than the others' and
    than the `first` ones; fitted buffers have no such scale."""
    sent = {name: reply.outcome.arrays for name, reply in _answered(replies).items()}
    lengths = {site: _length(_of(parameters, arrays)) for site, arrays in sent.items()}
    usual = [_length(_of(parameters, first))]
    usual += [statistics.median_low(lengths.values())] if len(lengths) >= ENOUGH else []
    too_long = {site for site, length in lengths.items() if length > FACTOR * max(usual)}
    return _without(replies, too_long | {site for site, arrays in sent.items() if _too_large(arrays)})


def _possible(sums: Sent, plan: PrivatePlan | None) -> bool:
    if _too_large(sums):
        return False
    if f"{FITTED}.total" not in sums:
        return True
    total, patients = _length({"total": sums[f"{FITTED}.total"]}), float(sums[f"{FITTED}.patients"])
    variance = float(sums[f"{FITTED}.variance"])
    if plan is None:  # every patient's vector has norm 1 at most
        return variance == 0 and total <= 1.001 * patients
    noise, length = plan.noise * LARGEST, sums[f"{FITTED}.total"].size
    declared = plan.settings.patients
    return (
        math.isclose(variance, noise**2, rel_tol=0.01)
        and total <= MARGIN * (declared + noise * math.sqrt(length))
        and abs(patients) <= MARGIN * (declared + noise / COUNT)
    )


def _answered(replies: Mapping[str, Reply]) -> dict[str, Reply]:
    return {name: reply for name, reply in replies.items() if reply.reason is None}


def _without(replies: Mapping[str, Reply], refused: set[str]) -> dict[str, Reply]:
    wrong = {name: replace(replies[name], reason=ErrorCode.TOO_LARGE) for name in refused}
    return {**replies, **wrong}


def _too_large(arrays: Sent) -> bool:
    return any(np.abs(value).max(initial=0.0) > LARGEST_SUM for value in arrays.values())


def _of(names: Collection[str], arrays: Sent) -> Arrays:
    return {name: arrays[name] for name in arrays.keys() & names}


def _length(arrays: Arrays) -> float:
    squares = (
        float(np.sum(np.square(value.astype(np.float64)))) for value in arrays.values() if value.dtype.kind == "f"
    )
    return math.sqrt(math.fsum(squares))
