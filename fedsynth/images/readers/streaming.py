"""Reads one array of an .npz file item by item, in bounded memory, though the archive is compressed."""

import threading
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from fedsynth.errors import SourceError
from fedsynth.images.readers.volume import unreadable

KEPT = 256


class Stream:
    """The array `name` of the archive `file`; `shape` is that of one item.

    Items asked for in about their order cost one pass over the file. What is passed over is kept for a while, because
    several threads ask at once; going further back starts the pass again.
    """

    _member: IO[bytes] | None
    _passed: OrderedDict[int, NDArray[Any]]

    def __init__(self, file: Path, name: str) -> None:
        self.file, self.name = file, name
        with zipfile.ZipFile(file) as archive, archive.open(f"{name}.npy") as member:
            shape, fortran, self.dtype = _header(member)
        if fortran or not shape or self.dtype.hasobject:
            raise SourceError(f"the array {name} holds objects, or is stored column by column", file=file)
        self._n, self.shape = int(shape[0]), tuple(int(size) for size in shape[1:])
        self._reset()

    def __len__(self) -> int:
        return self._n

    def read(self, index: int) -> NDArray[Any]:
        """Item `index`."""
        with self._lock:
            if index in self._passed:
                return self._passed.pop(index)
            try:
                return self._advance(index)
            except SourceError:
                self._close()
                raise
            except Exception as error:  # a damaged archive may raise anything
                self._close()
                raise unreadable(self.file, error) from error

    def _advance(self, index: int) -> NDArray[Any]:
        member = self._start() if self._member is None or index < self._next else self._member
        while True:
            item = self._one(member)
            self._next += 1
            if self._next > index:
                if self._next == self._n:
                    self._close()
                return item
            self._passed[self._next - 1] = item
            if len(self._passed) > KEPT:
                self._passed.popitem(last=False)

    def _start(self) -> IO[bytes]:
        self._close()
        self._passed.clear()
        self._next = 0
        with zipfile.ZipFile(self.file) as archive:
            self._member = archive.open(f"{self.name}.npy")  # keeps the file open until it is closed itself
        _header(self._member)
        return self._member

    def _close(self) -> None:
        if self._member is not None:
            self._member.close()
        self._member = None

    def __del__(self) -> None:
        if hasattr(self, "_member"):
            self._close()

    def _one(self, member: IO[bytes]) -> NDArray[Any]:
        size = int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize
        content = member.read(size)
        if len(content) < size:
            raise SourceError(f"the array {self.name} ends at item {self._next} of {self._n}", file=self.file)
        return np.frombuffer(content, self.dtype).reshape(self.shape)

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._member = None
        self._next = 0
        self._passed = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return {key: self.__dict__[key] for key in ("file", "name", "dtype", "shape", "_n")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._reset()


def _header(member: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(member)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    return read(member)
