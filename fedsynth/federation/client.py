"""What a site does with a message: greet, and train a round. Pure of Flower; the site's storage holds all that it
knows.

A round begins from the newest state of an earlier round and the received weights. Both, and every random number,
follow from what is on disk and in the message, so a site that was killed does the round again to the same bits.
"""

import json
import math
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedsynth import atomic_files
from fedsynth.data import ImageSet
from fedsynth.errors import DamagedError, FedSynthError, RefusedError
from fedsynth.federation.asked import asked_of, count_parameters
from fedsynth.federation.central_generator import refuse_what_is_not_central
from fedsynth.federation.error_codes import SAME_POOL, ErrorCode, NeutralError, OtherPoolError, keep_to_itself, log_only
from fedsynth.federation.exchange import Arrays, Facts, Order, Outcome, SiteNote
from fedsynth.federation.fitting import Fitting, begun_from, exchanged
from fedsynth.federation.ledger_copies import refuse_older
from fedsynth.federation.order_digest import digest_of
from fedsynth.federation.proximal import Proximal
from fedsynth.federation.secure_site import SecureSite
from fedsynth.federation.sent_sampler import SentSampler
from fedsynth.federation.settings import FederationSettings
from fedsynth.federation.site_context import SiteContext
from fedsynth.federation.trained_rounds import TrainedRounds
from fedsynth.models.facts import PUBLIC
from fedsynth.privacy.ledger import Ledger, read_ledger
from fedsynth.privacy.secure_rng import InsecureRandomness
from fedsynth.training.checkpoint import load_state, read_notes, save_generator, save_state
from fedsynth.training.loss_log import LossLog
from fedsynth.training.random_streams import stream_seed
from fedsynth.training.session import Prepared, prepare, recipe_of, training_members
from fedsynth.training.settings import TrainSettings
from fedsynth.training.site_storage import SiteStorage

OnStep = Callable[[str, int, int], None]
LOSSES, STATES = "losses.csv", "state-*.safetensors"


