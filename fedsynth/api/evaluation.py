"""Several benchmarks at once, as one data frame."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from fedsynth.api.benchmark_sets import RunLike, SetLike
from fedsynth.api.leakage import membership, memorization
from fedsynth.api.progress import Progress
from fedsynth.api.utility import classification, fidelity, segmentation
from fedsynth.errors import ConfigError, nearest

if TYPE_CHECKING:
    import pandas as pd

    from fedsynth.evaluation.score import Result

BENCHMARKS: "dict[str, Callable[..., Result]]" = {
    one.__name__: one for one in (memorization, membership, fidelity, segmentation, classification)
}


def evaluate(
    run: RunLike = None,
    *,
    real: SetLike = None,
    synthetic: SetLike = None,
    benchmarks: Sequence[str] = ("memorization", "fidelity"),
    seed: int = 0,
    progress: Progress | None = None,
    **task: Any,
) -> "pd.DataFrame":
    """Measure a run, or any two sets, with the settings that each benchmark has of its own.

    Args:
        run: The run; the newest if no sets are given. It keeps the results of its own two sets.
        real: A real set with roles, instead of the run's.
        synthetic: A synthetic set, whoever made it.
        benchmarks: Any of memorization, membership, fidelity, segmentation and classification.
        seed: One seed gives one result.
        progress: Told how far the work is; log lines if not given.
        **task: Settings of segmentation and classification, as in `steps=200, seeds=1`.

    Returns:
        A row per score with its interval, baseline and control; the verdicts are in `frame.attrs["verdicts"]`.

    Example:
        >>> import fedsynth
        >>> frame = fedsynth.evaluate("runs/first", benchmarks=["fidelity", "memorization"])  # doctest: +SKIP
    """
    import pandas as pd

    for name in benchmarks:
        if name not in BENCHMARKS:
            raise ConfigError("there is no such benchmark", value=name, remedy=nearest(name, BENCHMARKS))
    sets = _sets(run, real, synthetic)
    results = {
        name: BENCHMARKS[name](
            **sets, seed=seed, progress=progress, **(task if name in ("segmentation", "classification") else {})
        )
        for name in benchmarks
    }
    rows = [
        {"benchmark": name, "score": key, **vars(score)}
        for name, result in results.items()
        for key, score in result.scores.items()
    ]
    frame = pd.DataFrame(rows)
    frame.attrs["verdicts"] = {name: result.verdict for name, result in results.items() if result.verdict}
    return frame


def _sets(run: RunLike, real: SetLike, synthetic: SetLike) -> dict[str, Any]:
    """Sets of other origin than the run's are measured without it: their results are given back alone."""
    from fedsynth.evaluation.evidence import open_sets
    from fedsynth.evaluation.result_owner import stranger

    if real is None and synthetic is None:
        return {"run": run}
    place, images, made = open_sets(run, real, synthetic)
    own = None if real is None else images, None if synthetic is None else made
    if place is None or stranger(place, real=own[0], synthetic=own[1]):
        return {"real": images, "synthetic": made}
    return {"run": place, "real": own[0], "synthetic": own[1]}
