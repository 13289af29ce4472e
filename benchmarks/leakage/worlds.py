"""Worlds of known people for the study of the leakage tests: what an image is made of, and what generators leak."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fedsynth.evaluation.nearest_neighbours import nearest

PATIENTS, IMAGES, SYNTHETIC, WIDTH = 200, 5, 700, 32
WITHIN = 0.5

Features = NDArray[np.float32]
Latent = NDArray[np.float64]
Made = tuple[Latent, NDArray[np.int64]]


@dataclass(frozen=True, kw_only=True)
class World:
    """Real people at sites that differ, with roles; images are the person, the site, the slice and something new."""

    people: Latent
    member: NDArray[np.bool_]
    site: NDArray[np.int64]
    images: Latent
    shift: Latent
    levels: Latent
    within: float = WITHIN

    @property
    def owner(self) -> NDArray[np.int64]:
        """The patient of every real image."""
        return np.repeat(np.arange(len(self.people)), IMAGES)

    def draw(self, rng: np.random.Generator, people: Latent, site: NDArray[np.int64], n: int) -> Latent:
        """`n` new images of each of the people."""
        level = rng.integers(0, len(self.levels), (len(people), n))
        base = (people + self.shift[site])[:, None] + self.levels[level]
        made: Latent = base + self.within * rng.normal(size=base.shape)
        return made.reshape(-1, WIDTH)

    def strangers(self, rng: np.random.Generator, n: int) -> Latent:
        """`n` images of people who are in no set, five of each: what an honest generator draws."""
        many = -(-n // IMAGES)
        site = rng.choice(self.site, many)
        return self.draw(rng, rng.normal(size=(many, WIDTH)), site, IMAGES)[rng.permutation(many * IMAGES)[:n]]

    def members(self, rng: np.random.Generator, n: int) -> NDArray[np.int64]:
        """`n` different members."""
        return rng.permutation(np.flatnonzero(self.member))[:n]


def world(rng: np.random.Generator, scenario: "Scenario") -> World:
    """A new world: everything in it is drawn."""
    site = np.sort(np.arange(PATIENTS) % scenario.sites)
    member = np.zeros(PATIENTS, bool)
    for number in range(scenario.sites):
        inside = rng.permutation(np.flatnonzero(site == number))
        member[inside[: round(scenario.share * len(inside))]] = True
    drawn = World(
        people=rng.normal(size=(PATIENTS, WIDTH)),
        member=member,
        site=site,
        images=np.zeros((0, WIDTH)),
        shift=rng.normal(size=(scenario.sites, WIDTH)) * (scenario.sites > 1),
        levels=0.5 * rng.normal(size=(8, WIDTH)),
        within=scenario.within,
    )
    return replace(drawn, images=drawn.draw(rng, drawn.people, site, IMAGES))


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """What the generator gives out in a world, and the members whom it leaks."""

    make: Callable[[World, np.random.Generator], Made]
    share: float = 0.5
    sites: int = 1
    within: float = WITHIN
    honest: bool = False


NOBODY = np.zeros(0, np.int64)


def honest(change: Callable[[Latent, np.random.Generator], Latent], **settings: float) -> Scenario:
    """Strangers' images, changed."""
    return Scenario(make=lambda w, rng: (change(w.strangers(rng, SYNTHETIC), rng), NOBODY), honest=True, **settings)


def collapsed(w: World, rng: np.random.Generator) -> Made:
    """Everything is one of five images of strangers, with a little noise."""
    few = w.strangers(rng, 5)[rng.integers(0, 5, SYNTHETIC)]
    return few + 0.1 * rng.normal(size=few.shape), NOBODY


