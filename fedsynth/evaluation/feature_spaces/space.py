"""What a feature space is, which ones there are, and how well one tells patients apart.

Distance is Euclidean in every space. A space may be fitted on real images and may use which images show one patient;
it must not know who was a member.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol, get_args

import numpy as np

from fedsynth.data import ImageSet
from fedsynth.errors import ConfigError
from fedsynth.errors import nearest as nearest_name
from fedsynth.evaluation.feature_spaces.detail import Detail, Kind
from fedsynth.evaluation.feature_spaces.discriminant import Discriminant
from fedsynth.evaluation.feature_spaces.encoder import Encoder
from fedsynth.evaluation.feature_spaces.external_network import SCRIPTS, WEIGHTS, load_outside
from fedsynth.evaluation.feature_spaces.grid_space import Features
from fedsynth.evaluation.feature_spaces.pixels import REGIONS, Components, Masks, Pixels, RegionPixels
from fedsynth.evaluation.feature_spaces.registered import Registered, fits
from fedsynth.evaluation.nearest_neighbours import nearest
from fedsynth.evaluation.score import Score
from fedsynth.evaluation.shared_cache import SharedCache

BOOTSTRAPS = 1000
MOST_CHANNELS = 4
"""With more, channels are not looked at one by one."""


class Space(Protocol):
    """Turns images into rows of numbers whose distances say how alike the images are."""

    name: str

    def fit(self, real: ImageSet, *, seed: int) -> None:
        """Learn what is needed from `real`: members and holdout together, blind to their roles."""

    def features(self, images: ImageSet) -> Features:
        """One row per image, (n, d) float32, finite."""

    def views(self, images: ImageSet) -> Iterator[Features]:
        """The features of the same images under several transformations, first as they are.

        The distance of an image is the smallest over its views, so that mirrored, turned or inverted copies are seen.
        """


def default_spaces(real: ImageSet, *, kept: SharedCache | None = None) -> list[Space]:
    """Pixels, components, encoder, and masks where the set has them."""
    spaces: list[Space] = [Pixels(), Components(), Encoder(kept=kept)]
    return spaces if real.masks is None else [*spaces, Masks()]


def copy_spaces(real: ImageSet) -> list[Space]:
    """Spaces that extraction alone looks through: detail, for altered copies and mixtures, and parts of the image.

    Parts are regions of the frame and, where there are a few channels, each by itself (`detail-flair`), since a copied
    channel may come with new others.
    """
    details: list[Space] = [Detail(kind) for kind in get_args(Kind)]
    channels = real.header.channels if 1 < len(real.header.channels) <= MOST_CHANNELS else ()
    alone = [Detail("detail", number, f"detail-{name}") for number, name in enumerate(channels)]
    trained = [Discriminant("intensity"), Discriminant("detail")]
    registered = [Registered()] if fits(real) else []
    return [*details, *alone, *(RegionPixels(region) for region in REGIONS), *trained, *registered]


def spaces_named(names: tuple[str, ...], real: ImageSet, *, kept: SharedCache | None = None) -> list[Space]:
    """The spaces of these names: a default one, one for copies (`detail`, ... `left`, ... `centre`), or a file.

    A file of weights needs its statement beside it, see `outside.py`.
    """
    known: dict[str, Space] = {space.name: space for space in default_spaces(real, kept=kept)}
    known |= {space.name: space for space in copy_spaces(real)}
    for name in names:
        if Path(name).suffix in (*SCRIPTS, *WEIGHTS):
            known[name] = load_outside(Path(name), real)
        if name not in known:
            raise ConfigError("there is no such feature space", value=name, remedy=nearest_name(name, known))
    return [known[name] for name in dict.fromkeys(names)]


def reidentification(space: Space, real: ImageSet, *, seed: int = 0) -> Score:
    """The share of real images whose nearest other image is of the same patient, patients counting alike.

    Only patients with several images count. The interval is a bootstrap over patients, the baseline is chance.
    """
    names, owner, counts = np.unique(real.cases["patient"].astype(str), return_inverse=True, return_counts=True)
    several = np.flatnonzero(counts > 1)
    if not len(several):
        return Score(value=None, why="no patient has several images")
    if len(names) < 2:
        return Score(value=None, why="there is only one patient")
    features = space.features(real)
    found = nearest(features, features, 2)[1]
    other = np.where(found[:, 0] == np.arange(len(found)), found[:, 1], found[:, 0])
    share = (np.bincount(owner, weights=owner[other] == owner) / counts)[several]
    rng = np.random.default_rng([seed, *b"reidentification"])
    again = share[rng.integers(len(share), size=(BOOTSTRAPS, len(share)))].mean(axis=1)
    low, high = np.quantile(again, [0.025, 0.975])
    chance = float(((counts[several] - 1) / (len(owner) - 1)).mean())
    return Score(value=float(share.mean()), low=float(low), high=float(high), baseline=chance, n=len(several))
