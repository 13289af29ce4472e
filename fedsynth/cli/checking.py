"""Would the command line take these words? Commands are read as if they were typed, and none is run."""

from collections.abc import Sequence
from functools import cache

import click
import typer


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
