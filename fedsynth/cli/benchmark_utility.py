"""`fedsynth benchmark segmentation | classification | fidelity`: what a synthetic set is still good for."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedsynth.cli.screen import print_json, print_table, progress_bar
from fedsynth.errors import ConfigError

if TYPE_CHECKING:
    from fedsynth.data import ImageSet
    from fedsynth.evaluation.score import Result, Score
    from fedsynth.evaluation.utility.arm_trainings import Kind
    from fedsynth.runs import Run
    from fedsynth.training.downstream import TaskSettings

ARMS = "real,synthetic,real+synthetic"
KEPT = Path("cache", "arms")
"""Beside the run: the arms that its neighbours share."""

RunArgument = Annotated[Path | None, typer.Argument(help="The run; the newest if no sets are given.")]
RealOption = Annotated[Path | None, typer.Option(metavar="SET", help="Real set with roles, instead of the run's.")]
SyntheticOption = Annotated[Path | None, typer.Option(metavar="SET", help="Synthetic set, whoever made it.")]
ArmsOption = Annotated[
    str,
    typer.Option(help="real, real-local, real-federated, synthetic, real+synthetic, synthetic-then-10%-real."),
]
AugmentationOption = Annotated[str, typer.Option(help="Classical augmentation in training: none, classical or both.")]
SeedsOption = Annotated[int, typer.Option(min=1, help="Trainings of each arm; three are needed to claim a difference.")]
StepsOption = Annotated[
    int, typer.Option(help="The most steps; training ends before when reference patients show no more gain.")
]
PublicOption = Annotated[
    Path | None, typer.Option(metavar="SET", help="Images of nobody in the real set: what do they teach already?")
]
SeedOption = Annotated[int, typer.Option(min=0, help="The first seed.")]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
OutOption = Annotated[Path | None, typer.Option(metavar="FILE", help="Write the result here too.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def segmentation(
    run: RunArgument = None,
    real: RealOption = None,
    synthetic: SyntheticOption = None,
    arms: ArmsOption = ARMS,
    network: Annotated[str, typer.Option(help="unet or swin.")] = "unet",
    public: PublicOption = None,
    augmentation: AugmentationOption = "classical",
    seeds: SeedsOption = 3,
    steps: StepsOption = 800,
    batch: Annotated[int, typer.Option(help="Images per step.")] = 16,
    rate: Annotated[float, typer.Option(help="Learning rate.")] = 2e-3,
    seed: SeedOption = 0,
    device: DeviceOption = "auto",
    out: OutOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train a segmentation network on each arm and score it on real holdout patients, beside control arms."""
    from fedsynth.training.downstream import TaskSettings

    settings = TaskSettings(network=network, steps=steps, batch=batch, rate=rate, device=_device(device))
    sets = (run, real, synthetic, public)
    _utility("segmentation", sets, arms, augmentation, seeds, seed, settings, out, as_json=as_json)


