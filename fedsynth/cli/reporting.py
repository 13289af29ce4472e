"""`fedsynth report`: one page that answers the question."""

from pathlib import Path
from typing import Annotated

import typer


def report(
    runs: Annotated[
        list[Path] | None, typer.Argument(metavar="RUN...", help="Finished runs; the newest if none.")
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="The page; report.html in the first run.")] = None,
    export: Annotated[
        bool, typer.Option("--export", help="A page that may leave the site: nothing in it shows a patient.")
    ] = False,
) -> None:
    """Write one self-contained HTML page: the answer, the table, figures, pictures, and how to repeat it."""
    from fedsynth import files
    from fedsynth.report.facts import read_facts
    from fedsynth.report.page import report_page
    from fedsynth.run import newest_run

    rows = [read_facts(folder) for folder in runs or [newest_run().folder]]
    target = out if out is not None else rows[0].run.folder / ("report-export.html" if export else "report.html")
    files.write_text(target, report_page(rows, export=export))
    typer.echo(f"report     {target}")
