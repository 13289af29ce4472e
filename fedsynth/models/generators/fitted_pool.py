"""Private re-weighting and intensity mapping of a public image set, fitted to patients by one noisy sum of bounded
vectors. Images are altered images of people of that set.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fedsynth.data import ImageSet
from fedsynth.data.format import CONSISTS_OF, PUBLIC_SET
from fedsynth.errors import ConfigError
from fedsynth.models.base import ImageShape
from fedsynth.models.fitted_family import FittedFamily
from fedsynth.models.generators.catalog import Entry, Recipe, register
from fedsynth.models.image_pool import ImagePool, open_public
from fedsynth.models.public_pool import PoolSettings


class FittedPool(FittedFamily):
    """Draws altered images of a public set; see `FittedFamily`."""

    simulator: ImagePool

    def check_members(self, images: ImageSet) -> None:
        """See `Model`."""
        self.simulator.public.refuse_shared(images)

    def consists_of(self) -> dict[str, Any]:
        """See `Family`."""
        found = self.simulator.public
        header = found.images.header
        told = f"altered images of the public set {header.name!r}: its licence and its people's consent hold for them"
        made = {"name": header.name, "sha256": found.digest, "origin": header.origin, "provenance": header.provenance}
        return {CONSISTS_OF: told, PUBLIC_SET: made}


def build(
    shape: ImageShape,
    *,
    private: bool = False,
    public: str = "",
    lesion: str | Sequence[str] = (),
    flip: bool = False,
    wide: float = 0.3,
    parts: int = 0,
    pool: int = 1000,
    slices: int = 3,
    children: int = 800,
    generations: int = 2,
    pool_seed: int = 0,
) -> FittedPool:
    """A new one. `public` is the folder of the public set; `lesion` names the labels that the statistics of lesions are
    about (all if none is named); `flip` lets images be mirrored. The others are those of `fitted-simulator`.
    """
    if not public:
        problem = "fitted-pool needs public images of the kind that the hospitals have"
        remedy = "give --public SET: an image set of the same channels, size, labels and classes, with its provenance"
        raise ConfigError(problem, remedy=remedy)
    named = (lesion,) if isinstance(lesion, str) else tuple(lesion)
    simulator = ImagePool(shape=shape, public=open_public(Path(public)), lesion=named, flip=flip, seed=pool_seed)
    settings = PoolSettings(patients=pool, slices=slices, children=children, generations=generations)
    return FittedPool(simulator, settings, parts=parts, wide=wide, private=private)


register(
    Entry(
        name="fitted-pool",
        summary="a public image set, re-weighted and its intensities mapped to fit patients by one sum; any organ",
        kind="fitted",
        build=build,
        recipe=Recipe(steps=1, augment=False),
        private="one noised sum of bounded statistics, one vector per patient",
        dimensions="2",
        check_size=lambda size: "" if len(size) == 2 else "the public pool holds slices, no volumes",
    )
)
