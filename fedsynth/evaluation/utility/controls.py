"""What a synthetic set must beat: segmenters and classifiers that need no images of patients to learn from.

They are fitted on reference patients, who are free for it. A score that they reach as well shows nothing.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fedsynth.data import ImageSet

LEVELS = 256
SPREAD = 5.0
"""Standardised values are counted between minus and plus so many standard deviations."""


@dataclass(frozen=True, kw_only=True)
class Threshold:
    """Calls every pixel of the foreground a lesion whose `channel` is at least (or at most) `level` of 255.

    With `standardised` the levels are those of z-scores over the image's own foreground: scanners differ in gain.
    """

    channel: int
    level: int
    bright: bool
    standardised: bool
    label: int
    n_labels: int
    steps: int = 0
    collapsed: bool = False

    def predict(self, images: ImageSet) -> Iterator[NDArray[np.float32]]:
        """The label map of each image, one-hot."""
        labels = np.arange(self.n_labels)
        for row in range(len(images)):
            inside, values = _levels(images, row, standardised=self.standardised)
            near = values[self.channel] >= self.level if self.bright else values[self.channel] <= self.level
            found = np.where(near & inside, self.label, 0)
            yield (found[None] == labels.reshape(-1, *[1] * found.ndim)).astype(np.float32)


def fit_threshold(reference: ImageSet) -> Threshold:
    """The channel, level, sign and scale with the largest mean Dice of the whole lesion over patients who have one.

    What it finds is called by the label that covers most pixels.
    """
    assert reference.masks is not None
    areas = np.bincount(np.asarray(reference.masks).ravel(), minlength=len(reference.header.mask_labels))
    dice = np.stack([_dice_by_level(reference, standardised=standardised) for standardised in (False, True)])
    standardised, dark, channel, level = np.unravel_index(dice.argmax(), dice.shape)
    return Threshold(
        channel=int(channel),
        level=int(level),
        bright=not dark,
        standardised=bool(standardised),
        label=int(areas[1:].argmax()) + 1,
        n_labels=len(areas),
    )


def _dice_by_level(images: ImageSet, *, standardised: bool) -> NDArray[np.float64]:
    """Mean Dice over ill patients of (at least, at most), channel and level, from histograms of grey levels."""
    assert images.masks is not None
    shape = (len(images.header.channels), 2, LEVELS)
    found: dict[str, NDArray[np.int64]] = {}
    lesion: dict[str, int] = {}
    for row, patient in enumerate(images.cases["patient"]):
        inside, values = _levels(images, row, standardised=standardised)
        ill = np.asarray(images.masks[row]) > 0
        lesion[patient] = lesion.get(patient, 0) + int(ill.sum())
        counts = found.setdefault(patient, np.zeros(shape, np.int64))
        for channel, pixels in enumerate(values):
            counts[channel, 0] += np.bincount(pixels[inside & ill], minlength=LEVELS)
            counts[channel, 1] += np.bincount(pixels[inside], minlength=LEVELS)
    counts = np.stack([found[patient] for patient in found if lesion[patient]])
    true = np.array([area for area in lesion.values() if area])[:, None, None]
    ways = (counts[..., ::-1].cumsum(-1)[..., ::-1], counts.cumsum(-1))
    return np.stack([(2 * way[:, :, 0] / (way[:, :, 1] + true)).mean(0) for way in ways])


def _levels(images: ImageSet, row: int, *, standardised: bool) -> tuple[NDArray[np.bool_], NDArray[np.uint8]]:
    """The foreground, where any channel is above zero, and the image's values in 256 levels."""
    image = np.asarray(images.images[row])
    inside = image.max(0) > 0
    if not standardised:
        return inside, image if image.dtype == np.uint8 else np.rint(image * (LEVELS - 1)).astype(np.uint8)
    pixels = image[:, inside].astype(np.float64)
    shape = (-1, *[1] * inside.ndim)
    mean, spread = pixels.mean(1).reshape(shape), pixels.std(1).reshape(shape) if inside.any() else np.ones(shape)
    scores = (image - mean) / np.maximum(spread, 1e-6)
    return inside, np.rint((scores / SPREAD + 1).clip(0, 2) / 2 * (LEVELS - 1)).astype(np.uint8)


def mean_image_set(reference: ImageSet) -> ImageSet:
    """The mean of all reference images, with a lesion painted on it wherever a reference image has one.

    Each label differs from the mean image, in each channel, by as much as it does on average. One image, and for every
    reference image its label map: no patient's anatomy.
    """
    assert reference.masks is not None
    images = np.asarray(reference.images)
    masks = np.asarray(reference.masks)
    mean = images.mean(0, dtype=np.float64)
    painted = np.repeat(mean[None], len(images), 0)
    for label in range(1, len(reference.header.mask_labels)):
        inside = masks == label
        if inside.any():
            rows = np.moveaxis(images - mean, 1, -1)[inside]
            np.moveaxis(painted, 1, -1)[inside] += rows.mean(0)
    most = 255 if images.dtype == np.uint8 else 1
    painted = painted.clip(0, most)
    cases = reference.cases.assign(
        case=[f"mean-{row}" for row in range(len(images))], patient="", site="", role="", slice=""
    )
    header = replace(reference.header, name="mean-image", origin="synthetic", split=None, provenance={})
    made = (np.rint(painted) if most == 255 else painted).astype(images.dtype)
    return replace(reference, header=header, cases=cases, images=made, masks=masks, folder=None)


def has_lesions(images: ImageSet | None) -> bool:
    """Whether controls of segmentation can be fitted on these images."""
    return images is not None and images.masks is not None and bool(np.asarray(images.masks).any())


@dataclass(frozen=True, kw_only=True)
class MajorityClass:
    """Always answers the same class."""

    number: int
    n_classes: int
    steps: int = 0
    collapsed: bool = False

    def predict(self, images: ImageSet) -> Iterator[NDArray[np.float32]]:
        """One-hot, the same for all."""
        answer = np.eye(self.n_classes, dtype=np.float32)[self.number]
        return iter([answer] * len(images))


def majority_class(classes: Sequence[str], names: Sequence[str]) -> MajorityClass:
    """The commonest of the classes of images; of the holdout itself, so that nothing constant does better."""
    counts = pd.Series(list(classes)).value_counts()
    return MajorityClass(number=max(range(len(names)), key=lambda i: counts.get(names[i], 0)), n_classes=len(names))
