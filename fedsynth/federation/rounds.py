"""The server's loop over rounds: send, collect, check, average, keep. Pure of Flower; it sees no image and no patient.

Replies are taken in the order of the sites' names, whatever order they arrived in, so that one seed gives one result.
"""

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

import numpy as np
import torch

from fedsynth import atomic_files
from fedsynth.errors import FedSynthError
from fedsynth.federation.central_generator import CentralGenerator
from fedsynth.federation.charge_totals import ChargeTotals
from fedsynth.federation.checkpoints import ROWS, Checkpoint, newest_checkpoint, save_checkpoint
from fedsynth.federation.error_codes import ErrorCode
from fedsynth.federation.exchange import Arrays, Order, Outcome, SiteNote, bounds_of
from fedsynth.federation.fitting import Fitting, begun_from, exchanged, fitted, load, mixture
from fedsynth.federation.handshake import Agreement, Sites
from fedsynth.federation.messages import Reply
from fedsynth.federation.moving_average import mixed, straight_line
from fedsynth.federation.round_log import RoundLog, merged
from fedsynth.federation.secure_exchange import SecureExchange
from fedsynth.federation.settings import FederationSettings
from fedsynth.federation.site_context import SITES
from fedsynth.federation.strategies import ServerStrategy, make_strategy
from fedsynth.federation.update_checks import UpdateChecks, refused_samplers, refused_sums
from fedsynth.privacy.accounting import epsilon_of
from fedsynth.privacy.plan import PrivatePlan
from fedsynth.runs import Run

ATTEMPTS = 3
Check = Callable[[Mapping[str, Reply]], dict[str, Reply]]


@dataclass(frozen=True, kw_only=True)
class Progress:
    """What somebody who watches is told before and after each round.

    Before it there are no replies. `failed` are sites that broke down when they were greeted: nobody decided so.
    `notes` say what the server found wrong with its own files when it went on.
    """

    round: int
    rounds: int
    replies: tuple[Reply, ...] = ()
    epsilon: Mapping[str, float] = field(default_factory=dict)
    failed: Mapping[str, ErrorCode] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


Watch = Callable[[Progress], None]


