"""What a mask names: size, place, contrast and edge of lesions, and the labels they are made of."""

import numpy as np

from fedsynth.models.image_statistics import (
    Picture,
    Statistic,
    Values,
    block_means,
    histogram,
    per_channel,
    register,
)

PLACES = {2: 4, 3: 3}
FEWEST = 4
"""Pixels, with fewer of which a lesion has no texture or edge."""


def _lesion_size(picture: Picture) -> Values:
    """Its extent as a share of the image's side, by size; the first says that there is none."""
    share = float(picture.lesion.mean()) ** (1 / picture.layout.dimensions)
    return np.array([share == 0, *(histogram(np.array([share]), 0.04, 0.44, 8) * (share > 0))], np.float64)


def _parts(picture: Picture) -> Values:
    """The share of each label within all labels together."""
    counts = np.bincount(picture.labels.ravel().astype(np.int64), minlength=picture.layout.n_labels)
    counts = counts[1 : picture.layout.n_labels]
    return np.asarray(counts / max(1, counts.sum()), np.float64)


def _has_lesion(picture: Picture) -> bool:
    return int(picture.lesion.sum()) >= FEWEST


def _lesion_intensities(picture: Picture) -> Values:
    """How its pixels differ from the middle of the brain."""
    shifts = [one[picture.lesion] - middle for one, middle in zip(picture.relative, picture.middle, strict=True)]
    shown = [histogram(shift, -0.5, 0.8, 12) for shift in shifts]
    return np.stack(shown) * _has_lesion(picture)


def _lesion_contrast(picture: Picture) -> Values:
    """How its mean differs from that of the tissue around it."""
    around = picture.ring if picture.ring.any() else picture.core
    if not _has_lesion(picture):
        return np.zeros((len(picture.image), 9))
    shift = picture.relative[:, picture.lesion].mean(1) - picture.relative[:, around].mean(1)
    return np.stack([histogram(one[None], -0.4, 0.7, 9) for one in shift])


def _lesion_texture(picture: Picture) -> Values:
    if not _has_lesion(picture):
        return np.zeros((len(picture.image), 6))
    return np.stack([histogram(one[picture.lesion].std()[None], 0, 0.25, 6) for one in picture.relative])


def _lesion_edge(picture: Picture) -> Values:
    """How steep its outline is."""
    if not _has_lesion(picture):
        return np.zeros((len(picture.image), 6))
    return np.stack([histogram(one[picture.rim].mean()[None], 0, 0.15, 6) for one in picture.slope])


def _lesion_outline(picture: Picture) -> Values:
    """How long its outline is for its size."""
    if not _has_lesion(picture):
        return np.zeros(6)
    power = (picture.layout.dimensions - 1) / picture.layout.dimensions
    ratio = np.log(picture.rim.sum() / picture.lesion.sum() ** power)
    return histogram(np.array([ratio]), *((1.9, 2.9) if picture.layout.dimensions == 2 else (2.3, 3.3)), 6)


def _lesion_position(picture: Picture) -> Values:
    """How much of each part of the image it fills."""
    return block_means(picture.lesion.astype(np.float64), PLACES[picture.layout.dimensions])


def _label_means(picture: Picture) -> Values:
    """The mean of each channel under each label; 0 where there is no such pixel."""
    number, n = picture.labels.ravel().astype(np.int64), picture.layout.n_labels
    count = np.maximum(np.bincount(number, minlength=n), 1)[1:n]
    sums = np.stack([np.bincount(number, one.ravel(), n)[1:n] for one in picture.relative])
    return np.asarray(sums / count / 1.2, np.float64)


for _one in (
    Statistic(name="lesion size", length=lambda i: 9, measure=_lesion_size, needs_masks=True),
    Statistic(name="label shares", length=lambda i: i.n_labels - 1, measure=_parts, needs_masks=True),
    Statistic(
        name="label means", length=lambda i: i.channels * (i.n_labels - 1), measure=_label_means, needs_masks=True
    ),
    Statistic(name="lesion intensities", length=per_channel(12), measure=_lesion_intensities, needs_masks=True),
    Statistic(name="lesion contrast", length=per_channel(9), measure=_lesion_contrast, needs_masks=True),
    Statistic(name="lesion texture", length=per_channel(6), measure=_lesion_texture, needs_masks=True),
    Statistic(name="lesion edge", length=per_channel(6), measure=_lesion_edge, needs_masks=True),
    Statistic(name="lesion outline", length=lambda i: 6, measure=_lesion_outline, needs_masks=True),
    Statistic(
        name="lesion position",
        length=lambda i: PLACES[i.dimensions] ** i.dimensions,
        measure=_lesion_position,
        needs_masks=True,
    ),
):
    register(_one)
