"""From images to tables of distances: every feature space fitted on members and holdout alike, then asked.

It is blind to roles: it sees the real images together. What the distances mean is told elsewhere.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedsynth.benchmark.leakage.blends import blend_distances
from fedsynth.benchmark.leakage.neighbours import PatientDistances, patient_distances
from fedsynth.benchmark.leakage.spaces.space import Space
from fedsynth.images import ImageSet
from fedsynth.images.rows import Stack, take

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
        limit_views(space, real, len(synthetic))
        space.fit(real, seed=seed)
        references = space.features(real)
        step(f"space {space.name}: distances")
        asked = queries(space, synthetic)
        found[space.name] = MeasuredSpace(
            space=space,
            references=references,
            features=asked[0],
            patient_of=patient_of,
            synthetic=look_up(space, asked, references, patient_of, depth),
            real=look_up(space, queries(space, real), references, patient_of, depth, patient_of),
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
    compare = blend_distances if getattr(space, "blends", False) else patient_distances
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


def limit_views(space: Space, real: ImageSet, n_synthetic: int) -> None:
    """Fewer views of the images of large sets, the same for synthetic and real ones."""
    few = FEW_VIEWS[real.header.dimensions]
    if len(real) * max(len(real), n_synthetic) > MANY_PAIRS and getattr(space, "n_views", 0) > few:
        space.n_views = few  # type: ignore[attr-defined]


def real_tables(measured: Mapping[str, MeasuredSpace]) -> dict[str, PatientDistances]:
    """The tables of the real images against all but their own patient."""
    return {name: space.real for name, space in measured.items()}
