"""Synthetic image sets: what a released sampler draws, in the same plain format as everything else."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fedsynth.errors import ConfigError
from fedsynth.generators.family import Family
from fedsynth.images import Header, ImageSet
from fedsynth.images.check import COLUMNS
from fedsynth.images.writer import ImageSetWriter
from fedsynth.training.checkpoint import Card
from fedsynth.training.sampling import class_counts, parse_mix, sample_blocks


def plan_labels(card: Card, count: int, mix: str | None) -> NDArray[np.int64]:
    """The class number of every image, well mixed so that any beginning of the set holds all; -1 without classes."""
    if count < 1:
        raise ConfigError("--count must be at least 1", value=count)
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
    """What the set says about itself."""
    return Header(
        name=name,
        origin="synthetic",
        channels=card.channels,
        classes=card.classes,
        mask_labels=card.mask_labels if masked else (),
        spacing_mm=card.spacing_mm,
        provenance={
            "generator": card.generator,
            "steps": card.steps,
            "trained-on": card.trained_on,
            "privacy": card.privacy,
            "seed": seed,
        },
    )


def draw_set(
    family: Family,
    card: Card,
    labels: NDArray[np.int64],
    *,
    seed: int,
    name: str,
    sources: NDArray[np.float32] | None = None,
) -> ImageSet:
    """A small synthetic set in memory, for sheets."""
    blocks = list(sample_blocks(family, labels, seed=seed, sources=sources))
    masks = [mask for _, mask in blocks if mask is not None]
    return ImageSet(
        header=synthetic_header(card, name=name, seed=seed, masked=bool(masks)),
        cases=pd.DataFrame([_row(card, i, label) for i, label in enumerate(labels)], columns=list(COLUMNS), dtype=str),
        images=_eight_bit(np.concatenate([image for image, _ in blocks])),
        masks=np.concatenate(masks) if masks else None,
    )


def write_set(
    family: Family,
    card: Card,
    labels: NDArray[np.int64],
    out: Path,
    *,
    seed: int,
    overwrite: bool = False,
    sources: NDArray[np.float32] | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> ImageSet:
    """Draw and write a synthetic set block by block, so that any number of images fits into memory."""
    masked = bool(card.shape.n_labels) and (not card.shape.source_channels)
    shape = (card.shape.channels, *card.shape.size)
    with ImageSetWriter(out, shape, np.uint8, masks=masked, overwrite=overwrite) as writer:
        done = 0
        for images, masks in sample_blocks(family, labels, seed=seed, sources=sources):
            for i, image in enumerate(_eight_bit(images)):
                mask = masks[i] if masked and masks is not None else None
                writer.append(_row(card, done, labels[done]), image, mask)
                done += 1
            progress(done, len(labels))
        writer.finish(synthetic_header(card, name=out.name, seed=seed, masked=masked))
    return ImageSet.load(out, every_voxel=False)


def _row(card: Card, number: int, label: int) -> dict[str, str]:
    named = card.classes[label] if label >= 0 else ""
    return {"case": f"synthetic-{number:06d}", "patient": "", "site": "", "role": "", "class": named, "slice": ""}


def _eight_bit(images: NDArray[np.float32]) -> NDArray[np.uint8]:
    return np.asarray(np.rint(images * 255), np.uint8)
