"""`fedsynth site ...`: what a hospital does at home, before and while it takes part."""

from pathlib import Path
from typing import Annotated

import typer

from fedsynth.cli.screen import print_json

site = typer.Typer(no_args_is_help=True, help="What a hospital does at home.")


@site.callback()
def _site() -> None:
    pass


@site.command("check")
def check(
    file: Annotated[Path, typer.Argument(help="The site's own file, site.toml.", show_default=False)],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Say before joining whether images, policy, ledger, certificates, disk and clock are in order.

    Ends with exit code 0 only when nothing is wrong.
    """
    from fedsynth.federation.deploy.preflight import check_site, in_order

    findings = check_site(file)
    ready = in_order(findings)
    if as_json:
        listed = [{"what": one.what, "state": one.state, "text": one.text} for one in findings]
        print_json({"schema": "fedsynth.site-check/1", "file": str(file), "ready": ready, "findings": listed})
    else:
        width = max(len(one.what) for one in findings)
        for one in findings:
            typer.echo(f"{one.state:<7}  {one.what:<{width}}  {one.text}")
        typer.echo("Ready to join." if ready else "Not ready.")
    if not ready:
        raise typer.Exit(2)
