"""The arms that are compared: which images a task network is trained on. All are scored on the same real holdout."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fedsynth.data import ImageSet
from fedsynth.errors import ConfigError, nearest
from fedsynth.evaluation.utility.controls import mean_image_set

REAL, LOCAL, FEDERATED, FINE_TUNED = "real", "real-local", "real-federated", "real-federated-fine-tuned"
SYNTHETIC, BOTH, TUNED = "synthetic", "real+synthetic", "synthetic-then-10%-real"
ARMS = (REAL, LOCAL, FEDERATED, FINE_TUNED, SYNTHETIC, BOTH, TUNED)
OF_SITES = (LOCAL, FEDERATED, FINE_TUNED)
"""The arms that need several sites."""
OF_STRATEGY = (FEDERATED, FINE_TUNED)
"""The arms that depend on how the sites' networks become one."""
PERSONAL = "fedbn"
"""The strategy that leaves each site a network of its own."""
THRESHOLD, MEAN_IMAGE, MAJORITY = "threshold", "mean-image", "majority-class"
CONTROLS = (THRESHOLD, MEAN_IMAGE, MAJORITY)
UNTRAINED = (THRESHOLD, MAJORITY)
"""Controls that learn nothing from images: the same in every training and with every augmentation."""
PUBLIC, PLACEBO = "public", "placebo"
NOBODY = (PUBLIC, PLACEBO)
"""Images that show none of the patients, and those of a simulator that was fitted to a random direction in place of
the patients: what they teach already was not added by the patients."""
OF_SYNTHETIC = (SYNTHETIC, BOTH, TUNED)
"""The arms that depend on the synthetic set; the others can be kept for the next one."""
AUGMENTED = "+augmentation"
"""Ends the name of an arm that was trained with classical augmentation."""

TUNING_SHARE = 0.1
ANOTHER_START = 1000
"""Added to the seed of a training that collapsed, once."""

Predictor = Callable[[ImageSet], Iterator[NDArray[np.float32]]]
"""Gives the probabilities of each image in turn."""


class Learned(Protocol):
    """A trained network; `collapsed` if it fails on the images that it was trained on."""

    @property
    def steps(self) -> int:
        """How many it was trained for."""

    @property
    def collapsed(self) -> bool:
        """Whether it learned nothing at all."""

    def predict(self, images: ImageSet) -> Iterator[NDArray[np.float32]]:
        """Probabilities for each image in turn: (labels, ...) or (classes,)."""


class Learner(Protocol):
    """Trains a task network; handed in, because measuring knows no trainer."""

    def learn(
        self,
        sets: Sequence[ImageSet],
        *,
        seed: int,
        augment: bool,
        reference: ImageSet | None = None,
        start: Any = None,
    ) -> Learned:
        """Trained on all images of `sets` until `reference` shows no more gain; with `start` that one is tuned."""

    def learn_federated(
        self, sites: Mapping[str, ImageSet], *, seed: int, augment: bool, reference: ImageSet | None = None
    ) -> "Networks":
        """Trained in rounds over `sites`, whose images never meet; one network, or one for each site."""


Networks = Mapping[str | None, Learned]
"""The networks of an arm by the site whose patients they are for; None: for those of all sites."""


@dataclass(frozen=True, kw_only=True)
class Arm:
    """The networks of an arm, and how many trainings were repeated."""

    networks: Networks
    repeated: int = 0


@dataclass(frozen=True, kw_only=True)
class Material:
    """What there is to train on: real members with their sites, synthetic images, and images of `nobody` by arm;
    `reference` chooses."""

    members: ImageSet
    synthetic: ImageSet | None
    reference: ImageSet | None = None
    nobody: Mapping[str, ImageSet] = field(default_factory=dict)

    @property
    def sites(self) -> list[str]:
        """The hospitals, in order."""
        return sorted(set(self.members.cases["site"]))

    def of_site(self, site: str) -> ImageSet:
        """One hospital's members."""
        return self.members.select(site=site)

    def reference_of(self, site: str) -> ImageSet | None:
        """One hospital's reference patients, if it has any."""
        return None if self.reference is None else at_site(self.reference, site)

    def tenth(self, seed: int) -> ImageSet:
        """The images of a tenth of the patients, at least one of every hospital."""
        rng = np.random.default_rng([seed, *b"tenth"])
        chosen: list[str] = []
        for site in self.sites:
            patients = sorted(set(self.of_site(site).cases["patient"]))
            count = max(1, round(TUNING_SHARE * len(patients)))
            chosen += rng.choice(patients, count, replace=False).tolist()
        return self.members.select(patient=chosen)


def at_site(images: ImageSet, site: str) -> ImageSet | None:
    """The images of one site, if there are any."""
    return images.select(site=site) if site in set(images.cases["site"]) else None


