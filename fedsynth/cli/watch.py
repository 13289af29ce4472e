"""`fedsynth watch`: a page on this machine that shows a run while it goes on."""

from pathlib import Path
from typing import Annotated

import typer


def watch(
    run: Annotated[
        Path | None, typer.Argument(metavar="RUN", help="A run or a suite, going on or finished; the newest if none.")
    ] = None,
    port: Annotated[int, typer.Option(help="Its port on loopback; 0 takes a free one.")] = 8642,
) -> None:
    """Show rounds, time left, losses by site, epsilon spent and the newest pictures on a page that reloads by itself.

    It opens on loopback only, at an address that nobody can guess, and changes nothing in the run. Private runs have no
    time left: time tells how many patients were drawn. Ctrl-C ends it.
    """
    from fedsynth.reporting.watch_page import open_watch_page
    from fedsynth.runs import newest_run

    with open_watch_page(run or newest_run().folder, port=port) as page:
        typer.echo(page.url, err=True)
        page.serve_forever()
