"""The command line. Each command lives in the file of its topic; heavy imports happen inside the commands."""

import signal
from typing import Any, NoReturn

import click
import typer
from typer.core import TyperGroup

from fedsynth import __version__
from fedsynth.cli import phantom
from fedsynth.cli.benchmark import benchmark
from fedsynth.cli.compare import compare
from fedsynth.cli.deploy import deploy
from fedsynth.cli.import_files import import_files
from fedsynth.cli.inspect import inspect
from fedsynth.cli.list import listing
from fedsynth.cli.plan import plan
from fedsynth.cli.privacy import privacy
from fedsynth.cli.relabel import relabel
from fedsynth.cli.release import release, verify, withdraw
from fedsynth.cli.report import report
from fedsynth.cli.simulate import simulate
from fedsynth.cli.site import site
from fedsynth.cli.split import split
from fedsynth.cli.suite import suite
from fedsynth.cli.synthesize import export_set, synthesize
from fedsynth.cli.train import train
from fedsynth.cli.watch import watch
from fedsynth.errors import FedSynthError


class OneLineErrors(TyperGroup):
    """Turns what a user can act on into one line on stderr and exit code 2."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; what the user can mend is caught, everything else is a bug and keeps its traceback."""
        try:
            return super().invoke(ctx)
        except FedSynthError as error:
            typer.echo(f"fedsynth: {error}", err=True)
        except KeyboardInterrupt:
            typer.echo("fedsynth: stopped", err=True)
            raise typer.Exit(130) from None
        except click.exceptions.NoArgsIsHelpError:
            raise
        except click.UsageError as error:
            asked = error.ctx.command_path if error.ctx is not None else ctx.command_path
            message = " ".join(error.format_message().split()).removesuffix(".")
            typer.echo(f"fedsynth: {message}; see {asked} --help", err=True)
        raise typer.Exit(2)


app = typer.Typer(
    name="fedsynth",
    cls=OneLineErrors,
    no_args_is_help=True,
    suggest_commands=False,  # click suggests them itself
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Federated, private, synthetic medical images, and an honest answer to: may we share them?",
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"fedsynth {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: bool = typer.Option(False, "--version", callback=_show_version, is_eager=True, help="Show the version."),
) -> None:
    pass


app.command("import")(import_files)
app.command()(split)
app.add_typer(listing, name="list")
app.command()(phantom.phantom)
app.command()(inspect)
app.command()(relabel)
app.command()(train)
app.command()(simulate)
app.command()(plan)
app.command()(privacy)
app.command()(synthesize)
app.command("export")(export_set)
app.add_typer(benchmark, name="benchmark")
app.add_typer(site, name="site")
app.add_typer(deploy, name="deploy")
app.command()(compare)
app.command()(report)
app.command()(suite)
app.command()(watch)
app.command()(release)
app.command()(verify)
app.command()(withdraw)


def main() -> None:
    """The console script, `python -m fedsynth` and `python cli.py`."""
    signal.signal(signal.SIGTERM, _terminated)
    app()


def _terminated(number: int, frame: object) -> NoReturn:
    """A cluster's polite stop ends like Ctrl-C: what is half written is removed, images of patients above all."""
    raise SystemExit(128 + number)
