"""What sites exchange after training: sums that fit what is not trained, and in a one-shot federation whole samplers.

Pure of Flower. Sums are added up whatever the strategy: a median of sums fits nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from fedsynth.federation.exchange import Arrays, Sent
from fedsynth.federation.settings import FederationSettings
from fedsynth.models.base import Model
from fedsynth.training.fitting import expected_sums

Value = TypeVar("Value")


@dataclass(frozen=True, kw_only=True)
class Fitting:
    """The exchanges after training: `passes` of sums for the networks `nets` and, where sites trained each for itself
    (`one_shot`), one more in which each sends its sampler without those. `sampler` names all that is released."""

    passes: int
    nets: tuple[str, ...]
    sampler: tuple[str, ...]
    one_shot: bool

    @classmethod
    def of(cls, settings: FederationSettings, family: Model) -> "Fitting":
        """For one training of a run. Sites that trained apart fit together only what asks nothing of their weights."""
        one_shot = settings.federation == "one-shot"
        nets = family.pooled if one_shot else family.fitted
        passes = family.passes if nets and settings.federation != "none" else 0
        return cls(passes=passes, nets=nets, sampler=family.sampler, one_shot=one_shot)

    @property
    def exchanges(self) -> int:
        """How many in all."""
        return self.passes + self.one_shot

    def shown(self, family: Model) -> dict[str, Tensor]:
        """What the server sends with a pass: the released sampler, or only what is fitted in common."""
        nets = self.nets if self.one_shot else self.sampler
        return _of(nets, family.nets.state_dict())

    def pooled(self, sums: Mapping[str, Value]) -> dict[str, Value]:
        """The sums that leave a site."""
        return _of(self.nets, sums)

    def own(self, values: Mapping[str, Value]) -> dict[str, Value]:
        """The part of a sampler that is each site's own."""
        return {name: value for name, value in values.items() if _net(name) not in self.nets}

    def expected(self, family: Model, number: int) -> Arrays:
        """Names, shapes and types of what a site must send in exchange `number`."""
        if number == self.passes:
            own = self.own(_of(self.sampler, family.nets.state_dict()))
        else:
            own = self.pooled(expected_sums(family, number, device=torch.device("cpu")))
        return {name: value.numpy() for name, value in own.items()}


def exchanged(settings: FederationSettings, family: Model) -> dict[str, Tensor]:
    """What travels in a round of training, as the family has it: fitted networks wait until it is over."""
    nets = () if settings.federation == "one-shot" else settings.leaving(family.shared, family.sampler)
    return _of([net for net in nets if net not in family.fitted], family.nets.state_dict())


def begun_from(settings: FederationSettings, family: Model) -> dict[str, Tensor]:
    """What the server sends beside that to sites that train apart: the networks that the run goes on from, if any."""
    if settings.start is None or settings.federation != "one-shot":
        return {}
    return _of([net for net in family.nets if net not in family.fitted], family.nets.state_dict())


def fitted(family: Model, number: int, ema: Arrays, replies: Sequence[Sent]) -> Arrays:
    """The sampler after pass `number`, from what it was before and the sums of every site."""
    load(family, ema)
    total = {name: sum((reply[name] for reply in replies[1:]), replies[0][name]) for name in replies[0]}
    family.fit(number, {name: torch.from_numpy(np.array(value)) for name, value in total.items()})
    state = family.nets.state_dict()
    return {name: state[name].numpy().copy() for name in ema}


def load(family: Model, ema: Arrays) -> None:
    """Give a family these values."""
    family.nets.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in ema.items()}, strict=False)


def mixture(ema: Arrays, replies: Sequence[Sent]) -> Arrays:
    """The samplers of all sites as one, by `<number>-<network>`; what was fitted in common is everybody's."""
    return {
        f"{number}-{name}": value for number, reply in enumerate(replies) for name, value in {**ema, **reply}.items()
    }


def _of(nets: Sequence[str], values: Mapping[str, Value]) -> dict[str, Value]:
    return {name: value for name, value in values.items() if _net(name) in nets}


def _net(name: str) -> str:
    return name.split(".")[0]
