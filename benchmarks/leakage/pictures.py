"""Phantom cohorts for the study of the leakage tests: honest output of several fidelities, and leaks, as pictures."""

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from leakage.scoring import compared, decide
from numpy.typing import NDArray
from scipy import ndimage

from fedsynth.data import ImageSet
from fedsynth.data.format import HEADER
from fedsynth.data.phantoms.cohort import make_phantoms
from fedsynth.data.phantoms.settings import PhantomSettings
from fedsynth.data.roles import Shares
from fedsynth.data.split import draw_roles
from fedsynth.evaluation.cohort import Cohort
from fedsynth.evaluation.feature_spaces.space import default_spaces
from fedsynth.evaluation.memorization.distance_tables import DEPTH, queries
from fedsynth.evaluation.nearest_neighbours import patient_distances

POOL = PhantomSettings(patients=1000, slices=7, size=64, sites=4, seed=7)
PATIENTS, IMAGES, SYNTHETIC = 200, 5, 700

Voxels = NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True, eq=False)
class Hospitals:
    """A real set with its roles, further slices of its patients that are in no set, and everybody else's slices."""

    pool: ImageSet
    real: ImageSet
    rows: NDArray[np.int64]
    hidden: NDArray[np.int64]
    strangers: NDArray[np.int64]
    cohort: Cohort

    @property
    def owner(self) -> NDArray[np.int64]:
        """The patient of every real image."""
        return self.cohort.numbers(self.real)

    def honest(self, rng: np.random.Generator) -> Voxels:
        """Slices of strangers, all of each as far as they go."""
        people = self.pool.cases["patient"].to_numpy(str)[self.strangers]
        named = rng.permutation(np.unique(people))[: SYNTHETIC // POOL.slices]
        chosen: Voxels = self.pool.images[np.sort(self.strangers[np.isin(people, named)])]
        return chosen

    def members(self, rng: np.random.Generator, n: int) -> NDArray[np.int64]:
        """`n` different members."""
        return rng.permutation(np.flatnonzero(self.cohort.member))[:n]

    def image_of(self, patients: NDArray[np.int64], rng: np.random.Generator) -> Voxels:
        """A random real image of each."""
        rows = [rng.choice(self.rows[self.owner == patient]) for patient in patients]
        found: Voxels = self.pool.images[np.array(rows)]
        return found


def open_pool(folder: Path) -> ImageSet:
    """The phantoms, without masks, that real sets and strangers are drawn from; made where they are not there yet."""
    made = (folder / HEADER).is_file()
    pool = ImageSet.load(folder, every_voxel=False) if made else make_phantoms(folder, POOL)
    return ImageSet(header=replace(pool.header, mask_labels=()), cases=pool.cases, images=pool.images)


def hospitals(pool: ImageSet, repetition: int) -> Hospitals:
    """A fifth of the patients become the real set, five slices of each, with roles."""
    rng = np.random.default_rng([repetition, *b"phantoms"])
    people = pool.cases["patient"].to_numpy(str)
    mine = np.isin(people, rng.permutation(np.unique(people))[:PATIENTS])
    shuffled = rng.permutation(np.flatnonzero(mine))
    place = np.empty(len(pool), np.int64)
    for patient in np.unique(people[mine]):
        own = shuffled[people[shuffled] == patient]
        place[own] = np.arange(len(own))
    rows, hidden = np.flatnonzero(mine & (place < IMAGES)), np.flatnonzero(mine & (place >= IMAGES))
    real = with_roles(pool.rows(rows), repetition)
    strangers = np.flatnonzero(~mine)
    return Hospitals(pool=pool, real=real, rows=rows, hidden=hidden, strangers=strangers, cohort=Cohort.of(real))


def with_roles(real: ImageSet, seed: int) -> ImageSet:
    """Half members and half holdout, drawn within site and class."""
    shares = Shares(member=0.5, holdout=0.5, reference=0)
    cases, split = draw_roles(real.cases, shares, seed, replace=True)
    return real.with_cases(cases, split=split)


Made = tuple[Voxels, NDArray[np.int64]]
NOBODY = np.zeros(0, np.int64)


def honest(change: Callable[[Voxels, np.random.Generator], Voxels]) -> Callable[..., Made]:
    """Strangers' slices, changed."""
    return lambda of, rng: (change(of.honest(rng), rng), NOBODY)


def noisy(images: Voxels, rng: np.random.Generator, deviation: float = 0.08) -> Voxels:
    """White noise, of the range."""
    made = images + 255 * deviation * rng.normal(size=images.shape)
    return np.clip(np.rint(made), 0, 255).astype(np.uint8)


def blurred(images: Voxels, rng: np.random.Generator) -> Voxels:
    """A blur of one and a half pixels."""
    return ndimage.gaussian_filter(images, (0, 0, 1.5, 1.5))


def collapsed(of: Hospitals, rng: np.random.Generator) -> Made:
    """Five slices of strangers over and over, with a little noise."""
    few = of.honest(rng)
    return noisy(few[rng.permutation(len(few))[:5]][rng.integers(0, 5, SYNTHETIC)], rng, 0.02), NOBODY


def copies(n: int, noise: float) -> Callable[..., Made]:
    """`n` of the images are members' images with noise, each of another member."""

    def make(of: Hospitals, rng: np.random.Generator) -> Made:
        chosen = of.members(rng, n)
        made = of.honest(rng)
        made[rng.permutation(len(made))[:n]] = noisy(of.image_of(chosen, rng), rng, noise)
        return made, np.sort(chosen)

    return make


def three_patients(of: Hospitals, rng: np.random.Generator) -> Made:
    """Everything is an image of one of three members, with noise."""
    chosen = of.members(rng, 3)
    return noisy(of.image_of(rng.choice(chosen, SYNTHETIC), rng), rng, 0.05), np.sort(chosen)


def identities(of: Hospitals, rng: np.random.Generator) -> Made:
    """Two further slices of a tenth of the members, which are in no set, among the output."""
    chosen = of.members(rng, int(of.cohort.member.sum()) // 10)
    names = np.array(of.cohort.names)[chosen]
    rows = of.hidden[np.isin(of.pool.cases["patient"].to_numpy(str)[of.hidden], names)]
    made = of.honest(rng)
    made[rng.permutation(len(made))[: len(rows)]] = of.pool.images[rows]
    return made, np.sort(chosen)


SCENARIOS: Mapping[str, Callable[[Hospitals, np.random.Generator], Made]] = {
    "honest: sharp": honest(lambda x, rng: x),
    "honest: blurred": honest(blurred),
    "honest: noisy": honest(noisy),
    "honest: collapsed onto five strangers' images": collapsed,
    "1 % exact copies": copies(7, 0.0),
    "1 % near copies": copies(7, 0.05),
    "a single exact copy": copies(1, 0.0),
    "all output copies three patients": three_patients,
    "new images of a tenth of the members": identities,
}


Wanted = Sequence[tuple[str, int]]
"""Scenarios and the numbers of their repetitions."""


def repetitions_of(number: int) -> Wanted:
    """What is scored on one real set: each leak once, each honest output twice."""
    honest_ones = [name for name in SCENARIOS if name.startswith("honest")]
    leaks = [name for name in SCENARIOS if name not in honest_ones]
    return [(name, 2 * number + draw) for draw in range(2) for name in honest_ones] + [(name, number) for name in leaks]


def one_real_set(pool: ImageSet, number: int, wanted: Wanted) -> Iterator[tuple[str, int, dict[str, object]]]:
    """Fit the benchmark's spaces on one real set and judge the `wanted` outputs, roles drawn anew for each."""
    of = hospitals(pool, number)
    fitted = {}
    for space in default_spaces(of.real):
        space.fit(of.real, seed=number)
        references = space.features(of.real)
        among = patient_distances(queries(space, of.real), references, of.owner, DEPTH, exclude=of.owner)
        fitted[space.name] = (space, references, among)
    among = {name: table for name, (_, _, table) in fitted.items()}
    for scenario, repetition in wanted:
        seed = [repetition, zlib.crc32(scenario.encode())]
        rng = np.random.default_rng(seed)
        of = replace(of, cohort=Cohort.of(with_roles(of.real, int(rng.integers(2**31)))))
        voxels, leaked = SCENARIOS[scenario](of, rng)
        images = as_output(pool, voxels)
        seen = {name: queries(space, images) for name, (space, _, _) in fitted.items()}
        tables = {name: patient_distances(seen[name], fitted[name][1], of.owner, DEPTH) for name in fitted}
        found = decide(tables, among, of.owner, of.cohort, repetition, leaked)
        real, made = np.asarray(fitted["components"][1]), np.asarray(seen["components"][0])
        yield scenario, repetition, found | compared(real, of.owner, made, of.cohort, repetition)


def as_output(pool: ImageSet, voxels: Voxels) -> ImageSet:
    """As a synthetic image set, without patients."""
    named = {"case": [f"made-{number:04}" for number in range(len(voxels))]}
    cases = pd.DataFrame(named | dict.fromkeys(("patient", "site", "role", "class", "slice"), ""))
    return ImageSet(header=replace(pool.header, origin="synthetic", split=None), cases=cases, images=voxels)
