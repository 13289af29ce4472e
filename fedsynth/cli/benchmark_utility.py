"""`fedsynth benchmark segmentation | classification | fidelity`: what a synthetic set is still good for."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedsynth.cli.options import Given, takes_settings
from fedsynth.cli.screen import ScreenProgress, print_json, print_table
from fedsynth.evaluation.settings import ClassificationSettings, FidelitySettings, SegmentationSettings

if TYPE_CHECKING:
    from fedsynth.api.benchmark_sets import Measured
    from fedsynth.evaluation.score import Result, Score

RunArgument = Annotated[Path | None, typer.Argument(help="The run; the newest if no sets are given.")]
RealOption = Annotated[Path | None, typer.Option(metavar="SET", help="Real set with roles, instead of the run's.")]
SyntheticOption = Annotated[Path | None, typer.Option(metavar="SET", help="Synthetic set, whoever made it.")]
PublicOption = Annotated[
    Path | None,
    typer.Option(metavar="SET", help="Public images that show none of the real patients; the run's own if any."),
]
PlaceboOption = Annotated[
    Path | None,
    typer.Option(metavar="SET", help="Of a simulator fitted to a random direction; the run's own if any."),
]
OutOption = Annotated[
    Path | None,
    typer.Option(
        metavar="PLACE", help="A folder or .json file for the result too. Default without a run: beside SYNTHETIC."
    ),
]
ExportOption = Annotated[bool, typer.Option("--export", help="Leave out what names a patient or a place on a disk.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


@takes_settings(SegmentationSettings)
def segmentation(
    given: Given,
    run: RunArgument = None,
    real: RealOption = None,
    synthetic: SyntheticOption = None,
    public: PublicOption = None,
    placebo: PlaceboOption = None,
    out: OutOption = None,
    export: ExportOption = False,
    as_json: JsonOption = False,
) -> None:
    """Train a segmentation network on each arm and score it on real holdout patients, beside control arms."""
    from fedsynth.api.utility import measure_utility

    sets = (real, synthetic, public, placebo)
    _show(
        measure_utility("segmentation", run, *sets, out, export=export, progress=ScreenProgress(), **given),
        as_json=as_json,
    )


@takes_settings(ClassificationSettings)
def classification(
    given: Given,
    run: RunArgument = None,
    real: RealOption = None,
    synthetic: SyntheticOption = None,
    public: PublicOption = None,
    placebo: PlaceboOption = None,
    out: OutOption = None,
    export: ExportOption = False,
    as_json: JsonOption = False,
) -> None:
    """Train a classifier on each arm and score it on real holdout patients, beside the majority class."""
    from fedsynth.api.utility import measure_utility

    sets = (real, synthetic, public, placebo)
    _show(
        measure_utility("classification", run, *sets, out, export=export, progress=ScreenProgress(), **given),
        as_json=as_json,
    )


@takes_settings(FidelitySettings)
def fidelity(
    given: Given,
    run: RunArgument = None,
    real: RealOption = None,
    synthetic: SyntheticOption = None,
    out: OutOption = None,
    export: ExportOption = False,
    as_json: JsonOption = False,
) -> None:
    """How near synthetic images come to real ones and how varied they are, each beside real against real."""
    from fedsynth.api.utility import measure_fidelity

    _show(
        measure_fidelity(run, real, synthetic, out, export=export, progress=ScreenProgress(), **given), as_json=as_json
    )


def _show(measured: "Measured", *, as_json: bool) -> None:
    result = measured.result
    if as_json:
        print_json(result.as_json())
        return
    _print_by_arm(result) if result.benchmark != "fidelity" else _print_fidelity(result)
    say_where(measured)


def say_where(measured: "Measured") -> None:
    """The files of a result, and the page that tells all results of the same place."""
    for path in measured.pictures:
        typer.echo(f"look at    {path}")
    for path in measured.written:
        typer.echo(f"result     {path}")
    if measured.written:
        folder = measured.written[0].parent
        typer.echo(f"next       fedsynth report {folder.parent if folder.name == 'benchmarks' else folder}")


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
    for names in (lead, [name for name in rest if "_over_" not in name]):
        rows = [[arm, *(_cell(result.scores.get(f"{name}/{arm}")) for name in names)] for arm in arms]
        print_table(["trained on", *(HEADS.get(name, name) for name in names)], rows)
        typer.echo("")
    _print_by_site(result, arms, main)
    typer.echo(f"scored on {result.inputs['real'].roles.get('holdout', 0)} real holdout patients; 95 % intervals")
    typer.echo(f"intervals are {result.details['intervals']}")
    typer.echo("ratio: to training on real images; skill: 0 is the best control, 1 is real")
    for name in ("public", "placebo"):
        for arm, said in result.details[f"over_{name}"].items():
            typer.echo(f"{arm}, {HEADS.get(main, main)}, beside {name}: {said}")
    _print_trainings(result)
    if why := result.details.get("why_no_tests"):
        typer.echo(f"no difference is claimed: {why}")
    for arm, found in result.details.get("paired", {}).items():
        typer.echo(f"{arm} against real: p {found['p_holm']:.3g} (over patients and trainings, Holm)")


def _print_by_site(result: "Result", arms: Sequence[str], main: str) -> None:
    """Every arm on the holdout patients of each site, where there are several."""
    if len(result.per_site) < 2:
        return
    rows = [
        [site, arm, _cell(of[f"{main}/{arm}"]), str(of[f"{main}/{arm}"].n), _cell(of.get(f"{main}_ratio/{arm}"))]
        for site, of in result.per_site.items()
        for arm in arms
    ]
    print_table(["site", "trained on", HEADS.get(main, main), "patients", "ratio"], rows)
    typer.echo("networks of one site alone are scored on that site's own patients, above too\n")


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
