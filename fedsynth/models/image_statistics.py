"""Bounded statistics of one image and, where there are masks, its mask: what a private release may ask of a patient.

They are declared objects. Each sees one `Picture` (an image with its label map) and nothing else, so that nothing of
one patient gets into another's numbers; whatever the image holds, every value lies within the statistic's bounds.
They lie in `models/statistics/`: another organ adds a file there, which registers its own.
"""

import importlib
import pkgutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Values = NDArray[np.float64]
Region = NDArray[np.bool_]

SIDE = 64
"""Lengths are told in 64ths of the image's shorter side, whatever its size."""
CORE = 4.0
"""How deep below the surface of the head the brain surely is."""


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
    """All statistics by name, in the order of their files, and in these as they were registered."""
    _read_files()
    return dict(_statistics)


@cache
def _read_files() -> None:
    from fedsynth.models import statistics as folder

    for module in sorted(one.name for one in pkgutil.iter_modules(folder.__path__)):
        importlib.import_module(f"{folder.__name__}.{module}")


def chosen(layout: Layout) -> list[Statistic]:
    """Those that images of this layout have, in their order."""
    return [one for one in statistics().values() if layout.n_labels > 1 or not one.needs_masks]


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


def per_channel(each: int) -> Callable[[Layout], int]:
    """The length of a statistic that has so many values for every channel."""
    return lambda layout: each * layout.channels
