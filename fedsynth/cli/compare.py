"""`fedsynth compare`: the table that a hospital decides by."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedsynth.cli.screen import print_json, print_table
from fedsynth.errors import ConfigError, nearest

if TYPE_CHECKING:
    from fedsynth.reporting.summary import Facts


def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Finished runs, one row each, or suites.")],
    form: Annotated[str, typer.Option("--format", help="table, csv, markdown or latex.")] = "table",
    arm: Annotated[str, typer.Option(help="The arm of the utility benchmarks that is shown.")] = "synthetic",
    by: Annotated[str, typer.Option(help="Sort the rows by a column: epsilon, dice, verdict, ...")] = "",
    columns: Annotated[
        str, typer.Option(help="Columns to show, as in epsilon,verdict,dice_ratio; all that hold anything if none.")
    ] = "",
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the table here instead.")] = None,
    picture: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw the privacy/utility frontier into this .svg.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Put runs side by side: what was spent, what leaked, and what the images are still good for.

    With --by epsilon the privacy/utility frontier is drawn below the table; --picture writes it as a file.
    """
    from fedsynth import atomic_files
    from fedsynth.api.reporting import chosen_columns, compared
    from fedsynth.reporting.comparison import FORMS, differences, reasons
    from fedsynth.reporting.frontier import frontier_text
    from fedsynth.reporting.summary import COLUMNS

    if form not in ("table", *FORMS):
        remedy = nearest(form, ["table", *FORMS]) or "table, csv, markdown or latex"
        raise ConfigError("there is no such form", value=form, remedy=remedy)
    if picture is not None and picture.suffix.lower() != ".svg":
        raise ConfigError("--picture is an SVG file", value=str(picture), remedy="give a name that ends in .svg")
    rows = compared(runs, arm=arm, by=by)
    if picture is not None:
        _draw(rows, picture)
    shown = chosen_columns(rows, [name.strip() for name in columns.split(",") if name.strip()])
    apart = differences(rows)
    if as_json:
        cells = [{name: vars(row.cells[name]) for name in (shown if columns else row.cells)} for row in rows]
        print_json({"rows": cells, "not_comparable": apart, "reasons": reasons(rows)})
        return
    if form != "table":
        text = FORMS[form](rows, shown)
        if out is None:
            typer.echo(text, nl=False)
        else:
            atomic_files.write_text(out, text)
    else:
        if out is not None:
            raise ConfigError("--out needs a form to write", remedy="give --format csv, markdown or latex")
        print_table([COLUMNS[name].strip() for name in shown], [[r.cells[n].text for n in shown] for r in rows])
        if by == "epsilon" and (drawn := frontier_text(rows)):
            typer.echo(f"\n{drawn}")
    for line in apart:
        typer.echo(f"differs: {line}", err=True)
    for line in reasons(rows):
        typer.echo(f"why: {line}", err=True)


def _draw(rows: "list[Facts]", path: Path) -> None:
    """The frontier as the report draws it; of Dice, or of accuracy where that alone was measured."""
    from fedsynth import atomic_files
    from fedsynth.reporting.frontier import frontiers

    drawn = frontiers(rows)
    if not drawn:
        problem = "there is no frontier to draw: two runs with Dice or accuracy are needed, one of them private"
        raise ConfigError(problem, remedy="leave --picture away, or benchmark the runs first")
    for number, chart in enumerate(drawn):
        target = path if number == 0 else path.with_name(f"{path.stem}-{number + 1}{path.suffix}")
        atomic_files.write_text(target, chart.file())
        typer.echo(f"picture    {target}", err=True)
