"""`fedsynth compare`: the table that a hospital decides by."""

from pathlib import Path
from typing import Annotated

import typer

from fedsynth.cli.screen import print_json, print_table
from fedsynth.errors import ConfigError, nearest


def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Finished runs, one row each.")],
    form: Annotated[str, typer.Option("--format", help="table, csv, markdown or latex.")] = "table",
    arm: Annotated[str, typer.Option(help="The arm of the utility benchmarks that is shown.")] = "synthetic",
    by: Annotated[str, typer.Option(help="Sort the rows by a column: epsilon, dice, verdict, ...")] = "",
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the table here instead.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Put runs side by side: what was spent, what leaked, and what the images are still good for."""
    from fedsynth import files
    from fedsynth.report.compare import FORMS, differences, reasons, shown_columns
    from fedsynth.report.facts import COLUMNS, read_facts

    if form not in ("table", *FORMS):
        remedy = nearest(form, ["table", *FORMS]) or "table, csv, markdown or latex"
        raise ConfigError("there is no such form", value=form, remedy=remedy)
    if by and by not in COLUMNS:
        raise ConfigError("there is no such column", value=by, remedy=nearest(by, COLUMNS) or ", ".join(COLUMNS))
    rows = [read_facts(run, arm=arm) for run in runs]
    if by:
        rows.sort(key=lambda row: ((v := row.cells[by].value) is None, v or 0.0, row.cells[by].text))
    columns, apart = shown_columns(rows), differences(rows)
    if as_json:
        cells = [{name: vars(cell) for name, cell in row.cells.items()} for row in rows]
        print_json({"rows": cells, "not_comparable": apart, "reasons": reasons(rows)})
        return
    if form != "table":
        text = FORMS[form](rows, columns)
        if out is None:
            typer.echo(text, nl=False)
        else:
            files.write_text(out, text)
    else:
        if out is not None:
            raise ConfigError("--out needs a form to write", remedy="give --format csv, markdown or latex")
        print_table([COLUMNS[name].strip() for name in columns], [[r.cells[n].text for n in columns] for r in rows])
    for line in apart:
        typer.echo(f"differs: {line}", err=True)
    for line in reasons(rows):
        typer.echo(f"why: {line}", err=True)
