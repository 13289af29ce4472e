"""Bounded statistics of one image and, where there are masks, its mask: what a private release may ask of a patient.

They are declared objects. Each sees one `Picture` (an image with its label map) and nothing else, so that nothing of
one patient gets into another's numbers; whatever the image holds, every value lies within the statistic's bounds.
Another organ brings a function of its own and registers it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Values = NDArray[np.float64]
Region = NDArray[np.bool_]

SIDE = 64
"""Lengths are told in 64ths of the image's shorter side, whatever its size."""
BLOCKS = {2: 8, 3: 4}
PLACES = {2: 4, 3: 3}
DEPTHS = (0, 1, 2, 3, 5, 8, 12, np.inf)
CORE = 4.0
"""How deep below the surface of the head the brain surely is."""
SPOTS = (-0.3, 0.12, 0.2, 0.3)
"""How far a spot is from the middle of the brain."""
FEWEST = 4
"""Pixels, with fewer of which a lesion has no texture or edge."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """What images look like as arrays: channels, size and labels, and which of the labels make up a lesion."""

    channels: int
    size: tuple[int, ...]
    n_labels: int
    lesion: tuple[int, ...]

    @property
    def dimensions(self) -> int:
        """2 for images, 3 for volumes."""
        return len(self.size)


class Picture:
    """One image (channels, ...) of values in [0, 1] and its label map (...), with what several statistics need.

    Values that are no numbers count as 0, those beyond the range as its ends.
    """

    def __init__(self, image: NDArray[np.floating], labels: NDArray[np.integer], layout: Layout) -> None:
        self.layout = layout
        self.image = np.clip(np.nan_to_num(np.asarray(image, np.float64), nan=0.0, posinf=1.0, neginf=0.0), 0, 1)
        self.labels = labels
        self.lesion: Region = np.isin(labels, layout.lesion)
        self.unit = SIDE / min(layout.size)

    @cached_property
    def relative(self) -> Values:
        """The image divided by its own bright end, channel by channel, in [0, 1.2]."""
        bright = np.percentile(self.image.reshape(len(self.image), -1), 99, axis=1)
        return np.clip(self.image / np.maximum(bright, 0.02).reshape(-1, *[1] * self.layout.dimensions), 0, 1.2)

    @cached_property
    def head(self) -> Region:
        """Whatever is not air; everything where nothing stands out."""
        smooth = ndimage.gaussian_filter(self.relative.mean(0), 1 / self.unit)
        found: Region = ndimage.binary_fill_holes(smooth > 0.15)
        return found if found.mean() > 0.005 else np.ones_like(found)

    @cached_property
    def depth(self) -> Values:
        """The distance of every pixel of the head from air."""
        framed = np.pad(self.head, 1)
        inner = (slice(1, -1),) * self.layout.dimensions
        return np.asarray(ndimage.distance_transform_edt(framed)[inner] * self.unit, np.float64)

    @cached_property
    def core(self) -> Region:
        """Deep in the head; all of the head where it is too small."""
        deep = self.depth > CORE
        return deep if deep.sum() > 0.05 * self.head.sum() else self.head

    @cached_property
    def slope(self) -> Values:
        """The size of the gradient, channel by channel, per 64th of the side."""
        parts = [[ndimage.sobel(one, axis) for axis in range(one.ndim)] for one in self.relative]
        scale = 2 * 4 ** (self.layout.dimensions - 1) / self.unit
        return np.asarray(np.sqrt(np.square(parts).sum(1)) / scale, np.float64)

    @cached_property
    def rim(self) -> Region:
        """The pixels on both sides of the lesion's outline."""
        around: Region = ndimage.binary_dilation(self.lesion) & ~ndimage.binary_erosion(self.lesion)
        return around

    @cached_property
    def ring(self) -> Region:
        """The tissue around the lesion."""
        wide = max(2, round(3 / self.unit))
        near: Region = ndimage.binary_dilation(self.lesion, iterations=wide) & ~ndimage.binary_dilation(self.lesion)
        return near & self.head

    @cached_property
    def middle(self) -> Values:
        """The median of each channel deep in the head."""
        return np.median(self.relative[:, self.core], axis=1)


@dataclass(frozen=True, kw_only=True)
class Statistic:
    """`measure` gives `length(layout)` values between `low` and `high`, all of them zeros where it has no answer.

    One that `needs_masks` is left out of sets without masks.
    """

    name: str
    length: Callable[[Layout], int]
    measure: Callable[[Picture], Values | Sequence[float]]
    low: float = 0.0
    high: float = 1.0
    needs_masks: bool = False


