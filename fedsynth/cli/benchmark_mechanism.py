"""`fedsynth benchmark audit --mechanism`: what the audit of a mechanism shows on the screen and leaves on disk."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import typer

from fedsynth.cli.screen import print_json, print_table

if TYPE_CHECKING:
    from fedsynth.experiments.mechanism_audit import MechanismAudit
    from fedsynth.privacy.plan import PrivatePlan


def audit_plans(
    plans: "Sequence[PrivatePlan]", canaries: int | None, claim: float | None, place: Path | None, *, as_json: bool
) -> NoReturn:
    """Audit every plan, show what was found, keep it below `place`, and exit with the verdict's code."""
    from fedsynth.experiments.canary_audit import exit_code
    from fedsynth.experiments.mechanism_audit import CANARIES, NAME, as_result, audit_mechanism
    from fedsynth.experiments.release_audit import audit_release
    from fedsynth.runs import Run

    found, wanted = [], CANARIES if canaries is None else canaries
    for plan in plans:
        typer.echo(f"running {plan.steps} steps of a mechanism of epsilon {plan.claim.epsilon:.2f} ...", err=True)
        audit = audit_release if plan.release else audit_mechanism
        found.append(audit(plan, canaries=wanted, claim=claim, comparisons=len(plans)))
    result = as_result(found)
    if place is not None:
        result.save(Run(folder=place).benchmark(NAME))
    if as_json:
        print_json(result.as_json())
    else:
        _print(found)
        if place is not None:
            typer.echo(f"result     {Run(folder=place).benchmark(NAME)}")
    assert result.verdict is not None
    raise typer.Exit(exit_code(result.verdict))


def _print(found: "Sequence[MechanismAudit]") -> None:
    typer.echo(
        "reach      the mechanism's own code with the run's numbers, on canary gradients; not whether a training takes "
        "every patient through it"
    )
    columns = ["claimed", "noise", "rate", "steps", "canaries", "proven", "honest", "one-run", "seconds"]
    rows = []
    for one in found:
        plan, bounds = one.plan, (one.proven, one.expected, one.one_run)
        declared = [f"{one.claim:.2f}", f"{plan.noise:g}", f"{plan.settings.rate:g}", plan.steps, one.canaries]
        rows.append([*declared, *(f"{bound:.2f}" for bound in bounds), f"{one.seconds:.0f}"])
    print_table(columns, rows)
    typer.echo("proven     the least epsilon spent if steps are subsampled Gaussian ones; one-run: whatever they are")
    typer.echo("honest     what so many canaries can be expected to prove of a mechanism that spends just the claim")
    typer.echo(f"checked    {', '.join(one.name for one in found[0].checks)}; 5 % error in all")
    for one in found:
        typer.echo(f"verdict    {one.verdict.upper()} of {one.claim:.2f}")
        for sentence in one.contradictions:
            typer.echo(f"           {sentence}")
