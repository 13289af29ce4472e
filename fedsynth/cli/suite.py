"""`fedsynth suite`: a grid of federations, measured alike, and the table at the end."""

from pathlib import Path
from typing import Annotated

import typer

from fedsynth.cli.screen import print_table, progress_bar


def suite(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A suite, as benchmarks/quick.toml.")],
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Where cells and tables go; runs/NAME.")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Cells at a time, each on its own processor.")] = 1,
    spend: Annotated[bool, typer.Option("--spend", help="Accept what private cells take from real patients.")] = False,
    export: Annotated[bool, typer.Option("--export", help="Leave out of the page what shows patients.")] = False,
) -> None:
    """Run a grid of cells that can be stopped and gone on with, and end in the privacy/utility table and a report."""
    from fedsynth import files
    from fedsynth.report.compare import FORMS, differences, reasons, shown_columns
    from fedsynth.report.facts import COLUMNS, read_facts
    from fedsynth.report.page import report_page
    from fedsynth.run import RUNS
    from fedsynth.study.suite import run_suite
    from fedsynth.study.suite_file import load_suite

    wanted = load_suite(file)
    target = RUNS / wanted.name if out is None else out
    with progress_bar(f"suite {wanted.name}") as bar:
        outcomes = run_suite(
            wanted, target.resolve(), jobs=jobs, spend=spend, on_step=lambda cell, step, done, total: bar(done, total)
        )
    rows = [read_facts(one.run) for one in outcomes if (one.run / "checkpoints" / "generator.toml").is_file()]
    if rows:
        columns = shown_columns(rows)
        print_table([COLUMNS[name].strip() for name in columns], [[r.cells[n].text for n in columns] for r in rows])
        for form, ending in (("csv", "csv"), ("markdown", "md"), ("latex", "tex")):
            files.write_text(target / f"table.{ending}", FORMS[form](rows, columns))
        files.write_text(target / "report.html", report_page(rows, export=export, title=wanted.name))
    for line in [*differences(rows), *reasons(rows)] if rows else []:
        typer.echo(f"note: {line}", err=True)
    failed = [one for one in outcomes if one.failed]
    for one in failed:
        typer.echo(f"failed: {one.cell.name}: {one.failed}", err=True)
    if rows:
        typer.echo(f"\ntable   {target / 'table.md'}\nreport  {target / 'report.html'}")
    if failed:
        raise typer.Exit(3)
