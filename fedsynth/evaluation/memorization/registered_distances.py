"""The nearest patients in the space of registered patches: a rough look at everybody, then a close one at a few.

The likeness of two images is the mean over patches of the largest inner product that a patch of the one finds around
its place in the other. The rough look takes every other patch and every other place. It knows rows of numbers and
numbers of patients, not images or roles.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedsynth.data.lazy_arrays import Stack
from fedsynth.evaluation.feature_spaces.registered import PLACES, REACH, Registered
from fedsynth.evaluation.nearest_neighbours import PatientDistances

CANDIDATES = 8
"""So many patients are looked at closely."""
ROUGH_COMPONENTS = 16
AT_ONCE = 256
"""Queries in a block of the rough look, and groups of pairs in a block of the close one."""
TOGETHER = 8
"""So many queries are compared with one reference at once."""
REFERENCES = 1024
KEPT = 2**29
"""Bytes of patches of the references that are kept between calls."""
SHARPNESS = 8.0
"""A likeness from -1 to 1 becomes the distance exp(-8 likeness): differences of likenesses are what counts."""


def registered_distances(
    space: Registered,
    views: Sequence[Stack],
    references: Stack,
    patient_of: NDArray[np.integer],
    depth: int,
    exclude: NDArray[np.integer] | None = None,
) -> PatientDistances:
    """The `depth` nearest patients of each query, `CANDIDATES` at most; of several `views` the one most alike counts.

    `exclude` (n,) is a patient for each query whose images do not count, -1 for none.
    """
    owners, n = np.asarray(patient_of), len(views[0])
    skip = np.full(n, -1) if exclude is None else np.asarray(exclude)
    order = np.argsort(owners, kind="stable")
    numbers, starts, counts = np.unique(owners[order], return_index=True, return_counts=True)
    asked = [space.still(np.asarray(view, np.float32)) for view in views]
    kept = min(CANDIDATES, len(numbers))
    patients, rows, best = np.empty((n, kept), np.int64), np.empty((n, kept), np.int64), np.empty((n, kept), np.int64)
    rough = _rough(space, references)
    for start in range(0, n, AT_ONCE):
        block = slice(start, start + AT_ONCE)
        found, which = _roughly([view[:, block] for view in asked], rough, len(references))
        found[owners[None] == skip[block, None]] = -np.inf
        ranked = found[:, order]  # the images of a patient lie together
        likest = np.maximum.reduceat(ranked, starts, axis=1)
        is_likest = ranked == np.repeat(likest, counts, axis=1)
        at = np.maximum.reduceat(np.where(is_likest, np.arange(len(order)), -1), starts, axis=1)
        patients[block] = np.argpartition(-likest, kept - 1, axis=1)[:, :kept]
        rows[block] = order[np.take_along_axis(at, patients[block], axis=1)]
        best[block] = np.take_along_axis(which, rows[block], axis=1)
    likeness = _closely(space, asked, references, rows, best)
    distances = np.exp(-SHARPNESS * likeness)
    distances[numbers[patients] == skip[:, None]] = np.inf
    nearest = np.argsort(distances, axis=1, kind="stable")[:, :depth]
    distances = np.take_along_axis(distances, nearest, axis=1)
    who = np.take_along_axis(numbers[patients], nearest, axis=1)
    return PatientDistances(
        distances=distances.astype(np.float32), patients=np.where(np.isinf(distances), -1, who).astype(np.int32)
    )


def _rough(space: Registered, references: Stack) -> list[Tensor]:
    """Of every other patch the first components at every other place: (places, components, rows) each."""
    moves = np.arange(2 * REACH + 1)[::2]
    few = torch.from_numpy((moves[:, None] * (2 * REACH + 1) + moves).ravel())
    return [
        places[:, few, :ROUGH_COMPONENTS].permute(1, 2, 0).contiguous()
        for number, places in enumerate(_places(space, references))
        if number in _EVERY_OTHER
    ]


_EVERY_OTHER = [row * PLACES + column for row in range(0, PLACES, 2) for column in range(0, PLACES, 2)]


def _roughly(asked: Sequence[Tensor], rough: Sequence[Tensor], n: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The rough likeness of a block of queries to all references, and the view in which it is largest."""
    best = torch.full((asked[0].shape[1], n), -torch.inf)
    which = torch.zeros(best.shape, dtype=torch.int64)
    for number, view in enumerate(asked):
        found = torch.zeros(best.shape)
        for patch, places in zip(_EVERY_OTHER, rough, strict=True):
            query = view[patch, :, :ROUGH_COMPONENTS]
            for start in range(0, n, REFERENCES):
                part = places[:, :, start : start + REFERENCES]
                likest = query @ part[0]
                other = torch.empty_like(likest)
                for place in part[1:]:
                    torch.maximum(likest, torch.mm(query, place, out=other), out=likest)
                found[:, start : start + REFERENCES] += likest
        better = found > best
        best[better], which[better] = found[better], number
    return best.numpy(), which.numpy()


def _closely(
    space: Registered,
    asked: Sequence[Tensor],
    references: Stack,
    rows: NDArray[np.int64],
    views: NDArray[np.int64],
) -> NDArray[np.float64]:
    """The likeness of each query to its candidate `rows`, in the view chosen for each: of the shape of `rows`."""
    view, query = torch.from_numpy(views.ravel()), torch.arange(rows.size) // rows.shape[1]
    total, everything = torch.zeros(rows.size), torch.stack(list(asked))
    reference, slots, pairs, group, column = _by_reference(rows.ravel())
    for number, places in enumerate(_places(space, references)):
        one = everything[view, number, query]
        found = [
            torch.bmm(places[reference[start:stop]], one[slots[start:stop]].transpose(1, 2)).amax(dim=1)
            for start, stop in ((start, start + AT_ONCE) for start in range(0, len(slots), AT_ONCE))
        ]
        total[pairs] += torch.cat(found)[group, column]
    return np.asarray(total.double().numpy() / everything.shape[1]).reshape(rows.shape)


def _by_reference(rows: NDArray[np.int64]) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Pairs in groups of one reference, `TOGETHER` at most: of each group the reference and its pairs, (groups, most).

    Then where each pair went: the pairs in the order of the groups, the group and the column of each.
    """
    order = np.argsort(rows, kind="stable")
    inside = np.arange(len(rows)) - np.searchsorted(rows[order], rows[order])
    new = inside % TOGETHER == 0
    group = np.cumsum(new) - 1
    slots = np.zeros((int(new.sum()), TOGETHER), np.int64)
    slots[group, inside % TOGETHER] = order
    found = (rows[order][new], slots, order, group, inside % TOGETHER)
    reference, pairs, in_order, groups, columns = (torch.from_numpy(np.ascontiguousarray(one)) for one in found)
    return reference, pairs, in_order, groups, columns


def _places(space: Registered, references: Stack) -> Iterator[Tensor]:
    """Patch by patch, the references at all places; kept for the next call while they are the same and few."""
    if space.places is not None and space.places[0] is references:
        yield from space.places[1]
        return
    made: list[Tensor] = []
    for places in space.moving(np.asarray(references, np.float32)):
        if places.numel() * 4 * PLACES**2 <= KEPT:
            made.append(places)
        yield places
    if len(made) == PLACES**2:
        space.places = (references, made)
