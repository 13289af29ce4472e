"""What server and sites tell each other, as plain values: orders, outcomes, and what a site's images are like."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from numpy.typing import NDArray

from fedsynth.data import ImageSet
from fedsynth.models.base import ImageShape

Arrays = dict[str, NDArray[Any]]
Sent = Mapping[str, NDArray[Any]]
"""What a site sent: in memory, or read from a file when it is asked for."""


@dataclass(frozen=True, kw_only=True)
class Order:
    """A round: `steps` steps from step `first_step` of the whole run. `attempt` counts how often it was asked for.

    `experiment` names the run, unlike any other; `stage` one of the three exchanges of a secure sum. `charged` are the
    private steps that the site last told the server of. `public` names the server's public pool, where there is one.
    """

    round: int
    first_step: int
    steps: int
    experiment: str
    attempt: int = 0
    stage: str = ""
    charged: int = 0
    public: str = ""


class SiteNote(StrEnum):
    """What a site says of its own storage beside an answer; these words are all that may be said."""

    EARLIER = "its newest state was damaged: it went on from an earlier one"
    ANEW = "it began anew: it has no state of an earlier round"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What leaves the site after a round: arrays by `<network>.<parameter>`, numbers that may leave, and a note."""

    arrays: Sent = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    note: SiteNote | None = None


def bounds_of(nets: Iterable[str], *, steps: int, classes: int, planned: int | None) -> dict[str, tuple[float, float]]:
    """Which numbers a reply may hold and within which bounds; of losses anything may be said.

    `planned` are the private steps of the whole run, None in plain runs.
    """
    bounds = dict.fromkeys((f"{net}_loss" for net in nets), (-math.inf, math.inf)) | {"steps": (0.0, float(steps))}
    if planned is not None:
        return bounds | {"charged": (0.0, float(planned))}
    return bounds | {"patients": (1.0, 1e9)} | {f"share_{i}": (0.0, 1.0) for i in range(classes)}


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a site says of its images before anything else: how they are made up, never how many there are.

    `public` names the public pool that it would compare them with, where the family has one.
    """

    channels: tuple[str, ...]
    size: tuple[int, ...]
    classes: tuple[str, ...]
    mask_labels: tuple[str, ...]
    spacing_mm: tuple[float, ...]
    phantoms: bool
    public: str = ""

    @classmethod
    def of(cls, images: ImageSet, *, public: str = "") -> "Facts":
        """Of an image set's header."""
        header = images.header
        return cls(
            channels=header.channels,
            size=images.size,
            classes=header.classes,
            mask_labels=header.mask_labels,
            spacing_mm=header.spacing_mm,
            phantoms=header.phantoms,
            public=public,
        )

    @property
    def shape(self) -> ImageShape:
        """What joint families are built for."""
        return ImageShape(
            channels=len(self.channels),
            size=self.size,
            n_classes=len(self.classes),
            n_labels=len(self.mask_labels),
            channel_names=self.channels,
            class_names=self.classes,
            label_names=self.mask_labels,
        )
