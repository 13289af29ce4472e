"""The server's side of a secure sum: keys, masked vectors, seeds, and the sum that comes of them. Pure of Flower.

An attempt without a vector of every site that sent a key is void, and is made again without who is missing. From the
moment that seeds are asked for, the sites are fixed for the rest of the run: they answer in no other company.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fedsynth import atomic_files
from fedsynth.errors import FedSynthError, RefusedError
from fedsynth.federation.error_codes import ErrorCode
from fedsynth.federation.exchange import Arrays, Order, Outcome
from fedsynth.federation.handshake import Agreement
from fedsynth.federation.messages import Reply
from fedsynth.federation.secure_site import KEY_NAME, KEYS, MASKED, SEED_NAME, SEEDS, VECTOR_NAME
from fedsynth.federation.secure_sum import KEY, Roster, as_array, as_bytes, unmasked
from fedsynth.federation.settings import FederationSettings
from fedsynth.privacy.plan import PrivatePlan
from fedsynth.training.fitting import expected_sums, from_grid, to_grid

FILE = "secure-sum.json"
ATTEMPTS = 3
LARGEST = 2**54
"""Steps of the grid: no sum over patients comes near it, and of masks that did not cancel next to none is below."""
Ask = Callable[[Order, Sequence[str], Arrays, Arrays], list[Reply]]
"""Send an order with arrays to the sites named; a reply of each, checked against the arrays expected."""


@dataclass(frozen=True, kw_only=True)
class Summed:
    """The sum over `sites`, in steps of the grid."""

    total: NDArray[np.int64]
    sites: tuple[str, ...]

    def arrays(self, plans: Mapping[str, PrivatePlan]) -> Arrays:
        """As the family is fitted to it, with the variance of all the shares of noise on it."""
        noise = math.hypot(*(plans[site].added for site in self.sites))
        return {name: value.numpy() for name, value in from_grid(torch.from_numpy(self.total), noise=noise).items()}


class SecureExchange:
    """A secure sum of `length` numbers over at least `quorum` of the `sites`; `order` says which round of which run.

    The sites that the sum is fixed to are kept in `folder`, for a server that dies before it has their seeds.
    """

    def __init__(self, sites: Sequence[str], *, quorum: int, length: int, order: Order, folder: Path, ask: Ask) -> None:
        self._sites, self._quorum, self._length, self._order = tuple(sites), quorum, length, order
        self._path, self._ask = folder / FILE, ask
        self._replies = {name: Reply(site=name, reason=ErrorCode.UNREACHABLE, asked=False) for name in sites}
        self._failed: set[str] = set()

    @classmethod
    def of(
        cls, settings: FederationSettings, agreement: Agreement, number: int, order: Order, folder: Path, ask: Ask
    ) -> "SecureExchange":
        """For pass `number` of a run's fit."""
        length = len(to_grid(expected_sums(agreement.family, number, device=torch.device("cpu"))))
        return cls(agreement.sites, quorum=settings.quorum, length=length, order=order, folder=folder, ask=ask)

    @property
    def replies(self) -> list[Reply]:
        """Of every site the newest, with the bytes and seconds of all; without arrays."""
        return [self._replies[name] for name in sorted(self._replies)]

    def collect(self) -> Summed | None:
        """The sum, or None where too few sites could be brought together."""
        for attempt in range(ATTEMPTS):
            roster = self._keys(attempt)
            vectors = None if roster is None else self._gather(MASKED, roster, VECTOR_NAME)
            if roster is None or vectors is None:
                continue
            atomic_files.write_text(self._path, json.dumps({"sites": roster.sites}) + "\n")
            seeds = self._seeds(roster)
            if seeds is not None:
                return self._summed(roster, vectors, seeds)
        return None

    def waiting(self) -> FedSynthError | None:
        """Why only some sites can help any more, where seeds were asked for; None where others could take part."""
        missing = [reply.site for reply in self.replies if reply.site in self._fixed() and reply.reason is not None]
        if not missing:
            return None
        problem = f"the secure sum of {', '.join(self._fixed())} was begun and is finished by no others"
        remedy = "bring back who is missing and go on with --resume, or start a new run, which is charged again"
        return FedSynthError(problem, value=f"missing: {', '.join(missing)}", remedy=remedy)

    def _keys(self, attempt: int) -> Roster | None:
        """Who is there, under new keys; None where that is not enough."""
        fixed = self._fixed()
        hopeful = [name for name in self._sites if name not in self._failed]
        asked = fixed or (hopeful if len(hopeful) >= self._quorum else self._sites)
        answers = self._told(replace(self._order, attempt=attempt, stage=KEYS), asked, {}, {KEY_NAME: _like_a_key()})
        if not (answers.keys() >= set(fixed) and len(answers) >= self._quorum):
            return None
        keys = {name: as_bytes(arrays[KEY_NAME]) for name, arrays in answers.items()}
        try:
            return Roster(experiment=self._order.experiment, round=self._order.round, attempt=attempt, keys=keys)
        except RefusedError as error:
            raise FedSynthError(f"the sites' keys cannot be used: {error}") from error

    def _seeds(self, roster: Roster) -> dict[str, Arrays] | None:
        """Asked for again and again: a site that has sent its seed can do nothing else any more."""
        found: dict[str, Arrays] = {}
        for _ in range(ATTEMPTS):
            missing = tuple(name for name in roster.sites if name not in found)
            found |= self._gather(SEEDS, roster, SEED_NAME, of=missing, all_or_none=False) or {}
            if len(found) == len(roster.sites):
                return found
        return None

    def _gather(
        self, stage: str, roster: Roster, name: str, *, of: Sequence[str] | None = None, all_or_none: bool = True
    ) -> dict[str, Arrays] | None:
        """One exchange over a roster, which is sent with it."""
        asked = roster.sites if of is None else of
        like = np.zeros(self._length, np.uint64) if stage == MASKED else _like_a_key()
        keys: Arrays = {site: as_array(key) for site, key in roster.keys.items()}
        answers = self._told(replace(self._order, attempt=roster.attempt, stage=stage), asked, keys, {name: like})
        self._failed |= set(asked) - answers.keys()
        return answers if len(answers) == len(asked) or not all_or_none else None

    def _told(self, order: Order, asked: Sequence[str], sent: Arrays, expected: Arrays) -> dict[str, Arrays]:
        """The arrays of those who answered."""
        answers: dict[str, Arrays] = {}
        for reply in self._ask(order, asked, sent, expected):
            before = self._replies[reply.site]
            if reply.reason is None:
                answers[reply.site] = dict(reply.outcome.arrays)
            self._replies[reply.site] = replace(
                reply,
                outcome=Outcome(metrics=before.outcome.metrics | reply.outcome.metrics),
                asked=reply.asked or before.asked,
                bytes_up=reply.bytes_up + before.bytes_up,
                bytes_down=reply.bytes_down + before.bytes_down,
                seconds=reply.seconds + before.seconds,
            )
        return answers

    def _summed(self, roster: Roster, vectors: dict[str, Arrays], seeds: dict[str, Arrays]) -> Summed:
        total = unmasked(
            {name: arrays[VECTOR_NAME] for name, arrays in vectors.items()},
            {name: as_bytes(arrays[SEED_NAME]) for name, arrays in seeds.items()},
            roster,
        )
        if np.abs(total.astype(np.float64)).max() >= LARGEST:
            problem = "the masks of the secure sum do not cancel: a site did not send what it should have"
            raise FedSynthError(problem, value=list(roster.sites), remedy="resume, or start a new run without it")
        return Summed(total=total, sites=roster.sites)

    def _fixed(self) -> tuple[str, ...]:
        """The sites whose seeds were asked for, in this attempt or before a restart."""
        if not self._path.exists():
            return ()
        kept: dict[str, Any] = json.loads(self._path.read_text(encoding="utf-8"))
        return tuple(kept["sites"])


def _like_a_key() -> NDArray[np.uint8]:
    return np.zeros(KEY, np.uint8)
