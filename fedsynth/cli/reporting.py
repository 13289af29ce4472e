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
    from fedsynth import files
    from fedsynth.report.facts import read_rows
    from fedsynth.report.page import report_page
    from fedsynth.run import newest_run
    from fedsynth.study.suite import SUITE
    from fedsynth.study.suite_file import load_suite

    folders = runs or [newest_run().folder]
    rows = [row for folder in folders for row in read_rows(folder)]
    target = out if out is not None else folders[0] / ("report-export.html" if export else "report.html")
    asked = [load_suite(folder / SUITE) for folder in folders if (folder / SUITE).is_file()]
    title = asked[0].name if len(folders) == len(asked) == 1 else "fedsynth report"
    published = asked[0].published if len(asked) == 1 else None
    files.write_text(target, report_page(rows, export=export, title=title, published=published))
    typer.echo(f"report     {target}")
