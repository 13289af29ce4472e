"""A public pool: pseudo-patients of a simulator with their statistics, and its whitening; made once, then kept.

It follows from public settings alone, so that sites and server have the same. A simulator is whatever draws
pseudo-patients and shows their slices: a phantom, or altered images of a public set.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import scipy
from numpy.typing import NDArray

from fedsynth.code_digest import code_digest
from fedsynth.models import image_statistics
from fedsynth.models.base import ImageShape
from fedsynth.models.image_statistics import Layout
from fedsynth.models.kept_arrays import kept_arrays
from fedsynth.models.moment_matching import Target, Whitening, fitted_weights, resample, whiten
from fedsynth.models.pseudo_patient import PseudoPatient, Shown, all_known

Values = NDArray[np.float64]
REMEMBERED = 4
"""Pools in memory."""
POOL, CHILDREN = 1, 2
"""What random streams are for."""
STEP = 0.12
"""How far children depart from their parent's style in the first generation (as a share of the range)."""
MEASURING = ("models/image_statistics.py", "models/statistics", "models/public_pool.py")
"""The code that a pool follows from, whatever the simulator."""
FITTING = ("models/moment_matching.py", "models/fitted_family.py")
"""The code that vectors and the fit to their sum follow from."""
ARRAYS = ("numbers", "labels", "styles", "statistics")


class Simulator(Protocol):
    """Draws pseudo-patients of `shape` in styles within `limits` (2, parts), and shows their slices.

    `classes` gives for each class of the shape the label of a pseudo-patient, or None where any may be drawn.
    `name`, `source` and `code` are for people and for digests: all that its images follow from. `content` is the digest
    of public images that it shows, if it shows any.
    """

    @property
    def shape(self) -> ImageShape: ...  # noqa: D102

    @property
    def seed(self) -> int: ...  # noqa: D102

    @property
    def layout(self) -> Layout: ...  # noqa: D102

    @property
    def limits(self) -> Values: ...  # noqa: D102

    @property
    def classes(self) -> tuple[int | None, ...]: ...  # noqa: D102

    @property
    def name(self) -> str: ...  # noqa: D102

    @property
    def source(self) -> tuple[object, ...]: ...  # noqa: D102

    @property
    def content(self) -> bytes: ...  # noqa: D102

    @property
    def code(self) -> tuple[str, ...]: ...  # noqa: D102

    def draw(self, rng: np.random.Generator, label: int | None = None) -> PseudoPatient:
        """A new pseudo-patient in a style from anywhere within the limits, of that label or of any."""

    def slices(self, patient: PseudoPatient, rng: np.random.Generator, count: int) -> list[Shown]:
        """`count` slices with their masks; these are empty where the shape has none."""


@dataclass(frozen=True, kw_only=True)
class PoolSettings:
    """How large: pseudo-patients of the wide pool, slices of each, and how many children there are per generation."""

    patients: int = 1000
    slices: int = 3
    children: int = 800
    generations: int = 2


@dataclass(frozen=True, kw_only=True, eq=False)
class Pool:
    """Pseudo-patients in rows: number, class and style of each, and the mean statistics of its slices."""

    numbers: NDArray[np.int64]
    labels: NDArray[np.int64]
    styles: Values
    statistics: Values

    def patient(self, row: int) -> PseudoPatient:
        """One of them."""
        return PseudoPatient(number=int(self.numbers[row]), label=int(self.labels[row]), style=self.styles[row])

    def __len__(self) -> int:
        return len(self.numbers)


_remembered: dict[str, Pool] = {}


def show(patients: Sequence[PseudoPatient], simulator: Simulator, slices: int, rng: np.random.Generator) -> Pool:
    """The pool of these pseudo-patients: each is rendered and measured."""
    statistics = []
    for patient in patients:
        shown = simulator.slices(patient, rng, slices)
        layout = simulator.layout
        statistics.append(np.mean([image_statistics.measured(i / 255, mask, layout) for i, mask in shown], 0))
    return Pool(
        numbers=np.array([patient.number for patient in patients], np.int64),
        labels=np.array([patient.label for patient in patients], np.int64),
        styles=np.array([patient.style for patient in patients], np.float64),
        statistics=np.array(statistics, np.float64),
    )


def wide_pool(simulator: Simulator, settings: PoolSettings) -> Pool:
    """The pool of the wide family, from memory, from disk or made now."""
    name = _name(simulator, settings)
    if name not in _remembered:
        while len(_remembered) >= REMEMBERED:
            _remembered.pop(next(iter(_remembered)), None)
        _remembered[name] = Pool(**kept_arrays(name, ARRAYS, lambda: vars(_drawn(simulator, settings))))
    return _remembered[name]


def _drawn(simulator: Simulator, settings: PoolSettings) -> Pool:
    rng = np.random.default_rng([simulator.seed, POOL])
    return show([simulator.draw(rng) for _ in range(settings.patients)], simulator, settings.slices, rng)


def whitening(simulator: Simulator, settings: PoolSettings, parts: int) -> Whitening:
    """The public whitening of patient vectors into so many parts."""
    return whiten(wide_pool(simulator, settings).statistics, image_statistics.lengths(simulator.layout), parts)


def evolved(simulator: Simulator, settings: PoolSettings, whitened: Whitening, target: Target) -> tuple[Pool, Values]:
    """A pool whose weighted mean vector is about the target, and its weights.

    The wide pool is tilted; children of the tilted pool are rendered anew, near to their parents, and tilted again.
    """
    rng = np.random.default_rng([simulator.seed, CHILDREN])
    pool = wide_pool(simulator, settings)
    base = np.full(len(pool), 1 / len(pool))
    for generation in range(settings.generations + 1):
        strata = _strata(pool, simulator)
        weights = fitted_weights(whitened(pool.statistics), base, strata, target)
        if generation == settings.generations:
            break
        parents, base = resample(weights, strata, settings.children, rng)
        children = [pool.patient(row).child(simulator.limits, rng, STEP / (generation + 1)) for row in parents]
        pool = show(children, simulator, settings.slices, rng)
    return pool, weights


def _strata(pool: Pool, simulator: Simulator) -> NDArray[np.int64]:
    """Where classes are known each must be drawn from enough parents; else all are one stratum."""
    return pool.labels if all_known(simulator.classes) else np.zeros_like(pool.labels)


def _name(simulator: Simulator, settings: PoolSettings) -> str:
    """A digest of all that the wide pool follows from."""
    facts = (*simulator.source, simulator.seed, settings.patients, settings.slices)
    code = code_digest((*simulator.code, *MEASURING))
    return hashlib.sha256(repr((facts, code, numpy_and_scipy())).encode()).hexdigest()[:32]


def numpy_and_scipy() -> tuple[str, str]:
    """Their versions: what is drawn and measured may differ from one to the next."""
    return np.__version__, scipy.__version__


def identity(simulator: Simulator, settings: PoolSettings, parts: int) -> str:
    """The pool's name, and a digest of all that vectors of so many parts follow from: the same at sites and server."""
    code = code_digest(FITTING)
    digest = hashlib.sha256(f"{_name(simulator, settings)} {parts} {code}".encode()).hexdigest()
    return f"{simulator.name} ({digest[:16]})"
