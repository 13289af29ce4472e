"""`fedsynth suite`: a grid of federations, measured alike, and the table at the end."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import click
import typer

from fedsynth.cli.screen import print_table, steps_shown
from fedsynth.errors import ConfigError, nearest

# Would the command line take these words? Commands are read as if they were typed, and none is run.


@cache
def _program() -> click.Command:
    from fedsynth.cli import app

    program: click.Command = typer.main.get_command(app)
    return program


def check_command(words: Sequence[str]) -> None:
    """Raise what typing `fedsynth WORDS` would say of unknown commands and options, missing and unreadable values."""
    command = _program()
    context, rest = click.Context(command, info_name="fedsynth"), list(words)
    while isinstance(command, click.Group):
        name, found, rest = command.resolve_command(context, rest)
        assert found is not None  # else resolve_command has raised
        command = found
        if isinstance(command, click.Group):
            context = click.Context(command, parent=context, info_name=name)
        else:
            command.make_context(name, rest, parent=context)


if TYPE_CHECKING:
    from fedsynth.api.suite_schedule import Outcome
    from fedsynth.experiments.suite_config import Suite
    from fedsynth.reporting.summary import Facts

ENGINES = ("local", "ray")


def suite(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A suite, as benchmarks/quick.toml.")],
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Where cells and tables go; runs/NAME.")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Steps at a time (of Ray: cells), each on its own processor.")] = 1,
    engine: Annotated[str, typer.Option(help="local processes, or ray: tasks over a cluster.")] = "local",
    spend: Annotated[bool, typer.Option("--spend", help="Accept what private cells take from real patients.")] = False,
    plan: Annotated[bool, typer.Option("--plan", help="Only say what would be run and what it would spend.")] = False,
    export: Annotated[bool, typer.Option("--export", help="Leave out of the page what shows patients.")] = False,
) -> None:
    """Run a grid of cells that can be stopped and gone on with, and end in the privacy/utility table and a report.

    Exit code 3: some cell failed; it is named with its reason, and the rest is done.
    """
    from fedsynth.api.suites import run_suite
    from fedsynth.experiments.suite_config import load_suite
    from fedsynth.runs import RUNS

    if engine not in ENGINES:
        raise ConfigError("unknown --engine", value=engine, remedy=nearest(engine, ENGINES))
    if engine == "ray":
        from fedsynth.federation.engines.ray import require_ray

        require_ray()
    wanted = load_suite(file)
    target = RUNS / wanted.name if out is None else out
    _check_commands(wanted, target)
    if plan:
        _plan(wanted, target)
        return
    with steps_shown(f"suite {wanted.name}") as told:
        outcomes = run_suite(
            wanted,
            target.resolve(),
            jobs=jobs,
            engine=engine,  # type: ignore[arg-type]
            spend=spend,
            on_step=told,
        )
    _end(wanted, target, outcomes, export=export)


def _check_commands(wanted: "Suite", target: Path) -> None:
    """A slip in the last benchmark's options is found now, not after hours."""
    import click

    from fedsynth.experiments.suite import data_steps, jobs_of

    steps = [
        *data_steps(wanted, target).values(),
        *(step for job in jobs_of(wanted, target) for step in job.work.values()),
    ]
    for step in steps:
        try:
            check_command(step.command)
        except click.UsageError as error:
            problem = f"a cell's command would be refused: {error.format_message()}"
            raise ConfigError(problem, value=step.as_typed) from None


def _plan(wanted: "Suite", target: Path) -> None:
    """The cells, the work in each, and the summed budget."""
    from fedsynth.experiments.suite import data_steps, jobs_of, spending

    rows = []
    for job in jobs_of(wanted, target):
        cell = job.cell
        rows.append(
            [
                cell.name,
                str(cell.settings.get("generator", "dcgan")),
                str(cell.settings.get("federation", "average")),
                f"{cell.epsilon:g}" if cell.epsilon else "not private",
                "all" if cell.members is None else cell.members,
                cell.steps,
                ", ".join(cell.benchmarks),
                f"{len(job.done)} of {len(job.work)}",
            ]
        )
    heads = ["cell", "generator", "federation", "epsilon", "members", "steps a hospital", "measured by", "done"]
    print_table(heads, rows)
    typer.echo("")
    for folder in data_steps(wanted, target):
        typer.echo(f"images     {folder}: made first")
    if wanted.images is None:
        typer.echo("budget     phantoms: nothing is spent of anybody")
        return
    if not wanted.images.is_dir():
        typer.echo(f"images     {wanted.images}: not there yet")
        return
    from fedsynth.data import ImageSet

    total = spending(wanted, ImageSet.load(wanted.images, every_voxel=False))
    typer.echo(f"images     {wanted.images}")
    typer.echo(
        f"budget     epsilon {total:g} of every patient, all cells together" + ("; needs --spend" if total else "")
    )


def _end(wanted: "Suite", target: Path, outcomes: "list[Outcome]", *, export: bool) -> None:
    from fedsynth import atomic_files
    from fedsynth.experiments.suite import is_trained
    from fedsynth.reporting.comparison import FORMS, differences, reasons, shown_columns
    from fedsynth.reporting.html_page import report_page
    from fedsynth.reporting.summary import COLUMNS, read_rows

    rows = read_rows(target) if any(is_trained(one.run) for one in outcomes) else []
    if rows:
        columns = shown_columns(rows)
        print_table([COLUMNS[name].strip() for name in columns], [[r.cells[n].text for n in columns] for r in rows])
        for form, ending in (("csv", "csv"), ("markdown", "md"), ("latex", "tex")):
            atomic_files.write_text(target / f"table.{ending}", FORMS[form](rows, columns))
        page = report_page(rows, export=export, title=wanted.name, published=wanted.published)
        atomic_files.write_text(target / "report.html", page)
        _say_published(wanted, rows)
    for line in [*differences(rows), *reasons(rows)] if rows else []:
        typer.echo(f"note: {line}", err=True)
    failed = [one for one in outcomes if one.failed]
    for one in failed:
        typer.echo(f"failed: {one.cell.name}: {one.failed}", err=True)
    if rows:
        typer.echo(f"\ntable   {target / 'table.md'}\nreport  {target / 'report.html'}")
    if failed:
        raise typer.Exit(3)


def _say_published(wanted: "Suite", rows: "list[Facts]") -> None:
    from fedsynth.reporting.published_results import HEADS, published_lines, published_rows

    if wanted.published.figures:
        typer.echo("")
        print_table(HEADS, published_rows(wanted.published, rows))
        for line in published_lines(wanted.published):
            typer.echo(line)