def classification(
    run: RunArgument = None,
    real: RealOption = None,
    synthetic: SyntheticOption = None,
    arms: ArmsOption = ARMS,
    network: Annotated[str, typer.Option(help="densenet or vit.")] = "densenet",
    public: PublicOption = None,
    augmentation: AugmentationOption = "classical",
    seeds: SeedsOption = 3,
    steps: StepsOption = 800,
    batch: Annotated[int, typer.Option(help="Images per step.")] = 16,
    rate: Annotated[float, typer.Option(help="Learning rate.")] = 2e-3,
    seed: SeedOption = 0,
    device: DeviceOption = "auto",
    out: OutOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train a classifier on each arm and score it on real holdout patients, beside the majority class."""
    from fedsynth.training.downstream import TaskSettings

    settings = TaskSettings(network=network, steps=steps, batch=batch, rate=rate, device=_device(device))
    sets = (run, real, synthetic, public)
    _utility("classification", sets, arms, augmentation, seeds, seed, settings, out, as_json=as_json)


def fidelity(
    run: RunArgument = None,
    real: RealOption = None,
    synthetic: SyntheticOption = None,
    steps: Annotated[int, typer.Option(help="Steps of the classifier behind the Inception Score; 0: none.")] = 400,
    seed: SeedOption = 0,
    out: OutOption = None,
    as_json: JsonOption = False,
) -> None:
    """How near synthetic images come to real ones and how varied they are, each beside real against real."""
    from fedsynth.evaluation.fidelity.benchmark import run_fidelity
    from fedsynth.experiments.downstream_learners import TaskLearner
    from fedsynth.training.downstream import TaskSettings

    place, images, made = open_sets(run, real, synthetic, out)
    if made is None:
        raise ConfigError("fidelity needs a synthetic set", remedy="give --synthetic SET or a run")
    classifier = None
    if steps and len(set(images.cases["class"]) - {""}) > 1:
        with progress_bar("a classifier for the Inception Score") as bar:
            learner = TaskLearner(TaskSettings(network="densenet", steps=steps), on_step=bar)
            classifier = learner.learn([images.select(role="member")], seed=seed, augment=False).predict
    with progress_bar("measuring") as bar:
        result = run_fidelity(
            images, made, seed=seed, classifier=classifier, on_space=lambda name, done, total: bar(done, total)
        )
    _publish(result, place, out, as_json=as_json)


def _utility(
    kind: "Kind",
    sets: tuple[Path | None, Path | None, Path | None, Path | None],
    arms: str,
    augmentation: str,
    seeds: int,
    seed: int,
    settings: "TaskSettings",
    out: Path | None,
    *,
    as_json: bool,
) -> None:
    from fedsynth.config import as_table
    from fedsynth.data import ImageSet
    from fedsynth.evaluation.utility.arm_cache import ArmCache
    from fedsynth.evaluation.utility.arm_trainings import Plan
    from fedsynth.evaluation.utility.benchmark import prepare, run_utility
    from fedsynth.evaluation.utility.training_arms import parse_arms
    from fedsynth.experiments.downstream_learners import TaskLearner
    from fedsynth.models.downstream.tasks import NETWORKS, build_task
    from fedsynth.training.patient_batches import PatientBatches

    place, real, synthetic = open_sets(*sets[:3], out)
    public = None if sets[3] is None else ImageSet.load(sets[3])
    material, _ = prepare(real, synthetic, kind, public=public)
    chosen = parse_arms(arms, augmentation=augmentation, material=material)
    build_task(settings.network, PatientBatches(real).shape)
    if NETWORKS[settings.network] != kind:
        raise ConfigError(f"the network {settings.network!r} is for {NETWORKS[settings.network]}, not for {kind}")
    plan = Plan(kind=kind, arms=chosen, seeds=seeds, seed=seed, settings=as_table(settings), public=public)
    kept = ArmCache(folder=None if place is None else place.folder.parent / KEPT)
    with progress_bar(f"{kind} with {settings.network}") as bar:
        at = [0, 1]

        def on_arm(name: str, done: int, total: int) -> None:
            at[:] = [done, total]
            bar(done, total)

        def on_step(done: int, total: int) -> None:
            bar(int(at[0] * 100 + 100 * done / total), at[1] * 100)

        result = run_utility(real, synthetic, plan, TaskLearner(settings, on_step=on_step), kept=kept, on_arm=on_arm)
    _publish(result, place, out, as_json=as_json)


def open_sets(
    run: Path | None, real: Path | None, synthetic: Path | None, out: Path | None = None
) -> tuple["Run | None", "ImageSet", "ImageSet | None"]:
    """The sets of a run, of the newest when nothing is given, or the given ones; a real set alone will do.

    The run comes back where it keeps the result: of other sets than its own that goes to `out` alone.
    """
    from fedsynth.data import ImageSet
    from fedsynth.evaluation.evidence import real_images_of, synthetic_images_of
    from fedsynth.evaluation.result_owner import keeper
    from fedsynth.runs import newest_run, open_run

    if run is None and real is not None:
        return None, ImageSet.load(real), None if synthetic is None else ImageSet.load(synthetic)
    if run is None and synthetic is not None:
        raise ConfigError("one of two sets is missing: --real", remedy="give both, or a run")
    place = newest_run() if run is None else open_run(run)
    if run is None:
        typer.echo(f"the newest run: {place.folder}", err=True)
    keeps = keeper(place, real=real, synthetic=synthetic, out=out, option="--out")
    images = ImageSet.load(real) if real is not None else real_images_of(place)
    return keeps, images, ImageSet.load(synthetic) if synthetic is not None else synthetic_images_of(place)


def _device(name: str) -> Any:
    if name not in ("auto", "cpu", "cuda"):
        raise ConfigError("--device has an unknown value", value=name, remedy="auto, cpu or cuda")
    return name


def _publish(result: "Result", place: "Run | None", out: Path | None, *, as_json: bool) -> None:
    written = [path for path in (out, None if place is None else place.benchmark(result.benchmark)) if path is not None]
    for path in written:
        result.save(path)
    if as_json:
        print_json(result.as_json())
        return
    _print_by_arm(result) if result.benchmark != "fidelity" else _print_fidelity(result)
    for path in written:
        typer.echo(f"result     {path}")


HEADS = {
    "dice": "Dice, ill",
    "fp_area": "FP pixels",
    "dice_mean": "mean of labels",
    "brats_slice_dice": "slice Dice",
    "dice_ratio": "ratio",
    "dice_skill": "skill",
    "accuracy_ratio": "ratio",
    "accuracy_skill": "skill",
}
"""What the leading columns are called; others by their own names."""


def _print_by_arm(result: "Result") -> None:
    from fedsynth.evaluation.utility.arm_trainings import WAYS

    arms = list(dict.fromkeys(name.split("/", 1)[1] for name in result.scores))
    way = WAYS[result.benchmark]  # type: ignore[index]
    main = way.COMPARED[0]
    lead = [*way.LEAD, f"{main}_ratio", f"{main}_skill"]
    rest = [name for name in dict.fromkeys(name.split("/")[0] for name in result.scores) if name not in lead]
    for names in (lead, [name for name in rest if not name.endswith("_over_public")]):
        rows = [[arm, *(_cell(result.scores.get(f"{name}/{arm}")) for name in names)] for arm in arms]
        print_table(["trained on", *(HEADS.get(name, name) for name in names)], rows)
        typer.echo("")
    typer.echo(f"scored on {result.inputs['real'].roles.get('holdout', 0)} real holdout patients; 95 % intervals")
    typer.echo(f"intervals are {result.details['intervals']}")
    typer.echo("ratio: to training on real images; skill: 0 is the best control, 1 is real")
    for arm, said in result.details["over_public"].items():
        typer.echo(f"{arm}, {HEADS.get(main, main)}: {said}")
    _print_trainings(result)
    if why := result.details.get("why_no_tests"):
        typer.echo(f"no difference is claimed: {why}")
    for arm, found in result.details.get("paired", {}).items():
        typer.echo(f"{arm} against real: p {found['p_holm']:.3g} (over patients and trainings, Holm)")


def _print_trainings(result: "Result") -> None:
    """Which trainings collapsed, and what could not be done for lack of reference patients."""
    for arm, found in result.details.get("trainings", {}).items():
        if found["repeated"]:
            again = f", {found['collapsed']} of them in vain" if found["collapsed"] else ""
            typer.echo(f"collapsed: {arm}: {found['repeated']} training(s) repeated from another start{again}")
    for key in ("why_no_early_stop", "why_no_controls"):
        if why := result.details.get(key):
            typer.echo(why)


def _print_fidelity(result: "Result") -> None:
    rows = [
        [name, str(score), "" if score.control is None else f"{score.control:.3g}"]
        for name, score in result.scores.items()
    ]
    print_table(["measure", "synthetic", "real against real"], rows)
    typer.echo(f"\n{result.settings['images']} images of each; nearness to real images says nothing about privacy")


def _cell(score: "Score | None") -> str:
    return "" if score is None else str(score) if score.value is not None else "-"