class Rounds:
    """The loop of a run, from its newest checkpoint in `run` on."""

    def __init__(self, settings: FederationSettings, run: Run, agreement: Agreement, *, experiment: str) -> None:
        self.settings, self.run, self.agreement, self.experiment = settings, run, agreement, experiment
        self._parameters = {name for name, _ in agreement.family.nets.named_parameters()}
        self._steps = settings.exchange_steps
        self._bounds = bounds_of(
            (phase.net for phase in agreement.family.phases),
            steps=self._steps,
            classes=len(agreement.facts.classes),
            planned=None if agreement.plan is None else agreement.plan.steps,
        )
        self._shares = [f"share_{i}" for i in range(len(agreement.facts.classes))]
        self._needed = {"patients"} if settings.by_patients else set()
        self._fitting = Fitting.of(settings, agreement.family)
        begun = begun_from(settings, agreement.family)
        self._begun = {name: value.numpy().copy() for name, value in begun.items()}
        self._averaging = self._strategy()
        found, damaged = newest_checkpoint(run.checkpoints)
        self.at = found or self._start()
        self._averaging.start(self.at.weights)
        if self.at.strategy:
            self._averaging.load(self.at.strategy)
        self._refusing = [Reply(site=site, reason=code) for site, code in sorted(agreement.refused.items())]
        self._simulated = (run.folder / SITES).is_file()
        self._record = RoundLog(
            run.rounds,
            run.checkpoints / ROWS,
            kept=self.at.log,
            timed=settings.privacy is None,
            spent=self.spent,
            synced=not self._simulated,
        )
        self._notes = self._found_wrong(damaged)
        self._final: dict[str, ErrorCode] = {}  # sites that will answer no further round of this run, and why
        most = self._record.charged()
        self._charges = ChargeTotals(agreement.plan, agreement.family, known=self.at.charged, most=most)
        self._checks = UpdateChecks(settings, agreement.family, self.at.norms)

    def go(self, sites: Sites, watch: Watch) -> Checkpoint:
        """All rounds that are left."""
        if self._notes:
            watch(replace(self._beginning(self._number), notes=self._notes))
        per_round = self.settings.local_steps // self._steps
        collected: list[Reply] = []
        while self.at.round < self.settings.training_exchanges:
            number, place = self._number, self.at.round % per_round
            if not place or not collected:
                watch(self._beginning(number))
            sent = self.at.weights | self._begun
            replies = self._ask(self.at.round + 1, sites, sent, self.at.weights, self._checked_updates)
            collected += [_without_arrays(reply) for reply in replies]
            answered = [reply for reply in replies if reply.reason is None]
            if len(answered) < self.settings.quorum:
                self._log(number, collected)
                raise self._too_few(number, replies)
            self.at = self._next(self.at.round + 1, answered)
            ends = place + 1 == per_round
            if ends:  # before the checkpoint: a resumed run cuts rows off, and could not add what is lacking
                self._log(number, collected)
            self._keep()
            if ends:
                watch(self._told(number, self._rows(collected)))
                collected = []
        while (number := self.at.round - self.settings.training_exchanges) < self._fitting.exchanges:
            self._fit(number, sites, watch)
        return self.at

    @property
    def _number(self) -> int:
        """The round of training that comes next, or the last one."""
        return min(self.at.round // (self.settings.local_steps // self._steps) + 1, self.settings.rounds)

    def _fit(self, number: int, sites: Sites, watch: Watch) -> None:
        """One exchange after training; in the table it is a round more."""
        family, only = self.agreement.family, not self.settings.rounds_of_training
        if only:
            watch(Progress(round=number + 1, rounds=self._fitting.exchanges))
        load(family, self.at.ema)
        if self.settings.secure_sum:
            self._sum_securely(number, sites)
            return
        sent = {name: value.numpy().copy() for name, value in self._fitting.shown(family).items()}
        expected, last = self._fitting.expected(family, number), number == self._fitting.passes

        def check(replies: Mapping[str, Reply]) -> dict[str, Reply]:
            if last:
                return refused_samplers(replies, expected, self._parameters)
            return refused_sums(replies, self.agreement.plans)

        replies = self._ask(self.at.round + 1, sites, sent, expected, check)
        self._log(self.settings.rounds_of_training + number + 1, replies)
        answered = [reply for reply in replies if reply.reason is None]
        if len(answered) < self.settings.quorum:
            raise self._too_few(self.settings.rounds_of_training + number + 1, replies)
        arrays = [reply.outcome.arrays for reply in answered]
        if not last:
            self.at = replace(self.at, round=self.at.round + 1, ema=fitted(family, number, self.at.ema, arrays))
        else:
            weights = [self.settings.weight(reply.site, reply.outcome.metrics) for reply in answered]
            self.at = replace(
                self.at,
                round=self.at.round + 1,
                ema=mixture(self.at.ema, arrays),
                mixture=tuple(weight / sum(weights) for weight in weights),
                sites=tuple(reply.site for reply in answered),
            )
        self._keep()

    def _keep(self) -> None:
        """The checkpoint, with all that a resumed run needs to check and to tell as this one would have."""
        self.at = replace(self.at, norms=self._checks.norms, log=self._record.keep())
        self._keep_charges()

    def _keep_charges(self) -> None:
        """The checkpoint with what sites have told of since: also where a round failed, for they were charged."""
        self.at = replace(self.at, charged=dict(sorted(self._charges.known.items())))
        if self._simulated:  # its sites' states of this round lie in the run directory, and are not synced one by one
            atomic_files.sync_all(self.run.folder)
        save_checkpoint(self.run.checkpoints, self.at, self.settings.generator)

    def _log(self, number: int, replies: Sequence[Reply]) -> None:
        """A round's rows; what was found wrong when the run went on stands with the first of them."""
        self._record.add(number, self._rows(replies), note="; ".join(self._notes))
        self._notes = ()

    def _found_wrong(self, damaged: Sequence[int]) -> tuple[str, ...]:
        """What is said of the server's own files. Rounds without any checkpoint would be trained again unseen."""
        if not (self.at.round or damaged) and self._record.rounds_written() > 1:
            remedy = "put them back, or start a new run"
            raise FedSynthError("the checkpoints of the run are gone", file=self.run.checkpoints, remedy=remedy)
        lost = [f"the server's checkpoint of exchange {number} was damaged: done again" for number in sorted(damaged)]
        if self.at.round and self._record.restore():
            lost.append("the round log lacked rounds: written again from the checkpoint")
        return tuple(lost)

    def _checked_updates(self, replies: Mapping[str, Reply]) -> dict[str, Reply]:
        return self._checks.refused(replies, self.at.weights)

    def _sum_securely(self, number: int, sites: Sites) -> None:
        """The same for one noised sum of which the server sees the total alone: three exchanges in place of one."""

        def ask(order: Order, asked: Sequence[str], sent: Arrays, expected: Arrays) -> list[Reply]:
            replies = sites.ask({name: self._charges.order_for(name, order) for name in asked}, sent)
            return [self._charges.counted(self._noted(self._checked(reply, expected)), order) for reply in replies]

        row, order = self.settings.rounds_of_training + number + 1, self._order(self.at.round + 1, 0)
        exchange = SecureExchange.of(self.settings, self.agreement, number, order, self.run.folder, ask)
        summed = exchange.collect()
        self._log(row, exchange.replies)
        if summed is None:
            raise exchange.waiting() or self._too_few(row, exchange.replies)
        ema = fitted(self.agreement.family, number, self.at.ema, [summed.arrays(self.agreement.plans)])
        self.at = replace(self.at, round=self.at.round + 1, ema=ema, sites=summed.sites)
        self._keep()

    def _rows(self, collected: Sequence[Reply]) -> list[Reply]:
        """One for every site that is there, also for those that refused when they were greeted."""
        return merged([*collected, *self._refusing])

    def _beginning(self, number: int) -> Progress:
        failed = {site: code for site, code in self.agreement.refused.items() if not code.is_decision}
        return Progress(round=number, rounds=self.settings.rounds, failed=failed)

    def _told(self, number: int, replies: Sequence[Reply]) -> Progress:
        charged = {r.site: r.outcome.metrics["charged"] for r in replies if "charged" in r.outcome.metrics}
        spent = {site: self.spent(site, steps) for site, steps in charged.items()}
        rounds = self.settings.rounds
        return Progress(round=number, rounds=rounds, replies=tuple(replies), epsilon=spent)

    def spent(self, site: str, charged: float) -> float:
        """Epsilon of so many charged steps, by the site's plan; nan where the run protects nobody."""
        privacy = self.settings.privacy
        if site not in self.agreement.plans or privacy is None or privacy.insecure_seed is not None:
            return math.nan
        return _epsilon(self.agreement.plans[site], int(charged))

    def _strategy(self) -> ServerStrategy | CentralGenerator:
        if self.settings.federation == "central-generator":
            return CentralGenerator(self.settings, copy.deepcopy(self.agreement.family))
        buffers = [name for name, _ in self.agreement.family.nets.named_buffers()]
        return make_strategy(self.settings.strategy, self.settings.strategy_options, buffers=buffers)

    def _start(self) -> Checkpoint:
        """Round 0: the first weights, the same that every site starts from."""
        family = self.agreement.family
        weights = {name: value.numpy().copy() for name, value in exchanged(self.settings, family).items()}
        ema = {name: value.copy() for name, value in weights.items() if name.split(".")[0] in family.sampler}
        if self._fitting.passes:
            ema |= {
                name: value.numpy().copy()
                for name, value in family.nets.state_dict().items()
                if name.split(".")[0] in self._fitting.nets
            }
        return Checkpoint(round=0, weights=weights, ema=ema)

    def _ask(self, number: int, sites: Sites, sent: Arrays, expected: Arrays, check: Check) -> list[Reply]:
        """Ask all; where too few answered, ask the others again, a few times. `check` compares the answers."""
        replies = {
            name: Reply(site=name, reason=self._final.get(name, ErrorCode.UNREACHABLE), asked=name not in self._final)
            for name in self.agreement.sites
        }
        for attempt in range(ATTEMPTS):
            order = self._order(number, attempt)
            silent = [name for name, reply in replies.items() if self._is_asked(reply, attempt)]
            for reply in sites.ask({name: self._charges.order_for(name, order) for name in silent}, sent):
                checked = self._charges.counted(self._noted(self._checked(reply, expected)), order)
                replies[reply.site] = _adding_bytes(checked, replies[reply.site])
            replies = check(replies)
            if sum(reply.reason is None for reply in replies.values()) >= self.settings.quorum:
                break
        self._final |= {n: r.reason for n, r in replies.items() if r.reason is not None and r.reason.is_final}
        return [replies[name] for name in sorted(replies)]

    def _is_asked(self, reply: Reply, attempt: int) -> bool:
        """A site that has decided is not asked again: in this round, or at all where no new day changes it."""
        decided = reply.site in self._final or (attempt > 0 and reply.reason is not None and reply.reason.is_decision)
        return reply.reason is not None and not decided

    def _noted(self, reply: Reply) -> Reply:
        """With the site's note for the round log; who never answered before begins, and does not begin anew."""
        note = reply.outcome.note
        if note is None or (note is SiteNote.ANEW and reply.site not in self.at.sites):
            return reply
        return replace(reply, note=note.value)

    def _order(self, number: int, attempt: int) -> Order:
        training = number <= self.settings.training_exchanges
        return Order(
            round=number,
            first_step=(number - 1) * self._steps if training else self.settings.total_steps,
            steps=self._steps if training else 0,
            experiment=self.experiment,
            attempt=attempt,
            public=self.agreement.family.public,
        )

    def _checked(self, reply: Reply, expected: Arrays) -> Reply:
        """The reply, or why it cannot be used."""
        if reply.reason is not None:
            return reply
        if (wrong := self._wrong_numbers(reply.outcome.metrics)) is not None:
            return replace(reply, outcome=Outcome(), reason=wrong)  # they are told to nobody
        sent = reply.outcome.arrays
        alike = sent.keys() == expected.keys() and all(
            sent[name].shape == value.shape and sent[name].dtype == value.dtype for name, value in expected.items()
        )
        if not alike:
            return replace(reply, reason=ErrorCode.SHAPE)
        if not all(np.isfinite(value).all() for value in sent.values() if value.dtype.kind == "f"):
            return replace(reply, reason=ErrorCode.NOT_FINITE)
        return reply

    def _wrong_numbers(self, told: Mapping[str, float]) -> ErrorCode | None:
        """One site's nan, or a weight of nothing, must not end the round for all. A site's policy may withhold what the
        round can do without."""
        if not self._needed <= told.keys() <= self._bounds.keys():
            return ErrorCode.SHAPE
        bounded = {name: self._bounds[name] for name in told if not name.endswith("_loss")}
        within = all(low <= told[name] <= high for name, (low, high) in bounded.items())
        return None if within else ErrorCode.NOT_FINITE

    def _next(self, number: int, answered: Sequence[Reply]) -> Checkpoint:
        weighted = [(self.settings.weight(reply.site, reply.outcome.metrics), reply) for reply in answered]
        old = self.at.weights
        self._checks.remember(answered, old)
        new = self._averaging.step(old, [(weight, reply.outcome.arrays) for weight, reply in weighted]) if old else {}
        return Checkpoint(
            round=number,
            weights=new,
            ema=self._moved_ema(old, new, number),
            strategy=self._averaging.state(),
            shares=_mean_shares([(weight, reply.outcome.metrics) for weight, reply in weighted], self._shares),
            sites=tuple(sorted({*self.at.sites, *(reply.site for reply in answered)})),
        )

    def _moved_ema(self, old: Arrays, new: Arrays, number: int) -> Arrays:
        """The sampler's moving average after the round, as if the weights had gone straight from `old` to `new`."""
        steps = self._steps
        kept, from_old, from_new = straight_line((number - 1) * steps, steps, self.settings.half_life)
        moved = {
            name: mixed(value, old[name], new[name], (kept, from_old, from_new))
            for name, value in self.at.ema.items()
            if name in self._parameters and name in new
        }
        return self.at.ema | {name: new[name].copy() for name in self.at.ema.keys() & new.keys()} | moved

    def _too_few(self, number: int, replies: Sequence[Reply]) -> FedSynthError:
        if self.at.round and self.agreement.plan is not None:
            self._keep_charges()
        missing = ", ".join(f"{reply.site}: {reply.reason.value}" for reply in replies if reply.reason is not None)
        answered = sum(reply.reason is None for reply in replies)
        problem = (
            f"in round {number} {answered} of {len(replies)} sites answered, {self.settings.quorum} must ({missing})"
        )
        lost = any(reply.reason is ErrorCode.LEDGER for reply in replies)
        ledger = "put the site's ledger and folder back as they were, or start a new run"
        return FedSynthError(problem, remedy=ledger if lost else "mend it and go on with --resume")


def _adding_bytes(reply: Reply, before: Reply) -> Reply:
    """A reply with what earlier attempts of the same round sent to and fro."""
    up, down = reply.bytes_up + before.bytes_up, reply.bytes_down + before.bytes_down
    return replace(reply, bytes_up=up, bytes_down=down)


def _without_arrays(reply: Reply) -> Reply:
    return replace(reply, outcome=replace(reply.outcome, arrays={}))


def _mean_shares(replies: Sequence[tuple[float, Mapping[str, float]]], names: Sequence[str]) -> tuple[float, ...]:
    """The class shares of the sites that tell all of them; nothing in private runs, where no site does."""
    telling = []
    for weight, metrics in replies:
        shares = [metrics.get(name, 0.0) for name in names]
        if metrics.keys() >= set(names) and sum(shares) > 0:
            telling.append((weight, [share / sum(shares) for share in shares]))
    total = sum(weight for weight, _ in telling)
    return tuple(sum(weight * shares[i] for weight, shares in telling) / total for i in range(len(names)) if telling)


@lru_cache(maxsize=4096)
def _epsilon(plan: PrivatePlan, charged: int) -> float:
    return epsilon_of([plan.steps_of(charged)], plan.settings.delta) if charged else 0.0


def as_tensors(arrays: Arrays) -> dict[str, torch.Tensor]:
    """Weights as torch has them."""
    return {name: torch.from_numpy(np.array(value)) for name, value in arrays.items()}
