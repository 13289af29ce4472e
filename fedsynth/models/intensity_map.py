"""Monotone maps of stored intensities, a few numbers per channel: how public images come to look like other scans.

A map keeps 0 and the order of intensities, so that it moves no outline. It follows from its numbers and from public
knots alone.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]

BEND, LEVEL = (-0.8, 0.8), (0.35, 1.0)
"""Of each channel: the log of how much steeper the dark and the bright part are than the middle; and the intensity
that the bright end of the public images becomes, for sets are stored under any window."""
PARTS = 3
QUANTILES = (0.4, 0.85, 0.995)
"""Of the public intensities above air: where the dark part ends, where the bright one begins, and its end."""
AIR, LEAST = 0.02, 0.02


def map_limits(channels: int) -> Values:
    """Lowest and highest value of every number of a map: (2, 3 per channel)."""
    return np.array([BEND, BEND, LEVEL] * channels, np.float64).T


def public_knots(images: Iterator[Values], channels: int) -> Values:
    """Where the parts of a map meet, from images (channels, ...) in [0, 1]: (channels, 3), rising."""
    shown: list[list[Values]] = [[] for _ in range(channels)]
    for image in images:
        for own, channel in zip(shown, image, strict=True):
            own.append(channel[channel > AIR])
    return np.stack([_knots(np.concatenate(own)) if own else _knots(np.zeros(0)) for own in shown])


def _knots(values: Values) -> Values:
    """Quantiles of `values`, kept apart from each other and from the ends."""
    found = np.quantile(values, QUANTILES) if values.size else np.array([0.3, 0.6, 0.9])
    room = LEAST * np.arange(1, 4)
    found = np.clip(found, room, 1 - room[::-1])
    for i in (1, 2):
        found[i] = max(found[i], found[i - 1] + LEAST)
    return np.asarray(found, np.float64)


def mapped(image: Values, numbers: Values, knots: Values) -> Values:
    """An image (channels, ...) in [0, 1] under the map of these numbers (3 per channel), in [0, 1]."""
    made = [_one(*parts) for parts in zip(image, numbers.reshape(-1, PARTS), knots, strict=True)]
    return np.stack(made)


def _one(channel: Values, numbers: Values, knots: Values) -> Values:
    dark, bright, level = numbers
    slopes = np.array([np.exp(dark), 1.0, np.exp(bright)])
    heights = np.cumsum(slopes * np.diff(knots, prepend=0.0))
    scale = level / heights[-1]
    beyond = heights[-1] + slopes[-1] * (1 - knots[-1])
    shown = np.interp(channel, [0, *knots, 1], scale * np.array([0, *heights, beyond]))
    return np.asarray(np.clip(shown, 0, 1), np.float64)
