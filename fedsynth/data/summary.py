"""What stands in an image set, counted: images, patients, classes and labels per site and role, intensities per site.

Every number comes from one walk over the arrays, so memory does not grow with the set. It judges nothing.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fedsynth.data.image_set import ImageSet
from fedsynth.data.lazy_arrays import Stack, blocks
from fedsynth.data.mask_anatomy import tumour_labels
from fedsynth.data.parallel import Progress, silent

QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
FINE_BINS = 2**16


@dataclass(frozen=True, kw_only=True)
class LabelShare:
    """How often and how large: the share of images that show it, and its mean share of the area among those images.

    `area` is none where no image shows it. For volumes the area is the volume.
    """

    images: float
    area: float | None


@dataclass(frozen=True, kw_only=True)
class Group:
    """The images of one site and role; both are empty texts where the table leaves them empty, None means all.

    `tumour` is all labels of the tumour taken together (see `tissue.py`), none where the masks name only tissues or
    there are none (then `labels` is empty). `classes` counts images; an empty name stands for images without a class.
    """

    site: str | None
    role: str | None
    images: int
    patients: int
    classes: dict[str, int]
    tumour: LabelShare | None
    labels: dict[str, LabelShare]


@dataclass(frozen=True, kw_only=True)
class Intensities:
    """The voxels of one channel at one site, in [0, 1]: exact for uint8, to 2^-17 for float32.

    `quantiles` are those of all voxels, `above_zero` those of the voxels that are not black, none if all are.
    """

    site: str
    channel: str
    mean: float
    black: float
    quantiles: dict[float, float]
    above_zero: dict[float, float] | None


@dataclass(frozen=True, kw_only=True)
class Summary:
    """The tables of `fedsynth inspect`; the last group is the whole set."""

    groups: list[Group]
    intensities: list[Intensities]


def summarise(image_set: ImageSet, *, progress: Progress = silent) -> Summary:
    """Count everything, reading every image and mask once."""
    counts = None if image_set.masks is None else label_counts(image_set.masks, len(image_set.header.mask_labels))
    cases = image_set.cases
    groups = [
        _group(image_set, counts, ((cases["site"] == site) & (cases["role"] == role)).to_numpy(), site, role)
        for site, role in sorted(set(zip(cases["site"], cases["role"], strict=True)), key=_in_order)
    ]
    everything = _group(image_set, counts, np.ones(len(cases), bool), None, None)
    return Summary(groups=[*groups, everything], intensities=_intensities(image_set, progress))


def label_counts(masks: Stack, n_labels: int) -> NDArray[np.int64]:
    """Voxels of each label in each mask, shape (images, labels)."""
    counts = np.zeros((len(masks), n_labels), np.int64)
    for start, block in blocks(masks):
        flat = block.reshape(len(block), -1)
        counts[start : start + len(block)] = [np.bincount(mask, minlength=n_labels) for mask in flat]
    return counts


def _in_order(pair: tuple[str, str]) -> tuple[str, int]:
    order = ("member", "holdout", "reference", "")
    return pair[0], order.index(pair[1])


def _group(
    image_set: ImageSet,
    counts: NDArray[np.int64] | None,
    rows: NDArray[np.bool_],
    site: str | None,
    role: str | None,
) -> Group:
    cases: pd.DataFrame = image_set.cases[rows]
    names = [*image_set.header.classes, *([""] if (cases["class"] == "").any() else [])]
    labels: dict[str, LabelShare] = {}
    tumour = None
    if counts is not None:
        shares = counts[rows] / np.prod(image_set.size)
        if numbers := tumour_labels(image_set.header.mask_labels):
            tumour = _share(shares[:, numbers].sum(axis=1))
        labels = {name: _share(shares[:, i]) for i, name in enumerate(image_set.header.mask_labels) if i > 0}
    return Group(
        site=site,
        role=role,
        images=len(cases),
        patients=cases.loc[cases["patient"] != "", "patient"].nunique(),
        classes={name: int((cases["class"] == name).sum()) for name in names},
        tumour=tumour,
        labels=labels,
    )


def _share(areas: NDArray[np.float64]) -> LabelShare:
    shown = areas > 0
    if not shown.any():
        return LabelShare(images=0.0, area=None)
    return LabelShare(images=float(shown.mean()), area=float(areas[shown].mean()))


def _intensities(image_set: ImageSet, progress: Progress) -> list[Intensities]:
    sites, owner = np.unique(image_set.cases["site"].to_numpy(str), return_inverse=True)
    n_bins = 256 if image_set.images.dtype == np.uint8 else FINE_BINS
    histograms = np.zeros((len(sites), len(image_set.header.channels), n_bins), np.int64)
    for start, block in blocks(image_set.images):
        values = block if n_bins == 256 else np.round(block * (n_bins - 1)).astype(np.uint16)
        here = owner[start : start + len(block)]
        for site in np.unique(here):
            chosen = values[here == site]
            for channel in range(histograms.shape[1]):
                histograms[site, channel] += np.bincount(chosen[:, channel].ravel(), minlength=n_bins)
        progress(start + len(block), len(image_set))
    return [
        _describe(str(site), channel, histograms[s, c])
        for s, site in enumerate(sites)
        for c, channel in enumerate(image_set.header.channels)
    ]


def _describe(site: str, channel: str, histogram: NDArray[np.int64]) -> Intensities:
    levels = np.linspace(0, 1, len(histogram))
    total = int(histogram.sum())
    without_black = histogram.copy()
    without_black[0] = 0
    return Intensities(
        site=site,
        channel=channel,
        mean=float(histogram @ levels / total),
        black=float(histogram[0] / total),
        quantiles=_quantiles(histogram, levels),
        above_zero=_quantiles(without_black, levels) if without_black.any() else None,
    )


def _quantiles(histogram: NDArray[np.int64], levels: NDArray[np.float64]) -> dict[float, float]:
    """The quantiles that `np.quantile` gives for the values counted in the histogram."""
    below = np.cumsum(histogram)
    place = np.array(QUANTILES) * (below[-1] - 1)
    lower = levels[np.searchsorted(below, np.floor(place), side="right")]
    upper = levels[np.searchsorted(below, np.ceil(place), side="right")]
    values = lower + (upper - lower) * (place - np.floor(place))
    return {share: float(value) for share, value in zip(QUANTILES, values, strict=True)}
