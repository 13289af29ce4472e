"""Bringing images and masks of any size to one square or cube, without cutting anything off and without stretching.

Images are averaged over the area of each new pixel when they shrink (so nothing aliases) and interpolated linearly when
they grow. Masks keep small lesions: see `resample_mask`.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Where the new pixels lie: along each axis, in source pixels, the `starts` of the first and the `steps` between.

    The new grid has `size` pixels along each axis, all of the same `spacing_mm`.
    """

    shape: tuple[int, ...]
    starts: tuple[float, ...]
    steps: tuple[float, ...]
    size: int
    spacing_mm: float

    @property
    def same(self) -> bool:
        """Whether nothing changes."""
        still = all(abs(start) < 1e-6 for start in self.starts) and all(abs(step - 1) < 1e-6 for step in self.steps)
        return still and set(self.shape) == {self.size}

    @property
    def weights(self) -> list[NDArray[np.float32]]:
        """One matrix (new, old) per axis; what a row lacks to one lies outside the source."""
        return [_weights(n, self.size, start, step) for n, start, step in zip(*self._axes, strict=True)]

    def cuts(self, mask: NDArray[np.uint8]) -> bool:
        """Whether a labelled pixel of `mask` lies outside the new grid, even in part."""
        for axis, (_, start, step) in enumerate(zip(*self._axes, strict=True)):
            labelled = np.flatnonzero(mask.any(axis=tuple(i for i in range(mask.ndim) if i != axis)))
            if labelled.size and (labelled[0] < start - 1e-6 or labelled[-1] + 1 > start + self.size * step + 1e-6):
                return True
        return False

    @property
    def _axes(self) -> tuple[tuple[int, ...], tuple[float, ...], tuple[float, ...]]:
        return self.shape, self.starts, self.steps


def fit(
    shape: tuple[int, ...], spacing_mm: tuple[float, ...] | None, size: int, target_mm: float | None = None
) -> Grid:
    """The grid of `size` pixels a side around an image of `shape`, which keeps its proportions in millimetres.

    Without `target_mm` the longest side of the field of view just fits and the others are padded. With it the new
    spacing is `target_mm`: smaller fields of view are padded, larger ones cut, around the centre. The image is placed
    on whole new pixels, so that one which fits already stays as it is. Unknown spacing (None) counts in pixels.
    """
    spacing = spacing_mm or (1.0,) * len(shape)
    extents = [n * mm for n, mm in zip(shape, spacing, strict=True)]
    new_mm = target_mm or max(extents) / size
    steps = tuple(new_mm / mm for mm in spacing)
    padding = [np.floor((size - extent / new_mm) / 2 + 1e-9) for extent in extents]
    starts = tuple(float(-pad * step) + 0.0 for pad, step in zip(padding, steps, strict=True))
    return Grid(shape=tuple(shape), starts=starts, steps=steps, size=size, spacing_mm=new_mm)


def resample_image(image: NDArray[np.float32], grid: Grid, fill: NDArray[np.float32]) -> NDArray[np.float32]:
    """`image` (channels, *spatial) on `grid`; outside the source each channel has its value of `fill`."""
    if grid.same:
        return image
    edge = fill.reshape(-1, *(1,) * (image.ndim - 1))
    inside = image - edge if edge.any() else image
    moved = np.stack([_along_all(channel, grid.weights) for channel in inside])
    return moved + edge


def resample_mask(mask: NDArray[np.uint8], grid: Grid) -> NDArray[np.uint8]:
    """`mask` (*spatial) on `grid`, so that small lesions survive.

    Every label's share of each new pixel is computed as for images. A pixel is labelled when labels together cover at
    least half of it, and then has the label with the largest share. A lesion (a connected region of labelled pixels)
    that would vanish keeps its strongest pixel, with the label that most of the lesion has. Last, a label of the image
    that would vanish keeps its strongest pixel, unless that is all that another label has.
    """
    if grid.same:
        return mask
    new = np.zeros((grid.size,) * mask.ndim, np.uint8)
    if not mask.any():
        return new
    labels = [label for label in np.flatnonzero(np.bincount(mask.ravel())).tolist() if label]
    shares = np.stack([_along_all((mask == label).astype(np.float32), grid.weights) for label in labels])
    labelled = shares.sum(axis=0) >= 0.5 - 1e-5
    new[labelled] = np.array(labels, np.uint8)[shares.argmax(axis=0)][labelled]
    _keep_lesions(mask, grid, new)
    for label, share in zip(labels, shares, strict=True):
        _keep_label(label, share, new)
    return new


def _keep_lesions(mask: NDArray[np.uint8], grid: Grid, new: NDArray[np.uint8]) -> None:
    lesions, _ = ndimage.label(mask, np.ones((3,) * mask.ndim))
    for number, box in enumerate(ndimage.find_objects(lesions), start=1):
        lesion = lesions[box] == number
        share, place = _on_grid(lesion, box, grid)
        if not share.size or share.max() <= 0 or new[place][share > 0].any():
            continue
        label = np.bincount(mask[box][lesion]).argmax()
        strongest = np.unravel_index(int(share.argmax()), share.shape)
        new[place][strongest] = label


def _on_grid(
    lesion: NDArray[np.bool_], box: tuple[slice, ...], grid: Grid
) -> tuple[NDArray[np.float32], tuple[slice, ...]]:
    """A lesion's share of the new pixels that it touches, and where those are."""
    columns = [weights[:, part] for weights, part in zip(grid.weights, box, strict=True)]
    touched = [np.flatnonzero(part.any(axis=1)) for part in columns]
    if any(rows.size == 0 for rows in touched):
        return np.zeros(0, np.float32), ()
    place = tuple(slice(int(rows[0]), int(rows[-1]) + 1) for rows in touched)
    parts = [part[rows] for part, rows in zip(columns, place, strict=True)]
    return _along_all(lesion.astype(np.float32), parts), place


def _keep_label(label: int, share: NDArray[np.float32], new: NDArray[np.uint8]) -> None:
    if share.max() <= 0 or (new == label).any():
        return
    counts = np.bincount(new.ravel(), minlength=256)
    free = (new == 0) | (counts[new] > 1)
    allowed = np.where(free, share, 0)
    if allowed.max() > 0:
        new[np.unravel_index(int(allowed.argmax()), new.shape)] = label


def _along_all(array: NDArray[Any], weights: list[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Apply one matrix to each axis."""
    for matrix in weights:
        array = np.tensordot(array, matrix, axes=(0, 1))
    return array


@lru_cache(maxsize=256)
def _weights(n: int, size: int, start: float, step: float) -> NDArray[np.float32]:
    edges = start + step * np.arange(size + 1)
    low, high = edges[:-1, None], edges[1:, None]
    old = np.arange(n)
    inside = np.clip(np.minimum(high, old + 1) - np.maximum(low, old), 0, None) / step
    if step < 1:
        centre = np.clip((low + high) / 2 - 0.5, 0, n - 1)
        inside = np.clip(1 - np.abs(centre - old), 0, None) * inside.sum(axis=1, keepdims=True)
    weights: NDArray[np.float32] = inside.astype(np.float32)
    weights.setflags(write=False)
    return weights
