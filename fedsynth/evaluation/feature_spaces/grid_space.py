"""What the spaces share that look at grids: views under an orbit, and a place of its own for every blank image."""

import tempfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh

from fedsynth.data import ImageSet
from fedsynth.data.lazy_arrays import blocks
from fedsynth.errors import ImageSetError
from fedsynth.evaluation.feature_spaces.appearance import EDGE, Grid, views

Features = NDArray[np.float32]
FAR = 3.0
"""Blank images lie so many times as far from the centre as real ones: about as far from everybody."""
LEAST = 1e-3
IN_MEMORY = 2**28
"""Tables of features above this many bytes lie in unnamed temporary files."""

_MADE: WeakKeyDictionary[ImageSet, dict[str, Grid]] = WeakKeyDictionary()


class GridSpace(ABC):
    """A space over grids (n, channels, *cells) that mirror and turn as the images do.

    `n_orientations` of the orbit are compared, and the first `n_inverted` of them with inverted contrast too.
    """

    name: str
    n_orientations = 16
    n_inverted = 2

    def __init__(self) -> None:
        self._centre: Features | None = None
        self._length = 1.0

    @abstractmethod
    def grids(self, images: ImageSet) -> Grid:
        """One grid per image, all 0 where nothing is shown."""

    @abstractmethod
    def embed(self, grid: Grid) -> Features:
        """One row per grid."""

    def inverted(self, grid: Grid) -> Grid:
        """The grids of images with inverted contrast."""
        return -grid

    def fit(self, real: ImageSet, *, seed: int) -> None:
        """Remember where real images lie: blank ones are put away from there."""
        found = np.concatenate([self.embed(grid) for _, grid in blocks(self.grids(real))])
        self._centre = found.mean(axis=0)
        self._length = FAR * float(np.median(np.linalg.norm(found - self._centre, axis=1)))

    def features(self, images: ImageSet) -> Features:
        """One row per image as it is."""
        (only,) = self._views(images, 1, 0)
        return only

    def views(self, images: ImageSet) -> Iterator[Features]:
        """One table per view, the images as they are first."""
        yield from self._views(images, self.n_orientations, self.n_inverted)

    def _views(self, images: ImageSet, n_orientations: int, n_inverted: int) -> list[Features]:
        if self._centre is None:
            raise RuntimeError(f"the space {self.name!r} was not fitted")
        cells = [min(EDGE[len(images.size)], size) for size in images.size]
        if cells[0] != cells[1]:  # larger cells may be as many along both axes
            n_orientations = min(n_orientations, 2 ** len(cells))
        made: list[Features] = []
        for start, grid in blocks(self.grids(images)):
            orbit = list(islice(views(grid), n_orientations))
            seen = [*orbit, *(self.inverted(view) for view in orbit[:n_inverted])]
            made = made or tables(len(seen), len(images), len(self._centre))
            blank = np.flatnonzero(~grid.reshape(len(grid), -1).any(axis=1))
            places = own_places(images, start + blank, self._centre, self._length)
            for table, view in zip(made, seen, strict=True):
                table[start : start + len(grid)] = self.embed(view)
                table[start + blank] = places
        return made


def remembered(images: ImageSet, name: str, make: Callable[[], Iterable[tuple[int, Grid]]]) -> Grid:
    """The grids that `make` gives piece by piece, made once for each set and `name`, and kept while the set is."""
    known = _MADE.setdefault(images, {})
    if name not in known:
        table: Grid | None = None
        for start, grid in make():
            if table is None:
                table = tables(1, len(images), *grid.shape[1:])[0]
            table[start : start + len(grid)] = grid
        if table is None:
            raise ImageSetError("there are no images to compare", file=images.folder)
        known[name] = table
    return known[name]


def principal_axes(rows: Features, most: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Singular values of centred rows and their axes, (k,) and (values, k), at most `most`, the largest first.

    By the products of the rows or of the columns, whichever are fewer: a fraction of what a decomposition of the rows
    takes. Axes below a thousandth of the first are left out but for two, since rounding rules there.
    """
    wide = rows.shape[1] > len(rows)
    exact = rows.astype(np.float64)
    products = exact @ exact.T if wide else exact.T @ exact
    largest = [max(0, len(products) - max(2, most)), len(products) - 1]
    squares, found = eigh(products, subset_by_index=largest, driver="evr", overwrite_a=True)
    spread = np.sqrt(np.maximum(squares[::-1], 0))
    kept = max(2, min(most, int((spread > LEAST * spread[0]).sum())))
    axes = found[:, ::-1][:, :kept]
    if wide:
        axes = exact.T @ axes / np.maximum(spread[:kept], 1e-12)
    return spread[:kept], np.asarray(axes)


def own_places(images: ImageSet, rows: NDArray[np.int64], centre: Features, length: float) -> Features:
    """A random place for each image that shows nothing, at `length` from `centre`: by set, name and voxels.

    Blank images (or masks) are all alike; as they are, they would count as copies of the one patient who has such.
    """
    if not len(rows):
        return np.empty((0, len(centre)), np.float32)
    names = [f"{images.header!r}/{images.cases['case'].iloc[row]}".encode() for row in rows]
    seeds = [zlib.crc32(images.images[int(row)].tobytes(), zlib.crc32(n)) for row, n in zip(rows, names, strict=True)]
    direction = np.stack([np.random.default_rng(seed).normal(size=len(centre)) for seed in seeds])
    direction *= length / np.linalg.norm(direction, axis=1, keepdims=True)
    return (centre + direction).astype(np.float32)


def tables(number: int, *shape: int) -> list[NDArray[np.float32]]:
    """So many tables to be filled, in memory or, if large, on disk."""
    if number * int(np.prod(shape)) * 4 <= IN_MEMORY:
        return [np.empty(shape, np.float32) for _ in range(number)]
    return [np.memmap(tempfile.TemporaryFile(), np.float32, "w+", shape=shape) for _ in range(number)]
