"""`fedsynth release`: a synthetic set leaves, or the reasons why it does not."""

from pathlib import Path
from typing import Annotated

import typer

from fedsynth.errors import ConfigError


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
    from fedsynth import atomic_files, config
    from fedsynth.data import ImageSet
    from fedsynth.data.format import HEADER
    from fedsynth.evaluation.evidence import synthetic_images_of
    from fedsynth.reporting.release_gate import GATE_ANSWER, Criteria, objections
    from fedsynth.reporting.release_gate import release as copy_out
    from fedsynth.reporting.summary import read_facts

    asked = Criteria() if criteria is None else config.load_toml(Criteria, criteria)
    facts = read_facts(run)
    if synthetic is None and not facts.run.config.is_file():
        raise ConfigError("the folder has results and no run: whose are they?", file=run, remedy="give --synthetic SET")
    images = ImageSet.load(synthetic) if synthetic is not None else synthetic_images_of(facts.run)
    atomic_files.refuse_existing(out, marker=HEADER)
    found = objections(facts, asked, images)
    for reason in found:
        typer.echo(f"not released: {reason}", err=True)
    if not facts.public:
        typer.echo(f"note: {GATE_ANSWER}", err=True)
    if found:
        raise typer.Exit(1)
    copy_out(facts, asked, images, out)
    typer.echo(f"released   {out}: {len(images)} images and their card")
