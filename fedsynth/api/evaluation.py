"""Measure and compare: results are data frames.

Heavy imports happen inside the calls, so that `import fedsynth` stays quick.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedsynth.errors import ConfigError, nearest

if TYPE_CHECKING:
    import pandas as pd

    from fedsynth.data import ImageSet
    from fedsynth.runs import Run

EVALUATIONS = ("memorization", "fidelity", "segmentation", "classification")


def evaluate(
    run: "Run | Path | str | None" = None,
    *,
    real: "ImageSet | Path | str | None" = None,
    synthetic: "ImageSet | Path | str | None" = None,
    benchmarks: Sequence[str] = ("memorization", "fidelity"),
    seed: int = 0,
    **task: Any,
) -> "pd.DataFrame":
    """Measure a run, or any two sets: a row per score with its interval, baseline and control.

    `task` are settings of the task networks: `steps=200, network="unet"`. The verdicts are in `frame.attrs`. A run
    keeps the results of its own two sets; those of others are given back alone.
    """
    import pandas as pd

    from fedsynth.evaluation.result_owner import stranger

    for name in benchmarks:
        if name not in EVALUATIONS:
            raise ConfigError("there is no such benchmark", value=name, remedy=nearest(name, EVALUATIONS))
    place, images, made = _sets(run, real, synthetic)
    results = {name: _measure(name, place, images, made, seed, task) for name in benchmarks}
    if place is not None and not stranger(
        place, real=None if real is None else images, synthetic=None if synthetic is None else made
    ):
        for name, result in results.items():
            result.save(place.benchmark(name))
    rows = [
        {"benchmark": name, "score": key, **vars(score)}
        for name, result in results.items()
        for key, score in result.scores.items()
    ]
    frame = pd.DataFrame(rows)
    frame.attrs["verdicts"] = {name: result.verdict for name, result in results.items() if result.verdict}
    return frame


def compare(*runs: "Run | Path | str") -> "pd.DataFrame":
    """Runs side by side as `fedsynth compare` shows them: a row each. What differs between them is in `frame.attrs`."""
    import pandas as pd

    from fedsynth.reporting.comparison import differences, reasons, shown_columns
    from fedsynth.reporting.summary import read_facts

    rows = [read_facts(_folder(run)) for run in runs]
    columns = shown_columns(rows)
    frame = pd.DataFrame([{name: row.cells[name].text for name in columns} for row in rows]).set_index("run")
    frame.attrs["differs"], frame.attrs["reasons"] = differences(rows), reasons(rows)
    return frame


def _folder(run: "Run | Path | str") -> Path:
    from fedsynth.runs import Run

    return run.folder if isinstance(run, Run) else Path(run)


def _sets(run: Any, real: Any, synthetic: Any) -> "tuple[Run | None, ImageSet, ImageSet]":
    from fedsynth.data import ImageSet
    from fedsynth.evaluation.evidence import real_images_of, synthetic_images_of
    from fedsynth.runs import newest_run, open_run

    def opened(images: Any) -> ImageSet:
        return images if isinstance(images, ImageSet) else ImageSet.load(images)

    if run is None and real is not None and synthetic is not None:
        return None, opened(real), opened(synthetic)
    place = newest_run() if run is None else open_run(_folder(run))
    images = opened(real) if real is not None else real_images_of(place)
    return place, images, opened(synthetic) if synthetic is not None else synthetic_images_of(place)


def _measure(
    name: str, place: "Run | None", images: "ImageSet", made: "ImageSet", seed: int, task: dict[str, Any]
) -> Any:
    if name == "memorization":
        from fedsynth.evaluation.evidence import gather
        from fedsynth.evaluation.memorization.benchmark import Settings, run_memorization
        from fedsynth.evaluation.memorization.result import as_result

        return as_result(run_memorization(gather(images, made, place), Settings(seed=seed)))
    if name == "fidelity":
        from fedsynth.evaluation.fidelity.benchmark import run_fidelity

        return run_fidelity(images, made, seed=seed)
    from fedsynth.config import as_table
    from fedsynth.evaluation.utility.arm_trainings import Plan
    from fedsynth.evaluation.utility.benchmark import run_utility
    from fedsynth.experiments.downstream_learners import TaskLearner
    from fedsynth.training.downstream import TaskSettings

    network = "unet" if name == "segmentation" else "densenet"
    settings = TaskSettings(**{"network": network, **task})
    arms = [(arm, False) for arm in ("real", "synthetic", "real+synthetic")]
    plan = Plan(kind=name, arms=arms, seed=seed, settings=as_table(settings))  # type: ignore[arg-type]
    return run_utility(images, made, plan, TaskLearner(settings))
