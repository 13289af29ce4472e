"""What an image set says about itself: the content of `imageset.toml`, format 1."""

from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from fedsynth.errors import ConfigError, nearest

Origin = Literal["real", "synthetic"]
Role = Literal["member", "holdout", "reference"]
ROLES: tuple[Role, ...] = get_args(Role)
STRATA = ("site", "class")
SPLITS = "splits"
"""The key of the provenance under which a set put together of others keeps how each site's roles were drawn."""
PHANTOM = "phantom"
"""The key of the provenance that marks a set of phantoms: by the format its origin is real, but it shows nobody."""


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


@dataclass(frozen=True, kw_only=True)
class Header:
    """The description of an image set.

    `mask_labels` names the values of the masks, background first, and is empty where there are no masks.
    `spacing_mm` has one number per spatial axis, so its length (2 or 3) is the number of dimensions.
    `provenance` is free: the reader or the phantom records there how the set was made and what was left out.
    """

    name: str
    origin: Origin
    channels: tuple[str, ...]
    spacing_mm: tuple[float, ...]
    format: Literal[1] = 1
    classes: tuple[str, ...] = ()
    mask_labels: tuple[str, ...] = ()
    split: Split | None = None
    provenance: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for key, names in (("channels", self.channels), ("classes", self.classes), ("mask-labels", self.mask_labels)):
            if len(set(names)) != len(names) or "" in names:
                raise ConfigError(f"{key!r} must be different, non-empty names", value=list(names))
        if not self.channels:
            raise ConfigError("'channels' must name at least one channel")
        if len(self.mask_labels) == 1 or len(self.mask_labels) > 256:
            raise ConfigError("'mask-labels' must be empty or name background and 1 to 255 labels")
        if len(self.spacing_mm) not in (2, 3) or any(not 0 < value < 1e6 for value in self.spacing_mm):
            raise ConfigError("'spacing-mm' must be two or three positive numbers", value=list(self.spacing_mm))

    @property
    def dimensions(self) -> int:
        """2 for images, 3 for volumes."""
        return len(self.spacing_mm)

    @property
    def phantoms(self) -> bool:
        """Whether the images show phantoms, so that no patient is to be protected."""
        return PHANTOM in self.provenance
