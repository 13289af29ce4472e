"""Label maps for label-to-image generators: a small joint model of masks, trained in the same run.

So that an image can be drawn without a map from a patient: no member's mask is copied out unless the user names a set.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from fedsynth.errors import ConfigError
from fedsynth.generators.family import Family
from fedsynth.generators.pairing import LABEL_TO_IMAGE
from fedsynth.images import ImageSet
from fedsynth.images.editing import Edit
from fedsynth.training.checkpoint import Card, load_generator
from fedsynth.training.sampling import sample_blocks
from fedsynth.training.settings import TrainSettings
from fedsynth.training.sources import Sources, choose_sources, pairing_of
from fedsynth.training.streams import stream_seed
from fedsynth.training.synthetic import Drawing, plan_labels, synthetic_cases, synthetic_header

MASKS = "masks"


def mask_settings(settings: TrainSettings) -> TrainSettings:
    """The run of the mask model: the smallest convolutional family, as long as the run that it serves."""
    return replace(settings, generator="dcgan", pairing="", options={}, batch=None, rate=None, start=None, sheets=0)


def drawn_sources(checkpoints: Path, card: Card, count: int, *, mix: str | None, seed: int) -> Sources:
    """Sources for a label-to-image generator, drawn from the mask model beside it."""
    if card.pairing != LABEL_TO_IMAGE or not (checkpoints / MASKS).is_dir():
        problem = f"this generator does {card.pairing} and needs something to start from"
        raise ConfigError(problem, remedy="give --source SET")
    family, drawn_by = load_generator(checkpoints / MASKS)
    labels = plan_labels(drawn_by, count, mix)
    blocks = sample_blocks(family, labels, seed=stream_seed(seed, MASKS))
    masks = np.concatenate([mask for _, mask in blocks if mask is not None])
    blank = np.zeros((1, len(card.channels), *(1 for _ in card.shape.size)), np.uint8)
    images = ImageSet(
        header=synthetic_header(card, name=f"{drawn_by.generator} of masks", seed=seed, masked=True),
        cases=synthetic_cases(card, labels),
        images=np.broadcast_to(blank, (count, len(card.channels), *card.shape.size)),  # takes no memory
        masks=masks,
    )
    return Sources(images=images, pairing=pairing_of(card, images), rows=np.arange(count), seed=seed)


def drawn_to_edit(
    family: Family,
    card: Card,
    count: int,
    *,
    mix: str | None,
    seed: int,
    edits: Sequence[Edit] = (),
    transplanting: bool = False,
) -> Sources:
    """What two stages draw, as sources to edit or transplant and to render again with the same noise."""
    drawn = Drawing(family, card, count=count, mix=mix, seed=seed).in_memory(f"{card.generator} drawn")
    if transplanting:
        return choose_sources(card, drawn, count, mix=mix, seed=seed, edits=edits, transplanting=True)
    return Sources(images=drawn, pairing=pairing_of(card, drawn), rows=np.arange(count), edits=edits, seed=seed)