class SiteWork:
    """What one site does for one training of a run. It stays in memory between rounds; the disk alone is as good."""

    def __init__(self, site: SiteContext, settings: FederationSettings, *, experiment: str) -> None:
        self.site, self.settings = site, settings
        site.policy.check(asked_of(settings, site.name))  # before any image is read
        images = site.images()
        if site.policy.max_parameters is not None:
            site.policy.check_parameters(count_parameters(settings, Facts.of(images)))
        self.prepared = self._prepare(images, experiment)
        self.trainer, self.family = self.prepared.trainer, self.prepared.trainer.family
        if not site.simulated:
            atomic_files.sweep(site.folder, STATES)
            _note_members(self.prepared, site.folder)
        self.facts = Facts.of(images, public=self.family.public)
        if settings.federation == "central-generator":
            refuse_what_is_not_central(self.family)
            self.trainer.remote_networks = frozenset(self.family.sampler)
        self.leaving = settings.leaving(self.family.shared, self.family.sampler)
        self.fitting = Fitting.of(settings, self.family)
        needed = ("patients",) if settings.by_patients else ()
        site.policy.check(asked_of(settings, site.name, networks=self.leaving, metrics=needed))
        if self.prepared.mechanism is None or not self.prepared.mechanism.private:  # a refusal tells how many there are
            site.policy.check_patients(len(self.prepared.dataset.patients))
        self._proximal = Proximal(self.trainer.gradients, self.family, settings.pull) if settings.pull else None
        if self._proximal is not None:
            self.trainer.gradients = self._proximal
        self._in_memory: tuple[int, int] | None = None
        self._moved = False
        planned = settings.training_exchanges + self.fitting.exchanges
        counted = not site.simulated and self._promise != "private"
        self._trained = TrainedRounds(site.folder, planned=planned) if counted else None
        self._sent = SentSampler(site.folder)
        self._losses: LossLog | None = None
        self._busy = Lock()

    def can_train(self, round: int) -> bool:  # noqa: A002
        """Whether a round can begin from here: without a whole earlier state, only in networks that never moved."""
        return not self._moved or any(self._usable(number) for number in self._before(round))

    def train(self, order: Order, received: Mapping[str, NDArray[Any]], *, on_step: OnStep | None = None) -> Outcome:
        """One round. What was finished and lost on the way is sent again, and costs patients nothing."""
        if not _within(order, self.settings):
            raise NeutralError(ErrorCode.SETTINGS)
        if order.public != self.family.public:
            problem = f"the server's public pool is {order.public or 'none'}, and this site's {self.family.public}"
            raise OtherPoolError(problem, remedy=SAME_POOL)
        if not self._busy.acquire(blocking=False):
            raise NeutralError(ErrorCode.BUSY)
        try:
            digest = digest_of(order, received)
            fits = order.round > self.settings.training_exchanges
            if not fits and (finished := self._finished(order, digest)):
                return finished
            if self._trained is not None:
                self._trained.count(digest)
            return self._fit(order, received) if fits else self._train(order, received, digest, on_step)
        finally:
            self._busy.release()

    def _train(
        self, order: Order, received: Mapping[str, NDArray[Any]], digest: str, on_step: OnStep | None
    ) -> Outcome:
        self._sent.refuse_training()
        begins = not any(self._usable(number) for number in self._before(order.round))
        note = self._restore(before=order.round)
        self._in_memory, self._moved = None, True
        self._check_charged(order)
        self.trainer.remote_updates.clear()
        self._receive(received, begins=begins)
        self.trainer.step = order.first_step
        if self._insecure_seed is not None:
            label = f"{self.site.name} {order.round}"
            self.prepared.restart_insecure(InsecureRandomness(self._insecure_seed, label))
        steps = self.prepared.pay(order.first_step, order.steps, round=order.round)
        losses: dict[str, list[float]] = defaultdict(list)
        log = self._loss_log(order.first_step)
        for done, report in enumerate(self.trainer.run(steps), 1):
            log.add(report)
            for net, loss in report.losses.items():
                losses[net].append(loss)
            if on_step is not None:
                on_step(self.site.name, done, order.steps)
        log.save()
        metrics = self._metrics({net: math.fsum(values) / len(values) for net, values in losses.items()}, steps)
        self._save(order, digest, metrics, note)
        return Outcome(arrays=self._leaving_arrays(), metrics=self.site.policy.telling(metrics), note=note)

    def _loss_log(self, first: int) -> LossLog:
        if self._losses is None:
            timed, synced = self.prepared.mechanism is None, not self.site.simulated
            path = self.site.folder / LOSSES
            self._losses = LossLog(path, first=first, site=self.site.name, timed=timed, synced=synced)
        self._losses.begin(first)
        return self._losses

    def _fit(self, order: Order, received: Mapping[str, NDArray[Any]]) -> Outcome:
        """Sums over this site's images in the networks received; or, last in a one-shot federation, its own sampler."""
        number = order.round - self.settings.training_exchanges - 1
        if not 0 <= number < self.fitting.exchanges:
            raise NeutralError(ErrorCode.SETTINGS)
        note = self._restore(before=order.round)
        self._moved, ema = True, self.trainer.ema
        self._check_charged(order)
        if self._insecure_seed is not None:
            self.prepared.restart_insecure(InsecureRandomness(self._insecure_seed, f"{self.site.name} {order.round}"))
        if self.settings.secure_sum:
            place = SecureSite(self.site.folder, self.site.name, fewest=self.settings.quorum, most=self.settings.sites)
            arrays = place.answer(order, received, lambda: self.prepared.sums(number, round=order.round))
        elif number == self.fitting.passes:
            if note is SiteNote.ANEW:
                raise NeutralError(ErrorCode.STATE)
            self._sent.note(self.trainer.step)
            self.prepared.fit(but=self.fitting.nets)
            arrays = {name: value.cpu().numpy() for name, value in self.fitting.own(ema.values).items()}
        else:
            with ema.in_place(self.family):
                self._copy(received, self.fitting.shown(self.family))
                sums = self.prepared.sums(number, round=order.round)
            arrays = {name: value.cpu().numpy() for name, value in self.fitting.pooled(sums).items()}
        told = {name: value for name, value in self._metrics({}, 0).items() if not name.endswith("_loss")}
        return Outcome(arrays=arrays, metrics=self.site.policy.telling(told), note=note)

    def _check_charged(self, order: Order) -> None:
        """Refuse to train on a ledger that lacks what this site has told the server of, before anything is charged."""
        if self.prepared.mechanism is not None:
            self.prepared.mechanism.check_resumed(order.charged)

    def _metrics(self, losses: Mapping[str, float], steps: int) -> dict[str, float]:
        """What a round says of itself, before the policy withholds any of it. In private runs nothing here is counted
        from patients: losses are of fakes."""
        metrics = {f"{net}_loss": losses.get(net, math.nan) for net in dict.fromkeys(t.net for t in self.family.phases)}
        metrics |= {"steps": float(steps)}
        mechanism, plan = self.prepared.mechanism, self.prepared.plan
        if mechanism is not None and plan is not None:
            return metrics | {"charged": float(plan.steps - mechanism.remaining)}
        dataset = self.prepared.dataset
        metrics |= {"patients": float(len(dataset.patients))}
        return metrics | {f"share_{i}": float(share) for i, share in enumerate(dataset.class_shares)}

    def _receive(self, received: Mapping[str, NDArray[Any]], *, begins: bool) -> None:
        """The networks that a site trains on; of a run of sites that train apart, those that it begins from."""
        if begun := begun_from(self.settings, self.family):
            if begins:
                self._copy(received, begun)
                self.trainer.ema.restart(self.family)
            return
        self._copy(received, self._shared_state)
        if self._proximal is not None:
            self._proximal.receive()

    def _copy(self, received: Mapping[str, NDArray[Any]], own: Mapping[str, Tensor]) -> None:
        if {name: tuple(value.shape) for name, value in own.items()} != {n: v.shape for n, v in received.items()}:
            raise NeutralError(ErrorCode.SHAPE)
        with torch.no_grad():
            for name, value in own.items():
                if value.device.type == "cpu":  # straight from the message's bytes
                    np.copyto(value.numpy(), received[name], casting="unsafe")
                else:
                    value.copy_(torch.from_numpy(np.array(received[name])))

    def _arrays(self) -> Arrays:
        return {name: value.detach().cpu().numpy().copy() for name, value in self._shared_state.items()}

    def _leaving_arrays(self) -> Arrays:
        """Weights; or gradients in their place, where the generator takes its steps at the server."""
        arrays = self._arrays()
        for net, gradients in self.trainer.remote_updates.items():
            for (name, value), gradient in zip(self.family.nets[net].named_parameters(), gradients, strict=True):
                sent = torch.zeros_like(value) if gradient is None else gradient
                arrays[f"{net}.{name}"] = sent.detach().cpu().numpy().copy()
        if self.trainer.remote_networks and not self.trainer.remote_updates:
            named = {name for name, _ in self.family.nets.named_parameters()}
            arrays |= {name: np.zeros_like(value) for name, value in arrays.items() if name in named}
        return arrays

    @cached_property
    def _shared_state(self) -> dict[str, Tensor]:
        """What travels, by its name: the networks' own tensors, which training changes in their places."""
        own = dict(self.family.nets.named_parameters()) | dict(self.family.nets.named_buffers())
        return {name: own[name] for name in exchanged(self.settings, self.family)}

    @property
    def _insecure_seed(self) -> int | None:
        return None if self.settings.privacy is None else self.settings.privacy.insecure_seed

    @property
    def _promise(self) -> str:
        """A state remembers it: what was learnt without privacy never goes on as if it had been private."""
        if self.settings.privacy is None:
            return "plain"
        return "private" if self._insecure_seed is None else "insecure"

    def _prepare(self, images: ImageSet, experiment: str) -> Prepared:
        settings, site = _own(self.settings, self.site), self.site
        training_members(images)  # says what is wrong with the roles before anything is built
        storage = SiteStorage(
            folder=site.folder,
            run=experiment,
            site=site.name,
            states=STATES,
            cap=site.policy.cap,
            store=site.store,
        )
        if settings.privacy is not None and not images.header.phantoms:
            ledger = Ledger(site.name, settings.privacy.store).path
            charges = read_ledger(ledger)
            if site.home is not None:
                refuse_older(ledger, charges, site.home)
            storage.find_name(charge.run for charge in charges)
        streams = stream_seed(self.settings.seed, "site", site.name)
        recipe = recipe_of(self.settings.training())
        return prepare(images, settings, storage=storage, streams=streams, recipe=recipe, shares=self.settings.shares)

    def _path(self, round: int) -> Path:  # noqa: A002
        return self.site.folder / f"state-{round:06d}.safetensors"

    def _rounds(self) -> list[int]:
        return sorted(int(path.stem.removeprefix("state-")) for path in self.site.folder.glob(STATES))

    def _before(self, round: int) -> list[int]:  # noqa: A002
        """Rounds before this one that have a state, the newest first."""
        return [number for number in reversed(self._rounds()) if number < round]

    def _is_in_memory(self, number: int) -> bool:
        return self._in_memory == (number, self._path(number).stat().st_mtime_ns)

    def _usable(self, number: int) -> bool:
        return self._is_in_memory(number) or bool(read_notes(self._path(number)))

    def _restore(self, *, before: int) -> SiteNote | None:
        """Be where the newest whole earlier round ended, and say where that is not the newest of all; without any, as
        `prepare` left it."""
        damaged = self._path(before).exists() and not read_notes(self._path(before))
        for number in self._before(before):
            try:
                if not self._is_in_memory(number):
                    self._load(self._path(number))
            except DamagedError as error:
                keep_to_itself(error, self.site.folder, doing=f"round {before}")
                damaged = True
                continue
            return SiteNote.EARLIER if damaged else None
        return SiteNote.ANEW if before > 1 and self.settings.training_exchanges else None

    def _load(self, path: Path) -> None:
        notes = read_notes(path)
        if notes.get("promise", self._promise) != self._promise:
            problem = "the state was trained under another promise to patients"
            raise RefusedError(problem, file=path, remedy="start a new run")
        load_state(path, self.trainer, self.settings.generator, shown=self.prepared.shown)
        if self.prepared.mechanism is not None:
            self.prepared.mechanism.check_resumed(int(notes.get("charged", "0")))

    def _save(self, order: Order, digest: str, metrics: Mapping[str, float], note: SiteNote | None) -> None:
        """Keep this round's end and, for doing it again, the round before."""
        path = self._path(order.round)
        notes = {"received": digest, "metrics": json.dumps(metrics), "charged": str(int(metrics.get("charged", 0)))}
        notes |= {"promise": self._promise, "note": note.value if note else ""}
        synced = not self.site.simulated  # of all simulated sites at once, before the server keeps the round
        old = [self._path(number) for number in self._before(order.round)[1:]]
        save_state(
            path,
            self.trainer,
            self.settings.generator,
            shown=self.prepared.shown,
            notes=notes,
            synced=synced,
            over=old[-1] if old else None,
        )
        self._in_memory = (order.round, path.stat().st_mtime_ns)
        for one in old[:-1]:
            one.unlink(missing_ok=True)
        if self.settings.federation == "none":
            self.prepared.fit()
            save_generator(self.site.folder, self.trainer, self.prepared.card())

    def _finished(self, order: Order, digest: str) -> Outcome | None:
        """The result of this very order, where it was computed and did not arrive."""
        path = self._path(order.round)
        notes = read_notes(path) if path.exists() else {}
        if (notes.get("received"), notes.get("promise", self._promise)) != (
            digest,
            self._promise,
        ) or self.trainer.remote_networks:  # a gradient is not kept: it is taken again
            return None
        if not self._is_in_memory(order.round):
            try:
                load_state(path, self.trainer, self.settings.generator, shown=self.prepared.shown)
            except FedSynthError:
                return None
            self._in_memory = (order.round, path.stat().st_mtime_ns)
        metrics, said = json.loads(notes["metrics"]), notes["note"]
        note = SiteNote(said) if said else None
        return Outcome(arrays=self._arrays(), metrics=self.site.policy.telling(metrics), note=note)


