"""Exact Euclidean nearest neighbours, single rows or patients, at about the speed of the matrix product inside.

|q - r|^2 = |q|^2 - 2 q.r + |r|^2 loses everything to rounding where distances are small beside lengths, and copies are
exactly that. So features are centred first, what comes out small is computed again from differences, and what single
precision cannot decide is decided in double. Rows stay on disk until their block is due. It knows rows of numbers and
numbers of patients, not images or roles.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedsynth.data.lazy_arrays import Rows, Stack, blocks

SPARE = 16
"""So many more candidates than asked for are computed again from differences."""
QUERIES, REFERENCES = 2048, 8192
"""Rows in a block, fewer where rows are long."""
CLOSE = {torch.float32: 1e-2, torch.float64: 1e-9}
"""Squared distances below this share of the squared lengths are computed again from differences."""
MANY = 0.01
"""With a larger share of close pairs in a block, the block is computed in double precision first."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PatientDistances:
    """For each query its nearest patients, nearest first: `distances` and `patients`, both (n, depth).

    Where a query has fewer patients to compare with than `depth`, the distance is infinite and the patient -1.
    """

    distances: NDArray[np.float32]
    patients: NDArray[np.int32]


def nearest(queries: Stack, references: Stack, k: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The `k` nearest `references` of each query, nearest first: distances and row numbers, (n, k) each.

    With fewer than `k` references, all of them. Distances are right to float32 rounding; which of several references
    at one distance is named is not defined, but the same every time.
    """
    _check(queries, references, k)
    kept = min(k, len(references))
    distances = np.empty((len(queries), kept), np.float32)
    indices = np.empty((len(queries), kept), np.int64)
    centre = _centre(references)
    everything = np.arange(len(queries))
    undecided = _search(queries, references, centre, everything, distances, indices, torch.float32)
    if len(undecided):
        _search(queries, references, centre, undecided, distances, indices, torch.float64)
    return distances, indices


def patient_distances(
    queries: Stack | Iterable[Stack],
    references: Stack,
    patient_of: NDArray[np.integer],
    depth: int,
    exclude: NDArray[np.integer] | None = None,
) -> PatientDistances:
    """The `depth` nearest patients of each query, and the distance to the nearest image of each.

    `patient_of` (len(references),) numbers the patients of the references from zero. Several `queries` of one length
    are views of the same images: the nearest counts. `exclude` (n,) is a patient for each query that is left out (its
    own, for real images), -1 for none.
    """
    views = [queries] if isinstance(queries, np.ndarray | Rows) else list(queries)
    for view in views:
        _check(view, references, depth)
    order = np.argsort(patient_of, kind="stable")
    depth = min(depth, len(np.unique(patient_of)))
    best = torch.full((len(views[0]), depth), torch.inf)
    who = torch.full((len(views[0]), depth), -1, dtype=torch.int32)
    centre = _centre(references)
    excluded = None if exclude is None else torch.from_numpy(np.asarray(exclude, np.int32))
    for rows, numbers, counts in _whole_patients(order, np.asarray(patient_of), _rows_at_once(references, REFERENCES)):
        block = _Block.of(references[rows], centre)
        present = torch.from_numpy(numbers.astype(np.int32))
        for start, stop in _spans(len(best), _rows_at_once(references, QUERIES)):
            skip = None if excluded is None else present[:, None] == excluded[None, start:stop]
            table = _to_patients([view[start:stop] for view in views], block, torch.from_numpy(counts), centre, skip)
            found, where = table.T.topk(min(depth, len(table)), largest=False, sorted=False)
            best[start:stop], who[start:stop] = _merge(best[start:stop], who[start:stop], found, present[where])
    who[torch.isinf(best)] = -1
    return PatientDistances(distances=best.numpy(), patients=who.numpy())


@dataclass(frozen=True, kw_only=True, eq=False)
class _Block:
    """Rows as they are, centred, and the squared lengths of the centred ones."""

    raw: Tensor
    centre: Tensor
    centred: Tensor
    squares: Tensor

    @classmethod
    def of(cls, rows: NDArray[np.floating] | Tensor, centre: Tensor, dtype: torch.dtype = torch.float32) -> "_Block":
        raw = rows if isinstance(rows, Tensor) else torch.from_numpy(np.array(rows, np.float32))
        centred = raw.to(dtype) - centre.to(dtype)
        squares = centred.square().sum(1)
        if not torch.isfinite(squares).all():
            raise ValueError("features must be finite numbers")
        return cls(raw=raw, centre=centre, centred=centred, squares=squares)

    def to(self, dtype: torch.dtype) -> "_Block":
        """The same rows in another precision."""
        return self if self.centred.dtype == dtype else _Block.of(self.raw, self.centre, dtype)


def _search(
    queries: Stack,
    references: Stack,
    centre: Tensor,
    wanted: NDArray[np.int64],
    distances: NDArray[np.float32],
    indices: NDArray[np.int64],
    dtype: torch.dtype,
) -> NDArray[np.int64]:
    """Fill the rows `wanted` of `distances` and `indices`; return those that this precision could not decide."""
    kept = min(distances.shape[1] + SPARE, len(references))
    approximate = torch.full((len(wanted), kept), torch.inf, dtype=dtype)
    candidates = torch.zeros((len(wanted), kept), dtype=torch.int64)
    lengths, longest = torch.zeros(len(wanted), dtype=dtype), 0.0
    space = torch.empty(_rows_at_once(references, QUERIES) * _rows_at_once(references, REFERENCES), dtype=dtype)
    for first, last in _spans(len(references), _rows_at_once(references, REFERENCES)):
        block = _Block.of(references[first:last], centre, dtype)
        longest = max(longest, float(block.squares.max()))
        for start, stop in _spans(len(wanted), _rows_at_once(references, QUERIES)):
            query = _Block.of(queries[wanted[start:stop]], centre, dtype)
            lengths[start:stop] = query.squares
            squared = space[: (stop - start) * (last - first)].view(stop - start, last - first)
            torch.addmm(block.squares, query.centred, block.centred.T, alpha=-2, out=squared)
            found, where = squared.topk(min(kept, last - first), largest=False, sorted=False)
            so_far = approximate[start:stop], candidates[start:stop]
            approximate[start:stop], candidates[start:stop] = _merge(*so_far, found, where + first)
    for start, stop in _spans(len(wanted), max(1, 2**24 // (kept * references.shape[1]))):
        rows = wanted[start:stop]
        exact = _from_differences(queries[rows], references, candidates[start:stop].numpy())
        ranked = np.argsort(exact, axis=1, kind="stable")[:, : distances.shape[1]]
        distances[rows] = np.take_along_axis(exact, ranked, axis=1)
        indices[rows] = np.take_along_axis(candidates[start:stop].numpy(), ranked, axis=1)
    if kept == len(references) or dtype == torch.float64:
        return wanted[:0]
    beyond = (approximate[:, -1] + lengths).numpy() - _rounding(lengths.numpy(), longest, references.shape[1])
    return np.asarray(wanted[np.square(distances[wanted, -1]) > beyond])


def _merge(best: Tensor, who: Tensor, found: Tensor, names: Tensor) -> tuple[Tensor, Tensor]:
    """The nearest of two lists, as many as the first holds, nearest first."""
    nearest_first, chosen = torch.cat([best, found], dim=1).topk(best.shape[1], largest=False)
    return nearest_first, torch.cat([who, names], dim=1).gather(1, chosen)


def _rounding(lengths: NDArray[np.float32], longest: float, width: int) -> NDArray[np.float32]:
    """How far a squared distance in single precision may be off, generously."""
    unit = float(np.finfo(np.float32).eps) * (8 + width**0.5)
    return np.asarray(unit * np.square(np.sqrt(lengths) + longest**0.5), np.float32)


def _from_differences(
    queries: NDArray[np.floating], references: Stack, which: NDArray[np.int64]
) -> NDArray[np.float32]:
    """The distance of each query (n, d) to its own references `which` (n, k)."""
    near = torch.from_numpy(np.asarray(references[which.ravel()], np.float32)).view(*which.shape, -1)
    query = torch.from_numpy(np.asarray(queries, np.float32))[:, None]
    exact: NDArray[np.float32] = torch.cdist(query, near, compute_mode="donot_use_mm_for_euclid_dist")[:, 0].numpy()
    return exact


def _to_patients(
    views: list[NDArray[np.floating]],
    block: _Block,
    counts: Tensor,
    centre: Tensor,
    skip: Tensor | None,
) -> Tensor:
    """Distances of the patients of a block, whose rows lie together, to each query: (patients, queries)."""
    table = torch.full((len(counts), len(views[0])), torch.inf)
    for view in views:
        query = _Block.of(view, centre)
        found = _patient_table(query, block, counts, skip)
        torch.minimum(table, found, out=table)
    return table


def _patient_table(query: _Block, block: _Block, counts: Tensor, skip: Tensor | None) -> Tensor:
    """Distances (patients, queries), the close ones from differences."""
    longest = torch.segment_reduce(block.squares, "max", lengths=counts)[:, None] + query.squares
    for dtype in (torch.float32, torch.float64):
        rows, columns = block.to(dtype), query.to(dtype)
        squared = torch.addmm(rows.squares[:, None], rows.centred, columns.centred.T, alpha=-2)
        table = torch.segment_reduce(squared, "min", lengths=counts).add_(columns.squares)
        if skip is not None:
            table[skip] = torch.inf
        close = table < CLOSE[dtype] * longest
        if close.count_nonzero() <= MANY * close.numel():
            break
    result = table.clamp_(min=0).sqrt_().float()
    patient, column = close.nonzero(as_tuple=True)
    if len(patient):
        result[patient, column] = _nearest_of_each(query.raw, block.raw, counts, patient, column)
    return result


def _nearest_of_each(queries: Tensor, rows: Tensor, counts: Tensor, patient: Tensor, column: Tensor) -> Tensor:
    """The distance between each query `column` and the nearest row of each `patient`, pair by pair."""
    starts = counts.cumsum(0) - counts
    found = torch.empty(len(patient))
    step = max(1, 2**22 // (rows.shape[1] * int(counts.max())))
    for first, last in _spans(len(patient), step):
        number, query = counts[patient[first:last]], queries[column[first:last]]
        pair = torch.repeat_interleave(torch.arange(len(number)), number)
        within = torch.arange(len(pair)) - torch.repeat_interleave(number.cumsum(0) - number, number)
        row = starts[patient[first:last]][pair] + within
        distance = (rows[row] - query[pair]).square_().sum(1).sqrt_()
        found[first:last] = torch.segment_reduce(distance, "min", lengths=number)
    return found


def _whole_patients(
    order: NDArray[np.int64], patient_of: NDArray[np.integer], n_rows: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.integer], NDArray[np.int64]]]:
    """Row numbers of about `n_rows` references at a time, whole patients: rows, patients, rows of each patient."""
    numbers, counts = np.unique(patient_of, return_counts=True)
    ends = np.cumsum(counts)
    first = 0
    while first < len(numbers):
        begun = ends[first] - counts[first]
        last = max(first + 1, int(np.searchsorted(ends, begun + n_rows, side="right")))
        yield order[begun : ends[last - 1]], numbers[first:last], counts[first:last]
        first = last


def _spans(n: int, step: int) -> Iterator[tuple[int, int]]:
    for start in range(0, n, step):
        yield start, min(n, start + step)


def _rows_at_once(rows: Stack, most: int) -> int:
    return int(min(most, max(64, 2**23 // max(1, rows.shape[1]))))


def _centre(references: Stack) -> Tensor:
    total = np.zeros(references.shape[1])
    for _, block in blocks(references):
        total += block.sum(axis=0, dtype=np.float64)
    return torch.from_numpy(total / len(references))


def _check(queries: Stack, references: Stack, k: int) -> None:
    if k < 1 or len(references) < 1:
        raise ValueError("neighbours need at least one reference and k of at least 1")
    if queries.ndim != 2 or queries.shape[1:] != references.shape[1:]:
        raise ValueError(f"queries {queries.shape} and references {references.shape} are not of one width")
