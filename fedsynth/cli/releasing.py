"""`fedsynth release`: a synthetic set leaves, or the reasons why it does not."""

from pathlib import Path
from typing import Annotated

import typer


def release(
    run: Annotated[Path, typer.Argument(help="The finished and measured run.")],
    out: Annotated[Path, typer.Option(metavar="SET", help="Where the released set goes.")],
    criteria: Annotated[
        Path | None, typer.Option(metavar="FILE", help="What must hold; if not given, memorization and membership pass.")
    ] = None,
) -> None:
    """Copy a run's synthetic set out, with its card, when every criterion holds; else exit code 1 and the reasons."""
    from fedsynth import config, files
    from fedsynth.benchmark.leakage.evidence import synthetic_images_of
    from fedsynth.images.check import HEADER
    from fedsynth.report.facts import read_facts
    from fedsynth.report.release import Criteria, objections
    from fedsynth.report.release import release as copy_out

    asked = Criteria() if criteria is None else config.load_toml(Criteria, criteria)
    facts = read_facts(run)
    synthetic = synthetic_images_of(facts.run)
    files.refuse_existing(out, marker=HEADER)
    found = objections(facts, asked, synthetic)
    for reason in found:
        typer.echo(f"not released: {reason}", err=True)
    if found:
        raise typer.Exit(1)
    copy_out(facts, asked, synthetic, out)
    typer.echo(f"released   {out}: {len(synthetic)} images and their card")