def _note_members(prepared: Prepared, folder: Path) -> None:
    """Tell the site's own log of images that are in the public set too. It decides no answer: one that differed would
    tell whoever hands out that set who is a patient here."""
    try:
        prepared.check_members()
    except Exception as error:
        log_only(folder, f"the run goes on, and only this log says: {error}")


def _within(order: Order, settings: FederationSettings) -> bool:
    """Whether it is a round of this run: beyond its last step rates turn negative, and counts run for ever."""
    numbers = (order.round, order.first_step, order.steps, order.attempt, order.charged)
    whole = all(isinstance(number, int) for number in numbers) and min(numbers) >= 0 and order.round > 0
    return (
        whole and order.steps <= settings.exchange_steps and order.first_step + order.steps <= settings.total_steps
    )  # in one message no more than a round: the policy caps a round's steps


def _own(settings: FederationSettings, site: SiteContext) -> TrainSettings:
    """What this site is told: its own declared size, and its own store whatever the server says.

    What the run goes on from comes with the first round: a path of the server's means nothing here. Of public images
    the site opens those that its own file names.
    """
    options = _with_own_public(settings.options, site)
    training = replace(settings.training(), start=None, start_steps=None, public_start=False, options=options)
    privacy = settings.privacy
    if privacy is None:
        return training
    patients = settings.patients_of(site.name)
    store = privacy.store if site.simulated and site.store is None else site.store
    return replace(training, privacy=replace(privacy, patients=patients, store=store))


def _with_own_public(options: Mapping[str, Any], site: SiteContext) -> dict[str, Any]:
    """The family's options, with this site's public images in the place of the server's."""
    if PUBLIC not in options or site.simulated:
        return dict(options)
    if site.public is None:
        problem = "the run compares patients with a public image set, and site.toml names none"
        raise OtherPoolError(problem, remedy=f'copy that set here and say where it lies: {PUBLIC} = "FOLDER"')
    return {**options, PUBLIC: str(site.public)}
