"""`fedsynth benchmark membership`: can members be told from patients who were never seen, by what was released?"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedsynth.cli.screen import print_json, print_table, progress_bar

if TYPE_CHECKING:
    from fedsynth.evaluation.membership.benchmark import Attacked, Scoring
    from fedsynth.evaluation.score import Result
    from fedsynth.runs import Run

STEPS = 5


def membership(
    run: Annotated[Path | None, typer.Argument(help="The run; the newest if no sets are given.")] = None,
    real: Annotated[Path | None, typer.Option(metavar="SET", help="Real set with roles, instead of the run's.")] = None,
    synthetic: Annotated[Path | None, typer.Option(metavar="SET", help="Synthetic set, whoever made it.")] = None,
    reference: Annotated[
        Path | None,
        typer.Option(metavar="SET", help="Synthetic set of a generator fitted on the reference patients only."),
    ] = None,
    spaces: Annotated[str, typer.Option(help="Feature spaces, as in pixels,encoder.")] = "pixels,components,encoder",
    seed: Annotated[int, typer.Option(min=0, help="One seed gives one result.")] = 0,
    report: Annotated[Path | None, typer.Option(metavar="DIR", help="Write the result and its ROC here.")] = None,
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
    from fedsynth.data import ImageSet
    from fedsynth.evaluation.evidence import open_evidence
    from fedsynth.evaluation.membership.benchmark import Settings, as_result, run_membership
    from fedsynth.evaluation.result_owner import keeper

    evidence = open_evidence(run, real, synthetic)
    keeps = keeper(evidence.run, real=real, synthetic=synthetic, out=report, option="--report")
    if run is None and evidence.run is not None:
        typer.echo(f"the newest run: {evidence.run.folder}", err=True)
    chosen = tuple(name.strip() for name in spaces.split(",") if name.strip())
    calibrating = None if reference is None else ImageSet.load(reference)
    done = 0
    with progress_bar("attacking") as bar:

        def step(text: str) -> None:
            nonlocal done
            done += 1
            bar(done, max(done, STEPS))

        found = run_membership(
            evidence,
            Settings(spaces=chosen, seed=seed),
            discriminator=_membership_scorer(evidence.run, own=real is None and synthetic is None),
            reference=calibrating,
            step=step,
        )
    _publish(found, as_result(found), keeps, report, export=export, as_json=as_json)


def _membership_scorer(run: "Run | None", *, own: bool) -> "Scoring | None":
    """What the run's networks think of an image, where the run's own sets are looked at."""
    if run is None or not own:
        return None
    from fedsynth.training.membership_scores import membership_scorer

    return membership_scorer(run)


def _publish(
    found: "Attacked", result: "Result", run: "Run | None", report: Path | None, *, export: bool, as_json: bool
) -> None:
    """The run keeps the whole result; `export` is for what is printed and for the report."""
    from fedsynth.evaluation.anonymous_result import withhold
    from fedsynth.evaluation.membership.benchmark import NAME
    from fedsynth.evaluation.memorization.verdict import exit_code

    shown = withhold(result) if export else result
    written = []
    if run is not None:
        written.append(run.benchmark(NAME))
        result.save(written[-1])
    if report is not None:
        written.append(report / f"{NAME}.json")
        shown.save(written[-1])
    picture = None if not written else written[-1].with_name("membership-roc.png")
    if picture is not None:
        _draw(found, picture)
        written.append(picture)
    if as_json:
        print_json(shown.as_json())
    else:
        _print(found, result)
        for path in written:
            typer.echo(f"written    {path}")
    raise typer.Exit(exit_code(found.told.verdict))


def _draw(found: "Attacked", path: Path) -> None:
    from fedsynth.atomic_files import write_bytes
    from fedsynth.evaluation.roc import RESOLVED_BY, roc
    from fedsynth.reporting import figures

    people = found.found.cohort
    rocs = {attack.label: roc(attack.scores, people.member) for attack in found.found.attacks}
    picture = figures.roc(
        {label: (one.false_positive, one.true_positive) for label, one in rocs.items()},
        n_members=people.n_members,
        n_holdout=people.n_holdout,
        resolved=RESOLVED_BY / people.n_holdout,
        title=f"Membership inference: {people.n_members} members, {people.n_holdout} holdout patients",
    )
    write_bytes(path, picture)


def _print(found: "Attacked", result: "Result") -> None:
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
