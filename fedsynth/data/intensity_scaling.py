"""Scaling an image's own numbers to [0, 1]: by public constants, or by percentiles of that image alone.

Nothing here ever sees two acquisitions: a statistic over patients would leak one patient into another's picture.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fedsynth.errors import ConfigError

GRAMMAR = "write window:LOW,HIGH in the source's units or percentile:LOW,HIGH"


@dataclass(frozen=True, kw_only=True)
class Window:
    """`low` becomes 0 and `high` becomes 1, in the units of the source (Hounsfield for CT): public constants."""

    low: float
    high: float

    def __post_init__(self) -> None:
        if not (np.isfinite([self.low, self.high]).all() and self.low < self.high):
            raise ConfigError("an intensity window needs LOW below HIGH", value=str(self), remedy=GRAMMAR)

    def __str__(self) -> str:
        return f"window:{self.low:g},{self.high:g}"


@dataclass(frozen=True, kw_only=True)
class Percentile:
    """The percentiles of an acquisition's own voxels, channel by channel, become 0 and 1.

    An acquisition is a picture, the stack of slices of one scan, or a volume (before slices are cut from it, so that
    all its slices share one scale). Voxels of the background are not counted: the background is the one value that most
    corners of the acquisition share, as in skull-stripped or padded images, and there is none when corners differ.
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        if not 0 <= self.low < self.high <= 100:
            raise ConfigError("percentiles need 0 <= LOW < HIGH <= 100", value=str(self), remedy=GRAMMAR)

    def __str__(self) -> str:
        return f"percentile:{self.low:g},{self.high:g}"


Scaling: TypeAlias = Window | Percentile


@dataclass(frozen=True, kw_only=True, eq=False)
class Scale:
    """What one acquisition is scaled by: per channel the numbers that become 0 and 1, and the background's new value.

    A channel whose limits coincide becomes 0 everywhere.
    """

    low: NDArray[np.float64]
    high: NDArray[np.float64]
    background: tuple[float | None, ...]

    def apply(self, image: NDArray[Any]) -> NDArray[np.float32]:
        """`image` (channels, ...) as float32 in [0, 1]; what lies outside the limits is clipped."""
        low, width = self._columns(image.ndim)
        scaled = image.astype(np.float32)
        scaled -= low
        np.clip(scaled, 0, width, out=scaled)  # first, or a value far outside narrow limits overflows
        scaled /= width
        return scaled

    @property
    def channels(self) -> list["Scale"]:
        """The scale of each channel alone: large volumes are scaled one channel at a time."""
        limits = zip(self.low, self.high, self.background, strict=True)
        return [Scale(low=np.array([low]), high=np.array([high]), background=(value,)) for low, high, value in limits]

    @property
    def fill(self) -> NDArray[np.float32]:
        """The scaled value of each channel's background, 0 where there is none: what padding is filled with."""
        values = [low if value is None else value for value, low in zip(self.background, self.low, strict=True)]
        return self.apply(np.array(values)[:, None])[:, 0]

    def _columns(self, ndim: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        shape = (-1,) + (1,) * (ndim - 1)
        width = (self.high - self.low).astype(np.float32)
        width[width <= 0] = np.inf
        return self.low.reshape(shape).astype(np.float32), width.reshape(shape)


def parse_scaling(text: str) -> Scaling:
    """`window:LOW,HIGH` or `percentile:LOW,HIGH`, as on the command line."""
    kind, _, numbers = text.partition(":")
    try:
        low, high = (float(number) for number in numbers.split(","))
    except ValueError:
        raise ConfigError("an intensity scaling cannot be read", value=text, remedy=GRAMMAR) from None
    if kind.strip() == "window":
        return Window(low=low, high=high)
    if kind.strip() == "percentile":
        return Percentile(low=low, high=high)
    raise ConfigError("unknown intensity scaling", value=text, remedy=GRAMMAR)


def scale_of(scaling: Scaling, images: Sequence[NDArray[Any]]) -> Scale:
    """The scale of one acquisition, given all its `images` (channels, ...)."""
    n_channels = len(images[0])
    background = tuple(background_of([image[channel] for image in images]) for channel in range(n_channels))
    if isinstance(scaling, Window):
        low, high = np.full(n_channels, scaling.low), np.full(n_channels, scaling.high)
    else:
        limits = [
            _percentiles(scaling, [image[channel] for image in images], background[channel])
            for channel in range(n_channels)
        ]
        low, high = np.array(limits, np.float64).T
    return Scale(low=low, high=high, background=background)


def background_of(parts: Sequence[NDArray[Any]]) -> float | None:
    """The value that more than half of all corners of all parts have, or None when there is no such value."""
    corners = np.concatenate([part[_corners(part.ndim)] for part in parts])
    values, counts = np.unique(corners, return_counts=True)
    return float(values[counts.argmax()]) if 2 * counts.max() > counts.sum() else None


@cache
def _corners(ndim: int) -> tuple[NDArray[np.int64], ...]:
    return tuple(-np.indices((2,) * ndim).reshape(ndim, -1))


def _percentiles(scaling: Percentile, parts: list[NDArray[Any]], background: float | None) -> tuple[float, float]:
    counted = [part.ravel() if background is None else part[part != background] for part in parts]
    values = np.concatenate(counted)
    if values.size:
        low, high = np.percentile(values, [scaling.low, scaling.high])
        if low < high:
            return float(low), float(high)
    return min(float(part.min()) for part in parts), max(float(part.max()) for part in parts)
