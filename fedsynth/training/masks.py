"""Label maps that two stages draw, as sources to edit: no patient's map is needed, and none is copied out."""

from collections.abc import Sequence

import numpy as np

from fedsynth.generators.family import Family
from fedsynth.images.editing import Edit
from fedsynth.training.checkpoint import Card
from fedsynth.training.sources import Sources, choose_sources, pairing_of
from fedsynth.training.synthetic import Drawing


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
