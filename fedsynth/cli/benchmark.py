"""`fedsynth benchmark ...`: what a synthetic set leaks. Exit code 0 pass, 1 leak, 2 bad input, 3 anything else."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedsynth.cli.benchmark_audit import audit
from fedsynth.cli.benchmark_membership import end_with_verdict, membership
from fedsynth.cli.benchmark_readers import readers
from fedsynth.cli.benchmark_utility import OutOption, classification, fidelity, segmentation
from fedsynth.cli.options import Given, takes_settings
from fedsynth.cli.screen import ScreenProgress, print_json, print_table
from fedsynth.config import read_table
from fedsynth.errors import ConfigError
from fedsynth.evaluation.settings import MemorizationSettings

if TYPE_CHECKING:
    from fedsynth.api.benchmark_sets import Measured
    from fedsynth.evaluation.memorization.benchmark import Memorization

PLANNED = 1000
"""Synthetic images that a plan is for unless told otherwise."""

benchmark = typer.Typer(no_args_is_help=True, help="Measure what a synthetic set leaks and what it is good for.")


@benchmark.command()
@takes_settings(MemorizationSettings)
def memorization(
    given: Given,
    run: Annotated[Path | None, typer.Argument(help="The run; the newest if no sets are given.")] = None,
    real: Annotated[Path | None, typer.Option(metavar="SET", help="Real set with roles, instead of the run's.")] = None,
    synthetic: Annotated[
        str | None, typer.Option(metavar="SET", help="Synthetic set, whoever made it. With --plan: how many images.")
    ] = None,
    out: OutOption = None,
    export: Annotated[
        bool, typer.Option("--export", help="Leave out what shows or names a patient: no sheets, names hashed.")
    ] = False,
    plan: Annotated[bool, typer.Option("--plan", help="Only say what such numbers could resolve.")] = False,
    patients: Annotated[int, typer.Option(help="With --plan: real patients.")] = 200,
    slices: Annotated[int, typer.Option(help="With --plan: images of each.")] = 5,
    sites: Annotated[int, typer.Option(help="With --plan: hospitals.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Does a synthetic set depend on who was trained on, does it copy them, whom, and what would have been noticed?

    Exit code 0: pass. 1: leak. 2: bad input. 3: depends, inconclusive or invalid. docs/leakage.md tells every field.
    """
    if plan:
        tolerance = read_table(MemorizationSettings, given).tolerance
        _plan(patients, slices, _number(synthetic), sites, tolerance, as_json)
        return
    from fedsynth.api.leakage import measure_memorization

    measured = measure_memorization(run, real, synthetic, out, export=export, progress=ScreenProgress(), **given)
    end_with_verdict(measured, _print, as_json=as_json)


def _number(text: str | None) -> int:
    if text is None:
        return PLANNED
    if not text.isdecimal():
        raise ConfigError("with --plan, --synthetic is a number of images", value=text)
    return int(text)


def _plan(patients: int, slices: int, synthetic: int, sites: int, tolerance: float, as_json: bool) -> None:
    from fedsynth.evaluation.memorization.dependence import LEVEL
    from fedsynth.evaluation.memorization.power_analysis import plan

    made = plan(patients=patients, slices=slices, synthetic=synthetic, sites=sites, tolerance=tolerance, alpha=LEVEL)
    if as_json:
        print_json(made.as_json())
    else:
        typer.echo(str(made))


def _print(measured: "Measured") -> None:
    found: Memorization = measured.found
    from fedsynth.evaluation.memorization.result import notes_of

    evidence, people = found.evidence, found.evidence.cohort
    typer.echo(
        f"real       {len(evidence.real)} images: {people.n_members} members and {people.n_holdout} holdout patients "
        f"at {len(people.sites)} {'site' if len(people.sites) == 1 else 'sites'}"
    )
    typer.echo(f"synthetic  {len(evidence.synthetic)} images")
    for note in notes_of(found):
        typer.echo(f"note       {note}")
    typer.echo("")
    _print_tests(found)
    _print_power(found)
    _print_controls(found)
    _print_comparators(found)
    typer.echo(f"verdict    {found.verdict.verdict.upper()}")
    for sentence in found.verdict.sentences:
        typer.echo(f"           {sentence}")
    typer.echo("")


def _print_tests(found: "Memorization") -> None:
    people, copies = found.evidence.cohort, found.copies
    p = found.dependence.p_value
    rows = []
    for number, site in enumerate(people.sites):
        here = people.site == number
        own = found.dependence.per_site.get(site)
        rows.append(
            [
                site or "(one site)",
                int((here & people.member).sum()),
                int((here & ~people.member).sum()),
                "" if own is None else f"{own:.3f}",
                copies.of(here & people.member),
                copies.of(here & ~people.member),
                len(found.flagged.by_site[site]),
            ]
        )
    total = ["all", people.n_members, people.n_holdout, "" if p is None else f"{p:.3f}"]
    total += [copies.of(people.member), copies.of(~people.member), sum(map(len, found.flagged.by_site.values()))]
    heads = ["site", "members", "holdout", "dependence p", "copies of members", "of holdout", "patients flagged"]
    print_table(heads, [*rows, total])
    high = "" if found.share.high is None else f", up to {100 * found.share.high:.2g} %"
    typer.echo(f"copied share {100 * (found.share.value or 0):.2g} %{high} (95 %), copies that are not seen included\n")


def _print_power(found: "Memorization") -> None:
    n = len(found.evidence.synthetic)
    rows = []
    for kind, power in found.powers.items():
        smallest = power.smallest_share(n)
        best = sorted(power.by_space, key=lambda name: -power.by_space[name])[:3]
        shown = ", ".join(f"{name} {power.by_space[name] / power.inserted:.2f}" for name in best)
        rows.append([kind, f"{power.share:.2f}", "none" if smallest is None else f"{100 * smallest:.2g} %", shown])
    print_table(["positive controls found", "share", "smallest share found", "best in"], rows)
    typer.echo("")


def _print_controls(found: "Memorization") -> None:
    from fedsynth.evaluation.memorization.negative_controls import BLIND_LEVEL

    rows: list[list[object]] = [
        [name, f"{control.fired} of {control.runs}", control.allowed, "holds" if control.holds else "BROKEN"]
        for name, control in found.controls.items()
    ]
    blind = found.blind
    rows.append(
        ["members told from holdout", f"AUC {blind.auc:.2f}", "", "BROKEN" if blind.rejects(BLIND_LEVEL) else "holds"]
    )
    print_table(["negative control: must not reject", "rejected", "allowed", ""], rows)
    typer.echo("")


def _print_comparators(found: "Memorization") -> None:
    rows = [
        [name, space, str(score), "" if score.control is None else f"{score.control:.3g}"]
        for space, of in found.comparators.items()
        for name, score in of.items()
    ]
    if rows:
        print_table(["known elsewhere, decides nothing", "space", "value", "an honest set"], rows)
        typer.echo("")


benchmark.command()(membership)
benchmark.command()(audit)
benchmark.command()(segmentation)
benchmark.command()(classification)
benchmark.command()(fidelity)
benchmark.command()(readers)
