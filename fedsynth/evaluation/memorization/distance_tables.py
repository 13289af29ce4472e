"""From images to tables of distances: every feature space fitted on members and holdout alike, then asked.

It is blind to roles: it sees the real images together. What the distances mean is told elsewhere.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedsynth.data import ImageSet
from fedsynth.data.lazy_arrays import Stack, take
from fedsynth.evaluation.feature_spaces.registered import Registered
from fedsynth.evaluation.feature_spaces.space import Space
from fedsynth.evaluation.memorization.registered_distances import registered_distances
from fedsynth.evaluation.nearest_neighbours import PatientDistances, nearest, patient_distances

# Mixtures: the two images that together explain another best, and the best two without their patients.
#
# The mean of two members' images lies as near to the one as to the other, so no ratio of single distances shows it. The
# distance here is what two images, weighted as they like, leave unexplained. It knows rows of numbers and numbers of
# patients, not images or roles.


CANDIDATES = 24
"""A mixture is looked for among so many nearest images: the more alike its parts, the nearer they are."""
AT_ONCE = 1024
PARALLEL = 1e-3
"""Two images whose angle has a smaller squared sine count as one direction."""

Floats = NDArray[np.float32]


def mixture_distances(
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


DEPTH = 256
"""So many of the nearest patients of an image are kept; who is further away hardly matters."""
SHALLOW = 8
"""Of spaces that are only asked for copies."""
MANY_PAIRS = 5 * 10**7
FEW_VIEWS = {2: 4, 3: 8}
"""Of larger sets only the mirror images are compared, or a run would take hours: the first so many, by dimensions."""

Step = Callable[[str], None]
"""Called with the name of what begins."""


@dataclass(frozen=True, kw_only=True, eq=False)
class MeasuredSpace:
    """A fitted space with the features of the real images, and the tables of synthetic and of real images.

    `real` leaves every image's own patient out.
    """

    space: Space
    references: Stack
    features: Stack
    patient_of: NDArray[np.int64]
    synthetic: PatientDistances
    real: PatientDistances
    depth: int = DEPTH

    def against(
        self,
        images: ImageSet,
        *,
        hidden: NDArray[np.int64] | None = None,
        exclude: NDArray[np.int64] | None = None,
    ) -> PatientDistances:
        """The table of other images; the real rows `hidden` and, for each image, the patient `exclude` are not seen."""
        references, owners = self.references, self.patient_of
        if hidden is not None and len(hidden):
            kept = np.setdiff1d(np.arange(len(owners)), hidden)
            references, owners = take(references, kept), owners[kept]
        return look_up(self.space, queries(self.space, images), references, owners, self.depth, exclude)


def measure_spaces(
    spaces: Sequence[Space],
    real: ImageSet,
    patient_of: NDArray[np.int64],
    synthetic: ImageSet,
    *,
    seed: int,
    step: Step = lambda text: None,
) -> dict[str, MeasuredSpace]:
    """Fit every space on the real images and look both sets up in it."""
    found = {}
    for space in spaces:
        step(f"space {space.name}: learning")
        depth = DEPTH if is_whole(space) else SHALLOW
        limit_orientations(space, real, len(synthetic))
        space.fit(real, seed=seed)
        among = queries(space, real)
        references = among[0]
        step(f"space {space.name}: distances")
        asked = queries(space, synthetic)
        found[space.name] = MeasuredSpace(
            space=space,
            references=references,
            features=asked[0],
            patient_of=patient_of,
            synthetic=look_up(space, asked, references, patient_of, depth),
            real=look_up(space, among, references, patient_of, depth, patient_of),
            depth=depth,
        )
    return found


def look_up(
    space: Space,
    asked: list[Stack],
    references: Stack,
    patient_of: NDArray[np.int64],
    depth: int,
    exclude: NDArray[np.int64] | None = None,
) -> PatientDistances:
    """The nearest patients of the views `asked`; in a space of mixtures, of the best pairs of images."""
    if isinstance(space, Registered):
        return registered_distances(space, asked, references, patient_of, depth, exclude)
    compare = mixture_distances if getattr(space, "mixtures", False) else patient_distances
    return compare(asked, references, patient_of, depth, exclude=exclude)


def queries(space: Space, images: ImageSet) -> list[Stack]:
    """The features of images as they are, then of their mirror images and turns where the space looks at those."""
    views = getattr(space, "views", None)
    return [space.features(images)] if views is None else list(views(images))


def tables(measured: Mapping[str, MeasuredSpace]) -> dict[str, PatientDistances]:
    """The tables of the synthetic images."""
    return {name: space.synthetic for name, space in measured.items()}


def of_whole_images(measured: Mapping[str, MeasuredSpace]) -> dict[str, MeasuredSpace]:
    """The spaces of the dependence test: those made for altered copies and collages would only dilute it."""
    whole = {name: space for name, space in measured.items() if is_whole(space.space)}
    return whole or dict(measured)


def is_whole(space: Space) -> bool:
    """Whether a space takes part in dependence; the others are there to find altered copies and collages only."""
    return bool(getattr(space, "whole", True))


def limit_orientations(space: Space, real: ImageSet, n_synthetic: int) -> None:
    """Fewer views of the images of large sets, the same for synthetic and real ones."""
    few = FEW_VIEWS[real.header.dimensions]
    if len(real) * max(len(real), n_synthetic) > MANY_PAIRS and getattr(space, "n_orientations", 0) > few:
        space.n_orientations = few  # type: ignore[attr-defined]


def real_tables(measured: Mapping[str, MeasuredSpace]) -> dict[str, PatientDistances]:
    """The tables of the real images against all but their own patient."""
    return {name: space.real for name, space in measured.items()}
