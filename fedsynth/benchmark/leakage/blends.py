"""Mixtures: the two images that together explain another best, and the best two without their patients.

The mean of two members' images lies as near to the one as to the other, so no ratio of single distances shows it. The
distance here is what two images, weighted as they like, leave unexplained. It knows rows of numbers and numbers of
patients, not images or roles.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fedsynth.benchmark.leakage.neighbours import PatientDistances, nearest
from fedsynth.images.rows import Stack

CANDIDATES = 24
"""A mixture is looked for among so many nearest images: the more alike its parts, the nearer they are."""
AT_ONCE = 1024
PARALLEL = 1e-3
"""Two images whose angle has a smaller squared sine count as one direction."""

Floats = NDArray[np.float32]


def blend_distances(
    queries: Sequence[Stack],
    references: Stack,
    patient_of: NDArray[np.integer],
    depth: int,
    exclude: NDArray[np.integer] | None = None,
) -> PatientDistances:
    """For each query what the best two references leave of it, then the best two of other patients, and so on.

    Named is the patient of the one that is nearer by itself; the two may be of one patient. `queries` are views of the
    same images, of which the one that is explained best counts. `exclude` (n,) is a patient for each query whose images
    do not count, -1 for none.
    """
    owners = np.asarray(patient_of)
    spare = 0 if exclude is None else int(np.bincount(owners).max())
    skip = np.full(len(queries[0]), -1) if exclude is None else np.asarray(exclude)
    best: PatientDistances | None = None
    for view in queries:
        near = nearest(view, references, CANDIDATES + spare)[1]
        parts = []
        for start in range(0, len(view), AT_ONCE):
            rows = slice(start, start + AT_ONCE)
            parts.append(
                _best_pairs(np.asarray(view[rows], np.float32), references, near[rows], owners, depth, skip[rows])
            )
        found = PatientDistances(
            distances=np.concatenate([part.distances for part in parts]),
            patients=np.concatenate([part.patients for part in parts]),
        )
        best = found if best is None else _nearer(best, found)
    assert best is not None
    return best


def _nearer(one: PatientDistances, other: PatientDistances) -> PatientDistances:
    """Row by row the table that begins nearer."""
    better = (other.distances[:, 0] < one.distances[:, 0])[:, None]
    return PatientDistances(
        distances=np.where(better, other.distances, one.distances),
        patients=np.where(better, other.patients, one.patients),
    )


def _best_pairs(
    queries: Floats,
    references: Stack,
    near: NDArray[np.int64],
    owners: NDArray[np.integer],
    depth: int,
    skip: NDArray[np.integer],
) -> PatientDistances:
    own = owners[near] == skip[:, None]
    order = np.argsort(own, axis=1, kind="stable")[:, :CANDIDATES]
    near, own = np.take_along_axis(near, order, axis=1), np.take_along_axis(own, order, axis=1)
    rows = np.asarray(references[near.ravel()], np.float32).reshape(*near.shape, -1)
    explained, single = _explained(queries, rows)
    explained[own[:, :, None] | own[:, None]] = -np.inf
    who, length = owners[near], np.square(queries).sum(axis=1)
    distances = np.full((len(queries), depth), np.inf, np.float32)
    patients = np.full((len(queries), depth), -1, np.int32)
    every = np.arange(len(queries))
    for place in range(depth):
        first, second = np.divmod(explained.reshape(len(every), -1).argmax(axis=1), near.shape[1])
        most = explained[every, first, second]
        known = np.isfinite(most)
        nearer = np.where(single[every, first] >= single[every, second], first, second)
        distances[known, place] = np.sqrt(np.maximum(length - most, 0))[known]
        patients[known, place] = who[every, nearer][known]
        gone = (who == who[every, first][:, None]) | (who == who[every, second][:, None])
        explained[gone[:, :, None] | gone[:, None]] = -np.inf
    return PatientDistances(distances=distances, patients=patients)


def _explained(queries: Floats, rows: Floats) -> tuple[Floats, Floats]:
    """How much of each squared length every pair of its `rows` (n, k, d) explains, (n, k, k), and each row alone.

    Weights are free but not negative: where one would be, the better of the two stands alone.
    """
    inner = np.matmul(rows, queries[:, :, None])[:, :, 0]
    products = np.matmul(rows, rows.transpose(0, 2, 1))
    lengths = np.maximum(np.einsum("nkk->nk", products), 1e-12)
    alone = np.square(np.maximum(inner, 0)) / lengths
    one, other = inner[:, :, None], inner[:, None]
    weight = one * lengths[:, None] - other * products
    angle = lengths[:, :, None] * lengths[:, None] - np.square(products)
    both = (weight > 0) & (weight.transpose(0, 2, 1) > 0) & (angle > PARALLEL * lengths[:, :, None] * lengths[:, None])
    together = (one * weight + other * weight.transpose(0, 2, 1)) / np.where(both, angle, 1)
    return np.where(both, together, np.maximum(alone[:, :, None], alone[:, None])), alone
