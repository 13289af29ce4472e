"""The roles of patients and the shares by which they are drawn. Settings classes read it: it imports nothing heavy."""

from dataclasses import dataclass
from typing import Literal, get_args

from fedsynth.errors import ConfigError, nearest

Role = Literal["member", "holdout", "reference"]
ROLES: tuple[Role, ...] = get_args(Role)
STRATA = ("site", "class")


@dataclass(frozen=True, kw_only=True)
class Shares:
    """The share of patients that each role gets; they add up to one."""

    member: float = 0.5
    holdout: float = 0.4
    reference: float = 0.1

    def __post_init__(self) -> None:
        values = (self.member, self.holdout, self.reference)
        if any(not 0 <= value <= 1 for value in values) or abs(sum(values) - 1) > 1e-6:
            raise ConfigError(
                "the shares of member, holdout and reference must be 0 to 1 and add up to 1", value=values
            )


@dataclass(frozen=True, kw_only=True)
class Split:
    """How the roles of a set were drawn: what the exact test of the leakage benchmark permutes within."""

    seed: int
    shares: Shares
    strata: tuple[str, ...] = STRATA

    def __post_init__(self) -> None:
        for column in self.strata:
            if column not in STRATA:
                remedy = nearest(column, STRATA)
                raise ConfigError("the strata of a split are columns of the table", value=column, remedy=remedy)
