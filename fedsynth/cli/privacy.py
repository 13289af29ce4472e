"""`fedsynth privacy`: what every hospital's patients have spent, and what is left."""

import math
from pathlib import Path
from typing import Annotated, Any

import typer

from fedsynth.cli.screen import print_json


def privacy(
    source: Annotated[
        Path | None, typer.Argument(metavar="[STORE_OR_RUN]", help="A store or a run; your own store when left away.")
    ] = None,
    cap: Annotated[float | None, typer.Option(help="Largest epsilon a patient may spend; shows what remains.")] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON object instead of a table.")] = False,
) -> None:
    """Show spent and remaining epsilon per site: the most that any patient has spent, over all runs."""
    from fedsynth.privacy.ledger import default_store
    from fedsynth.privacy.statement import check_cap, statement

    check_cap(cap)
    found = statement(default_store() if source is None else source, store=_store_of(source), cap=cap)
    if json:
        print_json(found)
    else:
        _show(found)


def _store_of(source: Path | None) -> Path | None:
    """The store that a run was told to use; None where it was told none, or where `source` is no run."""
    from fedsynth.run import Run

    if source is None or not Run(folder=source).config.is_file():
        return None
    told = Run(folder=source).settings().get("privacy", {})
    return Path(told["store"]) if "store" in told else None


def _show(found: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table("site", "run", title=f"{found['unit']} level, {found['adjacency']} adjacency", title_justify="left")
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
