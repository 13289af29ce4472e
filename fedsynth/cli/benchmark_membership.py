"""`fedsynth benchmark membership`: can members be told from patients who were never seen, by what was released?"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from fedsynth.cli.benchmark_utility import OutOption, say_where
from fedsynth.cli.options import Given, takes_settings
from fedsynth.cli.screen import ScreenProgress, print_json, print_table
from fedsynth.evaluation.settings import MembershipSettings

if TYPE_CHECKING:
    from fedsynth.api.benchmark_sets import Measured
    from fedsynth.evaluation.membership.benchmark import Attacked
    from fedsynth.evaluation.score import Result


@takes_settings(MembershipSettings)
def membership(
    given: Given,
    run: Annotated[Path | None, typer.Argument(help="The run; the newest if no sets are given.")] = None,
    real: Annotated[Path | None, typer.Option(metavar="SET", help="Real set with roles, instead of the run's.")] = None,
    synthetic: Annotated[Path | None, typer.Option(metavar="SET", help="Synthetic set, whoever made it.")] = None,
    reference: Annotated[
        Path | None,
        typer.Option(metavar="SET", help="Synthetic set of a generator fitted on the reference patients only."),
    ] = None,
    out: OutOption = None,
    export: Annotated[
        bool, typer.Option("--export", help="Leave out what names a patient or a place on a disk.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Attack every patient: does anything released tell members from the holdout beyond what controls do?

    A run's own networks are an attack too: whoever receives them, a federation's server above all, can score patients
    with them. Exit code 0: no attack succeeds. 1: members can be distinguished. 2: bad input. 3: inconclusive or
    invalid.
    """
    from fedsynth.api.leakage import measure_membership

    sets = (real, synthetic, reference)
    measured = measure_membership(run, *sets, out, export=export, progress=ScreenProgress(), **given)
    end_with_verdict(measured, _print, as_json=as_json)


def end_with_verdict(measured: "Measured", show: "Callable[[Measured], None]", *, as_json: bool) -> NoReturn:
    """Print a leakage result, say where it was written, and end with its exit code."""
    from fedsynth.evaluation.memorization.verdict import exit_code

    if as_json:
        print_json(measured.result.as_json())
    else:
        show(measured)
        say_where(measured)
    raise typer.Exit(exit_code(str(measured.result.verdict)))


def _print(measured: "Measured") -> None:
    found: Attacked = measured.found
    result = measured.result
    people = found.found.cohort
    typer.echo(f"real       {people.n_members} members and {people.n_holdout} holdout patients")
    typer.echo(f"synthetic  {len(found.evidence.synthetic)} images")
    for note in found.evidence.notes:
        typer.echo(f"note       {note}")
    typer.echo("\nAUC: how often a member scores above a holdout patient (0.5 is guessing), with 95 % interval")
    rows = []
    for attack in found.found.attacks:
        score = result.scores[attack.label]
        control = "" if score.control is None else f"{score.control:.2f}"
        among = f"{attack.among_members.mean():.2f}" if len(attack.among_members) else ""
        rows.append([attack.label, str(score), f"{attack.p_value:.3f}", control, among])
    print_table(["attack", "AUC", "p alone", "honest set", "among members"], rows)
    blind = found.found.blind
    typer.echo(f"\nblind      members and holdout without any release: AUC {blind.auc:.2f}, p = {blind.p_value:.2g}")
    _print_rates(found, result)
    _print_sites(result)
    typer.echo(f"\nverdict    {found.told.verdict.upper()}")
    typer.echo(f"           {found.told.words}\n")


def _print_rates(found: "Attacked", result: "Result") -> None:
    """What the strongest attack recognises at few false positives."""
    label = str(result.details["strongest"])
    typer.echo(f"\nMembers recognised by {label}")
    for name, score in result.scores.items():
        if name.startswith(f"{label}, "):
            typer.echo(f"           {name.removeprefix(f'{label}, ')}: {score}")


def _print_sites(result: "Result") -> None:
    label = str(result.details["strongest"])
    if result.per_site:
        typer.echo("")
        print_table(["site", f"AUC of {label}"], [[site, str(of[label])] for site, of in result.per_site.items()])
