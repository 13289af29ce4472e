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


FILE = typer.Argument(..., help="The site's own file, site.toml.", show_default=False)


@site.command()
def status(
    file: Path = FILE,
    as_json: bool = typer.Option(False, "--json", help="Print one JSON object."),
) -> None:
    """Say what the node does: whether it runs, what was answered, refused and spent, which plans wait for approval."""
    from fedsynth.federation.deploy import health_page
    from fedsynth.federation.deploy.site_status import look_at
    from fedsynth.federation.site_context import load_site_file

    found = look_at(load_site_file(file))
    if as_json:
        print_json(health_page.as_json(found))
        return
    typer.echo(
        f"{found.name}: the node {'runs' if found.node_runs else 'does not run'}, for {found.server or 'nobody'}"
    )
    cap = "" if found.policy.max_epsilon is None else f" of {found.policy.max_epsilon:g}"
    typer.echo(f"spent    epsilon {found.spent:g}{cap} by the most charged patient")
    minutes, megabytes = found.policy.minutes_a_day, found.policy.megabytes_a_day
    typer.echo(
        f"today    {found.used.seconds / 60:.1f} minutes{'' if minutes is None else f' of {minutes:g}'}, "
        f"{found.used.bytes / 1e6:.1f} MB{'' if megabytes is None else f' of {megabytes:g}'} sent"
    )
    for run in found.runs:
        when = "never" if run.last is None else health_page.seconds_ago(run.last.timestamp())
        refusal = f", then: {run.refusal}" if run.refusal else ""
        typer.echo(f"run      {run.folder}: {run.answers} answers up to round {run.last_round}, last {when}{refusal}")
    for code, count in found.refusals:
        typer.echo(f"refusal  {count} x {code}")
    for name in found.waiting:
        typer.echo(f"waiting  {name}: read and approve it with: fedsynth site approve {file}")


@site.command()
def health(
    file: Path = FILE,
    address: str = typer.Option("127.0.0.1", help="Where the page opens; whoever reaches it reads it."),
    port: int = typer.Option(9464, help="Its port."),
) -> None:
    """Open a page that says what the node does: /health as JSON, /metrics for Prometheus; the policy can close it."""
    from fedsynth.federation.deploy.health_page import open_health_page

    with open_health_page(file, address=address, port=port) as page:
        typer.echo(f"http://{address}:{page.server_port}/health and /metrics", err=True)
        page.serve_forever()


@site.command()
def approve(
    file: Path = FILE,
    plan: Path | None = typer.Option(None, metavar="FILE", help="The server's federation.toml, before a run."),
    show: bool = typer.Option(False, "--show", help="Show the plans and approve none."),
) -> None:
    """Show each plan that waits as a page, and approve it when its name is typed.

    The installed fedsynth takes part in no other. A server that hands the node other code is not bound by it.
    """
    from fedsynth.errors import ConfigError, FedSynthError
    from fedsynth.federation import approval
    from fedsynth.federation.asked import asked_of
    from fedsynth.federation.deploy.site_status import look_at
    from fedsynth.federation.site_context import load_site_file

    place = load_site_file(file)
    found = look_at(place)
    if found.policy.approved is None:
        remedy = 'add to it: approved = "approved.toml"'
        raise ConfigError("the policy asks for no approval", file=place.policy, remedy=remedy)
    plans = approval.waiting(place.folder) if plan is None else [approval.read_plan(plan)]
    if not plans:
        typer.echo("No plan waits for approval.")
    for one in plans:
        try:
            page = approval.page(one, found.policy, asked_of(one.settings, place.name), spent=found.spent)
        except FedSynthError as error:
            if plan is not None:
                raise
            typer.echo(f"A plan cannot be shown, nor approved: {error} ({one.waits_in(place.folder)})")
            continue
        typer.echo(page)
        if show:
            continue
        typed = typer.prompt("Type the plan's name to approve it, or press return", default="", show_default=False)
        if typed.strip() == one.name:
            approval.approve(one, found.policy.approved, place.folder)
            typer.echo(f"Approved: {one.name}, in {found.policy.approved}")
        else:
            typer.echo("Not approved.")
