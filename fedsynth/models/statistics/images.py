"""What an image shows, whatever its mask: intensities, outline, texture."""

import numpy as np
from scipy import ndimage

from fedsynth.models.image_statistics import (
    Picture,
    Statistic,
    Values,
    block_means,
    histogram,
    per_channel,
    register,
)

BLOCKS = {2: 8, 3: 4}
DEPTHS = (0, 1, 2, 3, 5, 8, 12, np.inf)
SPOTS = (-0.3, 0.12, 0.2, 0.3)
"""How far a spot is from the middle of the brain."""


def _mean_image(picture: Picture) -> Values:
    return np.stack([block_means(one, BLOCKS[one.ndim]) for one in picture.relative]) / 1.2


def _brightness(picture: Picture) -> Values:
    """Median and two bright ends of each channel as stored, within the head."""
    return np.percentile(picture.image[:, picture.head], (50, 90, 99), axis=1)


def _intensities(picture: Picture) -> Values:
    return np.stack([histogram(one[picture.core], 0, 1.2, 14) for one in picture.relative])


def _profile(picture: Picture) -> Values:
    shell = np.where(picture.head, np.searchsorted(DEPTHS, picture.depth) - 1, -1).ravel()
    inside = shell >= 0
    count = np.bincount(shell[inside], minlength=len(DEPTHS) - 1)
    sums = [np.bincount(shell[inside], one.ravel()[inside], len(count)) for one in picture.relative]
    return np.stack(sums) / np.maximum(count, 1) / 1.2


def _air(picture: Picture) -> Values:
    """Mean and deviation of each channel outside the head."""
    outside = picture.relative[:, ~picture.head]
    if not outside.size:
        return np.zeros((2, len(picture.image)))
    return np.stack([outside.mean(1), outside.std(1)]) * 2


def _head_box(picture: Picture) -> list[float]:
    """The share of the image that the head fills, its centre off the middle and its extent along each axis."""
    found = [float(picture.head.mean())]
    for axis, side in enumerate(picture.head.shape):
        others = tuple(k for k in range(picture.head.ndim) if k != axis)
        places = np.flatnonzero(picture.head.any(others))
        line = picture.head.sum(others)
        centre = float((line * (np.arange(side) + 0.5)).sum() / line.sum() / side)
        found += [2 * centre - 1, float(places[-1] - places[0] + 1) / side]
    return found


def _slopes(picture: Picture) -> Values:
    shown = np.log10(picture.slope + 1e-4)
    return np.stack([histogram(one[picture.core], -3, -0.4, 8) for one in shown])


def _texture(picture: Picture) -> Values:
    """The median curvature of each channel: noise and grain."""
    return np.array([np.median(np.abs(ndimage.laplace(one)[picture.core])) for one in picture.relative]) * 2.5


def _spots(picture: Picture) -> Values:
    """The share of the brain outside the lesion that is much darker or brighter than its middle, noise apart."""
    rest = picture.core & ~ndimage.binary_dilation(picture.lesion, iterations=2)
    if not rest.any():
        return np.zeros((len(picture.image), len(SPOTS)))
    smooth = [ndimage.gaussian_filter(one, 1 / picture.unit)[rest] for one in picture.relative]
    shifts = [one - middle for one, middle in zip(smooth, picture.middle, strict=True)]
    return 4 * np.stack([[np.mean(shift * np.sign(edge) > abs(edge)) for edge in SPOTS] for shift in shifts])


for _one in (
    Statistic(
        name="mean image", length=lambda i: i.channels * BLOCKS[i.dimensions] ** i.dimensions, measure=_mean_image
    ),
    Statistic(name="brightness", length=per_channel(3), measure=_brightness),
    Statistic(name="intensity histogram", length=per_channel(14), measure=_intensities),
    Statistic(name="intensity profile by depth", length=per_channel(len(DEPTHS) - 1), measure=_profile),
    Statistic(name="air", length=per_channel(2), measure=_air),
    Statistic(name="head box", length=lambda i: 1 + 2 * i.dimensions, measure=_head_box, low=-1.0),
    Statistic(name="gradient histogram", length=per_channel(8), measure=_slopes),
    Statistic(name="texture", length=per_channel(1), measure=_texture),
    Statistic(name="spots", length=per_channel(len(SPOTS)), measure=_spots),
):
    register(_one)
