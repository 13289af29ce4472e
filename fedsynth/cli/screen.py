"""What commands show while they work: a bar on a terminal, a line every ten seconds elsewhere; JSON for programs."""

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer

from fedsynth.api.progress import Advance, Progress, Rounds, minutes, now_and_then

if TYPE_CHECKING:
    from fedsynth.federation.settings import FederationSettings


@contextmanager
def progress_bar(text: str, *, alike: bool = True) -> Iterator[Callable[[int, int], None]]:
    """A callback `progress(done, total)` that draws a bar on stderr, or writes lines where no person watches.

    Only where all steps take `alike` is the time left told, and are there lines beside those of the steps themselves.
    """
    if not sys.stderr.isatty():
        yield now_and_then(text, lambda line: typer.echo(line, err=True)) if alike else lambda done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()]
    with Progress(*columns, *([TimeRemainingColumn()] if alike else []), console=Console(stderr=True)) as bar:
        task = bar.add_task(text, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


class ScreenProgress(Progress):
    """Bars and live tables on stderr when a person watches, lines elsewhere; notes always."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def note(self, text: str) -> None:
        """A line on stderr."""
        typer.echo(text, err=True)

    @contextmanager
    def bar(self, text: str) -> Iterator[Advance]:
        """See `progress_bar`."""
        with progress_bar(text) as advance:
            yield advance

    @contextmanager
    def rounds(self, settings: "FederationSettings") -> Iterator[Rounds]:
        """A live table, or a line now and then."""
        from fedsynth.cli.rounds_screen import watch_rounds

        with watch_rounds(settings) as screen:
            yield screen
        self.seconds = screen.seconds


@contextmanager
def steps_shown(text: str) -> Iterator[Callable[[str, str, int, int], None]]:
    """A callback `told(cell, step, done, total)` that says of each step that it begins, and how long it took."""
    begun: dict[tuple[str, str], float] = {}
    with progress_bar(text, alike=False) as bar:  # a training takes a hundred times as long as an attack

        def told(cell: str, step: str, done: int, total: int) -> None:
            now, key = time.monotonic(), (cell, step)
            took = f" took {minutes(now - begun.pop(key))}" if key in begun else ""
            if not took:
                begun[key] = now
            typer.echo(f"[{done}/{total}] {cell}: {step}{took}", err=True)
            bar(done, total)

        yield told


def print_json(value: dict[str, Any]) -> None:
    """One JSON object on stdout; not-a-number becomes null."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A plain table on stdout, numbers to the right; it reads the same on a screen, in a pipe and in a file."""
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
    to_right = [any(map(str.strip, column)) and all(map(_is_number, column)) for column in zip(*cells, strict=True)]
    rule = ["-" * width for width in widths]
    for line in [list(columns), rule, *cells]:
        parts = zip(line, widths, to_right or [False] * len(widths), strict=True)
        typer.echo(
            "  ".join(cell.rjust(width) if right else cell.ljust(width) for cell, width, right in parts).rstrip()
        )


def _is_number(cell: str) -> bool:
    """Digits with what belongs to them, or a dash for none."""
    return set(cell) <= set("0123456789.,%+- ")
