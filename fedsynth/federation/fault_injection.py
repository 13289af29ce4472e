"""Failures made on purpose, for tests and studies: who drops out, stalls or sends nan in which round.

Decided by the seed, the site and the round alone, so that a resumed run meets the same failures.
"""

from dataclasses import dataclass, fields
from typing import Literal

import numpy as np

from fedsynth.errors import ConfigError, nearest
from fedsynth.training.random_streams import stream_seed

Fault = Literal["", "dropout", "straggler", "nan"]


@dataclass(frozen=True, kw_only=True)
class Faults:
    """The share of site-rounds that fail in each way."""

    dropout: float = 0.0
    straggler: float = 0.0
    nan: float = 0.0

    def __post_init__(self) -> None:
        for name, share in self._shares:
            if not 0 <= share <= 1:
                raise ConfigError(f"the share of {name!r} must lie between 0 and 1", value=share)
        if sum(share for _, share in self._shares) > 1 + 1e-9:
            raise ConfigError("the shares of --inject add up to more than 1", value=str(self))

    @classmethod
    def parse(cls, text: str) -> "Faults":
        """Read `dropout=0.2,straggler=0.1,nan=0.05`; nothing is injected for an empty text."""
        known = [field.name for field in fields(cls)]
        shares: dict[str, float] = {}
        for part in filter(None, (part.strip() for part in text.split(","))):
            name, _, share = part.partition("=")
            if name not in known:
                raise ConfigError("--inject knows no such failure", value=name, remedy=nearest(name, known))
            if name in shares:
                raise ConfigError("--inject names a failure twice", value=name)
            shares[name] = _number(name, share)
        return cls(**shares)

    def of(self, seed: int, site: int, round: int) -> Fault:  # noqa: A002
        """What happens to the site of that index in that round."""
        if not any(share for _, share in self._shares):
            return ""
        drawn = np.random.default_rng(stream_seed(seed, "fault", site, round)).random()
        edge = 0.0
        for name, share in self._shares:
            edge += share
            if drawn < edge:
                return name
        return ""

    def __str__(self) -> str:
        return ",".join(f"{name}={share:g}" for name, share in self._shares if share)

    @property
    def _shares(self) -> tuple[tuple[Fault, float], ...]:
        return ("dropout", self.dropout), ("straggler", self.straggler), ("nan", self.nan)


def _number(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ConfigError(f"--inject {name} needs a share", value=text, remedy=f"write {name}=0.1") from None