_statistics: dict[str, Statistic] = {}


def register(statistic: Statistic) -> None:
    """Add a statistic, under a name of its own."""
    if statistic.name in _statistics:
        raise ValueError(f"two statistics are named {statistic.name}")
    _statistics[statistic.name] = statistic


def statistics() -> dict[str, Statistic]:
    """All statistics by name, in the order in which they were registered."""
    return dict(_statistics)


def chosen(layout: Layout) -> list[Statistic]:
    """Those that images of this layout have, in their order."""
    return [one for one in _statistics.values() if layout.n_labels > 1 or not one.needs_masks]


def measured(image: NDArray[np.floating], labels: NDArray[np.integer], layout: Layout) -> Values:
    """Every statistic of one image in [0, 1] and its label map, one after the other."""
    picture = Picture(image, labels, layout)
    parts = [np.clip(np.asarray(one.measure(picture), np.float64).ravel(), one.low, one.high) for one in chosen(layout)]
    return np.concatenate(parts)


def lengths(layout: Layout) -> list[int]:
    """How many values each statistic has, in their order."""
    return [one.length(layout) for one in chosen(layout)]


def histogram(values: Values, low: float, high: float, bins: int) -> Values:
    """Shares of `values` about `bins` evenly spaced points; each value counts for the two points it lies between."""
    if not values.size:
        return np.zeros(bins)
    place = np.clip((values.ravel() - low) / (high - low), 0, 1) * (bins - 1)
    below = np.minimum(place.astype(np.int64), bins - 2)
    part = place - below
    counts = np.bincount(below, 1 - part, bins) + np.bincount(below + 1, part, bins)
    return np.asarray(counts / values.size, np.float64)


@lru_cache(maxsize=8)
def _block_of(size: tuple[int, ...], blocks: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The number of the block that every pixel lies in, and the pixels of each block."""
    lines = [np.arange(side) * blocks // side for side in size]
    number = np.zeros(size, np.int64)
    for axis, line in enumerate(lines):
        number = number * blocks + line.reshape([-1 if axis == k else 1 for k in range(len(size))])
    return number.ravel(), np.bincount(number.ravel(), minlength=blocks ** len(size))


def block_means(image: Values, blocks: int) -> Values:
    """Means over a grid of `blocks` along each axis."""
    number, count = _block_of(image.shape, blocks)
    return np.asarray(np.bincount(number, image.ravel(), len(count)) / np.maximum(count, 1), np.float64)


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


def _per_channel(each: int) -> Callable[[Layout], int]:
    return lambda layout: each * layout.channels


for _one in (
    Statistic(
        name="mean image", length=lambda i: i.channels * BLOCKS[i.dimensions] ** i.dimensions, measure=_mean_image
    ),
    Statistic(name="brightness", length=_per_channel(3), measure=_brightness),
    Statistic(name="intensity histogram", length=_per_channel(14), measure=_intensities),
    Statistic(name="intensity profile by depth", length=_per_channel(len(DEPTHS) - 1), measure=_profile),
    Statistic(name="air", length=_per_channel(2), measure=_air),
    Statistic(name="head box", length=lambda i: 1 + 2 * i.dimensions, measure=_head_box, low=-1.0),
    Statistic(name="gradient histogram", length=_per_channel(8), measure=_slopes),
    Statistic(name="texture", length=_per_channel(1), measure=_texture),
    Statistic(name="spots", length=_per_channel(len(SPOTS)), measure=_spots),
):
    register(_one)

for _one in (
    Statistic(name="lesion size", length=lambda i: 9, measure=_lesion_size, needs_masks=True),
    Statistic(name="label shares", length=lambda i: i.n_labels - 1, measure=_parts, needs_masks=True),
    Statistic(
        name="label means", length=lambda i: i.channels * (i.n_labels - 1), measure=_label_means, needs_masks=True
    ),
    Statistic(name="lesion intensities", length=_per_channel(12), measure=_lesion_intensities, needs_masks=True),
    Statistic(name="lesion contrast", length=_per_channel(9), measure=_lesion_contrast, needs_masks=True),
    Statistic(name="lesion texture", length=_per_channel(6), measure=_lesion_texture, needs_masks=True),
    Statistic(name="lesion edge", length=_per_channel(6), measure=_lesion_edge, needs_masks=True),
    Statistic(name="lesion outline", length=lambda i: 6, measure=_lesion_outline, needs_masks=True),
    Statistic(
        name="lesion position",
        length=lambda i: PLACES[i.dimensions] ** i.dimensions,
        measure=_lesion_position,
        needs_masks=True,
    ),
):
    register(_one)
