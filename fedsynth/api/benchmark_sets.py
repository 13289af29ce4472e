"""Which sets a benchmark measures, and where its result is kept: in the run, or beside the synthetic set."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union

from fedsynth.api.progress import Progress

if TYPE_CHECKING:
    from fedsynth.data import ImageSet
    from fedsynth.evaluation.score import Result
    from fedsynth.evaluation.shared_cache import SharedCache
    from fedsynth.runs import Run

CACHE = Path("cache", "real")
RunLike = Union["Run", Path, str, None]
SetLike = Union["ImageSet", Path, str, None]


@dataclass(frozen=True, kw_only=True)
class Sets:
    """The run whose sets they are, the run that keeps the result (None for sets of other origin), and the two sets.

    `out` is where the result is written beside the run, or instead of it: a folder, or a file that ends in `.json`.
    `beside` is where it goes, without names, when neither a run nor the user has a place for it.
    """

    run: "Run | None"
    keeps: "Run | None"
    real: "ImageSet"
    synthetic: "ImageSet | None"
    out: Path | None = None
    beside: Path | None = None

    def keep(self, result: "Result", *, export: bool = False) -> "Measured":
        """Save a result; what names a patient is left out of what `export` gives back and writes to `out`.

        Beside a synthetic set, which may be shared, nothing ever names a patient.
        """
        from fedsynth.evaluation.anonymous_result import withhold

        if self.beside is not None:
            target = _result_file(self.beside, result.benchmark)
            withhold(result).save(target)
            return Measured(result=withhold(result) if export else result, written=(target,))
        shown, written = withhold(result) if export else result, []
        if self.keeps is not None:
            written.append(self.keeps.benchmark(result.benchmark))
            result.save(written[-1])
        if self.out is not None:
            written.append(_result_file(self.out, result.benchmark))
            shown.save(written[-1])
        return Measured(result=shown, written=tuple(written))


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A result, the files that hold it, and everything that was `found` on the way, for tables and pictures."""

    result: "Result"
    written: tuple[Path, ...] = ()
    pictures: tuple[Path, ...] = ()
    found: Any = None

    @property
    def folder(self) -> Path:
        """Where pictures belong: beside the file that was asked for, else beside the run's."""
        return self.written[-1].parent


def sets_to_measure(
    run: RunLike, real: SetLike, synthetic: SetLike, *, out: Path | str | None, progress: Progress, both: bool = False
) -> Sets:
    """The sets of a run, of the newest one when nothing is given, or the given ones: `both`, or the real one alone.

    A run keeps results of its own two sets only. Those of others go to `out`, or beside the set that is not
    its own.
    """
    from fedsynth.evaluation.evidence import open_sets
    from fedsynth.evaluation.result_owner import stranger

    place, images, made = open_sets(run, real, synthetic, both=both)
    if run is None and place is not None:
        progress.note(f"the newest run: {place.folder}")
    strange = stranger(place, real=None if real is None else images, synthetic=None if synthetic is None else made)
    keeps = None if strange else place
    if strange and place is not None:
        progress.note(f"the set given with --{strange} is not the run's own: {place.folder} does not keep the result")
    of = images if made is None or strange == "real" else made
    file = None if out is None else Path(out)
    beside = _beside(of, progress) if file is None and keeps is None else None
    return Sets(run=place, keeps=keeps, real=images, synthetic=made, out=file, beside=beside)


def _beside(images: "ImageSet", progress: Progress) -> Path | None:
    """Where results of a set that no run keeps lie; None if it is in memory alone or its place cannot be written."""
    if images.folder is None:
        return None
    folder = images.folder.resolve()
    if (folder.parent / "config.toml").is_file():  # a run's folder holds no results but its own
        folder = folder.parent.with_name(f"{folder.parent.name}-{folder.name}")
    made = folder.with_name(f"{folder.name}-benchmarks")
    if os.access(made, os.W_OK) if made.is_dir() else not made.exists() and os.access(folder.parent, os.W_OK):
        return made
    progress.note(f"the result is not kept: nothing can be written beside {images.folder}; --out names another place")
    return None


def _result_file(out: Path, benchmark: str) -> Path:
    return out if out.suffix == ".json" else out / f"{benchmark}.json"


def kept_beside(run: "Run | None") -> "SharedCache":
    """Where runs that lie beside each other keep what follows from the real set alone."""
    from fedsynth.evaluation.shared_cache import SharedCache

    return SharedCache(folder=None if run is None else run.folder.parent / CACHE)
