"""Rounds and sites as they train: a live table for people who watch, a line now and then for pipes."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer

from fedsynth.api.progress import Rounds

if TYPE_CHECKING:
    from fedsynth.federation.error_codes import ErrorCode
    from fedsynth.federation.rounds import Progress
    from fedsynth.federation.settings import FederationSettings

LINES = 20  # how many a run writes into a pipe
BAR = 12


class Screen(Rounds):
    """What is known of the run while it goes on."""

    def __init__(self, settings: "FederationSettings") -> None:
        super().__init__(settings)
        self.begun = time.monotonic()
        self.since = self.begun
        self.round, self.first = 0, 0
        self.steps: dict[str, int] = {}
        self.rows: dict[str, dict[str, str]] = {}
        self.failed: dict[str, ErrorCode] = {}
        self.bytes = 0
        self.seconds = 0.0

    def watch(self, progress: "Progress") -> None:
        """A round begins, or has ended."""
        from fedsynth.privacy.accounting import rounded_up

        self.seconds = time.monotonic() - self.begun
        self.round = progress.round
        for site, code in progress.failed.items():
            if self.failed.get(site) != code:
                why = f"why stands in sites/{site}/site.log of the run"
                typer.echo(f"{site} takes no part: {code.value}; {why}", err=True)
        self.failed |= progress.failed
        for note in (*progress.notes, *(f"{reply.site}: {reply.note}" for reply in progress.replies if reply.note)):
            typer.echo(f"round {progress.round}: {note}", err=True)
        if not progress.replies:
            self.first = self.first or progress.round
            self.steps.clear()
            return
        for reply in progress.replies:
            metrics = reply.outcome.metrics
            self.bytes += reply.bytes_up + reply.bytes_down
            losses = {name.removesuffix("_loss"): value for name, value in metrics.items() if name.endswith("_loss")}
            epsilon = progress.epsilon.get(reply.site)
            self.rows[reply.site] = {
                "losses": "  ".join(f"{name} {value:.3f}" for name, value in losses.items() if value == value),
                "epsilon": "" if epsilon is None or epsilon != epsilon else f"{rounded_up(epsilon, 3):g}",
                "state": "answered" if reply.reason is None else reply.reason.value,
            }
        self.after_round(progress)

    def on_step(self, site: str, done: int, total: int) -> None:
        """A site took a step."""
        self.steps[site] = done

    def after_round(self, progress: "Progress") -> None:
        """A line, for pipes."""
        if progress.round % max(1, progress.rounds // LINES) and progress.round != progress.rounds:
            return
        missing = [f"{site} {row['state']}" for site, row in sorted(self.rows.items()) if row["state"] != "answered"]
        text = f"round {progress.round}/{progress.rounds}, {self.left()}"
        typer.echo(text + (f"; without {', '.join(missing)}" if missing else ""), err=True)

    def left(self) -> str:
        """The time that is left, by the rounds so far."""
        done = self.round - self.first + 1
        seconds = (time.monotonic() - self.since) / max(1, done) * (self.settings.rounds - self.round)
        return f"{int(seconds) // 60}:{int(seconds) % 60:02d} left"

    def table(self) -> Any:
        """The state of things, as rich draws it."""
        from rich.table import Table

        title = f"round {self.round} of {self.settings.rounds}   {self.left()}"
        exchanged = f"{self.bytes / 1e6:.1f} MB exchanged"
        table = Table(title=f"{title}   {exchanged}", title_justify="left", box=None, pad_edge=False)
        private = self.settings.privacy is not None
        for column in ("site", "this round", "losses", *(("epsilon spent",) if private else ()), "last round"):
            table.add_column(column)
        for site in sorted(self.rows.keys() | self.steps.keys()):
            row = self.rows.get(site, {"losses": "", "epsilon": "", "state": ""})
            done = self.steps.get(site, 0)
            full = round(BAR * done / self.settings.local_steps)
            bar = "━" * full + "·" * (BAR - full) + f" {done}/{self.settings.local_steps}"
            table.add_row(site, bar, row["losses"], *((row["epsilon"],) if private else ()), row["state"])
        return table


class LiveScreen(Screen):
    """The same, drawn anew a few times a second."""

    def after_round(self, progress: "Progress") -> None:
        """Nothing: the table shows it."""

    def __rich__(self) -> Any:
        return self.table()


@contextmanager
def watch_rounds(settings: "FederationSettings") -> Iterator[Screen]:
    """A screen for the block: live when a person watches, lines otherwise."""
    if not sys.stderr.isatty():
        screen = Screen(settings)
        yield screen
    else:
        from rich.console import Console
        from rich.live import Live

        screen = LiveScreen(settings)
        with Live(screen, console=Console(stderr=True), refresh_per_second=4, transient=True):
            yield screen
    screen.seconds = time.monotonic() - screen.begun
