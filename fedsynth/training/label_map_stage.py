"""Label maps that two stages draw, as sources to edit: no patient's map is needed, and none is copied out."""

from collections.abc import Sequence

import numpy as np

from fedsynth.data.mask_editing import Edit
from fedsynth.models.base import Family
from fedsynth.training.checkpoint import Card
from fedsynth.training.generate import Drawing
from fedsynth.training.paired_sources import Sources, choose_sources, pairing_of


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
