"""What paired families turn into images: the rows of a given set, in a drawn order, edited where the user asks.

The set is named by the user. Nothing here looks for label maps by itself, so no patient's mask is copied out unasked.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from fedsynth.data import ImageSet
from fedsynth.data.mask_anatomy import Anatomy, Labels, Region, brain_of
from fedsynth.data.mask_editing import Edit, Edited, edit, transplant
from fedsynth.errors import ConfigError, ImageSetError
from fedsynth.models.base import SeededSource, Tensors
from fedsynth.models.pairing import LABEL_TO_IMAGE, Pairing, label_source, read_pairing
from fedsynth.training.checkpoint import Card
from fedsynth.training.patient_batches import PatientBatches
from fedsynth.training.random_streams import stream_seed
from fedsynth.training.sampler import class_counts, parse_mix

MOSTLY = 0.5


@dataclass(frozen=True, kw_only=True, eq=False)
class Sources:
    """Image i is made from row `rows[i]` of `images`, with the tumour of row `donors[i]` where there are donors.

    `edits` are applied in order to every label map. A map comes out with the image that was made from it. `lost`
    collects the images whose tumour found room for less than half of itself.
    """

    images: ImageSet
    pairing: Pairing
    rows: NDArray[np.int64]
    donors: NDArray[np.int64] | None = None
    edits: Sequence[Edit] = ()
    seed: int = 0
    lost: set[int] = field(default_factory=set)
    _edited: dict[int, Labels] = field(default_factory=dict, repr=False)

    def labels(self, classes: tuple[str, ...]) -> NDArray[np.int64]:
        """The class number of every image to be made: that of its row, or of the tumour's donor; -1 if unknown."""
        number = {name: i for i, name in enumerate(classes)}
        rows = self.rows if self.donors is None else self.donors
        return np.array([number.get(name, -1) for name in self.images.cases["class"].iloc[rows]], np.int64)

    def source(self, start: int, stop: int) -> torch.Tensor:
        """The sources of images `start` to `stop`, as the family reads them."""
        dataset = PatientBatches(self.images)
        batch: Tensors = dataset.fetch(self.rows[start:stop])
        if self.images.masks is not None:
            masks = np.stack([self.mask(i) for i in range(start, stop)])
            batch["mask"] = label_source(masks, len(self.images.header.mask_labels))
        rng = SeededSource(stream_seed(self.seed, "source", start))
        return self.pairing.source(batch, self.images.header.channels, rng)

    def mask(self, i: int) -> Labels:
        """The label map of image i after transplanting and editing; kept a while, for source and output both ask."""
        if i not in self._edited:
            if len(self._edited) > 256:
                self._edited.clear()
            self._edited[i] = self._make_mask(i)
        return self._edited[i]

    def image(self, i: int) -> NDArray[np.float32]:
        """The picture of row i in [0, 1], all channels."""
        return _picture(self.images, int(self.rows[i]))

    def _make_mask(self, i: int) -> Labels:
        assert self.images.masks is not None
        mask: Labels = np.asarray(self.images.masks[int(self.rows[i])])
        if self.donors is None and not self.edits:
            return mask
        anatomy, spacing = Anatomy.of(self.images.header.mask_labels), self.images.header.spacing_mm
        if self.donors is not None:
            donor: Labels = np.asarray(self.images.masks[int(self.donors[i])])
            mask = self._noted(i, transplant(donor, mask, anatomy, spacing, self._brains(anatomy, i)))
        for wanted in self.edits:
            brain = None if anatomy.tissue else brain_of(self.image(i))
            mask = self._noted(i, edit(mask, wanted, anatomy, spacing, brain))
        return mask

    def _noted(self, i: int, edited: Edited) -> Labels:
        if edited.kept < MOSTLY:
            self.lost.add(i)
        return edited.mask

    def _brains(self, anatomy: Anatomy, i: int) -> tuple[Region, Region] | None:
        if anatomy.tissue or self.donors is None:
            return None
        return brain_of(_picture(self.images, int(self.donors[i]))), brain_of(self.image(i))


def pairing_of(card: Card, images: ImageSet) -> Pairing:
    """What the generator turns into what, in the channels and labels of `images`; the second of two stages, maps."""
    return read_pairing(card.pairing or LABEL_TO_IMAGE, images.header.channels, images.header.mask_labels)


def choose_sources(
    card: Card,
    images: ImageSet,
    count: int,
    *,
    mix: str | None = None,
    seed: int = 0,
    edits: Sequence[Edit] = (),
    transplanting: bool = False,
) -> Sources:
    """Rows for `count` images, in a drawn order, each row used once before any is used again; classes by `mix`."""
    pairing = pairing_of(card, images)
    _refuse_other_kind(card, images, pairing)
    if (edits or transplanting) and pairing.source_channels:
        problem = "only label maps can be edited, and this generator reads other images"
        raise ConfigError(problem, value=card.pairing, remedy="train with --pairing label-to-image")
    random = np.random.default_rng(stream_seed(seed, "rows"))
    if not transplanting:
        return Sources(
            images=images, pairing=pairing, rows=_rows(card, images, count, mix, random), edits=edits, seed=seed
        )
    donors, healthy = _with_and_without_tumour(images)
    donor_rows = donors[_rows(card, images.rows(donors), count, mix, random)]
    recipients = np.resize(random.permutation(healthy), count)
    return Sources(images=images, pairing=pairing, rows=recipients, donors=donor_rows, edits=edits, seed=seed)


def _rows(card: Card, images: ImageSet, count: int, mix: str | None, random: np.random.Generator) -> NDArray[np.int64]:
    if mix is None:
        return np.resize(random.permutation(len(images)), count).astype(np.int64)
    chosen = []
    for name, number in class_counts(count, card.classes, parse_mix(mix, card.classes)).items():
        here = np.flatnonzero((images.cases["class"] == name).to_numpy())
        if number and not len(here):
            raise ConfigError("the source set has no image of a class that --mix names", value=name)
        chosen.append(np.resize(random.permutation(here), number))
    return random.permutation(np.concatenate(chosen)).astype(np.int64)


def _with_and_without_tumour(images: ImageSet) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    assert images.masks is not None
    anatomy = Anatomy.of(images.header.mask_labels)
    ill = np.array([anatomy.tumour_in(np.asarray(images.masks[i])).any() for i in range(len(images))])
    if ill.all() or not ill.any():
        missing = "healthy images" if ill.all() else "images with a tumour"
        raise ConfigError(f"--transplant needs both healthy images and tumours, and the source set has no {missing}")
    return np.flatnonzero(ill), np.flatnonzero(~ill)


def _refuse_other_kind(card: Card, images: ImageSet, pairing: Pairing) -> None:
    header = images.header
    pairs: dict[str, tuple[object, object]] = {
        "size": (card.shape.size, images.size),
        "spacing-mm": (card.spacing_mm, header.spacing_mm),
    }
    if not pairing.source_channels:
        pairs["mask-labels"] = (card.mask_labels, header.mask_labels)
    for key, (wanted, found) in pairs.items():
        if wanted != found:
            problem = f"the source set differs in {key}: the generator was trained on {wanted}, the set has {found}"
            raise ImageSetError(problem, file=images.folder)


def _picture(images: ImageSet, row: int) -> NDArray[np.float32]:
    pixels = np.asarray(images.images[row], np.float32)
    return np.asarray(pixels / 255, np.float32) if images.images.dtype == np.uint8 else pixels
