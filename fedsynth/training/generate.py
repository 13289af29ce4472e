"""Synthetic image sets: what a released sampler draws, in the same plain format as everything else."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fedsynth.data import Header, ImageSet
from fedsynth.data.format import COLUMNS
from fedsynth.data.writer import ImageSetWriter
from fedsynth.errors import ConfigError
from fedsynth.models.base import Family
from fedsynth.models.mixture import SiteMixture
from fedsynth.training.checkpoint import Card
from fedsynth.training.paired_sources import Sources
from fedsynth.training.sampler import class_counts, parse_mix, sample_blocks

FITTED, PUBLIC = "fitted", "public"
NOBODY = {
    "public": "drawn from the public pool alone, which has met no patient",
    "placebo": "drawn from the public pool as fitted to a random direction in place of the patients'",
}
"""The arms of a fitted family that patients did not shape, and what their images are."""
Drawn = tuple[NDArray[np.uint8], NDArray[np.uint8] | None]
"""An image and its mask."""


def plan_labels(card: Card, count: int, mix: str | None) -> NDArray[np.int64]:
    """The class number of every image, well mixed so that any beginning of the set holds all; -1 without classes."""
    if not card.classes:
        if mix is not None:
            raise ConfigError("--mix was given, but this generator knows no classes", value=mix)
        return np.full(count, -1, np.int64)
    shares = parse_mix(mix, card.classes) if mix else dict(zip(card.classes, card.class_shares, strict=True))
    if not sum(shares.values()):
        shares = dict.fromkeys(card.classes, 1 / len(card.classes))
    counts = class_counts(count, card.classes, shares)
    places = [(position + 0.5) / number for number in counts.values() for position in range(number)]
    labels = np.repeat(np.arange(len(counts)), list(counts.values()))
    return labels[np.argsort(places, kind="stable")].astype(np.int64)


def synthetic_header(card: Card, *, name: str, seed: int, masked: bool) -> Header:
    """What a set drawn by the generator of `card` says about itself."""
    made: dict[str, Any] = {
        "generator": card.generator,
        "steps": card.steps,
        "trained-on": card.trained_on,
        "privacy": card.privacy,
    }
    if len(card.lineage.runs) > 1:
        made["lineage"] = card.lineage.history()
    return Header(
        name=name,
        origin="synthetic",
        channels=card.channels,
        classes=card.classes,
        mask_labels=card.mask_labels if masked else (),
        spacing_mm=card.spacing_mm,
        provenance=made | {"seed": seed},
    )


def synthetic_cases(card: Card, labels: NDArray[np.int64]) -> pd.DataFrame:
    """The table of drawn images: a name and a class each, nobody's patient."""
    blank = {"patient": "", "site": "", "role": "", "slice": ""}
    rows = [
        {"case": f"synthetic-{number:06d}", "class": card.classes[label] if label >= 0 else "", **blank}
        for number, label in enumerate(labels)
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS), dtype=str)


def _choose_arm(family: Family, arm: str) -> None:
    """Let a simulator, or those of every site, draw from that arm; other families have one only."""
    families = family.families if isinstance(family, SiteMixture) else (family,)
    parts = [one for one in families if hasattr(one, "arm")]
    if not parts and arm != FITTED:
        raise ConfigError("only a fitted family has such an arm", value=arm, remedy="leave --arm away")
    for part in parts:
        part.arm = arm  # type: ignore[assignment]


class Drawing:
    """Images to be drawn: how many of which class, from which seed and, for paired families, from what."""

    def __init__(
        self,
        family: Family,
        card: Card,
        *,
        count: int,
        mix: str | None = None,
        seed: int = 0,
        sources: Sources | None = None,
        arm: str = FITTED,
    ) -> None:
        if count < 1:
            raise ConfigError("--count must be at least 1", value=count)
        if card.pairing and sources is None:
            problem = f"this generator does {card.pairing} and needs something to start from"
            raise ConfigError(problem, remedy="give --source SET")
        if sources is not None and not card.pairing and not card.two_stage:
            raise ConfigError("this generator draws from noise and takes no --source", remedy="leave --source away")
        if arm == PUBLIC and card.classes:  # the members' own shares are a fact about patients
            card = replace(card, class_shares=(1 / len(card.classes),) * len(card.classes))
        self.family, self.card, self.seed, self.sources, self.arm = family, card, seed, sources, arm
        _choose_arm(family, arm)
        self.labels = plan_labels(card, count, mix) if sources is None else sources.labels(card.classes)

    def header(self, name: str) -> Header:
        """What the drawn set says about itself."""
        header = synthetic_header(self.card, name=name, seed=self.seed, masked=self._masked)
        header = replace(header, provenance=header.provenance | self.family.consists_of())
        if self.arm != FITTED:
            told = NOBODY[self.arm] if self.arm == PUBLIC else f"{NOBODY[self.arm]}; {self.card.privacy}"
            header = replace(header, provenance=header.provenance | {"arm": self.arm, "privacy": told})
        if self.sources is None:
            return header
        made = header.provenance | {"pairing": self.sources.pairing.name, "source": self.sources.images.header.name}
        if self.sources.lost:
            made["tumours-without-room"] = sorted(f"synthetic-{i:06d}" for i in self.sources.lost)
        return replace(header, channels=self._channels, provenance=made)

    def items(self) -> Iterator[Drawn]:
        """Every image in turn, drawn in blocks."""
        source = None if self.sources is None else self.sources.source
        number = 0
        for images, masks in sample_blocks(self.family, self.labels, seed=self.seed, source=source):
            for i, image in enumerate(images):
                mask = masks[i] if masks is not None else self._carried_mask(number)
                picture = image if self.card.shape.channels else self._carried_image(number)
                yield np.asarray(np.rint(picture * 255), np.uint8), mask
                number += 1

    def write(
        self, out: Path, *, overwrite: bool = False, progress: Callable[[int, int], None] = lambda done, total: None
    ) -> ImageSet:
        """Write the set image by image, so that any number of images fits into memory."""
        shape = (len(self._channels), *self.card.shape.size)
        with ImageSetWriter(out, shape, np.uint8, masks=self._masked, overwrite=overwrite) as writer:
            for done, (image, mask) in enumerate(self.items(), 1):
                writer.append_arrays(image, mask)
                progress(done, len(self.labels))
            writer.finish(self.header(out.name), synthetic_cases(self.card, self.labels))
        return ImageSet.load(out, every_voxel=False)

    def in_memory(self, name: str) -> ImageSet:
        """The set without a folder, for sheets."""
        drawn = list(self.items())
        return ImageSet(
            header=self.header(name),
            cases=synthetic_cases(self.card, self.labels),
            images=np.stack([image for image, _ in drawn]),
            masks=np.stack([mask for _, mask in drawn if mask is not None]) if self._masked else None,
        )

    @property
    def _channels(self) -> tuple[str, ...]:
        """Of the generated image; a family that makes only masks passes its source image on."""
        if self.sources is None:
            return self.card.channels
        pairing = self.sources.pairing
        return pairing.target_channels or pairing.source_channels

    @property
    def _masked(self) -> bool:
        return bool(self.card.shape.n_labels) or (self.sources is not None and self.sources.images.masks is not None)

    def _carried_mask(self, number: int) -> NDArray[np.uint8] | None:
        return self.sources.mask(number) if self.sources is not None and self._masked else None

    def _carried_image(self, number: int) -> NDArray[np.float32]:
        assert self.sources is not None
        names = self.sources.images.header.channels
        return self.sources.image(number)[[names.index(name) for name in self._channels]]
