"""Lazy views on stacked arrays: some rows of one array, or several arrays end to end, read only when asked for."""

from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import DTypeLike, NDArray


class Rows:
    """Read-only rows `index` of the concatenation of `parts`; indexing reads what is asked and nothing else.

    Behaves like the array it stands for where that is cheap: `len`, `shape`, `dtype`, `ndim`, `[int]`, `[slice]`,
    `[integer array]`, `np.asarray`.
    """

    def __init__(self, parts: Sequence["NDArray[Any] | Rows"], index: NDArray[np.int64] | None = None) -> None:
        first = parts[0]
        self._parts = list(parts)
        self._starts = np.cumsum([0, *(len(part) for part in parts)])
        self._index = np.arange(self._starts[-1]) if index is None else np.asarray(index, np.int64)
        self.dtype: np.dtype[Any] = first.dtype
        self.shape: tuple[int, ...] = (len(self._index), *first.shape[1:])
        self.ndim = len(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, which: Any) -> NDArray[Any]:
        if isinstance(which, tuple):
            first, rest = which[0], which[1:]
            return self[first][(slice(None), *rest) if not np.isscalar(first) else rest]
        wanted = self._index[which]
        if np.ndim(wanted) == 0:
            part = int(np.searchsorted(self._starts, wanted, side="right")) - 1
            return np.asarray(self._parts[part][int(wanted - self._starts[part])])
        result = np.empty((len(wanted), *self.shape[1:]), self.dtype)
        owner = np.searchsorted(self._starts, wanted, side="right") - 1
        for part in np.unique(owner):
            here = owner == part
            result[here] = self._parts[part][wanted[here] - self._starts[part]]
        return result

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self[:], dtype=dtype)


Stack: TypeAlias = NDArray[Any] | Rows


def take(stack: Stack, index: NDArray[np.int64]) -> Rows:
    """The rows `index` of `stack`, unread."""
    return Rows([stack], index)


def blocks(stack: Stack, *, n_bytes: int = 2**24) -> Iterator[tuple[int, NDArray[Any]]]:
    """The stack from first to last in pieces of about `n_bytes`, each with the number of its first row."""
    step = max(1, n_bytes // max(1, int(np.prod(stack.shape[1:])) * stack.dtype.itemsize))
    for start in range(0, len(stack), step):
        yield start, np.asarray(stack[start : start + step])
