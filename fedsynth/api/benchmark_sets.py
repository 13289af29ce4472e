"""Which sets a benchmark measures, and which run keeps the result."""

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
    """The run whose sets they are, the run that keeps the result (None for sets of other origin), and the two sets."""

    run: "Run | None"
    keeps: "Run | None"
    real: "ImageSet"
    synthetic: "ImageSet | None"


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A result, the files that hold it, and everything that was `found` on the way, for tables and pictures."""

    result: "Result"
    written: tuple[Path, ...] = ()
    pictures: tuple[Path, ...] = ()
    found: Any = None


def sets_to_measure(
    run: RunLike,
    real: SetLike,
    synthetic: SetLike,
    *,
    out: Path | None,
    option: str,
    progress: Progress,
    both: bool = False,
) -> Sets:
    """The sets of a run, of the newest one when nothing is given, or the given ones: `both`, or the real one alone.

    A run keeps results of its own two sets only: of others they go to `out`, named by `option`, alone.
    """
    from fedsynth.evaluation.evidence import open_sets
    from fedsynth.evaluation.result_owner import keeper

    place, images, made = open_sets(run, real, synthetic, both=both)
    if run is None and place is not None:
        progress.note(f"the newest run: {place.folder}")
    own, other = None if real is None else images, None if synthetic is None else made
    return Sets(
        run=place, keeps=keeper(place, real=own, synthetic=other, out=out, option=option), real=images, synthetic=made
    )


def kept_beside(run: "Run | None") -> "SharedCache":
    """Where runs that lie beside each other keep what follows from the real set alone."""
    from fedsynth.evaluation.shared_cache import SharedCache

    return SharedCache(folder=None if run is None else run.folder.parent / CACHE)


def as_path(path: Path | str | None) -> Path | None:
    """None stays None."""
    return None if path is None else Path(path)
