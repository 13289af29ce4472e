"""Where the arrays of a round's replies wait until all have come: in memory, and beyond a limit in an unnamed file.

Whether a reply is far too large shows beside all others, and sums run in the order of the sites' names. So replies
wait; what they hold of the server's memory does not grow with the number of sites.
"""

import os
import tempfile
import weakref
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedsynth import atomic_files
from fedsynth.errors import FedSynthError

LIMIT = 256 * 2**20  # bytes of arrays in memory


@dataclass(frozen=True, kw_only=True)
class _Place:
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    offset: int

    @property
    def length(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64))


class _UnnamedFile:
    """A file that has no name, and goes with this object."""

    def __init__(self, folder: Path) -> None:
        self.handle, name = tempfile.mkstemp(dir=folder)
        Path(name).unlink()
        weakref.finalize(self, os.close, self.handle)


class SpilledArrays(Mapping[str, NDArray[Any]]):
    """Arrays of a reply in a file; each is read when it is asked for, and not kept."""

    def __init__(self, file: _UnnamedFile, places: Mapping[str, _Place]) -> None:
        self._file, self._places = file, places

    def __getitem__(self, name: str) -> NDArray[Any]:
        place = self._places[name]
        return self.part(name, 0, place.length).reshape(place.shape)

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def part(self, name: str, start: int, stop: int) -> NDArray[Any]:
        """Entries `start` to `stop` of an array, as if it were flat."""
        place = self._places[name]
        width = place.dtype.itemsize
        content = np.empty(stop - start, place.dtype)
        left, offset = content.view(np.uint8).data, place.offset + start * width
        while left.nbytes:  # one call reads 2 GiB at most
            done = os.preadv(self._file.handle, [left], offset)
            if not done:
                raise FedSynthError("a reply that waited on the disk was cut short", value=name)
            offset, left = offset + done, left[done:]
        return content


class ArrayStore:
    """The arrays of one exchange. Their file has no name, and goes with the last reply that is in it."""

    def __init__(self, folder: Path | None, limit: int | None = None) -> None:
        self._folder, self._limit = folder, LIMIT if limit is None else limit
        self._used, self._end = 0, 0
        self._file: _UnnamedFile | None = None

    def keep(self, arrays: Mapping[str, NDArray[Any]]) -> Mapping[str, NDArray[Any]]:
        """The arrays, or where they wait."""
        size = sum(value.nbytes for value in arrays.values())
        if self._folder is None or self._used + size <= self._limit:
            self._used += size
            return arrays
        with atomic_files.told_when_unwritable(self._folder):
            if self._file is None:
                self._file = _UnnamedFile(self._folder)
            return SpilledArrays(self._file, {name: self._write(self._file, value) for name, value in arrays.items()})

    def _write(self, file: _UnnamedFile, value: NDArray[Any]) -> _Place:
        place = _Place(dtype=value.dtype, shape=value.shape, offset=self._end)
        left = np.ascontiguousarray(value).reshape(-1).view(np.uint8).data
        while left.nbytes:
            done = os.pwrite(file.handle, left, self._end)
            self._end, left = self._end + done, left[done:]
        return place


class Column(Sequence[NDArray[Any]]):
    """The same array of every reply, in their order; each is read when it is asked for."""

    def __init__(self, name: str, replies: Sequence[Mapping[str, NDArray[Any]]]) -> None:
        self._name, self._replies = name, replies

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return Column(self._name, self._replies[index])
        return self._replies[index][self._name]

    def __len__(self) -> int:
        return len(self._replies)

    def stacked(self, start: int, stop: int) -> NDArray[Any]:
        """Entries `start` to `stop` of every reply's array as if it were flat, one row each, in float64."""
        return np.stack([self._part(reply, start, stop) for reply in self._replies]).astype(np.float64)

    def _part(self, reply: Mapping[str, NDArray[Any]], start: int, stop: int) -> NDArray[Any]:
        if isinstance(reply, SpilledArrays):
            return reply.part(self._name, start, stop)
        return reply[self._name].reshape(-1)[start:stop]