def scored_by(networks: Networks, holdout: ImageSet) -> Iterator[tuple[Learned, ImageSet]]:
    """Which network is scored on which images of the holdout: one of a site on that site's own patients alone."""
    for site, network in networks.items():
        images = holdout if site is None else at_site(holdout, site)
        if images is not None:
            yield network, images


def parse_arms(
    named: Sequence[str], *, augmentation: str, material: Material, holdout: ImageSet, strategy: str = "fedavg"
) -> list[tuple[str, bool]]:
    """The named arms as (arm, augmented) pairs; what cannot be trained, or scored on all patients, is refused."""
    without = sorted(set(holdout.cases["site"]) - set(material.sites))
    known = [name.strip() for name in named if name.strip()]
    for name in known:
        if name not in ARMS:
            raise ConfigError("there is no arm of that name", value=name, remedy=nearest(name, ARMS))
        if material.synthetic is None and name in OF_SYNTHETIC:
            raise ConfigError(f"the arm {name!r} needs a synthetic set", remedy="give --synthetic SET or a run")
        if len(material.sites) < 2 and name in OF_SITES:
            raise ConfigError(f"the arm {name!r} needs two hospitals or more", value=material.sites)
        if without and (name in (LOCAL, FINE_TUNED) or (name == FEDERATED and strategy == PERSONAL)):
            problem = f"the arm {name!r} has no network for holdout patients of a hospital without members"
            raise ConfigError(problem, value=without[0], remedy="give every hospital members, or leave the arm away")
    if not known:
        raise ConfigError("no arm was named", remedy=f"there are {', '.join(ARMS)}")
    ways = {"none": [False], "classical": [True], "both": [False, True]}
    if augmentation not in ways:
        raise ConfigError("--augmentation has an unknown value", value=augmentation, remedy=nearest(augmentation, ways))
    return [(name, augmented) for augmented in ways[augmentation] for name in dict.fromkeys(known)]


def train_arm(arm: str, material: Material, learner: Learner, *, seed: int, augment: bool) -> Arm:
    """Train an arm. What collapses is trained once more from another start, whichever arm it is."""
    task = _Training(learner=learner, material=material, seed=seed, augment=augment)
    networks = _networks(arm, material, task)
    return Arm(networks=networks, repeated=sum(task.repeated))


@dataclass(kw_only=True)
class _Training:
    learner: Learner
    material: Material
    seed: int
    augment: bool
    repeated: list[bool] = field(default_factory=list)

    def on(self, *sets: ImageSet | None, start: Learned | None = None) -> Learned:
        return self._on([images for images in sets if images is not None], self.material.reference, start)

    def at(self, site: str, *, start: Learned | None = None) -> Learned:
        """As the site could do alone: its own reference patients choose."""
        return self._on([self.material.of_site(site)], self.material.reference_of(site), start)

    def federated(self) -> Networks:
        sites = {site: self.material.of_site(site) for site in self.material.sites}
        reference = self.material.reference
        return self._surely(
            lambda seed: self.learner.learn_federated(sites, seed=seed, augment=self.augment, reference=reference)
        )

    def _on(self, sets: Sequence[ImageSet], reference: ImageSet | None, start: Learned | None) -> Learned:
        def learn(seed: int) -> Networks:
            made = self.learner.learn(sets, seed=seed, augment=self.augment, reference=reference, start=start)
            return {None: made}

        return self._surely(learn)[None]

    def _surely(self, learn: Callable[[int], Networks]) -> Networks:
        first = learn(self.seed)
        collapsed = any(network.collapsed for network in first.values())
        self.repeated.append(collapsed)
        return learn(self.seed + ANOTHER_START) if collapsed else first


def _networks(arm: str, material: Material, task: _Training) -> Networks:
    if arm == LOCAL:
        return {site: task.at(site) for site in material.sites}
    if arm == FEDERATED:
        return task.federated()
    if arm == FINE_TUNED:
        begun = task.federated()
        return {site: task.at(site, start=begun[site if site in begun else None]) for site in material.sites}
    if arm == TUNED:
        return {None: task.on(material.tenth(task.seed), start=task.on(material.synthetic))}
    return {None: task.on(*_sets(arm, material))}


def _sets(arm: str, material: Material) -> list[ImageSet | None]:
    if arm == MEAN_IMAGE:
        assert material.reference is not None
        return [mean_image_set(material.reference)]
    sets: dict[str, list[ImageSet | None]] = {
        REAL: [material.members],
        SYNTHETIC: [material.synthetic],
        BOTH: [material.members, material.synthetic],
        **{name: [images] for name, images in material.nobody.items()},
    }
    return sets[arm]
