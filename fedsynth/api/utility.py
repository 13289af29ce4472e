"""What a synthetic set is good for: task networks trained on it, and how near it comes to real images."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedsynth import config
from fedsynth.api.benchmark_sets import Measured, RunLike, SetLike, Sets, sets_to_measure
from fedsynth.api.progress import Progress
from fedsynth.api.signature import as_given, takes_keywords
from fedsynth.errors import ConfigError
from fedsynth.evaluation.settings import (
    ClassificationSettings,
    FidelitySettings,
    SegmentationSettings,
    UtilitySettings,
)

if TYPE_CHECKING:
    from fedsynth.data import ImageSet
    from fedsynth.evaluation.score import Result
    from fedsynth.evaluation.utility.arm_trainings import Kind, Plan

KEPT = Path("cache", "arms")
"""Beside the run: the arms that its neighbours share."""
SETTINGS: dict[str, type[UtilitySettings]] = {
    "segmentation": SegmentationSettings,
    "classification": ClassificationSettings,
}


@takes_keywords(SegmentationSettings)
def segmentation(
    run: RunLike = None,
    *,
    real: SetLike = None,
    synthetic: SetLike = None,
    public: SetLike = None,
    placebo: SetLike = None,
    out: Path | str | None = None,
    export: bool = False,
    progress: Progress | None = None,
    **settings: Any,
) -> "Result":
    """Train a segmentation network on each arm and score it on real holdout patients, beside control arms.

    Args:
        run: The run; the newest if no sets are given.
        real: A real set with roles, instead of the run's.
        synthetic: A synthetic set, whoever made it.
        public: Public images that show none of the real patients; the run's own if it made some.
        placebo: Images of a simulator fitted to a random direction in place of the patients; the run's own if any.
        out: A folder or a .json file for the result. Beside SYNTHETIC where no run keeps the result.
        export: Leave out what names a patient or a place on a disk.
        progress: Told how far the work is; log lines if not given.

    Returns:
        The result: Dice and more for every arm with 95 % intervals, as `scores["dice/synthetic+augmentation"]`.

    Example:
        >>> import fedsynth
        >>> found = fedsynth.segmentation("runs/first", seeds=1)  # doctest: +SKIP
    """
    sets = (real, synthetic, public, placebo)
    return measure_utility("segmentation", run, *sets, out, export=export, progress=progress, **settings).result


@takes_keywords(ClassificationSettings)
def classification(
    run: RunLike = None,
    *,
    real: SetLike = None,
    synthetic: SetLike = None,
    public: SetLike = None,
    placebo: SetLike = None,
    out: Path | str | None = None,
    export: bool = False,
    progress: Progress | None = None,
    **settings: Any,
) -> "Result":
    """Train a classifier on each arm and score it on real holdout patients, beside the majority class.

    Args:
        run: The run; the newest if no sets are given.
        real: A real set with roles, instead of the run's.
        synthetic: A synthetic set, whoever made it.
        public: Public images that show none of the real patients; the run's own if it made some.
        placebo: Images of a simulator fitted to a random direction in place of the patients; the run's own if any.
        out: A folder or a .json file for the result. Beside SYNTHETIC where no run keeps the result.
        export: Leave out what names a patient or a place on a disk.
        progress: Told how far the work is; log lines if not given.

    Returns:
        The result: accuracy, AUC and more for every arm with 95 % intervals.

    Example:
        >>> import fedsynth
        >>> found = fedsynth.classification(real="hospitals", synthetic="made", arms=["real"])  # doctest: +SKIP
    """
    sets = (real, synthetic, public, placebo)
    return measure_utility("classification", run, *sets, out, export=export, progress=progress, **settings).result


@takes_keywords(FidelitySettings)
def fidelity(
    run: RunLike = None,
    *,
    real: SetLike = None,
    synthetic: SetLike = None,
    out: Path | str | None = None,
    export: bool = False,
    progress: Progress | None = None,
    **settings: Any,
) -> "Result":
    """How near synthetic images come to real ones and how varied they are, each beside real against real.

    Args:
        run: The run; the newest if no sets are given.
        real: A real set with roles, instead of the run's.
        synthetic: A synthetic set, whoever made it.
        out: A folder or a .json file for the result. Beside SYNTHETIC where no run keeps the result.
        export: Leave out what names a patient or a place on a disk.
        progress: Told how far the work is; log lines if not given.

    Returns:
        The result: FID and KID in several feature spaces, precision, recall, MS-SSIM and an Inception Score.

    Example:
        >>> import fedsynth
        >>> fedsynth.fidelity("runs/first").scores["kid/filters"]  # doctest: +SKIP
    """
    return measure_fidelity(run, real, synthetic, out, export=export, progress=progress, **settings).result


def measure_utility(
    kind: "Kind",
    run: RunLike,
    real: SetLike,
    synthetic: SetLike,
    public: SetLike = None,
    placebo: SetLike = None,
    out: Path | str | None = None,
    *,
    export: bool = False,
    progress: Progress | None = None,
    **settings: Any,
) -> Measured:
    """Segmentation or classification, with the files that hold the result."""
    read, progress = config.read_table(SETTINGS[kind], as_given(settings)), progress or Progress()
    from fedsynth.evaluation.utility.arm_cache import ArmCache
    from fedsynth.evaluation.utility.benchmark import run_utility
    from fedsynth.experiments.downstream_learners import TaskLearner
    from fedsynth.experiments.federated_tasks import TaskFederation

    federation = TaskFederation(strategy=read.strategy, options=read.strategy_options)
    sets = sets_to_measure(run, real, synthetic, out=out, progress=progress)
    plan = _plan(kind, read, sets, _nobody(sets, public=public, placebo=placebo))
    kept = ArmCache(folder=None if sets.keeps is None else sets.keeps.folder.parent / KEPT)
    with progress.bar(f"{kind} with {read.network}") as bar:
        at = [0, 1]

        def on_arm(name: str, done: int, total: int) -> None:
            at[:] = [done, total]
            bar(done, total)

        def on_step(done: int, total: int) -> None:
            bar(int(at[0] * 100 + 100 * done / total), at[1] * 100)

        learner = TaskLearner(read.task, federation=federation, on_step=on_step)
        result = run_utility(sets.real, sets.synthetic, plan, learner, kept=kept, on_arm=on_arm)
    return sets.keep(result, export=export)


def _nobody(sets: Sets, **given: SetLike) -> dict[str, "ImageSet"]:
    """Images not derived from members, by arm: those given, or what the run drew beside its synthetic set."""
    from fedsynth.data import ImageSet
    from fedsynth.data.format import HEADER

    found: dict[str, ImageSet] = {}
    for name, images in given.items():
        own = None if sets.keeps is None else sets.keeps.folder / name
        chosen = own if images is None and own is not None and (own / HEADER).is_file() else images
        if chosen is not None:
            found[name] = ImageSet.load(Path(chosen)) if isinstance(chosen, Path | str) else chosen
    return found


def _plan(kind: "Kind", read: UtilitySettings, sets: Sets, nobody: dict[str, "ImageSet"]) -> "Plan":
    """What to train; a network or an arm that does not fit is refused before the first training."""
    from fedsynth.evaluation.utility.arm_trainings import Plan
    from fedsynth.evaluation.utility.benchmark import prepare
    from fedsynth.evaluation.utility.training_arms import parse_arms
    from fedsynth.models.downstream.tasks import NETWORKS, build_task
    from fedsynth.training.patient_batches import PatientBatches

    material, holdout = prepare(sets.real, sets.synthetic, kind, nobody=nobody)
    arms = parse_arms(
        read.arms, augmentation=read.augmentation, material=material, holdout=holdout, strategy=read.strategy
    )
    build_task(read.network, PatientBatches(sets.real).shape)
    if NETWORKS[read.network] != kind:
        raise ConfigError(f"the network {read.network!r} is for {NETWORKS[read.network]}, not for {kind}")
    return Plan(
        kind=kind,
        arms=arms,
        seeds=read.seeds,
        seed=read.seed,
        settings=config.as_table(read.task),
        federated={"strategy": read.strategy, "strategy-options": read.strategy_options},
        nobody=nobody,
    )


def measure_fidelity(
    run: RunLike,
    real: SetLike,
    synthetic: SetLike,
    out: Path | str | None = None,
    *,
    export: bool = False,
    progress: Progress | None = None,
    **settings: Any,
) -> Measured:
    """Fidelity, with the files that hold the result."""
    read, progress = config.read_table(FidelitySettings, as_given(settings)), progress or Progress()
    from fedsynth.evaluation.fidelity.benchmark import run_fidelity
    from fedsynth.experiments.downstream_learners import TaskLearner
    from fedsynth.training.settings import TaskSettings

    sets = sets_to_measure(run, real, synthetic, out=out, progress=progress)
    if sets.synthetic is None:
        raise ConfigError("fidelity needs a synthetic set", remedy="give --synthetic SET or a run")
    classifier = None
    if read.steps and len(set(sets.real.cases["class"]) - {""}) > 1:
        with progress.bar("a classifier for the Inception Score") as bar:
            task = TaskSettings(network=ClassificationSettings.network, steps=read.steps)
            members = sets.real.select(role="member")
            classifier = TaskLearner(task, on_step=bar).learn([members], seed=read.seed, augment=False).predict
    with progress.bar("measuring") as bar:
        result = run_fidelity(
            sets.real,
            sets.synthetic,
            seed=read.seed,
            classifier=classifier,
            on_space=lambda name, done, total: bar(done, total),
        )
    return sets.keep(result, export=export)
