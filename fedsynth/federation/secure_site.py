"""A site's side of a secure sum, and its memory of it on disk: what it sends in each of three exchanges.

1. `keys`: the site takes and keeps its noised vector, draws a key and a seed for the attempt, and sends the public
   half of the key.
2. `masked`: it is told everybody's keys and sends its vector under its masks.
3. `seeds`: when all masked vectors are there, it sends its seed. Then, and not before, the server can add them up.

A seed that is not sent keeps its attempt closed for ever, so a site without which nothing was added up may go on to an
attempt with other sites. A site that has sent a seed takes part in no other list of sites in this run: the difference
of two sums would be somebody's vector with that site's share of the noise alone. A sum over the same sites under new
masks shows what the first would have shown.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedsynth import atomic_files
from fedsynth.errors import RefusedError
from fedsynth.federation.exchange import Arrays, Order
from fedsynth.federation.secure_sum import Roster, Secrets, as_array, as_bytes, masked
from fedsynth.models.base import Tensors
from fedsynth.training.fitting import FITTED, to_grid

FILE = "secure-sum.json"
KEYS, MASKED, SEEDS = STAGES = ("keys", "masked", "seeds")
KEY_NAME, VECTOR_NAME, SEED_NAME = "secure-sum.key", f"{FITTED}.masked", "secure-sum.seed"
"""Of the arrays that leave, as they stand in `egress.jsonl`."""


@dataclass(frozen=True, kw_only=True)
class Memory:
    """What a site knows of its newest attempt. `keys` is the list of sites that it masked its vector for, `bound` the
    sites of the attempt whose seed it has sent; the secret half of that attempt's key is then gone."""

    round: int = 0
    attempt: int = 0
    key: str = ""
    seed: str = ""
    keys: Mapping[str, str] | None = None
    bound: tuple[str, ...] = ()


class SecureSite:
    """The site `name`, whose memory lies in `folder`. A sum has at least `fewest` and at most `most` sites."""

    def __init__(self, folder: Path, name: str, *, fewest: int, most: int) -> None:
        self.path, self.name, self.fewest, self.most = folder / FILE, name, fewest, most

    def answer(self, order: Order, received: Mapping[str, NDArray[Any]], sums: Callable[[], Tensors]) -> Arrays:
        """What leaves in this exchange. `sums` brings the noised sums, the same ones whenever it is asked.

        Raises:
            RefusedError: it is not this exchange's turn, or the list of sites is not one that the site can be in.
        """
        if order.stage not in STAGES:
            raise RefusedError("a noised sum never leaves a secure sum without its masks", value=order.stage)
        vector = to_grid(sums()).numpy()  # before keys are agreed on, so that what can fail has failed by then
        if order.stage == KEYS:
            return {KEY_NAME: as_array(self._begin(order))}
        roster = self._roster(order, received)
        if order.stage == MASKED:
            return {VECTOR_NAME: self._mask(roster, vector)}
        return {SEED_NAME: as_array(self._close(roster))}

    @property
    def memory(self) -> Memory:
        """As it lies on disk."""
        if not self.path.exists():
            return Memory()
        try:
            kept = json.loads(self.path.read_text(encoding="utf-8"))
            return Memory(**(kept | {"bound": tuple(kept["bound"])}))
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise RefusedError(
                "nobody knows which sums this site has taken part in", file=self.path, remedy="start a new run"
            ) from error

    def _begin(self, order: Order) -> bytes:
        """New secrets; those of an attempt before are lost with it."""
        drawn = Secrets.fresh()
        place = Memory(round=order.round, attempt=order.attempt, bound=self.memory.bound)
        self._keep(replace(place, key=drawn.key.hex(), seed=drawn.seed.hex()))
        return drawn.public

    def _mask(self, roster: Roster, vector: NDArray[np.int64]) -> NDArray[np.uint64]:
        memory = self.memory
        if not memory.key:
            raise RefusedError("the key of this attempt was given up", file=self.path)
        listed = {name: key.hex() for name, key in roster.keys.items()}
        if memory.keys not in (None, listed):
            raise RefusedError("the list of sites changed within an attempt", value=list(roster.sites))
        if memory.bound and memory.bound != roster.sites:
            problem = f"this site has opened its sum with {', '.join(memory.bound)} and adds to no other"
            raise RefusedError(problem, value=list(roster.sites), remedy="resume when all of them are there again")
        secrets = Secrets(key=bytes.fromhex(memory.key), seed=bytes.fromhex(memory.seed))
        hidden = masked(vector, secrets, self.name, roster)
        self._keep(replace(memory, keys=listed))
        return hidden

    def _close(self, roster: Roster) -> bytes:
        memory = self.memory
        if memory.keys != {name: key.hex() for name, key in roster.keys.items()}:
            raise RefusedError("this site masked its vector for no such list of sites", value=list(roster.sites))
        self._keep(replace(memory, key="", bound=roster.sites))
        return bytes.fromhex(memory.seed)

    def _roster(self, order: Order, received: Mapping[str, NDArray[Any]]) -> Roster:
        memory = self.memory
        if (order.round, order.attempt) != (memory.round, memory.attempt) or not memory.seed:
            raise RefusedError("this site has sent no key for this attempt", value=[order.round, order.attempt])
        if not self.fewest <= len(received) <= self.most:
            problem = f"a sum of this run has {self.fewest} to {self.most} sites: the noise is planned for them"
            raise RefusedError(problem, value=sorted(received))
        keys = {name: as_bytes(key) for name, key in received.items()}
        return Roster(experiment=order.experiment, round=order.round, attempt=order.attempt, keys=keys)

    def _keep(self, memory: Memory) -> None:
        atomic_files.write_text(self.path, json.dumps(asdict(memory)) + "\n")
