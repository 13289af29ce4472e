"""A phantom simulator with wide public styles, fitted to patients by one noisy sum of bounded vectors."""

from fedsynth.models import phantom_simulator
from fedsynth.models.base import ImageShape
from fedsynth.models.fitted_family import FittedFamily
from fedsynth.models.generators.catalog import Entry, Recipe, register
from fedsynth.models.phantom_simulator import PhantomSimulator
from fedsynth.models.public_pool import PoolSettings


def build(
    shape: ImageShape,
    *,
    private: bool = False,
    head: bool = False,
    wide: float = 0.3,
    parts: int = 0,
    pool: int = 1000,
    slices: int = 3,
    children: int = 800,
    generations: int = 2,
    pool_seed: int = 0,
) -> FittedFamily:
    """A new one. `head` shows skull and scalp; `wide` is the share of images that is drawn from the public pool.

    `pool` pseudo-patients of `slices` each make up the public pool, `children` each generation of the fit. Patient
    vectors have so many `parts` (0: 24, or 32 with classes).
    """
    simulator = PhantomSimulator(shape=shape, head=head, seed=pool_seed)
    settings = PoolSettings(patients=pool, slices=slices, children=children, generations=generations)
    return FittedFamily(simulator, settings, parts=parts, wide=wide, private=private)


register(
    Entry(
        name="fitted-simulator",
        summary="brain phantoms in wide public styles, fitted to patients by one sum; unknown classes draw from all",
        kind="fitted",
        build=build,
        recipe=Recipe(steps=1, augment=False),
        private="one noised sum of bounded statistics, one vector per patient",
        dimensions="2",
        check_size=phantom_simulator.check_size,
    )
)