def one_site(w: World, rng: np.random.Generator) -> Made:
    """Only strangers of the first site are drawn."""
    people = rng.normal(size=(SYNTHETIC // IMAGES, WIDTH))
    return w.draw(rng, people, np.zeros(len(people), np.int64), IMAGES), NOBODY


def copies(n: int, noise: float, patients: int | None = None) -> Callable[..., Made]:
    """`n` of the images are members' images with noise, of `patients` members, each a different one by default."""

    def make(w: World, rng: np.random.Generator) -> Made:
        chosen = w.members(rng, n if patients is None else patients)
        rows = np.resize(chosen, n) * IMAGES + rng.integers(0, IMAGES, n)
        made = w.strangers(rng, SYNTHETIC)
        made[:n] = w.images[rows] + noise * rng.normal(size=(n, WIDTH))
        return made, np.sort(chosen)

    return make


def mixes(w: World, rng: np.random.Generator) -> Made:
    """One image in a hundred is half of one member's image and half of another's."""
    chosen = w.members(rng, 14)
    made = w.strangers(rng, SYNTHETIC)
    made[:7] = w.images[chosen * IMAGES].reshape(7, 2, WIDTH).mean(axis=1)
    return made, np.sort(chosen)


def identities(w: World, rng: np.random.Generator) -> Made:
    """A tenth of the images are new ones of a tenth of the members."""
    chosen = w.members(rng, int(w.member.sum()) // 10)
    made = w.strangers(rng, SYNTHETIC)
    new = w.draw(rng, w.people[chosen], w.site[chosen], SYNTHETIC // 10 // len(chosen))
    made[: len(new)] = new
    return made, np.sort(chosen)


def filtered(w: World, rng: np.random.Generator) -> Made:
    """Twice as many strangers' images as needed; the half nearer to members' images is thrown away."""
    made = w.strangers(rng, 2 * SYNTHETIC)
    inside = w.images[w.member[w.owner]]
    near = nearest(made.astype(np.float32), inside.astype(np.float32), 1)[0][:, 0]
    return made[np.argsort(near)[SYNTHETIC:]], np.flatnonzero(w.member)


SCENARIOS: Mapping[str, Scenario] = {
    "honest: sharp": honest(lambda x, rng: x),
    "honest: blurred": honest(lambda x, rng: 0.7 * x),
    "honest: noisy": honest(lambda x, rng: x + 0.5 * rng.normal(size=x.shape)),
    "honest: collapsed onto five strangers' images": Scenario(make=collapsed, honest=True),
    "honest: four sites, 70 % members": honest(lambda x, rng: x, share=0.7, sites=4),
    "honest: four sites, one drawn": Scenario(make=one_site, sites=4, honest=True),
    "1 % exact copies": Scenario(make=copies(7, 0.0)),
    "1 % near copies": Scenario(make=copies(7, 0.1)),
    "a single exact copy": Scenario(make=copies(1, 0.0)),
    "all output copies three patients": Scenario(make=copies(SYNTHETIC, 0.1, patients=3)),
    "new images of a tenth of the members": Scenario(make=identities),
    "new images of a tenth of the members, people alike": Scenario(make=identities, within=0.9),
    "1 % mixes of two members": Scenario(make=mixes),
    "1 % copies with much noise": Scenario(make=copies(7, 0.5)),
    "output filtered to keep away from members": Scenario(make=filtered),
    "5 % near copies": Scenario(make=copies(35, 0.1)),
    "5 % near copies, 70 % members": Scenario(make=copies(35, 0.1), share=0.7),
}


def feature_spaces(real: Latent, synthetic: Latent) -> dict[str, tuple[Features, Features]]:
    """Two views of the same images: directions that fade, as in pixels, and whitened ones, fitted blind to roles."""
    fading = 1 / np.sqrt(np.arange(1, WIDTH + 1))
    centre = real.mean(axis=0)
    _, values, axes = np.linalg.svd(real - centre, full_matrices=False)
    whiten = axes.T / values * math.sqrt(len(real))
    return {
        "fading": ((real * fading).astype(np.float32), (synthetic * fading).astype(np.float32)),
        "whitened": (((real - centre) @ whiten).astype(np.float32), ((synthetic - centre) @ whiten).astype(np.float32)),
    }
