"""`fedsynth privacy`: what every hospital's patients have spent, and what is left."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedsynth.cli.screen import print_json

if TYPE_CHECKING:
    from fedsynth.privacy.lineage import Lineage
    from fedsynth.runs import Run
    from fedsynth.training.checkpoint import Card


def privacy(
    source: Annotated[
        Path | None, typer.Argument(metavar="[STORE_OR_RUN]", help="A store or a run; your own store when left away.")
    ] = None,
    cap: Annotated[float | None, typer.Option(help="Largest epsilon a patient may spend; shows what remains.")] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON object instead of a table.")] = False,
) -> None:
    """Show spent and remaining epsilon per site: the most that any patient has spent, over all runs."""
    from fedsynth.privacy.ledger import default_store
    from fedsynth.privacy.report import check_cap, statement

    check_cap(cap)
    place, store, lineage = default_store() if source is None else source, _store_of(source), _lineage_of(source)
    found = statement(place, store=store, cap=cap, lineage=lineage)
    if json:
        print_json(found)
    else:
        _show(found)


def _store_of(source: Path | None) -> Path | None:
    """The store that a run was told to use; None where it was told none, or where `source` is no run."""
    from fedsynth.runs import Run

    if source is None or not Run(folder=source).config.is_file():
        return None
    told = Run(folder=source).settings().get("privacy", {})
    return Path(told["store"]) if "store" in told else None


def _lineage_of(source: Path | None) -> "Lineage | None":
    """Of a finished run. Of one that goes on from another and does not say what that cost whom, nothing is known."""
    from fedsynth.privacy.lineage import Lineage, LineageRun
    from fedsynth.runs import Run
    from fedsynth.training.checkpoint import CARD
    from fedsynth.training.lineage import lineage_of

    run = None if source is None else Run(folder=source)
    found = lineage_of(run) if run is not None and (run.checkpoints / CARD).is_file() else None
    start = run.settings().get("start") if run is not None and run.config.is_file() else None
    if run is None or start is None or (found is not None and len(found.runs) > 1):
        return found
    names = (Path(start).name, run.folder.name)
    runs = (LineageRun(run=name, generator="?", images="?", steps=0, training="unknown") for name in names)
    return Lineage(runs=tuple(runs))


def spent_over_all(run: "Run", card: "Card") -> float | None:
    """The most that any patient of a private run has spent over all runs of its store; None where nobody can tell."""
    from fedsynth.privacy.report import spent_by

    own = card.lineage.runs[-1]
    totals = [spent_by(group, _store_of(run.folder)) for group in own.patients if own.training == "private"]
    return max((total for total in totals if total is not None), default=None)


def say_spent_over_all(run: "Run", card: "Card", *, column: int) -> None:
    """A line at the end of a private run, where its patients have spent more than it alone costs them."""
    from fedsynth.privacy.accounting import rounded_up

    alone = max((group.epsilon for group in card.lineage.runs[-1].patients), default=math.inf)
    total = spent_over_all(run, card)
    if total is not None and total > alone * 1.001:
        spent, own = (f"epsilon {rounded_up(value, 3):g}" for value in (total, alone))
        typer.echo(f"{'in all':{column}}{spent} spent by some patient over all runs of the store; this run alone {own}")


def _show(found: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from fedsynth.privacy.accounting import rounded_up

    table = Table(title=f"{found['unit']} level, {found['adjacency']} adjacency", title_justify="left")
    for heading in ("site", "run"):
        table.add_column(heading, overflow="fold")
    for heading in ("epsilon", "Renyi", "replaced", "delta", "steps", "left"):
        table.add_column(heading, justify="right")
    for site, one in found["per_site"].items():
        figures = [_text(one["epsilon"], one)]
        figures += [_text(one[key], one) if one["private"] else "-" for key in ("epsilon_renyi", "epsilon_replace_one")]
        table.add_row(escape(site), "all runs", *figures, f"{one['delta']:g}", str(one["steps"]), _left(one))
        for run, cost in one["runs"].items():
            table.add_row("", escape(run), _text(cost["epsilon"], cost), "", "", "", str(cost["steps"]), "")
    console = Console(soft_wrap=True)
    console.print(table)
    for site, one in found["per_site"].items():
        if "why" in one:
            console.print(f"{escape(site)}: {escape(one['why'])}")
        for run, cost in one["runs"].items():
            if "holds_against" in cost:
                console.print(f"{escape(site)}: {escape(run)} holds only against {escape(cost['holds_against'])}")
    for line in found.get("lineage", {}).get("runs", ()):
        console.print(f"lineage: {escape(line)}")
    if found.get("lineage"):
        total, why = found["lineage"]["epsilon"], found["lineage"]["why"]
        console.print(f"whole lineage: {escape(why) if total is None else f'epsilon {rounded_up(total, 3):g}'}")
    console.print(escape(found["note"]) + ".")


def _left(one: dict[str, Any]) -> str:
    """What remains of the cap, never more than there is."""
    if one["remaining"] is None:
        return "no cap"
    return f"{math.floor(one['remaining'] * 1000) / 1000:g}"


def _text(value: float | None, of: dict[str, Any]) -> str:
    from fedsynth.privacy.accounting import rounded_up

    if value is None:
        return "infinite" if of["private"] else "NOT PRIVATE"
    return f"{rounded_up(value, 3):g}"
