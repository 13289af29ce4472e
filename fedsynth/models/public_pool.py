"""The public pool: pseudo-patients of the phantom with their statistics, and its whitening; made once, then kept.

It follows from public settings alone, so that sites and server have the same. A file is whole or absent, and processes
that want the same pool make it once.
"""

import fcntl
import hashlib
import io
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import fedsynth
from fedsynth import atomic_files
from fedsynth.errors import FedSynthError
from fedsynth.models import image_statistics
from fedsynth.models.moment_matching import Target, Whitening, fitted_weights, resample, whiten
from fedsynth.models.phantom_simulator import PhantomSimulator, PseudoPatient

Values = NDArray[np.float64]
REMEMBERED = 4
"""Pools in memory."""
POOL, CHILDREN = 1, 2
"""What random streams are for."""
KEPT_SHARE = 0.8
"""How often a child keeps the head and the lesion of its parent."""
STEP = 0.12
"""How far children depart from their parent's style in the first generation (as a share of the range)."""
MEASURING = ("data/phantoms", "models/image_statistics.py", "models/phantom_simulator.py", "models/public_pool.py")
"""The code that a pool follows from."""


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


def show(patients: Sequence[PseudoPatient], simulator: PhantomSimulator, slices: int, rng: np.random.Generator) -> Pool:
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


def wide_pool(simulator: PhantomSimulator, settings: PoolSettings) -> Pool:
    """The pool of the wide family, from memory, from disk or made now."""
    name = _name(simulator, settings)
    if name not in _remembered:
        while len(_remembered) >= REMEMBERED:
            _remembered.pop(next(iter(_remembered)), None)
        _remembered[name] = _made(name, lambda: _drawn(simulator, settings))
    return _remembered[name]


def _drawn(simulator: PhantomSimulator, settings: PoolSettings) -> Pool:
    rng = np.random.default_rng([simulator.seed, POOL])
    return show([simulator.draw(rng) for _ in range(settings.patients)], simulator, settings.slices, rng)


def whitening(simulator: PhantomSimulator, settings: PoolSettings, parts: int) -> Whitening:
    """The public whitening of patient vectors into so many parts."""
    return whiten(wide_pool(simulator, settings).statistics, image_statistics.lengths(simulator.layout), parts)


def evolved(
    simulator: PhantomSimulator, settings: PoolSettings, whitened: Whitening, target: Target
) -> tuple[Pool, Values]:
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
        children = [child(pool.patient(row), simulator, rng, STEP / (generation + 1)) for row in parents]
        pool = show(children, simulator, settings.slices, rng)
    return pool, weights


def child(parent: PseudoPatient, simulator: PhantomSimulator, rng: np.random.Generator, share: float) -> PseudoPatient:
    """One of the parent's class and near its style, mostly with its head and lesion."""
    keeps, other = rng.random() < KEPT_SHARE, simulator.new_number(rng)
    style = simulator.near(parent.style, rng, share)
    return PseudoPatient(number=parent.number if keeps else other, label=parent.label, style=style)


def _strata(pool: Pool, simulator: PhantomSimulator) -> NDArray[np.int64]:
    """Where classes are known each must be drawn from enough parents; else all are one stratum."""
    return pool.labels if simulator.classes and None not in simulator.classes else np.zeros_like(pool.labels)


def _made(name: str, make: Callable[[], Pool]) -> Pool:
    """The pool of that name from disk, or made and kept; who asks meanwhile waits."""
    folder = pool_folder()
    try:
        folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)  # it may be the store, which nobody else reads
        folder.mkdir(mode=0o700, exist_ok=True)
        lock = os.open(folder / f"{name}.lock", os.O_RDWR | os.O_CREAT, 0o666)
    except OSError:  # nothing can be kept
        return make()
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (kept := _read(folder / f"{name}.npz")) is not None:
            return kept
        made = make()
        _keep(folder / f"{name}.npz", made)
        return made
    finally:
        os.close(lock)


def _name(simulator: PhantomSimulator, settings: PoolSettings) -> str:
    """A digest of all that the wide pool follows from."""
    shape = sorted(asdict(simulator.shape).items())
    facts = (shape, simulator.head, simulator.seed, settings.patients, settings.slices, _code())
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:32]


def pool_folder() -> Path:
    """Where pools are kept: in `$FEDSYNTH_STORE`, or the user's cache directory."""
    if named := os.environ.get("FEDSYNTH_STORE"):
        return Path(named) / "public-pools"
    found = os.environ.get("XDG_CACHE_HOME")
    return (Path(found) if found else Path.home() / ".cache") / "fedsynth" / "public-pools"


def _keep(path: Path, pool: Pool) -> None:
    content = io.BytesIO()
    np.savez(content, numbers=pool.numbers, labels=pool.labels, styles=pool.styles, statistics=pool.statistics)
    try:
        atomic_files.write_bytes(path, content.getvalue())
    except FedSynthError:  # a full disk: the pool serves this process all the same
        return


def _read(path: Path) -> Pool | None:
    """None for a file that is missing or damaged: it is made again."""
    try:
        with np.load(path, allow_pickle=False) as kept:
            return Pool(**{name: kept[name] for name in ("numbers", "labels", "styles", "statistics")})
    except (OSError, ValueError, KeyError, EOFError):
        return None


@cache
def _code() -> str:
    """A digest of the code that pools follow from."""
    found, root = hashlib.sha256(), Path(fedsynth.__file__).parent
    for part in MEASURING:
        for path in sorted((root / part).rglob("*.py")) if (root / part).is_dir() else [root / part]:
            found.update(path.read_bytes())
    return found.hexdigest()
