"""The command line as a page of Markdown: `make docs` writes docs/cli.md, and a test holds the page to the code.

It reads commands and options only and runs none of them.
"""

from collections.abc import Iterator

import click
import typer


def page(app: typer.Typer) -> str:
    """Every command with its arguments and options."""
    root = typer.main.get_command(app)
    parts = ["# The command line", "", "Written from the code by `make docs`.", ""]
    for path, command in _commands(root, ("fedsynth",)):
        parts += [f"## {' '.join(path)}", "", _help(command), "", *_parameters(command)]
    return "\n".join(parts).rstrip() + "\n"


def _commands(command: click.Command, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    if isinstance(command, click.Group):
        for name in sorted(command.commands):
            yield from _commands(command.commands[name], (*path, name))
    else:
        yield path, command


def _help(command: click.Command) -> str:
    return " ".join((command.help or "").split())


def _parameters(command: click.Command) -> list[str]:
    rows = [_row(one) for one in command.params if one.name != "help" and not getattr(one, "hidden", False)]
    if not rows:
        return []
    return ["| | | default |", "|---|---|---|", *(f"| {' | '.join(row)} |" for row in rows), ""]


def _row(parameter: click.Parameter) -> tuple[str, str, str]:
    if isinstance(parameter, click.Argument):
        return f"`{parameter.make_metavar(click.Context(click.Command('')))}`", _text(parameter), ""
    assert isinstance(parameter, click.Option)
    names = ", ".join(f"`{name}`" for name in (*parameter.opts, *parameter.secondary_opts))
    default = parameter.default
    plain = default is None or default is False or default == () or default == [] or default == "" or callable(default)
    unset = type(default).__name__ == "Sentinel"
    return names, _text(parameter), "" if plain or unset else f"`{default}`"


def _text(parameter: click.Parameter) -> str:
    return " ".join((getattr(parameter, "help", None) or "").split()).replace("|", "\\|")


if __name__ == "__main__":
    from fedsynth.cli import app

    typer.echo(page(app), nl=False)
