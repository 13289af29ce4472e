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
    from fedsynth import atomic_files
    from fedsynth.experiments.suite import SUITE
    from fedsynth.experiments.suite_config import load_suite
    from fedsynth.reporting.html_page import report_page
    from fedsynth.reporting.summary import read_rows
    from fedsynth.runs import newest_run

    folders = runs or [newest_run().folder]
    rows = [row for folder in folders for row in read_rows(folder)]
    target = out if out is not None else folders[0] / ("report-export.html" if export else "report.html")
    asked = [load_suite(folder / SUITE) for folder in folders if (folder / SUITE).is_file()]
    title = asked[0].name if len(folders) == len(asked) == 1 else "fedsynth report"
    published = asked[0].published if len(asked) == 1 else None
    atomic_files.write_text(target, report_page(rows, export=export, title=title, published=published))
    typer.echo(f"report     {target}")
