"""`fedsynth release`: a synthetic set leaves, or the reasons why it does not."""

from pathlib import Path
from typing import Annotated

import typer


def release(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The measured run, or the folder with a set's results.")],
    out: Annotated[Path, typer.Option(metavar="SET", help="Where the released set goes.")],
    criteria: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="What must hold; if not given, memorization and membership pass."),
    ] = None,
    synthetic: Annotated[
        Path | None, typer.Option(metavar="SET", help="With RESULTS: the set that they are of, whoever made it.")
    ] = None,
) -> None:
    """Copy a synthetic set out, with its card, when every criterion holds; else exit code 1 and the reasons."""
    from fedsynth.api.reporting import at_gate
    from fedsynth.reporting.answer import patients_added
    from fedsynth.reporting.release_gate import GATE_ANSWER
    from fedsynth.reporting.release_gate import release as copy_out

    gate = at_gate(run, out, criteria=criteria, synthetic=synthetic)
    for reason in gate.objections:
        typer.echo(f"not released: {reason}", err=True)
    for sentence in patients_added(gate.facts.results):
        typer.echo(f"note: {sentence}", err=True)
    if not gate.facts.public:
        typer.echo(f"note: {GATE_ANSWER}", err=True)
    if gate.objections:
        raise typer.Exit(1)
    copy_out(gate.facts, gate.criteria, gate.images, out)
    typer.echo(f"released   {out}: {len(gate.images)} images and their card")
