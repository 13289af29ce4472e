"""The arms that are compared: which images a task network is trained on. All are scored on the same real holdout."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fedsynth.errors import ConfigError, nearest
from fedsynth.images import ImageSet

REAL, LOCAL, FEDERATED = "real", "real-local", "real-federated"
SYNTHETIC, BOTH, TUNED = "synthetic", "real+synthetic", "synthetic-then-10%-real"
ARMS = (REAL, LOCAL, FEDERATED, SYNTHETIC, BOTH, TUNED)
AUGMENTED = "+augmentation"
"""Ends the name of an arm that was trained with classical augmentation."""

TUNING_SHARE = 0.1

Predictor = Callable[[ImageSet], Iterator[NDArray[np.float32]]]
"""Gives the probabilities of each image in turn."""


class Learned(Protocol):
    """A trained network."""

    def predict(self, images: ImageSet) -> Iterator[NDArray[np.float32]]:
        """Probabilities for each image in turn: (labels, ...) or (classes,)."""


class Learner(Protocol):
    """Trains a task network; handed in, because measuring knows no trainer."""

    def learn(self, sets: Sequence[ImageSet], *, seed: int, augment: bool, start: Any = None) -> Learned:
        """Trained on all images of `sets`; with `start`, an earlier result, it is tuned further in fewer steps."""

    def learn_federated(self, sites: Sequence[ImageSet], *, seed: int, augment: bool) -> Learned:
        """Trained by federated averaging over `sites`, whose images never meet."""


@dataclass(frozen=True, kw_only=True)
class Material:
    """What there is to train on: real members, with their hospitals, and synthetic images."""

    members: ImageSet
    synthetic: ImageSet | None

    @property
    def sites(self) -> list[str]:
        """The hospitals, in order."""
        return sorted(set(self.members.cases["site"]))

    def of_site(self, site: str) -> ImageSet:
        """One hospital's members."""
        return self.members.select(site=site)

    def tenth(self, seed: int) -> ImageSet:
        """The images of a tenth of the patients, at least one of every hospital."""
        rng = np.random.default_rng([seed, *b"tenth"])
        chosen: list[str] = []
        for site in self.sites:
            patients = sorted(set(self.of_site(site).cases["patient"]))
            count = max(1, round(TUNING_SHARE * len(patients)))
            chosen += rng.choice(patients, count, replace=False).tolist()
        return self.members.select(patient=chosen)


def parse_arms(text: str, *, augmentation: str, material: Material) -> list[tuple[str, bool]]:
    """`real,synthetic` as (arm, augmented) pairs; an arm that cannot be trained is refused."""
    known = [name.strip() for name in text.split(",") if name.strip()]
    for name in known:
        if name not in ARMS:
            raise ConfigError("there is no arm of that name", value=name, remedy=nearest(name, ARMS))
        if material.synthetic is None and name in (SYNTHETIC, BOTH, TUNED):
            raise ConfigError(f"the arm {name!r} needs a synthetic set", remedy="give --synthetic SET or a run")
        if len(material.sites) < 2 and name in (LOCAL, FEDERATED):
            raise ConfigError(f"the arm {name!r} needs two hospitals or more", value=material.sites)
    if not known:
        raise ConfigError("no arm was named", remedy=f"there are {', '.join(ARMS)}")
    ways = {"none": [False], "classical": [True], "both": [False, True]}
    if augmentation not in ways:
        raise ConfigError("--augmentation has an unknown value", value=augmentation, remedy=nearest(augmentation, ways))
    return [(name, augmented) for augmented in ways[augmentation] for name in dict.fromkeys(known)]


def train_arm(arm: str, material: Material, learner: Learner, *, seed: int, augment: bool) -> dict[str, Learned]:
    """The networks of an arm by the hospital that they serve; `""` serves all."""
    if arm == LOCAL:
        return {site: learner.learn([material.of_site(site)], seed=seed, augment=augment) for site in material.sites}
    if arm == FEDERATED:
        sites = [material.of_site(site) for site in material.sites]
        return {"": learner.learn_federated(sites, seed=seed, augment=augment)}
    if arm == REAL:
        return {"": learner.learn([material.members], seed=seed, augment=augment)}
    assert material.synthetic is not None
    if arm == SYNTHETIC:
        return {"": learner.learn([material.synthetic], seed=seed, augment=augment)}
    if arm == BOTH:
        return {"": learner.learn([material.members, material.synthetic], seed=seed, augment=augment)}
    first = learner.learn([material.synthetic], seed=seed, augment=augment)
    return {"": learner.learn([material.tenth(seed)], seed=seed, augment=augment, start=first)}
