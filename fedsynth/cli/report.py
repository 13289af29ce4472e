"""`fedsynth report`: one page that answers the question."""

from pathlib import Path
from typing import Annotated

import typer


def report(
    runs: Annotated[
        list[Path] | None,
        typer.Argument(metavar="RUN...", help="Finished runs or suites; the newest run if none."),
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="The page; report.html in the first folder.")] = None,
    export: Annotated[
        bool, typer.Option("--export", help="A page that may leave the site: nothing in it shows a patient.")
    ] = False,
) -> None:
    """Write one self-contained HTML page: the answer, the table, figures, pictures, and how to repeat it."""
    from fedsynth.api.reporting import report as write_report

    typer.echo(f"report     {write_report(*(runs or []), out=out, export=export)}")
